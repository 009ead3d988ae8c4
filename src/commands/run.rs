//! `pontoon run`: the sidecar.

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::admin::Command;
use crate::app::{App, Source, StartError};
use crate::config::Config;
use crate::drain::Drain;
use crate::{metrics, telemetry};

/// Why `run` did not start: each is a usage or config error.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct NotStarted(pub(super) Vec<StartError>);

/// Runs until SIGTERM or SIGINT, and until everything has ended. `source` gives another configuration at SIGHUP.
pub fn run(config: Config, source: Source) -> anyhow::Result<()> {
    telemetry::init(&config.log)?;
    let clients: usize = config.routes.iter().map(|route| route.listener.max_clients).sum();
    raise_descriptor_limit(clients);
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let metrics = metrics::install().context("cannot set up metrics")?;
    // Accepting, signals and the admin server; sessions have the workers.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let app = App::bind(config, metrics).map_err(NotStarted)?;
        let drain = Drain::new();
        // Installed before the start is announced: a signal that follows the announcement is obeyed.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let commands = app.commands();
        let reloads = async {
            while hang_up.recv().await.is_some() {
                info!(signal = "SIGHUP", "signal received");
                if commands.send(Command::Reload(oneshot::channel().0)).await.is_err() {
                    info!("leaving: the configuration is not reloaded");
                }
            }
        };
        let signals = async {
            for step in [Drain::start, Drain::cut] {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                info!(signal = name, "signal received");
                step(&drain);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = app.run(&drain, source) => Ok(()),
            () = signals => Ok(()),
            () = reloads => Ok(()),
        }
    })
}

/// A client takes two descriptors, one towards each side. The soft limit, often 1024, is raised as far as the hard
/// one allows.
fn raise_descriptor_limit(clients: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    let limit = getrlimit(Resource::Nofile).current;
    let needed = clients as u64 * 2 + 64;
    if let Some(limit) = limit.filter(|limit| *limit < needed) {
        warn!(
            limit,
            needed,
            "fewer open files are allowed than limits.max_clients needs: clients beyond will wait. Raise the hard \
             limit (ulimit -Hn, LimitNOFILE=) or lower limits.max_clients"
        );
    }
}
