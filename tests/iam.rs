//! pontoon's IAM tokens for ElastiCache and MemoryDB equal those of AWS' own signer, to the last parameter.

mod sources;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials;
use pontoon::credentials::iam::{Service, Settings, token};
use serde_json::json;

use crate::harness::programs::{printed, python};
use crate::harness::{Authority, Fake, Pontoon, eventually, uninterrupted};

/// AWS' documented example in Python, at a given time.
const BOTOCORE: &str = r#"
import datetime, json, sys
from urllib.parse import ParseResult, urlencode, urlunparse
import botocore.auth, botocore.session
from botocore.credentials import Credentials
from botocore.model import ServiceId
from botocore.signers import RequestSigner

for case in json.loads(sys.argv[1]):
    now = datetime.datetime.fromtimestamp(case["now"], datetime.timezone.utc)
    botocore.auth.get_current_datetime = lambda *a, **k: now.replace(tzinfo=None)
    session = botocore.session.Session()
    keys = Credentials(case["key"], case["secret"], case["session"])
    signer = RequestSigner(ServiceId(case["service"]), case["region"], case["service"], "v4", keys, session.get_component("event_emitter"))
    query = {"Action": "connect", "User": case["user"]}
    if case["serverless"]:
        query["ResourceType"] = "ServerlessCache"
    url = urlunparse(ParseResult("http", case["cache"], "/", "", urlencode(query), ""))
    request = {"method": "GET", "url": url, "body": {}, "headers": {}, "context": {}}
    signed = signer.generate_presigned_url(request, operation_name="connect", expires_in=900, region_name=case["region"])
    print(signed.removeprefix("http://"))
"#;

fn parameters(token: &str) -> (String, BTreeMap<String, String>) {
    let (place, query) = token.split_once('?').unwrap();
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap());
    (place.to_owned(), pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

#[test]
fn a_token_equals_that_of_aws_own_signer() {
    let now = 1_764_000_000;
    let (key, secret) = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
    let mut cases = Vec::new();
    for region in ["us-east-1", "eu-central-2", "ap-northeast-1", "us-gov-west-1", "cn-north-1"] {
        for (service, serverless) in
            [(Service::ElastiCache, false), (Service::ElastiCache, true), (Service::MemoryDb, false)]
        {
            for session in [None, Some("FwoGZXIvYXdzE/w+aDQ=="), Some("a b%20&c=d~e")] {
                for user in ["app", "team-1.app_2", "a+b/ c"] {
                    cases.push((region, service, serverless, session, user));
                }
            }
        }
    }
    let told: Vec<_> = cases
        .iter()
        .map(|(region, service, serverless, session, user)| {
            json!({"service": service.name(), "now": now, "key": key, "secret": secret, "session": session, "region": region,
                "cache": "sessions-1", "serverless": serverless, "user": user})
        })
        .collect();
    let expected = printed(python().args(["-c", BOTOCORE, &json!(told).to_string()]));
    assert_eq!(expected.lines().count(), cases.len());
    for ((region, service, serverless, session, user), expected) in cases.into_iter().zip(expected.lines()) {
        // Consoles show names as they were typed; the service uses lower case.
        let cache = Settings { service, cache_name: "Sessions-1".into(), serverless, region: region.into() };
        let signer = Credentials::new(key, secret, session.map(str::to_owned), None, "test");
        let made = token(&cache, user, &signer, UNIX_EPOCH + Duration::from_secs(now)).unwrap();
        let made = std::str::from_utf8(made.expose()).unwrap();
        let (mut theirs, mut ours) = (parameters(expected), parameters(made));
        if user.contains(' ') {
            // In a form a plus is a space; both are signed as %20.
            for side in [&mut theirs, &mut ours] {
                side.1.insert("User".into(), side.1["User"].replace('+', "%20"));
            }
        }
        assert_eq!(
            theirs, ours,
            "{region}, {service:?}, serverless: {serverless}, session: {session:?}, user: {user}"
        );
    }
}

/// A server that accepts TLS and any token, and remembers the token.
fn lenient(authority: &Authority) -> Fake {
    let config = authority.issue(&["localhost"]).server_config();
    Fake::start(move |stream, seen| {
        let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut tls = rustls::StreamOwned::new(connection, stream);
        let mut buffer = [0; 16 * 1024];
        while let Ok(n @ 1..) = tls.read(&mut buffer) {
            seen.lock().unwrap().extend_from_slice(&buffer[..n]);
            let count = |word: &[u8]| buffer[..n].windows(word.len()).filter(|at| *at == word).count();
            let mut answer = b"+RESET\r\n".repeat(count(b"\r\nRESET\r\n"));
            answer.extend(b"+OK\r\n".repeat(count(b"\r\nAUTH\r\n") + count(b"SETINFO")));
            answer.extend(b"+PONG\r\n".repeat(count(b"\r\nPING\r\n")));
            if tls.write_all(&answer).is_err() {
                return;
            }
        }
    })
}

/// These variables, and others that hide the AWS configuration of the tests' machine.
fn variables<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let none = "/nonexistent";
    let own = [
        ("AWS_CONFIG_FILE", none),
        ("AWS_SHARED_CREDENTIALS_FILE", none),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    own.iter().chain(more).copied().collect()
}

fn bridge(fake: &Fake, authority: &Authority, environment: &[(&str, &str)], more: &[&str]) -> Pontoon {
    let (upstream, ca) = (fake.endpoint(), authority.file());
    let args =
        ["--upstream", &upstream, "--listen", "127.0.0.1:0", "--tls-ca-file", &ca, "--log-level", "trace"];
    let auth =
        ["--auth-username", "app", "--auth-iam-cache-name", "sessions", "--auth-iam-region", "eu-west-1"];
    Pontoon::with_variables(&variables(environment), &[&args[..], &auth, more].concat())
}

/// An HTTP server that makes its answer from a request, head and body; `None` means that the request is not allowed.
fn web(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Fake {
    Fake::start(move |mut stream, seen| {
        let (mut request, mut buffer) = (String::new(), [0; 4096]);
        let is_whole = |request: &str| {
            let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
            let length = head
                .to_ascii_lowercase()
                .split("content-length: ")
                .nth(1)
                .map(|rest| rest.split("\r\n").next().unwrap().parse::<usize>().unwrap());
            body.len() >= length.unwrap_or(0)
        };
        while !is_whole(&request) {
            match uninterrupted(|| stream.read(&mut buffer)) {
                Ok(n @ 1..) => request += std::str::from_utf8(&buffer[..n]).unwrap(),
                _ => return,
            }
        }
        seen.lock().unwrap().extend_from_slice(request.as_bytes());
        let (status, body) = match answer(&request) {
            Some(body) => ("200 OK", body),
            None => ("401 Unauthorized", String::new()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\
             x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all(format!("{head}{body}").as_bytes());
    })
}

/// Credentials of a session, as agents of containers and instances return them.
fn session(key: &str, ends: &str) -> String {
    json!({"Code": "Success", "AccessKeyId": key, "SecretAccessKey": "s3cr3t-k3y", "Token": "s3ssi0n-t0k3n",
        "Expiration": ends})
    .to_string()
}

/// A container's agent, which returns credentials of a session that expires at `ends`.
fn container(ends: &str) -> Fake {
    let answer = session("ASIACONTAINER", ends);
    web(move |_| Some(answer.clone()))
}

#[test]
fn a_containers_credentials_sign_a_token_for_each_connection() {
    let authority = Authority::new();
    let (fake, agent) = (lenient(&authority), container("2999-01-01T00:00:00Z"));
    let uri = format!("http://127.0.0.1:{}/role", agent.port());
    let environment =
        [("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*uri), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "ag3nt-t0k3n")];
    let pontoon = bridge(&fake, &authority, &environment, &["--pool-reuse", "false"]);
    for _ in 0..3 {
        pontoon.client().expect(&["PING"], "+PONG\r\n");
    }
    let seen = String::from_utf8(fake.seen()).unwrap();
    let token = seen.lines().find(|line| line.starts_with("sessions/?")).unwrap();
    assert!(seen.contains("\r\n$3\r\napp\r\n"), "{seen}");
    for part in [
        "Action=connect",
        "User=app",
        "X-Amz-Expires=900",
        "X-Amz-Credential=ASIACONTAINER%2F",
        "s3ssi0n-t0k3n",
    ] {
        assert!(token.contains(part), "{token}");
    }
    assert!(String::from_utf8_lossy(&agent.seen()).contains("ag3nt-t0k3n"));
    assert_eq!(agent.accepted(), 1, "AWS is not asked for each connection");
    let signature = token.split("X-Amz-Signature=").nth(1).unwrap().split('&').next().unwrap();
    for written in [pontoon.printed(), pontoon.get("/metrics").1] {
        for secret in ["s3cr3t-k3y", "s3ssi0n-t0k3n", "ag3nt-t0k3n", signature] {
            assert!(!written.contains(secret), "{written}");
        }
    }
}

#[test]
fn keys_in_the_environment_require_no_request_to_aws() {
    let authority = Authority::new();
    let fake = lenient(&authority);
    let environment = [("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", "s3cr3t-k3y")];
    let pontoon = bridge(&fake, &authority, &environment, &["--auth-iam-serverless"]);
    pontoon.client().expect(&["PING"], "+PONG\r\n");
    let seen = String::from_utf8(fake.seen()).unwrap();
    assert!(seen.contains("ResourceType=ServerlessCache") && seen.contains("AKIAENV"), "{seen}");
}

#[test]
fn a_token_for_memorydb_is_signed_for_that_service() {
    let authority = Authority::new();
    let keys = [("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", "s3cr3t-k3y")];
    let variable = [&keys[..], &[("PONTOON_AUTH_IAM_SERVICE", "memorydb")]].concat();
    for (environment, more) in [(&keys[..], &["--auth-iam-service", "memorydb"][..]), (&variable, &[])] {
        let fake = lenient(&authority);
        let pontoon = bridge(&fake, &authority, environment, more);
        pontoon.client().expect(&["PING"], "+PONG\r\n");
        let seen = String::from_utf8(fake.seen()).unwrap();
        assert!(seen.contains("\r\nsessions/?Action=connect&User=app&"), "{seen}");
        assert!(seen.contains("%2Feu-west-1%2Fmemorydb%2Faws4_request"), "{seen}");
    }
}

#[test]
fn aws_that_does_not_answer_is_an_error_with_its_stage_and_no_hang() {
    let authority = Authority::new();
    let fake = lenient(&authority);
    // Accepts the request, and never answers.
    let agent = Fake::start(|mut stream, _| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let uri = format!("http://127.0.0.1:{}/role", agent.port());
    let environment = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*uri)];
    let pontoon = bridge(&fake, &authority, &environment, &["--connect-timeout", "1s"]);
    pontoon.allows("in stage auth");
    pontoon.allows("no answer yet");
    pontoon.allows("credentials not available");
    let words = String::from_utf8(pontoon.client().ask(&["PING"])).unwrap();
    // The error of this request, or of an earlier client's request that timed out.
    let known = [
        "in stage auth (waiting for the source of the credentials)",
        "no secret for user app: no answer yet",
    ];
    assert!(known.iter().any(|known| words.contains(known)), "{words}");
    assert_eq!(fake.accepted(), 0, "pontoon does not connect to the server");
}

#[test]
fn without_aws_credentials_the_error_to_the_client_says_so() {
    let authority = Authority::new();
    let fake = lenient(&authority);
    let pontoon = bridge(&fake, &authority, &[], &[]);
    pontoon.expects("AWS gives no credentials");
    let said = || String::from_utf8(pontoon.client().ask(&["PING"])).unwrap();
    eventually("the client gets the cause", || {
        said().contains("no secret for user app: AWS gives no credentials: ")
    });
}
