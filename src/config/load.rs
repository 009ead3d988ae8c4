//! The validated [`Config`], and how it is loaded.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ArgMatches;

use super::problems::Problems;
use super::{args, auth, file, validate};
use crate::endpoint::ListenAddr;
use crate::group::{Pace, verdict};
use crate::tls::TlsMode;
use crate::{cluster, listener, session, telemetry, upstream};

/// All settings of `run`, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// One for each `[[route]]`; never empty, with unique names.
    pub routes: Vec<Route>,
    /// The admin server's address; `None` for `off`.
    pub admin: Option<ListenAddr>,
    /// The address for metrics; `None` if the admin server serves them.
    pub metrics: Option<ListenAddr>,
    /// Logging.
    pub log: telemetry::Settings,
    /// Event-loop threads.
    pub workers: NonZeroUsize,
    /// Time after SIGTERM for which clients are still accepted.
    pub shutdown_delay: Duration,
    /// Time that sessions then have to end.
    pub drain_timeout: Duration,
    /// Time without a client after which the run ends; `None` for never.
    pub exit_with_clients: Option<Duration>,
    /// The state file; `None` if nothing is kept across restarts.
    pub state_file: Option<PathBuf>,
    /// The times that the verdict requires.
    pub verdict: verdict::Settings,
    /// Settings that work but should be changed.
    pub warnings: Vec<String>,
}

/// One route: its listeners and its upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The route's label in metrics and logs.
    pub name: String,
    /// The group of servers behind the route; `None` if `fleet` is to derive it.
    pub group: Option<String>,
    /// The client side.
    pub listener: listener::Settings,
    /// The server side.
    pub upstream: upstream::Settings,
    /// The relay between them.
    pub session: session::Settings,
    /// Set if the upstream is a cluster or a group's sentinels.
    pub cluster: Option<cluster::Settings>,
    /// How often the servers are asked for their clients in plaintext; `None` for never.
    pub evidence: Option<Pace>,
}

impl Route {
    /// How the servers are reached that hold the data: behind sentinels, or at the upstream itself.
    pub fn servers(&self) -> &upstream::Settings {
        self.sentinel().map_or(&self.upstream, |group| &group.servers)
    }

    /// The group of servers, if the upstream is its sentinels.
    pub fn sentinel(&self) -> Option<&cluster::SentinelGroup> {
        self.cluster.as_ref()?.sentinel.as_ref()
    }

    /// The name of that group.
    pub fn master_name(&self) -> Option<&Arc<str>> {
        self.sentinel().map(|group| &group.master_name)
    }
}

impl Config {
    /// Whether the state file must be writable: a latch that closes in this run must hold in the next one.
    pub fn needs_state_file(&self) -> bool {
        let mut modes = self.routes.iter().flat_map(|route| [&route.upstream, route.servers()]);
        modes.any(|settings| settings.tls.mode == TlsMode::Preferred)
    }

    /// Combines the command line, the environment and the file, or reports every problem.
    pub fn load(matches: &ArgMatches) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let line = args::read(matches);
        let mut file = line.file.as_deref().map(|path| file::read(path, &mut problems)).unwrap_or_default();
        let exposed = line.file.as_deref().and_then(|path| auth::exposed(path, &file.routes));
        file.global.extend(line.global);
        match &mut file.routes[..] {
            // The file may have a route that could not be read.
            [] if !problems.0.is_empty() && line.route.is_empty() => {}
            [] => file.routes.push(("--upstream".into(), line.route)),
            [(_, values)] => values.extend(line.route),
            several => {
                let count = several.len();
                for given in line.route.values().flatten() {
                    problems.add(
                        &given.place,
                        format!("applies to one route, but the file has {count}: set it in the file"),
                    );
                }
            }
        }
        let unknown = args::unknown_variables(std::env::vars_os().map(|(name, _)| name));
        let mut config = match validate::validate(&file.global, &file.routes, problems) {
            Ok(config) => config,
            // A mistyped variable may be why a setting is missing.
            Err(Problems(problems)) => return Err(Problems(problems.into_iter().chain(unknown).collect())),
        };
        config.warnings.extend(exposed);
        config.warnings.extend(unknown);
        Ok(config)
    }

    /// Parses a configuration file's text. `name` is used in messages.
    pub fn from_toml(name: &str, text: &str) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let file = file::parse(name, text, &mut problems);
        validate::validate(&file.global, &file.routes, problems)
    }
}
