//! The inventory as `/clients` shows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::advice::{Advice, advice};
use super::history::ClientRecord;
use super::process::Process;
use super::session::{Library, Peer, SessionRecord, TrafficCounts};
use crate::moment::Moment;

/// Who is on the bridge, who was, and what they need to leave it.
#[derive(Debug, Serialize, Deserialize)]
pub struct InventoryReport {
    /// Live sessions, the oldest first.
    pub sessions: Vec<SessionReport>,
    /// How many there are, shown or not.
    pub sessions_total: usize,
    /// Clients over all of their sessions, active ones first, then those seen last.
    pub clients: Vec<ClientRecord>,
    /// How many there are, shown or not.
    pub clients_total: usize,
    /// How many had to be forgotten.
    pub clients_forgotten: u64,
    /// What the libraries of these clients need to speak TLS themselves.
    pub libraries: Vec<Advice>,
}

/// A live session.
#[derive(Debug, Serialize, Deserialize)]
pub struct SessionReport {
    /// As in the log.
    pub session: u64,
    /// Its route.
    pub route: Box<str>,
    /// The client's address, or `unix`.
    pub peer: Box<str>,
    /// The client's process, as far as this machine shows it.
    pub process: Option<Process>,
    /// When it began.
    pub since: Moment,
    /// Seconds since something passed.
    pub idle_seconds: u64,
    /// What passed.
    #[serde(flatten)]
    pub counts: TrafficCounts,
    /// The database that it uses.
    pub database: u32,
    /// The name that the client gave it.
    pub client_name: Option<Box<str>>,
    /// The client's library.
    pub library: Option<Library>,
    /// RESP2 or RESP3.
    pub protocol: u8,
    /// Why it has an upstream connection of its own, where clients share them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<Box<str>>,
    /// Its upstream connection; `None`: it waits for one.
    pub upstream: Option<UpstreamReport>,
}

/// The upstream connection of a session.
#[derive(Debug, Serialize, Deserialize)]
pub struct UpstreamReport {
    /// As configured.
    pub endpoint: Box<str>,
    /// The address that answered.
    pub address: Box<str>,
    /// Over TLS, or in plaintext.
    pub tls: bool,
    /// The TLS is the client's own, passed through.
    pub passthrough: bool,
    /// Dialled for this client, warm or reused.
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

/// One entry for each library that is recognised.
pub(super) fn libraries(clients: &[ClientRecord]) -> Vec<Advice> {
    let names = clients.iter().filter_map(|client| advice(&client.library.as_ref()?.name));
    let sorted: BTreeMap<_, _> = names.map(|advice| (advice.library.clone(), advice)).collect();
    sorted.into_values().collect()
}
