//! Checks what this machine must provide: addresses, files, descriptors. Dials no server.

use super::report::CheckReport;
use crate::app::raise_limit;
use crate::config::{Config, Route};
use crate::credentials::Credentials;
use crate::endpoint::ListenAddr;
use crate::listener::{BindError, Holder, Listener};
use crate::session::ClientAuth;
use crate::state::{StateError, StateFile};

/// Checks the settings that all routes share. `damaged`: why the state file cannot be read.
pub(super) fn process(
    config: &Config,
    damaged: Option<&StateError>,
    offline: bool,
    report: &mut CheckReport,
) {
    for warning in &config.warnings {
        report.warn("config", warning);
    }
    match &config.admin {
        Some(admin) => listener(admin, None, offline, "admin", report),
        None if config.metrics.is_some() => report.ok("admin", None, "off: no health, no status"),
        None => report.ok("admin", None, "off: no health, no metrics, no status"),
    }
    if let Some(metrics) = &config.metrics {
        listener(metrics, None, offline, "metrics", report);
    }
    if let Some(path) = &config.state_file {
        let name = path.display().to_string();
        match (StateFile::could_write(path), damaged) {
            (Err(error), _) => {
                let problem = format!(
                    "{name} cannot be written: {error}: create its directory, writable for this user"
                );
                if config.needs_state_file() && !offline {
                    report.failed("state file", &problem);
                } else {
                    report.warn("state file", &problem);
                }
            }
            (_, Some(error)) => report.warn("state file", &error.to_string()),
            (Ok(()), None) => report.ok("state file", None, &name),
        }
    } else if config.needs_state_file() {
        report.warn(
            "state file",
            "none: after a restart plaintext is accepted again, until TLS is seen again. Set runtime.state_file",
        );
    }
    match raise_limit(config) {
        Ok(needed) => {
            report.ok("open files", None, &format!("up to {needed} are needed, and the limit allows them"));
        }
        Err(too_few) => report.warn("open files", &too_few.to_string()),
    }
}

/// Checks the listeners and secrets of one route.
pub(super) async fn route(route: &Route, offline: bool, report: &mut CheckReport) {
    for address in &route.listener.listen {
        listener(address, Some(route.listener.handover), offline, "listen", report);
    }
    if let ClientAuth::Verify(local) = &route.session.client_auth {
        match local.check() {
            Ok(()) => {
                report.ok("local auth", None, "clients must know the password in auth.local_password_file");
            }
            Err(problem) => report.failed("local auth", &problem),
        }
    }
    // Without --offline, dialling the server reads the secret.
    if let Some(auth) = route.upstream.auth.as_ref().filter(|auth| offline && auth.source.is_local()) {
        let credentials = Credentials::new(auth);
        match credentials.ready().await {
            Ok(()) => report.ok("secret", None, &credentials.to_string()),
            Err(error) => report.failed("secret", &error.to_string()),
        }
    }
}

/// Checks an address. `handover`: whether a successor may share it; `None` where none can. With `offline` the configuration may be another
/// machine's: a problem of this machine is no failure.
fn listener(
    address: &ListenAddr,
    handover: Option<bool>,
    offline: bool,
    step: &str,
    report: &mut CheckReport,
) {
    let (problem, is_expected) = match Listener::could_bind(address, handover == Some(true)) {
        Ok(()) => return report.ok(step, None, &address.to_string()),
        Err(BindError::InUse(_, holder) | BindError::Live(_, holder)) => {
            let (advice, is_expected) = match (&holder, handover) {
                (Holder::Pontoon(_), Some(_)) => {
                    ("a reload keeps it, and a second `run` needs handover = true in both", true)
                }
                (Holder::Pontoon(_), None) => {
                    ("a reload keeps it, and a second `run` needs another address", true)
                }
                (Holder::Systemd(_), _) => ("pontoon gets it if it is started by the socket unit", true),
                (Holder::Other(_) | Holder::Hidden, _) => ("stop it, or set another address", false),
            };
            (format!("{address} is in use by {holder}: {advice}"), is_expected)
        }
        Err(error) if !error.may_pass() => return report.failed(step, &error.to_string()),
        Err(error) => (error.to_string(), false),
    };
    if is_expected || offline { report.warn(step, &problem) } else { report.failed(step, &problem) }
}
