//! `pontoon check`: what `run` would do, step by step, once, and how each step went.

mod local;
mod topology;

use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::{Value, json};

use crate::config::{Config, Route};
use crate::group::Info;
use crate::metrics::RouteMetrics;
use crate::resp::replies::Answer;
use crate::upstream::{Auth, Connection, NodeTls, Stage, Upstream, ask};

/// How to check.
pub struct Options {
    /// Write JSON.
    pub json: bool,
    /// Dial nothing.
    pub offline: bool,
}

/// Checks every route; fails if one of them would not work.
pub fn run(config: Config, options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let routes = config.routes.len();
    let mut process = Report { route: "process".into(), json: options.json, ok: true };
    local::process(&config, &mut process);
    let mut failed = 0;
    for route in config.routes {
        let mut report = Report { route: route.name.clone(), json: options.json, ok: true };
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

async fn check(route: Route, offline: bool, report: &mut Report) {
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
    let metrics = std::sync::Arc::new(RouteMetrics::new(&route.name, &[]));
    let by_name = tls.as_ref().map(|tls| &tls.by_name);
    let endpoints = route.upstream.endpoints.clone();
    let mut reached = false;
    // Each endpoint on its own: the second must be known to work before the first one fails.
    for endpoint in endpoints {
        let settings = crate::upstream::Settings { endpoints: vec![endpoint], ..route.upstream.clone() };
        let upstream = Upstream::new(&route.name, &settings, by_name, &metrics);
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

/// Says how it was reached, and asks what it is. `None`: it does not answer.
async fn dialled(
    mut connection: Connection,
    who: &str,
    deadline: Duration,
    report: &mut Report,
) -> Option<Connection> {
    let endpoint = connection.endpoint.to_string();
    let mut waited_for_secret = None;
    for (stage, took) in connection.timings.clone() {
        let detail = match stage {
            Stage::Resolve => endpoint.clone(),
            Stage::Tcp => connection.peer.to_string(),
            Stage::Tls => connection.tls_details().unwrap_or_default(),
            Stage::Auth => {
                waited_for_secret = Some(took);
                continue;
            }
            Stage::Greeting | Stage::Queue => "CLIENT SETINFO, CLIENT SETNAME".into(),
        };
        report.ok(stage.label(), Some(took), &detail);
    }
    let auth = match connection.auth {
        Auth::None => None,
        Auth::Accepted => Some(format!("accepted: {who}")),
        Auth::Withheld => Some(format!("not sent, for this is plaintext: {who}")),
        Auth::Unwanted => Some(format!("the server has no password, and wants none: {who}")),
    };
    if let Some(detail) = auth {
        report.ok("auth", waited_for_secret, &detail);
    }
    let started = Instant::now();
    let answers = tokio::time::timeout(deadline, async {
        Ok::<_, crate::upstream::Cause>([
            ask(&mut connection, &["PING"]).await?,
            ask(&mut connection, &["INFO", "server"]).await?,
        ])
    });
    match answers.await {
        Err(_) => {
            report.failed("ping", &format!("no answer within {}", humantime::format_duration(deadline)));
            None
        }
        Ok(Err(cause)) => {
            report.failed("ping", &cause.to_string());
            None
        }
        Ok(Ok([ping, info])) => {
            let took = Some(started.elapsed());
            match ping {
                Answer::Text(text) => report.ok("ping", took, &text),
                // It answers, and wants credentials that the clients bring.
                Answer::Error(text) if text.starts_with("NOAUTH") => report.ok("ping", took, &text),
                Answer::Error(text) => report.failed("ping", &text),
                Answer::Number(_) | Answer::Other => report.failed("ping", "an answer of another type"),
            }
            if let Answer::Text(info) = info {
                report.ok("server", None, &Info(&info).describe());
            }
            Some(connection)
        }
    }
}

struct Report {
    route: String,
    json: bool,
    ok: bool,
}

impl Report {
    fn ok(&mut self, step: &str, took: Option<Duration>, detail: &str) {
        self.line(step, "ok", took, detail);
    }

    fn warn(&mut self, step: &str, detail: &str) {
        self.line(step, "warn", None, detail);
    }

    fn failed(&mut self, step: &str, detail: &str) {
        self.ok = false;
        self.line(step, "failed", None, detail);
    }

    fn line(&self, step: &str, result: &str, took: Option<Duration>, detail: &str) {
        let ms = took.map(|took| (took.as_secs_f64() * 1e6).round() / 1e3);
        if self.json {
            let mut line = json!({"route": self.route, "step": step, "result": result, "detail": detail});
            line["ms"] = ms.map_or(Value::Null, Value::from);
            say!("{line}");
        } else {
            let ms = ms.map_or_else(String::new, |ms| format!("{ms:.1} ms"));
            say!("{}  {step:<10} {result:<7} {ms:>10}  {detail}", self.route);
        }
    }
}
