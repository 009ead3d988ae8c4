//! `pontoon run`: runs the sidecar. The parts of the sidecar are joined in `app`.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::admin::AdminCommand;
use crate::app::{App, ConfigSource, Shutdown, StartError, raise_limit};
use crate::config::Config;
use crate::listener::Inherited;
use crate::{metrics, telemetry};

/// Why `run` did not start.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct NotStarted(pub(super) Vec<StartError>);

impl NotStarted {
    /// Whether every error may pass by itself. Otherwise it is a config error.
    pub fn may_pass(&self) -> bool {
        self.0.iter().all(StartError::may_pass)
    }
}

/// Maximum number of blocking threads of the main runtime, which look up names, find processes and write files. The limit keeps a name
/// server that hangs from creating ever more threads.
const MAX_BLOCKING_THREADS: usize = 64;

/// Runs until SIGTERM or SIGINT, and then until all sessions have ended. At SIGHUP, `source` returns the new configuration.
pub fn run(config: Config, source: ConfigSource) -> anyhow::Result<()> {
    let inherited = Inherited::take().map_err(|error| NotStarted(vec![error.into()]))?;
    telemetry::init(&config.log)?;
    if let Err(too_few) = raise_limit(&config) {
        warn!(error = %too_few, "open file limit too low");
    }
    for warning in &config.warnings {
        warn!(%warning, "configuration accepted with a warning");
    }
    let metrics = metrics::install().context("cannot set up metrics")?;
    // This runtime accepts connections, handles signals and runs the admin server. Sessions run on the workers.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build()?;
    runtime.block_on(async {
        let app = App::bind(config, inherited, metrics).map_err(NotStarted)?;
        let shutdown = Shutdown::new();
        // Installed before the start is logged, so that a signal right after that log line is handled.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let commands = app.commands();
        let reloads = async {
            while hang_up.recv().await.is_some() {
                info!(signal = "SIGHUP", "signal received");
                if commands.send(AdminCommand::Reload(oneshot::channel().0)).await.is_err() {
                    info!("shutting down, reload ignored");
                }
            }
        };
        let signals = async {
            loop {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                shutdown.signal(name);
            }
        };
        tokio::select! {
            () = app.run(&shutdown, source) => Ok(()),
            () = signals => Ok(()),
            () = reloads => Ok(()),
        }
    })
}
