//! Whether a route's group is safe to require TLS.

use super::days::days_or_less;
use super::facts::{RouteFacts, Settings, Verdict};
use crate::clients::InPlaintext;
use crate::tls;
use crate::upstream::EndpointFacts;

/// Whether anybody would miss plaintext.
pub fn safe_to_require_tls(facts: &RouteFacts, settings: &Settings) -> Verdict {
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
fn own_tls(facts: &RouteFacts) -> Result<String, Vec<String>> {
    let mut against = Vec::new();
    match facts.mode {
        tls::TlsMode::Disabled => {
            against.push("this bridge itself is in plaintext: tls.mode is \"disabled\"".into());
        }
        tls::TlsMode::Preferred if !facts.latched => {
            let seen: Vec<String> = facts
                .endpoints
                .iter()
                .map(|endpoint| {
                    format!("{}: {}", endpoint.endpoint, endpoint.seen.unwrap_or_default().describe())
                })
                .collect();
            against.push(format!("no endpoint speaks TLS that can be trusted ({})", seen.join("; ")));
        }
        tls::TlsMode::Preferred | tls::TlsMode::Required => {}
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

fn certificates(facts: &RouteFacts, settings: &Settings) -> Result<String, Vec<String>> {
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

fn own_sessions(facts: &RouteFacts, settings: &Settings) -> Result<String, Vec<String>> {
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

fn servers(facts: &RouteFacts, settings: &Settings) -> Result<String, Vec<String>> {
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
