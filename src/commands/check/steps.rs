//! The steps, in their order.

use std::sync::Arc;

use anyhow::bail;

use super::dialled::dialled;
use super::report::CheckReport;
use super::{local, topology};
use crate::config::{Config, Route};
use crate::metrics::RouteMetrics;
use crate::upstream::{self, NodeTls, Upstream};

/// How to check.
pub struct CheckOptions {
    /// Write JSON.
    pub json: bool,
    /// Dial nothing.
    pub offline: bool,
}

/// Checks every route; fails if one of them would not work.
pub fn run(config: Config, options: &CheckOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let routes = config.routes.len();
    let mut process = CheckReport { route: "process".into(), json: options.json, ok: true };
    local::process(&config, &mut process);
    let mut failed = 0;
    for route in config.routes {
        let mut report = CheckReport { route: route.name.clone(), json: options.json, ok: true };
        runtime.block_on(check(route, options.offline, &mut report));
        failed += usize::from(!report.ok);
    }
    if !process.ok {
        bail!("pontoon would not start; the steps marked \"failed\" say why");
    }
    if failed > 0 {
        bail!("{failed} of {routes} routes would not work; the steps marked \"failed\" say why");
    }
    Ok(())
}

async fn check(route: Route, offline: bool, report: &mut CheckReport) {
    local::route(&route, offline, report).await;
    let tls = match NodeTls::wanted(&route.upstream) {
        Ok(tls) => tls,
        Err(error) => return report.failed("tls files", &error.to_string()),
    };
    if let Some(tls) = &tls {
        report.ok("tls files", None, &tls.by_name.describe());
    }
    if offline {
        return;
    }
    let metrics = Arc::new(RouteMetrics::new(&route.name, &[]));
    let by_name = tls.as_ref().map(|tls| &tls.by_name);
    let endpoints = route.upstream.endpoints.clone();
    let mut reached = false;
    // Each endpoint on its own: the second must be known to work before the first one fails.
    for endpoint in endpoints {
        let settings = upstream::Settings { endpoints: vec![endpoint], ..route.upstream.clone() };
        let upstream = Arc::new(Upstream::new(&route.name, &settings, by_name, &metrics));
        upstream.look().await;
        for (endpoint, mode) in upstream.transit() {
            report.ok("transit", None, &format!("{endpoint}: {}", mode.describe()));
        }
        match upstream.connect().await {
            Ok(connection) => {
                reached = true;
                let who = upstream.credentials().map(ToString::to_string).unwrap_or_default();
                let connection = dialled(connection, &who, settings.connect_timeout, report).await;
                if let Some(connection) = connection {
                    topology::check(connection, &route, tls.as_ref(), &upstream, report).await;
                }
            }
            Err(error) => {
                for attempt in error.attempts {
                    report.failed(attempt.stage.label(), &attempt.to_string());
                }
            }
        }
    }
    if reached {
        // One endpoint of a list may be gone: the names before and after TLS was turned on are never there together.
        report.ok = report.ok || route.upstream.endpoints.len() > 1;
    }
}
