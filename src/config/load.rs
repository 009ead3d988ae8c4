//! A [`Config`], and where it is loaded from.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;

use super::problems::Problems;
use super::{args, auth, file, validate};
use crate::endpoint::ListenAddr;
use crate::group::{Pace, verdict};
use crate::{cluster, listener, session, telemetry, upstream};

/// Everything that `run` needs to know, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// One per `[[route]]`; never empty, names unique.
    pub routes: Vec<Route>,
    /// Where the admin server listens; `None`: `off`.
    pub admin: Option<ListenAddr>,
    /// Where metrics have an address of their own; `None`: the admin server shows them.
    pub metrics: Option<ListenAddr>,
    /// Logging.
    pub log: telemetry::Settings,
    /// Event-loop threads.
    pub workers: NonZeroUsize,
    /// How long clients are still welcome after SIGTERM.
    pub shutdown_delay: Duration,
    /// How long sessions may take to end after that.
    pub drain_timeout: Duration,
    /// End when the last client has been gone for so long; `None`: go on.
    pub exit_with_clients: Option<Duration>,
    /// What a restart should not forget; `None`: it forgets.
    pub state_file: Option<PathBuf>,
    /// What is long enough for a verdict.
    pub verdict: verdict::Settings,
    /// What works, and should be otherwise.
    pub warnings: Vec<String>,
}

/// One route: listeners in front, an upstream behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Label of metrics and logs.
    pub name: String,
    /// The group of servers that it leads to; `None`: who asks finds out.
    pub group: Option<String>,
    /// The client side.
    pub listener: listener::Settings,
    /// The server side.
    pub upstream: upstream::Settings,
    /// The relay between them.
    pub session: session::Settings,
    /// Where the upstream is a cluster.
    pub cluster: Option<cluster::Settings>,
    /// How often the servers are asked for their clients in plaintext; `None`: never.
    pub evidence: Option<Pace>,
}

impl Config {
    /// Puts together what the command line, the environment and the file give, or reports every problem.
    pub fn load(matches: &ArgMatches) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let line = args::read(matches);
        let mut file = line.file.as_deref().map(|path| file::read(path, &mut problems)).unwrap_or_default();
        let exposed = line.file.as_deref().and_then(|path| auth::exposed(path, &file.routes));
        file.global.extend(line.global);
        match &mut file.routes[..] {
            // The file may well have one that could not be read.
            [] if !problems.0.is_empty() && line.route.is_empty() => {}
            [] => file.routes.push(("--upstream".into(), line.route)),
            [(_, values)] => values.extend(line.route),
            several => {
                let count = several.len();
                for given in line.route.values().flatten() {
                    problems.add(
                        &given.place,
                        format!("is for one route, and the file has {count}: set it there"),
                    );
                }
            }
        }
        let mut config = validate::validate(&file.global, &file.routes, problems)?;
        config.warnings.extend(exposed);
        Ok(config)
    }

    /// A configuration from a file's text; `name` is for messages.
    pub fn from_toml(name: &str, text: &str) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let file = file::parse(name, text, &mut problems);
        validate::validate(&file.global, &file.routes, problems)
    }
}
