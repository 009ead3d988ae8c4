//! `pontoon probe`: what does this endpoint accept, and what does that mean on the road to TLS?

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context as _, bail};
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde_json::json;

use crate::config::Route;
use crate::credentials::Credentials;
use crate::endpoint::{Endpoint, Host};
use crate::group::probe::{
    self, Findings, ProbeAttempt, ProbeSettings, ServerInfo, TransitMode, Verified, Version,
};
use crate::printable::{printable, printable_json};
use crate::tls::{self, Tls};
use crate::upstream::Cause;

/// How to probe.
pub struct ProbeOptions {
    /// Write JSON.
    pub json: bool,
    /// Names that should lead to the same place.
    pub also: Vec<Endpoint>,
}

/// What became of another name.
#[derive(Serialize)]
struct Also {
    endpoint: String,
    addresses: Vec<IpAddr>,
    /// It leads where the endpoint does.
    same: bool,
    problem: Option<String>,
}

/// Probes the route's first upstream; fails unless TLS can be used there as the route says.
pub fn run(route: &Route, options: &ProbeOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let settings = &route.upstream;
    let endpoint = settings.endpoints.first().expect("validated: a route has an upstream");
    // What verifies is told even where the route would take anything, and decides where a password goes.
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
        say!("{}", printable_json(&report.to_string()));
    } else {
        print(&findings, &also);
        say!("\n{next}");
    }
    match &findings.unusable {
        None => Ok(()),
        Some(why) => bail!("TLS cannot be used with {}: {}", findings.endpoint, printable(why)),
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

/// What it means on the road, and what to do next.
fn next_step(findings: &Findings) -> &'static str {
    let unverified = findings.verified.first().is_some_and(|own| own.problem.is_some());
    match (findings.mode, findings.unusable.is_none()) {
        (_, true) if unverified => {
            "TLS is spoken here, with a certificate that does not verify: pontoon uses it only with \
             tls.insecure_skip_verify, and whoever is on the way can read and change everything. Say what to trust instead: \
             --tls-ca-file, --tls-pin or --tls-server-name."
        }
        (TransitMode::Disabled, _) => {
            "Plaintext only: transit encryption is off. Roll pontoon out with tls.mode = \"preferred\", then modify the group \
             to transit-encryption-mode preferred."
        }
        (TransitMode::Preferred, true) => {
            "Plaintext and TLS on one port: the group is in preferred, and plaintext clients still connect. Move them to TLS \
             or behind pontoon; when none is left, set tls.mode = \"required\" and then the group to required."
        }
        (TransitMode::Required, true) => {
            "TLS only: the group requires TLS. pontoon's default, tls.mode = \"required\", fits."
        }
        (TransitMode::Preferred | TransitMode::Required, false) => {
            "TLS is spoken here, and pontoon would not use it: see the error, and the flags that it names."
        }
        (TransitMode::Unknown, _) => {
            "Neither plaintext nor TLS was answered: check host, port, security group, and that this is a Redis or Valkey."
        }
    }
}

fn print(findings: &Findings, also: &[Also]) {
    let line = |what: &str, text: &str| say!("{what:<12} {}", printable(text));
    let addresses: Vec<String> = findings.addresses.iter().map(ToString::to_string).collect();
    line(
        "endpoint",
        &format!("{}  {} ({:.1} ms)", findings.endpoint, addresses.join(" "), findings.resolve_ms),
    );
    line(
        "mode",
        match findings.mode {
            TransitMode::Disabled => "disabled: plaintext only",
            TransitMode::Preferred => "preferred: plaintext and TLS",
            TransitMode::Required => "required: TLS only",
            TransitMode::Unknown => "unknown",
        },
    );
    line("plaintext", &attempt(&findings.plaintext));
    for Version { version, attempt: tried, cipher, key_exchange } in &findings.versions {
        let agreed: Vec<&str> = [cipher, key_exchange].into_iter().flatten().map(String::as_str).collect();
        let agreed = if agreed.is_empty() { String::new() } else { format!(", {}", agreed.join(", ")) };
        line(&format!("TLS {version}"), &format!("{}{agreed}", attempt(tried)));
    }
    if let Some(resumption) = findings.resumption {
        line("resumption", if resumption { "offered" } else { "not offered" });
    }
    for certificate in &findings.certificates {
        let names = if certificate.names.is_empty() {
            certificate.subject.clone()
        } else {
            certificate.names.join(" ")
        };
        let days = certificate.days_left;
        line(
            "certificate",
            &format!("{names}, by {}, until {} ({days} days)", certificate.issuer, certificate.not_after),
        );
    }
    for Verified { name, problem } in &findings.verified {
        let good = problem
            .as_ref()
            .map_or_else(|| "verifies".to_owned(), |problem| format!("does not verify: {problem}"));
        line("", &format!("for {name} it {good}"));
    }
    if let Some(server) = &findings.server {
        line("server", &describe(server));
    }
    for Also { endpoint, addresses, same, problem } in also {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let where_to = match problem {
            Some(problem) => problem.clone(),
            None if *same => "leads to the same addresses".into(),
            None => format!("leads elsewhere: {}", addresses.join(" ")),
        };
        line("also", &format!("{endpoint}  {where_to}"));
    }
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
        Some(true) => format!("knows {what}"),
        Some(false) => format!("does not know {what}"),
        None => format!("does not tell of {what}"),
    };
    let mut parts = Vec::new();
    parts.push(match (server.engine, &server.version) {
        (Some(engine), Some(version)) => format!("{engine} {version}"),
        _ => "engine not told".into(),
    });
    parts.extend(server.role.clone());
    parts.extend(server.cluster.map(|cluster| if cluster { "cluster".into() } else { "no cluster".into() }));
    parts.push(match (&server.auth_refused, server.auth_wanted) {
        (Some(words), _) => format!("refuses the credentials: {words}"),
        (None, Some(true)) => "wants AUTH".into(),
        (None, Some(false)) => "wants no AUTH".into(),
        (None, None) => "answers PING with an error".into(),
    });
    parts.push(known("RESET", server.reset));
    parts.push(known("CLIENT SETINFO", server.setinfo));
    parts.extend(server.plaintext_clients.map(|count| format!("{count} clients in plaintext")));
    parts.join(", ")
}
