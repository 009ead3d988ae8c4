//! The inventory as `/clients` returns it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::advice::{Advice, advice};
use super::history::ClientRecord;
use super::process::Process;
use super::session::{Library, Peer, SessionRecord, TrafficCounts};
use crate::moment::Moment;

/// The clients that are or were on the bridge, and what they need to leave it.
#[derive(Debug, Serialize, Deserialize)]
pub struct InventoryReport {
    /// Live sessions, oldest first.
    pub sessions: Vec<SessionReport>,
    /// Number of live sessions, including those not listed.
    pub sessions_total: usize,
    /// Clients over all their sessions: active ones first, then by the time they were last seen.
    pub clients: Vec<ClientRecord>,
    /// Number of clients, including those not listed.
    pub clients_total: usize,
    /// Number of clients that were forgotten for lack of room.
    pub clients_forgotten: u64,
    /// What the libraries of these clients need for TLS of their own.
    pub libraries: Vec<Advice>,
}

/// A live session.
#[derive(Debug, Serialize, Deserialize)]
pub struct SessionReport {
    /// The session's number, as in the log.
    pub session: u64,
    /// The name of its route.
    pub route: Box<str>,
    /// The client's address, or `unix`.
    pub peer: Box<str>,
    /// The client's process, if this machine shows it.
    pub process: Option<Process>,
    /// When the session started.
    pub since: Moment,
    /// Seconds since bytes last passed.
    pub idle_seconds: u64,
    /// The session's traffic.
    #[serde(flatten)]
    pub counts: TrafficCounts,
    /// The selected database.
    pub database: u32,
    /// The client's name for the connection.
    pub client_name: Option<Box<str>>,
    /// The client's library.
    pub library: Option<Library>,
    /// Protocol version: 2 for RESP2 or 3 for RESP3.
    pub protocol: u8,
    /// Why it is pinned to a dedicated connection on a route in shared mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<Box<str>>,
    /// Its upstream connection; `None` while it waits for one.
    pub upstream: Option<UpstreamReport>,
}

/// The upstream connection of a session.
#[derive(Debug, Serialize, Deserialize)]
pub struct UpstreamReport {
    /// The endpoint as configured.
    pub endpoint: Box<str>,
    /// The address of the server.
    pub address: Box<str>,
    /// Whether the connection uses TLS.
    pub tls: bool,
    /// Whether the TLS is the client's own, passed through.
    pub passthrough: bool,
    /// `dialled` for this client, `warm` or `reused`.
    pub origin: Box<str>,
}

impl SessionReport {
    pub(super) fn of(session: &SessionRecord, now: Moment) -> Self {
        let facts = session.facts.lock();
        Self {
            session: session.number,
            route: session.route().as_ref().into(),
            peer: match &session.peer {
                Peer::Tcp { client, .. } => client.to_string().into(),
                Peer::Unix { .. } => "unix".into(),
            },
            process: session.process(&facts).as_deref().filter(|process| process.is_known()).cloned(),
            since: session.since,
            idle_seconds: now.seconds_since(session.last()),
            counts: session.counts(),
            database: facts.database,
            client_name: facts.client_name.clone(),
            library: facts.library(),
            protocol: if facts.resp3 { 3 } else { 2 },
            pinned: facts.pinned.map(Into::into),
            upstream: facts.upstream.as_ref().map(|upstream| UpstreamReport {
                endpoint: upstream.endpoint.to_string().into(),
                address: upstream.address.to_string().into(),
                tls: upstream.plaintext.is_none(),
                passthrough: upstream.passthrough,
                origin: upstream.origin.into(),
            }),
        }
    }
}

/// Returns one entry for each recognised library.
pub(super) fn libraries(clients: &[ClientRecord]) -> Vec<Advice> {
    let names = clients.iter().filter_map(|client| advice(&client.library.as_ref()?.name));
    let sorted: BTreeMap<_, _> = names.map(|advice| (advice.library.clone(), advice)).collect();
    sorted.into_values().collect()
}
