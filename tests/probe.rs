//! `pontoon probe`: what an endpoint accepts, seen from outside.

use std::io::{Read, Write};
use std::process::Output;

use serde_json::Value;

use crate::harness::{
    Authority, Dual, Engine, Fake, Identity, Mood, Redis, free_port, pontoon, uninterrupted,
};
use crate::json::assert_documented;

struct Probed {
    code: Option<i32>,
    report: Value,
    error: String,
}

fn run(endpoint: &str, args: &[&str]) -> Output {
    // Long enough for a busy machine; a server that hangs costs as much.
    pontoon(&[&["probe", endpoint, "--connect-timeout", "3s"], args].concat())
}

fn probe(endpoint: &str, args: &[&str]) -> Probed {
    let output = run(endpoint, &[args, &["--json"]].concat());
    let error = String::from_utf8(output.stderr).unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    if !report.is_null() {
        assert_documented("probe", &report);
    }
    Probed { code: output.status.code(), report, error }
}

fn trusting(endpoint: &str, authority: &Authority, args: &[&str]) -> Probed {
    probe(endpoint, &[&["--tls-ca-file", &authority.file()], args].concat())
}

fn localhost(port: u16) -> String {
    format!("localhost:{port}")
}

#[test]
fn an_endpoint_that_accepts_only_plaintext() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let Probed { code, report, error } = probe(&localhost(redis.plain_port), &[]);
    assert_eq!((code, report["mode"].as_str()), (Some(1), Some("disabled")), "{report}");
    assert_eq!(report["plaintext"]["accepted"], true);
    assert_eq!(report["plaintext"]["peer"], format!("127.0.0.1:{}", redis.plain_port));
    assert_eq!(report["server"]["engine"], Engine::here().name);
    assert!(report["next"].as_str().unwrap().contains("tls.mode = \"preferred\""));
    assert!(error.starts_with("error: cannot use TLS with localhost:"), "{error}");
}

#[test]
fn an_endpoint_that_accepts_only_tls() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let Probed { code, report, error } = trusting(&redis.endpoint(), &authority, &[]);
    assert_eq!((code, report["mode"].as_str(), error.as_str()), (Some(0), Some("required"), ""), "{report}");
    assert_eq!(report["plaintext"]["accepted"], false);
    let versions = report["versions"].as_array().unwrap();
    assert!(versions.iter().all(|version| version["accepted"] == true), "{report}");
    assert_eq!(versions[0]["cipher"], "TLS13_AES_256_GCM_SHA384");
    assert!(versions[0]["key_exchange"].is_string() && versions[0]["answer_ms"].is_number());
    assert_eq!(report["resumption"], true);
    assert_eq!(report["certificates"].as_array().unwrap().len(), 2);
    assert_eq!(report["certificates"][0]["names"][0], "localhost");
    assert!(report["certificates"][0]["days_left"].as_i64().unwrap() > 0);
    assert_eq!(report["verified"][0]["problem"], Value::Null);
    let server = &report["server"];
    assert!(server["version"] == Engine::here().version, "{report}");
    assert_eq!((server["role"].as_str(), server["cluster"].as_bool()), (Some("master"), Some(false)));
    assert_eq!((server["auth_wanted"].as_bool(), server["reset"].as_bool()), (Some(false), Some(true)));
    assert_eq!(
        server["setinfo"],
        redis.direct().ask(&["CLIENT", "SETINFO", "LIB-NAME", "x"]).starts_with(b"+")
    );
}

#[test]
fn an_endpoint_that_accepts_both() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let dual = Dual::new(&redis, Mood::Accept, Mood::Accept);
    let Probed { code, report, .. } = trusting(&dual.endpoint(), &authority, &[]);
    assert_eq!((code, report["mode"].as_str()), (Some(0), Some("preferred")), "{report}");
    let text =
        String::from_utf8(run(&dual.endpoint(), &["--tls-ca-file", &authority.file()]).stdout).unwrap();
    for said in
        ["preferred: plaintext and TLS", "for localhost it verifies", "plaintext clients still connect"]
    {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[test]
fn a_server_that_supports_only_an_old_tls_version() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let redis = Redis::with(identity, &authority, &["--tls-protocols", "TLSv1.2"]);
    let Probed { code, report, .. } = trusting(&redis.endpoint(), &authority, &[]);
    assert_eq!((code, report["mode"].as_str()), (Some(0), Some("required")), "{report}");
    assert_eq!(
        (&report["versions"][0]["accepted"], &report["versions"][1]["accepted"]),
        (&false.into(), &true.into())
    );
}

#[test]
fn a_server_that_asks_for_a_client_certificate() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let redis = Redis::with(identity, &authority, &["--tls-auth-clients", "yes"]);
    let Probed { code, error, .. } = trusting(&redis.endpoint(), &authority, &[]);
    assert!(code == Some(1) && error.contains("--tls-cert-file"), "{error}");
    let client = authority.issue_client();
    let (cert, key) = (client.cert_file(), client.key_file());
    let args = ["--tls-cert-file", cert.to_str().unwrap(), "--tls-key-file", key.to_str().unwrap()];
    assert_eq!(trusting(&redis.endpoint(), &authority, &args).code, Some(0));
}

#[test]
fn certificates_that_do_not_verify_are_shown_with_the_reason() {
    let authority = Authority::new();
    for (identity, reason) in [
        (authority.issue_expired(&["localhost"]), "expired"),
        (Identity::self_signed(&["localhost"]), "issuer"),
        (Authority::new().issue(&["localhost"]), "issuer"),
        (authority.issue(&["other.example"]), "other.example"),
    ] {
        let redis = Redis::with(identity, &authority, &[]);
        let Probed { code, report, error } = trusting(&redis.endpoint(), &authority, &[]);
        assert_eq!((code, report["mode"].as_str()), (Some(1), Some("required")), "{report}");
        assert!(error.contains(reason), "{reason}: {error}");
        assert!(report["verified"][0]["problem"].as_str().unwrap().contains(reason));
        assert!(!report["certificates"].as_array().unwrap().is_empty());
        assert_eq!(report["server"]["engine"], Engine::here().name);
    }
}

#[test]
fn other_names_are_compared_and_the_certificate_is_checked_for_them() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let args = ["--also", "127.0.0.1", "--also", "127.0.0.9:6379", "--also", "nowhere.invalid"];
    let endpoint = format!("127.0.0.1:{}", redis.tls_port);
    let Probed { report, .. } = trusting(&endpoint, &authority, &args);
    let also = report["also"].as_array().unwrap();
    assert_eq!(
        (&also[0]["same"], &also[1]["same"], &also[2]["same"]),
        (&true.into(), &false.into(), &false.into())
    );
    assert!(also[2]["problem"].as_str().unwrap().contains("nowhere.invalid"));
    let good = |name: &str| {
        let verified = report["verified"].as_array().unwrap();
        verified.iter().find(|verified| verified["name"] == name).unwrap()["problem"].is_null()
    };
    assert!(good("127.0.0.1") && !good("127.0.0.9") && !good("nowhere.invalid"), "{report}");
}

#[test]
fn a_password_adds_results_and_goes_only_to_a_verified_server() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let redis = Redis::with(identity, &authority, &["--requirepass", "s3cr3t-of-the-test"]);
    let without = trusting(&redis.endpoint(), &authority, &[]).report;
    assert_eq!(
        (&without["server"]["auth_wanted"], &without["server"]["engine"]),
        (&true.into(), &Value::Null)
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file.as_file(), "s3cr3t-of-the-test").unwrap();
    let args = ["--auth-password-file", file.path().to_str().unwrap()];
    let with = trusting(&redis.endpoint(), &authority, &args).report;
    assert_eq!(
        (&with["server"]["auth_refused"], &with["server"]["engine"]),
        (&Value::Null, &Engine::here().name.as_str().into()),
        "{with}"
    );
    assert!(!with.to_string().contains("s3cr3t"));

    let distrusted = trusting(&redis.endpoint(), &Authority::new(), &args).report;
    assert_eq!(distrusted["server"]["auth_wanted"], true, "the password was sent to an unknown server");
    std::fs::write(file.path(), "wrong\n").unwrap();
    let refused = trusting(&redis.endpoint(), &authority, &args).report;
    assert!(refused["server"]["auth_refused"].as_str().unwrap().contains("WRONGPASS"), "{refused}");
}

#[test]
fn servers_that_are_no_redis_or_never_answer_get_a_result() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let hanging = Dual::new(&redis, Mood::Hang, Mood::Hang);
    let web = Fake::start(|mut stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let garbage = Fake::tls(&authority.issue(&["localhost"]), |_| {});
    for (endpoint, mode) in
        [(hanging.endpoint(), "unknown"), (web.endpoint(), "unknown"), (garbage.endpoint(), "required")]
    {
        let Probed { code, report, error } = trusting(&endpoint, &authority, &[]);
        assert_eq!((code, report["mode"].as_str()), (Some(1), Some(mode)), "{report}");
        assert!(error.starts_with("error: cannot use TLS with"), "{error}");
    }
}

#[test]
fn a_name_that_does_not_exist_is_reported_and_usage_is_checked() {
    let Probed { code, error, .. } = probe("nowhere.invalid", &[]);
    assert!(code == Some(1) && error.contains("no such host \"nowhere.invalid\""), "{error}");
    let Probed { code, error, .. } = probe("redis://user:secret@host", &[]);
    assert!(code == Some(2) && !error.contains("secret"), "{error}");
}

#[test]
fn a_node_of_a_cluster_is_reported() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    // The bus port that the server would choose may be in use by a client of another test.
    let bus_port = free_port().to_string();
    let options = ["--cluster-enabled", "yes", "--cluster-port", &bus_port];
    let redis = Redis::with(identity, &authority, &options);
    assert_eq!(trusting(&redis.endpoint(), &authority, &[]).report["server"]["cluster"], true);
}

#[test]
fn skipping_verification_verifies_nothing_and_sends_no_password() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let redis = Redis::with(identity, &authority, &["--requirepass", "s3cr3t-of-the-test"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file.as_file(), "s3cr3t-of-the-test").unwrap();
    let args = ["--tls-insecure-skip-verify", "--auth-password-file", file.path().to_str().unwrap()];
    let Probed { code, report, .. } = trusting(&redis.endpoint(), &Authority::new(), &args);
    assert_eq!(code, Some(0), "{report}");
    assert!(report["verified"][0]["problem"].as_str().unwrap().contains("issuer"), "{report}");
    assert_eq!(
        (&report["server"]["auth_wanted"], &report["server"]["engine"]),
        (&true.into(), &Value::Null),
        "the password was sent to an unknown server"
    );
    assert!(report["next"].as_str().unwrap().contains("a certificate that does not verify"), "{report}");

    let trusted = trusting(&redis.endpoint(), &authority, &args).report;
    assert_eq!(
        trusted["server"]["engine"],
        Engine::here().name,
        "the result of verification is reported even if it is skipped: {trusted}"
    );
}

#[test]
fn each_tls_version_is_tried_even_if_the_other_gets_no_answer() {
    let config = Authority::new().issue(&["localhost"]).server_config();
    // Some servers and middleboxes do not answer newer hellos.
    let fake = Fake::start(move |stream, _| {
        let mut hello = [0; 4096];
        let n = uninterrupted(|| stream.peek(&mut hello)).unwrap();
        // The extension supported_versions, with TLS 1.3 alone in it.
        if hello[..n].windows(7).any(|bytes| bytes == [0, 43, 0, 3, 2, 3, 4]) {
            let mut stream = stream;
            while uninterrupted(|| stream.read(&mut hello)).is_ok_and(|n| n > 0) {}
        } else {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let _ = rustls::StreamOwned::new(connection, stream).read(&mut hello);
        }
    });
    let report = probe(&fake.endpoint(), &[]).report;
    let accepted = |i: usize| report["versions"][i]["accepted"].as_bool();
    assert_eq!((accepted(0), accepted(1)), (Some(false), Some(true)), "{report}");
    assert!(report["versions"][0]["detail"].as_str().unwrap().contains("timed out"), "{report}");
    assert_eq!(report["mode"], "required");
}

#[test]
fn a_servers_refusal_over_tls_is_quoted() {
    let authority = Authority::new();
    let config = authority.issue(&["localhost"]).server_config();
    let fake = Fake::start(move |stream, _| {
        let connection = rustls::ServerConnection::new(config.clone()).unwrap();
        let mut tls = rustls::StreamOwned::new(connection, stream);
        let _ = tls.write_all(b"-DENIED Redis is running in protected mode\r\n");
        tls.conn.send_close_notify();
        let _ = tls.flush();
        let _ = tls.read(&mut [0; 512]);
    });
    let Probed { code, error, .. } = trusting(&fake.endpoint(), &authority, &[]);
    assert_eq!(code, Some(1));
    assert!(error.contains("the server replied \"DENIED Redis is running in protected mode\""), "{error}");
}

#[test]
fn an_alert_to_plaintext_is_distinguished_from_silence() {
    let fake = Fake::start(|mut stream, _| {
        let mut first = [0; 4096];
        if uninterrupted(|| stream.read(&mut first)).is_ok_and(|n| n > 0) && first[0] == b'*' {
            // unexpected_message
            let _ = stream.write_all(&[0x15, 3, 3, 0, 2, 2, 10]);
        }
    });
    let report = probe(&fake.endpoint(), &[]).report;
    assert_eq!(report["plaintext"]["detail"], "a TLS alert", "{report}");
    assert_eq!(report["plaintext"]["accepted"], false);
}

#[test]
fn a_host_that_no_certificate_can_name_is_no_sign_of_tls() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    // An address in a notation that only the resolver understands.
    let endpoint = format!("0x7f.1:{}", redis.plain_port);
    let Probed { code, report, error } = probe(&endpoint, &[]);
    assert_eq!((code, report["mode"].as_str()), (Some(1), Some("disabled")), "{report}");
    assert!(error.contains("cannot be a name in a certificate"), "{error}");
}

#[test]
fn beside_another_server_name_the_hosts_own_is_checked_too() {
    let authority = Authority::new();
    let redis = Redis::with(authority.issue(&["cache.example"]), &authority, &[]);
    let args = ["--tls-server-name", "cache.example"];
    let Probed { code, report, .. } = trusting(&redis.endpoint(), &authority, &args);
    assert_eq!(code, Some(0), "{report}");
    let verified = |i: usize| {
        (report["verified"][i]["name"].as_str().unwrap(), report["verified"][i]["problem"].is_null())
    };
    assert_eq!((verified(0), verified(1)), (("cache.example", true), ("localhost", false)), "{report}");
}
