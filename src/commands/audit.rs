//! `pontoon audit`: asks each node of a group for its clients, once or for a while, and prints them.
//!
//! Asking the nodes and grouping their clients is `group`'s work.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::{IsTerminal, Write as _, stderr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::signal::unix::{SignalKind, signal};

use super::colour::Tint;
use super::json::print_json;
use super::table::Table;
use crate::config::Route;
use crate::counted::counted;
use crate::credentials::Credentials;
use crate::group::{
    Asking, ListClients, NodeEvidence, PlaintextAccess, SeenClients, SimilarClients, WatchEvent, WatchPace,
    WatchReport, WatchedNode, gather, watch,
};
use crate::moment::Moment;
use crate::printable::printable;
use crate::tls::TlsMode;

/// Options of `pontoon audit`.
pub struct AuditOptions {
    /// Write JSON.
    pub json: bool,
    /// Prefixes of client names. Clients with such a name use a bridge.
    pub bridges: Vec<String>,
    /// How often and how long to ask. `None` asks once.
    pub watch: Option<WatchPace>,
}

/// Asks every node. Fails unless all nodes answer, and count no plaintext client or refuse plaintext.
pub fn run(route: &Route, options: AuditOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let AuditOptions { json, bridges, watch } = options;
    let credentials = route.upstream.auth.as_ref().map(|auth| Arc::new(Credentials::new(auth)));
    if let Some(credentials) = &credentials {
        // Without credentials, every node would refuse the request.
        runtime.block_on(credentials.ready())?;
    }
    let asking = Asking {
        settings: route.upstream.clone(),
        credentials,
        bridges,
        clients: ListClients::Always,
        all_must_exist: true,
    };
    match watch {
        None => runtime.block_on(once(&asking, json)),
        Some(pace) => runtime.block_on(for_a_while(&asking, &pace, json)),
    }
}

async fn once(asking: &Asking, json: bool) -> anyhow::Result<()> {
    let evidence = gather(asking).await?;
    if json {
        print_json(&evidence);
    } else {
        print_nodes(&evidence.nodes);
        let rows = [&evidence.direct, &evidence.unknown, &evidence.bridged]
            .map(|groups| groups.iter().map(|clients| ClientRow { clients, seen: None }).collect());
        print_clients(rows);
    }
    if !evidence.nodes.is_empty() && evidence.nodes.iter().all(NodeEvidence::has_no_plaintext) {
        if !json {
            say!("\n{}", clean(&evidence.nodes.iter().collect::<Vec<_>>(), 1));
        }
        return Ok(());
    }
    bail!("{}", why(&evidence.nodes, asking.settings.tls.mode));
}

async fn for_a_while(asking: &Asking, pace: &WatchPace, json: bool) -> anyhow::Result<()> {
    let mut signals = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
    let end = async {
        let [interrupt, terminate] = &mut signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let mut progress =
        Progress { began: Instant::now(), length: pace.length, is_shown: stderr().is_terminal() };
    let report = watch(asking, pace, end, |event| progress.tell(&event)).await?;
    progress.clear();
    if json {
        print_json(&report);
    } else {
        print_report(&report);
    }
    if report.is_clean() {
        if !json {
            say!(
                "\n{}",
                clean(&report.nodes.iter().map(|node| &node.last).collect::<Vec<_>>(), report.samples)
            );
        }
        return Ok(());
    }
    bail!("{}", why_watched(&report, asking.settings.tls.mode));
}

/// Returns the closing line for the case that every node answered each time, and none has or accepts a client in plaintext.
fn clean(nodes: &[&NodeEvidence], samples: u64) -> String {
    let refusing = nodes.iter().filter(|node| node.plaintext_clients.is_none()).count();
    let each = if samples > 1 { format!(" in each of {samples} samples") } else { String::new() };
    let all = nodes.len();
    let result = match (all - refusing, refusing) {
        (_, 0) => "no client is connected in plaintext".into(),
        (0, _) => "plaintext is refused".into(),
        (_, refusing) => {
            let refuse = if refusing == 1 { "node refuses" } else { "nodes refuse" };
            format!("no client is counted in plaintext, and {refusing} {refuse} plaintext")
        }
    };
    format!("{all} of {} answered{each}: {result}", counted(all, "node"))
}

fn print_report(report: &WatchReport) {
    let WatchReport { began, ended, samples, nodes, not_listed, .. } = report;
    say!("{} from {began} to {ended}\n", counted(*samples as usize, "sample"));
    print_nodes(&nodes.iter().map(|node| node.last.clone()).collect::<Vec<_>>());
    for WatchedNode { last, unanswered_samples } in nodes.iter().filter(|node| node.unanswered_samples > 0) {
        let endpoint = printable(&last.endpoint);
        let samples = counted(*samples as usize, "sample");
        say!("{endpoint}: {} in {unanswered_samples} of {samples}", Tint::Bad.paint("no answer"));
    }
    print_clients(
        [&report.direct, &report.unknown, &report.bridged]
            .map(|groups| groups.iter().map(ClientRow::from).collect()),
    );
    if *not_listed > 0 {
        let missing = counted(*not_listed as usize, "client");
        say!("\nThe lists are full: up to {missing} of one sample are missing.");
    }
}

/// Returns why the watch did not show that the group has no plaintext clients.
fn why_watched(WatchReport { nodes, samples, .. }: &WatchReport, mode: TlsMode) -> String {
    let last: Vec<_> = nodes.iter().map(|node| node.last.clone()).collect();
    let is_silent = |node: &&WatchedNode| node.last.problem.is_none() && node.unanswered_samples > 0;
    let silent = nodes.iter().filter(is_silent).count();
    if nodes.is_empty() {
        "the watch ended before the first sample".into()
    } else if last.iter().all(NodeEvidence::has_no_plaintext) {
        let (nodes, samples) = (counted(nodes.len(), "node"), counted(*samples as usize, "sample"));
        format!("{silent} of {nodes} did not answer in each of {samples}")
    } else {
        why(&last, mode)
    }
}

/// Shows the progress of a watch in one line of a terminal.
struct Progress {
    began: Instant,
    length: Duration,
    is_shown: bool,
}

impl Progress {
    fn tell(&mut self, event: &WatchEvent<'_>) {
        match event {
            WatchEvent::Sampled { samples, nodes, rows } if self.is_shown => {
                let time = |time: Duration| age(time.as_secs());
                let _ = write!(
                    stderr(),
                    "\r\x1b[K{} of {}: {}, {}, {} of clients. Ctrl-C ends the watch and prints them",
                    time(self.began.elapsed()),
                    time(self.length),
                    counted(*samples as usize, "sample"),
                    counted(*nodes, "node"),
                    counted(*rows, "row")
                );
            }
            WatchEvent::Sampled { .. } => {}
            WatchEvent::Silent(node) => {
                self.clear();
                let problem = node.problem.as_deref().unwrap_or_default();
                let (endpoint, problem) = (printable(&node.endpoint), printable(problem));
                let _ = writeln!(stderr(), "{} {endpoint}: no answer: {problem}", Moment::now());
            }
            WatchEvent::Answers(node) => {
                self.clear();
                let _ = writeln!(stderr(), "{} {}: answers again", Moment::now(), printable(&node.endpoint));
            }
        }
    }

    fn clear(&self) {
        if self.is_shown {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

/// Whether the words of a failed TLS handshake are those about a plaintext port.
fn is_of_a_plaintext_port(problem: &str) -> bool {
    ["transit encryption off?", "transit encryption on?"].iter().any(|words| problem.contains(words))
}

/// Returns why the answers do not show that the group has no plaintext clients.
fn why(nodes: &[NodeEvidence], mode: TlsMode) -> String {
    let all = counted(nodes.len(), "node");
    let silent = nodes.iter().filter(|node| node.problem.is_some()).count();
    if silent > 0 {
        let refuses_tls = |node: &NodeEvidence| node.problem.as_deref().is_some_and(is_of_a_plaintext_port);
        let is_next = mode == TlsMode::Required && nodes.iter().all(refuses_tls);
        let next = if is_next { ". If the group has no TLS yet, use --tls-mode preferred" } else { "" };
        return format!("{silent} of {all} did not answer{next}");
    }
    let plaintext: u64 = nodes.iter().filter_map(|node| node.plaintext_clients).sum();
    let uncounted: Vec<_> =
        nodes.iter().filter(|node| node.plaintext_clients.is_none() && !node.has_no_plaintext()).collect();
    let accepts = |node: &&&NodeEvidence| {
        matches!(node.plaintext, Some(PlaintextAccess::Accepted | PlaintextAccess::OtherPort(_)))
    };
    let accepting: Vec<_> = uncounted.iter().filter(accepts).collect();
    let includes_audit = nodes.iter().any(|node| node.asked_in_plaintext && node.plaintext_clients.is_some());
    let ourselves = if includes_audit { ", this audit included" } else { "" };
    let do_not_count = |count: usize| if count == 1 { "does not count its" } else { "do not count their" };
    match (plaintext, uncounted.len()) {
        (0, _) if !accepting.is_empty() => {
            let accept = if accepting.len() == 1 { "accepts" } else { "accept" };
            let clients = match accepting.iter().filter_map(|node| clients(node)).sum::<u64>() {
                0 => String::new(),
                clients => format!(". Up to {} may use plaintext", counted(clients as usize, "client")),
            };
            format!(
                "{} of {all} {accept} plaintext and {} plaintext clients{clients}",
                accepting.len(),
                do_not_count(accepting.len())
            )
        }
        (0, unknown) => format!(
            "{unknown} of {all} {} plaintext clients (only ElastiCache has tls_mode_connected_tcp_clients), so there may be \
             some",
            do_not_count(unknown)
        ),
        (counted_clients, unknown) => {
            let are = if counted_clients == 1 { "is" } else { "are" };
            let clients = counted(counted_clients as usize, "client");
            let rest = match unknown {
                0 => String::new(),
                unknown => {
                    format!(", and {} {} plaintext clients", counted(unknown, "node"), do_not_count(unknown))
                }
            };
            format!("{clients} {are} connected in plaintext{ourselves}{rest}")
        }
    }
}

/// Returns the number of clients in a node's list, or the node's own count if it gave no list.
fn clients(node: &NodeEvidence) -> Option<u64> {
    match (node.bridged, node.unknown) {
        (Some(bridged), Some(unknown)) => Some(bridged + unknown + node.direct.unwrap_or(0)),
        _ => node.connected_clients,
    }
}

fn print_nodes(nodes: &[NodeEvidence]) {
    let count = |count: Option<u64>| count.map_or_else(|| "unknown".to_owned(), |count| count.to_string());
    let mut table =
        Table::new(["NODE", "ROLE", "PLAINTEXT", "CONNECTED", "BRIDGED", "DIRECT", "UNKNOWN", "ENGINE"]);
    for node in nodes.iter().filter(|node| node.problem.is_none()) {
        let words = |words: &Option<String>| words.clone().unwrap_or_else(|| "unknown".into());
        let plaintext = match node.plaintext {
            Some(PlaintextAccess::Refused) => "refused".to_owned(),
            _ => count(node.plaintext_clients),
        };
        table.row([
            node.endpoint.clone(),
            words(&node.role),
            plaintext,
            count(node.connected_clients),
            count(node.bridged),
            count(node.direct),
            count(node.unknown),
            words(&node.engine),
        ]);
    }
    if nodes.iter().any(|node| node.problem.is_none()) {
        say!("{table}");
    }
    for node in nodes {
        let endpoint = printable(&node.endpoint);
        if let Some(problem) = &node.problem {
            say!("{endpoint}: {}: {}", Tint::Bad.paint("no answer"), printable(problem));
        }
        if node.asked_in_plaintext {
            say!("{endpoint}: asked in plaintext");
        }
        match &node.plaintext {
            Some(PlaintextAccess::OtherPort(port)) => say!("{endpoint}: accepts plaintext on port {port}"),
            Some(PlaintextAccess::Unknown(why)) => {
                say!("{endpoint}: may accept plaintext: {}", printable(why));
            }
            Some(PlaintextAccess::Accepted | PlaintextAccess::Refused) | None => {}
        }
        if let Some(words) = &node.list_refused {
            say!("{endpoint}: CLIENT LIST is not allowed: {}", printable(words));
        }
    }
}

/// Similar clients, as one row of a table.
struct ClientRow<'a> {
    clients: &'a SimilarClients,
    /// The first and the last time that they were seen. `None` if the nodes were asked once.
    seen: Option<(Moment, Moment)>,
}

impl<'a> From<&'a SeenClients> for ClientRow<'a> {
    fn from(SeenClients { clients, first_seen, last_seen }: &'a SeenClients) -> Self {
        Self { clients, seen: Some((*first_seen, *last_seen)) }
    }
}

/// Identifies an application: its clients' name, library, version and user.
type Application<'a> = [&'a str; 4];

/// Prints three lists: clients that use no bridge, clients that may use one, and clients that use one.
fn print_clients(lists: [Vec<ClientRow<'_>>; 3]) {
    let titles = [
        "Clients that use no bridge:",
        "Clients that may use a bridge (the server reports no library for them):",
        "Clients that use a bridge:",
    ];
    for (title, list) in titles.into_iter().zip(lists) {
        if !list.is_empty() {
            say!("\n{title}\n{}", applications(list));
        }
    }
}

/// Returns a table with a row for each application, followed by a row for each of its addresses.
fn applications(list: Vec<ClientRow<'_>>) -> Table<4> {
    let when = if list.iter().any(|row| row.seen.is_some()) { "FIRST AND LAST SEEN (UTC)" } else { "OLDEST" };
    let mut table = Table::new(["APPLICATION", "CLIENTS", when, "LAST COMMANDS"]);
    let mut applications: HashMap<Application<'_>, Vec<ClientRow<'_>>> = HashMap::new();
    for row in list {
        let SimilarClients { name, library, version, user, .. } = row.clients;
        applications.entry([name, library, version, user]).or_default().push(row);
    }
    let sum = |rows: &[ClientRow<'_>]| rows.iter().map(|row| row.clients.clients).sum::<u64>();
    let mut applications: Vec<_> = applications.into_iter().collect();
    applications.sort_by_key(|(application, rows)| (Reverse(sum(rows)), *application));
    for ([name, library, version, user], rows) in applications {
        let name = if name.is_empty() { "(no name)" } else { name };
        let library =
            if library.is_empty() { "unknown library".into() } else { format!("{library} {version}") };
        let application = format!("{name}, {}, user {user}", library.trim_end());
        table.row([application, sum(&rows).to_string(), String::new(), String::new()]);
        for ClientRow { clients, seen } in rows {
            table.row([
                format!("  {}", clients.address),
                clients.clients.to_string(),
                seen.map_or_else(|| age(clients.oldest_seconds), |(first, last)| span(first, last)),
                clients.commands.join(" "),
            ]);
        }
    }
    table
}

/// Formats a period: `2026-11-29 12:30:00 to 12:45:10`.
fn span(first: Moment, last: Moment) -> String {
    let [first, last] = [first, last].map(|at| at.to_string().replace('T', " ").replace('Z', ""));
    let (date, time) = last.split_once(' ').unwrap_or_default();
    let end = if first.starts_with(date) { time } else { &last };
    format!("{first} to {end}")
}

/// Formats a time in its two largest units: `1day 2h`.
fn age(seconds: u64) -> String {
    let words = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    words.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;

    #[test]
    fn the_closing_line_agrees_in_number() {
        let node = |plaintext_clients, accepts| NodeEvidence {
            plaintext_clients,
            asked_in_plaintext: accepts,
            plaintext: plaintext_clients.is_none().then_some(if accepts {
                PlaintextAccess::Accepted
            } else {
                PlaintextAccess::Unknown("not reached".into())
            }),
            connected_clients: Some(4),
            ..serde_json::from_value(serde_json::json!({"endpoint": "a:1"})).unwrap()
        };
        let counting = || node(Some(0), false);
        let refusing = || NodeEvidence { plaintext: Some(PlaintextAccess::Refused), ..node(None, false) };
        assert_eq!(clean(&[&counting()], 1), "1 of 1 node answered: no client is connected in plaintext");
        assert_eq!(
            clean(&[&counting(), &counting()], 9),
            "2 of 2 nodes answered in each of 9 samples: no client is connected in plaintext"
        );
        assert_eq!(clean(&[&refusing()], 1), "1 of 1 node answered: plaintext is refused");
        assert_eq!(
            clean(&[&counting(), &refusing()], 1),
            "2 of 2 nodes answered: no client is counted in plaintext, and 1 node refuses plaintext"
        );
        let why = |nodes: &[NodeEvidence]| why(nodes, TlsMode::Preferred);
        assert_eq!(
            why(&[node(None, true)]),
            "1 of 1 node accepts plaintext and does not count its plaintext clients. Up to 4 clients may use plaintext"
        );
        assert_eq!(why(&[node(Some(1), false)]), "1 client is connected in plaintext");
        assert_eq!(
            why(&[node(Some(2), true), node(None, false)]),
            "2 clients are connected in plaintext, this audit included, and 1 node does not count its plaintext clients"
        );
    }

    #[test]
    fn each_application_is_followed_by_its_addresses() {
        let clients = |name: &str, address: &str, clients, oldest_seconds| SimilarClients {
            library: "redis-py".into(),
            version: "5.0.1".into(),
            user: "app".into(),
            name: name.into(),
            address: address.into(),
            clients,
            oldest_seconds,
            commands: vec!["get".into(), "hset".into()],
            connections: Vec::new(),
        };
        let all = [
            clients("jobs", "10.0.0.9", 3, 5),
            clients("web", "10.0.0.8", 2, 93_784),
            clients("web", "10.0.0.7", 2, 60),
        ];
        let rows = all.iter().map(|clients| ClientRow { clients, seen: None }).collect();
        let shown = strip_str(&applications(rows).to_string()).to_string();
        let expected = [
            "APPLICATION                     CLIENTS  OLDEST   LAST COMMANDS",
            "web, redis-py 5.0.1, user app   4",
            "  10.0.0.8                      2        1day 2h  get hset",
            "  10.0.0.7                      2        1m       get hset",
            "jobs, redis-py 5.0.1, user app  3",
            "  10.0.0.9                      3        5s       get hset",
        ];
        assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_period_within_one_day_shows_the_date_once() {
        assert_eq!(span(Moment::at(0), Moment::at(61)), "1970-01-01 00:00:00 to 00:01:01");
        assert_eq!(span(Moment::at(0), Moment::at(86_400)), "1970-01-01 00:00:00 to 1970-01-02 00:00:00");
    }
}
