//! Many clients over few upstream connections: each client's commands go over a connection that it shares with others of its
//! thread, and over one of its own where they must.
//!
//! [`member`] reads a client, and finds out what goes where: [`crate::resp::command_table`] says so. [`line`](mod@line) is where the
//! requests of all meet, [`driver`] the task that sends them and hands out the replies, [`seat`] where a client gets its own.
//! [`in_flight`] knows whose each reply is, [`hub`] the lines of each thread. A client that needs a dedicated connection is a
//! [relay](super::relay)'s until it needs none.

mod driver;
mod hand_off;
mod hub;
mod in_flight;
mod line;
mod member;
mod seat;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::timeout;
use tracing::{debug, warn};

use self::hand_off::HandOff;
pub(super) use self::hand_off::HandedOff;
pub use self::hub::Hubs;
use self::hub::{NoLine, SETUP};
use self::line::Hold;
use self::member::{Member, Next, Reason};
use super::context::Context;
use super::core::{LastWrites, Session};
use super::end::{End, end};
use super::farewell;
use super::guard::{ClientAuth, Guard};
use super::relay::{Ended, Pinned, Relay, Writes};
use super::serve::{Alone, connect};
use super::setup::Key;
use super::wire::Wire;
use crate::metrics::GaugeGuard;
use crate::resp::command_table::PinReason;

/// How clients share connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Connections of each thread to each node, for each database and protocol.
    pub connections: usize,
    /// Clients with a connection of their own, at most.
    pub pinned: usize,
    /// Bytes that may wait for a client that does not read, where others wait behind it.
    pub client_output: usize,
}

impl Settings {
    /// `pool.shared` where it is not configured.
    pub const CONNECTIONS: usize = 1;
    /// `limits.pinned` where it is not configured.
    pub const PINNED: usize = 1000;
    /// `limits.client_output` where it is not configured.
    pub const CLIENT_OUTPUT: usize = 32 * 1024 * 1024;
}

// What clients are told whose connection cannot be made again.
const DENIED: &str = "another connection is needed, and the server accepts the client's password no more";
const NONE: &str = "no connection can be shared";
const GONE: &str = "the connection that the client's writes went over is gone, and no other knows of them";

/// Who inherits a connection waits so long for what others have asked for over it.
const INHERITANCE: Duration = Duration::from_secs(30);

/// Serves a client to its end.
pub(super) async fn serve(mut session: Session<'_>, hubs: &Hubs) -> End {
    let context = session.route;
    session.about.keep_setup();
    session.guard = guard(context);
    let mut line = match Box::pin(line(context, hubs, Key::default(), session.gone())).await {
        Ok(line) => line,
        Err(NoLine::ClientGone) => return End::ClientClosed,
        Err(NoLine::Refused(reply)) => {
            Box::pin(farewell::say(session.client, &reply)).await;
            return End::Failed;
        }
        Err(NoLine::Unreachable(_) | NoLine::TooMany) if context.is_node => {
            Box::pin(farewell::close(session.client)).await;
            return End::Failed;
        }
        Err(NoLine::Unreachable(why)) => {
            Box::pin(farewell::refuse(session.client, 1, &why)).await;
            return End::Failed;
        }
        // Nobody has said yet who it is.
        Err(NoLine::TooMany | NoLine::Denied(_)) => return End::Drained,
    };
    let mut member = Box::new(Member::new(session, hubs));
    member.moved(&line, Key::default());
    loop {
        let mut own = None;
        let reason = match member.run(&line).await {
            Next::Line(key) => match Box::pin(self::line(context, hubs, key.clone(), member.session.gone()))
                .await
            {
                Ok(new) => {
                    line = new;
                    member.moved(&line, key);
                    continue;
                }
                Err(NoLine::ClientGone) => return End::ClientClosed,
                // It is who it was, and the server would have gone on with the connection that it had.
                Err(NoLine::Denied(_)) if member.key().user == key.user => {
                    return Box::pin(unreachable(*member, DENIED)).await;
                }
                Err(NoLine::Denied(reply)) if member.is_answered_by(&reply) => {
                    member.refused(&reply);
                    continue;
                }
                Err(NoLine::Denied(_)) => Reason::Command(PinReason::Auth),
                // Its request is not what was refused.
                Err(NoLine::Refused(_)) if member.key() == key => {
                    return Box::pin(unreachable(*member, NONE)).await;
                }
                // A user that may not do what sets the connection up is one all the same.
                Err(NoLine::Refused(_)) if member.key().user != key.user => Reason::Command(PinReason::Auth),
                Err(NoLine::Refused(reply)) => {
                    member.refused(&reply);
                    continue;
                }
                Err(NoLine::TooMany) => Reason::Key,
                Err(NoLine::Unreachable(why)) => return Box::pin(unreachable(*member, &why)).await,
            },
            Next::Own(reason) => reason,
            Next::HandedOff(hand_off) => {
                own = Some(Own::HandedOff(hand_off));
                Reason::Heavy
            }
            Next::Ended(ended) => {
                let session = match ended {
                    // The time is up.
                    Ended::Cut => Some(member.into_session()),
                    _ => Box::pin(leave(*member)).await,
                };
                let Some(session) = session else { return End::ClientClosed };
                return Box::pin(end(ended, session, None)).await;
            }
            Next::Quit(words) => {
                if let Some(session) = Box::pin(leave(*member)).await {
                    Box::pin(farewell::say(session.client, words)).await;
                }
                return End::ClientClosed;
            }
            Next::Overrun => {
                cut_off(&member);
                return End::Overrun;
            }
        };
        // What the client has written, no other connection knows.
        if reason.is_wait() {
            if member.session.last_writes == LastWrites::Line(line.id) {
                own = line.bequeath().map(Own::Inherited);
            }
            if own.is_none() && member.session.last_writes != LastWrites::None {
                return Box::pin(unreachable(*member, GONE)).await;
            }
        }
        drop(line);
        (member, line) = match Box::pin(apart(*member, hubs, reason, own)).await {
            Ok((back, line)) => (Box::new(back), line),
            Err(end) => return end,
        };
    }
}

/// Serves a client over connections of its own, until it can share one again: this one. `Err`: to its end.
async fn apart<'a>(
    mut member: Member<'a>,
    hubs: &'a Hubs,
    mut reason: Reason,
    mut own: Option<Own>,
) -> Result<(Member<'a>, Hold), End> {
    let context = member.session.route;
    loop {
        member = pinned(member, hubs, reason, own.take()).await?;
        let key = member.key();
        let why = match line(context, hubs, key.clone(), member.session.gone()).await {
            Ok(line) => {
                member.moved(&line, key);
                return Ok((member, line));
            }
            Err(NoLine::ClientGone) => return Err(End::ClientClosed),
            Err(NoLine::TooMany) => {
                reason = Reason::Key;
                continue;
            }
            Err(NoLine::Unreachable(why)) => why,
            Err(NoLine::Denied(_)) => DENIED.into(),
            Err(NoLine::Refused(_)) => NONE.into(),
        };
        return Err(unreachable(member, &why).await);
    }
}

/// Tells a client that the upstream cannot be reached.
async fn unreachable(member: Member<'_>, why: &str) -> End {
    if let Some(Session { client, route, .. }) = leave(member).await {
        if route.is_node {
            farewell::close(client).await;
        } else {
            farewell::refuse(client, 1, why).await;
        }
    }
    End::Failed
}

/// Takes leave of a client that has had all that waits for it. `None`: it is gone, or did not take it.
async fn leave(member: Member<'_>) -> Option<Session<'_>> {
    let mut session = member.into_session();
    farewell::deliver(&mut session.client, &mut session.to_client).await.then_some(session)
}

fn cut_off(member: &Member<'_>) {
    let context = member.session.route;
    if let Some(suppressed) = context.throttle.allow("client_output") {
        warn!(
            route = &*context.route,
            session = member.session.about.number(),
            suppressed,
            "a client was cut off: it did not read, and others waited behind it. See limits.client_output"
        );
    }
}

/// A line for a client, unless that is `gone` before.
async fn line(
    context: &Arc<Context>,
    hubs: &Hubs,
    key: Key,
    gone: impl Future<Output = ()>,
) -> Result<Hold, NoLine> {
    tokio::select! {
        biased;
        line = hubs.line(context, key) => line.map(|line| Hold::on(&line)),
        () = context.drain.cut_off() => Err(NoLine::TooMany),
        () = gone => Err(NoLine::ClientGone),
    }
}

/// Where pontoon authenticates, or clients authenticate to it.
fn guard(context: &Context) -> Option<Box<Guard>> {
    let asks = &context.settings.client_auth;
    let needed = !matches!(asks, ClientAuth::Forward);
    needed.then(|| Box::new(Guard::new(asks.clone())))
}

/// A connection that a client is to have for its own.
enum Own {
    /// The shared one, once it owes nothing.
    Inherited(oneshot::Receiver<Wire>),
    /// The shared one, as it stands.
    HandedOff(Box<HandOff>),
}

/// Why a client has no connection of its own.
enum NotPinned {
    /// It needs none after all.
    MayShare,
    /// Too many have one.
    TooMany,
    /// For the client.
    Unreachable(String),
}

/// A connection for one client, and leave to have it.
async fn own_connection(
    member: &Member<'_>,
    hubs: &Hubs,
    reason: &Reason,
    may_share: bool,
    inherited: Option<oneshot::Receiver<Wire>>,
) -> Result<(OwnedSemaphorePermit, Wire), NotPinned> {
    let context = member.session.route;
    let permit = hubs.pin(!may_share).await;
    let permit = permit.ok_or(if may_share { NotPinned::MayShare } else { NotPinned::TooMany })?;
    let mut wire = if let Some(inherited) = inherited {
        let inherited = timeout(INHERITANCE, inherited).await.ok().and_then(Result::ok);
        inherited.ok_or_else(|| NotPinned::Unreachable(GONE.into()))?
    } else {
        let connected = connect(context, false).await;
        Wire::new(connected.map_err(|error| NotPinned::Unreachable(error.to_string()))?)
    };
    if let Reason::Unknown(Some(name)) = reason {
        let user = member.key().user;
        match hubs.learn(name, user.as_deref(), &mut wire.connection).await {
            Some(true) => {
                wire.release(user.is_some());
                return Err(NotPinned::MayShare);
            }
            Some(false) => {}
            None => {
                let why = format!("setting up a connection took more than {SETUP:?}, or failed");
                return Err(NotPinned::Unreachable(why));
            }
        }
    }
    Ok((permit, wire))
}

/// Serves a client over a connection of its own, until it needs none. `Err`: to its end.
async fn pinned<'a>(
    member: Member<'a>,
    hubs: &'a Hubs,
    reason: Reason,
    own: Option<Own>,
) -> Result<Member<'a>, End> {
    let context = member.session.route;
    let until = Member::until(&reason);
    let inherited = match own {
        None => None,
        Some(Own::Inherited(inherited)) => Some(inherited),
        Some(Own::HandedOff(hand_off)) => {
            let HandOff { line, permit } = *hand_off;
            let in_plaintext = line.wire.connection.channel.is_none();
            // Its line was this connection's.
            let has_written = member.session.last_writes == LastWrites::Line(line.id);
            let how = Pinned { until, writes: if has_written { Writes::Last } else { Writes::None } };
            let _pinning = Pinning::of(&member, &reason, permit);
            let relay = Relay::handed_off(member.into_session(), line, &how);
            return relay_apart(Alone::new(relay, context, in_plaintext), hubs).await;
        }
    };
    let how = Pinned { until, writes: if inherited.is_some() { Writes::All } else { Writes::None } };
    // It would be better for others, and that is all.
    let may_share = reason == Reason::Heavy && member.is_bearable();
    let connected = tokio::select! {
        biased;
        connected = own_connection(&member, hubs, &reason, may_share, inherited) => connected,
        () = context.drain.cut_off() => return Err(End::Drained),
        () = member.session.gone() => return Err(End::ClientClosed),
    };
    let (permit, wire) = match connected {
        Ok(connected) => connected,
        Err(NotPinned::MayShare) => return Ok(member),
        Err(NotPinned::TooMany) => {
            context.metrics.refused("pinned");
            if let Some(suppressed) = context.throttle.allow("pinned") {
                warn!(
                    route = &*context.route,
                    session = member.session.about.number(),
                    suppressed,
                    "a client was refused: as many have a connection of their own as may. See limits.pinned"
                );
            }
            let why = "as many clients have a connection of their own as may: see limits.pinned";
            return Err(Box::pin(unreachable(member, why)).await);
        }
        Err(NotPinned::Unreachable(why)) => {
            return Err(Box::pin(unreachable(member, &why)).await);
        }
    };
    let in_plaintext = wire.connection.channel.is_none();
    let _pinning = Pinning::of(&member, &reason, permit);
    let relay = Relay::pinned(member.into_session(), wire, &how);
    let mut alone = Alone::new(relay, context, in_plaintext);
    let set_up = tokio::select! {
        set_up = timeout(SETUP, Box::pin(alone.relay.set_up())) => set_up.unwrap_or(false),
        () = context.drain.cut_off() => return Err(End::Drained),
    };
    if !set_up {
        let mut session = alone.relay.into_session();
        if Box::pin(farewell::deliver(&mut session.client, &mut session.to_client)).await {
            let why = "a connection could not be set up as the client's was";
            Box::pin(farewell::refuse(session.client, 1, why)).await;
        }
        return Err(End::Failed);
    }
    relay_apart(alone, hubs).await
}

/// What is counted while a client has a connection of its own.
struct Pinning {
    _permit: OwnedSemaphorePermit,
    _pinned: GaugeGuard,
}

impl Pinning {
    fn of(member: &Member<'_>, reason: &Reason, permit: OwnedSemaphorePermit) -> Self {
        let Session { about, route, .. } = &member.session;
        route.metrics.pinned(reason.label());
        about.pinned(Some(reason.label()));
        debug!(
            route = &*route.route,
            session = about.number(),
            reason = reason.label(),
            "client has a connection of its own"
        );
        Self { _permit: permit, _pinned: GaugeGuard::new(&route.metrics.sessions_pinned) }
    }
}

/// Relays for a client that shares otherwise, until it can share again. `Err`: to its end.
async fn relay_apart<'a>(mut alone: Alone<'a>, hubs: &'a Hubs) -> Result<Member<'a>, End> {
    let ended = alone.relay().await;
    if let Ended::Shareable = ended {
        let session = alone.relay.into_shared();
        session.about.pinned(None);
        return Ok(Member::new(session, hubs));
    }
    Err(alone.end(ended).await)
}
