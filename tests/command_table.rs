//! Compares pontoon's command table with what the server says about its own commands.

use pontoon::resp::command_table::{Command, Family, Multiplexing, PinReason, ReplyKind};
use pontoon::resp::value::Value;

use crate::harness::{Authority, Redis};

/// Replies to COMMAND and its subcommands, as `redis-server` of this machine gives them.
fn ask(words: &[&str]) -> Vec<u8> {
    let authority = Authority::new();
    let mut redis = Redis::start(&authority);
    redis.keep(authority);
    redis.direct().ask(words)
}

/// A command, or one with its first argument, and its flags.
struct Told {
    name: String,
    first: String,
    flags: Vec<String>,
}

impl Told {
    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|known| known == flag)
    }

    fn command(&self) -> Command {
        Command::of_words(&[self.name.as_bytes(), self.first.as_bytes()])
    }

    fn full_name(&self) -> String {
        format!("{} {}", self.name, self.first).trim().to_owned()
    }
}

fn text(value: &Value<'_>) -> String {
    value.text().unwrap().to_owned()
}

/// Each command that the server has, and each subcommand if the server lists them (since Redis 7.0).
fn all(reply: &[u8]) -> Vec<Told> {
    let reply = Value::parse(reply).unwrap();
    let mut told = Vec::new();
    for command in reply.list().unwrap() {
        let fields = command.list().unwrap();
        let of = |fields: &[Value<'_>]| fields[2].list().unwrap().iter().map(text).collect();
        let name = text(&fields[0]).to_uppercase();
        for subcommand in fields.get(9).and_then(Value::list).unwrap_or_default() {
            let fields = subcommand.list().unwrap();
            let full = text(&fields[0]).to_uppercase();
            let first = full.split_once('|').unwrap().1.to_owned();
            told.push(Told { name: name.clone(), first, flags: of(fields) });
        }
        told.push(Told { name, first: String::new(), flags: of(fields) });
    }
    told
}

/// Flags of commands that need a dedicated connection: they block, or leave state on it.
const MORE: [&str; 6] = ["admin", "blocking", "no_auth", "no_multi", "noscript", "pubsub"];

/// A script may not call these, but they need no dedicated connection: a script leaves no state on the connection, and published messages
/// reach subscribers from any connection.
const SHARED_ALL_THE_SAME: [&str; 12] = [
    "EVAL",
    "EVALSHA",
    "EVALSHA_RO",
    "EVAL_RO",
    "FCALL",
    "FCALL_RO",
    "FUNCTION",
    "PUBLISH",
    "PUBSUB",
    "SCRIPT",
    "SPUBLISH",
    "UNWATCH",
];

/// No flag says why these need a dedicated connection. MIGRATE waits for another server, FLUSHALL and FLUSHDB wait until memory is freed,
/// and VADD and VSIM wait for a thread. Redis before 7.0 says neither that XREAD and XREADGROUP may block, nor that `HOST:` and `POST`
/// (HTTP requests) end the connection.
const ALONE_ALL_THE_SAME: [&str; 9] =
    ["FLUSHALL", "FLUSHDB", "HOST:", "MIGRATE", "POST", "VADD", "VSIM", "XREAD", "XREADGROUP"];

/// Servers flag these as blocking because they hold up their connection; their reply comes as soon as the work is done.
const HOLDS_UP: [&str; 4] = ["FLUSHALL", "FLUSHDB", "VADD", "VSIM"];

/// These block because of an option, or only some engines flag them.
const BLOCKS_ALL_THE_SAME: [&str; 4] = ["WAIT", "WAITAOF", "XREAD", "XREADGROUP"];

#[test]
fn every_server_command_is_known_and_agrees_with_its_flags() {
    let mut wrong = Vec::new();
    let all = all(&ask(&["COMMAND"]));
    // Redis before 7.0 has no such flag.
    let tells_blocking = all.iter().any(|told| told.has("blocking"));
    for told in all {
        let (name, facts) = (told.full_name(), told.command().facts());
        let mut is = |what: &str| wrong.push(format!("{name} {what}: {facts:?}, {:?}", told.flags));
        if facts.multiplexing == Multiplexing::Unknown {
            is("is not known");
        }
        if told.name == "CLIENT" && !told.first.is_empty() && told.command() == Command::CLIENT {
            is("is not listed");
        }
        let is_pinned =
            matches!(facts.multiplexing, Multiplexing::Dedicated(PinReason::Blocking | PinReason::Wait));
        let may_block = matches!(facts.reply, ReplyKind::Blocking | ReplyKind::BlockingByOption);
        if told.has("blocking") && !(is_pinned && (may_block || HOLDS_UP.contains(&&*told.name))) {
            is("may block");
        }
        if may_block && tells_blocking && !told.has("blocking") && !BLOCKS_ALL_THE_SAME.contains(&&*told.name)
        {
            is("does not block");
        }
        if told.has("write") && !facts.writes {
            is("writes");
        }
        let (needs_more, is_shared) =
            (MORE.iter().any(|flag| told.has(flag)), facts.multiplexing == Multiplexing::Shared);
        if is_shared && needs_more && !SHARED_ALL_THE_SAME.contains(&&*told.name) {
            is("is shared");
        }
        let touches_keys = told.has("readonly") || told.has("write");
        if !is_shared && touches_keys && !needs_more && !ALONE_ALL_THE_SAME.contains(&&*told.name) {
            is("could be shared");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_command_is_in_the_family_that_the_servers_documentation_names() {
    let reply = ask(&["COMMAND", "DOCS"]);
    if reply.starts_with(b"-") {
        // Redis before 7.0 has no COMMAND DOCS.
        return;
    }
    let reply = Value::parse(&reply).unwrap();
    let mut wrong = Vec::new();
    for pair in reply.list().unwrap().chunks(2) {
        let name = text(&pair[0]).to_uppercase();
        let fields: Vec<String> =
            pair[1].list().unwrap().iter().map(|field| field.text().unwrap_or_default().to_owned()).collect();
        let group = fields.chunks(2).find(|pair| pair[0] == "group").map(|pair| pair[1].replace('-', "_"));
        // Vector sets are a module that names no group.
        let Some(group) = group.filter(|group| group != "module") else { continue };
        let family = Command::named(name.as_bytes()).family();
        let label = Family::LABELS[family as usize];
        if label != group {
            wrong.push(format!("{name}: {group}, not {label}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
