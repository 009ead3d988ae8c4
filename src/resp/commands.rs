//! What a request means for its replies: how many, when, and whether they can be counted at all.
//!
//! Only commands that differ from "one reply, soon" are named; all others, modules' among them, are
//! [`Request::Plain`].

use super::families::Command;
use super::words::is_same;

/// A request, as far as its replies go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Request {
    /// One reply, soon.
    #[default]
    Plain,
    /// One reply, soon; if it is no error, something may stay with the connection that RESET does not take away.
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
    /// AUTH: one reply, soon.
    Auth,
    /// RESET: back to RESP2, no subscriptions, no transaction.
    Reset,
    /// QUIT: one reply, soon, and the server closes. What follows gets no reply.
    Quit,
    /// MONITOR: a stream of its own.
    Monitor,
    /// CLIENT REPLY.
    ReplyMode(ReplyMode),
    /// SYNC, PSYNC, REPLCONF: the replication stream follows.
    Replication,
    /// One reply, which holds addresses of a cluster's nodes.
    Cluster(ClusterReply),
    /// One reply, soon; about a transaction.
    Transaction(Transaction),
    /// A name that cannot be told.
    Unknown,
}

impl Request {
    /// Whether replies cannot be matched to requests after this one, or not always.
    pub fn ends_counting(self) -> bool {
        matches!(
            self,
            Self::Subscribe { .. }
                | Self::Unsubscribe { .. }
                | Self::Monitor
                | Self::ReplyMode(_)
                | Self::Replication
                | Self::Unknown
        )
    }
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

/// What a command does to a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transaction {
    /// MULTI.
    Begins,
    /// EXEC: answered by the replies to all that was queued.
    Executes,
    /// DISCARD.
    Ends,
    /// WATCH: refused between MULTI and EXEC, and not queued (`processCommand` in `server.c`).
    Watches,
}

/// A reply that holds addresses of a cluster's nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClusterReply {
    /// CLUSTER SLOTS.
    Slots,
    /// CLUSTER SHARDS.
    Shards,
    /// CLUSTER NODES.
    Nodes,
    /// CLUSTER REPLICAS, or SLAVES.
    Replicas,
}

impl ClusterReply {
    /// What a command with this name and first argument gets, if it is one of these and the server accepts it: with too
    /// many or too few arguments it gets an error.
    pub fn to(name: &[u8], first: &[u8]) -> Option<Self> {
        const KNOWN: &[(&[u8], ClusterReply)] = &[
            (b"SLOTS", ClusterReply::Slots),
            (b"SHARDS", ClusterReply::Shards),
            (b"NODES", ClusterReply::Nodes),
            (b"REPLICAS", ClusterReply::Replicas),
            (b"SLAVES", ClusterReply::Replicas),
        ];
        if !name.eq_ignore_ascii_case(b"CLUSTER") {
            return None;
        }
        KNOWN.iter().find(|(known, _)| first.eq_ignore_ascii_case(known)).map(|(_, reply)| *reply)
    }
}

/// Whether the arguments of a command with this name matter: to [`classify`], or for what they tell of the client.
#[inline]
pub(super) fn arguments_matter(name: &[u8]) -> bool {
    let known: &[&[u8]] = match name.first() {
        Some(b'C' | b'c') => &[b"CLIENT", b"CLUSTER", b"COMMAND", b"CONFIG"],
        Some(b'H' | b'h') => &[b"HELLO"],
        Some(b'R' | b'r') => &[b"RESET"],
        Some(b'S' | b's') => &[b"SCRIPT", b"SELECT"],
        Some(b'X' | b'x') => &STREAM_READS,
        _ => return false,
    };
    known.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Commands that block only where they say so.
const STREAM_READS: [&[u8]; 2] = [b"XREAD", b"XREADGROUP"];

/// Whether [`StreamRead`] tells if a command with this name blocks.
pub(super) fn reads_streams(name: &[u8]) -> bool {
    STREAM_READS.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Follows the words of XREAD and XREADGROUP after the name, to find BLOCK (`xreadCommand` in `t_stream.c`).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StreamRead {
    /// Words of the present option that still follow.
    skip: u8,
    blocks: bool,
    /// STREAMS was said: keys and ids follow.
    ended: bool,
}

impl StreamRead {
    /// The next word.
    pub(super) fn word(&mut self, word: &[u8]) {
        if self.ended {
            return;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        let is = |option: &str| is_same(word, option.as_bytes());
        if is("BLOCK") {
            self.blocks = true;
            self.skip = 1;
        } else if is("COUNT") {
            self.skip = 1;
        } else if is("GROUP") {
            // A group and a consumer may be called anything.
            self.skip = 2;
        } else if is("STREAMS") {
            self.ended = true;
        }
    }

    /// Whether the words so far have BLOCK.
    pub(super) fn blocks(self) -> bool {
        self.blocks
    }
}

/// Commands of the modules that ship with Redis 8 and with Valkey's bundle. None leaves anything with its connection.
const MODULES: [&str; 8] = ["BF.", "CF.", "CMS.", "FT.", "JSON.", "TDIGEST.", "TOPK.", "TS."];

/// Whether it is known what a command with this name, of which the table of commands knows `command`, leaves with its
/// connection. A renamed command, or a module's, could do anything.
#[inline]
pub(super) fn is_known(name: &[u8], command: Command) -> bool {
    if command.is_named() {
        return true;
    }
    let begins = |prefix: &str| {
        name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    MODULES.iter().any(|prefix| begins(prefix))
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
        // XREAD and XREADGROUP with BLOCK: see `StreamRead`.
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
        b"CLUSTER" => ClusterReply::to(name, first).map_or(Request::Plain, Request::Cluster),
        b"MULTI" => Request::Transaction(Transaction::Begins),
        b"EXEC" => Request::Transaction(Transaction::Executes),
        b"DISCARD" => Request::Transaction(Transaction::Ends),
        b"WATCH" => Request::Transaction(Transaction::Watches),
        b"AUTH" => Request::Auth,
        b"RESET" => Request::Reset,
        b"QUIT" => Request::Quit,
        b"MONITOR" => Request::Monitor,
        b"SYNC" | b"PSYNC" | b"REPLCONF" => Request::Replication,
        _ => Request::Plain,
    }
}

/// Whether a connection is the same after this command as before it, whatever its arguments. Only the common ones are
/// known; of any other it is not claimed.
pub(super) fn leaves_nothing_behind(name: &[u8]) -> bool {
    let mut upper = [0; 16];
    let Some(upper) = upper.get_mut(..name.len()) else { return false };
    upper.copy_from_slice(name);
    upper.make_ascii_uppercase();
    LEAVE_NOTHING.binary_search(&&*upper).is_ok()
}

/// Whether all that a command does to a connection is told of it, and can be done to another one: the protocol, the
/// database, names. Not so HELLO with AUTH.
pub(super) fn sets_up(name: &[u8], first: &[u8], words: u64) -> bool {
    let is = |word: &[u8], text: &str| word.eq_ignore_ascii_case(text.as_bytes());
    if is(name, "HELLO") {
        // With SETNAME there are four words, with AUTH five.
        return words <= 2 || words == 4;
    }
    let may_set_up =
        |first: &[u8]| ["MAINT_NOTIFICATIONS", "SETINFO", "SETNAME"].iter().any(|known| is(first, known));
    is(name, "SELECT") || (is(name, "CLIENT") && may_set_up(first))
}

/// Sorted. They read and write keys, and nothing of the connection's.
#[rustfmt::skip]
const LEAVE_NOTHING: &[&[u8]] = &[
    b"APPEND", b"BITCOUNT", b"BITFIELD", b"BITPOS", b"COMMAND", b"DBSIZE", b"DECR", b"DECRBY", b"DEL", b"ECHO", b"EXISTS", b"EXPIRE",
    b"EXPIREAT", b"GET", b"GETBIT", b"GETDEL", b"GETEX", b"GETRANGE", b"GETSET", b"HDEL", b"HEXISTS", b"HGET", b"HGETALL",
    b"HINCRBY", b"HINCRBYFLOAT", b"HKEYS", b"HLEN", b"HMGET", b"HMSET", b"HSCAN", b"HSET", b"HSETNX", b"HVALS", b"INCR",
    b"INCRBY", b"INCRBYFLOAT", b"INFO", b"KEYS", b"LINDEX", b"LINSERT", b"LLEN", b"LMOVE", b"LPOP", b"LPOS", b"LPUSH", b"LPUSHX",
    b"LRANGE", b"LREM", b"LSET", b"LTRIM", b"MGET", b"MSET", b"MSETNX", b"PERSIST", b"PEXPIRE", b"PEXPIREAT", b"PFADD",
    b"PFCOUNT", b"PING", b"PSETEX", b"PTTL", b"PUBLISH", b"RENAME", b"RPOP", b"RPOPLPUSH", b"RPUSH", b"RPUSHX", b"SADD",
    b"SCAN", b"SCARD", b"SDIFF", b"SET", b"SETBIT", b"SETEX", b"SETNX", b"SETRANGE", b"SINTER", b"SISMEMBER", b"SMEMBERS",
    b"SMISMEMBER", b"SMOVE", b"SPOP", b"SRANDMEMBER", b"SREM", b"SSCAN", b"STRLEN", b"SUNION", b"TIME", b"TOUCH", b"TTL",
    b"TYPE", b"UNLINK", b"XACK", b"XADD", b"XDEL", b"XLEN", b"XRANGE", b"XREVRANGE", b"XTRIM", b"ZADD", b"ZCARD", b"ZCOUNT",
    b"ZINCRBY", b"ZRANGE", b"ZRANGEBYSCORE", b"ZRANK", b"ZREM", b"ZREMRANGEBYRANK", b"ZREMRANGEBYSCORE", b"ZREVRANGE",
    b"ZREVRANGEBYSCORE", b"ZREVRANK", b"ZSCAN", b"ZSCORE",
];

/// Whether RESET, and the greeting after it, leave nothing of this CLIENT subcommand (`clearClientConnectionState` in
/// `networking.c`). Not so: NO-EVICT before Redis 7.2, CAPA and IMPORT-SOURCE of Valkey, and whatever is added later.
/// ID, INFO and LIST are none of them: their replies hold the connection's number, for others to act on this very connection.
/// Nor is TRACKING: the server goes on reporting keys that were read before RESET (`disableTracking` in `tracking.c`).
fn is_undone_by_reset(subcommand: &[u8]) -> bool {
    const KNOWN: &[&[u8]] = &[
        b"CACHING",
        b"GETNAME",
        b"GETREDIR",
        b"HELP",
        b"KILL",
        // Only OFF is sent: see `client_requests`.
        b"MAINT_NOTIFICATIONS",
        b"PAUSE",
        b"SETINFO",
        b"SETNAME",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_that_hold_addresses_of_nodes_are_known_by_what_asks_for_them() {
        for (first, reply) in [
            ("SLOTS", Some(ClusterReply::Slots)),
            ("shards", Some(ClusterReply::Shards)),
            ("Nodes", Some(ClusterReply::Nodes)),
            ("replicas", Some(ClusterReply::Replicas)),
            ("SLAVES", Some(ClusterReply::Replicas)),
            ("INFO", None),
            ("SLOTSTATS", None),
            ("", None),
        ] {
            assert_eq!(ClusterReply::to(b"cluster", first.as_bytes()), reply, "{first}");
        }
        assert_eq!(ClusterReply::to(b"COMMAND", b"SLOTS"), None);
    }

    #[test]
    fn only_commands_that_are_known_to_are_said_to_leave_nothing_behind() {
        assert!(LEAVE_NOTHING.is_sorted(), "the search needs it");
        for name in LEAVE_NOTHING {
            assert!(leaves_nothing_behind(&name.to_ascii_lowercase()));
            assert_eq!(classify(name, b"", b"", 2), Request::Plain);
        }
        for name in [
            "SELECT",
            "MULTI",
            "WATCH",
            "CLIENT",
            "AUTH",
            "READONLY",
            "ASKING",
            "EVAL",
            "G",
            "",
            "a long name of a module",
        ] {
            assert!(!leaves_nothing_behind(name.as_bytes()), "{name}");
        }
    }
}
