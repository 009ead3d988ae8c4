//! Programs that `tests/run.sh` installs: where they are, and what they print.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The time limit of such a program, in seconds.
const PATIENCE: &str = "120";

/// A Python with redis-py and RQ, AWS' own code, and checkers of deployment files.
pub fn python() -> Command {
    let mut command = Command::new(installed("TEST_PYTHON", "venv/bin/python"));
    // Leaves no compiled files beside the scripts.
    command.arg("-B");
    command
}

/// A Python with redis-py-cluster.
pub fn python_before() -> Command {
    let mut command = Command::new(installed("TEST_PYTHON_BEFORE", "venv-before/bin/python"));
    command.arg("-B");
    command
}

/// A Python with the last redis-py 4.
pub fn python_4() -> Command {
    let mut command = Command::new(installed("TEST_PYTHON_4", "venv-4/bin/python"));
    command.arg("-B");
    command
}

/// A Python with the last redis-py 3. Like the programs with `more` in their names, only `tests/run.sh --clients all` installs it.
pub fn python_3() -> Command {
    let mut command = Command::new(installed("TEST_PYTHON_3", "venv-3/bin/python"));
    command.arg("-B");
    command
}

/// A Python with redis-py 5, valkey-py and Dramatiq.
pub fn python_more() -> Command {
    let mut command = Command::new(installed("TEST_PYTHON_MORE", "venv-more/bin/python"));
    command.arg("-B");
    command
}

/// Node.js, which finds its modules by name.
pub fn node() -> Command {
    let mut command = Command::new("node");
    command.env("NODE_PATH", installed("TEST_NODE_MODULES", "node/node_modules"));
    command
}

/// Node.js with older versions of its clients as well, and iovalkey.
pub fn node_more() -> Command {
    let mut command = Command::new("node");
    let folders = [
        installed("TEST_NODE_MODULES", "node/node_modules"),
        installed("TEST_NODE_MODULES_MORE", "node-more/node_modules"),
    ];
    command.env("NODE_PATH", folders.join(OsStr::new(":")));
    command
}

/// A PHP with phpredis.
pub fn php() -> Command {
    Command::new(installed("TEST_PHP", "php/path/php"))
}

/// A Ruby with redis-rb and Sidekiq.
pub fn ruby() -> Command {
    Command::new(installed("TEST_RUBY", "ruby/path/ruby"))
}

/// The matrix' program in Go, with go-redis.
pub fn go_client() -> Command {
    Command::new(installed("TEST_GO_CLIENT", "go/go_client"))
}

/// Checks Prometheus' rules and their answers.
pub fn promtool() -> Command {
    Command::new(installed("TEST_PROMTOOL", "promtool"))
}

/// Builds Kustomize's components.
pub fn kubectl() -> Command {
    Command::new(installed("TEST_KUBECTL", "kubectl"))
}

/// Renders Helm's charts.
pub fn helm() -> Command {
    Command::new(installed("TEST_HELM", "helm"))
}

/// The first `redis-cli` of PATH that supports TLS: the engine's own may not.
pub fn redis_cli_over_tls() -> PathBuf {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let speaks_tls = |program: &PathBuf| {
        let help = Command::new(program).arg("--help").output();
        help.is_ok_and(|help| [help.stdout, help.stderr].concat().windows(5).any(|text| text == b"--tls"))
    };
    let mut all = std::env::split_paths(&folders).map(|folder| folder.join("redis-cli"));
    all.find(speaks_tls).expect("a redis-cli with TLS is installed: see tests/run.sh")
}

/// What a program prints, which must succeed within the time limit.
pub fn printed(program: &Command) -> String {
    let mut command = Command::new("timeout");
    command.arg(PATIENCE).arg(program.get_program()).args(program.get_args());
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The path in the environment, or the path where tests/run.sh installs it.
fn installed(variable: &str, path: &str) -> OsString {
    std::env::var_os(variable)
        .unwrap_or_else(|| format!("{}/target/{path}", env!("CARGO_MANIFEST_DIR")).into())
}
