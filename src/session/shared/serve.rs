//! Serves a client of shared mode from its beginning to its [`End`]: decides which connection carries its requests, and when it is pinned.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::client::{ClientNeed, DedicatedReason, SharedClient};
use super::connection::SharedLease;
use super::hand_off::HandOff;
use super::multiplexer::{Multiplexer, NoSharedConnection};
use crate::metrics::GaugeGuard;
use crate::resp::command_table::PinReason;
use crate::session::client_session::{LastWrites, Session};
use crate::session::context::RouteContext;
use crate::session::dedicated::{Ended, Pinned, Relay, Writes};
use crate::session::end::{End, end};
use crate::session::farewell;
use crate::session::guard::{ClientAuth, Guard};
use crate::session::outage::{self, NoUpstream};
use crate::session::output::ClientOutput;
use crate::session::serve::{CountedRelay, connect};
use crate::session::setup::{SETUP_TIMEOUT, SharingKey};
use crate::session::wire::Wire;
use crate::upstream;

// Errors for clients whose connection cannot be replaced.
const PASSWORD_DENIED: &str =
    "another connection is needed, and the server no longer accepts this client's password";
const NOTHING_TO_SHARE: &str =
    "the server refused this client's database or protocol on another shared connection";
const WRITES_LOST: &str =
    "the connection that carried this client's writes is gone, and no other can answer for them";

/// How long to wait before setting up a connection again, if the server was busy with a script and the client's request is not whole.
const BUSY_RETRY: Duration = Duration::from_millis(100);

/// How long a client waits for other clients' replies on a connection that it inherits.
const INHERITANCE_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves a client until its session ends.
pub(in crate::session) async fn serve(mut session: Box<Session<'_>>, multiplexer: &Multiplexer) -> End {
    let (context, number) = (session.route, session.profile.number());
    let output = ClientOutput::new(&multiplexer.output, &session.client);
    session.to_client.count_in(Arc::clone(&output));
    // State between two waits for requests is boxed, so that a waiting client holds little memory.
    let mut begun = Box::pin(begin(session, multiplexer)).await;
    let end = loop {
        let (mut client, shared) = match begun {
            Ok(served) => served,
            Err(end) => break end,
        };
        let need = client.run(&shared).await;
        begun = Box::pin(provide(client, shared, need)).await;
    };
    if !output.is_cut_off() {
        return end;
    }
    if let Some(suppressed) = context.throttle.allow("route_output") {
        warn!(
            route = &*context.route,
            session = number,
            suppressed,
            "client cut off: it did not read, and output for the route's clients exceeded limits.route_output"
        );
    }
    End::RouteOverrun
}

/// A client and its shared connection.
type Served<'a> = (Box<SharedClient<'a>>, SharedLease);

/// Gets a client its first shared connection. `Err`: its session has ended.
async fn begin<'a>(mut session: Box<Session<'a>>, multiplexer: &'a Multiplexer) -> Result<Served<'a>, End> {
    let context = session.route;
    session.profile.keep_setup();
    session.guard = guard(context);
    match shared_connection(context, multiplexer, SharingKey::default(), session.gone()).await {
        Ok(shared) => {
            let mut client = Box::new(SharedClient::new(*session, multiplexer));
            client.moved(&shared, SharingKey::default());
            Ok((client, shared))
        }
        Err(NoSharedConnection::ClientGone) => Err(End::ClientClosed),
        Err(NoSharedConnection::Refused(reply)) => {
            farewell::say(session.client, &reply).await;
            Err(End::Failed)
        }
        Err(NoSharedConnection::Unreachable(error)) => {
            outage::unreachable(session.client, &[], context, &error).await;
            Err(End::Failed)
        }
        Err(NoSharedConnection::Drained) => Err(End::Drained),
        // Cannot occur: a new client has no key of its own.
        Err(NoSharedConnection::TooMany | NoSharedConnection::Denied(_)) => Err(End::Failed),
    }
}

/// Gives a client what it needs, until it waits for requests on a shared connection again. `Err`: its session has ended.
async fn provide(
    mut client: Box<SharedClient<'_>>,
    shared: SharedLease,
    need: ClientNeed,
) -> Result<Served<'_>, End> {
    let (context, multiplexer) = (client.session.route, client.multiplexer);
    let mut own = None;
    let reason = match need {
        ClientNeed::Shared(key) => {
            let connected = shared_connection(context, multiplexer, key.clone(), client.session.gone());
            match Box::pin(connected).await {
                Ok(new) => {
                    client.moved(&new, key);
                    return Ok((client, new));
                }
                Err(NoSharedConnection::ClientGone) => return Err(End::ClientClosed),
                Err(NoSharedConnection::Drained) => return Err(End::Drained),
                // The user has not changed. The server still accepts requests on the old connection, but refuses a new login.
                Err(NoSharedConnection::Denied(_)) if client.key().user == key.user => {
                    return Err(Box::pin(unreachable(*client, &NoUpstream::lasting(PASSWORD_DENIED))).await);
                }
                Err(NoSharedConnection::Denied(reply)) if client.is_answered_by(&reply) => {
                    client.answered(&reply);
                    return Ok((client, shared));
                }
                Err(NoSharedConnection::Denied(_)) => DedicatedReason::Command(PinReason::Auth),
                // The server refused pontoon's set-up because it is busy. It would refuse the client's request, too, so the client gets
                // that reply.
                Err(NoSharedConnection::Refused(reply)) if is_busy(&reply) => {
                    client.answered(&reply);
                    return Ok((client, shared));
                }
                // The server refused pontoon's set-up, and not the client's request.
                Err(NoSharedConnection::Refused(_)) if client.key() == key => {
                    return Err(Box::pin(unreachable(*client, &NoUpstream::lasting(NOTHING_TO_SHARE))).await);
                }
                // The user may lack permission for the set-up, and still authenticate.
                Err(NoSharedConnection::Refused(_)) if client.key().user != key.user => {
                    DedicatedReason::Command(PinReason::Auth)
                }
                Err(NoSharedConnection::Refused(reply)) => {
                    client.answered(&reply);
                    return Ok((client, shared));
                }
                Err(NoSharedConnection::TooMany) => DedicatedReason::Key,
                Err(NoSharedConnection::Unreachable(error)) => {
                    return Err(Box::pin(unreachable(*client, &error)).await);
                }
            }
        }
        ClientNeed::Own(reason) => reason,
        ClientNeed::HandedOff(hand_off) => {
            own = Some(Own::HandedOff(hand_off));
            DedicatedReason::Heavy
        }
        ClientNeed::Ended(ended) => {
            let session = match ended {
                // The deadline has passed.
                Ended::Cut => Some(client.into_session()),
                _ => Box::pin(leave(*client)).await,
            };
            let Some(session) = session else { return Err(End::ClientClosed) };
            return Err(Box::pin(end(ended, session, None)).await);
        }
        ClientNeed::Quit(words) => {
            if let Some(session) = Box::pin(leave(*client)).await {
                Box::pin(farewell::say(session.client, words)).await;
            }
            return Err(End::ClientClosed);
        }
        ClientNeed::Overrun => {
            cut_off(&client);
            return Err(End::Overrun);
        }
    };
    // Only the connection that carried the client's writes can answer for them.
    if reason.is_wait() {
        if client.session.last_writes == LastWrites::Shared(shared.id) {
            own = shared.bequeath().map(Own::Inherited);
        }
        if own.is_none() && client.session.last_writes != LastWrites::None {
            return Err(Box::pin(unreachable(*client, &NoUpstream::lasting(WRITES_LOST))).await);
        }
    }
    if reason.is_kill() {
        return match Box::pin(kill(&client, multiplexer)).await {
            Ok(Some(reply)) => {
                client.answered(&reply);
                Ok((client, shared))
            }
            Ok(None) => Err(End::ClientClosed),
            Err(NoDedicatedConnection::Unreachable(error)) => {
                Err(Box::pin(unreachable(*client, &error)).await)
            }
            Err(_) => Err(Box::pin(too_many(*client)).await),
        };
    }
    let (client, shared) = Box::pin(serve_pinned(*client, multiplexer, reason, own, shared)).await?;
    Ok((Box::new(client), shared))
}

/// Serves a client over dedicated connections until it can share one again, which is returned. `Err`: its session has ended.
async fn serve_pinned<'a>(
    mut client: SharedClient<'a>,
    multiplexer: &'a Multiplexer,
    mut reason: DedicatedReason,
    mut own: Option<Own>,
    shared: SharedLease,
) -> Result<(SharedClient<'a>, SharedLease), End> {
    let context = client.session.route;
    let mut before = Some(shared);
    loop {
        client = pinned(client, multiplexer, reason, own.take(), &mut before).await?;
        if let Some(shared) = before {
            return Ok((client, shared));
        }
        let key = client.key();
        let error = match shared_connection(context, multiplexer, key.clone(), client.session.gone()).await {
            Ok(shared) => {
                client.moved(&shared, key);
                return Ok((client, shared));
            }
            Err(NoSharedConnection::ClientGone) => return Err(End::ClientClosed),
            Err(NoSharedConnection::Drained) => return Err(End::Drained),
            Err(NoSharedConnection::TooMany) => {
                reason = DedicatedReason::Key;
                continue;
            }
            Err(NoSharedConnection::Unreachable(error)) => error,
            Err(NoSharedConnection::Denied(_)) => NoUpstream::lasting(PASSWORD_DENIED),
            Err(NoSharedConnection::Refused(_)) => NoUpstream::lasting(NOTHING_TO_SHARE),
        };
        return Err(unreachable(client, &error).await);
    }
}

/// Sends the client's request, which stops a script, over a connection that only logs in as the client's user. A server that runs a script
/// refuses other set-up. Returns the reply. `None`: the client is gone, or pontoon drains, before there is one.
async fn kill(
    client: &SharedClient<'_>,
    multiplexer: &Multiplexer,
) -> Result<Option<Vec<u8>>, NoDedicatedConnection> {
    tokio::select! {
        biased;
        reply = stop_script(client, multiplexer) => reply.map(Some),
        () = client.session.route.drain.cut_off() => Ok(None),
        () = client.session.gone() => Ok(None),
    }
}

async fn stop_script(
    client: &SharedClient<'_>,
    multiplexer: &Multiplexer,
) -> Result<Vec<u8>, NoDedicatedConnection> {
    let _permit = multiplexer.pin(true).await.ok_or(NoDedicatedConnection::TooMany)?;
    let connected = connect(client.session.route, false).await;
    let mut connection = connected.map_err(|error| NoDedicatedConnection::Unreachable(error.into()))?;
    let user = client.key().user;
    let request = client.next_request();
    let asked = timeout(SETUP_TIMEOUT, async {
        if let Some(user) = &user
            && !upstream::ask_encoded(&mut connection, user.auth()).await?
        {
            return Ok(None);
        }
        upstream::ask_frame(&mut connection, request).await.map(Some)
    });
    let reply = match asked.await {
        Ok(Ok(Some(reply))) => reply,
        // The request would run as another user.
        Ok(Ok(None)) => return Err(NoDedicatedConnection::Unreachable(NoUpstream::lasting(PASSWORD_DENIED))),
        Ok(Err(cause)) => {
            let why = format!("stopping a script failed: {cause}");
            return Err(NoDedicatedConnection::Unreachable(NoUpstream::outage(why)));
        }
        Err(_) => {
            let why = format!("stopping a script failed: no reply within {} s", SETUP_TIMEOUT.as_secs());
            return Err(NoDedicatedConnection::Unreachable(NoUpstream::outage(why)));
        }
    };
    connection.release(user.is_some());
    Ok(reply)
}

/// Whether the reply says that the server runs a script, and accepts few commands in the meantime.
fn is_busy(reply: &[u8]) -> bool {
    reply.starts_with(b"-BUSY ")
}

/// Refuses a client because `limits.pinned` is reached.
async fn too_many(client: SharedClient<'_>) -> End {
    let context = client.session.route;
    context.metrics.refused("pinned");
    if let Some(suppressed) = context.throttle.allow("pinned") {
        warn!(
            route = &*context.route,
            session = client.session.profile.number(),
            suppressed,
            "client refused: too many clients need a dedicated connection (limits.pinned)"
        );
    }
    let why = "too many clients need a dedicated connection: see limits.pinned";
    unreachable(client, &NoUpstream::lasting(why)).await
}

/// Answers a client whose upstream is unreachable.
async fn unreachable(client: SharedClient<'_>, error: &NoUpstream) -> End {
    if let Some(Session { client, route, input, .. }) = leave(client).await {
        outage::unreachable(client, &input.bytes, route, error).await;
    }
    End::Failed
}

/// Delivers the output that waits, and returns the client's session. `None`: the client is gone, or did not take the output.
async fn leave(client: SharedClient<'_>) -> Option<Session<'_>> {
    let mut session = client.into_session();
    farewell::deliver(&mut session.client, &mut session.to_client).await.then_some(session)
}

fn cut_off(client: &SharedClient<'_>) {
    let context = client.session.route;
    if let Some(suppressed) = context.throttle.allow("client_output") {
        warn!(
            route = &*context.route,
            session = client.session.profile.number(),
            suppressed,
            "client cut off: it did not read, and other clients waited (limits.client_output)"
        );
    }
}

/// A shared connection for a client. Stops waiting when the client is `gone`.
async fn shared_connection(
    context: &Arc<RouteContext>,
    multiplexer: &Multiplexer,
    key: SharingKey,
    gone: impl Future<Output = ()>,
) -> Result<SharedLease, NoSharedConnection> {
    tokio::select! {
        biased;
        shared = multiplexer.connection(context, key) => shared.map(|shared| SharedLease::on(&shared)),
        () = context.drain.cut_off() => Err(NoSharedConnection::Drained),
        () = gone => Err(NoSharedConnection::ClientGone),
    }
}

/// A guard, if clients authenticate to pontoon or their AUTH does not go to the server.
fn guard(context: &RouteContext) -> Option<Box<Guard>> {
    let asks = &context.settings.client_auth;
    let needed = !matches!(asks, ClientAuth::Forward);
    needed.then(|| Box::new(Guard::new(asks.clone())))
}

/// A connection that a client gets as its own.
enum Own {
    /// The shared connection, once no reply is outstanding.
    Inherited(oneshot::Receiver<Wire>),
    /// The shared connection in its present state.
    HandedOff(Box<HandOff>),
}

/// Why a client gets no dedicated connection.
enum NoDedicatedConnection {
    /// The client can share one after all.
    MayShare,
    /// `limits.pinned` is reached.
    TooMany,
    Unreachable(NoUpstream),
}

/// A dedicated connection for a client, with its permit.
async fn own_connection(
    client: &SharedClient<'_>,
    multiplexer: &Multiplexer,
    reason: &DedicatedReason,
    may_share: bool,
    inherited: Option<oneshot::Receiver<Wire>>,
) -> Result<(OwnedSemaphorePermit, Wire), NoDedicatedConnection> {
    let context = client.session.route;
    let permit = multiplexer.pin(!may_share).await;
    let permit = permit.ok_or(if may_share {
        NoDedicatedConnection::MayShare
    } else {
        NoDedicatedConnection::TooMany
    })?;
    let mut wire = if let Some(inherited) = inherited {
        let inherited = timeout(INHERITANCE_TIMEOUT, inherited).await.ok().and_then(Result::ok);
        inherited.ok_or_else(|| NoDedicatedConnection::Unreachable(NoUpstream::lasting(WRITES_LOST)))?
    } else {
        if !may_share {
            context.upstream.dial_ahead();
        }
        let connected = connect(context, false).await;
        Wire::new(connected.map_err(|error| NoDedicatedConnection::Unreachable(error.into()))?)
    };
    if let DedicatedReason::Unknown(Some(name)) = reason {
        let user = client.key().user;
        match multiplexer.learn(name, user.as_deref(), &mut wire.connection).await {
            Some(true) => {
                wire.release(user.is_some());
                return Err(NoDedicatedConnection::MayShare);
            }
            Some(false) => {}
            None => {
                let why = format!(
                    "setting up a connection took more than {} s, or failed",
                    SETUP_TIMEOUT.as_secs()
                );
                return Err(NoDedicatedConnection::Unreachable(NoUpstream::outage(why)));
            }
        }
    }
    Ok((permit, wire))
}

/// Serves a client over a dedicated connection until it can share one again. `Err`: its session has ended. `before`: its shared connection,
/// which it leaves once it has the dedicated one.
async fn pinned<'a>(
    client: SharedClient<'a>,
    multiplexer: &'a Multiplexer,
    reason: DedicatedReason,
    own: Option<Own>,
    before: &mut Option<SharedLease>,
) -> Result<SharedClient<'a>, End> {
    let context = client.session.route;
    let on = client.on.clone();
    let until = SharedClient::until(&reason);
    let inherited = match own {
        None => None,
        Some(Own::Inherited(inherited)) => Some(inherited),
        Some(Own::HandedOff(hand_off)) => {
            let HandOff { connection, permit } = *hand_off;
            *before = None;
            let in_plaintext = connection.wire.connection.channel.is_none();
            // The client's shared connection was this one.
            let has_written = client.session.last_writes == LastWrites::Shared(connection.id);
            let how = Pinned { until, writes: if has_written { Writes::Last } else { Writes::None } };
            let _pinning = Pinning::of(&client, &reason, permit);
            let relay = Relay::handed_off(client.into_session(), connection, &how);
            return relay_apart(CountedRelay::new(relay, context, in_plaintext), multiplexer).await;
        }
    };
    let how = Pinned { until, writes: if inherited.is_some() { Writes::All } else { Writes::None } };
    // Pinning the client would only spare other clients, so it does not have to be.
    let may_share = reason == DedicatedReason::Heavy && client.is_bearable();
    let connected = tokio::select! {
        biased;
        connected = own_connection(&client, multiplexer, &reason, may_share, inherited) => connected,
        () = context.drain.cut_off() => return Err(End::Drained),
        () = client.session.gone() => return Err(End::ClientClosed),
    };
    let (permit, wire) = match connected {
        Ok(connected) => connected,
        Err(NoDedicatedConnection::MayShare) => return Ok(client),
        Err(NoDedicatedConnection::TooMany) => return Err(Box::pin(too_many(client)).await),
        Err(NoDedicatedConnection::Unreachable(error)) => {
            return Err(Box::pin(unreachable(client, &error)).await);
        }
    };
    let in_plaintext = wire.connection.channel.is_none();
    let _pinning = Pinning::of(&client, &reason, permit);
    let relay = Relay::pinned(client.into_session(), wire, &how);
    let mut counted = CountedRelay::new(relay, context, in_plaintext);
    let set_up = tokio::select! {
        set_up = timeout(SETUP_TIMEOUT, Box::pin(counted.relay.set_up())) => set_up.unwrap_or(Err(None)),
        () = context.drain.cut_off() => return Err(End::Drained),
    };
    let refused = match set_up {
        Ok(()) => {
            *before = None;
            return relay_apart(counted, multiplexer).await;
        }
        Err(refused) => refused.filter(|reply| is_busy(reply)),
    };
    if refused.is_none() {
        // A reply may still be on its way.
        counted.relay.give_up_connection();
    }
    let mut session = counted.relay.into_session();
    if let Some((reply, shared)) = refused.zip(before.as_ref()) {
        session.profile.pinned(None);
        let mut client = SharedClient::new(session, multiplexer);
        client.moved(shared, on);
        if !client.answered(&reply) {
            // The server would also wait for the rest of the request.
            tokio::select! {
                () = sleep(BUSY_RETRY) => {}
                () = context.drain.cut_off() => return Err(End::Drained),
                () = client.session.gone() => return Err(End::ClientClosed),
            }
        }
        return Ok(client);
    }
    if Box::pin(farewell::deliver(&mut session.client, &mut session.to_client)).await {
        let why = "a connection could not be set up as the client's was";
        Box::pin(farewell::refuse(session.client, 1, why)).await;
    }
    Err(End::Failed)
}

/// The permit, and the gauges that count a pinned client.
struct Pinning {
    _permit: OwnedSemaphorePermit,
    _pinned: GaugeGuard,
}

impl Pinning {
    fn of(client: &SharedClient<'_>, reason: &DedicatedReason, permit: OwnedSemaphorePermit) -> Self {
        let Session { profile, route, .. } = &client.session;
        route.metrics.pinned(reason.label());
        profile.pinned(Some(reason.label()));
        debug!(
            route = &*route.route,
            session = profile.number(),
            reason = reason.label(),
            "client pinned to a dedicated connection"
        );
        Self { _permit: permit, _pinned: GaugeGuard::new(&route.metrics.sessions_pinned) }
    }
}

/// Relays for a pinned client until it can share again. `Err`: its session has ended.
async fn relay_apart<'a>(
    mut counted: CountedRelay<'a>,
    multiplexer: &'a Multiplexer,
) -> Result<SharedClient<'a>, End> {
    let ended = counted.relay().await;
    if let Ended::Shareable = ended {
        let session = counted.relay.into_shared();
        session.profile.pinned(None);
        return Ok(SharedClient::new(session, multiplexer));
    }
    Err(counted.end(ended).await)
}
