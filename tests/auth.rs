//! pontoon authenticates clients that cannot do so themselves, even while the secret changes.

mod cluster;
mod expiring;
mod permissions;
mod rotation;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::TempDir;

pub use self::expiring::after;

use crate::harness::{
    Authority, CHECK, Dual, Mood, Pontoon, Redis, StopOnDrop, Wire, clients_share, eventually, pontoon,
};

pub const OLD: &str = "0ld-s3cr3t-of-the-test";
pub const NEW: &str = "n3w-s3cr3t-of-the-test";
const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";

/// A password file that is replaced atomically, as Kubernetes does it.
pub struct Password(TempDir);

impl Password {
    pub fn new(text: &str) -> Self {
        let password = Self(tempfile::tempdir().unwrap());
        password.replace(text);
        password
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().join("password")
    }

    pub fn replace(&self, text: &str) {
        let next = self.0.path().join("next");
        fs::write(&next, format!("{text}\n")).unwrap();
        fs::rename(next, self.path()).unwrap();
    }
}

/// A server on which only the user `app` may do anything, with the old password.
fn guarded(authority: &Authority) -> Redis {
    guarded_by(Path::new("redis-server"), authority)
}

/// As [`guarded`], for another engine.
fn guarded_by(engine: &Path, authority: &Authority) -> Redis {
    let redis = Redis::of(engine, authority.issue(&["localhost"]), authority, &[]);
    let mut admin = redis.direct();
    admin.expect(&["ACL", "SETUSER", "admin", "on", ">admin", "allcommands", "allkeys"], "+OK\r\n");
    admin.expect(
        &[
            "ACL",
            "SETUSER",
            "app",
            "on",
            &format!(">{OLD}"),
            "allkeys",
            "+@all",
            "-@dangerous",
            "+acl|whoami",
        ],
        "+OK\r\n",
    );
    admin.expect(&["ACL", "SETUSER", "default", "off"], "+OK\r\n");
    redis
}

fn admin(redis: &Redis) -> Wire {
    let mut admin = redis.direct();
    admin.expect(&["AUTH", "admin", "admin"], "+OK\r\n");
    admin
}

fn to(redis: &Redis, authority: &Authority, password: &Password, args: &[&str]) -> Pontoon {
    let path = password.path();
    let auth = ["--auth-username", "app", "--auth-password-file", path.to_str().unwrap()];
    Pontoon::with(&redis.endpoint(), authority, &[&auth, args].concat())
}

#[test]
fn a_client_that_sends_no_password_is_the_configured_user() {
    let authority = Authority::new();
    let redis = guarded(&authority);
    let password = Password::new(OLD);
    let pontoon = to(&redis, &authority, &password, &[]);
    let mut client = pontoon.client();
    client.expect(&["SET", "k", "v"], "+OK\r\n");
    client.expect(&["ACL", "WHOAMI"], "$3\r\napp\r\n");
    let answer = String::from_utf8(client.ask(&["CONFIG", "GET", "port"])).unwrap();
    assert!(answer.starts_with("-NOPERM"), "{answer}");
}

#[test]
fn the_default_user_needs_no_name() {
    let authority = Authority::new();
    let redis = Redis::with(authority.issue(&["localhost"]), &authority, &["--requirepass", OLD]);
    let password = Password::new(OLD);
    let path = password.path();
    let args = ["--auth-password-file", path.to_str().unwrap()];
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &args);
    pontoon.client().expect(&["ACL", "WHOAMI"], "$7\r\ndefault\r\n");
}

#[test]
fn refused_credentials_are_reported_everywhere_and_not_sent_again() {
    let authority = Authority::new();
    let redis = guarded(&authority);
    let password = Password::new("wr0ng-s3cr3t");
    let pontoon = to(&redis, &authority, &password, &["--log-level", "trace"]);
    let text = format!("upstream refused the credentials of user app: {WRONGPASS}");
    pontoon.expects(&text);
    for _ in 0..5 {
        let mut client = pontoon.client();
        client.expect(&["GET", "k"], &format!("-ERR pontoon: {text}\r\n"));
    }
    pontoon.expect_one_line(&text);
    eventually("/readyz says so", || {
        let (status, body) = pontoon.get("/readyz");
        status == 503 && body.contains(&text)
    });
    assert!(pontoon.metric("pontoon_upstream_connect_errors_total", "stage=\"auth\"") >= 1);
    for seen in [pontoon.printed(), pontoon.get("/metrics").1, pontoon.get("/readyz").1] {
        assert!(!seen.contains("wr0ng-s3cr3t"));
    }
    // The next client gets the right password.
    password.replace(OLD);
    eventually("the right password works", || pontoon.client().ask(&["GET", "k"]) == b"$-1\r\n");
}

#[test]
fn clients_do_not_notice_a_secret_that_changes_under_load() {
    let authority = Authority::new();
    let redis = guarded(&authority);
    let password = Password::new(OLD);
    let pontoon = to(&redis, &authority, &password, &[]).ready();
    let mut lasting = pontoon.client();
    lasting.expect(&["PING"], "+PONG\r\n");
    let stop = AtomicBool::new(false);
    let address = pontoon.address();
    let served: usize = thread::scope(|scope| {
        let end = StopOnDrop(&stop);
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut served = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let mut client = Wire::tcp(address);
                        client.expect(&["SELECT", "1"], "+OK\r\n");
                        client.expect(&["GET", "k"], "$-1\r\n");
                        served += 1;
                    }
                    served
                })
            })
            .collect();
        let mut admin = admin(&redis);
        for (next, last) in [(NEW, OLD), (OLD, NEW)] {
            let before = pontoon.log_count("credentials changed");
            // First two passwords are valid, as after ElastiCache's ROTATE; then one, as after SET.
            admin.expect(&["ACL", "SETUSER", "app", &format!(">{next}")], "+OK\r\n");
            password.replace(next);
            eventually("the new secret is noticed", || pontoon.log_count("credentials changed") > before);
            admin.expect(&["ACL", "SETUSER", "app", &format!("<{last}")], "+OK\r\n");
        }
        // Then at once, without a time in which both are valid.
        password.replace(NEW);
        admin.expect(&["ACL", "SETUSER", "app", &format!("<{OLD}"), &format!(">{NEW}")], "+OK\r\n");
        eventually("the new secret is noticed", || pontoon.log_count("credentials changed") == 3);
        drop(end);
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert!(served > 0);
    lasting.expect(&["PING"], "+PONG\r\n");
    pontoon.client().expect(&["ACL", "WHOAMI"], "$3\r\napp\r\n");
}

#[test]
fn clients_do_not_notice_a_server_that_learns_the_secret_later() {
    let authority = Authority::new();
    let redis = guarded(&authority);
    let password = Password::new(OLD);
    let pontoon = to(&redis, &authority, &password, &[]).ready();
    password.replace(NEW);
    pontoon.wait_for_log("credentials changed");
    for _ in 0..3 {
        pontoon.client().expect(&["ACL", "WHOAMI"], "$3\r\napp\r\n");
    }
    admin(&redis).expect(&["ACL", "SETUSER", "app", &format!("<{OLD}"), &format!(">{NEW}")], "+OK\r\n");
    for _ in 0..3 {
        pontoon.client().expect(&["ACL", "WHOAMI"], "$3\r\napp\r\n");
    }
}

#[test]
fn a_reused_connection_is_authenticated_again_for_each_client() {
    let authority = Authority::new();
    let redis = guarded(&authority);
    let password = Password::new(OLD);
    let pontoon = to(&redis, &authority, &password, &["--workers", "1", "--pool-reuse", "true"]).ready();
    let idle = || pontoon.metric("pontoon_upstream_connections", "state=\"idle\"");
    // In shared mode, what needs no dedicated connection goes over a shared one. That is one more lease, and the connection is kept some
    // seconds after its last use: how many leases and kept connections there are depends on the pace of the machine.
    let is = |count: u64, expected| if clients_share() { count >= expected } else { count == expected };
    for words in [&["GET", "k"][..], &["SELECT", "3"], &["AUTH", "admin", "admin"], &["HELLO", "3"]] {
        let mut client = pontoon.client();
        client.expect(&["ACL", "WHOAMI"], "$3\r\napp\r\n");
        client.ask(words);
        drop(client);
        eventually("the connection is kept", || is(idle(), 1));
    }
    let reused = pontoon.metric("pontoon_upstream_leases_total", "origin=\"reused\"");
    assert!(is(reused, 3), "{reused} leases");
    password.replace(NEW);
    pontoon.wait_for_log("credentials changed");
    eventually("connections with the old secret are closed", || idle() == 0);
    let retired = pontoon.metric("pontoon_upstream_discards_total", "reason=\"retired\"");
    assert!(is(retired, 1), "{retired} discards");
}

#[test]
fn warm_connections_of_the_old_secret_are_replaced() {
    let authority = Authority::new();
    let redis = guarded(&authority);
    let password = Password::new(OLD);
    let args = ["--pool-warm", "true", "--pool-warm-min", "3"];
    let pontoon = to(&redis, &authority, &password, &args).ready();
    let idle = || pontoon.metric("pontoon_upstream_connections", "state=\"idle\"");
    eventually("three connections are warm", || idle() == 3);
    let mut admin = admin(&redis);
    admin.expect(&["ACL", "SETUSER", "app", &format!(">{NEW}"), &format!("<{OLD}")], "+OK\r\n");
    password.replace(NEW);
    eventually("the connections are replaced", || {
        pontoon.metric("pontoon_upstream_discards_total", "reason=\"retired\"") >= 3 && idle() == 3
    });
    pontoon.client().expect(&["ACL", "WHOAMI"], "$3\r\napp\r\n");
}

#[test]
fn credentials_are_not_sent_in_plaintext_unless_that_is_allowed() {
    let authority = Authority::new();
    let redis = guarded(&authority);
    let password = Password::new(OLD);
    let (path, upstream) = (password.path(), format!("localhost:{}", redis.plain_port));
    let args =
        ["--upstream", &upstream, "--listen", "127.0.0.1:0", "--tls-mode", "disabled", "--auth-username"];
    let args = [&args[..], &["app", "--auth-password-file", path.to_str().unwrap()]].concat();
    let careful = Pontoon::run(&args);
    careful.expects("traffic is in plaintext");
    careful.expects("credentials not sent in plaintext");
    for _ in 0..3 {
        careful.client().expect(&["GET", "k"], "-NOAUTH Authentication required.\r\n");
    }
    careful.expect_one_line("credentials not sent in plaintext");
    let careless = Pontoon::run(&[&args[..], &["--auth-allow-plaintext"]].concat());
    careless.expects("traffic is in plaintext");
    careless.client().expect(&["ACL", "WHOAMI"], "$3\r\napp\r\n");
}

#[test]
fn in_preferred_mode_credentials_wait_for_tls() {
    let authority = Authority::new();
    // Like ElastiCache, this server requires a password as soon as it requires TLS, and none before.
    let redis = Redis::start(&authority);
    let password = Password::new(OLD);
    let path = password.path();
    let dual = Dual::new(&redis, Mood::Accept, Mood::Close);
    // A machine that stalls for some seconds causes no timeout.
    let patient = ["--tls-mode", "preferred", "--connect-timeout", "30s"];
    let args = [&patient[..], &["--auth-password-file", path.to_str().unwrap()]].concat();
    let pontoon = Pontoon::with(&dual.endpoint(), &authority, &args);
    pontoon.expects("traffic is in plaintext");
    pontoon.expects("credentials not sent in plaintext");
    pontoon.allows("upstream transit encryption observed");
    // Until pontoon has seen TLS, it may dial in plaintext, for example to keep a connection ready.
    pontoon.allows("greeting");
    pontoon.client().expect(&["SET", "k", "v"], "+OK\r\n");
    redis.direct().expect(&["CONFIG", "SET", "requirepass", OLD], "+OK\r\n");
    dual.set(Mood::Close, Mood::Accept);
    pontoon.wait_for_log("upstream accepts TLS, new plaintext connections refused from now on");
    pontoon.client().expect(&["GET", "k"], "$1\r\nv\r\n");
}

#[test]
fn a_server_without_a_password_is_used_without_one() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let password = Password::new(OLD);
    let path = password.path();
    let args = ["--auth-password-file", path.to_str().unwrap()];
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &args);
    pontoon.expects("server has no password");
    for _ in 0..3 {
        pontoon.client().expect(&["GET", "k"], "$-1\r\n");
    }
    pontoon.expect_one_line("server has no password");
}

#[test]
fn a_missing_secret_may_appear_after_the_start_and_vanish_again() {
    let authority = Authority::new();
    let redis = guarded(&authority);
    let password = Password::new(OLD);
    fs::remove_file(password.path()).unwrap();
    let pontoon = to(&redis, &authority, &password, &[]);
    let file = password.path().display().to_string();
    pontoon.expects(&format!("no secret for user app: cannot read {file}"));
    let words = String::from_utf8(pontoon.client().ask(&["GET", "k"])).unwrap();
    assert!(words.contains(&format!("no secret for user app: cannot read {file}: No such file")), "{words}");
    pontoon.wait_for_log("credentials not available");
    password.replace(OLD);
    eventually("the right password works", || pontoon.client().ask(&["GET", "k"]) == b"$-1\r\n");
    pontoon.wait_for_log("credentials available again");
    let told = pontoon.log_count("credentials not available");
    fs::remove_file(password.path()).unwrap();
    eventually("the missing password is logged", || pontoon.log_count("credentials not available") > told);
    pontoon.client().expect(&["GET", "k"], "$-1\r\n");
}

#[test]
fn a_password_may_come_from_a_command_a_variable_or_a_url() {
    let authority = Authority::new();
    let redis = guarded(&authority);
    let (ca, upstream) = (authority.file(), redis.endpoint());
    let args = ["--listen", "127.0.0.1:0", "--tls-ca-file", &ca];
    let user = [&args[..], &["--upstream", &upstream, "--auth-username", "app"]].concat();
    let command = format!("printf {OLD}");
    let url = format!("rediss://app:{OLD}@{upstream}");
    for (variables, args) in [
        (&[][..], [&user[..], &["--auth-password-command", &command]].concat()),
        (&[("SECRET", OLD)], [&user[..], &["--auth-password-env", "SECRET"]].concat()),
        (&[("PONTOON_AUTH_PASSWORD", OLD)], user.clone()),
        (&[("PONTOON_UPSTREAM", &*url)], args.to_vec()),
    ] {
        let pontoon = Pontoon::with_variables(variables, &args);
        pontoon.client().expect(&["ACL", "WHOAMI"], "$3\r\napp\r\n");
    }
}

#[test]
fn a_password_on_the_command_line_is_refused_and_not_repeated() {
    for args in [["--auth-password", OLD], ["--upstream", &format!("redis://app:{OLD}@cache")]] {
        let output = pontoon(&[&["check", "--offline", "--upstream", "cache"], &args[..]].concat());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("every process on this machine could read"), "{error}");
        assert!(!error.contains(OLD), "{error}");
    }
}

#[test]
fn a_readable_config_file_with_a_password_raises_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pontoon.toml");
    let text = format!("[[route]]\nupstream = \"cache\"\nauth.password = \"{OLD}\"\n");
    fs::write(&file, text).unwrap();
    for (mode, warned) in [(0o644, true), (0o600, false)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let output = pontoon(&["check", "--offline", "--config", file.to_str().unwrap()]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said.contains("can be read by other users"), warned, "{said}");
        assert!(!said.contains(OLD), "{said}");
    }
}

#[test]
fn check_proves_the_credentials() {
    let authority = Authority::new();
    let redis = guarded(&authority);
    let password = Password::new(OLD);
    let (path, ca, endpoint) = (password.path(), authority.file(), redis.endpoint());
    let args =
        [&CHECK[..], &["--upstream", &endpoint, "--tls-ca-file", &ca, "--auth-username", "app"]].concat();
    let args = [&args[..], &["--auth-password-file", path.to_str().unwrap()]].concat();
    let output = pontoon(&args);
    let said = String::from_utf8(output.stdout).unwrap();
    let accepted = format!("accepted: user app, password from {}", path.display());
    assert!(output.status.success() && said.contains(&accepted) && said.contains("PONG"), "{said}");
    password.replace("wr0ng-s3cr3t");
    let output = pontoon(&args);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let refused = format!("upstream refused the credentials of user app: {WRONGPASS}");
    let line = said.lines().find(|line| line.contains(&refused)).unwrap_or(&said);
    assert!(line.contains("auth") && line.contains("failed") && !said.contains("wr0ng-s3cr3t"), "{said}");
}

#[test]
fn no_output_contains_a_secret() {
    let authority = Authority::new();
    let redis = guarded(&authority);
    let password = Password::new(OLD);
    let pontoon =
        to(&redis, &authority, &password, &["--log-level", "trace", "--client-name", "bridge"]).ready();
    pontoon.expects("upstream refused the credentials");
    pontoon.allows("credentials not available");
    // One of the killed connections may still be in its handshake or its greeting.
    pontoon.allows("TLS handshake with");
    pontoon.allows("greeting");
    let mut client = pontoon.client();
    client.expect(&["SET", "k", "v"], "+OK\r\n");
    client.expect(&["SELECT", "1"], "+OK\r\n");
    drop(client);
    password.replace(NEW);
    pontoon.wait_for_log("credentials changed");
    pontoon.client().expect(&["GET", "k"], "$1\r\nv\r\n");
    let mut admin = admin(&redis);
    admin.expect(&["ACL", "SETUSER", "app", "resetpass"], "+OK\r\n");
    // The server leaves authenticated connections as they are, so the test ends them.
    admin.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    eventually("the client is refused", || {
        String::from_utf8_lossy(&pontoon.first_reply(&["GET", "k"])).contains("refused the credentials")
    });
    let pages = ["/metrics", "/readyz", "/clients", "/routes"].map(|page| pontoon.get(page).1);
    for seen in pages.iter().chain([&pontoon.printed()]) {
        assert!(!seen.contains(OLD) && !seen.contains(NEW), "{seen}");
    }
    assert!(pontoon.printed().contains("DEBUG"), "debug logs are on");
}
