//! Handles a failover: ready connections may lead to a server that is gone, or is no longer the primary.
//!
//! Signs have different weight. `note_error` in `session::dedicated::replies` and in `session::shared::handing_out` says which replies are
//! signs. READONLY as a whole reply is acted on at once. READONLY inside another reply may be a script's own, and UNBLOCKED and REDIRECT
//! are only hints, so pontoon asks for the server's role first. A lost connection proves nothing about the others: each must answer before a
//! client gets it.
//!
//! The endpoint may lead to the old primary for a while: its name changes only after the failover. Until new connections lead to a primary,
//! pontoon looks again and again, so that no client stays with the old one. A node of a group is one server for good: only its group can say
//! where the primary is.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tracing::info;

use super::ask::{ServerRole, role};
use super::connection::{Connection, Dialled};
use super::pool::Discard;
use super::route::Upstream;

/// The role is asked for a hint at most once in this time.
const HINT_INTERVAL: Duration = Duration::from_secs(1);

/// The role of a server that does not say it in this time is unknown.
const ROLE_TIMEOUT: Duration = Duration::from_secs(2);

/// After READONLY was acted on, it is ignored for this time. The pause doubles each time, up to [`MAX_READ_ONLY_PAUSE`].
const FIRST_READ_ONLY_PAUSE: Duration = Duration::from_millis(500);
const MAX_READ_ONLY_PAUSE: Duration = Duration::from_secs(4);

/// A new primary is news at most once in this time. A name that leads to primaries and replicas in turn leads to another primary all the
/// time.
const NEWS_INTERVAL: Duration = Duration::from_secs(30);

/// The pauses between looks for a new primary are an eighth of the time that the search has taken, within these limits.
const LOOK_PAUSES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(4);

/// The search for a new primary ends when no client has received READONLY for this time.
const SEARCH_TIME: Duration = Duration::from_secs(60);

/// When failovers were last looked for.
#[derive(Default)]
pub(super) struct FailoverWatch(Mutex<WatchState>);

#[derive(Default)]
struct WatchState {
    /// When the role was last asked for a hint.
    last_hint: Option<Instant>,
    /// READONLY is ignored until this time.
    paused_until: Option<Instant>,
    pause: Duration,
    /// While a new primary is being looked for: when a server last replied READONLY.
    search: Option<Instant>,
    /// When a new primary was last news.
    found: Option<Instant>,
}

impl Upstream {
    /// The server replied READONLY, so it is no longer the primary. Retires ready connections, unless new ones lead to a replica, too.
    /// Returns whether connections were retired. `is_fixed`: new connections lead to the same server.
    pub fn is_read_only(self: &Arc<Self>, route: &Arc<str>, connection: &Connection, is_fixed: bool) -> bool {
        if !self.failover.may_act() || !self.retire(&connection.dialled()) {
            return false;
        }
        if !is_fixed {
            let (upstream, route, peer) = (Arc::clone(self), Arc::clone(route), connection.peer);
            self.background.spawn(async move { upstream.look_for_primary(&route, peer).await });
        }
        true
    }

    /// A reply on this connection hints that its server is no longer the primary; a script can cause such a reply at will. Asks for the
    /// role, and retires ready connections if the server was demoted.
    pub fn may_be_read_only(self: &Arc<Self>, route: &Arc<str>, connection: &Connection, is_fixed: bool) {
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
            let Ok(mut other) = upstream.connect().await else { return };
            let Some(role) = ask_role(&mut other).await else { return };
            if role == ServerRole::Primary {
                other.release(false);
            }
            // If the new connection leads to another server that is the primary, this one is not.
            let is_demoted = role == ServerRole::Replica || (role == ServerRole::Primary && other.peer != peer);
            if is_demoted && upstream.failover.may_act() && upstream.retire(&dialled) {
                info!(
                    route = &*route,
                    upstream = %dialled.endpoint,
                    "failover found by READONLY in a reply and by the server's role, ready connections retired"
                );
                if !is_fixed {
                    upstream.look_for_primary(&route, peer).await;
                }
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
        let began = Instant::now();
        let mut is_first = true;
        let has_failed_over = loop {
            if let Ok(mut connection) = self.connect_anew().await {
                match ask_role(&mut connection).await {
                    // If the same server is a primary after all, a script returned READONLY.
                    Some(ServerRole::Primary) => break !is_first || connection.peer != from,
                    Some(ServerRole::Unknown) => break connection.peer != from,
                    Some(ServerRole::Replica) | None => {}
                }
            }
            is_first = false;
            if !self.failover.goes_on() || self.is_closed() {
                break false;
            }
            sleep(look_pause(began.elapsed())).await;
        };
        // Clients may have connected to the old primary in the meantime, unless new connections led to the new one at once.
        let is_news = has_failed_over && self.failover.is_news();
        if has_failed_over && !is_first {
            self.retire_all();
            if is_news {
                info!(route, "new primary found after READONLY, ready connections retired");
            }
        }
        self.failover.ends_search(is_news);
    }
}

/// The role of the server that this connection leads to. `None`: no answer.
async fn ask_role(connection: &mut Connection) -> Option<ServerRole> {
    timeout(ROLE_TIMEOUT, role(connection)).await.ok()?.ok()
}

/// How long to wait before looking for a new primary again, when the search has taken this time.
fn look_pause(searched: Duration) -> Duration {
    (searched / 8).clamp(*LOOK_PAUSES.start(), *LOOK_PAUSES.end())
}

impl WatchState {
    /// Whether READONLY is ignored.
    fn is_paused(&self, now: Instant) -> bool {
        self.search.is_some() || self.paused_until.is_some_and(|until| now < until)
    }
}

impl FailoverWatch {
    /// Whether to act on READONLY now. If so, the next is ignored for a while, and each time for longer, until a new primary is found: the
    /// name may still lead to replicas, or a script may return READONLY.
    fn may_act(&self) -> bool {
        let now = Instant::now();
        let mut watch = self.0.lock();
        if let Some(last) = &mut watch.search {
            *last = now;
        }
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
        self.0.lock().search.replace(Instant::now()).is_none()
    }

    /// Whether clients have received READONLY lately.
    fn goes_on(&self) -> bool {
        self.0.lock().search.is_some_and(|last| last.elapsed() < SEARCH_TIME)
    }

    /// Whether it is news that there is a new primary.
    fn is_news(&self) -> bool {
        let now = Instant::now();
        let mut watch = self.0.lock();
        let is_news = watch.found.is_none_or(|last| now - last > NEWS_INTERVAL);
        if is_news {
            watch.found = Some(now);
        }
        is_news
    }

    /// Ends the search, and the pause if new connections lead to a new primary.
    fn ends_search(&self, is_news: bool) {
        let mut watch = self.0.lock();
        watch.search = None;
        if is_news {
            watch.paused_until = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_failover_is_noticed_soon_and_a_long_one_costs_few_connections() {
        let looks = |searched: Duration| {
            let mut at = Duration::ZERO;
            std::iter::from_fn(|| {
                at += look_pause(at);
                (at < searched).then_some(at)
            })
            .count()
        };
        assert_eq!(looks(Duration::from_secs(1)), 9);
        assert!(looks(Duration::from_secs(3600)) < 950);
    }
}
