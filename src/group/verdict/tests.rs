//! Each reason, once.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clients::{ClientRecord, InPlaintext};
use crate::group::{Evidence, NodeEvidence, Observation};
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
    let evidence = Some(Arc::new(Evidence { nodes, direct: Vec::new(), unknown: Vec::new() }));
    Some(Observation { asked: Some(at(0)), evidence, quiet, problem: None })
}

/// A route with nothing against it, and no client for ten days.
fn facts() -> RouteFacts {
    RouteFacts {
        now: at(0),
        mode: tls::TlsMode::Preferred,
        verifies: true,
        unreached: None,
        latched: true,
        endpoints: vec![EndpointFacts {
            endpoint: "cache:6379".into(),
            seen: Some(ObservedTransit::Tls),
            certificate_expires: Some(Moment::at(NOW + 90 * DAY)),
            local_port: None,
        }],
        plaintext: InPlaintext { last: Some(at(3)), ..InPlaintext::default() },
        active: 0,
        last_used: Some(at(10)),
        watched_since: at(30),
        servers: seen(vec![node(Some(0), None)], Some(Quiet { since: at(2), until: at(0) })),
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
    found(&format!("all 1 servers count no client in plaintext since {}", at(2)));
    assert!(safe(&RouteFacts { mode: tls::TlsMode::Required, latched: false, ..facts() }).answer);
}

#[test]
fn each_reason_for_no_is_said_and_is_the_only_one() {
    let quiet = |days| Some(Quiet { since: at(days), until: at(0) });
    let certificate =
        |expires| vec![EndpointFacts { certificate_expires: expires, ..facts().endpoints[0].clone() }];
    let in_plaintext = |active, last| InPlaintext { active, last, ..InPlaintext::default() };
    let asked = Some(Moment::at(NOW - 241));
    let cases = [
        ("tls.mode is \"disabled\"", RouteFacts { mode: tls::TlsMode::Disabled, ..facts() }),
        (
            "no endpoint speaks TLS that can be trusted (cache:6379: TLS)",
            RouteFacts { latched: false, ..facts() },
        ),
        ("verifies no certificate", RouteFacts { verifies: false, ..facts() }),
        (
            "not reached for 61 s",
            RouteFacts { unreached: Some("upstream not reached for 61 s".into()), ..facts() },
        ),
        ("no certificate was seen", RouteFacts { endpoints: certificate(None), ..facts() }),
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
                    },
                ],
                ..facts()
            },
        ),
        (
            "less than 14 days are left",
            RouteFacts { endpoints: certificate(Some(Moment::at(NOW + 13 * DAY))), ..facts() },
        ),
        ("in plaintext now: 2", RouteFacts { plaintext: in_plaintext(2, Some(at(0))), ..facts() }),
        (
            "less than 1 day ago",
            RouteFacts { plaintext: in_plaintext(0, Some(Moment::at(NOW - DAY + 1))), ..facts() },
        ),
        ("set evidence.interval", RouteFacts { servers: None, ..facts() }),
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
        ("no server answered", RouteFacts { servers: seen(vec![], quiet(2)), ..facts() }),
        (
            "too long ago",
            RouteFacts { servers: facts().servers.map(|seen| Observation { asked, ..seen }), ..facts() },
        ),
        ("only since", RouteFacts { servers: seen(vec![node(Some(0), None)], quiet(0)), ..facts() }),
        ("not known since when", RouteFacts { servers: seen(vec![node(Some(0), None)], None), ..facts() }),
    ];
    for (words, facts) in cases {
        let Verdict { answer, because, .. } = safe(&facts);
        assert!(!answer && because.len() == 1 && because[0].contains(words), "{words}: {because:?}");
    }
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
fn a_bridge_is_needed_by_those_who_used_it_lately() {
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
fn a_bridge_that_nobody_used_for_long_enough_can_go() {
    let Verdict { answer, because, evidence } = needed(&facts(), &[&client(0, at(10))]);
    assert!(!answer && because.is_empty());
    assert_eq!(evidence, ["unused for 10 days"]);
    assert_eq!(needed(&RouteFacts { last_used: None, ..facts() }, &[]).evidence, ["never used in 30 days"]);
}

#[test]
fn a_bridge_that_was_not_watched_long_enough_is_not_known_to_be_unused() {
    let facts = RouteFacts { last_used: None, watched_since: at(2), ..facts() };
    let Verdict { answer, because, .. } = needed(&facts, &[]);
    assert!(answer && because[0].contains("watched only since"), "{because:?}");
}
