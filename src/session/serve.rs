//! Serves a session from the accepted socket to its [`End`].

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::time::{sleep, timeout};
use tracing::debug;

use super::client_session::Session;
use super::context::RouteContext;
use super::dedicated::{Ended, MOVE_AGAIN, Relay};
use super::end::{End, HANDSHAKE_FAILURE, end};
use super::farewell;
use super::outage;
use super::profile::ClientProfile;
use super::settings::Accept;
use super::setup::SETUP_TIMEOUT;
use super::shared::{self, Multiplexer};
use crate::downstream::{Accepted, ClientStream};
use crate::metrics::GaugeGuard;
use crate::resp::scanner::TLS_HANDSHAKE;
use crate::upstream::{Lease, Unreachable};

/// Serves one client until its session ends, then releases its `place`.
pub async fn serve(client: Accepted, context: Arc<RouteContext>, place: impl Send) {
    let entry = context.inventory.enter(&context.route, client.peer());
    let (route, session) = (&*context.route, entry.number());
    let active = GaugeGuard::new(&context.metrics.sessions_active);
    let end = match client.into_stream() {
        Ok(client) => run(Box::new(Session::new(client, &context, ClientProfile::new(entry)))).await,
        Err(error) => {
            debug!(route, session, %error, "client connection lost");
            End::ClientClosed
        }
    };
    drop((active, place));
    context.metrics.session_ended(end.label());
    debug!(route, session, end = end.label(), "session ended");
}

/// Sends `words` to a client that gets no session, and closes.
pub async fn refuse(client: Accepted, words: &[u8]) {
    if let Ok(client) = client.into_stream() {
        farewell::say(client, words).await;
    }
}

/// A session that has begun.
enum Begun<'a> {
    /// Over a dedicated connection.
    Dedicated(CountedRelay<'a>),
    /// Over shared connections.
    Shared(Box<Session<'a>>, &'a Multiplexer),
}

/// A session over a dedicated connection, and the gauges that count it.
pub(super) struct CountedRelay<'a> {
    pub(super) relay: Box<Relay<'a>>,
    active: GaugeGuard,
    in_plaintext: Option<GaugeGuard>,
}

async fn run(session: Box<Session<'_>>) -> End {
    // State for the beginning and the end is boxed, so that it takes no memory while the session lasts.
    match Box::pin(begin(session)).await {
        Ok(Begun::Dedicated(mut counted)) => {
            let ended = counted.relay().await;
            Box::pin(counted.end(ended)).await
        }
        Ok(Begun::Shared(session, multiplexer)) => Box::pin(shared::serve(session, multiplexer)).await,
        Err(end) => end,
    }
}

/// Finds out what a client needs, and connects. `Err`: the client has received the reason.
async fn begin(session: Box<Session<'_>>) -> Result<Begun<'_>, End> {
    let context = session.route;
    let brings_tls = brings_tls(&session.client, context).await?;
    if let Some(multiplexer) = context.multiplexer.as_ref().filter(|_| !brings_tls) {
        return Ok(Begun::Shared(session, multiplexer));
    }
    let waiting = GaugeGuard::new(&context.metrics.sessions_waiting);
    let connected = tokio::select! {
        biased;
        connected = connect(context, brings_tls) => connected,
        () = context.drain.cut_off() => return Err(End::Drained),
        () = session.gone() => return Err(End::ClientClosed),
    };
    drop(waiting);
    let upstream = match connected {
        Ok(upstream) => upstream,
        Err(error) => {
            if brings_tls {
                farewell::say(session.client, HANDSHAKE_FAILURE).await;
            } else {
                outage::unreachable(session.client, &[], context, &error.into()).await;
            }
            return Err(End::Failed);
        }
    };
    debug!(
        route = &*context.route,
        session = session.profile.number(),
        upstream = %upstream.endpoint,
        peer = %upstream.peer,
        brings_tls,
        "session started"
    );
    let in_plaintext = upstream.channel.is_none() && !brings_tls;
    let relay = if brings_tls {
        context.metrics.sessions_passthrough.increment(1);
        Relay::passthrough(*session, upstream)
    } else {
        Relay::new(*session, upstream)
    };
    Ok(Begun::Dedicated(CountedRelay::new(relay, context, in_plaintext)))
}

impl<'a> CountedRelay<'a> {
    pub(super) fn new(relay: Relay<'a>, context: &RouteContext, in_plaintext: bool) -> Self {
        Self {
            relay: Box::new(relay),
            active: GaugeGuard::new(&context.metrics.upstream_active),
            in_plaintext: in_plaintext.then(|| GaugeGuard::new(&context.metrics.upstream_plaintext)),
        }
    }

    /// Relays until the session has ended, over TLS as soon as possible.
    pub(super) async fn relay(&mut self) -> Ended {
        let context = self.relay.context();
        // The session continues while a connection is dialled, however long that takes.
        let mut dialling: Option<Pin<Box<dyn Future<Output = Lease> + Send + '_>>> = None;
        let mut dialled: Option<Box<Lease>> = None;
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
                    if Box::pin(move_to_tls(&mut self.relay, *upstream)).await {
                        self.in_plaintext = None;
                    }
                }
                (Ended::Movable, None) => {
                    self.relay.is_opening();
                    dialling.get_or_insert_with(|| Box::pin(dial_until_there(context)));
                }
                (ended, _) => return ended,
            }
        }
    }

    /// Ends the session, with a last reply to the client if one is due.
    pub(super) async fn end(self, ended: Ended) -> End {
        let dialled = self.relay.dialled();
        let session = self.relay.into_session();
        drop((self.active, self.in_plaintext));
        Box::pin(end(ended, session, Some(&dialled))).await
    }
}

/// Dials until there is a connection. The session continues in the meantime.
async fn dial_until_there(context: &RouteContext) -> Lease {
    loop {
        match connect(context, false).await {
            Ok(upstream) => return upstream,
            Err(_) => sleep(MOVE_AGAIN).await,
        }
    }
}

/// Moves a session to a connection over TLS. `false`: it stays on the old one.
async fn move_to_tls(relay: &mut Relay<'_>, upstream: Lease) -> bool {
    if !matches!(timeout(SETUP_TIMEOUT, relay.move_to(upstream)).await, Ok(true)) {
        return false;
    }
    let context = relay.context();
    context.metrics.sessions_upgraded.increment(1);
    debug!(route = &*context.route, session = relay.number(), "session moved to TLS");
    true
}

/// An upstream connection for a client. In a cluster, the endpoint that clients begin with may lead to a node that is gone. Then any other
/// node will do, and the addresses of the nodes are looked up again.
pub(super) async fn connect(context: &RouteContext, brings_tls: bool) -> Result<Lease, Unreachable> {
    if brings_tls { context.upstream.open().await } else { connect_to(context, None).await }
}

/// An upstream connection to this address, if it is reachable.
pub(super) async fn connect_to(
    context: &RouteContext,
    address: Option<SocketAddr>,
) -> Result<Lease, Unreachable> {
    let connected = context.upstream.connect_to(address).await;
    match (&connected, &context.nodes) {
        (Err(_), Some(nodes)) => {
            nodes.refresh(None);
            if context.is_node { connected } else { nodes.connect().await.unwrap_or(connected) }
        }
        _ => connected,
    }
}

/// Whether a client begins with TLS. Waits for its first byte only if the route accepts TLS. `Err`: the session ended before the byte came.
async fn brings_tls(client: &ClientStream, context: &RouteContext) -> Result<bool, End> {
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
