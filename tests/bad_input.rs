//! pontoon reports all bad input at once, and starts nothing.

use std::net::TcpListener;
use std::process::Command;

use crate::harness::{Authority, assert_start_explained, pontoon, pontoon_command};

/// Runs with a config file, asserts that it is refused, and returns each problem, without the file's name before it.
#[track_caller]
fn refused(config: &str) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pontoon.toml");
    std::fs::write(&path, config).unwrap();
    let name = path.to_str().unwrap();
    let output = pontoon(&["run", "--config", name]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    let errors = String::from_utf8(output.stderr).unwrap();
    errors.lines().map(|line| line.strip_prefix("error: ").unwrap_or(line).replace(name, "FILE")).collect()
}

#[test]
fn every_problem_of_a_file_is_reported_with_its_place_and_the_nearest_key() {
    let problems = refused(
        "[admin]\nlisten = \"nowhere\"\n\n[[route]]\nlisen = [\"127.0.0.1:0\"]\nupstream = \"cache:0\"\n\
         [route.tls]\nmode = \"sometimes\"\npin = \"x\"\n[route.limits]\nconnect_timeout = \"5\"\nmax_clients = 0\n\
         idle_timeout = 3\n[lgo]\n",
    );
    for expected in [
        "FILE:5:1: lisen: unknown key; did you mean \"listen\"?",
        "FILE:9:1: tls.pin: unknown key; did you mean \"tls.pins\"?",
        "FILE:13:1: limits.idle_timeout: expected a string, found integer",
        "FILE:14:2: lgo: unknown table; did you mean \"log\"?",
        "FILE:8:1: tls.mode: \"sometimes\" is not valid: expected one of \"required\", \"preferred\", \"disabled\"",
        "FILE:6:1: upstream: \"0\" is not a port: expected 1 to 65535",
        "FILE:12:1: limits.max_clients: \"0\" is not valid: expected a number from 1",
    ] {
        assert!(problems.iter().any(|problem| problem == expected), "{expected}\n{problems:#?}");
    }
    let starts =
        ["FILE:11:1: limits.connect_timeout: \"5\" is not a duration", "FILE:2:1: admin.listen: \"nowhere\""];
    for start in starts {
        assert!(problems.iter().any(|problem| problem.starts_with(start)), "{start}\n{problems:#?}");
    }
    assert_eq!(problems.len(), 9, "{problems:#?}");
}

#[test]
fn a_syntax_error_is_reported_with_its_place() {
    let problems = refused("[[route]]\nupstream = \n");
    assert!(problems[0].starts_with("FILE:2:"), "{problems:?}");
}

#[test]
fn each_route_needs_an_upstream_and_its_own_name_and_listener() {
    let problems = refused("[[route]]\n");
    assert!(problems[0].contains("upstream is missing"), "{problems:?}");
    let problems = refused(
        "[[route]]\nname = \"a\"\nlisten = \"127.0.0.1:7\"\nupstream = \"x\"\n\
         [[route]]\nname = \"a\"\nlisten = \"127.0.0.1:7\"\nupstream = \"y\"\n",
    );
    assert_eq!(
        problems,
        [
            "route \"a\": two routes have this name: give each another name",
            "route \"a\": listen: 127.0.0.1:7 is listed twice: remove one of them"
        ]
    );
}

#[test]
fn flags_are_checked_like_keys_and_errors_name_them_as_given() {
    let output = pontoon_command()
        .args([
            "run",
            "--listen",
            "0.0.0.0:1",
            "--tls-cert-file",
            "x",
            "--upstream",
            "rediss://user:hunter2@cache",
            "--evidence-interval",
            "500000years",
        ])
        .env("PONTOON_DRAIN_TIMEOUT", "soon")
        .env("PONTOON_WORKERS", "")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8(output.stderr).unwrap();
    for expected in [
        "error: --upstream: every process on this machine could read the password in the URL",
        "error: PONTOON_DRAIN_TIMEOUT: \"soon\" is not a duration",
        "error: --evidence-interval: \"500000years\" is longer than ten thousand years",
        "error: --listen: 0.0.0.0:1 can be reached by other machines, in plaintext",
        "error: --tls-cert-file: a certificate needs its key",
    ] {
        assert!(errors.contains(expected), "{expected}\n{errors}");
    }
    assert!(!errors.contains("hunter2"));
    assert_eq!(errors.lines().count(), 5, "{errors}");
}

/// Texts that hold a password where none is expected.
const WITH_PASSWORD: &[&str] = &[
    "redis://cache:6379?password=hunter2",
    "rediss://cache:6379/0?user=app&password=hunter2",
    "rediss://cache:6379/0?password=hunter2@x",
    "redis://cache:6379#hunter2",
    "redis://app:hunter2@cache/3",
    "redis://app:hunter2@cache:port",
    "redis://app:hunter2@-",
    "redis://app:hunter2",
    "redis://app:hunter2/cache",
    "redis://cache/hunter2",
    "redis://app:hunter2%40cache:6379",
    "redis://:hunter2%40cache",
    "redis://hunter2%40cache",
    "redis://ca che/app:hunter2@x",
    "redis://app:hunter2@cache?x@y",
    "redis:app:hunter2@cache",
    "http://app:hunter2@cache",
    "//app:hunter2@cache",
    "cache:6379?password=hunter2",
    "cache:6379;password=hunter2",
    "password=hunter2",
    "unix:/run/x.sock?password=hunter2",
    "unix://app:hunter2@/run/x.sock?mode=9",
];

#[test]
fn no_error_repeats_a_misplaced_password() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pontoon.toml");
    let said = |args: &[&str], variables: &[(&str, &str)], what: &str| {
        let mut command = pontoon_command();
        let output = command.args(args).envs(variables.iter().copied()).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!said.contains("hunter2"), "{args:?} {variables:?} {what}: {said}");
        assert_eq!(output.status.code(), Some(2), "{args:?} {variables:?} {what}: {said}");
    };
    // A second mistake, so that pontoon dials nothing if it accepts the text.
    let mistake = ["--workers", "0"];
    said(&[&["run", "--upstream", "app:hunter2"], &mistake[..]].concat(), &[], "");
    for text in WITH_PASSWORD {
        for command in ["run", "check"] {
            for key in ["upstream", "listen", "admin", "cluster-advertise", "tls-server-name", "tls-mode"] {
                let flag = format!("--{key}");
                said(&[&[command, &flag, text], &mistake[..]].concat(), &[], "");
            }
            said(&[&[command, text], &mistake[..]].concat(), &[], "");
            said(&[&[command, &format!("--upstrem={text}")], &mistake[..]].concat(), &[], "");
        }
        for variable in ["UPSTREAM", "LISTEN", "ADMIN", "TLS_PIN", "CONNECT_TIMEOUT", "MAX_CLIENTS"] {
            said(&[&["run"], &mistake[..]].concat(), &[(&format!("PONTOON_{variable}"), text)], "");
        }
        for command in ["probe", "audit"] {
            said(&[&[command, text], &["--connect-timeout", "0s"][..]].concat(), &[], "");
        }
        said(&["probe", "x", "--connect-timeout", "0s", "--also", text], &[], "");
        said(&["health", "--admin", text], &[], "");
        said(&["status"], &[("PONTOON_ADMIN", text)], "");
        for key in
            ["upstream", "listen", "cluster.advertise", "tls.pins", "auth.client", "limits.idle_timeout"]
        {
            let config = format!("runtime.workers = 0\n[[route]]\n{key} = \"{text}\"\n");
            std::fs::write(&path, &config).unwrap();
            said(&["run", "--config", path.to_str().unwrap()], &[], &config);
        }
        std::fs::write(&path, format!("[[route]]\nupstream = {text}\n")).unwrap();
        said(&["run", "--config", path.to_str().unwrap()], &[], "no quotes");
    }
}

#[test]
fn a_flag_overrides_a_variable_which_overrides_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pontoon.toml");
    std::fs::write(&path, "[[route]]\nname = \"file\"\nupstream = \"x\"\nlisten = \"127.0.0.1:1\"\n")
        .unwrap();
    let check = |args: &[&str], variable: Option<&str>| {
        let mut command = pontoon_command();
        command.args(["check", "--offline", "--json", "--config"]).arg(&path).args(args);
        if let Some(name) = variable {
            command.env("PONTOON_NAME", name);
        }
        let output = command.output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        // The last line is the summary.
        let last: serde_json::Value = serde_json::from_str(stdout.lines().nth_back(1).unwrap()).unwrap();
        last["route"].as_str().unwrap().to_owned()
    };
    assert_eq!(check(&[], None), "file");
    assert_eq!(check(&[], Some("variable")), "variable");
    assert_eq!(check(&["--name", "flag"], Some("variable")), "flag");
}

#[test]
fn flags_of_a_route_are_refused_beside_a_file_with_several_routes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pontoon.toml");
    let route = |n| format!("[[route]]\nupstream = \"x{n}\"\nlisten = \"127.0.0.1:0\"\n");
    std::fs::write(&path, route(1) + &route(2)).unwrap();
    let output = pontoon(&["run", "--config", path.to_str().unwrap(), "--tls-min-version", "1.3"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        error,
        "error: --tls-min-version: applies to one route, but the file has 2: set it in the file\n"
    );
}

#[test]
fn unreadable_files_and_busy_addresses_are_reported_together() {
    let authority = Authority::new();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy_address = busy.local_addr().unwrap();
    let busy_too = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = busy_too.local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("redis.sock");
    let listen = format!("unix:{}", socket.display());
    let output = pontoon(&[
        "run",
        "--upstream",
        "x",
        "--listen",
        &listen,
        "--listen",
        &busy_address.to_string(),
        "--tls-ca-file",
        &authority.file(),
        "--tls-ca-file",
        "/no/such/ca.pem",
        "--admin",
        &admin.to_string(),
    ]);
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("cannot read /no/such/ca.pem: No such file or directory"), "{errors}");
    assert!(
        errors.contains(&format!("cannot listen on {busy_address}: the address is in use by ")),
        "{errors}"
    );
    assert!(
        errors.contains(&format!("admin server: cannot listen on {admin}: the address is in use by ")),
        "{errors}"
    );
    assert_eq!(errors.lines().filter(|line| line.starts_with("error: ")).count(), 3, "{errors}");
    assert!(!socket.exists());
    drop((busy, busy_too));
}

#[test]
fn an_error_that_may_pass_by_itself_has_another_exit_code_than_a_mistake() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = &taken.local_addr().unwrap().to_string();
    let code = |args: &[&str]| {
        let output = pontoon(&[&["run", "--upstream", "x"], args].concat());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let off = ["--admin", "off"];
    for args in [
        &[&off[..], &["--listen", taken]].concat()[..],
        // An address of TEST-NET-1, as one that the machine does not have yet.
        &[&off[..], &["--listen", "192.0.2.1:6379", "--allow-remote-clients"]].concat(),
        &[&off[..], &["--listen", "unix:/no/such/directory/redis.sock"]].concat(),
        &["--listen", "127.0.0.1:0", "--admin", taken],
    ] {
        let (code, error) = code(args);
        assert!(code == Some(1) && error.contains("cannot listen on"), "{code:?} {error}");
    }
    let mistake = ["--listen", taken, "--tls-ca-file", "/no/such/ca.pem"];
    assert_eq!(
        code(&[&off[..], &mistake].concat()).0,
        Some(2),
        "one of the two is a mistake that the user must correct"
    );
}

#[test]
fn a_privileged_port_is_reported_as_such() {
    let first_free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if first_free.trim() == "0" {
        eprintln!("not tested: this machine has no privileged ports");
        return;
    }
    // Root may bind every port: drop the privilege.
    let unprivileged = |mut command: Command| {
        command
            .args(["run", "--upstream", "x", "--listen", "127.0.0.1:1", "--admin", "off"])
            .output()
            .unwrap()
    };
    let output = if rustix::process::geteuid().is_root() {
        let copy = readable_copy();
        let mut command = Command::new("timeout");
        command.args([
            "60",
            "setpriv",
            "--bounding-set=-all",
            "--inh-caps=-all",
            "--reuid=65534",
            "--clear-groups",
        ]);
        command.arg(copy.path().join("pontoon"));
        unprivileged(command)
    } else {
        unprivileged(pontoon_command())
    };
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("cannot listen on 127.0.0.1:1: permission denied: ports below 1024 need a privilege"),
        "{error}"
    );
}

/// A copy of the program that every user may run.
fn readable_copy() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_pontoon"), directory.path().join("pontoon")).unwrap();
    directory
}

#[test]
fn a_tls_file_with_the_wrong_content_is_reported_with_what_was_expected() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let (cert, key) = (identity.cert_file(), identity.key_file());
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let error = |args: &[&str]| {
        let output = pontoon(
            &[&["run", "--upstream", "x", "--listen", "127.0.0.1:0", "--admin", "off"], args].concat(),
        );
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let no_certificate = error(&["--tls-ca-file", key]);
    assert!(no_certificate.contains("has no certificate in PEM"), "{no_certificate}");
    let no_key = error(&["--tls-cert-file", cert, "--tls-key-file", cert]);
    assert!(no_key.contains("has no private key in PEM"), "{no_key}");
    let other = authority.issue(&["other"]);
    let mismatch = error(&["--tls-cert-file", cert, "--tls-key-file", other.key_file().to_str().unwrap()]);
    assert!(mismatch.contains("client certificate: "), "{mismatch}");
}

#[test]
fn preferred_mode_does_not_start_with_a_state_file_that_cannot_be_written() {
    let run = |mode: &str| {
        let args =
            ["run", "--upstream", "x", "--listen", "127.0.0.1:0", "--admin", "off", "--tls-mode", mode];
        pontoon(&[&args[..], &["--state-file", "/no/such/state.json"]].concat())
    };
    let output = run("preferred");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("/no/such/state.json cannot be written: No such file"), "{error}");
    assert!(error.contains("create its directory, writable for this user"), "{error}");
}

#[test]
fn a_mistyped_log_level_is_refused() {
    for level in ["inf", "info,debgu", "info,pontoon=loud"] {
        let args = ["check", "--offline", "--upstream", "x", "--admin", "off", "--log-level", level];
        let output = pontoon(&args);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && error.contains("is not a level"), "{level}: {error}");
    }
}

#[test]
fn the_errors_of_the_start_are_explained() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let busy = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = held.local_addr().unwrap().to_string();
    let remote = format!("0.0.0.0:{}", busy.port());
    let (misspelt, empty) =
        (file("pontoon.toml", "[[route]]\nupstream = \"x\"\nnaem = \"x\"\n"), file("ca.pem", ""));
    let missing = directory.path().join("none/state.json");
    let ca = authority.file();
    let of_route = ["--upstream", "x", "--tls-ca-file", &ca, "--listen"];
    let cases: [&[&str]; 6] = [
        &["--config", &misspelt],
        &[&of_route[..], &[&in_use]].concat(),
        &[&of_route[..], &[&remote]].concat(),
        &["--upstream", "x", "--listen", "127.0.0.1:0", "--tls-ca-file", "/no/such/ca.pem"],
        &["--upstream", "x", "--listen", "127.0.0.1:0", "--tls-ca-file", &empty],
        &[
            &of_route[..],
            &["127.0.0.1:0", "--tls-mode", "preferred", "--state-file", missing.to_str().unwrap()],
        ]
        .concat(),
    ];
    for case in cases {
        let output = pontoon(&[&["run", "--admin", "off"], case].concat());
        assert!(matches!(output.status.code(), Some(1 | 2)), "{case:?}");
        assert_start_explained(&String::from_utf8(output.stderr).unwrap());
    }
}
