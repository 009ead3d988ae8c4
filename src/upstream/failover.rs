//! After a failover, ready connections may lead to a server that is gone, or is the primary no more.
//!
//! Signs have different weight; both `note_error`s (of `session::dedicated::replies` and `session::shared::handing_out`) say which replies are
//! signs. READONLY as a whole reply is acted on at once. The word inside another reply may be a script's own, and UNBLOCKED
//! and REDIRECT are hints, too: ROLE is asked first. A lost connection says nothing certain of the others: each must show that it works before a client gets it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tracing::info;

use super::ask::ask_frame;
use super::connection::{Connection, Dialled};
use super::pool::Discard;
use super::route::Upstream;
use crate::resp::replies::encode_command;

/// ROLE is asked for a hint at most once in this time.
const HINT_INTERVAL: Duration = Duration::from_secs(1);

/// A server that does not say its role in this time may have any.
const ROLE_TIMEOUT: Duration = Duration::from_secs(2);

/// READONLY is not acted on for this time after it was, and twice as long each time, up to [`MAX_READ_ONLY_PAUSE`].
const FIRST_READ_ONLY_PAUSE: Duration = Duration::from_millis(500);
const MAX_READ_ONLY_PAUSE: Duration = Duration::from_secs(4);

/// What was found out lately.
#[derive(Default)]
pub(super) struct FailoverWatch(Mutex<WatchState>);

#[derive(Default)]
struct WatchState {
    /// ROLE was asked for a hint then.
    last_hint: Option<Instant>,
    /// READONLY is not acted on until then.
    paused_until: Option<Instant>,
    pause: Duration,
}

/// What a server says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServerRole {
    Primary,
    Replica,
    Unknown,
}

impl ServerRole {
    /// The reply to ROLE begins with it.
    fn of(reply: &[u8]) -> Self {
        // Behind the header of the array and its own.
        match reply.split(|byte| *byte == b'\n').nth(2) {
            Some(b"master\r") => Self::Primary,
            Some(b"slave\r") => Self::Replica,
            _ => Self::Unknown,
        }
    }
}

impl Upstream {
    /// The server said READONLY: it is the primary no more. Retires connections that are ready, unless new ones lead to a replica, too.
    /// Whether it did.
    pub fn is_read_only(self: &Arc<Self>, connection: &Connection) -> bool {
        if !self.failover.may_act() || !self.retire(&connection.dialled()) {
            return false;
        }
        let (upstream, peer) = (Arc::clone(self), connection.peer);
        self.background.spawn(async move { upstream.look_for_primary(peer).await });
        true
    }

    /// A reply on this connection hints that its server is the primary no more, which a script can do at will. Asks for the role, and
    /// retires connections that are ready if it is so.
    pub fn may_be_read_only(self: &Arc<Self>, route: &Arc<str>, connection: &Connection) {
        let now = Instant::now();
        {
            let mut watch = self.failover.0.lock();
            let is_paused = watch.paused_until.is_some_and(|until| now < until);
            if is_paused || watch.last_hint.is_some_and(|last| now - last < HINT_INTERVAL) {
                return;
            }
            watch.last_hint = Some(now);
        }
        let (upstream, route) = (Arc::clone(self), Arc::clone(route));
        let (dialled, peer) = (connection.dialled(), connection.peer);
        self.background.spawn(async move {
            let Some((asked, role)) = upstream.ask_role().await else { return };
            // Another server by now: that one is the primary, and this one is not.
            let is_demoted = role == ServerRole::Replica || (role == ServerRole::Primary && asked != peer);
            if is_demoted && upstream.failover.may_act() && upstream.retire(&dialled) {
                info!(
                    route = &*route,
                    upstream = %dialled.endpoint,
                    "failover found: a reply holds READONLY and ROLE confirms it; ready connections are retired"
                );
                upstream.look_for_primary(peer).await;
            }
        });
    }

    /// A connection was lost, a shared one while replies were due: those that are ready must show that they work before a client gets them.
    pub fn lost(&self, dialled: &Dialled) {
        if let Some(remote) = self.remote(&dialled.endpoint) {
            remote.pool.suspect();
        }
    }

    /// Whether there was no news of the endpoint since this connection was made.
    pub fn is_latest(&self, dialled: &Dialled) -> bool {
        self.remote(&dialled.endpoint).is_none_or(|remote| remote.pool.generation() == dialled.generation)
    }

    /// Retires connections to this endpoint that are no younger. Whether that had not been done before.
    fn retire(&self, Dialled { endpoint, generation }: &Dialled) -> bool {
        self.remote(endpoint).is_some_and(|remote| remote.pool.retire_with(*generation, Discard::Retired))
    }

    /// Finds out where new connections lead. `from`: the server that said READONLY.
    async fn look_for_primary(self: &Arc<Self>, from: SocketAddr) {
        if matches!(self.ask_role().await, Some((peer, ServerRole::Primary)) if peer != from) {
            self.failover.found();
        }
    }

    /// The role of the server that clients are led to now, and its address.
    async fn ask_role(self: &Arc<Self>) -> Option<(SocketAddr, ServerRole)> {
        let mut connection = self.connect().await.ok()?;
        let asked = timeout(ROLE_TIMEOUT, ask_frame(&mut connection, &encode_command(&["ROLE"]))).await;
        let role = ServerRole::of(&asked.ok()?.ok()?);
        if role == ServerRole::Primary {
            connection.release(false);
        }
        Some((connection.peer, role))
    }
}

impl FailoverWatch {
    /// Whether READONLY is acted on now. If so, not again for a moment, and each time for longer, until a new primary is found: the name
    /// may lead to replicas, or not know yet of the new primary, or a script says READONLY.
    fn may_act(&self) -> bool {
        let now = Instant::now();
        let mut watch = self.0.lock();
        if watch.paused_until.is_some_and(|until| now < until) {
            return false;
        }
        let is_calm = watch.paused_until.is_none_or(|until| now - until > MAX_READ_ONLY_PAUSE);
        watch.pause =
            if is_calm { FIRST_READ_ONLY_PAUSE } else { (watch.pause * 2).min(MAX_READ_ONLY_PAUSE) };
        watch.paused_until = Some(now + watch.pause);
        true
    }

    /// New connections lead to another server, a primary.
    fn found(&self) {
        let mut watch = self.0.lock();
        *watch = WatchState { last_hint: watch.last_hint, ..WatchState::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_is_what_the_reply_begins_with() {
        assert_eq!(ServerRole::of(b"*3\r\n$6\r\nmaster\r\n:10\r\n*0\r\n"), ServerRole::Primary);
        assert_eq!(
            ServerRole::of(b"*5\r\n$5\r\nslave\r\n$6\r\nmaster\r\n:6379\r\n$9\r\nconnected\r\n:1\r\n"),
            ServerRole::Replica
        );
        assert_eq!(ServerRole::of(b"-NOPERM no\r\n"), ServerRole::Unknown);
    }
}
