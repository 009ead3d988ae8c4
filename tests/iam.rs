//! IAM tokens are those of AWS' own signer, to the last parameter.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials;
use pontoon::credentials::iam::{Settings, token};
use serde_json::json;

/// As AWS' documentation has it for Python, at a time that is told.
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
    signer = RequestSigner(ServiceId("elasticache"), case["region"], "elasticache", "v4", keys, session.get_component("event_emitter"))
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
fn a_token_is_what_aws_own_signer_makes_of_the_same() {
    let now = 1_764_000_000;
    let (key, secret) = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
    let mut cases = Vec::new();
    for region in ["us-east-1", "eu-central-2", "ap-northeast-1", "us-gov-west-1", "cn-north-1"] {
        for serverless in [false, true] {
            for session in [None, Some("FwoGZXIvYXdzE/w+aDQ=="), Some("a b%20&c=d~e")] {
                for user in ["app", "team-1.app_2", "a+b/ c"] {
                    cases.push((region, serverless, session, user));
                }
            }
        }
    }
    let told: Vec<_> = cases
        .iter()
        .map(|(region, serverless, session, user)| {
            json!({"now": now, "key": key, "secret": secret, "session": session, "region": region,
                "cache": "sessions-1", "serverless": serverless, "user": user})
        })
        .collect();
    let python = std::env::var("PONTOON_TEST_PYTHON").unwrap_or_else(|_| "target/venv/bin/python".into());
    let output = Command::new(python).args(["-c", BOTOCORE, &json!(told).to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = String::from_utf8(output.stdout).unwrap();
    assert_eq!(expected.lines().count(), cases.len());
    for ((region, serverless, session, user), expected) in cases.into_iter().zip(expected.lines()) {
        // Consoles show names as they were typed; the service knows the lower case.
        let cache = Settings { cache_name: "Sessions-1".into(), serverless, region: region.into() };
        let signer = Credentials::new(key, secret, session.map(str::to_owned), None, "test");
        let made = token(&cache, user, &signer, UNIX_EPOCH + Duration::from_secs(now)).unwrap();
        let made = std::str::from_utf8(made.expose()).unwrap();
        let (mut theirs, mut ours) = (parameters(expected), parameters(made));
        if user.contains(' ') {
            // A form's plus is a space; both are signed as %20.
            for side in [&mut theirs, &mut ours] {
                side.1.insert("User".into(), side.1["User"].replace('+', "%20"));
            }
        }
        assert_eq!(theirs, ours, "{region}, serverless: {serverless}, session: {session:?}, user: {user}");
    }
}
