//! pontoon finds credentials in every place in which AWS' own tools do.

use std::fs;
use std::time::{Duration, SystemTime};

use crate::harness::{Authority, Fake, eventually};

use super::{bridge, container, lenient, session, web};

const FAR: &str = "2999-01-01T00:00:00Z";

/// Sooner than a token expires, but later than pontoon renews credentials in advance.
fn soon() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now() + Duration::from_secs(600)).to_string()
}

/// The token that the server received.
fn token(fake: &Fake) -> String {
    let seen = String::from_utf8(fake.seen()).unwrap();
    seen.lines().find(|line| line.starts_with("sessions/?")).unwrap().to_owned()
}

/// The token's lifetime in seconds, from its parameter.
fn life(token: &str) -> u64 {
    token.split("X-Amz-Expires=").nth(1).unwrap().split('&').next().unwrap().parse().unwrap()
}

/// The answer of STS to a request that proves what the role's trust policy requires.
fn role(action: &str, key: &str, ends: &str) -> String {
    format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
         <AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s3cr3t-k3y</SecretAccessKey>\
         <SessionToken>s3ssi0n-t0k3n</SessionToken><Expiration>{ends}</Expiration></Credentials>\
         <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/app/pod</Arn>\
         <AssumedRoleId>AROA:pod</AssumedRoleId></AssumedRoleUser></{action}Result></{action}Response>"
    )
}

#[test]
fn a_service_accounts_web_identity_becomes_a_role_that_signs_a_token() {
    let authority = Authority::new();
    let fake = lenient(&authority);
    let answer = role("AssumeRoleWithWebIdentity", "ASIAPOD", &soon());
    let sts = web(move |request| {
        let shown = request.contains("Action=AssumeRoleWithWebIdentity")
            && request.contains("RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fapp")
            && request.contains("WebIdentityToken=j.w.t-s3cr3t");
        shown.then(|| answer.clone())
    });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, "j.w.t-s3cr3t").unwrap();
    let url = format!("http://127.0.0.1:{}", sts.port());
    let environment = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap()),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/app"),
        ("AWS_ENDPOINT_URL_STS", &url),
    ];
    let pontoon = bridge(&fake, &authority, &environment, &[]);
    pontoon.client().expect(&["PING"], "+PONG\r\n");
    let token = token(&fake);
    assert!(token.contains("X-Amz-Credential=ASIAPOD%2F") && token.contains("s3ssi0n-t0k3n"), "{token}");
    assert!((1..=600).contains(&life(&token)), "not longer than the role: {token}");
    for secret in ["j.w.t-s3cr3t", "s3cr3t-k3y", "s3ssi0n-t0k3n"] {
        assert!(!pontoon.printed().contains(secret));
    }
}

#[test]
fn a_profile_is_found_by_its_name_and_may_lead_to_a_role() {
    let authority = Authority::new();
    let answer = role("AssumeRole", "ASIAROLE", FAR);
    let sts = web(move |request| {
        let signed = request.contains("Action=AssumeRole&") && request.contains("Credential=AKIABLUE/");
        signed.then(|| answer.clone())
    });
    let url = format!("http://127.0.0.1:{}", sts.port());
    let directory = tempfile::tempdir().unwrap();
    let (keys, config) = (directory.path().join("credentials"), directory.path().join("config"));
    let profile =
        |name, key| format!("[{name}]\naws_access_key_id = {key}\naws_secret_access_key = s3cr3t-k3y\n");
    fs::write(&keys, profile("default", "AKIADEFAULT") + &profile("blue", "AKIABLUE")).unwrap();
    let role = "[profile role]\nrole_arn = arn:aws:iam::123456789012:role/app\nsource_profile = blue\n";
    fs::write(&config, role).unwrap();
    for (name, key) in [("default", "AKIADEFAULT"), ("blue", "AKIABLUE"), ("role", "ASIAROLE")] {
        let fake = lenient(&authority);
        let environment = [
            ("AWS_SHARED_CREDENTIALS_FILE", keys.to_str().unwrap()),
            ("AWS_CONFIG_FILE", config.to_str().unwrap()),
            ("AWS_PROFILE", name),
            ("AWS_ENDPOINT_URL_STS", &url),
        ];
        let pontoon = bridge(&fake, &authority, &environment, &[]);
        pontoon.client().expect(&["PING"], "+PONG\r\n");
        let token = token(&fake);
        assert!(token.contains(&format!("X-Amz-Credential={key}%2F")), "{name}: {token}");
        assert_eq!(life(&token), 900);
        assert!(!pontoon.printed().contains("s3cr3t-k3y"));
    }
}

#[test]
fn an_instances_profile_is_fetched_with_imds_version_2() {
    let authority = Authority::new();
    let fake = lenient(&authority);
    let answer = session("ASIAINSTANCE", &soon());
    let service = web(move |request| {
        let may = request.contains("x-aws-ec2-metadata-token: 1nst4nce-t0k3n\r\n");
        match request.split(" HTTP/").next().unwrap() {
            "PUT /latest/api/token" => Some("1nst4nce-t0k3n".to_owned()),
            "GET /latest/meta-data/iam/security-credentials/" if may => Some("app-role".to_owned()),
            "GET /latest/meta-data/iam/security-credentials/app-role" if may => Some(answer.clone()),
            _ => None,
        }
    });
    let url = format!("http://127.0.0.1:{}", service.port());
    let environment = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", &*url), ("AWS_EC2_METADATA_DISABLED", "false")];
    let pontoon = bridge(&fake, &authority, &environment, &[]);
    pontoon.client().expect(&["PING"], "+PONG\r\n");
    let token = token(&fake);
    assert!(token.contains("X-Amz-Credential=ASIAINSTANCE%2F"), "{token}");
    assert!((1..=600).contains(&life(&token)), "not longer than the profile's session: {token}");
    for secret in ["1nst4nce-t0k3n", "s3cr3t-k3y", "s3ssi0n-t0k3n"] {
        assert!(!pontoon.printed().contains(secret));
    }
}

#[test]
fn credentials_that_have_already_expired_sign_nothing_and_are_reported() {
    let authority = Authority::new();
    let (fake, agent) = (lenient(&authority), container("2020-01-01T00:00:00Z"));
    let uri = format!("http://127.0.0.1:{}/role", agent.port());
    let pontoon = bridge(&fake, &authority, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*uri)], &[]);
    let text = "no secret for user app: AWS gives no credentials: the credentials have expired already";
    pontoon.expects("the credentials have expired already");
    let said = || String::from_utf8(pontoon.client().ask(&["PING"])).unwrap();
    eventually("the client gets the cause", || said().contains(text));
    assert!(fake.seen().is_empty(), "the server sees no token");
}
