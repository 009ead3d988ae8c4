//! Whether a route's group is safe to require TLS, and whether the bridge is still needed: pure judgement over what others
//! have seen. Every yes lists its evidence, and what is not known counts as no.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clients::{Client, InPlaintext, Moment};
use crate::tls;
use crate::upstream::{EndpointFacts, Seen};

/// Clients that are named where the bridge is still needed.
const NAMED: usize = 10;

/// How long is long enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// So long nobody may have been in plaintext, by the servers' count and by this bridge's own.
    pub quiet_for: Duration,
    /// So long no client may have used the bridge.
    pub unused_for: Duration,
    /// So long the certificates must still be good.
    pub certificate_left: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self { quiet_for: DAY, unused_for: DAY * 7, certificate_left: DAY * 14 }
    }
}

/// An answer, and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Yes or no.
    pub answer: bool,
    /// What speaks against yes, or for the bridge. Of "safe to require TLS": empty where the answer is yes.
    pub because: Vec<String>,
    /// What speaks for it.
    pub evidence: Vec<String>,
}

/// What is known of a route.
#[derive(Debug)]
pub struct Facts {
    /// The present.
    pub now: Moment,
    /// As configured.
    pub mode: tls::Mode,
    /// Certificates are verified.
    pub verifies: bool,
    /// Why the upstream does not count as reached; `None`: it was reached lately.
    pub unreached: Option<String>,
    /// Where the mode is `preferred`: TLS was seen, and plaintext is over.
    pub latched: bool,
    /// What is known of each endpoint. Cluster nodes are just more of them.
    pub endpoints: Vec<EndpointFacts>,
    /// This bridge's own sessions in plaintext.
    pub plaintext: InPlaintext,
    /// Sessions now.
    pub active: u64,
    /// When a client used the route last; `None`: none has.
    pub last_used: Option<Moment>,
    /// Clients were watched since then.
    pub watched_since: Moment,
    /// What the servers said; `None`: they are not asked.
    pub servers: Option<Seen>,
    /// What the servers said is not older than this.
    pub patience: Duration,
}

/// Whether anybody would miss plaintext.
pub fn safe_to_require_tls(facts: &Facts, settings: &Settings) -> Verdict {
    let mut verdict = Verdict { answer: false, because: Vec::new(), evidence: Vec::new() };
    verdict.weigh(own_tls(facts));
    verdict.weigh(certificates(facts, settings));
    verdict.weigh(own_sessions(facts, settings));
    verdict.weigh(servers(facts, settings));
    verdict.answer = verdict.because.is_empty();
    verdict
}

impl Verdict {
    fn weigh(&mut self, result: Result<String, Vec<String>>) {
        match result {
            Ok(evidence) => self.evidence.push(evidence),
            Err(reasons) => self.because.extend(reasons),
        }
    }
}

/// This bridge itself speaks verified TLS.
fn own_tls(facts: &Facts) -> Result<String, Vec<String>> {
    let mut against = Vec::new();
    match facts.mode {
        tls::Mode::Disabled => {
            against.push("this bridge itself is in plaintext: tls.mode is \"disabled\"".into());
        }
        tls::Mode::Preferred if !facts.latched => {
            let seen: Vec<String> = facts
                .endpoints
                .iter()
                .map(|endpoint| {
                    format!("{}: {}", endpoint.endpoint, endpoint.seen.unwrap_or_default().describe())
                })
                .collect();
            against.push(format!("no endpoint speaks TLS that can be trusted ({})", seen.join("; ")));
        }
        tls::Mode::Preferred | tls::Mode::Required => {}
    }
    if !facts.verifies {
        against.push("this bridge verifies no certificate: tls.insecure_skip_verify is set".into());
    }
    against.extend(facts.unreached.clone());
    if against.is_empty() {
        Ok("this bridge reaches its upstream over verified TLS".into())
    } else {
        Err(against)
    }
}

fn certificates(facts: &Facts, settings: &Settings) -> Result<String, Vec<String>> {
    let presented = facts
        .endpoints
        .iter()
        .filter_map(|endpoint| endpoint.certificate_expires.map(|expires| (expires, &endpoint.endpoint)));
    let Some((first, endpoint)) = presented.min() else {
        return Err(vec!["no certificate was seen".into()]);
    };
    // Of a cluster each node must have been seen; of several names of one group, one.
    let is_unseen =
        |endpoint: &&EndpointFacts| endpoint.local_port.is_some() && endpoint.certificate_expires.is_none();
    if let Some(unseen) = facts.endpoints.iter().find(is_unseen) {
        return Err(vec![format!("no certificate of {} was seen", unseen.endpoint)]);
    }
    let left = first.seconds_since(facts.now);
    if left < settings.certificate_left.as_secs() {
        let wanted = days_or_less(settings.certificate_left.as_secs());
        return Err(vec![format!(
            "the certificate of {endpoint} expires at {first}: less than {wanted} are left (verdict.certificate_left)"
        )]);
    }
    Ok(format!("certificates are good until {first}"))
}

fn own_sessions(facts: &Facts, settings: &Settings) -> Result<String, Vec<String>> {
    let InPlaintext { active, last, .. } = facts.plaintext;
    if active > 0 {
        return Err(vec![format!(
            "sessions of this bridge that are in plaintext now: {active}; with tls.upgrade = \"drain\" they move to TLS, \
             else they end with their clients' connections"
        )]);
    }
    let wanted = settings.quiet_for.as_secs();
    match last {
        Some(last) if facts.now.seconds_since(last) < wanted => Err(vec![format!(
            "the last session of this bridge in plaintext ended at {last}: less than {} ago (verdict.quiet_for)",
            days_or_less(wanted)
        )]),
        Some(last) => Ok(format!("no session of this bridge was in plaintext since {last}")),
        None => Ok(format!("no session of this bridge was in plaintext since {}", facts.watched_since)),
    }
}

fn servers(facts: &Facts, settings: &Settings) -> Result<String, Vec<String>> {
    let one = |reason: String| Err(vec![reason]);
    let Some(seen) = &facts.servers else {
        return one(
            "the servers are not asked for their clients in plaintext: set evidence.interval, here or at another bridge \
             of the group, or run `pontoon audit`"
                .into(),
        );
    };
    let Some(asked) = seen.asked else { return one("the servers were not asked yet".into()) };
    if let Some(problem) = &seen.problem {
        return one(format!("the servers could not be asked: {problem}"));
    }
    let nodes = seen.evidence.as_ref().map_or(&[][..], |evidence| &evidence.nodes);
    let mut against = Vec::new();
    for node in nodes {
        match (&node.problem, node.plaintext_clients) {
            (Some(problem), _) => against.push(format!("{} could not be asked: {problem}", node.endpoint)),
            (None, None) => against.push(format!(
                "{} does not count its clients in plaintext (tls_mode_connected_tcp_clients is ElastiCache's)",
                node.endpoint
            )),
            (None, Some(0)) => {}
            (None, Some(count)) => against.push(format!("{} counts clients in plaintext: {count}", node.endpoint)),
        }
    }
    if nodes.is_empty() {
        against.push("no server answered".into());
    }
    if !against.is_empty() {
        return Err(against);
    }
    if facts.now.seconds_since(asked) > facts.patience.as_secs() {
        return one(format!("the servers were asked last at {asked}: that is too long ago"));
    }
    let wanted = settings.quiet_for.as_secs();
    match seen.quiet {
        Some(quiet) if quiet.until.seconds_since(quiet.since) >= wanted => Ok(format!(
            "all {} servers count no client in plaintext since {}, each time they were asked, until {}",
            nodes.len(),
            quiet.since,
            quiet.until
        )),
        Some(quiet) => one(format!(
            "the servers count no client in plaintext, but only since {}: {} are asked for (verdict.quiet_for)",
            quiet.since,
            days_or_less(wanted)
        )),
        None => one("it is not known since when the servers count no client in plaintext".into()),
    }
}

/// Whether anybody would miss the bridge. `clients`: the route's, the latest first.
pub fn bridge_needed(facts: &Facts, settings: &Settings, clients: &[&Client]) -> Verdict {
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
            "clients are watched only since {}: {} without one are asked for (verdict.unused_for)",
            facts.watched_since,
            days_or_less(wanted)
        ));
    } else {
        evidence.push(match facts.last_used {
            Some(last) => format!("unused for {}", days_or_less(facts.now.seconds_since(last))),
            None => format!("never used in {}", days_or_less(watched)),
        });
    }
    Verdict { answer: !because.is_empty(), because, evidence }
}

/// Who it is, in a line.
fn describe(client: &Client) -> String {
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

/// Whole days, or hours and less where there are none.
fn days_or_less(seconds: u64) -> String {
    match seconds {
        0..86_400 => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
        86_400..172_800 => "1 day".into(),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests;
