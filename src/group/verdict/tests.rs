//! Each reason once.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clients::{ClientRecord, InPlaintext};
use crate::group::{Evidence, NodeEvidence, Observation, PlaintextAccess};
use crate::moment::{Moment, Quiet};
use crate::tls;
use crate::upstream::{EndpointFacts, ObservedTransit};

const DAY: u64 = 86_400;
const NOW: u64 = 1_000 * DAY;

fn at(days_ago: u64) -> Moment {
    Moment::at(NOW - days_ago * DAY)
}

fn node(count: Option<u64>, problem: Option<&str>) -> NodeEvidence {
    NodeEvidence {
        plaintext_clients: count,
        problem: problem.map(str::to_owned),
        ..NodeEvidence::new("node-1:6379".into())
    }
}

#[allow(clippy::unnecessary_wraps, reason = "as it is in the facts")]
fn seen(nodes: Vec<NodeEvidence>, quiet: Option<Quiet>) -> Option<Observation> {
    let evidence =
        Some(Arc::new(Evidence { nodes, direct: Vec::new(), unknown: Vec::new(), bridged: Vec::new() }));
    Some(Observation { asked: Some(at(0)), evidence, quiet, ..Observation::default() })
}

#[allow(clippy::unnecessary_wraps, reason = "as it is in the facts")]
fn watched_for(days: u64) -> Option<Quiet> {
    Some(Quiet { until: at(0), observed_ms: days * DAY * 1000, ..Quiet::beginning(at(days)) })
}

/// A route with nothing against it, and no client for ten days.
fn facts() -> RouteFacts {
    RouteFacts {
        now: at(0),
        mode: tls::TlsMode::Preferred,
        upgrades: false,
        verifies: true,
        unreached: None,
        latched: true,
        endpoints: vec![EndpointFacts {
            endpoint: "cache:6379".into(),
            seen: Some(ObservedTransit::Tls),
            certificate_expires: Some(Moment::at(NOW + 90 * DAY)),
            ..EndpointFacts::default()
        }],
        plaintext: InPlaintext { last: Some(at(3)), ..InPlaintext::default() },
        active: 0,
        last_used: Some(at(10)),
        watched_since: at(30),
        servers: seen(vec![node(Some(0), None)], watched_for(2)),
        patience: Duration::from_secs(240),
    }
}

fn safe(facts: &RouteFacts) -> Verdict {
    safe_to_require_tls(facts, &Settings::default())
}

#[test]
fn a_yes_lists_its_evidence() {
    let Verdict { answer, because, evidence } = safe(&facts());
    assert!(answer && because.is_empty(), "{because:?}");
    let found =
        |words: &str| assert!(evidence.iter().any(|line| line.contains(words)), "{words}: {evidence:?}");
    found("reaches its upstream over verified TLS");
    found(&format!("good until {}", Moment::at(NOW + 90 * DAY)));
    found(&format!("no session of this bridge was in plaintext since {}", at(3)));
    found(&format!("no client was in plaintext since {}, by the count of 1 server", at(2)));
    assert!(safe(&RouteFacts { mode: tls::TlsMode::Required, latched: false, ..facts() }).answer);
}

#[test]
fn a_bridge_uses_only_tls_whether_or_not_the_servers_are_asked() {
    let only = |facts: &RouteFacts| uses_only_tls(facts, &Settings::default());
    for servers in [None, seen(vec![node(Some(5), None)], None)] {
        let facts = RouteFacts { servers, ..facts() };
        let Verdict { answer, because, evidence } = only(&facts);
        assert!(answer && because.is_empty() && evidence.len() == 3, "{because:?} {evidence:?}");
        assert!(!safe(&facts).answer);
    }
    let plaintext = InPlaintext { active: 1, last: Some(at(0)), ..InPlaintext::default() };
    assert!(!only(&RouteFacts { plaintext, ..facts() }).answer);
}

#[test]
fn a_no_names_the_missing_step_and_no_completed_one() {
    let reasons = |facts: RouteFacts| safe(&facts).because.join("\n");
    let in_plaintext = || InPlaintext { active: 2, last: Some(at(0)), ..InPlaintext::default() };
    let drains = reasons(RouteFacts { plaintext: in_plaintext(), upgrades: true, ..facts() });
    assert!(drains.contains("they move to TLS") && !drains.contains("tls.upgrade"), "{drains}");
    let keeps = reasons(RouteFacts { plaintext: in_plaintext(), ..facts() });
    assert!(keeps.contains("set tls.upgrade = \"drain\""), "{keeps}");
    let last = InPlaintext { last: Some(Moment::at(NOW - 60)), ..InPlaintext::default() };
    let waits = reasons(RouteFacts { plaintext: last, ..facts() });
    assert!(waits.contains(&format!("wait until {}", Moment::at(NOW - 60 + DAY))), "{waits}");
    let seen_as = |seen| {
        let endpoints = vec![EndpointFacts { seen: Some(seen), ..facts().endpoints[0].clone() }];
        reasons(RouteFacts { latched: false, endpoints, ..facts() })
    };
    for (seen, step) in [
        (ObservedTransit::Disabled, "set the group's transit encryption mode to \"preferred\""),
        (ObservedTransit::Untrusted, "set tls.ca_files"),
        (ObservedTransit::UntrustedOnly, "set tls.ca_files"),
        (ObservedTransit::Unreachable, "run `pontoon check`"),
        (ObservedTransit::Unknown, "run `pontoon check`"),
    ] {
        assert!(seen_as(seen).contains(step), "{seen:?}: {}", seen_as(seen));
    }
    assert!(reasons(RouteFacts { verifies: false, ..facts() }).contains("remove tls.insecure_skip_verify"));
    let disabled = reasons(RouteFacts { mode: tls::TlsMode::Disabled, ..facts() });
    assert!(disabled.contains("set tls.mode to \"preferred\""), "{disabled}");
    assert!(reasons(RouteFacts { servers: None, ..facts() }).contains("set evidence.interval"));
}

#[test]
fn each_obstacle_is_reported_and_is_the_only_reason() {
    let quiet = watched_for;
    let certificate =
        |expires| vec![EndpointFacts { certificate_expires: expires, ..facts().endpoints[0].clone() }];
    let in_plaintext = |active, last| InPlaintext { active, last, ..InPlaintext::default() };
    let asked = Some(at(0));
    let age = Duration::from_secs(241);
    let cases = [
        ("tls.mode is \"disabled\"", RouteFacts { mode: tls::TlsMode::Disabled, ..facts() }),
        (
            "no endpoint speaks TLS that can be trusted (cache:6379: TLS)",
            RouteFacts { latched: false, ..facts() },
        ),
        ("does not verify certificates", RouteFacts { verifies: false, ..facts() }),
        (
            "not reached for 61 s",
            RouteFacts { unreached: Some("upstream not reached for 61 s".into()), ..facts() },
        ),
        (
            "no certificate was seen: this bridge has completed no TLS handshake",
            RouteFacts { endpoints: certificate(None), ..facts() },
        ),
        (
            "no certificate of node-2:6379 was seen",
            RouteFacts {
                endpoints: vec![
                    facts().endpoints[0].clone(),
                    EndpointFacts {
                        endpoint: "node-2:6379".into(),
                        seen: None,
                        certificate_expires: None,
                        local_port: Some(7001),
                        ..EndpointFacts::default()
                    },
                ],
                ..facts()
            },
        ),
        (
            "in less than 14 days",
            RouteFacts { endpoints: certificate(Some(Moment::at(NOW + 13 * DAY))), ..facts() },
        ),
        ("in plaintext now: 2", RouteFacts { plaintext: in_plaintext(2, Some(at(0))), ..facts() }),
        (
            "less than 1 day ago",
            RouteFacts { plaintext: in_plaintext(0, Some(Moment::at(NOW - DAY + 1))), ..facts() },
        ),
        ("set evidence.interval", RouteFacts { servers: None, ..facts() }),
        (
            "the sentinels have not named them",
            RouteFacts {
                endpoints: vec![EndpointFacts {
                    role: Some("sentinel".into()),
                    ..facts().endpoints.remove(0)
                }],
                servers: Some(Observation::default()),
                ..facts()
            },
        ),
        ("not asked yet", RouteFacts { servers: Some(Observation::default()), ..facts() }),
        (
            "could not be asked: no CA",
            RouteFacts {
                servers: Some(Observation { asked, problem: Some("no CA".into()), ..Observation::default() }),
                ..facts()
            },
        ),
        (
            "node-1:6379 could not be asked: closed",
            RouteFacts { servers: seen(vec![node(Some(0), Some("closed"))], quiet(2)), ..facts() },
        ),
        (
            "does not count",
            RouteFacts { servers: seen(vec![node(Some(0), None), node(None, None)], quiet(2)), ..facts() },
        ),
        (
            "counts clients in plaintext: 5",
            RouteFacts { servers: seen(vec![node(Some(5), None)], None), ..facts() },
        ),
        (
            "and has port 6379 for plaintext",
            RouteFacts {
                servers: seen(vec![without_count(PlaintextAccess::OtherPort(6379))], None),
                ..facts()
            },
        ),
        (
            "and accepts plaintext",
            RouteFacts { servers: seen(vec![without_count(PlaintextAccess::Accepted)], None), ..facts() },
        ),
        (
            "refuses plaintext, but not every server does",
            RouteFacts {
                servers: seen(vec![without_count(PlaintextAccess::Refused), node(Some(0), None)], None),
                ..facts()
            },
        ),
        (
            "too long ago",
            RouteFacts {
                servers: seen(vec![without_count(PlaintextAccess::Refused)], None)
                    .map(|seen| Observation { age, ..seen }),
                ..facts()
            },
        ),
        ("no server answered", RouteFacts { servers: seen(vec![], quiet(2)), ..facts() }),
        (
            "too long ago",
            RouteFacts { servers: facts().servers.map(|seen| Observation { age, ..seen }), ..facts() },
        ),
        (
            "watched for only 0s of 1 day",
            RouteFacts { servers: seen(vec![node(Some(0), None)], quiet(0)), ..facts() },
        ),
        ("not known since when", RouteFacts { servers: seen(vec![node(Some(0), None)], None), ..facts() }),
    ];
    for (words, facts) in cases {
        let Verdict { answer, because, .. } = safe(&facts);
        assert!(!answer && because.len() == 1 && because[0].contains(words), "{words}: {because:?}");
        let steps = [
            "set ",
            "wait ",
            "run `",
            "renew ",
            "remove ",
            "reconnect ",
            "`pontoon check` names",
            "`pontoon audit`",
        ];
        assert!(steps.iter().any(|step| because[0].contains(step)), "no step: {because:?}");
    }
}

#[test]
fn unseen_connections_are_reported_and_block_if_configured() {
    let with_unseen = |unseen_at_ms| {
        let quiet = watched_for(2).map(|quiet| Quiet { unseen: 3, unseen_at_ms, ..quiet });
        RouteFacts { servers: seen(vec![node(Some(0), None)], quiet), ..facts() }
    };
    let verdict = safe(&with_unseen(1));
    assert!(
        verdict.answer && verdict.evidence.iter().any(|line| line.contains("unseen: at most 3")),
        "{verdict:?}"
    );
    let strict = Settings { unseen_blocks: true, ..Settings::default() };
    let lately = safe_to_require_tls(&with_unseen(2 * DAY * 1000 - 1), &strict);
    assert!(!lately.answer && lately.because[0].contains("verdict.unseen"), "{lately:?}");
    assert!(safe_to_require_tls(&with_unseen(DAY * 1000), &strict).answer, "a day without any is enough");
}

fn without_count(plaintext: PlaintextAccess) -> NodeEvidence {
    NodeEvidence { plaintext: Some(plaintext), ..node(None, None) }
}

#[test]
fn tls_is_already_required_if_every_server_refuses_plaintext() {
    let refusing = || without_count(PlaintextAccess::Refused);
    let lately = InPlaintext { last: Some(at(0)), ..InPlaintext::default() };
    let facts = |nodes| RouteFacts { servers: seen(nodes, None), plaintext: lately, active: 9, ..facts() };
    let verdict = safe(&facts(vec![refusing(), refusing()]));
    assert!(verdict.answer, "{verdict:?}");
    assert_eq!(verdict.evidence[1], "TLS is already required: all 2 servers refuse plaintext");
    let verdict = safe(&facts(vec![refusing()]));
    assert_eq!(verdict.evidence[1], "TLS is already required: the server refuses plaintext");
    let young = facts(vec![refusing()]);
    let servers = young.servers.map(|seen| Observation { refused_enough: Duration::from_secs(600), ..seen });
    let verdict = safe(&RouteFacts { servers, ..facts(vec![]) });
    assert!(!verdict.answer && verdict.because[0].contains("0s of 10m"), "{verdict:?}");
    for other in [
        without_count(PlaintextAccess::Accepted),
        without_count(PlaintextAccess::OtherPort(6379)),
        without_count(PlaintextAccess::Unknown("silence".into())),
        node(None, None),
        node(Some(0), None),
        node(None, Some("closed")),
        NodeEvidence { problem: Some("closed".into()), ..refusing() },
    ] {
        assert!(!safe(&facts(vec![refusing(), other.clone()])).answer, "{other:?}");
    }
    let old = facts(vec![refusing()]);
    let servers = old.servers.clone().map(|seen| Observation { age: Duration::from_secs(241), ..seen });
    assert!(!safe(&RouteFacts { servers, ..old }).answer);
    assert!(
        !safe(&RouteFacts { verifies: false, ..facts(vec![refusing()]) }).answer,
        "without verification the server may be any"
    );
}

fn client(active: u64, last_seen: Moment) -> ClientRecord {
    serde_json::from_value(serde_json::json!({
        "route": "r", "process": "php-fpm", "uid": 33, "container": null, "client_name": "shop", "own_tls": false,
        "library": {"name": "phpredis", "version": "5.3", "guessed": true},
        "first_seen": at(20), "last_seen": last_seen, "sessions": 5, "active": active, "commands": 1
    }))
    .unwrap()
}

fn needed(facts: &RouteFacts, clients: &[&ClientRecord]) -> Verdict {
    bridge_needed(facts, &Settings::default(), clients)
}

#[test]
fn a_bridge_is_needed_by_clients_that_used_it_recently() {
    let (here, lately, gone) = (client(2, at(0)), client(0, at(1)), client(0, at(8)));
    let Verdict { answer, because, .. } =
        needed(&RouteFacts { active: 2, last_used: Some(at(0)), ..facts() }, &[&here, &lately, &gone]);
    assert!(answer);
    assert_eq!(because[0], "php-fpm, phpredis 5.3, named shop, sessions now: 2");
    assert_eq!(because[1], format!("php-fpm, phpredis 5.3, named shop, last seen at {}", at(1)));
    assert_eq!(because.len(), 2);
    let many: Vec<&ClientRecord> = std::iter::repeat_n(&here, 13).collect();
    assert_eq!(needed(&RouteFacts { active: 26, ..facts() }, &many).because[10], "3 more: see /clients");
}

#[test]
fn a_bridge_that_was_unused_for_long_enough_can_go() {
    let Verdict { answer, because, evidence } = needed(&facts(), &[&client(0, at(10))]);
    assert!(!answer && because.is_empty());
    assert_eq!(evidence, ["unused for 10 days"]);
    assert_eq!(needed(&RouteFacts { last_used: None, ..facts() }, &[]).evidence, ["never used in 30 days"]);
}

#[test]
fn a_bridge_that_was_not_watched_for_long_enough_counts_as_needed() {
    let facts = RouteFacts { last_used: None, watched_since: at(2), ..facts() };
    let Verdict { answer, because, .. } = needed(&facts, &[]);
    assert!(answer && because[0].contains("watched only since"), "{because:?}");
    assert!(because[0].contains(&format!("wait until {}", Moment::at(NOW + 5 * DAY))), "{because:?}");
}
