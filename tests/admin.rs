//! The admin port: what it accepts, from which clients, and which attacks it survives.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::harness::{Authority, CHECK, Pontoon, Redis, StopOnDrop, bridge, eventually, http, pontoon};

#[test]
fn a_post_to_quit_ends_pontoon_as_a_signal_does() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let mut pontoon = Pontoon::to(&redis.endpoint(), &authority);
    let mut client = pontoon.client();
    client.expect(&["PING"], "+PONG\r\n");
    assert_eq!(pontoon.get("/quit").0, 405, "a GET changes nothing");
    assert_eq!(pontoon.post("/quit").0, 202);
    client.expect_end();
    assert_eq!(pontoon.wait().code(), Some(0));
}

#[test]
fn an_admin_socket_admits_its_owner_and_is_removed_at_the_end() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    let admin = format!("unix:{}", path.display());
    let mut bridge = Pontoon::with(&redis.endpoint(), &authority, &["--admin", &admin]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let healthy = pontoon(&["health", "--admin", &format!("{admin}?mode=0600"), "--wait", "20s"]);
    assert!(healthy.status.success(), "{healthy:?}");
    let status = pontoon(&["status", "--admin", &admin]);
    assert!(status.status.success() && status.stderr.is_empty(), "{status:?}");
    let quit = http::request("POST /quit", &[("Host", "localhost")]);
    assert_eq!(http::send_unix(&path, quit.as_bytes()).unwrap().status, 202);
    assert_eq!(bridge.wait().code(), Some(0));
    assert!(!path.exists());
    let gone = pontoon(&["health", "--admin", &admin]);
    let error = String::from_utf8(gone.stderr).unwrap();
    assert!(error.starts_with(&format!("error: no answer from {admin}: ")), "{error}");
}

#[test]
fn a_web_site_can_neither_read_the_inventory_nor_send_commands() {
    let (_redis, mut pontoon) = bridge();
    let address = pontoon.admin();
    let host = address.to_string();
    let refused = |request: &str, header: &[(&str, &str)]| {
        let answer = http::ask(address, request, header);
        assert!(answer.head.contains("x-content-type-options: nosniff"), "{answer:?}");
        answer.status
    };
    for path in ["/", "/clients", "/routes", "/nothing"] {
        assert_eq!(refused(&format!("GET {path}"), &[("Host", "rebound.example")]), 403, "{path}");
    }
    for path in ["/drain", "/quit", "/reload"] {
        let post = format!("POST {path}");
        assert_eq!(refused(&post, &[("Host", "rebound.example")]), 403);
        assert_eq!(refused(&post, &[("Host", &host), ("Origin", "https://site.example")]), 403);
        assert_eq!(refused(&post, &[("Host", &host), ("Sec-Fetch-Site", "cross-site")]), 403);
        assert_eq!(refused(&post, &[("Host", &host), ("Content-Type", "text/plain")]), 415);
        assert_eq!(refused(&post, &[("Host", &host), ("Content-Length", "1")]), 400);
        let preflight = [("Host", &*host), ("Origin", "https://site.example")];
        assert_eq!(refused(&format!("OPTIONS {path}"), &preflight), 403);
    }
    assert!(pontoon.is_running());
    pontoon.client().expect(&["PING"], "+PONG\r\n");
}

#[test]
fn other_methods_get_the_allowed_ones_and_head_works() {
    let (_redis, pontoon) = bridge();
    let address = pontoon.admin();
    let ask = |request: &str| http::ask(address, request, &[("Host", "localhost")]);
    for path in ["/livez", "/metrics", "/clients", "/routes"] {
        let wrong = ask(&format!("POST {path}"));
        assert_eq!(wrong.status, 405, "{path}");
        assert!(wrong.head.contains("\r\nallow: get,head"), "{wrong:?}");
        let head = ask(&format!("HEAD {path}"));
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
    }
    let wrong = ask("GET /reload");
    assert!(wrong.status == 405 && wrong.head.contains("\r\nallow: post"), "{wrong:?}");
}

/// Connections that send these bytes and then nothing, for as long as they are held.
fn hold(address: SocketAddr, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let connect = |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        let _ = stream.write_all(bytes);
        stream
    };
    (0..count).map(connect).collect()
}

#[test]
fn probes_are_answered_while_strangers_hold_all_connections() {
    let (_redis, pontoon) = bridge();
    let pontoon = pontoon.ready();
    let address = pontoon.admin();
    let slow_body = b"POST /drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nx";
    let never_taken = http::request("GET /clients", &[("Host", "localhost")])
        .replace("Connection: close\r\n", "")
        .repeat(64);
    let never_taken_metrics =
        http::request("GET /metrics", &[]).replace("Connection: close\r\n", "").repeat(64);
    let mut held = Vec::new();
    for bytes in [
        &b""[..],
        b"GET /livez HTT",
        b"GET /livez HTTP/1.1\r\nHost: ",
        slow_body,
        never_taken.as_bytes(),
        never_taken_metrics.as_bytes(),
    ] {
        held.extend(hold(address, 100, bytes));
        assert_eq!(pontoon.get("/livez"), (200, "ok\n".into()));
        assert_eq!(pontoon.get("/readyz"), (200, "serving\n".into()));
        assert!(pontoon.get("/metrics").1.contains("pontoon_sessions_active"));
        assert_eq!(pontoon.get("/clients").0, 200);
    }
    pontoon.client().expect(&["PING"], "+PONG\r\n");
    drop(held);
}

#[test]
fn a_scraper_is_answered_while_others_flood_the_admin_port() {
    let (_redis, pontoon) = bridge();
    let pontoon = pontoon.ready();
    let address = pontoon.admin();
    let done = AtomicBool::new(false);
    let rounds = AtomicUsize::new(0);
    thread::scope(|scope| {
        let _end = StopOnDrop(&done);
        for path in ["GET /", "GET /clients"] {
            for _ in 0..30 {
                scope.spawn(|| {
                    let request = http::request(path, &[("Host", "localhost")]);
                    while !done.load(Ordering::Relaxed) {
                        http::send(address, request.as_bytes());
                        rounds.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        }
        eventually("the flood has begun", || rounds.load(Ordering::Relaxed) > 60);
        let scrape = http::request("GET /metrics", &[]);
        let answered = (0..20).filter(|_| http::send(address, scrape.as_bytes()).is_some()).count();
        assert_eq!(answered, 20);
    });
}

#[test]
fn an_invalid_request_ends_only_its_own_connection() {
    let (_redis, pontoon) = bridge();
    let address = pontoon.admin();
    let host = ("Host", "localhost");
    let status = |bytes: &[u8]| http::send(address, bytes).map(|answer| answer.status);
    let long = "x".repeat(1 << 20);
    let long_url = http::request(&format!("GET /clients?{long}"), &[host]);
    let long_header = http::request("GET /clients", &[host, ("X", &long)]);
    let many_headers = http::request("GET /clients", &[vec![host], vec![("X", "x"); 1000]].concat());
    let body = http::request("GET /clients", &[host, ("Content-Length", "5")]) + "hello";
    let chunked = http::request("GET /clients", &[host, ("Transfer-Encoding", "chunked")]) + "0\r\n\r\n";
    let both =
        http::request("GET /clients", &[host, ("Content-Length", "5"), ("Transfer-Encoding", "chunked")])
            + "0\r\n\r\nGET /livez HTTP/1.1\r\n\r\n";
    let two_lengths =
        http::request("GET /clients", &[host, ("Content-Length", "0"), ("Content-Length", "5")]);
    let two_hosts = http::request("GET /clients", &[host, host]);
    let no_host = http::request("GET /clients", &[]);
    let other_target = http::request("GET http://rebound.example/clients", &[host]);
    let folded = http::request("GET /clients", &[host, ("X", "a\r\n b")]);
    for (what, bytes, expected) in [
        ("a long target", long_url.as_bytes(), &[414, 431][..]),
        ("a long header", long_header.as_bytes(), &[431]),
        ("many headers", many_headers.as_bytes(), &[431]),
        ("a body", body.as_bytes(), &[400]),
        ("a chunked body", chunked.as_bytes(), &[400]),
        ("two ways to end a body", both.as_bytes(), &[400]),
        ("two lengths", two_lengths.as_bytes(), &[400]),
        ("two hosts", two_hosts.as_bytes(), &[400]),
        ("no host", no_host.as_bytes(), &[403]),
        ("another target than host", other_target.as_bytes(), &[403]),
        ("a folded line", folded.as_bytes(), &[400]),
        ("TLS", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", &[400]),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[]),
        ("zeros", &[0; 4096], &[400]),
        ("lines", b"\r\n\r\n\r\nhello\r\n\r\n", &[400]),
    ] {
        let found = status(bytes);
        // A request that is too large is refused while it is sent: the refusal may be lost with the connection.
        let unheard = found.is_none() && (bytes.len() > 16_384 || expected.is_empty());
        assert!(unheard || found.is_some_and(|found| expected.contains(&found)), "{what}: {found:?}");
    }
    assert_eq!(status(b"GET /livez HTTP/1.0\r\n\r\n"), Some(200), "an HTTP/1.0 probe");
    assert_eq!(pontoon.get("/clients?limit=99999999999").0, 200);
}

#[test]
fn floods_of_requests_and_clients_that_never_read_cost_no_memory() {
    let (_redis, pontoon) = bridge();
    let pontoon = pontoon.ready();
    let address = pontoon.admin();
    let host = ("Host", "localhost");
    let keep = |path: &str| http::request(path, &[host]).replace("Connection: close\r\n", "");
    let load = || {
        for path in ["GET /livez", "GET /readyz", "GET /clients?limit=10000", "GET /routes", "GET /metrics"] {
            let last = http::request("GET /livez", &[host]);
            let pipelined = keep(path).repeat(200) + &last;
            let body = http::send(address, pipelined.as_bytes()).unwrap().body;
            assert_eq!(body.matches("HTTP/1.1 200").count(), 200, "{path}: each in order");
        }
    };
    load();
    let before = pontoon.peak_memory_kib();
    let unread: Vec<_> =
        (0..4).flat_map(|_| hold(address, 60, keep("GET /metrics").repeat(60).as_bytes())).collect();
    load();
    let grown = pontoon.peak_memory_kib() - before;
    assert!(grown < 16 * 1024, "{grown} KiB");
    drop(unread);
}

/// Everything that `/readyz`, `health`, `status`, `/routes` and the page say.
fn all_outputs(bridge: &Pontoon) -> [(&'static str, String); 5] {
    let admin = bridge.admin().to_string();
    let said = |command: &str| {
        let output = pontoon(&[command, "--admin", &admin]);
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    [
        ("/readyz", bridge.get("/readyz").1),
        ("health", said("health")),
        ("status", said("status")),
        ("/routes", bridge.get("/routes").1),
        ("/", bridge.get("/").1),
    ]
}

#[test]
fn every_output_names_the_cause_of_an_outage_from_its_first_failure() {
    let authority = Authority::new();
    let mut redis = Redis::start(&authority);
    let bridge = Pontoon::to(&redis.endpoint(), &authority).ready();
    bridge.allows("connection lost while a client used it");
    // A connection may be dialled in advance while the server ends.
    bridge.allows("TLS handshake with");
    bridge.allows("greeting");
    bridge.client().expect(&["PING"], "+PONG\r\n");
    redis.kill();
    // Before that, a connection kept for reuse may turn out to be lost.
    bridge.expects("TCP connection to");
    eventually("a connection fails", || {
        bridge.client().ask(&["PING"]);
        bridge.log_count("TCP connection to") > 0
    });
    // An attempt that began earlier may end later.
    let is_told = |text: &str| {
        ["upstream not reached since 20", "connection refused: nothing listens on this port"]
            .iter()
            .all(|words| text.contains(words))
    };
    eventually("every output names the cause", || {
        bridge.client().ask(&["PING"]);
        all_outputs(&bridge).iter().all(|(_, text)| is_told(text))
    });
    // The upstream was reached within the last minute, so orchestrators do not have to act yet.
    assert_eq!(bridge.get("/readyz").0, 200);
    redis.restart();
    eventually("the cause is gone", || {
        bridge.client().ask(&["PING"]);
        bridge.get("/readyz") == (200, "serving\n".to_owned())
    });
    let page = bridge.get("/").1;
    assert!(page.contains("Serving") && !page.contains("Not serving"), "{page}");
}

#[test]
fn every_output_names_the_limit_that_refuses_clients() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let bridge = Pontoon::with(&redis.endpoint(), &authority, &["--max-clients", "1"]).ready();
    bridge.expects("limits.max_clients is reached");
    let mut one = bridge.client();
    one.expect(&["PING"], "+PONG\r\n");
    bridge.client().expect_next("-ERR max number of clients reached\r\n");
    for (output, text) in all_outputs(&bridge) {
        assert!(text.contains("clients refused since the start: 1, the last at 20"), "{output}: {text}");
        assert!(text.contains("limits.max_clients is reached"), "{output}: {text}");
    }
    assert_eq!(bridge.get("/readyz").0, 200, "pontoon serves the other clients");
}

#[test]
fn every_output_names_a_certificate_close_to_its_expiry() {
    let authority = Authority::new();
    let redis = Redis::with(authority.issue_for_days(&["localhost"], 10), &authority, &[]);
    let bridge = Pontoon::to(&redis.endpoint(), &authority).ready();
    bridge.expects("certificate must be renewed");
    let problem = format!("the certificate of {} expires at 20", redis.endpoint());
    bridge.wait_for_log(&problem);
    for (output, text) in all_outputs(&bridge) {
        assert!(text.contains(&problem) && text.contains("in less than 14 days"), "{output}: {text}");
    }
    let ca = authority.file();
    let endpoint = redis.endpoint();
    let said = |command: &[&str]| {
        let output = pontoon(&[command, &[&endpoint, "--tls-ca-file", &ca]].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let checked = said(&[&CHECK[..], &["--upstream"]].concat());
    assert!(checked.contains("certificate warn") && checked.contains(&problem), "{checked}");
    let probed = said(&["probe"]);
    assert!(probed.contains("(9 days): renew it"), "{probed}");
}

#[test]
fn an_incomplete_request_times_out() {
    let (_redis, pontoon) = bridge();
    let answer = http::send(pontoon.admin(), b"GET /livez HTTP/1.1\r\nHost: ");
    assert_eq!(answer, None, "closed");
    eventually("the permit is free", || pontoon.get("/livez").0 == 200);
}
