//! Handles a failover: ready connections may lead to a server that is gone, or is no longer the primary.
//!
//! Signs have different weight. `note_error` in `session::dedicated::replies` and in `session::shared::handing_out` says which replies are
//! signs. READONLY as a whole reply is acted on at once. READONLY inside another reply may be a script's own, and UNBLOCKED and REDIRECT
//! are only hints, so pontoon asks for roles first. A lost connection proves nothing about the others: each must answer before a
//! client gets it.
//!
//! The endpoint may lead to the old primary for a while: its name changes only after the failover. Until new connections lead to a primary,
//! pontoon looks again and again, so that no client stays with the old one. What clients receive on connections that were retired before is
//! no news, and changes nothing. A node of a group is one server for good: only its group can say where the primary is.

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
use crate::telemetry::Throttle;

/// The role is asked for a hint at most once in this time.
const HINT_INTERVAL: Duration = Duration::from_secs(1);

/// The role of a server that does not say it in this time is unknown.
const ROLE_TIMEOUT: Duration = Duration::from_secs(2);

/// After READONLY was acted on, it is ignored for this time.
const MIN_READ_ONLY_PAUSE: Duration = Duration::from_millis(500);

/// READONLY is acted on at most once in this time, on average.
const READ_ONLY_INTERVAL: Duration = Duration::from_secs(4);

/// Number of times that READONLY is acted on before the average counts, because one failover may follow another.
const READ_ONLY_BURST: u32 = 4;

/// The pauses between looks for a new primary are an eighth of the time that the search has taken, within these limits.
const LOOK_PAUSES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(4);

/// The search for a new primary ends when no client has received READONLY for this time.
const SEARCH_TIME: Duration = Duration::from_secs(60);

/// When failovers were last looked for.
#[derive(Default)]
pub(super) struct FailoverWatch {
    state: Mutex<WatchState>,
    throttle: Throttle,
}

#[derive(Default)]
struct WatchState {
    /// When the role was last asked for a hint.
    last_hint: Option<Instant>,
    /// When a server last replied READONLY.
    last_read_only: Option<Instant>,
    /// READONLY is ignored until this time.
    paused_until: Option<Instant>,
    /// Later than now if READONLY was acted on more often than the average allows: each time adds [`READ_ONLY_INTERVAL`].
    paid_until: Option<Instant>,
    /// A new primary is being looked for.
    is_searching: bool,
}

impl Upstream {
    /// The server replied READONLY, so it is no longer the primary. Retires ready connections and looks for the new primary, unless
    /// that was done for READONLY a moment ago. Returns whether connections were retired. `is_fixed`: new connections lead to the same
    /// server, so there is nothing to look for.
    pub fn is_read_only(self: &Arc<Self>, route: &Arc<str>, connection: &Connection, is_fixed: bool) -> bool {
        if connection.generation.is_retired(true)
            || !self.failover.may_act()
            || !self.retire(&connection.dialled())
        {
            return false;
        }
        if !is_fixed {
            let (upstream, route) = (Arc::clone(self), Arc::clone(route));
            self.background.spawn(async move { upstream.look_for_primary(&route).await });
        }
        true
    }

    /// A reply on this connection hints that its server is no longer the primary; a script can cause such a reply at will. Asks for the
    /// role, and retires ready connections if the server is a replica and new connections lead to a primary.
    pub fn may_be_read_only(self: &Arc<Self>, route: &Arc<str>, connection: &Connection) {
        if connection.generation.is_retired(true) || !self.failover.may_ask() {
            return;
        }
        let (upstream, route) = (Arc::clone(self), Arc::clone(route));
        let (dialled, peer) = (connection.dialled(), connection.peer);
        self.background.spawn(async move {
            if upstream.is_replaced(peer).await && upstream.failover.may_act() && upstream.retire(&dialled) {
                info!(
                    route = &*route,
                    upstream = %dialled.endpoint,
                    "failover found by READONLY in a reply and by the server's role, ready connections retired"
                );
            }
        });
    }

    /// Whether the server at this address is no longer the primary, and new connections lead to a new primary.
    async fn is_replaced(self: &Arc<Self>, peer: SocketAddr) -> bool {
        let Ok(mut same) = self.connect_to(Some(peer)).await else { return false };
        let role = ask_role(&mut same).await;
        if role.is_some() {
            same.release(false);
        }
        match role {
            // The name no longer has the address, or its server is down.
            Some(ServerRole::Primary) => same.peer != peer,
            // A name for reading always leads to replicas.
            Some(ServerRole::Replica) => {
                let Ok(mut new) = self.connect_anew().await else { return false };
                ask_role(&mut new).await == Some(ServerRole::Primary)
            }
            Some(ServerRole::Unknown) | None => false,
        }
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

    /// Looks for the new primary: asks new connections for the role of their server, until one leads to a primary.
    async fn look_for_primary(self: &Arc<Self>, route: &str) {
        if !self.failover.begins_search() {
            return;
        }
        let began = Instant::now();
        let mut led_elsewhere = false;
        let is_found = loop {
            if let Ok(mut connection) = self.connect_anew().await {
                match ask_role(&mut connection).await {
                    Some(ServerRole::Primary) => break true,
                    Some(ServerRole::Unknown) => break false,
                    Some(ServerRole::Replica) | None => {}
                }
            }
            led_elsewhere = true;
            if !self.failover.goes_on() || self.is_closed() {
                break false;
            }
            sleep(look_pause(began.elapsed())).await;
        };
        if is_found && led_elsewhere {
            // Clients may have connected to the old primary in the meantime.
            self.retire_all();
            if let Some(suppressed) = self.failover.throttle.allow("found") {
                info!(route, suppressed, "new primary found after READONLY, ready connections retired");
            }
        }
        self.failover.ends_search();
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
    fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }
}

impl FailoverWatch {
    /// Whether to act on READONLY now. It may come without end: the name may lead to replicas, always or in turn, or a script may return it.
    fn may_act(&self) -> bool {
        let now = Instant::now();
        let mut watch = self.state.lock();
        watch.last_read_only = Some(now);
        if watch.is_searching || watch.is_paused(now) {
            return false;
        }
        let ahead = watch.paid_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let paid = ahead + READ_ONLY_INTERVAL;
        let pause = paid.saturating_sub(READ_ONLY_INTERVAL * (READ_ONLY_BURST - 1)).max(MIN_READ_ONLY_PAUSE);
        watch.paid_until = Some(now + paid);
        watch.paused_until = Some(now + pause);
        true
    }

    /// Whether to ask for the role after a hint.
    fn may_ask(&self) -> bool {
        let now = Instant::now();
        let mut watch = self.state.lock();
        let may = !watch.is_searching
            && !watch.is_paused(now)
            && watch.last_hint.is_none_or(|last| now - last >= HINT_INTERVAL);
        if may {
            watch.last_hint = Some(now);
        }
        may
    }

    /// Notes that a search begins. `false`: there is one already.
    fn begins_search(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().is_searching, true)
    }

    /// Whether clients have received READONLY lately.
    fn goes_on(&self) -> bool {
        self.state.lock().last_read_only.is_some_and(|last| last.elapsed() < SEARCH_TIME)
    }

    fn ends_search(&self) {
        self.state.lock().is_searching = false;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// How often READONLY is acted on that comes each `interval` for `time`. Each search ends at once, as where the name leads to a primary
    /// and to replicas in turn.
    async fn acts(watch: &FailoverWatch, interval: Duration, time: Duration) -> u32 {
        let end = Instant::now() + time;
        let mut acts = 0;
        while Instant::now() < end {
            if watch.may_act() {
                acts += 1;
                assert!(watch.begins_search());
                watch.ends_search();
            }
            advance(interval).await;
        }
        acts
    }

    #[tokio::test(start_paused = true)]
    async fn readonly_without_end_is_acted_on_rarely_at_any_interval() {
        const HOUR: Duration = Duration::from_secs(3600);
        for interval in [10, 400, 1000, 1100, 2500, 3900].map(Duration::from_millis) {
            let watch = FailoverWatch::default();
            let acts = acts(&watch, interval, HOUR).await;
            assert!((700..=903).contains(&acts), "{acts} times, {interval:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn several_failovers_in_a_row_are_found_soon() {
        let watch = FailoverWatch::default();
        for _ in 0..2 {
            for failover in 0..READ_ONLY_BURST {
                assert_eq!(acts(&watch, MIN_READ_ONLY_PAUSE / 5, MIN_READ_ONLY_PAUSE).await, 1, "{failover}");
            }
            assert!(!watch.may_act());
            advance(READ_ONLY_INTERVAL * READ_ONLY_BURST).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_search_ends_only_when_clients_receive_readonly_no_longer() {
        let watch = FailoverWatch::default();
        assert!(watch.may_act());
        assert!(watch.begins_search());
        for _ in 0..10 {
            advance(SEARCH_TIME * 3 / 4).await;
            assert!(watch.goes_on());
            assert!(!watch.may_act());
        }
        advance(SEARCH_TIME).await;
        assert!(!watch.goes_on());
    }

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
