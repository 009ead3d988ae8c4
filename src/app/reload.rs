//! All routes that run, and how another configuration takes effect: all of it or nothing.

use std::collections::HashMap;
use std::sync::Arc;

use super::route::{Live, Prepared};
use super::running::Running;
use super::tasks::Books;
use crate::admin::{Shared, Shown};
use crate::config::{Config, Problems};
use crate::listener::Listener;
use crate::telemetry;

/// Where a configuration comes from, each time that it is asked for.
pub type Source = Box<dyn Fn() -> Result<Config, Problems>>;

/// What runs, and what it obeys.
pub(super) struct Routes {
    pub(super) running: Running,
    pub(super) shared: Shared,
    pub(super) books: Arc<Books>,
    live: Vec<Live>,
    /// As it is obeyed; its routes are in `live`.
    config: Config,
}

impl Routes {
    pub(super) fn start(
        prepared: Vec<Prepared>,
        config: Config,
        running: Running,
        shared: Shared,
        books: Arc<Books>,
    ) -> Self {
        let names = prepared.iter().map(|route| route.name().to_owned()).collect::<Vec<_>>();
        running.readiness.follow(names.into_iter());
        let live = prepared.into_iter().map(|route| route.start(&running)).collect();
        let routes = Self { running, shared, books, live, config };
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

    /// Has `source` give a configuration, and obeys it. On failure everything stays as it was. Returns what changed, or every
    /// problem.
    pub(super) fn reload(&mut self, source: &Source) -> Result<String, String> {
        let mut config = source().map_err(|problems| problems.to_string())?;
        let bound: Vec<&Listener> = self.live.iter().flat_map(Live::listeners).collect();
        let mut problems = Vec::new();
        let mut plans = Vec::new();
        for settings in std::mem::take(&mut config.routes) {
            let name = settings.name.clone();
            let before = self.live.iter().find(|live| live.settings().name == name);
            if before.is_some_and(|live| *live.settings() == settings) {
                plans.push((name, None));
                continue;
            }
            match Prepared::new(settings, before, &bound, &self.running.inherited) {
                Ok(prepared) => plans.push((name, Some(prepared))),
                Err(more) => problems.extend(more.iter().map(ToString::to_string)),
            }
        }
        if !problems.is_empty() {
            return Err(problems.join("\n"));
        }
        let mut told = self.obey(config);
        told.extend(self.take(plans));
        self.show();
        if told.is_empty() { Ok("nothing changed".into()) } else { Ok(told.join("; ")) }
    }

    /// Runs these routes, named in their order, and no others. `None`: as it is. Returns what changed.
    fn take(&mut self, plans: Vec<(String, Option<Prepared>)>) -> Vec<String> {
        let mut told = Vec::new();
        let mut before: HashMap<String, Live> =
            self.live.drain(..).map(|live| (live.settings().name.clone(), live)).collect();
        self.running.readiness.follow(plans.iter().map(|(name, _)| name.clone()));
        for (name, prepared) in plans {
            let live = match (before.remove(&name), prepared) {
                (Some(live), None) => live,
                (Some(live), Some(prepared)) => {
                    told.push(format!("route \"{name}\" changed"));
                    prepared.replace(live, &self.running)
                }
                (None, Some(prepared)) => {
                    told.push(format!("route \"{name}\" added"));
                    prepared.start(&self.running)
                }
                (None, None) => unreachable!("only what runs can stay as it is"),
            };
            told.extend(
                live.needs_restart().map(|what| format!("needs a restart: route \"{name}\": {what}")),
            );
            self.live.push(live);
        }
        for (name, live) in before {
            told.push(format!("route \"{name}\" removed"));
            live.remove(self.config.drain_timeout, &self.running);
        }
        told
    }

    /// Obeys what is no route's. Returns what changed, and what needs a restart to change.
    fn obey(&mut self, new: Config) -> Vec<String> {
        let old = &self.config;
        let mut told: Vec<String> = [
            ("admin.listen", old.admin != new.admin),
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
        // What needs a restart is as it was, and is named again.
        let Config { admin, workers, exit_with_clients, state_file, log, .. } =
            std::mem::replace(&mut self.config, new);
        self.config = Config { admin, workers, exit_with_clients, state_file, ..self.config.clone() };
        self.config.log.format = log.format;
        told
    }

    /// Brings up to date who the others think is there.
    fn show(&self) {
        let routes = self.live.iter().map(Live::describe).collect();
        self.shared.shown.store(Arc::new(Shown { routes, verdict: self.config.verdict.clone() }));
        self.books.observers.store(Arc::new(self.live.iter().filter_map(Live::observer).collect()));
    }
}
