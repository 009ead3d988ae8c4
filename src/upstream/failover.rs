//! After a failover, ready connections may lead to a server that is gone, or is the primary no more.
//!
//! Three signs, of different weight. READONLY as a whole reply is acted on at once. The word inside another reply may be a script's own:
//! ROLE is asked first. A lost connection says nothing certain of the others: each must show that it works before a client gets it.

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

/// Where new connections lead to a replica, too, READONLY is not acted on for this time, and twice as long the next time, up to
/// [`MAX_REPLICA_PAUSE`]: the name leads to replicas, or does not know yet of the new primary.
const REPLICA_PAUSE: Duration = Duration::from_millis(500);
const MAX_REPLICA_PAUSE: Duration = Duration::from_secs(4);

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
    pub fn is_read_only(self: &Arc<Self>, dialled: &Dialled) -> bool {
        {
            let watch = self.failover.0.lock();
            if watch.paused_until.is_some_and(|until| Instant::now() < until) {
                return false;
            }
        }
        if !self.retire(dialled) {
            return false;
        }
        let upstream = Arc::clone(self);
        self.background.spawn(async move {
            if let Some((_, role)) = upstream.ask_role().await {
                upstream.failover.note(role);
            }
        });
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
            if is_demoted && upstream.retire(&dialled) {
                info!(
                    route = &*route,
                    upstream = %dialled.endpoint,
                    "failover found: a reply holds READONLY and ROLE confirms it; ready connections are retired"
                );
                let role = upstream.ask_role().await.map_or(ServerRole::Unknown, |(_, role)| role);
                upstream.failover.note(role);
            }
        });
    }

    /// A connection was lost: those that are ready must show that they work before a client gets them.
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
    /// New connections lead to a server of this role.
    fn note(&self, role: ServerRole) {
        let mut watch = self.0.lock();
        match role {
            ServerRole::Replica => {
                watch.pause = (watch.pause * 2).clamp(REPLICA_PAUSE, MAX_REPLICA_PAUSE);
                watch.paused_until = Some(Instant::now() + watch.pause);
            }
            ServerRole::Primary | ServerRole::Unknown => {
                *watch = WatchState { last_hint: watch.last_hint, ..WatchState::default() }
            }
        }
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
