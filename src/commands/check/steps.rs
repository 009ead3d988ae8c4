//! Runs the steps in their order.

use std::sync::Arc;

use anyhow::bail;

use super::dialled::dialled;
use super::report::CheckReport;
use super::{local, sentinel, topology};
use crate::app::{LatchMemory, RouteTls};
use crate::cluster::Election;
use crate::config::{Config, Route};
use crate::counted::counted;
use crate::group::verdict;
use crate::metrics::RouteMetrics;
use crate::moment::Moment;
use crate::resolve::ResolveError;
use crate::state::StateFile;
use crate::tls::TlsMode;
use crate::upstream::{self, Cause, ConnectError, ObservedTransit, Unreachable, Upstream};

/// Options of `pontoon check`.
pub struct CheckOptions {
    /// Write JSON.
    pub json: bool,
    /// Do not dial any server.
    pub offline: bool,
}

/// Checks every route. Fails if one of them would not work.
pub fn run(config: Config, options: &CheckOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut process = CheckReport::new("process", options.json);
    let state = config.state_file.as_deref().map(StateFile::open).transpose();
    local::process(&config, state.as_ref().err(), options.offline, &mut process);
    process.print();
    let memory = LatchMemory::new(state);
    let mut routes = Vec::new();
    for route in config.routes {
        let mut report = CheckReport::new(&route.name, options.json);
        runtime.block_on(check(route, &memory, &config.verdict, options.offline, &mut report));
        report.print();
        routes.push((report.route, report.failed_at));
    }
    let not_started =
        process.failed_at.as_ref().map(|step| format!("pontoon would not start: {step} failed"));
    let works = not_started.is_none() && routes.iter().all(|(_, failed_at)| failed_at.is_none());
    let result = not_started.clone().unwrap_or_else(|| conclusion(&routes, options.offline));
    if options.json {
        if works { process.ok("summary", None, &result) } else { process.failed("summary", &result) }
    } else if works {
        say!("{result}");
    }
    if not_started.is_some() {
        bail!("{result}. The DETAIL column says why");
    }
    if !works {
        bail!("{result}");
    }
    Ok(())
}

/// Returns the closing line: `1 of 2 routes works: sessions failed at tls`. `routes` are names, each with the first step that failed.
fn conclusion(routes: &[(String, Option<String>)], offline: bool) -> String {
    let failures: Vec<String> = routes
        .iter()
        .filter_map(|(route, step)| Some(format!("{route} failed at {}", step.as_ref()?)))
        .collect();
    let good = routes.len() - failures.len();
    let is_singular = good == 1 || routes.len() == 1;
    let verb = match (offline, is_singular) {
        (false, true) => "works",
        (false, false) => "work",
        (true, true) => "is valid",
        (true, false) => "are valid",
    };
    let why = if failures.is_empty() { String::new() } else { format!(": {}", failures.join(", ")) };
    format!("{good} of {} {verb}{why}", counted(routes.len(), "route"))
}

async fn check(
    route: Route,
    memory: &LatchMemory,
    limits: &verdict::Settings,
    offline: bool,
    report: &mut CheckReport,
) {
    local::route(&route, offline, report).await;
    let RouteTls { own: tls, nodes: node_tls } = match RouteTls::load(&route) {
        Ok(tls) => tls,
        Err(error) => return report.failed("tls files", &error.to_string()),
    };
    if let Some(tls) = tls.as_ref().or(node_tls.as_ref()) {
        report.ok("tls files", None, &tls.by_name.describe());
    }
    if offline {
        return;
    }
    let metrics = Arc::new(RouteMetrics::new(&route.name, &[]));
    let by_name = tls.as_ref().map(|tls| &tls.by_name);
    let endpoints = route.upstream.endpoints.clone();
    let is_one_of_several = endpoints.len() > 1;
    let mut reached = false;
    let mut failures = Vec::new();
    let mut views = Vec::new();
    if route.upstream.tls.mode == TlsMode::Preferred
        && let Some(latched) = memory.accepted_tls(&endpoints)
    {
        let words = if memory.is_damaged() {
            "plaintext is refused, because the state file cannot be used".into()
        } else {
            format!("plaintext is refused, because {latched} has accepted TLS before (state file)")
        };
        report.ok("latch", None, &words);
    }
    // Each endpoint is dialled, because the check must show that the second works before the first one fails.
    for endpoint in endpoints {
        let settings = upstream::Settings { endpoints: vec![endpoint], ..route.upstream.clone() };
        let upstream = Arc::new(Upstream::new(&route.name, &settings, by_name, &metrics));
        memory.close(&upstream, &route.upstream.endpoints);
        upstream.look().await;
        let connected = upstream.connect().await;
        if !connected.as_ref().is_err_and(|error| is_one_of_several && is_absent(error)) {
            for (endpoint, mode) in upstream.transit() {
                let words = format!("{endpoint}: {}", mode.describe());
                match mode {
                    ObservedTransit::Tls | ObservedTransit::Disabled => report.ok("transit", None, &words),
                    _ => report.warn("transit", &words),
                }
            }
        }
        match connected {
            Err(error) if is_one_of_several && is_absent(&error) => {
                let name = &settings.endpoints[0];
                report.warn("resolve", &format!("{name} does not exist: pontoon skips it while this is so"));
            }
            Ok(connection) => {
                reached = true;
                let who = upstream.credentials().map(ToString::to_string).unwrap_or_default();
                let connection = dialled(connection, &who, settings.connect_timeout, report).await;
                if let Some(problem) = verdict::expiring_certificate(&upstream.facts(), limits, Moment::now())
                {
                    report.warn("certificate", &problem);
                }
                match (connection, route.master_name()) {
                    (None, _) => {}
                    (Some(mut connection), Some(master_name)) => {
                        views.extend(sentinel::ask(&mut connection, master_name, &route, report).await);
                    }
                    (Some(connection), None) => {
                        topology::check(connection, &route, node_tls.as_ref(), &upstream, report).await;
                    }
                }
            }
            Err(error) => failures.extend(error.attempts),
        }
    }
    if !views.is_empty() {
        sentinel::servers(Election::new(views), &route, node_tls.as_ref(), report).await;
    }
    // One reachable endpoint is enough: a list may hold the names before and after TLS was enabled.
    for attempt in failures {
        let is_sentinel = route.master_name().is_some();
        let detail = if is_sentinel { attempt.of_sentinel() } else { attempt.to_string() };
        let step = attempt.stage.label();
        if reached { report.warn(step, &detail) } else { report.failed(step, &detail) }
    }
    if !reached && report.failed_at.is_none() {
        report.failed("resolve", "no name of the list exists: check their spelling in `upstream`");
    }
}

/// Whether the upstream cannot be reached because its only name does not exist.
fn is_absent(error: &Unreachable) -> bool {
    let is_absent =
        |attempt: &ConnectError| matches!(attempt.source, Cause::Resolve(ResolveError::NoSuchHost(_)));
    error.attempts.iter().all(|attempt| is_absent(attempt))
}

#[cfg(test)]
mod tests {
    use super::conclusion;

    #[test]
    fn the_closing_line_counts_working_routes_and_names_failed_steps() {
        let route = |name: &str, step: Option<&str>| (name.to_owned(), step.map(str::to_owned));
        let good = [route("cache", None), route("queue", None)];
        assert_eq!(conclusion(&good, false), "2 of 2 routes work");
        assert_eq!(conclusion(&good, true), "2 of 2 routes are valid");
        assert_eq!(conclusion(&good[..1], false), "1 of 1 route works");
        let bad = [route("cache", None), route("sessions", Some("tls"))];
        assert_eq!(conclusion(&bad, false), "1 of 2 routes works: sessions failed at tls");
        assert_eq!(conclusion(&bad[1..], false), "0 of 1 route works: sessions failed at tls");
    }
}
