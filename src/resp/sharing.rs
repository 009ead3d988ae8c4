//! Which commands clients may send over a connection that they share.
//!
//! One table, `GROUPS`: an allow-list. What it does not name is sent on a connection of the client's own, until the
//! server itself has said what it is ([`verdict`]).

use std::sync::LazyLock;

use super::commands::{self, Leaves, Transaction};
use super::families::Command;
use super::value::{Data, Value};
use super::words::up_to_zero;

/// How a command is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Over the shared connection, as it is.
    Shared,
    /// It sets up the connection, and can be kept for each client.
    Setup(Setup),
    /// Over a connection of the client's own.
    Own(Own),
    /// Nothing is known of it.
    Unknown,
}

/// What sets up a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// SELECT.
    Database,
    /// HELLO without AUTH.
    Protocol,
    /// CLIENT SETNAME.
    Name,
    /// CLIENT GETNAME.
    AsksName,
    /// CLIENT SETINFO.
    Library,
    /// `CLIENT MAINT_NOTIFICATIONS`, of which only OFF is sent: it changes nothing.
    Notifications,
    /// READONLY.
    Replica,
    /// READWRITE.
    Primary,
    /// QUIT.
    Quit,
}

/// Why a command needs a connection of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// It may wait for long, and all others with it.
    Blocking,
    /// It asks what became of this connection's writes.
    Wait,
    /// It reads or changes connections, or the server.
    Administration,
    /// Its state lasts until the transaction ends.
    Transaction(Transaction),
    /// It is for the command after it.
    Asking,
    /// Its state lasts until RESET.
    Stays,
    /// Its state lasts as long as the connection.
    Lasts,
    /// AUTH, or HELLO with AUTH.
    Auth,
    /// RESET.
    Reset,
}

impl Own {
    /// The reason as a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Blocking => "blocking",
            Self::Wait => "wait",
            Self::Administration => "administration",
            Self::Transaction(_) => "transaction",
            Self::Asking => "asking",
            Self::Stays | Self::Lasts | Self::Reset => "connection_state",
            Self::Auth => "auth",
        }
    }
}

/// What the commands of a group have in common, and their names. A command that its first argument decides is named with
/// it, and may be named without it, too.
#[rustfmt::skip]
const GROUPS: &[(Sharing, &[&str])] = &[
    // They read and write keys, at once, and know nothing of connections.
    (Sharing::Shared, &[
        "APPEND", "BITCOUNT", "BITFIELD", "BITFIELD_RO", "BITOP", "BITPOS", "CLUSTERSCAN", "COPY", "DECR", "DECRBY", "DEL", "DELEX",
        "DELIFEQ", "DIGEST", "DUMP", "EXISTS", "EXPIRE", "EXPIREAT", "EXPIRETIME", "GEOADD", "GEODIST", "GEOHASH",
        "GEOPOS", "GEORADIUS",
        "GEORADIUSBYMEMBER", "GEORADIUSBYMEMBER_RO", "GEORADIUS_RO", "GEOSEARCH", "GEOSEARCHSTORE", "GET", "GETBIT",
        "GETDEL", "GETEX", "GETRANGE", "GETSET", "HDEL", "HEXISTS", "HEXPIRE", "HEXPIREAT", "HEXPIRETIME", "HGET",
        "HGETALL", "HGETDEL", "HGETEX", "HINCRBY", "HINCRBYFLOAT", "HKEYS", "HLEN", "HMGET", "HMSET", "HPERSIST",
        "HPEXPIRE", "HPEXPIREAT", "HPEXPIRETIME", "HPTTL", "HRANDFIELD", "HSCAN", "HSET", "HSETEX", "HSETNX",
        "HSTRLEN", "HTTL", "HVALS", "INCR", "INCRBY", "INCRBYFLOAT", "KEYS", "LCS", "LINDEX", "LINSERT", "LLEN",
        "LMOVE", "LMPOP", "LPOP", "LPOS", "LPUSH", "LPUSHX", "LRANGE", "LREM", "LSET", "LTRIM", "MGET", "MOVE", "MSET",
        "MSETEX", "MSETNX", "OBJECT", "PERSIST", "PEXPIRE", "PEXPIREAT", "PEXPIRETIME", "PFADD", "PFCOUNT", "PFMERGE",
        "PSETEX", "PTTL", "RANDOMKEY", "RENAME", "RENAMENX", "RESTORE", "RESTORE-ASKING", "RPOP", "RPOPLPUSH", "RPUSH", "RPUSHX", "SADD",
        "SCAN", "SCARD", "SDIFF", "SDIFFSTORE", "SET", "SETBIT", "SETEX", "SETNX", "SETRANGE", "SINTER", "SINTERCARD",
        "SINTERSTORE", "SISMEMBER", "SMEMBERS", "SMISMEMBER", "SMOVE", "SORT", "SORT_RO", "SPOP", "SRANDMEMBER", "SREM",
        "SSCAN", "STRALGO", "STRLEN", "SUBSTR", "SUNION", "SUNIONSTORE", "TOUCH", "TTL", "TYPE", "UNLINK", "XACK", "XACKDEL",
        "XADD", "XAUTOCLAIM", "XCLAIM", "XDEL", "XDELEX", "XGROUP", "XINFO", "XLEN", "XPENDING", "XRANGE", "XREVRANGE",
        "XSETID", "XTRIM", "ZADD", "ZCARD", "ZCOUNT", "ZDIFF", "ZDIFFSTORE", "ZINCRBY", "ZINTER", "ZINTERCARD",
        "ZINTERSTORE", "ZLEXCOUNT", "ZMPOP", "ZMSCORE", "ZPOPMAX", "ZPOPMIN", "ZRANDMEMBER", "ZRANGE", "ZRANGEBYLEX",
        "ZRANGEBYSCORE", "ZRANGESTORE", "ZRANK", "ZREM", "ZREMRANGEBYLEX", "ZREMRANGEBYRANK", "ZREMRANGEBYSCORE",
        "ZREVRANGE", "ZREVRANGEBYLEX", "ZREVRANGEBYSCORE", "ZREVRANK", "ZSCAN", "ZSCORE", "ZUNION", "ZUNIONSTORE",
    ]),
    // The same, of vector sets.
    (Sharing::Shared, &[
        "VCARD", "VDIM", "VEMB", "VGETATTR", "VINFO", "VISMEMBER", "VLINKS", "VRANDMEMBER", "VRANGE", "VREM", "VSETATTR",
    ]),
    // They say the same on every connection, and clients send them as they begin.
    (Sharing::Shared, &["COMMAND", "DBSIZE", "ECHO", "INFO", "LASTSAVE", "LOLWUT", "MEMORY", "PING", "TIME"]),
    // What is published reaches subscribers, wherever it was said.
    (Sharing::Shared, &["PUBLISH", "PUBSUB", "SPUBLISH"]),
    // What a script selects or sets is its own: `scriptPrepareForRun` and its end in `script.c`; before 7.0 `lua_client` in
    // `scripting.c`. A database that it selects is taken back since Redis 2.8.12.
    (Sharing::Shared, &[
        "EVAL", "EVALSHA", "EVALSHA_RO", "EVAL_RO", "FCALL", "FCALL_RO", "FUNCTION", "SCRIPT",
    ]),
    // It changes the data as a whole, at once.
    (Sharing::Shared, &["SWAPDB"]),
    // Who watches has a connection of its own; on any other it does nothing (`unwatchAllKeys` in `multi.c`).
    (Sharing::Shared, &["UNWATCH"]),
    // A script that does not end is ended from another connection: the server does not read its own.
    (Sharing::Own(Own::Administration), &["FUNCTION KILL", "SCRIPT KILL"]),
    // Each of them waits for somebody else. XREAD and XREADGROUP only with BLOCK: see `whole`.
    // FLUSHALL and FLUSHDB for what is flushed to be freed, since Redis 7.4: `BLOCKED_LAZYFREE` in `db.c`.
    // VADD and VSIM for a thread of their own, and with them all that comes after on their connection: `VSIM_RedisCommand` and
    // `VADD_RedisCommand` in `vset.c` of Redis 8.
    (Sharing::Own(Own::Blocking), &[
        "BLMOVE", "BLMPOP", "BLPOP", "BRPOP", "BRPOPLPUSH", "BZMPOP", "BZPOPMAX", "BZPOPMIN", "FLUSHALL", "FLUSHDB",
        "VADD", "VSIM", "XREAD", "XREADGROUP",
    ]),
    // For the replicas to have what this very connection wrote.
    (Sharing::Own(Own::Wait), &["WAIT", "WAITAOF"]),
    // Rare, slow, or about all connections; nothing of them stays with the one that they came by. CLUSTER's name nodes.
    (Sharing::Own(Own::Administration), &[
        "ACL", "BGREWRITEAOF", "BGSAVE", "CLIENT GETREDIR", "CLIENT HELP", "CLIENT KILL", "CLIENT PAUSE", "CLIENT TRACKINGINFO", "CLIENT UNBLOCK", "CLIENT UNPAUSE", "CLUSTER", "COMMANDLOG", "CONFIG",
        "FAILOVER", "LATENCY", "MIGRATE", "MODULE", "PFDEBUG", "PFSELFTEST", "REPLICAOF", "ROLE", "SAVE", "SHUTDOWN", "SLAVEOF", "SLOWLOG",
    ]),
    (Sharing::Own(Own::Transaction(Transaction::Begins)), &["MULTI"]),
    (Sharing::Own(Own::Transaction(Transaction::Executes)), &["EXEC"]),
    (Sharing::Own(Own::Transaction(Transaction::Ends)), &["DISCARD"]),
    (Sharing::Own(Own::Transaction(Transaction::Watches)), &["WATCH"]),
    (Sharing::Own(Own::Asking), &["ASKING"]),
    // RESET takes it back.
    (Sharing::Own(Own::Stays), &[
        "CLIENT CACHING", "PSUBSCRIBE", "PUNSUBSCRIBE", "SSUBSCRIBE", "SUBSCRIBE", "SUNSUBSCRIBE",
        "UNSUBSCRIBE",
    ]),
    // Nothing takes it back for certain. NO-EVICT stays before Redis 7.2, CAPA and IMPORT-SOURCE on Valkey
    // (`clearClientConnectionState` in `networking.c`); a subcommand that is added later is not known. After TRACKING the server goes
    // on reporting keys that were read before RESET (`disableTracking` in `tracking.c`). ID, INFO and LIST tell the connection's
    // number, for others to act on this very connection.
    (Sharing::Own(Own::Lasts), &[
        "CLIENT", "CLIENT CAPA", "CLIENT ID", "CLIENT IMPORT-SOURCE", "CLIENT INFO", "CLIENT LIST", "CLIENT NO-EVICT",
        "CLIENT NO-TOUCH", "CLIENT REPLY", "CLIENT TRACKING", "DEBUG", "MONITOR", "PSYNC", "REPLCONF", "SCRIPT DEBUG", "SYNC",
    ]),
    // A server takes them for HTTP, and closes: `securityWarningCommand` in `networking.c`.
    (Sharing::Own(Own::Lasts), &["HOST:", "POST"]),
    (Sharing::Own(Own::Auth), &["AUTH"]),
    (Sharing::Own(Own::Reset), &["RESET"]),
    (Sharing::Setup(Setup::Database), &["SELECT"]),
    (Sharing::Setup(Setup::Protocol), &["HELLO"]),
    (Sharing::Setup(Setup::Name), &["CLIENT SETNAME"]),
    (Sharing::Setup(Setup::AsksName), &["CLIENT GETNAME"]),
    (Sharing::Setup(Setup::Library), &["CLIENT SETINFO"]),
    (Sharing::Setup(Setup::Notifications), &["CLIENT MAINT_NOTIFICATIONS"]),
    (Sharing::Setup(Setup::Replica), &["READONLY"]),
    (Sharing::Setup(Setup::Primary), &["READWRITE"]),
    (Sharing::Setup(Setup::Quit), &["QUIT"]),
];

/// A command in the table.
#[derive(Debug, Clone, Copy)]
struct Entry {
    sharing: Sharing,
    /// Its first argument may decide.
    contains: bool,
}

/// Of the table, by the commands' numbers. What their first arguments decide is in [`SUBCOMMANDS`].
static TABLE: [Entry; Command::COUNT] = {
    let mut table = [Entry { sharing: Sharing::Unknown, contains: false }; Command::COUNT];
    let mut group = 0;
    while group < GROUPS.len() {
        let (sharing, names) = GROUPS[group];
        let mut at = 0;
        while at < names.len() {
            let (name, first) = words(names[at].as_bytes());
            let Some(command) = Command::known(name) else { panic!("each name in the table is a command's") };
            let entry = &mut table[command.number()];
            if first.is_empty() {
                assert!(matches!(entry.sharing, Sharing::Unknown), "a command is in two groups");
                entry.sharing = sharing;
            } else {
                entry.contains = true;
            }
            at += 1;
        }
        group += 1;
    }
    table
};

/// What is named with its first argument.
static SUBCOMMANDS: LazyLock<Vec<(usize, &[u8], Sharing)>> = LazyLock::new(|| {
    let all = GROUPS
        .iter()
        .flat_map(|(sharing, names)| names.iter().map(|name| (words(name.as_bytes()), *sharing)));
    all.filter(|((_, first), _)| !first.is_empty())
        .map(|((name, first), sharing)| (Command::named(name).number(), first, sharing))
        .collect()
});

/// A name of the table, and its first argument, which may be empty.
const fn words(name: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    while at < name.len() {
        if name[at] == b' ' {
            return (name.split_at(at).0, name.split_at(at + 1).1);
        }
        at += 1;
    }
    (name, &[])
}

/// How a command with this first argument, of so many words, is sent.
#[inline]
pub fn sharing(command: Command, first: &[u8], words: u64) -> Sharing {
    let Entry { sharing, contains } = TABLE[command.number()];
    if contains && let Some(found) = subcommand(command, first) {
        return found;
    }
    match sharing {
        // AUTH makes it five words at least.
        Sharing::Setup(Setup::Protocol) if words > 2 && words != 4 => Sharing::Own(Own::Auth),
        sharing => sharing,
    }
}

/// Whether the table names this command, or a command with its first argument: `CLIENT ID`.
pub fn is_listed(name: &str) -> bool {
    GROUPS.iter().any(|(_, names)| names.contains(&name))
}

#[cold]
fn subcommand(command: Command, sought: &[u8]) -> Option<Sharing> {
    let sought = up_to_zero(sought);
    let is_it = |number, first: &[u8]| number == command.number() && first.eq_ignore_ascii_case(sought);
    SUBCOMMANDS.iter().find(|(number, first, _)| is_it(*number, first)).map(|(_, _, sharing)| *sharing)
}

/// What a command with one reply, soon, leaves with its connection.
#[inline]
pub(super) fn leaves(command: Command, first: &[u8], name: &[u8]) -> Option<Leaves> {
    match sharing(command, first, 1) {
        Sharing::Shared | Sharing::Setup(Setup::AsksName | Setup::Notifications | Setup::Quit) => None,
        Sharing::Setup(Setup::Replica | Setup::Primary) => Some(Leaves::UntilReset),
        Sharing::Setup(_) => Some(Leaves::SetUp),
        Sharing::Own(own) => match own {
            Own::Blocking | Own::Wait | Own::Administration | Own::Transaction(_) => None,
            Own::Asking => Some(Leaves::Asking),
            Own::Stays | Own::Auth | Own::Reset => Some(Leaves::UntilReset),
            Own::Lasts => Some(Leaves::ForGood),
        },
        Sharing::Unknown => (!commands::is_of_known_module(name)).then_some(Leaves::ForGood),
    }
}

/// What the server says of a command that the table does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may be sent over a shared connection: it reads or writes keys, and scripts may call it, which they may not where
    /// a command blocks, or leaves something with its connection.
    Safe,
    /// It may not, or that cannot be told.
    Unsafe,
    /// There is no such command: it gets an error, and that is all.
    Absent,
}

/// Reads the server's reply to COMMAND INFO with one name.
pub fn verdict(reply: &[u8]) -> Verdict {
    const UNSAFE: &[&str] = &["admin", "blocking", "no_auth", "no_multi", "noscript", "pubsub"];
    let Ok(reply) = Value::parse(reply) else { return Verdict::Unsafe };
    let Some([info]) = reply.list() else { return Verdict::Unsafe };
    if info.data == Data::Null {
        return Verdict::Absent;
    }
    // Name, arity, flags.
    let Some(flags) = info.list().and_then(|info| info.get(2)?.list()) else { return Verdict::Unsafe };
    let has =
        |wanted: &[&str]| flags.iter().any(|flag| flag.text().is_some_and(|flag| wanted.contains(&flag)));
    if has(&["readonly", "write"]) && !has(UNSAFE) { Verdict::Safe } else { Verdict::Unsafe }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn of(name: &str, first: &str) -> Sharing {
        sharing(Command::named(name.as_bytes()), first.as_bytes(), 2)
    }

    #[test]
    fn each_name_is_found_in_whatever_case_and_none_is_in_two_groups() {
        let mut seen = HashSet::new();
        for (sharing, name) in
            GROUPS.iter().flat_map(|(sharing, names)| names.iter().map(move |name| (sharing, name)))
        {
            assert!(seen.insert(name), "{name} is in two groups");
            let (name, first) = name.split_once(' ').unwrap_or((name, ""));
            assert_eq!(of(name, first), *sharing, "{name} {first}");
            assert_eq!(of(&name.to_lowercase(), &first.to_lowercase()), *sharing, "{name} {first}");
        }
    }

    #[test]
    fn subcommands_are_told_apart_and_what_is_not_known_is_not_guessed() {
        assert_eq!(of("SCRIPT", "LOAD"), Sharing::Shared);
        assert_eq!(of("script", "kill"), Sharing::Own(Own::Administration));
        assert_eq!(of("CLIENT", "NO-EVICT"), Sharing::Own(Own::Lasts));
        assert_eq!(of("CLIENT", &"x".repeat(100)), Sharing::Own(Own::Lasts));
        for name in ["", "FT.SEARCH", "GE", "GETS", &"x".repeat(100)] {
            assert_eq!(of(name, ""), Sharing::Unknown, "{name}");
        }
        assert_eq!(sharing(Command::named(b"HELLO"), b"3", 2), Sharing::Setup(Setup::Protocol));
        assert_eq!(sharing(Command::named(b"HELLO"), b"3", 5), Sharing::Own(Own::Auth));
    }

    #[test]
    fn what_the_server_says_of_a_command_decides() {
        let info = |flags: &[&str]| {
            let count = flags.len();
            let flags = flags.iter().map(|flag| ["+", flag, "\r\n"].concat()).collect::<Vec<_>>().concat();
            format!("*1\r\n*4\r\n$3\r\nx.y\r\n:-2\r\n*{count}\r\n{flags}:1\r\n")
        };
        let of = |flags: &[&str]| verdict(info(flags).as_bytes());
        assert_eq!(of(&["readonly", "fast"]), Verdict::Safe);
        assert_eq!(of(&["write", "denyoom"]), Verdict::Safe);
        assert_eq!(of(&["write", "blocking"]), Verdict::Unsafe);
        assert_eq!(of(&["write", "noscript"]), Verdict::Unsafe);
        assert_eq!(of(&[]), Verdict::Unsafe);
        for absent in [&b"*1\r\n$-1\r\n"[..], b"*1\r\n*-1\r\n", b"*1\r\n_\r\n"] {
            assert_eq!(verdict(absent), Verdict::Absent);
        }
        assert_eq!(verdict(b"-NOPERM\r\n"), Verdict::Unsafe);
    }
}
