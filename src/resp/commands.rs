//! What a request means for its replies: how many, when, and whether they can be counted at all.
//!
//! Only commands that differ from "one reply, soon" are named; all others, modules' among them, are
//! [`Request::Plain`].

/// A request, as far as its replies go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Request {
    /// One reply, soon.
    #[default]
    Plain,
    /// One reply, soon; and something stays with the connection that RESET does not take away.
    Lasting,
    /// One reply, once something happens elsewhere.
    Blocking,
    /// SUBSCRIBE and its kin: as many confirmations as channels.
    Subscribe {
        /// To what.
        kind: Subscription,
        /// Channels named.
        count: u32,
    },
    /// UNSUBSCRIBE and its kin.
    Unsubscribe {
        /// From what.
        kind: Subscription,
        /// Channels named; 0: from all.
        count: u32,
    },
    /// HELLO, with the protocol version that it asks for.
    Hello(Option<u8>),
    /// RESET: back to RESP2, no subscriptions, no transaction.
    Reset,
    /// MONITOR: a stream of its own.
    Monitor,
    /// CLIENT REPLY.
    ReplyMode(ReplyMode),
    /// SYNC, PSYNC, REPLCONF: the replication stream follows.
    Replication,
    /// A name that cannot be told.
    Unknown,
}

/// What can be subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscription {
    /// SUBSCRIBE.
    Channel,
    /// PSUBSCRIBE.
    Pattern,
    /// SSUBSCRIBE.
    Shard,
}

/// CLIENT REPLY's argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyMode {
    /// Replies come (again), beginning with this one.
    On,
    /// No replies, for this or any later request.
    Off,
    /// No reply for this request and the next.
    Skip,
}

/// Whether [`classify`] needs the arguments of a command with this name.
#[inline]
pub(super) fn arguments_matter(name: &[u8]) -> bool {
    matches!(name.len(), 5 | 6)
        && [&b"HELLO"[..], b"CLIENT", b"SCRIPT"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Tells what a command is by its name, its first two arguments, and how many words it has. An empty name is one
/// longer than those that matter, or none.
#[inline]
pub(super) fn classify(name: &[u8], first: &[u8], second: &[u8], words: u64) -> Request {
    // No name that matters is shorter than SYNC, nor longer than PUNSUBSCRIBE.
    if name.len() < 4 {
        return Request::Plain;
    }
    let mut upper = [0; 12];
    let Some(upper) = upper.get_mut(..name.len()) else { return Request::Plain };
    upper.copy_from_slice(name);
    upper.make_ascii_uppercase();
    let channels = u32::try_from(words.saturating_sub(1)).unwrap_or(u32::MAX);
    let subscribe = |kind| Request::Subscribe { kind, count: channels };
    let unsubscribe = |kind| Request::Unsubscribe { kind, count: channels };
    match &*upper {
        // XREAD may block wherever its BLOCK option stands; taken to, always.
        b"BLPOP" | b"BRPOP" | b"BLMOVE" | b"BRPOPLPUSH" | b"BLMPOP" | b"BZMPOP" | b"BZPOPMIN"
        | b"BZPOPMAX" | b"XREAD" | b"XREADGROUP" | b"WAIT" | b"WAITAOF" => Request::Blocking,
        b"SUBSCRIBE" => subscribe(Subscription::Channel),
        b"PSUBSCRIBE" => subscribe(Subscription::Pattern),
        b"SSUBSCRIBE" => subscribe(Subscription::Shard),
        b"UNSUBSCRIBE" => unsubscribe(Subscription::Channel),
        b"PUNSUBSCRIBE" => unsubscribe(Subscription::Pattern),
        b"SUNSUBSCRIBE" => unsubscribe(Subscription::Shard),
        b"HELLO" => Request::Hello(match first {
            b"2" => Some(2),
            b"3" => Some(3),
            _ => None,
        }),
        b"CLIENT" if first.eq_ignore_ascii_case(b"REPLY") => reply_mode(second),
        b"CLIENT" if !is_undone_by_reset(first) => Request::Lasting,
        b"SCRIPT" if first.eq_ignore_ascii_case(b"DEBUG") => Request::Lasting,
        b"DEBUG" => Request::Lasting,
        b"RESET" => Request::Reset,
        b"MONITOR" => Request::Monitor,
        b"SYNC" | b"PSYNC" | b"REPLCONF" => Request::Replication,
        _ => Request::Plain,
    }
}

/// Whether RESET, and the greeting after it, leave nothing of this CLIENT subcommand (`clearClientConnectionState` in
/// `networking.c`). Not so: NO-EVICT before Redis 7.2, CAPA and IMPORT-SOURCE of Valkey, and whatever is added later.
/// ID is none of them, but who asks for it wants others to act on this very connection: CLIENT UNBLOCK, CLIENT TRACKING
/// REDIRECT.
fn is_undone_by_reset(subcommand: &[u8]) -> bool {
    const KNOWN: &[&[u8]] = &[
        b"CACHING",
        b"GETNAME",
        b"GETREDIR",
        b"HELP",
        b"INFO",
        b"KILL",
        b"LIST",
        b"PAUSE",
        b"SETINFO",
        b"SETNAME",
        b"TRACKING",
        b"TRACKINGINFO",
        b"UNBLOCK",
        b"UNPAUSE",
    ];
    KNOWN.iter().any(|known| subcommand.eq_ignore_ascii_case(known))
}

fn reply_mode(mode: &[u8]) -> Request {
    if mode.eq_ignore_ascii_case(b"OFF") {
        Request::ReplyMode(ReplyMode::Off)
    } else if mode.eq_ignore_ascii_case(b"SKIP") {
        Request::ReplyMode(ReplyMode::Skip)
    } else if mode.eq_ignore_ascii_case(b"ON") {
        Request::ReplyMode(ReplyMode::On)
    } else {
        // A syntax error, answered as such.
        Request::Plain
    }
}
