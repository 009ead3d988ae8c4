//! The other commands: check, demo, completions, help.

use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Authority, CHECK, Cluster, Engine, Redis, bridge, pontoon};

fn stdout(args: &[&str]) -> (Option<i32>, String) {
    let output = pontoon(args);
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn check_reports_each_step_of_a_route_that_works() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let (endpoint, ca) = (redis.endpoint(), authority.file());
    let args = ["check", "--upstream", &endpoint, "--tls-ca-file", &ca];
    let here = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--max-clients", "1000"];
    let (code, report) = stdout(&[&args[..], &here].concat());
    assert_eq!(code, Some(0), "{report}");
    for step in
        ["admin", "open files", "listen", "tls files", "resolve", "tcp", "tls ", "greeting", "ping", "server"]
    {
        assert!(
            report.lines().any(|line| line.contains(&format!("  {step}")) && line.contains(" ok ")),
            "{step}: {report}"
        );
    }
    assert!(report.contains("TLS 1.3"), "{report}");
    let engine = Engine::here();
    assert!(report.contains("certificate for localhost 127.0.0.1"), "{report}");
    assert!(report.contains(&format!("{} {}", engine.name, engine.version)), "{report}");
}

#[test]
fn check_names_the_failing_step_of_a_route_and_exits_accordingly() {
    let (authority, other) = (Authority::new(), Authority::new());
    let redis = Redis::start(&other);
    let (endpoint, ca) = (redis.endpoint(), authority.file());
    let output = pontoon(&[&CHECK[..], &["--upstream", &endpoint, "--tls-ca-file", &ca, "--json"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    let [.., last, summary] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((last["step"].as_str(), last["result"].as_str()), (Some("tls"), Some("failed")), "{lines:?}");
    let result = "0 of 1 route works: localhost failed at tls";
    let told = |key: &str| summary[key].as_str().unwrap().to_owned();
    assert_eq!(
        (told("step"), told("result"), told("detail")),
        ("summary".into(), "failed".into(), result.into())
    );
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error, format!("error: {result}\n"));
}

#[test]
fn check_recognises_a_cluster_and_dials_every_node() {
    let cluster = Cluster::start();
    let (endpoint, ca) = (cluster.endpoint(), cluster.authority().file());
    let args = [&CHECK[..], &["--upstream", &endpoint, "--tls-ca-file", &ca]].concat();
    let (code, report) = stdout(&[&args[..], &["--topology", "cluster"]].concat());
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains("3 primaries, 3 replicas"), "{report}");
    for node in &cluster.nodes {
        assert!(report.contains(&format!("127.0.0.1:{}", node.port)), "{report}");
    }
    let (code, report) =
        stdout(&[&args[..], &["--topology", "cluster", "--cluster-ports", "7000-7004"]].concat());
    assert_eq!(code, Some(1));
    assert!(
        report.contains("cluster.ports = \"7000-7004\" has 5 ports, and the cluster has 6 nodes"),
        "{report}"
    );
    let (code, report) = stdout(&args);
    assert_eq!(code, Some(1));
    assert!(
        report.contains("the server is a node of a cluster") && report.contains("--topology cluster"),
        "{report}"
    );

    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let (endpoint, ca) = (redis.endpoint(), authority.file());
    let args = [&CHECK[..], &["--upstream", &endpoint, "--tls-ca-file", &ca]].concat();
    let (code, report) = stdout(&args);
    assert!(
        code == Some(0)
            && report.lines().any(|line| line.contains("topology") && line.ends_with("standalone")),
        "{report}"
    );
    let (code, report) = stdout(&[&args[..], &["--topology", "cluster"]].concat());
    assert!(code == Some(1) && report.contains("cluster support disabled"), "{report}");
}

#[test]
fn check_reports_what_this_machine_lacks_before_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let state = path("state.json");
    std::fs::write(&state, "{").unwrap();
    std::fs::write(path("file"), "mine").unwrap();
    let (file, nowhere, secret) =
        (format!("unix:{}", path("file")), format!("unix:{}", path("no/where")), path("secret"));
    let in_use = format!("(process {}): stop it, or set another address", std::process::id());
    let check = |args: &[&str]| {
        stdout(&[&["check", "--offline", "--upstream", "cache.invalid", "--admin", "off"], args].concat())
    };
    for (args, wanted, line) in [
        (&["--listen", &taken][..], 0, &*in_use),
        (&["--listen", &file], 1, "the file exists and is not a socket"),
        (&["--listen", &nowhere], 0, "No such file or directory"),
        (&["--state-file", &path("no/state.json")], 0, "cannot be written"),
        (&["--state-file", &path("no/state.json"), "--tls-mode", "preferred"], 0, "cannot be written"),
        (&["--state-file", &state], 0, "is damaged"),
        (&["--max-clients", "100000000"], 0, "than limits.max_clients needs (200000064)"),
        (&["--auth-password-file", &secret], 1, "no secret for user default: cannot read"),
    ] {
        let (code, report) = check(args);
        assert!(code == Some(wanted) && report.contains(line), "{code:?} {report}");
    }
    // Offline, the configuration may be another machine's.
    let (_, report) = stdout(&["check", "--upstream", "cache.invalid", "--admin", "off", "--listen", &taken]);
    let line = report.lines().find(|line| line.contains(&in_use)).unwrap();
    assert!(line.contains("failed"), "{report}");
    drop(holder);
    assert!(std::fs::read_to_string(path("file")).unwrap() == "mine");
}

#[test]
fn check_offline_dials_nothing() {
    let (code, report) = stdout(&["check", "--upstream", "cache.invalid", "--offline"]);
    assert_eq!(code, Some(0));
    assert!(!report.contains("resolve"), "{report}");
    assert!(report.ends_with("\n1 of 1 route is valid\n"), "{report}");
}

#[test]
fn colour_is_for_terminals_or_on_request_and_never_in_json() {
    let output = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pontoon"));
        command.args(["check", "--offline", "--upstream", "cache.invalid"]).args(args);
        let output = command.env_remove("NO_COLOR").envs(variables.iter().copied()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(!output(&[], &[]).contains('\u{1b}'));
    let forced = [("CLICOLOR_FORCE", "1")];
    let text = output(&[], &forced);
    assert!(text.contains("\u{1b}[1mSTEP") && text.contains("mok\u{1b}["), "{text:?}");
    assert!(!output(&["--json"], &forced).contains('\u{1b}'));
    assert!(!output(&[], &[("NO_COLOR", "1"), forced[0]]).contains('\u{1b}'));
}

#[test]
fn the_demo_shows_the_main_job_and_proves_that_the_wire_is_unreadable() {
    let (code, story) = stdout(&["demo"]);
    assert_eq!(code, Some(0), "{story}");
    assert!(story.contains("> GET greeting\n   < hello-from-a-client-without-TLS"), "{story}");
    assert!(story.contains("\"hello-from-a-client-without-TLS\" is not in these bytes."), "{story}");
    assert!(story.contains("< (error) ERR pontoon: TLS handshake with"), "{story}");
}

#[test]
fn completions_exist_for_the_usual_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, script) = stdout(&["completions", shell]);
        assert_eq!(code, Some(0));
        assert!(script.contains("tls-ca-file"));
    }
}

#[test]
fn help_is_the_manual_and_an_unknown_word_is_reported() {
    let (code, help) = stdout(&["run", "--help"]);
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(code, Some(0));
    for word in ["--upstream", "PONTOON_UPSTREAM", "[default: 127.0.0.1:6379]", "Examples:"] {
        assert!(help.contains(word), "{word}\n{help}");
    }
    let wrong = pontoon(&["run", "--upstreem", "x"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("'--upstream'"));
}

#[test]
fn the_version_names_the_features_of_the_build() {
    let version = stdout(&["--version"]).1;
    assert!(version.starts_with(&format!("pontoon {} (", env!("CARGO_PKG_VERSION"))), "{version}");
    assert!(version.ends_with("features: demo, iam)\n"), "{version}");
}

#[test]
fn the_short_help_has_the_everyday_flags_and_the_long_help_has_all() {
    let flags = |help: &str| help.lines().filter(|line| line.trim_start().starts_with("--")).count();
    let short = stdout(&["run", "-h"]).1;
    let long = stdout(&["run", "--help"]).1;
    assert!(flags(&short) <= 15, "{short}");
    assert!(flags(&long) > 60, "{long}");
    assert!(short.contains("--upstream") && short.contains("see more with '--help'"), "{short}");
    for command in ["probe", "audit"] {
        let help = stdout(&[command, "--help"]).1;
        assert!(help.contains("--tls-ca-file") && help.contains("--auth-password-file"), "{help}");
        for other in ["--auth-client", "--auth-local-password-file", "--auth-reauthenticate", "--pool-reuse"]
        {
            assert!(!help.contains(other), "{command} has {other}");
        }
    }
}

#[test]
fn each_command_has_a_man_page() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man");
    assert!(pontoon(&["man", pages.to_str().unwrap()]).status.success());
    for command in pontoon::cli::command().get_subcommands() {
        let page = std::fs::read_to_string(pages.join(format!("pontoon-{}.1", command.get_name()))).unwrap();
        assert!(page.contains(".TH pontoon"), "{page}");
    }
    let refused = pontoon(&["man", "/dev/null/man"]);
    assert_eq!(refused.status.code(), Some(1));
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.contains("cannot write man pages to /dev/null/man"), "{message}");
}

#[test]
fn a_mistyped_variable_is_reported_and_spaces_around_a_host_are_ignored() {
    let output = Command::new(env!("CARGO_BIN_EXE_pontoon"))
        .args(["check", "--offline", "--upstream", " cache.example ", "--listen", "127.0.0.1:6379 "])
        .env("PONTOON_TLS_CA_FLE", "ca.pem")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("did you mean PONTOON_TLS_CA_FILE?"), "{text}");
}

#[test]
fn check_warns_about_a_name_that_does_not_exist_yet_and_fails_if_no_name_does() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let (endpoint, ca) = (redis.endpoint(), authority.file());
    let check = |upstreams: &[&str]| {
        let upstreams: Vec<&str> = upstreams.iter().flat_map(|name| ["--upstream", name]).collect();
        let fixed = ["check", "--tls-ca-file", &ca, "--admin", "off", "--listen", "127.0.0.1:0"];
        stdout(&[&fixed[..], &upstreams].concat())
    };
    let (code, report) = check(&["nowhere.invalid", &endpoint]);
    assert_eq!(code, Some(0), "{report}");
    let line = report.lines().find(|line| line.contains("nowhere.invalid:6379 does not exist")).unwrap();
    assert!(line.contains("warn") && report.contains("1 of 1 route works"), "{report}");
    let (code, report) = check(&["nowhere.invalid", "gone.invalid"]);
    assert!(code == Some(1) && report.contains("no name of the list exists"), "{report}");
    let (code, report) = check(&["nowhere.invalid"]);
    assert!(code == Some(1) && report.contains("no such host"), "{report}");
}

#[test]
fn check_accepts_the_addresses_of_the_pontoon_that_it_will_replace() {
    let (redis, pontoon) = bridge();
    let (address, admin) = (pontoon.address().to_string(), pontoon.admin().to_string());
    let endpoint = redis.endpoint();
    let args = ["check", "--offline", "--upstream", &endpoint, "--listen", &address, "--admin", &admin];
    let (code, report) = stdout(&args);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(
        report.matches(&format!("is in use by pontoon (process {})", pontoon.pid())).count(),
        2,
        "{report}"
    );
}

#[test]
fn a_mistyped_variable_is_reported_with_what_is_missing() {
    let output = Command::new(env!("CARGO_BIN_EXE_pontoon"))
        .arg("run")
        .env("PONTOON_UPSTREM", "cache.example")
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(
        error.contains("upstream is missing") && error.contains("did you mean PONTOON_UPSTREAM?"),
        "{error}"
    );
}

#[test]
fn check_fails_where_run_would_serve_nobody() {
    let authority = Authority::new();
    let ca = authority.file();
    let said = |args: &[&str]| {
        let (code, report) = stdout(&[&CHECK[..], &["--tls-ca-file", &ca], args].concat());
        (code, report.split_whitespace().collect::<Vec<_>>().join(" "))
    };

    // Credentials are configured, and may not be sent in plaintext.
    let locked = Redis::with(authority.issue(&["localhost"]), &authority, &["--requirepass", "hunter2"]);
    let plain = format!("localhost:{}", locked.plain_port);
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");
    std::fs::write(&password, "hunter2").unwrap();
    let password = password.to_str().unwrap();
    let args = ["--upstream", &plain, "--tls-mode", "preferred", "--auth-password-file", password];
    let (code, report) = said(&args);
    assert!(code == Some(1) && report.contains("set auth.allow_plaintext"), "{report}");
    let (code, report) = said(&[&args[..], &["--auth-allow-plaintext"]].concat());
    assert!(code == Some(0) && report.contains("state file warn none:"), "{report}");

    // A directory was mounted in place of the state file.
    let state = directory.path().to_str().unwrap();
    let args = ["--upstream", "localhost:1", "--tls-mode", "preferred", "--state-file", state];
    let (code, report) = said(&args);
    assert!(code == Some(1) && report.contains("it is not a regular file"), "{report}");
    assert!(report.contains("plaintext is refused, because the state file cannot be used"), "{report}");
    let run = pontoon(&[&["run", "--listen", "127.0.0.1:0", "--admin", "off"], &args[..]].concat());
    assert_eq!(run.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&run.stderr).contains("it is not a regular file"));
}

#[test]
fn check_fails_if_the_nodes_of_a_cluster_find_no_ports() {
    let cluster = Cluster::start();
    let (endpoint, ca) = (cluster.endpoint(), cluster.authority().file());
    // Seven ports in a row for six nodes. Another program has two of them.
    let (first, _held) = loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if port < 65_000
            && let Ok(second) = TcpListener::bind(("127.0.0.1", port + 1))
            && (port + 2..port + 7).all(free)
        {
            break (port, [first, second]);
        }
    };
    let range = format!("{first}-{}", first + 6);
    let args =
        ["--topology", "cluster", "--cluster-ports", &range, "--upstream", &endpoint, "--tls-ca-file", &ca];
    let (code, report) = stdout(&[&CHECK[..], &args].concat());
    let report = report.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("has 2 ports that cannot be used, and the cluster has 6 nodes"), "{report}");
}
