//! Commands by name: what they are about. For counting only; what a command does is told in `commands`.

use memchr::memchr;

/// What commands are about, as the servers' documentation groups them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the labels say it")]
pub enum Family {
    Other,
    Bitmap,
    Cluster,
    Connection,
    Generic,
    Geo,
    Hash,
    HyperLogLog,
    List,
    Module,
    PubSub,
    Scripting,
    Server,
    Set,
    SortedSet,
    Stream,
    String,
    Transactions,
    VectorSet,
}

impl Family {
    /// All of them, in their order, as a metric's labels.
    pub const LABELS: [&str; 19] = [
        "other",
        "bitmap",
        "cluster",
        "connection",
        "generic",
        "geo",
        "hash",
        "hyperloglog",
        "list",
        "module",
        "pubsub",
        "scripting",
        "server",
        "set",
        "sorted_set",
        "stream",
        "string",
        "transactions",
        "vector_set",
    ];
}

/// A command whose name is known, or one of those that are not: a name may be anything that a broken client sends, a key
/// or a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    family: Family,
    number: u16,
}

impl Default for Command {
    fn default() -> Self {
        Self::OTHER
    }
}

impl Command {
    /// None that is known.
    const OTHER: Self = Self::numbered(0);

    /// Some module's.
    const MODULE: Self = Self::numbered(1);

    const fn numbered(number: u16) -> Self {
        Self { family: COMMANDS[number as usize].0, number }
    }

    /// How many there are: a command's [`number`](Self::number) is less.
    pub const COUNT: usize = COMMANDS.len();

    /// The command with this name, in whatever case.
    #[inline]
    pub fn named(name: &[u8]) -> Self {
        match Self::known(name) {
            Some(command) => command,
            None if memchr(b'.', name).is_some() => Self::MODULE,
            None => Self::OTHER,
        }
    }

    /// The same, if its name is known.
    #[inline]
    pub const fn known(name: &[u8]) -> Option<Self> {
        if name.len() > LONGEST {
            return None;
        }
        let sought = key(name);
        let mut at = place(sought);
        while TABLE[at].1.number != Self::OTHER.number {
            let ((first, rest), found) = TABLE[at];
            if first == sought.0 && rest == sought.1 {
                let is_same = COMMANDS[found.number()].1.as_bytes().eq_ignore_ascii_case(name);
                return if is_same { Some(found) } else { None };
            }
            at = (at + 1) % PLACES;
        }
        None
    }

    /// Its place among all, and the same for one name only if that is known.
    #[inline]
    pub const fn number(self) -> usize {
        self.number as usize
    }

    /// In capitals; `other` and `module` where it is not known.
    #[inline]
    pub fn name(self) -> &'static str {
        COMMANDS[usize::from(self.number)].1
    }

    /// What it is about.
    #[inline]
    pub fn family(self) -> Family {
        self.family
    }
}

/// A longer name is none of these.
const LONGEST: usize = 20;

/// Twice as many as are taken, and more: few names share one.
const PLACES: usize = 1024;

/// A name in capitals, as two numbers: they are compared at once.
type NameKey = (u64, u64);

/// Where a command is, by its name: at its place or after it, before the next that is [`Command::OTHER`].
static TABLE: [(NameKey, Command); PLACES] = {
    let mut table = [((0, 0), Command::OTHER); PLACES];
    // The first two have no names.
    let mut number = 2;
    while number < COMMANDS.len() {
        let key = key(COMMANDS[number].1.as_bytes());
        let mut at = place(key);
        while table[at].1.number != Command::OTHER.number {
            at = (at + 1) % PLACES;
        }
        table[at] = (key, Command::numbered(number as u16));
        number += 1;
    }
    table
};

/// Of a name of more than sixteen bytes those from the ninth on fall out: no two commands differ in them alone.
const fn key(name: &[u8]) -> NameKey {
    let (mut first, mut rest) = (0, 0);
    let mut at = 0;
    while at < name.len() && at < 8 {
        first = (first << 8) | capital(name[at]);
        at += 1;
    }
    while at < name.len() {
        rest = (rest << 8) | capital(name[at]);
        at += 1;
    }
    (first, rest)
}

/// A letter in capitals; any other byte as some other byte, always the same.
const fn capital(byte: u8) -> u64 {
    (byte & 0xdf) as u64
}

/// Fibonacci hashing.
const fn place((first, rest): NameKey) -> usize {
    let mixed = (first ^ rest.rotate_left(31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (u64::BITS - PLACES.ilog2())) as usize
}

/// The families' commands, of Redis 8 and Valkey 9.
#[rustfmt::skip]
const COMMANDS: [(Family, &str); 279] = [
    (Family::Other, "other"), (Family::Module, "module"),
    (Family::String, "APPEND"), (Family::String, "DECR"), (Family::String, "DECRBY"), (Family::String, "DELEX"),
    (Family::String, "DELIFEQ"), (Family::String, "DIGEST"), (Family::String, "GET"), (Family::String, "GETDEL"),
    (Family::String, "GETEX"), (Family::String, "GETRANGE"), (Family::String, "GETSET"), (Family::String, "INCR"),
    (Family::String, "INCRBY"), (Family::String, "INCRBYFLOAT"), (Family::String, "LCS"), (Family::String, "MGET"),
    (Family::String, "MSET"), (Family::String, "MSETEX"), (Family::String, "MSETNX"), (Family::String, "PSETEX"),
    (Family::String, "SET"), (Family::String, "SETEX"), (Family::String, "SETNX"), (Family::String, "SETRANGE"),
    (Family::String, "STRALGO"), (Family::String, "STRLEN"), (Family::String, "SUBSTR"),
    (Family::Hash, "HDEL"), (Family::Hash, "HEXISTS"), (Family::Hash, "HEXPIRE"), (Family::Hash, "HEXPIREAT"),
    (Family::Hash, "HEXPIRETIME"), (Family::Hash, "HGET"), (Family::Hash, "HGETALL"), (Family::Hash, "HGETDEL"),
    (Family::Hash, "HGETEX"), (Family::Hash, "HINCRBY"), (Family::Hash, "HINCRBYFLOAT"), (Family::Hash, "HKEYS"),
    (Family::Hash, "HLEN"), (Family::Hash, "HMGET"), (Family::Hash, "HMSET"), (Family::Hash, "HPERSIST"),
    (Family::Hash, "HPEXPIRE"), (Family::Hash, "HPEXPIREAT"), (Family::Hash, "HPEXPIRETIME"), (Family::Hash, "HPTTL"),
    (Family::Hash, "HRANDFIELD"), (Family::Hash, "HSCAN"), (Family::Hash, "HSET"), (Family::Hash, "HSETEX"),
    (Family::Hash, "HSETNX"), (Family::Hash, "HSTRLEN"), (Family::Hash, "HTTL"), (Family::Hash, "HVALS"),
    (Family::List, "BLMOVE"), (Family::List, "BLMPOP"), (Family::List, "BLPOP"), (Family::List, "BRPOP"),
    (Family::List, "BRPOPLPUSH"), (Family::List, "LINDEX"), (Family::List, "LINSERT"), (Family::List, "LLEN"),
    (Family::List, "LMOVE"), (Family::List, "LMPOP"), (Family::List, "LPOP"), (Family::List, "LPOS"), (Family::List, "LPUSH"),
    (Family::List, "LPUSHX"), (Family::List, "LRANGE"), (Family::List, "LREM"), (Family::List, "LSET"), (Family::List, "LTRIM"),
    (Family::List, "RPOP"), (Family::List, "RPOPLPUSH"), (Family::List, "RPUSH"), (Family::List, "RPUSHX"),
    (Family::Set, "SADD"), (Family::Set, "SCARD"), (Family::Set, "SDIFF"), (Family::Set, "SDIFFSTORE"), (Family::Set, "SINTER"),
    (Family::Set, "SINTERCARD"), (Family::Set, "SINTERSTORE"), (Family::Set, "SISMEMBER"), (Family::Set, "SMEMBERS"),
    (Family::Set, "SMISMEMBER"), (Family::Set, "SMOVE"), (Family::Set, "SPOP"), (Family::Set, "SRANDMEMBER"),
    (Family::Set, "SREM"), (Family::Set, "SSCAN"), (Family::Set, "SUNION"), (Family::Set, "SUNIONSTORE"),
    (Family::SortedSet, "BZMPOP"), (Family::SortedSet, "BZPOPMAX"), (Family::SortedSet, "BZPOPMIN"),
    (Family::SortedSet, "ZADD"), (Family::SortedSet, "ZCARD"), (Family::SortedSet, "ZCOUNT"), (Family::SortedSet, "ZDIFF"),
    (Family::SortedSet, "ZDIFFSTORE"), (Family::SortedSet, "ZINCRBY"), (Family::SortedSet, "ZINTER"),
    (Family::SortedSet, "ZINTERCARD"), (Family::SortedSet, "ZINTERSTORE"), (Family::SortedSet, "ZLEXCOUNT"),
    (Family::SortedSet, "ZMPOP"), (Family::SortedSet, "ZMSCORE"), (Family::SortedSet, "ZPOPMAX"),
    (Family::SortedSet, "ZPOPMIN"), (Family::SortedSet, "ZRANDMEMBER"), (Family::SortedSet, "ZRANGE"),
    (Family::SortedSet, "ZRANGEBYLEX"), (Family::SortedSet, "ZRANGEBYSCORE"), (Family::SortedSet, "ZRANGESTORE"),
    (Family::SortedSet, "ZRANK"), (Family::SortedSet, "ZREM"), (Family::SortedSet, "ZREMRANGEBYLEX"),
    (Family::SortedSet, "ZREMRANGEBYRANK"), (Family::SortedSet, "ZREMRANGEBYSCORE"), (Family::SortedSet, "ZREVRANGE"),
    (Family::SortedSet, "ZREVRANGEBYLEX"), (Family::SortedSet, "ZREVRANGEBYSCORE"), (Family::SortedSet, "ZREVRANK"),
    (Family::SortedSet, "ZSCAN"), (Family::SortedSet, "ZSCORE"), (Family::SortedSet, "ZUNION"),
    (Family::SortedSet, "ZUNIONSTORE"),
    (Family::Stream, "XACK"), (Family::Stream, "XACKDEL"), (Family::Stream, "XADD"), (Family::Stream, "XAUTOCLAIM"),
    (Family::Stream, "XCLAIM"), (Family::Stream, "XDEL"), (Family::Stream, "XDELEX"), (Family::Stream, "XGROUP"),
    (Family::Stream, "XINFO"), (Family::Stream, "XLEN"), (Family::Stream, "XPENDING"), (Family::Stream, "XRANGE"),
    (Family::Stream, "XREAD"), (Family::Stream, "XREADGROUP"), (Family::Stream, "XREVRANGE"), (Family::Stream, "XSETID"),
    (Family::Stream, "XTRIM"),
    (Family::Geo, "GEOADD"), (Family::Geo, "GEODIST"), (Family::Geo, "GEOHASH"), (Family::Geo, "GEOPOS"),
    (Family::Geo, "GEORADIUS"), (Family::Geo, "GEORADIUSBYMEMBER"), (Family::Geo, "GEORADIUSBYMEMBER_RO"),
    (Family::Geo, "GEORADIUS_RO"), (Family::Geo, "GEOSEARCH"), (Family::Geo, "GEOSEARCHSTORE"),
    (Family::Bitmap, "BITCOUNT"), (Family::Bitmap, "BITFIELD"), (Family::Bitmap, "BITFIELD_RO"), (Family::Bitmap, "BITOP"),
    (Family::Bitmap, "BITPOS"), (Family::Bitmap, "GETBIT"), (Family::Bitmap, "SETBIT"),
    (Family::HyperLogLog, "PFADD"), (Family::HyperLogLog, "PFCOUNT"), (Family::HyperLogLog, "PFDEBUG"),
    (Family::HyperLogLog, "PFMERGE"), (Family::HyperLogLog, "PFSELFTEST"),
    (Family::PubSub, "PSUBSCRIBE"), (Family::PubSub, "PUBLISH"), (Family::PubSub, "PUBSUB"), (Family::PubSub, "PUNSUBSCRIBE"),
    (Family::PubSub, "SPUBLISH"), (Family::PubSub, "SSUBSCRIBE"), (Family::PubSub, "SUBSCRIBE"),
    (Family::PubSub, "SUNSUBSCRIBE"), (Family::PubSub, "UNSUBSCRIBE"),
    (Family::Transactions, "DISCARD"), (Family::Transactions, "EXEC"), (Family::Transactions, "MULTI"),
    (Family::Transactions, "UNWATCH"), (Family::Transactions, "WATCH"),
    (Family::Scripting, "EVAL"), (Family::Scripting, "EVALSHA"), (Family::Scripting, "EVALSHA_RO"),
    (Family::Scripting, "EVAL_RO"), (Family::Scripting, "FCALL"), (Family::Scripting, "FCALL_RO"),
    (Family::Scripting, "FUNCTION"), (Family::Scripting, "SCRIPT"),
    (Family::Connection, "AUTH"), (Family::Connection, "CLIENT"), (Family::Connection, "ECHO"), (Family::Connection, "HELLO"),
    (Family::Connection, "PING"), (Family::Connection, "QUIT"), (Family::Connection, "RESET"), (Family::Connection, "SELECT"),
    (Family::Generic, "COPY"), (Family::Generic, "DEL"), (Family::Generic, "DUMP"), (Family::Generic, "EXISTS"),
    (Family::Generic, "EXPIRE"), (Family::Generic, "EXPIREAT"), (Family::Generic, "EXPIRETIME"), (Family::Generic, "KEYS"),
    (Family::Generic, "MIGRATE"), (Family::Generic, "MOVE"), (Family::Generic, "OBJECT"), (Family::Generic, "PERSIST"),
    (Family::Generic, "PEXPIRE"), (Family::Generic, "PEXPIREAT"), (Family::Generic, "PEXPIRETIME"), (Family::Generic, "PTTL"),
    (Family::Generic, "RANDOMKEY"), (Family::Generic, "RENAME"), (Family::Generic, "RENAMENX"), (Family::Generic, "RESTORE"),
    (Family::Server, "RESTORE-ASKING"),
    (Family::Generic, "SCAN"), (Family::Generic, "SORT"), (Family::Generic, "SORT_RO"), (Family::Generic, "TOUCH"),
    (Family::Generic, "TTL"), (Family::Generic, "TYPE"), (Family::Generic, "UNLINK"), (Family::Generic, "WAIT"),
    (Family::Generic, "WAITAOF"),
    (Family::Server, "ACL"), (Family::Server, "BGREWRITEAOF"), (Family::Server, "BGSAVE"), (Family::Server, "COMMAND"),
    (Family::Server, "COMMANDLOG"), (Family::Server, "CONFIG"), (Family::Server, "DBSIZE"), (Family::Server, "DEBUG"),
    (Family::Server, "FAILOVER"), (Family::Server, "FLUSHALL"), (Family::Server, "FLUSHDB"), (Family::Server, "INFO"),
    (Family::Server, "LASTSAVE"), (Family::Server, "LATENCY"), (Family::Server, "LOLWUT"), (Family::Server, "MEMORY"),
    (Family::Server, "HOST:"), (Family::Server, "MODULE"), (Family::Server, "MONITOR"), (Family::Server, "POST"),
    (Family::Server, "PSYNC"), (Family::Server, "REPLCONF"),
    (Family::Server, "REPLICAOF"), (Family::Server, "ROLE"), (Family::Server, "SAVE"), (Family::Server, "SHUTDOWN"),
    (Family::Server, "SLAVEOF"), (Family::Server, "SLOWLOG"), (Family::Server, "SWAPDB"), (Family::Server, "SYNC"),
    (Family::Server, "TIME"),
    (Family::Cluster, "ASKING"), (Family::Cluster, "CLUSTER"), (Family::Cluster, "CLUSTERSCAN"), (Family::Cluster, "READONLY"), (Family::Cluster, "READWRITE"),
    (Family::VectorSet, "VADD"), (Family::VectorSet, "VCARD"), (Family::VectorSet, "VDIM"), (Family::VectorSet, "VEMB"),
    (Family::VectorSet, "VGETATTR"), (Family::VectorSet, "VINFO"), (Family::VectorSet, "VISMEMBER"),
    (Family::VectorSet, "VLINKS"), (Family::VectorSet, "VRANDMEMBER"), (Family::VectorSet, "VRANGE"),
    (Family::VectorSet, "VREM"), (Family::VectorSet, "VSETATTR"), (Family::VectorSet, "VSIM"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_found_by_its_name_in_whatever_case() {
        for (number, (family, name)) in COMMANDS.iter().enumerate().skip(2) {
            assert!(name.len() <= LONGEST, "{name}");
            for name in [(*name).to_owned(), name.to_ascii_lowercase()] {
                let found = Command::named(name.as_bytes());
                assert_eq!(
                    (found.family(), usize::from(found.number)),
                    (*family, number),
                    "{name}: listed twice?"
                );
            }
        }
    }

    #[test]
    fn what_is_no_command_keeps_its_name_to_itself() {
        let almost = ["\0GET", " GET", "EVAL\x7fRO", "GEORADIUXBYMEMBER"];
        assert!(almost.iter().all(|name| Command::known(name.as_bytes()).is_none()));
        for name in ["", "G", "GETS", "get\r\n", "user:1000:password", "other", "modules", &"x".repeat(1000)]
        {
            assert_eq!(Command::named(name.as_bytes()).name(), "other", "{name}");
        }
        for name in ["JSON.GET", "ft.search", "a.secret"] {
            let found = Command::named(name.as_bytes());
            assert_eq!((found.name(), found.family()), ("module", Family::Module));
        }
    }

    #[test]
    fn each_family_has_its_label() {
        assert_eq!(Family::LABELS[Family::SortedSet as usize], "sorted_set");
        assert_eq!(Family::LABELS.len(), Family::VectorSet as usize + 1);
        assert!(Family::LABELS[1..].is_sorted());
    }
}
