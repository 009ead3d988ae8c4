//! Passwords that expire while clients use them.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use tempfile::TempDir;

use super::{NEW, OLD, Password, guarded, pontoon};
use crate::harness::{
    Authority, Fake, PATIENCE, Pontoon, Redis, StopOnDrop, Wire, clients_share, eventually, valkey, within,
};

/// A time from now, as sources write it.
pub fn after(time: Duration) -> String {
    humantime::format_rfc3339_millis(SystemTime::now() + time).to_string()
}

/// A connection of the user that manages users.
fn admin(port: u16) -> Wire {
    let mut admin = Wire::tcp(("127.0.0.1", port));
    admin.expect(&["AUTH", "admin", "admin"], "+OK\r\n");
    admin
}

/// Issues the credentials of a new user at each request. When they expire, the server deletes the user, which cuts its connections.
fn issuer(redis: &Redis, life: Duration) -> Fake {
    let (port, issued) = (redis.plain_port, AtomicUsize::new(0));
    Fake::start(move |mut stream, _| {
        let n = issued.fetch_add(1, Ordering::SeqCst);
        let (user, password) = (format!("app-{n}"), format!("t0k3n-{n}"));
        let mut admin = admin(port);
        let rights = [&format!(">{password}"), "on", "allkeys", "+@all"];
        admin.expect(&[&["ACL", "SETUSER", &user][..], &rights].concat(), "+OK\r\n");
        let expires = Instant::now() + life;
        let token = json!({"username": user, "password": password, "expires_at": after(life)});
        stream.write_all(token.to_string().as_bytes()).unwrap();
        drop(stream);
        thread::sleep(expires.saturating_duration_since(Instant::now()));
        // At the end of the test, the server may have ended.
        let _ = admin.try_ask(&["ACL", "DELUSER", &user]);
    })
}

/// A command that prints what the server at this port sends.
struct Asking(TempDir);

impl Asking {
    fn new(port: u16) -> Self {
        let asking = Self(tempfile::tempdir().unwrap());
        fs::write(asking.path(), format!("cat < /dev/tcp/127.0.0.1/{port}\n")).unwrap();
        asking
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("ask")
    }

    fn command(&self) -> String {
        format!("bash {}", self.path().display())
    }
}

/// How long credentials live. Sessions must authenticate again in the last quarter of it, also on a machine that stalls for seconds.
const LIFE: Duration = Duration::from_secs(12);

/// Number of further credentials that the issuer issues while clients work.
const LIVES: usize = 4;

/// Loads a bridge with clients until the issuer has issued several further credentials. Each reply is checked.
fn several_lives(engine: &Path, sharing: &str) {
    let authority = Authority::new();
    let redis = super::guarded_by(engine, &authority);
    let issuer = issuer(&redis, LIFE);
    let asking = Asking::new(issuer.port());
    let command = asking.command();
    // Surveys of the servers log in, too.
    let args = ["--auth-password-command", &command, "--sharing", sharing, "--evidence-interval", "1s"];
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &args).ready();
    pontoon.expects("servers do not count clients in plaintext");
    let (mut idle, mut selected) = (pontoon.client(), pontoon.client());
    idle.expect(&["PING"], "+PONG\r\n");
    selected.expect(&["SELECT", "1"], "+OK\r\n");
    let stop = AtomicBool::new(false);
    let address = pontoon.address();
    thread::scope(|scope| {
        let _end = StopOnDrop(&stop);
        let clients = [0, 1, 2].map(|client| {
            let stop = &stop;
            scope.spawn(move || {
                let (mut wire, key, mut n) = (Wire::tcp(address), format!("n{client}"), 0);
                while !stop.load(Ordering::Relaxed) {
                    wire.expect(&["INCR", &key], &format!(":{}\r\n", n + 1));
                    wire.expect(&["MULTI"], "+OK\r\n");
                    wire.expect(&["INCR", &key], "+QUEUED\r\n");
                    wire.expect(&["EXEC"], &format!("*1\r\n:{}\r\n", n + 2));
                    n += 2;
                    let mut passing = Wire::tcp(address);
                    passing.expect(&["GET", &key], &format!("${}\r\n{n}\r\n", n.to_string().len()));
                }
            })
        });
        within(3 * PATIENCE, "several lives", || {
            issuer.accepted() > LIVES || clients.iter().any(ScopedJoinHandle::is_finished)
        });
    });
    idle.expect(&["PING"], "+PONG\r\n");
    selected.expect(&["SET", "k", "v"], "+OK\r\n");
    pontoon.client().expect(&["GET", "k"], "$-1\r\n");
    assert!(issuer.accepted() < 2 * LIVES, "{} issued, in a row without need", issuer.accepted());
    assert_eq!(pontoon.metric("pontoon_upstream_connect_errors_total", ""), 0);
    let reauthenticated = pontoon.metric("pontoon_reauthentications_total", "result=\"ok\"");
    assert!(
        sharing == "shared" || reauthenticated >= 4 * u64::try_from(LIVES - 1).unwrap(),
        "{reauthenticated}"
    );
    assert!(pontoon.metric("pontoon_credentials_expiry_timestamp_seconds", "") > 1_700_000_000);
    let printed = pontoon.printed() + &pontoon.get("/metrics").1 + &pontoon.get("/routes").1;
    assert!(!printed.contains("t0k3n"), "{printed}");
}

#[test]
fn clients_do_not_notice_passwords_that_live_for_seconds() {
    let valkey = valkey();
    thread::scope(|scope| {
        for engine in [Path::new("redis-server"), &valkey] {
            for sharing in ["dedicated", "shared"] {
                scope.spawn(move || several_lives(engine, sharing));
            }
        }
    });
}

#[test]
fn a_source_that_repeats_an_expired_password_is_reported_and_asked_with_back_off() {
    let authority = Authority::new();
    let redis = guarded(&authority);
    let is_fresh = Arc::new(AtomicBool::new(false));
    let object = |end: &str| json!({"username": "app", "password": OLD, "expires_at": end}).to_string();
    let (old, fresh) = (object(&after(Duration::from_secs(10))), object(&after(Duration::from_secs(3600))));
    let shown = Arc::clone(&is_fresh);
    let issuer = Fake::start(move |mut stream, _| {
        let object = if shown.load(Ordering::SeqCst) { &fresh } else { &old };
        stream.write_all(object.as_bytes()).unwrap();
    });
    let asking = Asking::new(issuer.port());
    let args = ["--auth-password-command", &asking.command(), "--pool-reuse", "false"];
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &args).ready();
    pontoon.allows("no secret for user app");
    pontoon.allows("session not reauthenticated");
    let mut lasting = pontoon.client();
    lasting.expect(&["ACL", "WHOAMI"], "$3\r\napp\r\n");
    pontoon.wait_for_log("credentials not available");
    let why = "no secret for user app: the command bash printed credentials that expired at ";
    eventually("a new client gets the cause", || {
        String::from_utf8_lossy(&pontoon.client().ask(&["SELECT", "1"])).contains(why)
    });
    assert!((2..=9).contains(&issuer.accepted()), "{} runs", issuer.accepted());
    assert!(!pontoon.printed().contains(OLD));
    is_fresh.store(true, Ordering::SeqCst);
    pontoon.wait_for_log("credentials available again");
    pontoon.client().expect(&["ACL", "WHOAMI"], "$3\r\napp\r\n");
    lasting.expect(&["PING"], "+PONG\r\n");
}

#[test]
fn a_file_with_an_end_renews_live_sessions_and_its_end_is_shown() {
    let authority = Authority::new();
    let redis = guarded(&authority);
    let object =
        |password: &str, life| json!({"username": "app", "password": password, "expires_at": after(life)});
    let file = Password::new(&object(OLD, LIFE).to_string());
    let path = file.path();
    let args = ["--auth-password-file", path.to_str().unwrap()];
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &args).ready();
    let mut client = pontoon.client();
    client.expect(&["ACL", "WHOAMI"], "$3\r\napp\r\n");
    let mut admin = admin(redis.plain_port);
    admin.expect(&["ACL", "SETUSER", "app", &format!(">{NEW}")], "+OK\r\n");
    let newer = object(NEW, Duration::from_secs(3600));
    file.replace(&newer.to_string());
    pontoon.wait_for_log("credentials changed");
    eventually("the live session has authenticated again", || {
        let again = || pontoon.metric("pontoon_reauthentications_total", "result=\"ok\"") == 1;
        clients_share() || again()
    });
    client.expect(&["PING"], "+PONG\r\n");
    let end = newer["expires_at"].as_str().unwrap();
    let end = format!("{}Z", end.split_once('.').unwrap().0);
    let routes = pontoon.get("/routes").1;
    assert!(routes.contains(&format!("\"credentials_expire\":\"{end}\"")), "{routes}");
    let admin = pontoon.admin().to_string();
    let status = String::from_utf8(super::pontoon(&["status", "--admin", &admin]).stdout).unwrap();
    assert!(status.contains(&format!("pontoon's credentials expire at {end}")), "{status}");
    let check = pontoon_check(&path, &[]);
    assert!(
        check.contains(&format!("user app, password from {}, expires at {end}", path.display())),
        "{check}"
    );
}

/// What `check --offline` prints for this password file, without breaks of lines.
fn pontoon_check(file: &Path, more: &[&str]) -> String {
    let args = ["check", "--offline", "--upstream", "cache", "--auth-password-file", file.to_str().unwrap()];
    let output = pontoon(&[&args[..], more].concat());
    String::from_utf8(output.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn check_names_what_is_wrong_with_an_object_and_shows_no_secret() {
    let file = Password::new("");
    for (object, words) in [
        (json!({"username": "app"}), "holds a JSON object without a password: set its key \"password\""),
        (json!({"password": [OLD]}), "username, password or expires_at is not a string or is given twice"),
        (json!({"password": OLD, "expires_at": "soon"}), "whose expires_at is not a time of RFC 3339"),
        (json!({"password": OLD, "expires_at": "2020-01-01T00:00:00Z"}), "expired at 2020-01-01T00:00:00Z"),
        (json!({"password": OLD, "username": "other"}), "user \"other\", but auth.username is \"app\""),
    ] {
        file.replace(&object.to_string());
        let said = pontoon_check(&file.path(), &["--auth-username", "app"]);
        assert!(said.contains(words) && said.contains("failed") && !said.contains(OLD), "{said}");
    }
}

#[test]
fn the_scripts_of_the_documentation_print_an_object_that_pontoon_reads() {
    let text = fs::read_to_string("docs/credentials.md").unwrap();
    let scripts: Vec<&str> =
        text.split("```bash\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    // The answers of the programs that the scripts run.
    let vault = json!({"lease_id": "database/creds/app/x", "lease_duration": 3600, "renewable": true,
        "data": {"username": "V_APP", "password": OLD}});
    let az = json!({"accessToken": OLD, "expiresOn": "2096-10-02 07:06:40.000000", "expires_on": 4_000_000_000_u64,
        "subscription": "x", "tenant": "x", "tokenType": "Bearer"});
    let programs =
        format!("vault() {{ echo '{vault}'; }}\naz() {{ echo '{az}'; }}\nREDIS_OBJECT_ID=0b1ec7\n");
    assert_eq!(scripts.len(), 2);
    for (script, words) in scripts.into_iter().zip(["user V_APP, ", "user 0b1ec7, "]) {
        let output = std::process::Command::new("bash").args(["-c", &format!("{programs}{script}")]).output();
        let file = Password::new(&String::from_utf8(output.unwrap().stdout).unwrap());
        let said = pontoon_check(&file.path(), &[]);
        assert!(said.contains(words) && said.contains(", expires at 20"), "{said}");
    }
}
