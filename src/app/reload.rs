//! All running routes, and the reload of the configuration: all of it takes effect, or nothing.

use std::collections::HashSet;
use std::sync::Arc;

use tracing::warn;

use super::descriptors::raise_limit;
use super::route::{LiveRoute, Prepared};
use super::running::Running;
use super::tasks::StateWriter;
use crate::admin::{AdminContext, AdminView};
use crate::config::{Config, Problems, Route};
use crate::endpoint::ListenAddr;
use crate::listener::Listener;
use crate::telemetry;

/// Provides the configuration each time that it is loaded.
pub type ConfigSource = Box<dyn Fn() -> Result<Config, Problems>>;

/// The running routes and the configuration in use.
pub(super) struct Routes {
    pub(super) running: Running,
    pub(super) shared: AdminContext,
    pub(super) state_writer: Arc<StateWriter>,
    live: Vec<LiveRoute>,
    /// The configuration in use. Its routes are in `live`.
    config: Config,
}

/// The result of a reload.
#[derive(Debug)]
pub(super) struct Reloaded {
    /// What changed, in one line.
    pub(super) changes: String,
    /// What may not work as configured.
    pub(super) warnings: Vec<String>,
}

impl Routes {
    pub(super) fn start(
        prepared: Vec<Prepared>,
        config: Config,
        running: Running,
        shared: AdminContext,
        state_writer: Arc<StateWriter>,
    ) -> Self {
        let names = prepared.iter().map(|route| route.name().to_owned()).collect::<Vec<_>>();
        running.serving.follow(names.into_iter());
        let live = prepared.into_iter().map(|route| route.start(&running)).collect();
        let routes = Self { running, shared, state_writer, live, config };
        routes.show();
        routes
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Whether a successor may share any route's addresses.
    pub(super) fn hand_over(&self) -> bool {
        self.live.iter().any(|live| live.settings().listener.handover)
    }

    /// Loads a configuration from `source` and applies it. On failure nothing changes, and every problem is returned.
    pub(super) fn reload(&mut self, source: &ConfigSource) -> Result<Reloaded, String> {
        let mut config = source().map_err(|problems| problems.to_string())?;
        let mut warnings = std::mem::take(&mut config.warnings);
        warnings.extend(raise_limit(&config).err().map(|too_few| too_few.to_string()));
        let bound: Vec<&Listener> = self.live.iter().flat_map(LiveRoute::listeners).collect();
        let wanted: Vec<_> = config.routes.iter().flat_map(|route| &route.listener.listen).collect();
        // Clients would wait in an unused inherited socket, and the next start would fail.
        let unwanted = self.running.inherited.unwanted(&wanted);
        let mut problems: Vec<String> = unwanted.iter().map(ToString::to_string).collect();
        let mut plans = Vec::new();
        let routes = std::mem::take(&mut config.routes);
        for (settings, before) in self.pairs(routes) {
            let live = before.map(|at| &self.live[at]);
            if live.is_some_and(|live| *live.settings() == settings) {
                plans.push((settings.name, before, None));
                continue;
            }
            let name = settings.name.clone();
            match Prepared::new(settings, live, &bound, &self.running.inherited) {
                Ok(prepared) => plans.push((name, before, Some(prepared))),
                Err(more) => problems.extend(more.iter().map(ToString::to_string)),
            }
        }
        if !problems.is_empty() {
            return Err(problems.join("\n"));
        }
        let mut told = self.obey(config);
        told.extend(self.take(plans));
        self.show();
        for warning in &warnings {
            warn!(%warning, "configuration accepted with a warning");
        }
        let changes = if told.is_empty() { "nothing changed".into() } else { told.join("; ") };
        Ok(Reloaded { changes, warnings })
    }

    /// Pairs each configured route with the running one that it replaces: by name, or else by listening address, because a default name
    /// follows from the upstream.
    fn pairs(&self, wanted: Vec<Route>) -> Vec<(Route, Option<usize>)> {
        let named = |name: &str| self.live.iter().position(|live| live.settings().name == name);
        let mut taken: HashSet<usize> = wanted.iter().filter_map(|route| named(&route.name)).collect();
        let pair = |route: Route| {
            let before = named(&route.name).or_else(|| {
                let here = |live: &LiveRoute| {
                    let one = |address: &&ListenAddr| address.is_one();
                    let mut addresses = route.listener.listen.iter().filter(one);
                    addresses.any(|address| live.listeners().iter().any(|listener| listener.is_at(address)))
                };
                let at = self.live.iter().enumerate().find(|(at, live)| !taken.contains(at) && here(live));
                at.map(|(at, _)| at)
            });
            taken.extend(before);
            (route, before)
        };
        wanted.into_iter().map(pair).collect()
    }

    /// Runs these routes, in this order, in place of the running ones. `None` in place of a [`Prepared`] keeps a route unchanged. Returns
    /// what changed.
    fn take(&mut self, plans: Vec<(String, Option<usize>, Option<Prepared>)>) -> Vec<String> {
        let mut told = Vec::new();
        let mut before: Vec<Option<LiveRoute>> = self.live.drain(..).map(Some).collect();
        // A replacement must know the latches, even under another name.
        before.iter().flatten().for_each(|live| live.remember(&self.running));
        let renamed = |(name, at, _): &(String, Option<usize>, Option<Prepared>)| {
            let old = &before[(*at)?].as_ref()?.settings().name;
            (old != name).then(|| (old.as_str().into(), name.as_str().into()))
        };
        self.running.inventory.rename(&plans.iter().filter_map(renamed).collect());
        self.running.serving.follow(plans.iter().map(|(name, ..)| name.clone()));
        for (name, at, prepared) in plans {
            let live = match (at.and_then(|at| before[at].take()), prepared) {
                (Some(live), None) => live,
                (Some(live), Some(prepared)) => {
                    let old = &live.settings().name;
                    let renamed = if *old == name { String::new() } else { format!(" (before: \"{old}\")") };
                    told.push(format!("route \"{name}\" changed{renamed}"));
                    prepared.replace(live, &self.running)
                }
                (None, Some(prepared)) => {
                    told.push(format!("route \"{name}\" added"));
                    prepared.start(&self.running)
                }
                (None, None) => unreachable!("only a running route can stay unchanged"),
            };
            told.extend(
                live.needs_restart().map(|what| format!("needs a restart: route \"{name}\": {what}")),
            );
            self.live.push(live);
        }
        for live in before.into_iter().flatten() {
            told.push(format!("route \"{}\" removed", live.settings().name));
            live.remove(self.config.drain_timeout, &self.running);
        }
        told
    }

    /// Applies settings outside of routes. Returns what changed, and what needs a restart to change.
    fn obey(&mut self, new: Config) -> Vec<String> {
        let old = &self.config;
        let mut told: Vec<String> = [
            ("admin.listen", old.admin != new.admin),
            ("admin.metrics_listen", old.metrics != new.metrics),
            ("log.format", old.log.format != new.log.format),
            ("runtime.workers", old.workers != new.workers),
            ("runtime.exit_with_clients", old.exit_with_clients != new.exit_with_clients),
            ("runtime.state_file", old.state_file != new.state_file),
        ]
        .iter()
        .filter(|(_, changed)| *changed)
        .map(|(key, _)| format!("needs a restart: {key}"))
        .collect();
        if old.log.level != new.log.level {
            telemetry::set_level(new.log.level.as_ref());
            told.push("log.level changed".into());
        }
        if old.shutdown_delay != new.shutdown_delay {
            told.push("runtime.shutdown_delay changed".into());
        }
        if old.drain_timeout != new.drain_timeout {
            told.push("runtime.drain_timeout changed".into());
        }
        if old.verdict != new.verdict {
            told.push("verdict changed".into());
        }
        // Settings that need a restart keep their values, so that the next reload names them again.
        let Config { admin, metrics, workers, exit_with_clients, state_file, log, .. } =
            std::mem::replace(&mut self.config, new);
        self.config =
            Config { admin, metrics, workers, exit_with_clients, state_file, ..self.config.clone() };
        self.config.log.format = log.format;
        told
    }

    /// Publishes the routes to the admin server and the state writer.
    fn show(&self) {
        let routes = self.live.iter().map(LiveRoute::describe).collect();
        self.shared.shown.store(Arc::new(AdminView { routes, verdict: self.config.verdict.clone() }));
        self.state_writer.observers.send_replace(self.live.iter().filter_map(LiveRoute::observer).collect());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;
    use std::time::Duration;

    use tokio::sync::{mpsc, watch};
    use tokio::time::{sleep, timeout};
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::app::memory::LatchMemory;
    use crate::clients::Inventory;
    use crate::drain::Drain;
    use crate::listener::{DescriptorBudget, Inherited};
    use crate::metrics::PrometheusHandle;
    use crate::workers::Workers;

    fn config(handshakes: usize, more: &str) -> Config {
        let route = "[[route]]\nlisten = \"127.0.0.1:0\"\nupstream = \"127.0.0.1:1\"";
        Config::from_toml("", &format!("{route}\nlimits.handshakes = {handshakes}\n{more}")).unwrap()
    }

    #[tokio::test]
    async fn a_reload_frees_everything_that_it_replaces() {
        let drain = Drain::new();
        let mut first = config(1, "");
        let running = Running {
            workers: Arc::new(Workers::start(first.workers).unwrap()),
            listening: TaskTracker::new(),
            tasks: TaskTracker::new(),
            inventory: Inventory::new(),
            serving: Arc::default(),
            memory: LatchMemory::new(Ok(None)),
            inherited: Arc::new(Inherited::default()),
            descriptors: DescriptorBudget::default(),
            drain: drain.clone(),
        };
        let shared = AdminContext {
            serving: Arc::clone(&running.serving),
            metrics: PrometheusHandle::of_nobody(),
            inventory: Arc::clone(&running.inventory),
            shown: Arc::default(),
            commands: mpsc::channel(1).0,
        };
        let inventory = Arc::clone(&running.inventory);
        let state_writer =
            Arc::new(StateWriter { inventory, observers: watch::Sender::default(), state: None });
        let prepared = std::mem::take(&mut first.routes).into_iter();
        let prepared =
            prepared.map(|route| Prepared::new(route, None, &[], &running.inherited).ok().unwrap());
        let mut routes = Routes::start(prepared.collect(), first, running.clone(), shared, state_writer);
        let tasks = || running.tasks.len().max(running.listening.len());
        let (before, mut replaced) = (tasks(), Vec::new());
        for handshakes in 2..22 {
            let old = routes.live[0].describe();
            replaced.push((Arc::downgrade(&old.upstreams.own), Arc::downgrade(&old.metrics)));
            let bad: ConfigSource =
                Box::new(move || Ok(config(handshakes, "tls.ca_files = \"/no/such/file\"")));
            routes.reload(&bad).unwrap_err();
            let good: ConfigSource = Box::new(move || Ok(config(handshakes, "")));
            routes.reload(&good).unwrap();
        }
        let gone = || replaced.iter().all(|(upstream, metrics)| is_gone(upstream) && is_gone(metrics));
        let all_gone = async {
            while !gone() || tasks() > before {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(30), all_gone).await.expect("a replaced route was not freed");
        drain.cut();
    }

    fn is_gone<T>(of: &Weak<T>) -> bool {
        of.strong_count() == 0
    }
}
