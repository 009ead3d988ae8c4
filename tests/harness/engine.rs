//! What the `redis-server` under test can do. PATH finds it first: Redis from 6.2 on, or Valkey.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

#[derive(Debug, Clone)]
pub struct Engine {
    /// `Redis` or `Valkey`.
    pub name: String,
    /// For example `7.0.15`.
    pub version: String,
    major: u32,
    /// Whether it was built with TLS. If not, a [`Front`](super::front::Front) accepts TLS for it.
    pub tls: bool,
}

/// The program that PATH finds first.
pub const SERVER: &str = "redis-server";

impl Engine {
    /// The engine under test.
    pub fn here() -> &'static Self {
        static HERE: LazyLock<Engine> = LazyLock::new(|| Engine::ask(OsStr::new(SERVER)));
        &HERE
    }

    /// The engine whose server is `program`.
    pub fn of(program: &Path) -> Self {
        if program == Path::new(SERVER) { Self::here().clone() } else { Self::ask(program.as_os_str()) }
    }

    fn ask(program: &OsStr) -> Self {
        let run = |args: &[&str]| {
            let output = Command::new(program).args(args).output().unwrap_or_else(|error| {
                panic!("{} does not start ({error}): see tests/run.sh", program.display())
            });
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
        };
        let said = run(&["--version"]);
        let words: Vec<&str> = said.split_whitespace().collect();
        let &[name, "server", version, ..] = &words[..] else { panic!("no version in {said:?}") };
        let version = version.trim_start_matches("v=");
        // The port is invalid, so that no server starts. An engine without TLS refuses the first option before the port.
        let refused = run(&["--tls-auth-clients", "no", "--port", "none"]);
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            major: version.split('.').next().unwrap().parse().unwrap(),
            tls: !refused.contains("tls-auth-clients"),
        }
    }

    /// Whether it lacks the many commands and options that Redis 7.0 brought; all Valkeys have them.
    pub fn is_before_7(&self) -> bool {
        self.major < 7
    }

    /// `CLIENT SETINFO` came with Redis 7.2.
    pub fn has_library_names(&self) -> bool {
        self.name == "Valkey" || self.version.as_str() >= "7.2"
    }

    pub fn is_valkey_from_9(&self) -> bool {
        self.name == "Valkey" && self.major >= 9
    }

    /// Options that all servers of tests get. Before 7.0, DEBUG was always allowed.
    pub fn options(&self) -> &'static [&'static str] {
        const OLD: &[&str] = &["--bind", "127.0.0.1", "-::1", "--save", "", "--appendonly", "no"];
        const NEW: &[&str] = &[
            "--bind",
            "127.0.0.1",
            "-::1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--enable-debug-command",
            "yes",
        ];
        if self.is_before_7() { OLD } else { NEW }
    }
}
