//! `pontoon status`: asks a running pontoon for its routes and clients. Prints whether each route can require TLS, which clients use
//! the bridge, and what they need to use TLS themselves.

use std::borrow::Cow;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::colour::{QUESTIONS, with_coloured_answers, yes_or_no};
use super::json::print_json;
use super::reachable::reachable;
use super::table::Table;
use super::words::how_many_are_safe;
use super::wrap::wrapped;
use crate::admin::client::{self, Health, NotHealthy};
use crate::admin::{AuthRequirement, RouteReport, ServersReport};
use crate::clients::{Advice, ClientRecord, InventoryReport, Library, advice};
use crate::counted::counted;
use crate::endpoint::ListenAddr;
use crate::moment::Moment;
use crate::printable::printable;
use crate::upstream::EndpointFacts;

/// The state that every route must have for the command to succeed (`--fail-unless`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unless {
    /// The route uses only TLS.
    TlsOnly,
    /// It is safe to require TLS.
    Ready,
    /// No client needs the bridge.
    Unused,
}

/// Prints the routes and clients of the pontoon at `address`. Fails unless every route has the state that `unless` names.
pub fn run(address: ListenAddr, json: bool, unless: Option<Unless>) -> anyhow::Result<()> {
    let address = reachable(address);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (serving, routes, clients) = runtime.block_on(async {
        let serving = client::health(&address, Health::Serving, Duration::ZERO).await;
        let routes = client::fetch(&address, "/routes").await?;
        Ok::<_, anyhow::Error>((serving, routes, client::fetch(&address, "/clients").await?))
    })?;
    let (serving, state) = match serving {
        Ok(report) => (true, report),
        Err(NotHealthy::Said { report, .. }) => (false, report),
        Err(NotHealthy::NoAnswer(error)) => return Err(error.into()),
    };
    let foreign = || format!("the answer of {address} is not one of this pontoon version");
    if json {
        let parse = |text: &str| serde_json::from_str::<Value>(text).with_context(foreign);
        let report = json!({"serving": serving, "routes": parse(&routes)?, "clients": parse(&clients)?});
        print_json(&report);
    }
    let routes: Vec<RouteReport> = serde_json::from_str(&routes).with_context(foreign)?;
    if !json {
        let report: InventoryReport = serde_json::from_str(&clients).with_context(foreign)?;
        say!("{}\n", printable(&state));
        say!("{}", describe(&routes, &report, Moment::now()));
    }
    let failing: Vec<&str> = routes
        .iter()
        .filter(|route| !unless.is_none_or(|unless| unless.holds(route)))
        .map(|route| &*route.route)
        .collect();
    match unless {
        Some(unless) if !failing.is_empty() => {
            bail!("{}: {}", unless.refusal(), printable(&failing.join(", ")));
        }
        _ => Ok(()),
    }
}

impl Unless {
    fn holds(self, route: &RouteReport) -> bool {
        match self {
            Self::TlsOnly => route.uses_only_tls.answer,
            Self::Ready => route.safe_to_require_tls.answer,
            Self::Unused => !route.bridge_needed.answer,
        }
    }

    pub(super) fn refusal(self) -> &'static str {
        match self {
            Self::TlsOnly => "the bridge does not use only TLS",
            Self::Ready => "TLS is not known to be safe to require",
            Self::Unused => "the bridge is still needed",
        }
    }
}

fn describe(routes: &[RouteReport], report: &InventoryReport, now: Moment) -> String {
    let mut parts = vec![routes_table(routes)];
    parts.extend(routes.iter().map(verdicts));
    if report.clients.is_empty() {
        parts.push("No client has used the bridge.".into());
    } else {
        parts.push(clients_table(report, now));
    }
    if !report.libraries.is_empty() {
        parts.push(libraries_table(&report.libraries));
    }
    parts.push(conclusion(routes, report));
    parts.join("\n\n")
}

/// Returns the closing line: `2 routes: 1 safe to require TLS, 1 not; 3 clients in the inventory`.
fn conclusion(routes: &[RouteReport], report: &InventoryReport) -> String {
    let safe = how_many_are_safe("route", routes.iter().map(|route| route.safe_to_require_tls.answer));
    format!("{safe}; {} in the inventory", counted(report.clients_total, "client"))
}

fn routes_table(routes: &[RouteReport]) -> String {
    let mut table = Table::new(["ROUTE", "LISTENS ON", "UPSTREAM", "SESSIONS NOW", "SO FAR", "COMMANDS"]);
    for route in routes {
        table.row([
            route.route.to_string(),
            route.listeners.join(" "),
            route.upstreams.iter().map(endpoint).collect::<Vec<_>>().join(", "),
            route.sessions_active.to_string(),
            route.sessions_total.to_string(),
            route.counts.commands.to_string(),
        ]);
    }
    table.to_string()
}

/// Formats an endpoint with its role, its local port, its mode and its certificate's expiry, if known.
fn endpoint(facts: &EndpointFacts) -> String {
    let role = facts.role.as_ref().map(ToString::to_string);
    let port = facts.local_port.map(|port| format!("local port {port}"));
    let seen = facts.seen.map(|mode| mode.describe().to_owned());
    let expires = facts.certificate_expires.map(|at| format!("certificate until {at}"));
    let known: Vec<String> = role.into_iter().chain(port).chain(seen).chain(expires).collect();
    if known.is_empty() {
        return facts.endpoint.clone();
    }
    format!("{} ({})", facts.endpoint, known.join(", "))
}

/// Formats a route's verdicts, each with its reasons.
fn verdicts(route: &RouteReport) -> String {
    let needed = &route.bridge_needed;
    let mut lines = Vec::new();
    let [tls_only, safe, still_needed] = QUESTIONS.map(|(question, ..)| question);
    let first = &route.uses_only_tls;
    lines.push(format!("{}: {tls_only}: {}", route.route, yes_or_no(first.answer)));
    lines.extend(first.because.iter().map(|reason| format!("  - {reason}")));
    lines.extend(first.evidence.iter().map(|evidence| format!("  + {evidence}")));
    // The second verdict includes the first one's reasons.
    let second = &route.safe_to_require_tls;
    lines.push(format!("{}: {safe}: {}", route.route, yes_or_no(second.answer)));
    let more = |all: &[String], before: &[String], sign: char| -> Vec<String> {
        all.iter()
            .filter(|reason| !before.contains(reason))
            .map(|reason| format!("  {sign} {reason}"))
            .collect()
    };
    if !first.answer {
        lines.push(format!("  - not \"{tls_only}\": see above"));
    }
    lines.extend(more(&second.because, &first.because, '-'));
    if first.answer {
        lines.push(format!("  + {tls_only}: see above"));
    }
    lines.extend(more(&second.evidence, &first.evidence, '+'));
    let over_tls = [
        ("sessions", route.plaintext.sessions_over_tls_ratio),
        ("bytes", route.plaintext.bytes_over_tls_ratio),
    ];
    let over_tls: Vec<String> = over_tls
        .iter()
        .filter_map(|(what, ratio)| Some(format!("{:.1} % of {what}", (*ratio)? * 100.0)))
        .collect();
    if !over_tls.is_empty() {
        lines.push(format!("  over TLS in this run: {}", over_tls.join(", ")));
    }
    lines.extend(route.credentials_expire.map(|at| format!("  pontoon's credentials expire at {at}")));
    lines.extend(route.servers.as_ref().map(servers));
    lines.push(format!("{}: {still_needed}: {}", route.route, yes_or_no(needed.answer)));
    lines.extend(needed.because.iter().chain(&needed.evidence).map(|reason| format!("  - {reason}")));
    let lines: Vec<_> = lines.iter().map(|line| printable(line)).collect();
    wrapped(&with_coloured_answers(&lines.join("\n")))
}

/// Formats what the servers report beyond the evidence of the verdict.
fn servers(servers: &ServersReport) -> String {
    let auth = match servers.auth {
        AuthRequirement::NotWanted => "accept clients without credentials",
        AuthRequirement::Wanted => "require credentials",
        AuthRequirement::Unknown => "have not answered",
    };
    let mut parts = vec![format!("  the servers {auth}")];
    let direct = servers.direct.iter().map(|group| ("direct client", group));
    let unknown = servers.unknown.iter().map(|group| ("direct or bridged client", group));
    for (what, group) in direct.chain(unknown) {
        let told = [&group.library, &group.version, &group.name, &group.user, &group.address];
        let told: Vec<&str> = told.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        parts.push(format!("{}: {}", counted(group.clients as usize, what), told.join(" ")));
    }
    parts.join("; ")
}

/// Formats the inventory: the clients to move, and what each needs.
fn clients_table(report: &InventoryReport, now: Moment) -> String {
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
            library(client.library.as_ref()),
            client.active.to_string(),
            client.sessions.to_string(),
            last_seen(client.active, client.last_seen, now),
            to_do(client.own_tls, client.library.as_ref()),
        ]);
    }
    let mut lines = vec![table.to_string()];
    let hidden = report.clients_total.saturating_sub(report.clients.len());
    if (hidden, report.clients_forgotten) != (0, 0) {
        lines.push(format!("({hidden} more not shown, {} forgotten)", report.clients_forgotten));
    }
    for client in report.clients.iter().filter(|client| !client.stays.is_empty()) {
        let name = client.client_name.as_deref().map(|name| format!(" named {name}")).unwrap_or_default();
        let whose = format!("{}: {}{name}, {}", client.route, who(client), library(client.library.as_ref()));
        lines.push(format!("\n{}", printable(&whose)));
        lines.extend(client.stays.iter().map(|stay| format!("  - {}", printable(&stay.describe()))));
    }
    lines.join("\n")
}

fn who(client: &ClientRecord) -> String {
    let parts = [
        client.process.as_deref().map(str::to_owned),
        client.uid.map(|uid| format!("uid {uid}")),
        // Container runtimes show the first twelve characters of an id.
        client.container.as_deref().map(|id| format!("container {}", id.get(..12).unwrap_or(id))),
    ];
    let known: Vec<String> = parts.into_iter().flatten().collect();
    if known.is_empty() { "unknown".into() } else { known.join(", ") }
}

/// Formats a library with its version.
pub(super) fn library(library: Option<&Library>) -> String {
    let Some(library) = library else { return "unknown".into() };
    let version = library.version.as_deref().map(|version| format!(" {version}")).unwrap_or_default();
    let guess = if library.guessed { " (by its commands)" } else { "" };
    format!("{}{version}{guess}", library.name)
}

/// Formats when a client was last seen: now if it has `active` sessions.
pub(super) fn last_seen(active: u64, last: Moment, now: Moment) -> String {
    if active > 0 {
        return "now".into();
    }
    let (number, unit) = match now.seconds_since(last) {
        seconds @ ..120 => (seconds, "s"),
        seconds @ ..7200 => (seconds / 60, "min"),
        seconds @ ..172_800 => (seconds / 3600, "h"),
        seconds => (seconds / 86400, "days"),
    };
    format!("{number} {unit} ago")
}

/// Returns what to change so that a client with this library uses TLS itself.
pub(super) fn to_do(own_tls: bool, library: Option<&Library>) -> String {
    if own_tls {
        return "uses TLS already: change only its address".into();
    }
    match library.and_then(|library| advice(&library.name)) {
        Some(advice) => advice.setting.into_owned(),
        None => "ask its owner for the library".into(),
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
    use anstream::adapter::strip_str;

    use super::*;

    #[test]
    fn the_inventory_shows_each_client_and_what_to_change() {
        let mut route = RouteReport::example();
        route.safe_to_require_tls.because = vec!["a node\u{1b}[2J says no".into()];
        let routes = vec![route];
        let client = |library: Value, active: u64, own_tls: bool| {
            json!({"route": "cache", "process": "python3", "uid": 1000, "container": "0123456789abcdef",
                "library": library, "client_name": "worker\u{1b}[2J", "own_tls": own_tls,
                "first_seen": "2026-01-01T00:00:00Z", "last_seen": "2026-01-01T00:00:00Z", "sessions": 7,
                "active": active, "commands": 70,
                "stays": [{"state": "pinned", "sessions": 1, "why": "subscribed"}]})
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
        let text = strip_str(&describe(&routes, &report, now)).to_string();
        let line = |words: &str| text.lines().find(|line| line.contains(words)).unwrap().to_owned();
        for words in ["python3, uid 1000, container 0123456789ab ", r"worker\u{1b}[2J", " now ", "rediss://"]
        {
            assert!(line("redis-py 5.0.1").contains(words), "{words}: {text}");
        }
        assert!(line("redis-cli (by its commands)").contains("2 days ago"), "{text}");
        assert!(line("ask its owner for the library").contains("unknown"), "{text}");
        assert!(text.contains("uses TLS already: change only its address"), "{text}");
        assert!(text.contains("(2 more not shown, 9 forgotten)"), "{text}");
        assert!(line("redis-py  2.10").contains("by default since 6.0"), "{text}");
        for words in [
            "cache.example:6379 (TLS, certificate until 2027-01-01T00:00:00Z)",
            "cache: uses only TLS: yes\n  + this bridge reaches it over TLS\n",
            "cache: safe to require TLS: no\n  - a node\\u{1b}[2J says no\n  + uses only TLS: see above\n  + and one yes\n  over TLS in this run: 75.0 % of sessions\n",
            "the servers accept clients without credentials; 2 direct clients: jedis 4.0 default 10.0.0.7\n",
            "cache: bridge still needed: yes\n  - python3\n",
            "cache: python3, uid 1000, container 0123456789ab named worker\\u{1b}[2J, redis-py 5.0.1\n  - 1 pinned: subscribed",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains('\u{1b}'));
        assert!(
            text.ends_with("\n\n1 route: 1 not safe to require TLS; 6 clients in the inventory"),
            "{text}"
        );
    }
}
