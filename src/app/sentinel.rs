//! A route to a Sentinel group: asks its sentinels for the servers, watches them for a failover, and gives the primary a listener of its own.
//!
//! Every server has a listener, as a cluster's node has. The primary's listener is one more: it keeps its port, and leads to whichever
//! server is the primary. `cluster` counts what the sentinels say and rewrites their replies.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::{error, field, info, warn};

use super::cluster::{Cluster, Followed, LiveNode, STAGGER, bind};
use crate::cluster::{Claim, Election, NoPort, Nodes, SentinelView, Topology};
use crate::drain::Drain;
use crate::endpoint::Endpoint;
use crate::listener::Listener;
use crate::resp::replies::encode_command;
use crate::resp::value::{Data, Value};
use crate::session::RouteContext;
use crate::upstream::{self, Connection, ServerRole, Unreachable, Upstream};

/// Longest time, in seconds, for a server to say its role when sentinels disagree.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(1);

/// Time, in seconds, until a sentinel's messages are requested again after their connection was lost.
const WATCH_AGAIN: Duration = Duration::from_secs(1);

/// The longest such time, in seconds, while a sentinel is down.
const LONGEST_WATCH_PAUSE: Duration = Duration::from_secs(30);

/// If a sentinel is silent for this time, in seconds, it is asked whether it is there.
const WATCH_SILENCE: Duration = Duration::from_secs(10);

/// Time, in seconds, for clients to finish on a primary that was replaced. Their writes there would be lost.
const FAREWELL: Duration = Duration::from_secs(1);

/// After this number of look-ups in a row, one each second, sentinels that name another primary are logged.
const MAX_UNSETTLED: u32 = 10;

/// The events after which the servers are looked up. Source: `sentinelEvent` in `sentinel.c`.
const EVENTS: [&str; 6] =
    ["+switch-master", "+slave", "+sdown", "-sdown", "+reset-master", "+convert-to-slave"];

/// The bound port of the primary, which gets the first port of the range.
pub(super) type PrimaryPort = (Vec<Listener>, u16);

/// The listener that leads to the primary.
pub(super) struct PrimaryListener {
    pub(super) port: u16,
    /// For new clients.
    context: Arc<ArcSwap<RouteContext>>,
    /// The server that it leads to.
    server: Endpoint,
    /// The context of that server's own listener.
    source: Arc<RouteContext>,
    /// Ends the sessions with that server.
    sessions: Drain,
    leaving: Drain,
}

impl Followed {
    /// Asks the sentinels. Returns the servers, and whether the sentinels' choice of a primary was followed.
    pub(super) async fn ask_sentinels(&mut self, master_name: &Arc<str>) -> Result<(Topology, bool), String> {
        let views = self.views(master_name).await?;
        let configured = self.cluster.context.upstream.endpoints().count();
        let is_minority = views.len() * 2 <= configured;
        let election = Election::new(views);
        let mut claims = election.claims();
        if is_minority && self.primary().is_some() {
            // Few sentinels cannot add a server that was not known before.
            claims.retain(|claim| self.live.values().any(|live| live.endpoint == claim.primary));
        }
        let primary = match self.primary() {
            Some(current) => {
                self.successor(current, &claims, configured).await.unwrap_or_else(|| current.clone())
            }
            None => self
                .first_primary(&claims)
                .await
                .ok_or("the sentinels name different primaries, and none is known to the others")?,
        };
        if let Some(claim) = claims.iter().find(|claim| claim.primary == primary) {
            let changes = self.primary() != Some(&primary);
            self.epoch = if changes { claim.epoch } else { self.epoch.max(claim.epoch) };
        }
        let is_settled = claims.first().is_some_and(|claim| claim.primary == primary);
        if !is_settled && self.unsettled + 1 == MAX_UNSETTLED {
            self.report_unsettled(claims.first(), &primary).await;
        }
        Ok((election.topology(&primary), is_settled))
    }

    /// What the sentinels say that answer. Does not wait long for a minority.
    async fn views(&self, master_name: &Arc<str>) -> Result<Vec<SentinelView>, String> {
        let upstream = &self.cluster.context.upstream;
        let limit = self.cluster.reach.connect_timeout;
        let asked = |endpoint: &Arc<Endpoint>| {
            ask_sentinel(Arc::clone(upstream), Arc::clone(endpoint), Arc::clone(master_name), limit)
        };
        let mut asked: FuturesUnordered<_> = upstream.endpoints().map(asked).collect();
        let majority = asked.len() / 2 + 1;
        let (mut views, mut problems) = (Vec::new(), Vec::new());
        loop {
            tokio::select! {
                answer = asked.next() => match answer {
                    Some((_, Ok(view))) => views.push(view),
                    Some((endpoint, Err(problem))) => problems.push(format!("{endpoint}: {problem}")),
                    None => break,
                },
                () = sleep(STAGGER), if views.len() >= majority => break,
            }
        }
        if views.is_empty() {
            return Err(problems.join("; "));
        }
        if !problems.is_empty()
            && let Some(suppressed) = self.cluster.context.throttle.allow("sentinels")
        {
            let (route, error) = (&*self.cluster.context.route, problems.join("; "));
            warn!(route, suppressed, error, "some sentinels gave no answer, the others decide");
        }
        Ok(views)
    }

    /// Counts the look-ups in which the sentinels' choice was not followed. In a failover there are a few.
    pub(super) fn note_choice(&mut self, is_settled: bool) {
        self.unsettled = if is_settled { 0 } else { (self.unsettled + 1).min(MAX_UNSETTLED) };
    }

    /// Logs why the server that most sentinels name is not followed. `choice`: `None` if most of them do not list it.
    async fn report_unsettled(&self, choice: Option<&Claim>, followed: &Endpoint) {
        let reason = match choice {
            None => "too few sentinels answer, or most of them do not list it".to_owned(),
            Some(claim) => match self.role(&claim.primary).await {
                Ok(ServerRole::Primary) => {
                    "too few sentinels name it, and its configuration is not newer".to_owned()
                }
                Ok(ServerRole::Replica) => "it says that it is a replica".to_owned(),
                Ok(ServerRole::Unknown) => {
                    "too few sentinels name it, and it does not say its role".to_owned()
                }
                Err(problem) => problem,
            },
        };
        warn!(
            route = &*self.cluster.context.route,
            node = choice.map(|claim| field::display(&claim.primary)),
            %followed,
            reason,
            "the primary that most sentinels name is not followed, the primary's port leads to another server"
        );
    }

    fn primary(&self) -> Option<&Endpoint> {
        self.primary_listener.as_ref().map(|listener| &listener.server)
    }

    /// The server that takes the place of the primary. Sentinels learn of a failover one after the other, so a server that few of them name
    /// is followed if it says that it is a primary, and if its configuration is newer, or as new while the old primary no longer says so.
    /// Most of all sentinels can choose any server that does not call itself a replica.
    async fn successor(&self, current: &Endpoint, claims: &[Claim], configured: usize) -> Option<Endpoint> {
        for claim in claims.iter().filter(|claim| claim.primary != *current) {
            let (role, of_current) = join(self.role(&claim.primary), self.role(current)).await;
            let is_chosen = claim.votes * 2 > configured;
            let is_newer = claim.epoch > self.epoch
                || (claim.epoch == self.epoch
                    && !matches!(of_current, Ok(ServerRole::Primary | ServerRole::Unknown)));
            let follows = match role {
                Ok(ServerRole::Primary) => is_chosen || is_newer,
                Ok(ServerRole::Unknown) => is_chosen,
                Ok(ServerRole::Replica) | Err(_) => false,
            };
            if follows {
                return Some(claim.primary.clone());
            }
        }
        None
    }

    async fn first_primary(&self, claims: &[Claim]) -> Option<Endpoint> {
        let first = claims.first()?;
        if claims.len() > 1 {
            for claim in claims {
                if self.role(&claim.primary).await == Ok(ServerRole::Primary) {
                    return Some(claim.primary.clone());
                }
            }
        }
        Some(first.primary.clone())
    }

    /// Asks a server for its role. Returns why if it does not answer.
    async fn role(&self, server: &Endpoint) -> Result<ServerRole, String> {
        let live = self.live.values().find(|live| live.endpoint == *server);
        let upstream = match live {
            Some(live) => Arc::clone(&live.context.load().upstream),
            None => self.cluster.probe_of(server),
        };
        let work = async {
            if live.is_none() && upstream.latch().is_some_and(|latch| !latch.is_set()) {
                // No task looks for TLS at a server that is not known yet.
                upstream.look().await;
            }
            let mut connection = upstream.connect().await.map_err(|error| error.to_string())?;
            let role = upstream::role(&mut connection).await.map_err(|cause| cause.to_string())?;
            connection.release(false);
            Ok(role)
        };
        timeout(CLAIM_TIMEOUT, work).await.unwrap_or_else(|_| {
            // After failed attempts, the next one waits.
            Err(upstream.outage().map_or_else(|| late(CLAIM_TIMEOUT), |outage| outage.why.to_string()))
        })
    }

    /// Binds the primary's port, before the servers of a Sentinel group get theirs. Fails while there is none. A cluster needs none.
    pub(super) fn reserve_primary_port(&mut self) -> Result<(), NoPort> {
        let is_needed = self.cluster.settings.sentinel.is_some();
        if !is_needed || self.primary_listener.is_some() || self.primary_port.is_some() {
            return Ok(());
        }
        let addresses = &self.addresses;
        let bound = self.ports.take(|port| bind(addresses, port)).inspect_err(|problem| {
            let context = &self.cluster.context;
            if let Some(suppressed) = context.throttle.allow("portless primary") {
                error!(route = &*context.route, suppressed, error = %problem, "the primary has no local port");
            }
        })?;
        self.primary_port = Some(bound);
        Ok(())
    }

    /// Leads the primary's listener to the primary, and opens it if there is none.
    pub(super) fn lead_to_primary(&mut self) {
        let Some(live) = self.live.values().find(|live| live.is_primary()) else { return };
        let server = live.endpoint.clone();
        let cluster = &self.cluster;
        let Some(listener) = &mut self.primary_listener else {
            self.primary_listener =
                self.primary_port.take().map(|bound| open(cluster, live, bound, &self.listening));
            return;
        };
        let source = live.context.load_full();
        if Arc::ptr_eq(&listener.source, &source) {
            return;
        }
        if listener.server != server {
            let sessions = std::mem::replace(&mut listener.sessions, cluster.context.drain.part());
            info!(
                route = &*cluster.context.route,
                node = %server,
                before = %listener.server,
                port = listener.port,
                "failover, the primary's port leads to another server"
            );
            listener.server = server;
            cluster.running.tasks.spawn(async move {
                sessions.start();
                sleep(FAREWELL).await;
                sessions.cut();
            });
        }
        listener.context.store(Arc::new(source.for_sessions(listener.sessions.clone())));
        listener.source = source;
    }

    /// Watches every sentinel for events until `leaving` starts.
    pub(super) fn watch_sentinels(&self, leaving: &Drain) {
        let Cluster { context, nodes, running, .. } = &*self.cluster;
        for endpoint in context.upstream.endpoints() {
            let watch = watch(Arc::clone(&context.upstream), Arc::clone(endpoint), Arc::clone(nodes));
            let leaving = leaving.clone();
            running.tasks.spawn(async move {
                tokio::select! {
                    () = watch => {}
                    () = leaving.started() => {}
                }
            });
        }
    }
}

impl PrimaryListener {
    /// Stops accepting clients.
    pub(super) fn leave(&self) {
        self.leaving.start();
    }
}

/// Serves the clients of the primary's port.
fn open(
    cluster: &Cluster,
    live: &LiveNode,
    (listeners, port): PrimaryPort,
    listening: &TaskTracker,
) -> PrimaryListener {
    let route = &*cluster.context.route;
    info!(route, node = %live.endpoint, port, "the primary's port is open");
    let (sessions, leaving) = (cluster.context.drain.part(), cluster.running.drain.part());
    let source = live.context.load_full();
    // Sessions end with the server's role.
    let context = Arc::new(ArcSwap::from_pointee(source.for_sessions(sessions.clone())));
    cluster.accept(&listeners, &context, listening, &leaving);
    PrimaryListener { port, context, server: live.endpoint.clone(), source, sessions, leaving }
}

async fn ask_sentinel(
    upstream: Arc<Upstream>,
    endpoint: Arc<Endpoint>,
    master_name: Arc<str>,
    limit: Duration,
) -> (Arc<Endpoint>, Result<SentinelView, String>) {
    let work = async {
        let problem = |error: &Unreachable| {
            let attempts = error.attempts.iter().map(|attempt| attempt.of_sentinel());
            attempts.collect::<Vec<_>>().join("; ")
        };
        let mut connection = upstream.connect_at(&endpoint).await.map_err(|error| problem(&error))?;
        let view =
            SentinelView::ask(&mut connection, &master_name).await.map_err(|error| error.to_string())?;
        connection.release(false);
        Ok(view)
    };
    let view = timeout(limit, work).await;
    (Arc::clone(&endpoint), view.unwrap_or_else(|_| Err(late(limit))))
}

fn late(limit: Duration) -> String {
    format!("no answer within {}", humantime::format_duration(limit))
}

/// Requests a look-up of the servers after each event of a sentinel.
async fn watch(upstream: Arc<Upstream>, endpoint: Arc<Endpoint>, nodes: Arc<Nodes>) {
    let mut pause = WATCH_AGAIN;
    loop {
        let subscribed = receive_events(&upstream, &endpoint, &nodes).await;
        pause = if subscribed { WATCH_AGAIN } else { (pause * 2).min(LONGEST_WATCH_PAUSE) };
        sleep(pause).await;
    }
}

/// Returns when the connection is lost, when the sentinel no longer answers, or when plaintext is no longer allowed: whether it had subscribed.
async fn receive_events(upstream: &Arc<Upstream>, endpoint: &Endpoint, nodes: &Nodes) -> bool {
    let latch = upstream.latch().filter(|latch| !latch.is_set());
    let Ok(mut connection) = upstream.connect_at(endpoint).await else { return false };
    let received = receive_from(&mut connection, nodes);
    match latch {
        // The connection may be in plaintext.
        Some(latch) => tokio::select! {
            subscribed = received => subscribed,
            () = latch.wait() => true,
        },
        None => received.await,
    }
}

async fn receive_from(connection: &mut Connection, nodes: &Nodes) -> bool {
    let mut subscribed = false;
    let subscribe: Vec<&str> = ["SUBSCRIBE"].into_iter().chain(EVENTS).collect();
    let mut is_sent = connection.send(&encode_command(&subscribe)).await.is_ok();
    let mut is_asked = false;
    while is_sent {
        match timeout(WATCH_SILENCE, upstream::next_frame(connection)).await {
            Ok(Ok(frame)) => {
                is_asked = false;
                match Value::parse(&frame).as_ref().map(|frame| &frame.data) {
                    // After a subscription begins, too: what happened before was missed.
                    Ok(Data::List(words))
                        if matches!(words.first().and_then(Value::text), Some("message" | "subscribe")) =>
                    {
                        subscribed = true;
                        nodes.refresh(None);
                    }
                    Ok(Data::Error(_)) | Err(_) => break,
                    _ => {}
                }
            }
            Ok(Err(_)) => break,
            Err(_) if is_asked => break,
            Err(_) => {
                is_sent = connection.send(&encode_command(&["PING"])).await.is_ok();
                is_asked = true;
            }
        }
    }
    subscribed
}
