//! The alerts of `config/prometheus`, tested on metrics that pontoon exported: each fires when it should, and is silent when all is well.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cluster::bridge_at;
use crate::harness::{
    Authority, Cluster, Dual, Fake, Mood, Page, Pontoon, Recording, Redis, command, eventually, free_port,
    http,
};

/// Upper bound on the series that Prometheus keeps for a node, whatever clients do to it.
const SERIES_OF_A_NODE: usize = 60;

/// Upper bound on the series of a route, without those of its nodes.
const SERIES_OF_A_ROUTE: usize = 140;

#[test]
fn an_upstream_name_no_longer_used_raises_no_alert() {
    let (authority, impostor) = (Authority::new(), Authority::new());
    let (redis, other) = (Redis::start(&authority), Redis::start(&impostor));
    let old = Dual::new(&other, Mood::Accept, Mood::Accept);
    let new = Dual::new(&redis, Mood::Accept, Mood::Reset);
    let args = ["--upstream", &new.endpoint(), "--tls-mode", "preferred"];
    let pontoon = Pontoon::with(&old.endpoint(), &authority, &args);
    for text in [
        "in plaintext until an endpoint accepts TLS",
        "transit encryption observed: plaintext only",
        "TLS that cannot be trusted",
    ] {
        pontoon.expects(text);
    }
    eventually("the old name is not trusted", || {
        pontoon.metric("pontoon_transit_encryption", "mode=\"untrusted\"") == 1
    });
    eventually("the new name is known", || {
        pontoon.metric("pontoon_transit_encryption", "mode=\"disabled\"") == 1
    });
    Recording::of(&Page::of(&pontoon), 20).assert_firing(&["PontoonTlsCannotBeTrusted"]);

    new.set(Mood::Accept, Mood::Accept);
    eventually("the new name speaks TLS", || {
        pontoon.metric("pontoon_transit_encryption", "mode=\"tls\"") == 1
    });
    let page = Page::of(&pontoon);
    Recording::of(&page, 20).assert_firing(&[]);
    assert_eq!(page.series("pontoon_transit_encryption", "").len(), 1, "the old name is no longer observed");
}

#[test]
fn a_node_that_its_cluster_replaced_raises_no_alert() {
    let mut cluster = Cluster::start();
    let begin = format!("localhost:{}", cluster.nodes[1].port);
    let pontoon = bridge_at(&begin, &cluster, &["--cluster-refresh", "100ms"]);
    for text in ["connect", "TLS handshake", "connection", "not known", "closed"] {
        pontoon.allows(text);
    }
    let reached = |node: &str| pontoon.metric("pontoon_upstream_reachable", node);
    eventually("all nodes were reached", || reached("node=") == 6);
    let page = Page::of(&pontoon);
    Recording::of(&page, 20).assert_firing(&[]);
    for node in &cluster.nodes {
        let label = format!("node=\"{}\"", node.endpoint());
        let series = page.count(|series| series.contains(&label));
        assert!(series <= SERIES_OF_A_NODE, "{series} series of a node");
    }
    let series = page.count(|series| series.contains("route=") && !series.contains("node="));
    assert!(series <= SERIES_OF_A_ROUTE, "{series} series of a route");
    let dead = cluster.nodes[0].endpoint();
    let label = format!("node=\"{dead}\"");
    cluster.nodes[0].kill();
    eventually("the cluster has another primary", || cluster.is_primary(3));
    eventually("the cluster gave the node up", || cluster.ask(1, &["CLUSTER", "NODES"]).contains("fail "));
    eventually("the node is not expected", || {
        Page::of(&pontoon).series("pontoon_upstream_reachable", &label).is_empty()
    });
    Recording::of(&Page::of(&pontoon), 20).assert_firing(&[]);

    cluster.nodes[0].restart();
    eventually("the node is back", || reached(&label) == 1);
}

#[test]
fn a_lost_upstream_raises_one_critical_alert_a_lost_path_a_warning() {
    let authority = Authority::new();
    let mut redis = Redis::start(&authority);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &[]).ready();
    let well = Page::of(&pontoon);
    Recording::of(&well, 20).assert_firing(&[]);
    redis.kill();
    pontoon.allows("connect");
    eventually("the upstream is not reached", || {
        let page = Page::of(&pontoon);
        pontoon.metric("pontoon_upstream_reachable", "") == 0
            && !page.series("pontoon_upstream_reachable", "").is_empty()
    });
    let lost = Page::of(&pontoon);
    let fleet = |a, b| Recording::default().then(&[("a", a, a), ("b", b, b)], 20);
    fleet(&lost, &lost).assert_firing(&["PontoonUpstreamUnreachable"]);
    fleet(&well, &lost).assert_firing(&["PontoonSidecarsCutOff"]);
}

#[test]
fn removed_routes_and_renamed_upstreams_leave_no_series() {
    let authority = Authority::new();
    let (one, two) = (Redis::start(&authority), Redis::start(&authority));
    let route = |name: &str, redis: &Redis| {
        let (upstream, ca) = (redis.endpoint(), authority.file());
        format!(
            "[[route]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{upstream}\"\ntls.ca_files = \"{ca}\"\n\
             limits.max_clients = 100\n"
        )
    };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pontoon.toml");
    let write = |routes: &str| {
        fs::write(&file, format!("admin.listen = \"127.0.0.1:0\"\n{routes}")).unwrap();
    };
    write(&(route("a", &one) + &route("b", &one)));
    let pontoon = Pontoon::run(&["--config", file.to_str().unwrap()]).ready();
    let of = |labels: &str| Page::of(&pontoon).count(|series| series.contains(labels));
    let upstream = |redis: &Redis| format!("upstream=\"{}\"", redis.endpoint());
    pontoon.client().expect(&["SET", "k", "v"], "+OK\r\n");
    assert!(of("route=\"a\"") > 10 && of("route=\"b\"") > 10 && of(&upstream(&one)) == 2);
    let requests = pontoon.metric("pontoon_requests_total", "route=\"a\"");
    let requests = requests + pontoon.metric("pontoon_requests_total", "route=\"b\"");
    assert_eq!(requests, 1);

    write(&route("a", &two));
    assert_eq!(pontoon.post("/reload").0, 200);
    eventually("nothing is left of b", || of("route=\"b\"") == 0);
    eventually("nothing is left of the first upstream", || of(&upstream(&one)) == 0);
    eventually("the second one was reached", || of(&upstream(&two)) == 1);
    assert!(of("route=\"a\"") > 10);

    write(&route("renamed", &two));
    assert_eq!(pontoon.post("/reload").0, 200);
    eventually("nothing is left of a", || of("route=\"a\"") == 0);
}

#[test]
fn a_refused_reload_raises_an_alert_until_one_succeeds() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pontoon.toml");
    let write = |more: &str| {
        let (upstream, ca) = (redis.endpoint(), authority.file());
        let route = format!(
            "[[route]]\nlisten = \"127.0.0.1:0\"\nupstream = \"{upstream}\"\ntls.ca_files = \"{ca}\"\n"
        );
        fs::write(&file, format!("admin.listen = \"127.0.0.1:0\"\n{route}limits.max_clients = 100\n{more}"))
            .unwrap();
    };
    write("");
    let pontoon = Pontoon::run(&["--config", file.to_str().unwrap()]).ready();
    write("no_such_key = 1\n");
    assert_ne!(pontoon.post("/reload").0, 200);
    pontoon.expects("configuration not reloaded");
    Recording::of(&Page::of(&pontoon), 20).assert_firing(&["PontoonReloadFailed"]);
    write("");
    assert_eq!(pontoon.post("/reload").0, 200);
    Recording::of(&Page::of(&pontoon), 20).assert_firing(&[]);
}

#[test]
fn refused_and_unreadable_credentials_raise_alerts() {
    let authority = Authority::new();
    let password = "s3cr3t-of-the-alerts";
    let redis = Redis::start(&authority);
    let mut admin = redis.direct();
    admin.expect(&["CONFIG", "SET", "requirepass", password], "+OK\r\n");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    fs::write(&file, password).unwrap();
    let args = ["--auth-password-file", file.to_str().unwrap()];
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &args).ready();
    let well = Page::of(&pontoon);
    Recording::default().then(&[("a", &well, &Page::of(&pontoon))], 20).assert_firing(&[]);

    for text in ["WRONGPASS", "AUTH", "auth", "credentials"] {
        pontoon.allows(text);
    }
    admin.expect(&["CONFIG", "SET", "requirepass", "another"], "+OK\r\n");
    eventually("the upstream refuses the password", || {
        pontoon.client().ask(&["PING"]);
        pontoon.metric("pontoon_upstream_connect_errors_total", "stage=\"auth\"") > 0
            && pontoon.metric("pontoon_upstream_reachable", "") == 0
    });
    let refused = Page::of(&pontoon);
    Recording::default()
        .then(&[("a", &well, &refused)], 20)
        .assert_firing(&["PontoonCredentialsRefused", "PontoonUpstreamUnreachable"]);

    fs::remove_file(&file).unwrap();
    let read = "pontoon_credentials_last_read_successful";
    eventually("the password cannot be read", || {
        let page = Page::of(&pontoon);
        pontoon.metric(read, "") == 0 && !page.series(read, "").is_empty()
    });
    let unreadable = Page::of(&pontoon);
    Recording::default()
        .then(&[("a", &unreadable, &unreadable), ("b", &well, &well)], 20)
        .assert_firing(&["PontoonCredentialsNotRead", "PontoonSidecarsCutOff"]);
}

#[test]
fn stale_evidence_raises_an_alert() {
    let authority = Authority::new();
    let server = Fake::counting(&authority, &Arc::default(), "$0\r\n\r\n");
    let pontoon = Pontoon::with(&server.endpoint(), &authority, &["--evidence-interval", "50ms"]).ready();
    let last = "pontoon_evidence_last_success_timestamp_seconds";
    eventually("the server was asked", || pontoon.metric(last, "") > 0);
    let (first, asked) = (Page::of(&pontoon), pontoon.metric(last, ""));
    eventually("the server was asked again", || pontoon.metric(last, "") > asked);
    let later = Page::of(&pontoon);
    Recording::default().then(&[("a", &first, &later)], 20).assert_firing(&[]);
    Recording::of(&later, 20).assert_firing(&["PontoonEvidenceStale"]);
}

#[test]
fn evidence_is_stale_if_the_server_never_counts_clients() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--evidence-interval", "50ms"]).ready();
    pontoon.allows("servers do not count clients in plaintext");
    let interval = "pontoon_evidence_interval_seconds";
    eventually("the server was asked", || !Page::of(&pontoon).series(interval, "").is_empty());
    Recording::of(&Page::of(&pontoon), 20).assert_firing(&["PontoonEvidenceStale"]);
}

#[test]
fn a_certificate_that_expires_soon_raises_an_alert() {
    let authority = Authority::new();
    for (days, alerts) in [(10, &["PontoonCertificateExpires"][..]), (20, &[])] {
        let redis = Redis::with(authority.issue_for_days(&["localhost"], days), &authority, &[]);
        let pontoon = Pontoon::with(&redis.endpoint(), &authority, &[]).ready();
        Recording::of(&Page::of(&pontoon), 20).assert_firing(alerts);
    }
}

#[test]
fn a_sidecar_that_is_not_scraped_raises_an_alert() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &[]).ready();
    let page = Page::of(&pontoon);
    let page = &page;
    let removed = Recording::default().then(&[("a", page, page), ("b", page, page)], 20);
    removed.then(&[("a", page, page)], 20).assert_firing(&[]);
    let one_down = Recording::of(page, 20).then_down(&["a"], 20);
    one_down.assert_firing(&["PontoonDown"]);
    let gone = Recording::of(page, 20).then_down(&["a"], 90);
    gone.assert_firing(&["PontoonDown", "PontoonNotScraped"]);
}

#[test]
fn metrics_on_their_own_address_are_served_nowhere_else() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let metrics = free_port();
    let own = format!("127.0.0.1:{metrics}");
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--admin-metrics-listen", &own]).ready();
    pontoon.wait_for_log("metrics listening");
    let ask = |path: &str| {
        http::ask(own.parse().unwrap(), &format!("GET {path}"), &[("Host", "prometheus.example")])
    };
    assert_eq!(ask("/metrics").status, 200);
    assert!(ask("/metrics").body.contains("pontoon_upstream_reachable{"));
    for path in ["/", "/clients", "/routes", "/livez", "/readyz"] {
        let here = http::ask(own.parse().unwrap(), &format!("GET {path}"), &[("Host", &own)]);
        assert_eq!(here.status, 404, "{path}");
    }
    for command in ["/drain", "/reload", "/quit"] {
        let here = http::ask(own.parse().unwrap(), &format!("POST {command}"), &[("Host", &own)]);
        assert_eq!(here.status, 404, "{command}");
    }
    let (status, words) = pontoon.get("/metrics");
    assert_eq!(status, 404);
    assert!(words.contains(&own), "{words}");
    assert_eq!(pontoon.get("/clients").0, 200);
}

#[test]
fn a_lost_configured_node_raises_an_alert_though_the_cluster_works() {
    let mut cluster = Cluster::start();
    let begin = format!("localhost:{}", cluster.nodes[1].port);
    let pontoon = bridge_at(&begin, &cluster, &["--cluster-refresh", "100ms"]);
    for text in ["connect", "TLS handshake", "connection", "not known", "closed"] {
        pontoon.allows(text);
    }
    eventually("all nodes were reached", || pontoon.metric("pontoon_upstream_reachable", "node=") == 6);
    cluster.nodes[1].kill();
    let configured = || {
        let page = Page::of(&pontoon);
        let all = page.series("pontoon_upstream_reachable", "");
        all.into_iter().find(|series| !series.contains("node=")).map(|series| page.value(series))
    };
    eventually("the configured endpoint is not reached", || configured() == Some(0.0));
    Recording::of(&Page::of(&pontoon), 20).assert_firing(&["PontoonNodeUnreachable"]);
}

#[test]
fn sessions_still_in_plaintext_raise_an_alert_until_they_end() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let dual = Dual::new(&redis, Mood::Accept, Mood::Close);
    let pontoon = Pontoon::with(&dual.endpoint(), &authority, &["--tls-mode", "preferred"]);
    pontoon.allows("plaintext");
    let mut client = pontoon.client();
    client.expect(&["SUBSCRIBE", "news"], "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    dual.set(Mood::Accept, Mood::Accept);
    eventually("TLS is seen", || pontoon.metric("pontoon_transit_encryption", "mode=\"tls\"") == 1);
    Recording::of(&Page::of(&pontoon), 50).assert_firing(&[]);
    Recording::of(&Page::of(&pontoon), 90).assert_firing(&["PontoonStillInPlaintext"]);
    drop(client);
    eventually("the session ends", || pontoon.metric("pontoon_upstream_plaintext_connections", "") == 0);
    Recording::of(&Page::of(&pontoon), 90).assert_firing(&[]);
}

#[test]
fn clients_in_plaintext_raise_an_alert_after_a_day() {
    let (authority, plaintext) = (Authority::new(), Arc::new(AtomicU32::new(3)));
    let server = Fake::counting(&authority, &plaintext, "$0\r\n\r\n");
    let pontoon = Pontoon::with(&server.endpoint(), &authority, &["--evidence-interval", "50ms"]).ready();
    pontoon.allows("count clients in plaintext");
    let last = "pontoon_evidence_last_success_timestamp_seconds";
    let two_pages = || {
        let (first, asked) = (Page::of(&pontoon), pontoon.metric(last, ""));
        eventually("the server was asked again", || pontoon.metric(last, "") > asked);
        (first, Page::of(&pontoon))
    };
    let record = |(first, later): &(Page, Page), hours: usize| {
        Recording::default().then(&[("a", first, later)], hours * 60)
    };
    eventually("the server was asked", || pontoon.metric("pontoon_server_plaintext_clients", "") == 3);
    record(&two_pages(), 23).assert_firing(&[]);
    record(&two_pages(), 25).assert_firing(&["PontoonServersHavePlaintextClients"]);
    plaintext.store(0, Ordering::SeqCst);
    eventually("the plaintext clients are gone", || {
        pontoon.metric("pontoon_server_plaintext_clients", "") == 0
    });
    record(&two_pages(), 25).assert_firing(&[]);
}

#[test]
fn a_bridge_that_accepts_any_certificate_raises_an_alert() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--tls-insecure-skip-verify"]).ready();
    pontoon.expects("any certificate is accepted");
    Recording::of(&Page::of(&pontoon), 20).assert_firing(&["PontoonVerificationDisabled"]);
}

#[test]
fn refused_clients_refused_commands_and_slow_requests_raise_alerts() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--max-clients", "1"]).ready();
    pontoon.allows("max_clients");
    let mut client = pontoon.client();
    client.expect(&["SET", "k", "v"], "+OK\r\n");
    let assert_alert = |alert: &str, mut causes: Box<dyn FnMut() + '_>| {
        let before = Page::of(&pontoon);
        Recording::default().then(&[("a", &before, &Page::of(&pontoon))], 20).assert_firing(&[]);
        causes();
        Recording::default().then(&[("a", &before, &Page::of(&pontoon))], 20).assert_firing(&[alert]);
    };
    let refused = || {
        pontoon.client().rest();
        eventually("the refusal is counted", || pontoon.metric("pontoon_clients_refused_total", "") == 1);
    };
    assert_alert("PontoonRefusesClients", Box::new(refused));
    // pontoon times only a sample of the requests.
    let times = || pontoon.metric("pontoon_request_duration_seconds_count", "");
    let slow = || {
        let before = times();
        eventually("a slow request is timed", || {
            client.expect(&["DEBUG", "SLEEP", "0.2"], "+OK\r\n");
            times() > before
        });
    };
    assert_alert("PontoonRequestsAreSlow", Box::new(slow));
    redis.direct().expect(&["CONFIG", "SET", "maxmemory", "1"], "+OK\r\n");
    let out_of_memory = || {
        let reply = String::from_utf8(client.ask(&["SET", "k", "v"])).unwrap();
        assert!(reply.starts_with("-OOM"), "{reply}");
    };
    assert_alert("PontoonServerRefusesCommands", Box::new(out_of_memory));
}

#[test]
fn unusable_certificate_files_raise_an_alert() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &[]).ready();
    let before = Page::of(&pontoon);
    pontoon.expects("certificates not reloaded");
    fs::write(authority.file(), "no certificate").unwrap();
    eventually("the files are refused", || {
        pontoon.metric("pontoon_tls_reloads_total", "result=\"failed\"") > 0
    });
    let record = |minutes| Recording::default().then(&[("a", &before, &Page::of(&pontoon))], minutes);
    record(20).assert_firing(&["PontoonCertificatesNotReloaded"]);
}

#[test]
fn a_bridge_that_runs_out_of_descriptors_raises_an_alert() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let (upstream, ca) = (redis.endpoint(), authority.file());
    let args =
        ["--upstream", &upstream, "--tls-ca-file", &ca, "--listen", "127.0.0.1:0", "--sharing", "dedicated"];
    let pontoon = Pontoon::with_descriptors(1024, &args).ready();
    pontoon.allows("open files");
    Recording::of(&Page::of(&pontoon), 20).assert_firing(&[]);
    let mut clients = Vec::new();
    eventually("nine of ten descriptors are in use", || {
        let mut client = pontoon.client();
        client.send(&command(&["PING"]));
        clients.push(client);
        let (open, most) = (pontoon.metric("process_open_fds", ""), pontoon.metric("process_max_fds", ""));
        open * 10 > most * 9
    });
    Recording::of(&Page::of(&pontoon), 20).assert_firing(&["PontoonDescriptorsRunOut"]);
}

/// A rule without a test that makes it fire is not known to work.
#[test]
fn each_alert_is_recorded_firing() {
    let rules = fs::read_to_string("config/prometheus/pontoon.rules.yml").unwrap();
    let tests = include_str!("alerts.rs");
    let missing: Vec<_> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .filter(|alert| !tests.contains(&format!("\"{alert}\"")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
