//! `pontoon audit`: who is connected to a group right now, asked of each of its nodes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;

use crate::config::Route;
use crate::credentials::Credentials;
use crate::group::{Asking, Evidence, ListClients, NodeEvidence, SimilarClients, gather};
use crate::printable::{printable, printable_json};

/// How to audit.
pub struct AuditOptions {
    /// Write JSON.
    pub json: bool,
    /// Clients whose name begins so are bridged.
    pub bridges: Vec<String>,
}

/// Asks every node; fails unless all of them answer and count no client in plaintext.
pub fn run(route: &Route, options: AuditOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let AuditOptions { json, bridges } = options;
    let credentials = route.upstream.auth.as_ref().map(|auth| Arc::new(Credentials::new(auth)));
    if let Some(credentials) = &credentials {
        // Once, before every node is asked in vain.
        runtime.block_on(credentials.ready())?;
    }
    let asking = Asking {
        settings: route.upstream.clone(),
        credentials,
        bridges,
        clients: ListClients::Always,
        all_must_exist: true,
    };
    let evidence = runtime.block_on(gather(&asking))?;
    if json {
        say!("{}", printable_json(&serde_json::to_string(&evidence)?));
    } else {
        print(&evidence);
    }
    if evidence.is_clean() {
        return Ok(());
    }
    bail!("{}", why(&evidence));
}

/// Why the group is not known to be free of plaintext.
fn why(Evidence { nodes, .. }: &Evidence) -> String {
    let silent = nodes.iter().filter(|node| node.problem.is_some()).count();
    if silent > 0 {
        return format!("{silent} of {} nodes did not answer", nodes.len());
    }
    let unknown = nodes.iter().filter(|node| node.plaintext_clients.is_none()).count();
    let counted: u64 = nodes.iter().filter_map(|node| node.plaintext_clients).sum();
    match (counted, unknown) {
        (0, _) => format!(
            "{unknown} of {} nodes do not count their plaintext clients (tls_mode_connected_tcp_clients is ElastiCache's): \
             whether there are any is not known",
            nodes.len()
        ),
        (counted, 0) => format!("{counted} clients are connected in plaintext"),
        (counted, unknown) => {
            format!("{counted} clients are connected in plaintext, and {unknown} nodes do not count theirs")
        }
    }
}

fn print(evidence: &Evidence) {
    say!(
        "{:<40} {:<8} {:>9} {:>9} {:>8} {:>7} {:>8}  engine",
        "node",
        "role",
        "plaintext",
        "connected",
        "bridged",
        "direct",
        "unknown"
    );
    let count = |count: Option<u64>| count.map_or_else(|| "unknown".to_owned(), |count| count.to_string());
    for node in &evidence.nodes {
        let NodeEvidence { endpoint, role, plaintext_clients, connected_clients, .. } = node;
        if let Some(problem) = &node.problem {
            say!("{:<40} {}", printable(endpoint), printable(problem));
            continue;
        }
        say!(
            "{:<40} {:<8} {:>9} {:>9} {:>8} {:>7} {:>8}  {}",
            printable(endpoint),
            printable(role.as_deref().unwrap_or("unknown")),
            count(*plaintext_clients),
            count(*connected_clients),
            count(node.bridged),
            count(node.direct),
            count(node.unknown),
            printable(node.engine.as_deref().unwrap_or("unknown"))
        );
        if let Some(words) = &node.list_refused {
            say!("{:<40} CLIENT LIST is not allowed: {}", "", printable(words));
        }
    }
    list("Clients that come through no bridge:", &evidence.direct);
    list(
        "Clients that may come through a bridge or not (the server tells no names of libraries for them):",
        &evidence.unknown,
    );
}

fn list(title: &str, groups: &[SimilarClients]) {
    if !groups.is_empty() {
        say!("\n{title}");
        say!("{:>7} {:>12}  {:<24} {:<16} {:<20} address", "clients", "oldest", "library", "user", "name");
    }
    for SimilarClients { library, version, user, name, address, clients, oldest_seconds } in groups {
        let library = if library.is_empty() { "unknown".into() } else { format!("{library} {version}") };
        let oldest = humantime::format_duration(Duration::from_secs(*oldest_seconds)).to_string();
        say!(
            "{clients:>7} {oldest:>12}  {:<24} {:<16} {:<20} {}",
            printable(library.trim_end()),
            printable(user),
            printable(name),
            printable(address)
        );
    }
}
