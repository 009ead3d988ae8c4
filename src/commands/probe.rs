//! `pontoon probe`: shows what an endpoint accepts, and the next step on the road to TLS.
//!
//! Dialling the endpoint and judging its answers is the work of `group::probe`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde_json::json;

use super::colour::Tint;
use super::json::print_json;
use super::table::Table;
use crate::config::Route;
use crate::counted::counted;
use crate::credentials::Credentials;
use crate::endpoint::{Endpoint, Host};
use crate::group::probe::{
    self, Findings, ProbeAttempt, ProbeSettings, ServerInfo, TransitMode, Verified, Version,
};
use crate::printable::printable;
use crate::tls::{self, Tls};
use crate::upstream::Cause;

/// Options of `pontoon probe`.
pub struct ProbeOptions {
    /// Write JSON.
    pub json: bool,
    /// Other names that should resolve to the same addresses.
    pub also: Vec<Endpoint>,
    /// A certificate that is valid for less time must be renewed.
    pub certificate_left: Duration,
}

/// The result for another name.
#[derive(Serialize)]
struct Also {
    endpoint: String,
    addresses: Vec<IpAddr>,
    /// Whether the name resolves to the same addresses as the endpoint.
    same: bool,
    problem: Option<String>,
}

/// Probes the route's first upstream. Fails unless pontoon can use TLS with it under the route's settings.
pub fn run(route: &Route, options: &ProbeOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let settings = &route.upstream;
    let endpoint = settings.endpoints.first().expect("validated: a route has an upstream");
    // Certificates are verified even if the route accepts any: the report shows the result, and a password goes only to a verified server.
    let tls = Tls::load(&tls::Settings { insecure_skip_verify: false, ..settings.tls.clone() })?;
    let names: Vec<ServerName<'static>> =
        std::iter::once(endpoint).chain(&options.also).filter_map(server_name).collect();
    let logins = match &settings.auth {
        Some(auth) => runtime.block_on(Credentials::new(auth).logins())?,
        None => Vec::new(),
    };
    let looking = ProbeSettings {
        tls: &tls,
        accept_any: settings.tls.insecure_skip_verify,
        names: &names,
        login: logins.first(),
        timeout: settings.connect_timeout,
    };
    let (findings, also) = runtime
        .block_on(async {
            let findings = probe::probe(endpoint, &looking).await?;
            let mut also = Vec::new();
            for other in &options.also {
                also.push(compare(other, &findings, probe::addresses(other, looking.timeout).await));
            }
            Ok::<_, Cause>((findings, also))
        })
        .with_context(|| format!("name lookup for {endpoint} failed"))?;
    let next = next_step(&findings);
    if options.json {
        let mut report = serde_json::to_value(&findings)?;
        report["also"] = json!(also);
        report["next"] = json!(next);
        print_json(&report);
    } else {
        print(&findings, &also, options.certificate_left);
        say!("\n{next}");
    }
    match &findings.unusable {
        None => Ok(()),
        Some(why) => bail!("cannot use TLS with {}: {}", findings.endpoint, printable(why)),
    }
}

fn server_name(endpoint: &Endpoint) -> Option<ServerName<'static>> {
    match &endpoint.host {
        Host::Ip(ip) => Some(ServerName::from(*ip)),
        Host::Name(name) => ServerName::try_from(name.trim_end_matches('.').to_owned()).ok(),
    }
}

fn compare(other: &Endpoint, findings: &Findings, found: Result<Vec<std::net::SocketAddr>, Cause>) -> Also {
    let set = |addresses: &[std::net::SocketAddr]| {
        addresses.iter().map(std::net::SocketAddr::ip).collect::<BTreeSet<_>>()
    };
    match found {
        Ok(addresses) => Also {
            endpoint: other.to_string(),
            same: set(&addresses) == set(&findings.addresses),
            addresses: set(&addresses).into_iter().collect(),
            problem: None,
        },
        Err(cause) => Also {
            endpoint: other.to_string(),
            addresses: Vec::new(),
            same: false,
            problem: Some(cause.to_string()),
        },
    }
}

/// Returns the endpoint's state on the road to TLS, and what to do next.
fn next_step(findings: &Findings) -> &'static str {
    let unverified = findings.verified.first().is_some_and(|own| own.problem.is_some());
    match (findings.mode, findings.unusable.is_none()) {
        (_, true) if unverified => {
            "The endpoint accepts TLS with a certificate that does not verify. pontoon uses it only with \
             tls.insecure_skip_verify, and then an attacker on the network can read and change everything. Name what to \
             trust instead: --tls-ca-file, --tls-pin or --tls-server-name."
        }
        (TransitMode::Disabled, _) => {
            "The endpoint accepts plaintext only: transit encryption is off. Deploy pontoon with tls.mode = \"preferred\", then \
             modify the group to transit-encryption-mode preferred."
        }
        (TransitMode::Preferred, true) => {
            "The endpoint accepts plaintext and TLS: the group is in preferred, and plaintext clients still connect. Move them \
             to TLS or behind pontoon. When none is left, set tls.mode = \"required\", then set the group to required."
        }
        (TransitMode::Required, true) => {
            "The endpoint accepts TLS only: the group requires TLS. pontoon's default, tls.mode = \"required\", works."
        }
        (TransitMode::Preferred | TransitMode::Required, false) => {
            "The endpoint accepts TLS, but pontoon cannot use it: the error names the reason and the flags that help."
        }
        (TransitMode::Unknown, _) => {
            "The endpoint answered neither plaintext nor TLS. Check the host, the port and the security group, and that the \
             server is Redis or Valkey."
        }
    }
}

fn print(findings: &Findings, also: &[Also], certificate_left: Duration) {
    let mut table = Table::without_heading();
    let mut line = |what: &str, text: &str, tint: Option<Tint>| {
        let cells = [what.to_owned(), text.to_owned()];
        match tint {
            Some(tint) => table.tinted_row(cells, 1, tint),
            None => table.row(cells),
        }
    };
    let good = |good: bool| Some(if good { Tint::Good } else { Tint::Bad });
    let addresses: Vec<String> = findings.addresses.iter().map(ToString::to_string).collect();
    line(
        "endpoint",
        &format!("{}  {} ({:.1} ms)", findings.endpoint, addresses.join(" "), findings.resolve_ms),
        None,
    );
    line(
        "mode",
        match findings.mode {
            TransitMode::Disabled => "disabled: plaintext only",
            TransitMode::Preferred => "preferred: plaintext and TLS",
            TransitMode::Required => "required: TLS only",
            TransitMode::Unknown => "unknown",
        },
        None,
    );
    line("plaintext", &attempt(&findings.plaintext), None);
    for Version { version, attempt: tried, cipher, key_exchange } in &findings.versions {
        let agreed: Vec<&str> = [cipher, key_exchange].into_iter().flatten().map(String::as_str).collect();
        let agreed = if agreed.is_empty() { String::new() } else { format!(", {}", agreed.join(", ")) };
        line(&format!("TLS {version}"), &format!("{}{agreed}", attempt(tried)), good(tried.accepted));
    }
    if let Some(resumption) = findings.resumption {
        line("resumption", if resumption { "offered" } else { "not offered" }, None);
    }
    for certificate in &findings.certificates {
        let names = if certificate.names.is_empty() {
            certificate.subject.clone()
        } else {
            certificate.names.join(" ")
        };
        let days = certificate.days_left;
        // A negative number of days is less than any time.
        let ends_soon = u64::try_from(days).unwrap_or(0) * 24 * 3600 < certificate_left.as_secs();
        let renewal = if ends_soon { ": renew it" } else { "" };
        line(
            "certificate",
            &format!(
                "{names}, issued by {}, valid until {} ({days} days){renewal}",
                certificate.issuer, certificate.not_after
            ),
            ends_soon.then_some(Tint::Doubtful),
        );
    }
    for Verified { name, problem } in &findings.verified {
        let result = problem
            .as_ref()
            .map_or_else(|| "verifies".to_owned(), |problem| format!("does not verify: {problem}"));
        line("", &format!("for {name} it {result}"), good(problem.is_none()));
    }
    if let Some(server) = &findings.server {
        line("server", &describe(server), None);
    }
    for Also { endpoint, addresses, same, problem } in also {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let where_to = match problem {
            Some(problem) => problem.clone(),
            None if *same => "resolves to the same addresses".into(),
            None => format!("resolves to other addresses: {}", addresses.join(" ")),
        };
        line("also", &format!("{endpoint}  {where_to}"), None);
    }
    say!("{table}");
}

fn attempt(attempt: &ProbeAttempt) -> String {
    let took = |what: &str, ms: Option<f64>| ms.map(|ms| format!("{what} {ms:.1} ms"));
    let peer = attempt.peer.map(|peer| peer.to_string());
    let times: Vec<String> =
        [peer, took("tcp", attempt.tcp_ms), took("then", attempt.answer_ms)].into_iter().flatten().collect();
    let times = if times.is_empty() { String::new() } else { format!(" ({})", times.join(", ")) };
    let how = if attempt.accepted { "accepted" } else { "refused" };
    format!("{how}{times}: {}", attempt.detail)
}

fn describe(server: &ServerInfo) -> String {
    let known = |what: &str, known: Option<bool>| match known {
        Some(true) => format!("has {what}"),
        Some(false) => format!("has no {what}"),
        None => format!("may have {what}"),
    };
    let mut parts = Vec::new();
    parts.push(match (server.engine, &server.version) {
        (Some(engine), Some(version)) => format!("{engine} {version}"),
        _ => "unknown engine".into(),
    });
    parts.extend(server.role.clone());
    parts.extend(server.cluster.map(|cluster| if cluster { "cluster".into() } else { "no cluster".into() }));
    parts.push(match (&server.auth_refused, server.auth_wanted) {
        (Some(words), _) => format!("refuses the credentials: {words}"),
        (None, Some(true)) => "requires AUTH".into(),
        (None, Some(false)) => "requires no AUTH".into(),
        (None, None) => "answers PING with an error".into(),
    });
    parts.push(known("RESET", server.reset));
    parts.push(known("CLIENT SETINFO", server.setinfo));
    parts.extend(
        server.plaintext_clients.map(|count| format!("{} in plaintext", counted(count as usize, "client"))),
    );
    parts.join(", ")
}
