//! `pontoon status`: asks a running pontoon who is on the bridge, and what they need to leave it.

use std::borrow::Cow;
use std::net::SocketAddr;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::table::Table;
use crate::admin::{RouteReport, client};
use crate::clients::{Advice, Client, Moment, Report, advice};

/// Prints what the pontoon at `address` tells of its routes and clients.
pub fn run(address: SocketAddr, json: bool) -> anyhow::Result<()> {
    let address = super::reachable(address);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (routes, clients) = runtime.block_on(async {
        let routes = client::fetch(address, "/routes").await?;
        Ok::<_, anyhow::Error>((routes, client::fetch(address, "/clients").await?))
    })?;
    let foreign = || format!("{address} answers in another way than this version of pontoon does");
    if json {
        let parse = |text: &str| serde_json::from_str::<Value>(text).with_context(foreign);
        say!("{}", json!({"routes": parse(&routes)?, "clients": parse(&clients)?}));
        return Ok(());
    }
    let routes: Vec<RouteReport> = serde_json::from_str(&routes).with_context(foreign)?;
    let report: Report = serde_json::from_str(&clients).with_context(foreign)?;
    say!("{}", describe(&routes, &report, Moment::now()));
    Ok(())
}

fn describe(routes: &[RouteReport], report: &Report, now: Moment) -> String {
    let mut parts = vec![routes_table(routes)];
    if report.clients.is_empty() {
        parts.push("No client has used the bridge.".into());
    } else {
        parts.push(clients_table(report, now));
    }
    if !report.libraries.is_empty() {
        parts.push(libraries_table(&report.libraries));
    }
    parts.join("\n\n")
}

fn routes_table(routes: &[RouteReport]) -> String {
    let mut table = Table::new(["ROUTE", "LISTENS ON", "UPSTREAM", "SESSIONS NOW", "SO FAR", "COMMANDS"]);
    for route in routes {
        table.row([
            route.route.to_string(),
            route.listeners.join(" "),
            route.upstreams.join(" "),
            route.sessions_active.to_string(),
            route.sessions_total.to_string(),
            route.counts.commands.to_string(),
        ]);
    }
    table.to_string()
}

/// The work list.
fn clients_table(report: &Report, now: Moment) -> String {
    let mut table = Table::new([
        "ROUTE",
        "CLIENT",
        "NAME",
        "LIBRARY",
        "SESSIONS NOW",
        "SO FAR",
        "LAST SEEN",
        "TO SPEAK TLS ITSELF",
    ]);
    for client in &report.clients {
        table.row([
            client.route.to_string(),
            who(client),
            client.client_name.as_deref().unwrap_or("-").to_owned(),
            library(client),
            client.active.to_string(),
            client.sessions.to_string(),
            last_seen(client, now),
            to_do(client),
        ]);
    }
    let hidden = report.clients_total.saturating_sub(report.clients.len());
    match (hidden, report.clients_forgotten) {
        (0, 0) => table.to_string(),
        (hidden, forgotten) => format!("{table}\n({hidden} more not shown, {forgotten} forgotten)"),
    }
}

fn who(client: &Client) -> String {
    let parts = [
        client.process.as_deref().map(str::to_owned),
        client.uid.map(|uid| format!("uid {uid}")),
        // Its beginning, as container runtimes show it.
        client.container.as_deref().map(|id| format!("container {}", id.get(..12).unwrap_or(id))),
    ];
    let known: Vec<String> = parts.into_iter().flatten().collect();
    if known.is_empty() { "not known".into() } else { known.join(", ") }
}

fn library(client: &Client) -> String {
    let Some(library) = &client.library else { return "not known".into() };
    let version = library.version.as_deref().map(|version| format!(" {version}")).unwrap_or_default();
    let guess = if library.guessed { " (by its commands)" } else { "" };
    format!("{}{version}{guess}", library.name)
}

fn last_seen(client: &Client, now: Moment) -> String {
    if client.active > 0 {
        return "now".into();
    }
    let (number, unit) = match now.seconds_since(client.last_seen) {
        seconds @ ..120 => (seconds, "s"),
        seconds @ ..7200 => (seconds / 60, "min"),
        seconds @ ..172_800 => (seconds / 3600, "h"),
        seconds => (seconds / 86400, "days"),
    };
    format!("{number} {unit} ago")
}

fn to_do(client: &Client) -> String {
    if client.own_tls {
        return "it does: its address is all that is left to change".into();
    }
    match client.library.as_ref().and_then(|library| advice(&library.name)) {
        Some(advice) => advice.setting.into_owned(),
        None => "find out its library: its owner knows".into(),
    }
}

fn libraries_table(libraries: &[Advice]) -> String {
    let mut table = Table::new(["LIBRARY", "TLS SINCE", "SENDS SERVER NAME SINCE", "CHECKS HOST NAME"]);
    let or_dash = |text: &Option<Cow<'static, str>>| text.as_deref().unwrap_or("-").to_owned();
    for advice in libraries {
        table.row([
            advice.library.to_string(),
            or_dash(&advice.tls_since),
            or_dash(&advice.sni_since),
            or_dash(&advice.host_name_check),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_list_says_who_uses_what_and_what_to_change() {
        let routes: Vec<RouteReport> = serde_json::from_value(json!([{
            "route": "cache", "listeners": ["127.0.0.1:6379"], "upstreams": ["cache.example:6379"],
            "sessions_active": 1, "sessions_total": 7, "commands": 70, "bytes_to_upstream": 1, "bytes_to_client": 1
        }]))
        .unwrap();
        let client = |library: Value, active: u64, own_tls: bool| {
            json!({"route": "cache", "process": "python3", "uid": 1000, "container": "0123456789abcdef",
                "library": library, "client_name": "worker\u{1b}[2J", "own_tls": own_tls,
                "first_seen": "2026-01-01T00:00:00Z", "last_seen": "2026-01-01T00:00:00Z", "sessions": 7,
                "active": active, "commands": 70})
        };
        let known = json!({"name": "redis-py", "version": "5.0.1", "guessed": false});
        let guess = json!({"name": "redis-cli", "version": null, "guessed": true});
        let clients = json!([
            client(known, 1, false),
            client(guess, 0, false),
            client(Value::Null, 0, false),
            client(Value::Null, 0, true)
        ]);
        let report = serde_json::from_value(json!({
            "sessions": [], "sessions_total": 1, "clients": clients,
            "clients_total": 6, "clients_forgotten": 9, "libraries": [advice("redis-py")]
        }))
        .unwrap();
        let now = serde_json::from_value(json!("2026-01-03T12:00:00Z")).unwrap();
        let text = describe(&routes, &report, now);
        let line = |words: &str| text.lines().find(|line| line.contains(words)).unwrap().to_owned();
        for words in ["python3, uid 1000, container 0123456789ab ", "worker [2J", " now ", "rediss://"] {
            assert!(line("redis-py 5.0.1").contains(words), "{words}: {text}");
        }
        assert!(line("redis-cli (by its commands)").contains("2 days ago"), "{text}");
        assert!(line("find out its library").contains("not known"), "{text}");
        assert!(text.contains("it does: its address"), "{text}");
        assert!(text.contains("(2 more not shown, 9 forgotten)"), "{text}");
        assert!(line("redis-py  2.10").contains("by default since 6.0"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }
}
