//! TLS sessions to resume, shared by all of a route's connections.
//!
//! rustls' own cache keeps eight TLS 1.3 tickets for each server, and each is good for one connection. If clients connect for each request,
//! fifty at a time, most would find no ticket and need a full handshake.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use parking_lot::Mutex;
use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// The limit on tickets kept for one server, which is also how many connections can resume at once. A ticket takes about 1 KiB, and a
/// server gives two for each connection.
const TICKETS: usize = 256;

/// The limit on servers, of which a route has few. Beyond it, all sessions are dropped and collected again.
const SERVERS: usize = 64;

#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<ServerName<'static>, ServerSessions>>);

#[derive(Default)]
struct ServerSessions {
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    tickets: VecDeque<Tls13ClientSessionValue>,
}

impl Sessions {
    fn update(&self, name: ServerName<'static>, change: impl FnOnce(&mut ServerSessions)) {
        let mut servers = self.0.lock();
        if servers.len() >= SERVERS && !servers.contains_key(&name) {
            servers.clear();
        }
        change(servers.entry(name).or_default());
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.update(name, |server| server.group = Some(group));
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.lock().get(name)?.group
    }

    fn set_tls12_session(&self, name: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.update(name, |server| server.tls12 = Some(session));
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.lock().get(name)?.tls12.clone()
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        if let Some(server) = self.0.lock().get_mut(name) {
            server.tls12 = None;
        }
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.update(name, |server| {
            if server.tickets.len() == TICKETS {
                server.tickets.pop_front();
            }
            server.tickets.push_back(ticket);
        });
    }

    /// Takes the newest ticket, which lives longest. A ticket is used for one connection only ([RFC 8446,
    /// C.4](https://www.rfc-editor.org/rfc/rfc8446#appendix-C.4)).
    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.lock().get_mut(name)?.tickets.pop_back()
    }
}

/// Prints no tickets, because they are secret.
impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}
