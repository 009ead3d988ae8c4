//! Judges whether a route's bridge uses only TLS, and whether its group is safe to require TLS. Every no names the step that would settle
//! it.

use std::time::Duration;

use super::days::days_or_less;
use super::facts::{RouteFacts, Settings, Verdict};
use crate::clients::InPlaintext;
use crate::counted::counted;
use crate::group::{NodeEvidence, Observation, PlaintextAccess};
use crate::moment::Moment;
use crate::tls;
use crate::upstream::{EndpointFacts, ObservedTransit};

/// Whether all traffic of this bridge is in verified TLS, and was for a while. Needs no information from the servers.
pub fn uses_only_tls(facts: &RouteFacts, settings: &Settings) -> Verdict {
    judge([own_tls(facts), certificates(facts, settings), own_sessions(facts, settings)])
}

/// Whether the group can require TLS without cutting off a client: this bridge uses only TLS, and the servers count no client in plaintext.
pub fn safe_to_require_tls(facts: &RouteFacts, settings: &Settings) -> Verdict {
    // If the servers already require TLS, no other fact matters: no client can start in plaintext, and those on the bridge may stay there.
    if let Some(seen) = &facts.servers
        && seen.requires_tls()
        && seen.age <= facts.patience
    {
        return judge([own_tls(facts), already_required(seen)]);
    }
    judge([
        own_tls(facts),
        certificates(facts, settings),
        own_sessions(facts, settings),
        servers(facts, settings),
    ])
}

/// Evidence for yes, or the reasons against it.
type Finding = Result<String, Vec<String>>;

/// Every server refuses plaintext. The time limit is there because a server that was down at the first look may return and accept
/// plaintext.
fn already_required(seen: &Observation) -> Finding {
    let all = match seen.nodes().len() {
        1 => "the server refuses".into(),
        servers => format!("all {servers} servers refuse"),
    };
    if seen.refused_for < seen.refused_enough {
        return Err(vec![format!(
            "{all} plaintext, but only for {} of {} (ten times evidence.interval): wait, because another server may come back and accept it",
            humantime::format_duration(Duration::from_secs(seen.refused_for.as_secs())),
            humantime::format_duration(seen.refused_enough)
        )]);
    }
    Ok(format!("TLS is already required: {all} plaintext"))
}

fn judge<const N: usize>(findings: [Finding; N]) -> Verdict {
    let mut verdict = Verdict { answer: true, because: Vec::new(), evidence: Vec::new() };
    for finding in findings {
        match finding {
            Ok(evidence) => verdict.evidence.push(evidence),
            Err(reasons) => verdict.because.extend(reasons),
        }
    }
    verdict.answer = verdict.because.is_empty();
    verdict
}

/// Whether this bridge itself uses verified TLS.
fn own_tls(facts: &RouteFacts) -> Finding {
    let mut against = Vec::new();
    match facts.mode {
        tls::TlsMode::Disabled => against.push(
            "this bridge uses plaintext (tls.mode is \"disabled\"): set tls.mode to \"preferred\"".into(),
        ),
        tls::TlsMode::Preferred if !facts.latched => against.push(no_tls(&facts.endpoints)),
        tls::TlsMode::Preferred | tls::TlsMode::Required => {}
    }
    if !facts.verifies {
        against.push("this bridge does not verify certificates: remove tls.insecure_skip_verify".into());
    }
    let unreached = facts.unreached.iter();
    against.extend(unreached.map(|why| format!("{why}; `pontoon check` names the step that fails")));
    if against.is_empty() {
        Ok("this bridge reaches its upstream over verified TLS".into())
    } else {
        Err(against)
    }
}

/// Says why no endpoint offers verified TLS yet, and what to do.
fn no_tls(endpoints: &[EndpointFacts]) -> String {
    let modes: Vec<ObservedTransit> =
        endpoints.iter().map(|endpoint| endpoint.seen.unwrap_or_default()).collect();
    let seen: Vec<String> = endpoints
        .iter()
        .zip(&modes)
        .map(|(endpoint, mode)| format!("{}: {}", endpoint.endpoint, mode.describe()))
        .collect();
    let any = |wanted: &[ObservedTransit]| modes.iter().any(|mode| wanted.contains(mode));
    let step = if any(&[ObservedTransit::Untrusted, ObservedTransit::UntrustedOnly]) {
        "set tls.ca_files, tls.pins or tls.server_name so that the certificate verifies; `pontoon check` names what is wrong with it"
    } else if any(&[ObservedTransit::Disabled]) {
        "set the group's transit encryption mode to \"preferred\""
    } else {
        "run `pontoon check`, which names the step that fails"
    };
    format!("no endpoint speaks TLS that can be trusted ({}): {step}", seen.join("; "))
}

fn certificates(facts: &RouteFacts, settings: &Settings) -> Finding {
    let unseen = |of: &str| {
        let step = "this bridge has completed no TLS handshake yet. If the group has no TLS, set its mode to \"preferred\"; if it has, run \
                    `pontoon check`";
        Err(vec![format!("no certificate{of} was seen: {step}")])
    };
    let Some((first, _)) = first_expiry(&facts.endpoints) else { return unseen("") };
    // Every node of a cluster must have presented a certificate. Among several names for one group, one is enough.
    let is_unseen =
        |endpoint: &&EndpointFacts| endpoint.local_port.is_some() && endpoint.certificate_expires.is_none();
    if let Some(node) = facts.endpoints.iter().find(is_unseen) {
        return unseen(&format!(" of {}", node.endpoint));
    }
    if let Some(problem) = expiring_certificate(&facts.endpoints, settings, facts.now) {
        return Err(vec![problem]);
    }
    Ok(format!("certificates are good until {first}"))
}

/// The certificate that expires first, with its endpoint.
fn first_expiry(endpoints: &[EndpointFacts]) -> Option<(Moment, &str)> {
    endpoints
        .iter()
        .filter_map(|endpoint| endpoint.certificate_expires.map(|expires| (expires, &*endpoint.endpoint)))
        .min()
}

/// Why a certificate must be renewed. `None` if all of them are valid for long enough.
pub fn expiring_certificate(endpoints: &[EndpointFacts], settings: &Settings, now: Moment) -> Option<String> {
    let (first, endpoint) = first_expiry(endpoints)?;
    let left = first.seconds_since(now);
    if left >= settings.certificate_left.as_secs() {
        return None;
    }
    let when = if left == 0 {
        format!("expired at {first}")
    } else {
        let wanted = days_or_less(settings.certificate_left.as_secs());
        format!("expires at {first}, in less than {wanted} (verdict.certificate_left)")
    };
    Some(format!("the certificate of {endpoint} {when}: renew it"))
}

fn own_sessions(facts: &RouteFacts, settings: &Settings) -> Finding {
    let InPlaintext { active, last, .. } = facts.plaintext;
    if active > 0 {
        let step = match (facts.mode, facts.upgrades) {
            (tls::TlsMode::Disabled, _) => "set tls.mode to \"preferred\", then reconnect their clients",
            (_, true) => {
                "they move to TLS between two commands; if some stay, reconnect the clients that `pontoon status` lists as in plaintext"
            }
            (_, false) => {
                "reconnect their clients; set tls.upgrade = \"drain\" so that later sessions move by themselves"
            }
        };
        return Err(vec![format!("sessions of this bridge in plaintext now: {active}; {step}")]);
    }
    let wanted = settings.quiet_for.as_secs();
    match last {
        Some(last) if facts.now.seconds_since(last) < wanted => Err(vec![format!(
            "the last session of this bridge in plaintext ended at {last}: less than {} ago (verdict.quiet_for); wait until {}",
            days_or_less(wanted),
            Moment::at(last.unix().saturating_add(wanted))
        )]),
        Some(last) => Ok(format!("no session of this bridge was in plaintext since {last}")),
        None => Ok(format!("no session of this bridge was in plaintext since {}", facts.watched_since)),
    }
}

fn servers(facts: &RouteFacts, settings: &Settings) -> Result<String, Vec<String>> {
    let one = |reason: String| Err(vec![reason]);
    let Some(seen) = &facts.servers else {
        return one(
            "the servers are not asked for their clients in plaintext: set evidence.interval at this or another bridge \
             of the group, or run `pontoon audit`"
                .into(),
        );
    };
    let Some(asked) = seen.asked else {
        let is_sentinel = |endpoint: &EndpointFacts| endpoint.role.as_deref() == Some("sentinel");
        if !facts.endpoints.is_empty() && facts.endpoints.iter().all(is_sentinel) {
            return one("the servers were not asked yet: the sentinels have not named them; run `pontoon check` to see why".into());
        }
        return one("the servers were not asked yet: wait for the first survey, which starts once this bridge has seen TLS".into());
    };
    if let Some(problem) = &seen.problem {
        return one(format!(
            "the servers could not be asked: {problem}; `pontoon audit` shows whether they can be now"
        ));
    }
    let nodes = seen.nodes();
    let mut against = Vec::new();
    for node in nodes {
        match (&node.problem, node.plaintext_clients) {
            (Some(problem), _) => against.push(format!(
                "{} could not be asked: {problem}; `pontoon audit` shows whether it answers now",
                node.endpoint
            )),
            // TLS is already required here, only not yet for long enough.
            (None, None) if seen.requires_tls() => {}
            (None, None) => against.push(uncounted(node)),
            (None, Some(0)) => {}
            (None, Some(count)) => {
                against.push(format!(
                    "{} counts clients in plaintext: {count}; `pontoon audit` lists those that use no bridge: move \
                     them to TLS or to a bridge",
                    node.endpoint
                ));
            }
        }
    }
    if nodes.is_empty() {
        against.push("no server answered: run `pontoon audit`, which names the step that fails".into());
    }
    if !against.is_empty() {
        return Err(against);
    }
    if seen.age > facts.patience {
        return one(format!(
            "the servers were last asked at {asked}, which is too long ago: wait for the next survey (evidence.interval), or run \
             `pontoon audit`, which names the step that fails"
        ));
    }
    let wanted = settings.quiet_for.as_secs();
    match seen.quiet {
        Some(quiet)
            if settings.unseen_blocks
                && quiet.unseen > 0
                && quiet.observed_ms.saturating_sub(quiet.unseen_at_ms) / 1000 < wanted =>
        {
            one(format!(
                "connections that came and went unseen since {}: at most {}; wait for {} without any, or set verdict.unseen = \"report\"",
                quiet.since,
                quiet.unseen,
                days_or_less(wanted)
            ))
        }
        Some(quiet) if quiet.observed_ms / 1000 >= wanted => Ok(format!(
            "no client was in plaintext since {}, by the count of {}: asked every {} for {} in total, longest time between two \
             questions {}; connections that came and went unseen: at most {}",
            quiet.since,
            counted(nodes.len(), "server"),
            humantime::format_duration(seen.sampling),
            days_or_less(quiet.observed_ms / 1000),
            humantime::format_duration(Duration::from_millis(quiet.longest_gap_ms)),
            quiet.unseen,
        )),
        Some(quiet) => one(format!(
            "no client was in plaintext since {}, but the servers were watched for only {} of {} (verdict.quiet_for): \
             wait for another {}",
            quiet.since,
            days_or_less(quiet.observed_ms / 1000),
            days_or_less(wanted),
            days_or_less(wanted.saturating_sub(quiet.observed_ms / 1000))
        )),
        None => one(
            "it is not known since when the servers count no client in plaintext: wait for the next survey (evidence.interval)".into(),
        ),
    }
}

/// Says what is missing at a node that does not count its clients in plaintext.
fn uncounted(node: &NodeEvidence) -> String {
    let name = &node.endpoint;
    let step = match &node.plaintext {
        Some(PlaintextAccess::Refused) => {
            return format!(
                "{name} refuses plaintext, but not every server does: wait until the whole group requires TLS"
            );
        }
        Some(PlaintextAccess::OtherPort(port)) => format!(
            "and has port {port} for plaintext: once `pontoon audit` lists no client without a bridge, set its \
             `port` to 0"
        ),
        Some(PlaintextAccess::Accepted) => {
            "and accepts plaintext: once `pontoon audit` lists no client without a \
             bridge, make it refuse plaintext"
                .into()
        }
        Some(PlaintextAccess::Unknown(why)) => {
            format!("and it is not known whether it refuses plaintext: {why}")
        }
        None => format!("and was not tried in plaintext: run `pontoon probe {}`", node.endpoint),
    };
    format!(
        "{name} does not count its clients in plaintext (only ElastiCache has tls_mode_connected_tcp_clients), {step}"
    )
}
