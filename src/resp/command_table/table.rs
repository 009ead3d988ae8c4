//! The command table: commands of Redis 6.2 to 8 and Valkey 8 and 9, and of the modules that come with them.
//!
//! A subcommand has its own row, such as `CLIENT|ID`, if it differs from the row of its command. A dedicated connection recognizes the
//! subcommand only if the command's own row has `Arguments::Words` or `Arguments::Client`.

use super::facts::{
    AddressReply, Arguments, Effect, Facts, Family, Multiplexing, PinReason, ReplyKind, Subscription,
    Transaction,
};

/// Commands with the same facts.
pub(super) struct Group {
    pub(super) facts: Facts,
    pub(super) commands: &'static [(Family, &'static [&'static str])],
}

/// One prompt reply, nothing left on the connection, shared.
const PLAIN: Facts = Facts {
    reply: ReplyKind::Prompt,
    effect: Effect::None,
    multiplexing: Multiplexing::Shared,
    arguments: Arguments::Ignored,
    writes: false,
};

/// As `PLAIN`, and it may change data.
const WRITES: Facts = Facts { writes: true, ..PLAIN };

/// As `PLAIN`, with state that is stored for each client.
const PER_CLIENT: Facts = Facts { multiplexing: Multiplexing::PerClient, ..PLAIN };

/// As `PLAIN`, over a dedicated connection.
const fn pinned(reason: PinReason) -> Facts {
    Facts { multiplexing: Multiplexing::Dedicated(reason), ..PLAIN }
}

/// The row of every command that the table lacks, which may have any effect.
const UNKNOWN: Facts =
    Facts { writes: true, effect: Effect::UntilClose, multiplexing: Multiplexing::Unknown, ..PLAIN };

/// Prefixes of commands of the modules that come with Redis 8 and with Valkey's bundle. These commands leave nothing on the connection.
pub(super) const KNOWN_MODULES: [&str; 8] =
    ["BF.", "CF.", "CMS.", "FT.", "JSON.", "TDIGEST.", "TOPK.", "TS."];

#[rustfmt::skip]
pub(super) const GROUPS: &[Group] = &[
    // These three are not names: `Command::named` has rows for commands that the table lacks. A renamed command, or an unknown module's,
    // may have any effect.
    Group { facts: UNKNOWN, commands: &[(Family::Other, &["other"]), (Family::Module, &["module"])] },
    Group { facts: Facts { effect: Effect::None, ..UNKNOWN }, commands: &[(Family::Module, &["module"])] },
    // They read keys without blocking, and leave nothing on the connection.
    Group { facts: PLAIN, commands: &[
        (Family::Bitmap, &["BITCOUNT", "BITFIELD_RO", "BITPOS", "GETBIT"]),
        (Family::Cluster, &["CLUSTERSCAN"]),
        (Family::Generic, &[
            "DUMP", "EXISTS", "EXPIRETIME", "KEYS", "OBJECT", "PEXPIRETIME", "PTTL", "RANDOMKEY", "SCAN", "SORT_RO", "TOUCH",
            "TTL", "TYPE",
        ]),
        (Family::Geo, &["GEODIST", "GEOHASH", "GEOPOS", "GEORADIUSBYMEMBER_RO", "GEORADIUS_RO", "GEOSEARCH"]),
        (Family::Hash, &[
            "HEXISTS", "HEXPIRETIME", "HGET", "HGETALL", "HKEYS", "HLEN", "HMGET", "HPEXPIRETIME", "HPTTL", "HRANDFIELD", "HSCAN",
            "HSTRLEN", "HTTL", "HVALS",
        ]),
        (Family::HyperLogLog, &["PFCOUNT"]),
        (Family::List, &["LINDEX", "LLEN", "LPOS", "LRANGE"]),
        (Family::Set, &[
            "SCARD", "SDIFF", "SINTER", "SINTERCARD", "SISMEMBER", "SMEMBERS", "SMISMEMBER", "SRANDMEMBER", "SSCAN", "SUNION",
        ]),
        (Family::SortedSet, &[
            "ZCARD", "ZCOUNT", "ZDIFF", "ZINTER", "ZINTERCARD", "ZLEXCOUNT", "ZMSCORE", "ZRANDMEMBER", "ZRANGE", "ZRANGEBYLEX",
            "ZRANGEBYSCORE", "ZRANK", "ZREVRANGE", "ZREVRANGEBYLEX", "ZREVRANGEBYSCORE", "ZREVRANK", "ZSCAN", "ZSCORE", "ZUNION",
        ]),
        (Family::Stream, &["XINFO", "XLEN", "XPENDING", "XRANGE", "XREVRANGE"]),
        (Family::String, &["DIGEST", "GET", "GETRANGE", "LCS", "MGET", "STRALGO", "STRLEN", "SUBSTR"]),
        (Family::VectorSet, &["VCARD", "VDIM", "VEMB", "VGETATTR", "VINFO", "VISMEMBER", "VLINKS", "VRANDMEMBER", "VRANGE"]),
    ] },
    // They write keys without blocking, and leave nothing on the connection.
    Group { facts: WRITES, commands: &[
        (Family::Bitmap, &["BITFIELD", "BITOP", "SETBIT"]),
        (Family::Generic, &[
            "COPY", "DEL", "EXPIRE", "EXPIREAT", "MOVE", "PERSIST", "PEXPIRE", "PEXPIREAT", "RENAME", "RENAMENX", "RESTORE",
            "SORT", "UNLINK",
        ]),
        (Family::Geo, &["GEOADD", "GEORADIUS", "GEORADIUSBYMEMBER", "GEOSEARCHSTORE"]),
        (Family::Hash, &[
            "HDEL", "HEXPIRE", "HEXPIREAT", "HGETDEL", "HGETEX", "HINCRBY", "HINCRBYFLOAT", "HMSET", "HPERSIST", "HPEXPIRE",
            "HPEXPIREAT", "HSET", "HSETEX", "HSETNX",
        ]),
        (Family::HyperLogLog, &["PFADD", "PFMERGE"]),
        (Family::List, &[
            "LINSERT", "LMOVE", "LMPOP", "LPOP", "LPUSH", "LPUSHX", "LREM", "LSET", "LTRIM", "RPOP", "RPOPLPUSH", "RPUSH",
            "RPUSHX",
        ]),
        (Family::Server, &["RESTORE-ASKING"]),
        (Family::Set, &["SADD", "SDIFFSTORE", "SINTERSTORE", "SMOVE", "SPOP", "SREM", "SUNIONSTORE"]),
        (Family::SortedSet, &[
            "ZADD", "ZDIFFSTORE", "ZINCRBY", "ZINTERSTORE", "ZMPOP", "ZPOPMAX", "ZPOPMIN", "ZRANGESTORE", "ZREM",
            "ZREMRANGEBYLEX", "ZREMRANGEBYRANK", "ZREMRANGEBYSCORE", "ZUNIONSTORE",
        ]),
        (Family::Stream, &["XACK", "XACKDEL", "XADD", "XAUTOCLAIM", "XCLAIM", "XDEL", "XDELEX", "XGROUP", "XSETID", "XTRIM"]),
        (Family::String, &[
            "APPEND", "DECR", "DECRBY", "DELEX", "DELIFEQ", "GETDEL", "GETEX", "GETSET", "INCR", "INCRBY", "INCRBYFLOAT", "MSET",
            "MSETEX", "MSETNX", "PSETEX", "SET", "SETEX", "SETNX", "SETRANGE",
        ]),
        (Family::VectorSet, &["VREM", "VSETATTR"]),
    ] },
    // They reply the same on every connection, and clients send them when they connect.
    Group { facts: PLAIN, commands: &[
        (Family::Connection, &["ECHO", "PING"]),
        (Family::Server, &["DBSIZE", "LASTSAVE", "LOLWUT", "MEMORY", "TIME"]),
    ] },
    // Its reply names the node's primary or replicas. On a cluster's shared connections, pontoon rewrites it for the client.
    Group { facts: Facts { reply: ReplyKind::Nodes(AddressReply::Info), ..PLAIN }, commands: &[
        (Family::Server, &["INFO"]),
    ] },
    // The first argument of COMMAND reveals the client's library.
    Group { facts: Facts { arguments: Arguments::Words, ..PLAIN }, commands: &[
        (Family::Server, &["COMMAND"]),
    ] },
    // A published message reaches all subscribers, whichever connection carries it.
    Group { facts: PLAIN, commands: &[
        (Family::PubSub, &["PUBSUB"]),
    ] },
    Group { facts: WRITES, commands: &[
        (Family::PubSub, &["PUBLISH", "SPUBLISH"]),
    ] },
    // Scripts select databases and set state on a connection of their own: `scriptPrepareForRun` and its end in `script.c`, and before 7.0
    // `lua_client` in `scripting.c`. Since Redis 2.8.12 a database that a script selects does not outlast it.
    Group { facts: PLAIN, commands: &[
        (Family::Scripting, &["EVALSHA_RO", "EVAL_RO", "FCALL_RO"]),
    ] },
    Group { facts: WRITES, commands: &[
        (Family::Scripting, &["EVAL", "EVALSHA", "FCALL"]),
    ] },
    // They load scripts for all connections. Subcommands that do more have their own rows.
    Group { facts: Facts { arguments: Arguments::Words, ..PLAIN }, commands: &[
        (Family::Scripting, &["SCRIPT"]),
    ] },
    Group { facts: Facts { writes: true, arguments: Arguments::Words, ..PLAIN }, commands: &[
        (Family::Scripting, &["FUNCTION"]),
    ] },
    // It changes whole databases, without blocking.
    Group { facts: WRITES, commands: &[
        (Family::Server, &["SWAPDB"]),
    ] },
    // They block until another client acts or a time has passed.
    Group { facts: Facts { writes: true, reply: ReplyKind::Blocking, ..pinned(PinReason::Blocking) }, commands: &[
        (Family::List, &["BLMOVE", "BLMPOP", "BLPOP", "BRPOP", "BRPOPLPUSH"]),
        (Family::SortedSet, &["BZMPOP", "BZPOPMAX", "BZPOPMIN"]),
    ] },
    // They block with the option BLOCK, and are multiplexed without it (`xreadCommand` in `t_stream.c`).
    Group { facts: Facts { reply: ReplyKind::BlockingByOption, arguments: Arguments::Streams, ..pinned(PinReason::Blocking) }, commands: &[
        (Family::Stream, &["XREAD"]),
    ] },
    Group { facts: Facts { writes: true, reply: ReplyKind::BlockingByOption, arguments: Arguments::Streams, ..pinned(PinReason::Blocking) }, commands: &[
        (Family::Stream, &["XREADGROUP"]),
    ] },
    // They reply as soon as the work is done, but hold up later commands of their connection: FLUSHALL and FLUSHDB until the memory is
    // freed, since Redis 7.4 (`BLOCKED_LAZYFREE` in `db.c`); VADD and VSIM until their thread ends (`VSIM_RedisCommand`,
    // `VADD_RedisCommand` in `vset.c` of Redis 8).
    Group { facts: pinned(PinReason::Blocking), commands: &[
        (Family::VectorSet, &["VSIM"]),
    ] },
    Group { facts: Facts { writes: true, ..pinned(PinReason::Blocking) }, commands: &[
        (Family::Server, &["FLUSHALL", "FLUSHDB"]),
        (Family::VectorSet, &["VADD"]),
    ] },
    // They wait until replicas have received what this connection wrote.
    Group { facts: Facts { reply: ReplyKind::Blocking, ..pinned(PinReason::Wait) }, commands: &[
        (Family::Generic, &["WAIT", "WAITAOF"]),
    ] },
    // Another connection must stop a running script, because the server does not read the script's own connection.
    Group { facts: pinned(PinReason::Kill), commands: &[
        (Family::Scripting, &["FUNCTION|KILL", "SCRIPT|KILL"]),
    ] },
    // They are rare, slow, or act on all connections, and leave nothing on their own.
    Group { facts: pinned(PinReason::Administration), commands: &[
        (Family::HyperLogLog, &["PFSELFTEST"]),
        (Family::Server, &[
            "BGREWRITEAOF", "BGSAVE", "COMMANDLOG", "FAILOVER", "LATENCY", "MODULE", "REPLICAOF", "SAVE", "SHUTDOWN", "SLAVEOF",
            "SLOWLOG",
        ]),
    ] },
    Group { facts: Facts { writes: true, ..pinned(PinReason::Administration) }, commands: &[
        (Family::Generic, &["MIGRATE"]),
        (Family::HyperLogLog, &["PFDEBUG"]),
    ] },
    // One of its subcommands has its own row.
    Group { facts: Facts { arguments: Arguments::Words, ..pinned(PinReason::Administration) }, commands: &[
        (Family::Server, &["ACL"]),
    ] },
    // The first arguments of CONFIG reveal the client's library.
    Group { facts: Facts { arguments: Arguments::Words, ..pinned(PinReason::Administration) }, commands: &[
        (Family::Cluster, &["CLUSTER"]),
        (Family::Server, &["CONFIG"]),
    ] },
    // Its reply holds addresses of nodes.
    Group { facts: Facts { reply: ReplyKind::Nodes(AddressReply::Nodes), ..pinned(PinReason::Administration) }, commands: &[
        (Family::Cluster, &["CLUSTER|NODES"]),
    ] },
    // Their replies hold addresses of nodes.
    Group { facts: Facts { reply: ReplyKind::Nodes(AddressReply::Replicas), ..pinned(PinReason::Administration) }, commands: &[
        (Family::Cluster, &["CLUSTER|REPLICAS", "CLUSTER|SLAVES"]),
    ] },
    // Its reply holds addresses of nodes.
    Group { facts: Facts { reply: ReplyKind::Nodes(AddressReply::Shards), ..pinned(PinReason::Administration) }, commands: &[
        (Family::Cluster, &["CLUSTER|SHARDS"]),
    ] },
    // Its reply holds addresses of nodes.
    Group { facts: Facts { reply: ReplyKind::Nodes(AddressReply::Slots), ..pinned(PinReason::Administration) }, commands: &[
        (Family::Cluster, &["CLUSTER|SLOTS"]),
    ] },
    // Its reply names the node's primary or replicas.
    Group { facts: Facts { reply: ReplyKind::Nodes(AddressReply::Role), ..pinned(PinReason::Administration) }, commands: &[
        (Family::Server, &["ROLE"]),
    ] },
    // Sentinels reply to them. Their replies hold addresses of servers (`sentinelCommand` in `sentinel.c`; the names with PRIMARY are those of
    // Valkey 9).
    Group { facts: Facts { arguments: Arguments::Words, ..pinned(PinReason::Administration) }, commands: &[
        (Family::Server, &["SENTINEL"]),
    ] },
    Group { facts: Facts { reply: ReplyKind::Nodes(AddressReply::SentinelAddress), ..pinned(PinReason::Administration) }, commands: &[
        (Family::Server, &["SENTINEL|GET-MASTER-ADDR-BY-NAME", "SENTINEL|GET-PRIMARY-ADDR-BY-NAME"]),
    ] },
    Group { facts: Facts { reply: ReplyKind::Nodes(AddressReply::SentinelServers), ..pinned(PinReason::Administration) }, commands: &[
        (Family::Server, &[
            "SENTINEL|CONFIG", "SENTINEL|MASTER", "SENTINEL|MASTERS", "SENTINEL|PENDING-SCRIPTS", "SENTINEL|PRIMARIES",
            "SENTINEL|PRIMARY", "SENTINEL|REPLICAS", "SENTINEL|SENTINELS", "SENTINEL|SLAVES",
        ]),
    ] },
    Group { facts: Facts { reply: ReplyKind::Nodes(AddressReply::SentinelInfo), ..pinned(PinReason::Administration) }, commands: &[
        (Family::Server, &["SENTINEL|INFO-CACHE"]),
    ] },
    // It deletes the keys of a slot.
    Group { facts: Facts { writes: true, ..pinned(PinReason::Administration) }, commands: &[
        (Family::Cluster, &["CLUSTER|FLUSHSLOT"]),
    ] },
    // They ask about other connections or act on them.
    Group { facts: pinned(PinReason::Administration), commands: &[
        (Family::Connection, &[
            "CLIENT|GETREDIR", "CLIENT|HELP", "CLIENT|KILL", "CLIENT|PAUSE", "CLIENT|TRACKINGINFO", "CLIENT|UNBLOCK",
            "CLIENT|UNPAUSE",
        ]),
    ] },
    Group { facts: Facts { effect: Effect::Transaction(Transaction::Begins), ..pinned(PinReason::Transaction) }, commands: &[
        (Family::Transactions, &["MULTI"]),
    ] },
    Group { facts: Facts { writes: true, effect: Effect::Transaction(Transaction::Executes), ..pinned(PinReason::Transaction) }, commands: &[
        (Family::Transactions, &["EXEC"]),
    ] },
    Group { facts: Facts { effect: Effect::Transaction(Transaction::Ends), ..pinned(PinReason::Transaction) }, commands: &[
        (Family::Transactions, &["DISCARD"]),
    ] },
    Group { facts: Facts { effect: Effect::Transaction(Transaction::Watches), ..pinned(PinReason::Transaction) }, commands: &[
        (Family::Transactions, &["WATCH"]),
    ] },
    // A client that watches keys has a dedicated connection. On other connections UNWATCH has no effect (`unwatchAllKeys` in `multi.c`).
    Group { facts: Facts { effect: Effect::Transaction(Transaction::Unwatches), ..PLAIN }, commands: &[
        (Family::Transactions, &["UNWATCH"]),
    ] },
    // It applies to the next command.
    Group { facts: Facts { effect: Effect::Asking, ..pinned(PinReason::Asking) }, commands: &[
        (Family::Cluster, &["ASKING"]),
    ] },
    // RESET undoes it. A new command of this kind goes here.
    Group { facts: Facts { effect: Effect::UntilReset, ..pinned(PinReason::ConnectionState) }, commands: &[
        (Family::Connection, &["CLIENT|CACHING"]),
    ] },
    Group { facts: Facts { reply: ReplyKind::Confirmations, effect: Effect::Subscribe(Subscription::Channel), ..pinned(PinReason::ConnectionState) }, commands: &[
        (Family::PubSub, &["SUBSCRIBE"]),
    ] },
    Group { facts: Facts { reply: ReplyKind::Confirmations, effect: Effect::Unsubscribe(Subscription::Channel), ..pinned(PinReason::ConnectionState) }, commands: &[
        (Family::PubSub, &["UNSUBSCRIBE"]),
    ] },
    Group { facts: Facts { reply: ReplyKind::Confirmations, effect: Effect::Subscribe(Subscription::Pattern), ..pinned(PinReason::ConnectionState) }, commands: &[
        (Family::PubSub, &["PSUBSCRIBE"]),
    ] },
    Group { facts: Facts { reply: ReplyKind::Confirmations, effect: Effect::Unsubscribe(Subscription::Pattern), ..pinned(PinReason::ConnectionState) }, commands: &[
        (Family::PubSub, &["PUNSUBSCRIBE"]),
    ] },
    Group { facts: Facts { reply: ReplyKind::Confirmations, effect: Effect::Subscribe(Subscription::Shard), ..pinned(PinReason::ConnectionState) }, commands: &[
        (Family::PubSub, &["SSUBSCRIBE"]),
    ] },
    Group { facts: Facts { reply: ReplyKind::Confirmations, effect: Effect::Unsubscribe(Subscription::Shard), ..pinned(PinReason::ConnectionState) }, commands: &[
        (Family::PubSub, &["SUNSUBSCRIBE"]),
    ] },
    // Any CLIENT subcommand without its own row, such as one that an engine adds later.
    Group { facts: Facts { effect: Effect::UntilClose, arguments: Arguments::Client, ..pinned(PinReason::ConnectionState) }, commands: &[
        (Family::Connection, &["CLIENT"]),
    ] },
    // Nothing undoes them for certain. NO-EVICT outlasts RESET before Redis 7.2; CAPA and IMPORT-SOURCE do on Valkey
    // (`clearClientConnectionState` in `networking.c`). After TRACKING the server still reports keys that were read before RESET
    // (`disableTracking` in `tracking.c`). ID, INFO, LIST and ACL LOG show the connection's id, which lets other clients act on the
    // connection.
    Group { facts: Facts { effect: Effect::UntilClose, ..pinned(PinReason::ConnectionState) }, commands: &[
        (Family::Connection, &[
            "CLIENT|CAPA", "CLIENT|ID", "CLIENT|IMPORT-SOURCE", "CLIENT|INFO", "CLIENT|LIST", "CLIENT|NO-EVICT",
            "CLIENT|NO-TOUCH", "CLIENT|TRACKING",
        ]),
        (Family::Scripting, &["SCRIPT|DEBUG"]),
        (Family::Server, &["ACL|LOG", "DEBUG"]),
    ] },
    // A server takes them for HTTP and closes: `securityWarningCommand` in `networking.c`.
    Group { facts: Facts { effect: Effect::Closes, ..pinned(PinReason::ConnectionState) }, commands: &[
        (Family::Server, &["HOST:", "POST"]),
    ] },
    Group { facts: Facts { effect: Effect::ReplyMode, ..pinned(PinReason::ConnectionState) }, commands: &[
        (Family::Connection, &["CLIENT|REPLY"]),
    ] },
    Group { facts: Facts { reply: ReplyKind::Stream, effect: Effect::Monitor, ..pinned(PinReason::ConnectionState) }, commands: &[
        (Family::Server, &["MONITOR"]),
    ] },
    Group { facts: Facts { reply: ReplyKind::Stream, effect: Effect::Replication, ..pinned(PinReason::ConnectionState) }, commands: &[
        (Family::Server, &["PSYNC", "REPLCONF", "SYNC"]),
    ] },
    Group { facts: Facts { effect: Effect::Auth, ..pinned(PinReason::Auth) }, commands: &[
        (Family::Connection, &["AUTH"]),
    ] },
    Group { facts: Facts { effect: Effect::Reset, arguments: Arguments::Words, ..pinned(PinReason::ConnectionState) }, commands: &[
        (Family::Connection, &["RESET"]),
    ] },
    Group { facts: Facts { effect: Effect::SetUp, arguments: Arguments::Words, ..PER_CLIENT }, commands: &[
        (Family::Connection, &["SELECT"]),
    ] },
    // With AUTH it needs a dedicated connection, or a shared one of the same user.
    Group { facts: Facts { effect: Effect::Hello, arguments: Arguments::Hello, ..PER_CLIENT }, commands: &[
        (Family::Connection, &["HELLO"]),
    ] },
    Group { facts: Facts { effect: Effect::SetUp, ..PER_CLIENT }, commands: &[
        (Family::Connection, &["CLIENT|SETINFO", "CLIENT|SETNAME"]),
    ] },
    // Pontoon answers GETNAME with the client's own name. It sends MAINT_NOTIFICATIONS only with OFF, which changes nothing.
    Group { facts: PER_CLIENT, commands: &[
        (Family::Connection, &["CLIENT|GETNAME", "CLIENT|MAINT_NOTIFICATIONS"]),
    ] },
    Group { facts: Facts { effect: Effect::UntilReset, ..PER_CLIENT }, commands: &[
        (Family::Cluster, &["READONLY", "READWRITE"]),
    ] },
    Group { facts: Facts { effect: Effect::Quit, ..PER_CLIENT }, commands: &[
        (Family::Connection, &["QUIT"]),
    ] },
];
