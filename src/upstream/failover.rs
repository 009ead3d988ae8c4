//! Handles a failover: ready connections may lead to a server that is gone, or is no longer the primary.
//!
//! Signs have different weight. `note_error` in `session::dedicated::replies` and in `session::shared::handing_out` says which replies are
//! signs. READONLY as a whole reply is acted on at once. READONLY inside another reply may be a script's own, and UNBLOCKED and REDIRECT
//! are only hints, so pontoon asks for ROLE first. A lost connection proves nothing about the others: each must answer before a client gets
//! it.
//!
//! The endpoint may lead to the old primary for a while: its name changes only after the failover. Until new connections lead to a primary,
//! pontoon looks again and again, so that no client stays with the old one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tracing::info;

use super::ask::ask_frame;
use super::connection::{Connection, Dialled};
use super::error::Unreachable;
use super::lease::Lease;
use super::pool::Discard;
use super::route::Upstream;
use crate::resp::replies::encode_command;

/// ROLE is asked for a hint at most once in this time.
const HINT_INTERVAL: Duration = Duration::from_secs(1);

/// The role of a server that does not answer ROLE in this time is unknown.
const ROLE_TIMEOUT: Duration = Duration::from_secs(2);

/// After READONLY was acted on, it is ignored for this time. The pause doubles each time, up to [`MAX_READ_ONLY_PAUSE`].
const FIRST_READ_ONLY_PAUSE: Duration = Duration::from_millis(500);
const MAX_READ_ONLY_PAUSE: Duration = Duration::from_secs(4);

/// How long to wait before looking for a new primary again. The wait doubles each time, up to [`MAX_LOOK_PAUSE`].
const FIRST_LOOK_PAUSE: Duration = Duration::from_millis(100);
const MAX_LOOK_PAUSE: Duration = Duration::from_secs(1);

/// How long to look for a new primary. A later READONLY begins another search.
const SEARCH_TIME: Duration = Duration::from_secs(60);

/// When failovers were last looked for.
#[derive(Default)]
pub(super) struct FailoverWatch(Mutex<WatchState>);

#[derive(Default)]
struct WatchState {
    /// When ROLE was last asked for a hint.
    last_hint: Option<Instant>,
    /// READONLY is ignored until this time.
    paused_until: Option<Instant>,
    pause: Duration,
    /// A new primary is being looked for.
    is_searching: bool,
}

/// The role that a server reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServerRole {
    Primary,
    Replica,
    Unknown,
}

impl ServerRole {
    /// Reads the role, which is the first element of the reply to ROLE.
    fn of(reply: &[u8]) -> Self {
        // The role follows the header of the array and its own length.
        match reply.split(|byte| *byte == b'\n').nth(2) {
            Some(b"master\r") => Self::Primary,
            Some(b"slave\r") => Self::Replica,
            _ => Self::Unknown,
        }
    }
}

impl Upstream {
    /// The server replied READONLY, so it is no longer the primary. Retires ready connections, unless new ones lead to a replica, too.
    /// Returns whether connections were retired.
    pub fn is_read_only(self: &Arc<Self>, route: &Arc<str>, connection: &Connection) -> bool {
        if !self.failover.may_act() || !self.retire(&connection.dialled()) {
            return false;
        }
        let (upstream, route, peer) = (Arc::clone(self), Arc::clone(route), connection.peer);
        self.background.spawn(async move { upstream.look_for_primary(&route, peer).await });
        true
    }

    /// A reply on this connection hints that its server is no longer the primary; a script can cause such a reply at will. Asks for the
    /// role, and retires ready connections if the server was demoted.
    pub fn may_be_read_only(self: &Arc<Self>, route: &Arc<str>, connection: &Connection) {
        let now = Instant::now();
        {
            let mut watch = self.failover.0.lock();
            if watch.is_paused(now) || watch.last_hint.is_some_and(|last| now - last < HINT_INTERVAL) {
                return;
            }
            watch.last_hint = Some(now);
        }
        let (upstream, route) = (Arc::clone(self), Arc::clone(route));
        let (dialled, peer) = (connection.dialled(), connection.peer);
        self.background.spawn(async move {
            let Some((asked, role)) = upstream.ask_role(upstream.connect().await).await else { return };
            // If the new connection leads to another server that is the primary, this one is not.
            let is_demoted = role == ServerRole::Replica || (role == ServerRole::Primary && asked != peer);
            if is_demoted && upstream.failover.may_act() && upstream.retire(&dialled) {
                info!(
                    route = &*route,
                    upstream = %dialled.endpoint,
                    "failover found by READONLY in a reply and by ROLE, ready connections retired"
                );
                upstream.look_for_primary(&route, peer).await;
            }
        });
    }

    /// A connection was lost, or a shared one with outstanding replies. Ready connections must now answer before a client gets them.
    pub fn lost(&self, dialled: &Dialled) {
        if let Some(remote) = self.remote(&dialled.endpoint) {
            remote.pool.suspect();
        }
    }

    /// Retires connections to this endpoint that are of this generation. Returns whether they were not retired before.
    fn retire(&self, Dialled { endpoint, generation }: &Dialled) -> bool {
        self.remote(endpoint).is_some_and(|remote| remote.pool.retire_with(generation, Discard::Retired))
    }

    /// Looks for the new primary: finds out where new connections lead, until that is a primary. `from`: the server that replied READONLY.
    async fn look_for_primary(self: &Arc<Self>, route: &str, from: SocketAddr) {
        if !self.failover.begins_search() {
            return;
        }
        let (began, mut pause, mut led_to_replica) = (Instant::now(), FIRST_LOOK_PAUSE, false);
        let has_failed_over = loop {
            match self.ask_role(self.connect_anew().await).await {
                // If the same server is a primary after all, a script returned READONLY.
                Some((peer, ServerRole::Primary)) => break led_to_replica || peer != from,
                Some((_, ServerRole::Unknown)) => break false,
                Some((_, ServerRole::Replica)) => led_to_replica = true,
                None => {}
            }
            if began.elapsed() >= SEARCH_TIME || self.is_closed() {
                break false;
            }
            sleep(pause).await;
            pause = (pause * 2).min(MAX_LOOK_PAUSE);
        };
        self.failover.ends_search(has_failed_over);
        if led_to_replica && has_failed_over {
            // Clients have connected to the old primary in the meantime.
            self.retire_all();
            info!(route, "new primary found after READONLY, ready connections retired");
        }
    }

    /// The role and the address of the server that this connection leads to. `None`: there is no connection, or no answer.
    async fn ask_role(
        self: &Arc<Self>,
        connection: Result<Lease, Unreachable>,
    ) -> Option<(SocketAddr, ServerRole)> {
        let mut connection = connection.ok()?;
        let asked = timeout(ROLE_TIMEOUT, ask_frame(&mut connection, &encode_command(&["ROLE"]))).await;
        let role = ServerRole::of(&asked.ok()?.ok()?);
        if role == ServerRole::Primary {
            connection.release(false);
        }
        Some((connection.peer, role))
    }
}

impl WatchState {
    /// Whether READONLY is ignored.
    fn is_paused(&self, now: Instant) -> bool {
        self.is_searching || self.paused_until.is_some_and(|until| now < until)
    }
}

impl FailoverWatch {
    /// Whether to act on READONLY now. If so, the next is ignored for a while, and each time for longer, until a new primary is found: the
    /// name may still lead to replicas, or a script may return READONLY.
    fn may_act(&self) -> bool {
        let now = Instant::now();
        let mut watch = self.0.lock();
        if watch.is_paused(now) {
            return false;
        }
        let is_calm = watch.paused_until.is_none_or(|until| now - until > MAX_READ_ONLY_PAUSE);
        watch.pause =
            if is_calm { FIRST_READ_ONLY_PAUSE } else { (watch.pause * 2).min(MAX_READ_ONLY_PAUSE) };
        watch.paused_until = Some(now + watch.pause);
        true
    }

    /// Notes that a search begins. `false`: there is one already.
    fn begins_search(&self) -> bool {
        !std::mem::replace(&mut self.0.lock().is_searching, true)
    }

    /// Ends the search, and the pause if new connections lead to a new primary.
    fn ends_search(&self, has_failed_over: bool) {
        let mut watch = self.0.lock();
        watch.is_searching = false;
        if has_failed_over {
            *watch = WatchState { last_hint: watch.last_hint, ..WatchState::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_is_the_first_element_of_the_reply() {
        assert_eq!(ServerRole::of(b"*3\r\n$6\r\nmaster\r\n:10\r\n*0\r\n"), ServerRole::Primary);
        assert_eq!(
            ServerRole::of(b"*5\r\n$5\r\nslave\r\n$6\r\nmaster\r\n:6379\r\n$9\r\nconnected\r\n:1\r\n"),
            ServerRole::Replica
        );
        assert_eq!(ServerRole::of(b"-NOPERM no\r\n"), ServerRole::Unknown);
    }
}
