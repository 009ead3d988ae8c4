//! Checks what this machine must provide: addresses, files, descriptors. Dials no server.

use super::report::CheckReport;
use crate::app::raise_limit;
use crate::config::{Config, Route};
use crate::credentials::Credentials;
use crate::endpoint::ListenAddr;
use crate::listener::{BindError, Listener};
use crate::session::ClientAuth;
use crate::state::StateFile;

/// Checks the settings that all routes share.
pub(super) fn process(config: &Config, report: &mut CheckReport) {
    for warning in &config.warnings {
        report.warn("config", warning);
    }
    match &config.admin {
        Some(admin) => listener(admin, "admin", report),
        None if config.metrics.is_some() => report.ok("admin", None, "off: no health, no status"),
        None => report.ok("admin", None, "off: no health, no metrics, no status"),
    }
    if let Some(metrics) = &config.metrics {
        listener(metrics, "metrics", report);
    }
    if let Some(path) = &config.state_file {
        let name = path.display().to_string();
        match (StateFile::could_write(path), StateFile::open(path)) {
            (Err(error), _) => report.failed("state file", &format!("{name} cannot be written: {error}")),
            (_, Err(error)) => report.warn("state file", &error.to_string()),
            (Ok(()), Ok(_)) => report.ok("state file", None, &name),
        }
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
        listener(address, "listen", report);
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

fn listener(address: &ListenAddr, step: &str, report: &mut CheckReport) {
    match Listener::could_bind(address) {
        Ok(()) => report.ok(step, None, &address.to_string()),
        Err(BindError::InUse(_) | BindError::Live(_)) => {
            report.warn(
                step,
                &format!(
                    "{address} is in use. This is no problem if a pontoon uses it that this one replaces"
                ),
            );
        }
        Err(error) => report.failed(step, &error.to_string()),
    }
}
