//! A session pairs one client with one upstream connection and relays between them, from the accepted socket to
//! a named [`End`].

mod about;
mod counts;
mod farewell;
mod guard;
mod ledger;
mod low_water;
mod outbox;
mod owed;
mod relay;
mod relogin;
mod rewriting;
mod scratch;
mod setup;
mod shared;
mod slow;
mod unanswerable;
mod user;
mod wire;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

pub use self::guard::{ClientAuth, LocalPassword};
pub use self::ledger::Opaque;
use self::relay::{Ended, MOVE_AGAIN, Relay};
pub use self::shared::{Hubs, Settings as Sharing};
use crate::clients::{Inventory, InventoryEntry};
use crate::cluster::Nodes;
use crate::downstream::{Accepted, ClientStream};
use crate::drain::Drain;
use crate::endpoint::Endpoint;
use crate::metrics::{GaugeGuard, RouteMetrics};
use crate::resp::scanner::TLS_HANDSHAKE;
use crate::telemetry::Throttle;
use crate::upstream::{Connection, Dialled, ReturnedConnection, Unreachable, Upstream};

/// A connection that is not set up in this time is not moved to.
const SETUP: Duration = Duration::from_secs(2);

/// How a route's sessions behave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// End a session that carried nothing for this long; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// What becomes of a session in plaintext when its upstream turns out to speak TLS.
    pub upgrade: Upgrade,
    /// What clients may speak.
    pub accept: Accept,
    /// What a client's own AUTH gets.
    pub client_auth: ClientAuth,
    /// Commands that wait longer for their reply are logged; `None`: none are.
    pub slow: Option<Duration>,
    /// How clients share upstream connections; `None`: each has its own.
    pub sharing: Option<Sharing>,
}

/// What clients may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accept {
    /// Redis' protocol, in plaintext.
    #[default]
    Plaintext,
    /// That, or TLS, which is passed through: the first byte tells.
    Any,
}

/// What becomes of a session in plaintext when its upstream turns out to speak TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Upgrade {
    /// It stays as it is to its end.
    #[default]
    Keep,
    /// It is moved to TLS between two commands, unless it has left state with its connection.
    Drain,
}

/// What all sessions of a route share.
pub struct Context {
    /// The route's name.
    pub route: Arc<str>,
    /// The server side.
    pub upstream: Arc<Upstream>,
    /// Where the server is a cluster: its nodes.
    pub nodes: Option<Arc<Nodes>>,
    /// The upstream is one of them, and no other will do. Its clients learn that it is gone as they would without a
    /// bridge, by the end of their connection: they look for the nodes again then. An error reply they would take for the
    /// command's own, and go on asking there.
    pub is_node: bool,
    /// How sessions behave.
    pub settings: Settings,
    /// What is counted.
    pub metrics: Arc<RouteMetrics>,
    /// Where sessions are entered.
    pub inventory: Arc<Inventory>,
    /// When to end.
    pub drain: Drain,
    /// One line a cause, not one a client.
    pub throttle: Throttle,
    /// The same for slow commands: their many names leave what fails its place.
    pub slow_throttle: Throttle,
    /// The connections that clients share; `None`: each has its own.
    pub hubs: Option<Hubs>,
}

impl Context {
    /// After a failover, by this sign, connections that are ready lead to the wrong server.
    fn distrust(&self, dialled: &Dialled, sign: Sign<'_>) {
        self.upstream.invalidate(dialled);
        let (words, why) = match sign {
            Sign::ReadOnly => ("the server says that it is a replica", None),
            Sign::Lost(why) => ("a connection in use was lost", why),
        };
        if let Some(suppressed) = self.throttle.allow(words) {
            info!(
                route = &*self.route,
                upstream = %dialled.endpoint,
                why,
                suppressed,
                "{words}: connections that were ready are retired, and its name is looked up again"
            );
        }
    }

    /// A server that this route takes for a single one sent a client to another.
    fn tell_of_cluster(&self, endpoint: &Endpoint) {
        if let Some(suppressed) = self.throttle.allow("moved") {
            warn!(
                route = &*self.route,
                upstream = %endpoint,
                suppressed,
                "the server is a node of a cluster and sends clients to other nodes, around this bridge: set topology = \
                 \"cluster\" (--topology cluster)"
            );
        }
    }
}

/// What tells that the primary may be elsewhere by now.
#[derive(Debug, Clone, Copy)]
enum Sign<'a> {
    /// A reply.
    ReadOnly,
    /// The end of a connection that was in use, and the error that said so, if one did.
    Lost(Option<&'a str>),
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client left.
    ClientClosed,
    /// The upstream closed the connection.
    UpstreamClosed,
    /// pontoon left: nothing was due, or the time was up.
    Drained,
    /// Nothing passed for `limits.idle_timeout`.
    Idle,
    /// The client did not read, and others waited behind it: see `limits.client_output`.
    Overrun,
    /// There was no upstream connection, or it failed.
    Failed,
}

impl End {
    /// The labels of all ends.
    pub const LABELS: [&str; 6] = [
        Self::ClientClosed.label(),
        Self::UpstreamClosed.label(),
        Self::Drained.label(),
        Self::Idle.label(),
        Self::Overrun.label(),
        Self::Failed.label(),
    ];

    /// The end as a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::UpstreamClosed => "upstream_closed",
            Self::Drained => "drained",
            Self::Idle => "idle",
            Self::Overrun => "overrun",
            Self::Failed => "failed",
        }
    }
}

/// Serves one client to its end, and gives up its `place` then.
pub async fn serve(client: Accepted, context: Arc<Context>, place: impl Send) {
    let entry = context.inventory.enter(&context.route, client.peer());
    let (route, session) = (&*context.route, entry.number());
    let active = GaugeGuard::new(&context.metrics.sessions_active);
    let (end, left) = match client.into_stream() {
        Ok(client) => run(client, &context, entry).await,
        Err(error) => {
            debug!(route, session, %error, "client lost");
            (End::ClientClosed, None)
        }
    };
    drop((active, place));
    context.metrics.session_ended(end.label());
    debug!(route, session, end = end.label(), "session ended");
    if let Some(left) = left {
        Box::pin(context.upstream.give_back(*left)).await;
    }
}

/// A fatal alert, `handshake_failure`, in a TLS record: how a client that speaks TLS is told no
/// ([RFC 8446, 6](https://www.rfc-editor.org/rfc/rfc8446#section-6)).
const HANDSHAKE_FAILURE: &[u8] = &[21, 3, 3, 0, 2, 2, 40];

/// Tells a client why there is no session for it.
pub async fn refuse(client: Accepted, words: &[u8]) {
    if let Ok(client) = client.into_stream() {
        farewell::say(client, words).await;
    }
}

/// A session that has begun.
enum Begun<'a> {
    /// Over a connection of its own.
    Alone(Alone<'a>),
    /// Over connections that it shares.
    Shared(ClientStream, &'a Hubs, InventoryEntry),
}

/// A session over a connection of its own, and as what that is counted.
struct Alone<'a> {
    relay: Box<Relay<'a>>,
    active: GaugeGuard,
    in_plaintext: Option<GaugeGuard>,
}

/// The end, and the upstream connection if it is good for another client.
async fn run(
    client: ClientStream,
    context: &Arc<Context>,
    entry: InventoryEntry,
) -> (End, Option<Box<ReturnedConnection>>) {
    let session = entry.number();
    // What is needed only at the beginning and the end is boxed: it does not weigh on a session while it lasts.
    match Box::pin(begin(client, context, entry)).await {
        Ok(Begun::Alone(mut alone)) => {
            let ended = alone.relay(context, session).await;
            alone.end(ended, context).await
        }
        Ok(Begun::Shared(client, hubs, entry)) => {
            (Box::pin(shared::serve(client, context, hubs, entry)).await, None)
        }
        Err(end) => (end, None),
    }
}

/// Finds out what a client needs, and connects. `Err`: it was told why not.
async fn begin(
    client: ClientStream,
    context: &Arc<Context>,
    entry: InventoryEntry,
) -> Result<Begun<'_>, End> {
    let brings_tls = brings_tls(&client, context).await?;
    if let Some(hubs) = context.hubs.as_ref().filter(|_| !brings_tls) {
        return Ok(Begun::Shared(client, hubs, entry));
    }
    let waiting = GaugeGuard::new(&context.metrics.sessions_waiting);
    let connected = tokio::select! {
        biased;
        connected = connect(context, brings_tls) => connected,
        () = context.drain.cut_off() => return Err(End::Drained),
        () = client.gone() => return Err(End::ClientClosed),
    };
    drop(waiting);
    let upstream = match connected {
        Ok(upstream) => upstream,
        Err(error) => {
            if brings_tls {
                farewell::say(client, HANDSHAKE_FAILURE).await;
            } else if context.is_node {
                farewell::close(client).await;
            } else {
                farewell::refuse(client, 1, &error.to_string()).await;
            }
            return Err(End::Failed);
        }
    };
    debug!(
        route = &*context.route,
        session = entry.number(),
        upstream = %upstream.endpoint,
        peer = %upstream.peer,
        brings_tls,
        "session started"
    );
    let in_plaintext = upstream.channel.is_none() && !brings_tls;
    let relay = if brings_tls {
        context.metrics.sessions_passthrough.increment(1);
        Relay::passthrough(client, upstream, context, entry)
    } else {
        Relay::new(client, upstream, context, entry)
    };
    Ok(Begun::Alone(Alone::new(relay, context, in_plaintext)))
}

impl<'a> Alone<'a> {
    fn new(relay: Relay<'a>, context: &Context, in_plaintext: bool) -> Self {
        Self {
            relay: Box::new(relay),
            active: GaugeGuard::new(&context.metrics.upstream_active),
            in_plaintext: in_plaintext.then(|| GaugeGuard::new(&context.metrics.upstream_plaintext)),
        }
    }

    /// Relays until it has ended, over TLS as soon as that can be.
    async fn relay(&mut self, context: &Context, session: u64) -> Ended {
        // What works goes on working while a connection is dialled, however long that takes.
        let mut dialling: Option<Pin<Box<dyn Future<Output = Connection> + Send + '_>>> = None;
        let mut dialled: Option<Box<Connection>> = None;
        loop {
            let ended = match &mut dialling {
                None => self.relay.run().await,
                Some(dial) => tokio::select! {
                    biased;
                    ended = self.relay.run() => ended,
                    upstream = dial => {
                        dialling = None;
                        dialled = Some(Box::new(upstream));
                        self.relay.can_move();
                        continue;
                    }
                },
            };
            match (ended, dialled.take()) {
                (Ended::Movable, Some(upstream)) => {
                    if Box::pin(move_to_tls(&mut self.relay, *upstream, context, session)).await {
                        self.in_plaintext = None;
                    }
                }
                (Ended::Movable, None) => {
                    dialling.get_or_insert_with(|| Box::pin(dial_until_there(context)));
                }
                (ended, _) => return ended,
            }
        }
    }

    /// Tells the client. The end, and the upstream connection if it is good for another client.
    async fn end(self, ended: Ended, context: &Context) -> (End, Option<Box<ReturnedConnection>>) {
        let dialled = self.relay.dialled();
        let (client, left) = self.relay.into_parts();
        drop((self.active, self.in_plaintext));
        (Box::pin(end(ended, client, context, Some(&dialled))).await, left)
    }
}

/// A connection for a session that goes on without it meanwhile.
async fn dial_until_there(context: &Context) -> Connection {
    loop {
        match connect(context, false).await {
            Ok(upstream) => return upstream,
            Err(_) => sleep(MOVE_AGAIN).await,
        }
    }
}

/// Has a session go on over TLS. `false`: it goes on as it was.
async fn move_to_tls(relay: &mut Relay<'_>, upstream: Connection, context: &Context, session: u64) -> bool {
    if !matches!(timeout(SETUP, relay.move_to(upstream)).await, Ok(true)) {
        return false;
    }
    context.metrics.sessions_upgraded.increment(1);
    debug!(route = &*context.route, session, "session moved to TLS");
    true
}

/// Tells a client how its session ended, as far as that can be told. `dialled`: its upstream connection.
async fn end(ended: Ended, client: ClientStream, context: &Context, dialled: Option<&Dialled>) -> End {
    let route = &*context.route;
    match ended {
        Ended::Client => End::ClientClosed,
        Ended::Cut | Ended::Movable | Ended::Shareable => End::Drained,
        Ended::SpeaksTls => {
            context.metrics.refused("tls");
            if let Some(suppressed) = context.throttle.allow("tls") {
                warn!(
                    route,
                    suppressed,
                    "client refused: it speaks TLS to a listener for plaintext. Set accept = \"any\" (--accept any) to \
                     pass its TLS through, or have it connect in plaintext"
                );
            }
            farewell::say(client, HANDSHAKE_FAILURE).await;
            End::Failed
        }
        Ended::Idle => {
            farewell::close(client).await;
            End::Idle
        }
        Ended::Drained => {
            farewell::close(client).await;
            End::Drained
        }
        Ended::Upstream { unanswered, why } => {
            let end = if unanswered > 0 || why.is_some() { End::Failed } else { End::UpstreamClosed };
            debug!(route, unanswered, why, "upstream connection ended");
            if let Some(nodes) = &context.nodes {
                nodes.refresh(None);
            }
            let unanswered = if context.is_node { 0 } else { unanswered };
            match dialled {
                Some(dialled) => {
                    if end == End::Failed {
                        context.distrust(dialled, Sign::Lost(why.as_deref()));
                    }
                    lost(client, &dialled.endpoint, unanswered, why).await;
                }
                None => farewell::close(client).await,
            }
            end
        }
        Ended::Unanswerable(unanswerable) => {
            debug!(route, %unanswerable, "session ended: to go on would be to guess");
            farewell::refuse(client, 1, &unanswerable.to_string()).await;
            End::Failed
        }
    }
}

/// An upstream connection for a client. In a cluster the endpoint that clients begin with may lead to a node that is gone:
/// any other will do, and their addresses are looked up again.
async fn connect(context: &Context, brings_tls: bool) -> Result<Connection, Unreachable> {
    if brings_tls {
        return context.upstream.open().await;
    }
    let connected = context.upstream.connect().await;
    match (&connected, &context.nodes) {
        (Err(_), Some(nodes)) => {
            nodes.refresh(None);
            if context.is_node { connected } else { nodes.connect().await.unwrap_or(connected) }
        }
        _ => connected,
    }
}

/// Whether a client begins with TLS. Its first byte is waited for only where that may be. `Err`: it never came.
async fn brings_tls(client: &ClientStream, context: &Context) -> Result<bool, End> {
    if context.settings.accept == Accept::Plaintext {
        return Ok(false);
    }
    let idle = async {
        match context.settings.idle_timeout {
            Some(timeout) => sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        first = client.first_byte() => match first {
            Ok(Some(first)) => Ok(first == TLS_HANDSHAKE),
            Ok(None) | Err(_) => Err(End::ClientClosed),
        },
        () = context.drain.started() => Err(End::Drained),
        () = idle => Err(End::Idle),
    }
}

/// Tells a client that its upstream is gone, as far as that can be told.
async fn lost(client: ClientStream, endpoint: &Endpoint, unanswered: u64, why: Option<String>) {
    if unanswered == 0 {
        return farewell::close(client).await;
    }
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    let reason = format!("connection to {endpoint} lost{why}; the command may or may not have been executed");
    farewell::refuse(client, unanswered, &reason).await;
}
