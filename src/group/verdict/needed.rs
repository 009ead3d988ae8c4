//! Whether the bridge is still needed.

use super::days::days_or_less;
use super::facts::{RouteFacts, Settings, Verdict};
use crate::clients::ClientRecord;
use crate::moment::Moment;

/// Maximum number of clients named when the bridge is still needed.
const NAMED: usize = 10;

/// Whether any client still needs the bridge. `clients` are those of the route, latest first.
pub fn bridge_needed(facts: &RouteFacts, settings: &Settings, clients: &[&ClientRecord]) -> Verdict {
    let wanted = settings.unused_for.as_secs();
    let used_lately =
        facts.active > 0 || facts.last_used.is_some_and(|last| facts.now.seconds_since(last) < wanted);
    let watched = facts.now.seconds_since(facts.watched_since);
    let mut because = Vec::new();
    let mut evidence = Vec::new();
    if used_lately {
        let mut users = clients
            .iter()
            .filter(|client| client.active > 0 || facts.now.seconds_since(client.last_seen) < wanted);
        because.extend(users.by_ref().take(NAMED).map(|client| describe(client)));
        let more = users.count();
        if more > 0 {
            because.push(format!("{more} more: see /clients"));
        }
        if because.is_empty() {
            because.push(format!("sessions now: {}", facts.active));
        }
    } else if watched < wanted {
        because.push(format!(
            "clients have been watched only since {}, for less than {} (verdict.unused_for): wait until {}",
            facts.watched_since,
            days_or_less(wanted),
            Moment::at(facts.watched_since.unix().saturating_add(wanted))
        ));
    } else {
        evidence.push(match facts.last_used {
            Some(last) => format!("unused for {}", days_or_less(facts.now.seconds_since(last))),
            None => format!("never used in {}", days_or_less(watched)),
        });
    }
    Verdict { answer: !because.is_empty(), because, evidence }
}

/// Describes a client in one line.
fn describe(client: &ClientRecord) -> String {
    let library = client.library.as_ref().map(|library| match &library.version {
        Some(version) => format!("{} {version}", library.name),
        None => library.name.to_string(),
    });
    let parts = [
        Some(client.process.as_deref().unwrap_or("an unknown process").to_owned()),
        library,
        client.client_name.as_ref().map(|name| format!("named {name}")),
        Some(match client.active {
            0 => format!("last seen at {}", client.last_seen),
            active => format!("sessions now: {active}"),
        }),
        client.own_tls.then(|| "with its own TLS through this address".into()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
