//! The matrix of clients: what each library, with its default settings, gets from pontoon in each mode. It runs programs of
//! `tests/clients/matrix`, and measures with pontoon's own metrics and inventory.
//!
//! Each result is a line of JSON in the file that `TEST_RESULTS` names. `tests/clients/table.py` makes a table of them.

mod measures;
mod program;
mod results;

use std::process::Command;

use serde_json::{Value, json};

use self::results::Results;

/// How pontoon gives connections to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// pontoon dials a connection for each client.
    Dedicated,
    /// The default: a connection serves one client after another.
    Pooled,
    /// Clients share connections.
    Shared,
    /// The default, in front of a cluster.
    Cluster,
}

impl Mode {
    /// The mode's name in the table of results.
    fn letter(self) -> &'static str {
        match self {
            Self::Dedicated => "D",
            Self::Pooled => "P",
            Self::Shared => "S",
            Self::Cluster => "C",
        }
    }

    /// Explicit arguments, because the harness would otherwise choose some.
    fn args(self) -> &'static [&'static str] {
        match self {
            Self::Dedicated => &["--pool-reuse", "false", "--sharing", "dedicated"],
            Self::Pooled | Self::Cluster => &["--pool-reuse", "true", "--sharing", "dedicated"],
            Self::Shared => &["--pool-reuse", "true", "--sharing", "shared"],
        }
    }
}

/// A library, or an application that is built on one.
struct Client {
    /// The name that its program prints, and that the table shows.
    library: &'static str,
    /// The beginning of its version, or all of it if the tests can choose it: Debian's releases choose their own.
    version: &'static str,
    /// The beginning of its entry of `/clients`: the library's name and, if the library sends it, the version.
    inventory: &'static str,
    /// The command that runs it, before a scenario, a port and, in a cluster, `cluster`.
    program: fn() -> Command,
    /// Whether it has a program for every scenario. An application has only `work`.
    has_all_scenarios: bool,
    /// How often `plain` gives it a dedicated connection in shared mode.
    pinned: u64,
    /// Whether, in a cluster, it recovers once a replica takes the place of its primary. A client that does not recovers neither without
    /// pontoon.
    survives_failover: bool,
}

impl Client {
    /// What most libraries have in common.
    const USUAL: Self = Self {
        library: "",
        version: "",
        inventory: "",
        program: || unreachable!("each client has its own program"),
        has_all_scenarios: true,
        pinned: 0,
        survives_failover: true,
    };

    /// Runs all scenarios, and fails after the last if one has failed.
    #[track_caller]
    fn runs(&self, mode: Mode) {
        let results = if mode == Mode::Cluster { self.in_a_cluster() } else { self.with_a_server(mode) };
        results.assert_all_passed();
    }

    fn with_a_server(&self, mode: Mode) -> Results {
        let mut bridge = measures::Bridge::to_a_server(mode);
        let mut results = Results::of(self, mode, &bridge.engine());
        if self.has_all_scenarios {
            results.add("connect", measures::connect(self, mode, &bridge));
        }
        results.add("work", measures::work(self, mode, &bridge));
        if self.has_all_scenarios {
            if mode == Mode::Shared {
                results.add("plain", measures::plain(self, &bridge));
            }
            results.add("leftover", measures::leftover(self, mode));
            results.add("moved", measures::moved(self, mode, bridge.server()));
            results.add("recovery", measures::recovery(self, &mut bridge));
        }
        results
    }

    fn in_a_cluster(&self) -> Results {
        let mut bridge = measures::Bridge::to_a_cluster();
        let mut results = Results::of(self, Mode::Cluster, &bridge.engine());
        results.add("connect", measures::connect(self, Mode::Cluster, &bridge));
        results.add("work", measures::work(self, Mode::Cluster, &bridge));
        results.add("recovery", measures::cluster_recovery(self, &mut bridge));
        results
    }
}

/// What a scenario measured, and the reasons if it failed.
struct Outcome {
    /// The library's version, as its program printed it.
    version: Option<String>,
    measured: Value,
    problems: Vec<String>,
}

impl Outcome {
    fn new() -> Self {
        Self { version: None, measured: json!({}), problems: Vec::new() }
    }

    fn measure(&mut self, name: &str, value: impl Into<Value>) {
        self.measured[name] = value.into();
    }

    /// Records the version that a program printed, or what it did instead as a problem.
    fn note(&mut self, step: Result<String, String>) {
        match step {
            Ok(version) => self.version = Some(version),
            Err(problem) => self.problems.push(problem),
        }
    }

    fn demand(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(otherwise());
        }
    }
}

/// A module for each client, with a test for each mode.
macro_rules! clients {
    ($($name:ident in $($mode:ident = $variant:ident),+: $client:expr;)+) => {$(
        mod $name {
            #[allow(unused_imports, reason = "a client may need none of it")]
            use super::*;
            use $crate::matrix::{Client, Mode};

            static CLIENT: Client = $client;

            $(#[test]
            fn $mode() {
                CLIENT.runs(Mode::$variant);
            })+
        }
    )+};
}

// After the macro that they use.
mod go;
mod more;
mod node;
mod php;
mod python;
mod ruby;
