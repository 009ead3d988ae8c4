//! Finds a command's row by its name.

use std::sync::LazyLock;

use memchr::memchr;

use super::facts::{AddressReply, Facts, Family, ReplyKind};
use super::table::{GROUPS, KNOWN_MODULES};
use crate::resp::request::Request;
use crate::resp::words::up_to_zero;

/// A command that the table lists, or the row for commands that it lacks. A row never contains the client's own bytes: a broken client may
/// send a key or a password as a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    number: u16,
}

/// A command, or a command with its first argument, and its facts.
struct Row {
    /// The name, such as `CLIENT|ID`.
    name: &'static str,
    family: Family,
    facts: Facts,
    /// The kind of a request with it, unless its arguments decide that.
    request: Request,
    /// Some of its subcommands have rows.
    has_subcommands: bool,
}

impl Default for Command {
    fn default() -> Self {
        Self::OTHER
    }
}

#[allow(missing_docs, reason = "the names say it")]
impl Command {
    pub const ACL_LOG: Self = Self::listed("ACL|LOG");
    pub const AUTH: Self = Self::listed("AUTH");
    pub const CLIENT: Self = Self::listed("CLIENT");
    pub const CLIENT_CAPA: Self = Self::listed("CLIENT|CAPA");
    pub const CLIENT_GETNAME: Self = Self::listed("CLIENT|GETNAME");
    pub const CLIENT_ID: Self = Self::listed("CLIENT|ID");
    pub const CLIENT_INFO: Self = Self::listed("CLIENT|INFO");
    pub const CLIENT_KILL: Self = Self::listed("CLIENT|KILL");
    pub const CLIENT_LIST: Self = Self::listed("CLIENT|LIST");
    pub const CLIENT_MAINT_NOTIFICATIONS: Self = Self::listed("CLIENT|MAINT_NOTIFICATIONS");
    pub const CLIENT_SETINFO: Self = Self::listed("CLIENT|SETINFO");
    pub const CLIENT_SETNAME: Self = Self::listed("CLIENT|SETNAME");
    pub const CLIENT_TRACKING: Self = Self::listed("CLIENT|TRACKING");
    pub const CLIENT_UNBLOCK: Self = Self::listed("CLIENT|UNBLOCK");
    pub const CLUSTER: Self = Self::listed("CLUSTER");
    pub const HELLO: Self = Self::listed("HELLO");
    pub const QUIT: Self = Self::listed("QUIT");
    pub const READONLY: Self = Self::listed("READONLY");
    pub const READWRITE: Self = Self::listed("READWRITE");
    pub const RESET: Self = Self::listed("RESET");
    pub const SELECT: Self = Self::listed("SELECT");
}

impl Command {
    /// A command that the table lacks.
    const OTHER: Self = Self { number: 0 };

    /// A module's command that the table lacks.
    const MODULE: Self = Self { number: 1 };

    /// A command of a module that comes with an engine.
    const KNOWN_MODULE: Self = Self { number: 2 };

    /// Number of rows that no name finds.
    const UNNAMED: usize = 3;

    /// Number of rows. Each command's [`number`](Self::number) is less.
    pub const COUNT: usize = {
        let (mut count, mut group) = (0, 0);
        while group < GROUPS.len() {
            let mut family = 0;
            while family < GROUPS[group].commands.len() {
                count += GROUPS[group].commands[family].1.len();
                family += 1;
            }
            group += 1;
        }
        count
    };

    /// The command with this name, in any case, without its first argument.
    #[inline]
    pub fn named(name: &[u8]) -> Self {
        match Self::known(name) {
            Some(command) => command,
            None if memchr(b'.', name).is_none() => Self::OTHER,
            None if KNOWN_MODULES.iter().any(|prefix| begins(name, prefix)) => Self::KNOWN_MODULE,
            None => Self::MODULE,
        }
    }

    /// The command with this name, in any case, if the table lists it.
    #[inline]
    pub fn known(name: &[u8]) -> Option<Self> {
        if name.len() > MAX_NAME {
            return None;
        }
        let sought = key(name);
        let mut at = place(sought);
        while PLACES[at].1.number != Self::OTHER.number {
            let ((first, rest), found) = PLACES[at];
            if first == sought.0 && rest == sought.1 {
                let is_same = ROWS[found.number()].name.as_bytes().eq_ignore_ascii_case(name);
                return if is_same { Some(found) } else { None };
            }
            at = (at + 1) % PLACE_COUNT;
        }
        None
    }

    /// The row of the command with this first argument, or the row of the command alone.
    #[inline]
    #[must_use]
    pub fn with(self, argument: &[u8]) -> Self {
        if ROWS[self.number()].has_subcommands { self.subcommand(argument) } else { self }
    }

    #[cold]
    fn subcommand(self, argument: &[u8]) -> Self {
        let sought = up_to_zero(argument);
        let is_it = |(command, name, _): &&(Self, &str, Self)| {
            *command == self && name.as_bytes().eq_ignore_ascii_case(sought)
        };
        SUBCOMMANDS.iter().find(is_it).map_or(self, |(_, _, row)| *row)
    }

    /// The command with these words, of which the first two count. Compares up to a zero byte, as a server does.
    pub fn of_words(words: &[&[u8]]) -> Self {
        let Some(name) = words.first() else { return Self::OTHER };
        Self::named(up_to_zero(name)).with(words.get(1).copied().unwrap_or_default())
    }

    /// The row with this name, such as `CLIENT|ID`.
    const fn listed(name: &str) -> Self {
        let mut number = 0;
        while number < ALL.len() {
            if is_same(ALL[number].name, name) {
                return Self { number: number as u16 };
            }
            number += 1;
        }
        panic!("the table has the row")
    }

    /// The row's index. Commands that the table lacks share theirs.
    #[inline]
    pub const fn number(self) -> usize {
        self.number as usize
    }

    /// The name in capitals, without a first argument. `other` or `module` for commands that the table lacks.
    #[inline]
    pub fn name(self) -> &'static str {
        parts(ROWS[self.number()].name).0
    }

    /// The group of commands that it belongs to.
    #[inline]
    pub fn family(self) -> Family {
        ROWS[self.number()].family
    }

    /// The facts about it.
    #[inline]
    pub fn facts(self) -> Facts {
        ROWS[self.number()].facts
    }

    /// The form in which its reply holds addresses of nodes. `None`: it holds none.
    #[inline]
    pub fn nodes(self) -> Option<AddressReply> {
        if let ReplyKind::Nodes(reply) = self.facts().reply { Some(reply) } else { None }
    }

    /// The kind of a request with it, unless its arguments decide that.
    #[inline]
    pub fn request(self) -> Request {
        ROWS[self.number()].request
    }
}

fn begins(name: &[u8], prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// All rows, for constants that are computed at compile time.
const ALL: [Row; Command::COUNT] = {
    const EMPTY: Row = Row {
        name: "",
        family: Family::Other,
        facts: GROUPS[0].facts,
        request: Request::Plain,
        has_subcommands: false,
    };
    let mut rows = [EMPTY; Command::COUNT];
    let (mut number, mut group) = (0, 0);
    while group < GROUPS.len() {
        let facts = GROUPS[group].facts;
        let mut at = 0;
        while at < GROUPS[group].commands.len() {
            let (family, names) = GROUPS[group].commands[at];
            let mut name = 0;
            while name < names.len() {
                let request = Request::with(facts);
                rows[number] = Row { name: names[name], family, facts, request, has_subcommands: false };
                number += 1;
                name += 1;
            }
            at += 1;
        }
        group += 1;
    }
    let mut subcommand = 0;
    while subcommand < rows.len() {
        let (command, argument) = parts(rows[subcommand].name);
        let mut number = 0;
        while number < rows.len() && !argument.is_empty() {
            if is_same(command, rows[number].name) {
                rows[number].has_subcommands = true;
                break;
            }
            number += 1;
        }
        subcommand += 1;
    }
    rows
};

static ROWS: [Row; Command::COUNT] = ALL;

/// Commands, their first arguments, and the row for both together.
static SUBCOMMANDS: LazyLock<Vec<(Command, &str, Command)>> = LazyLock::new(|| {
    let parts = ROWS.iter().zip(0..).map(|(row, number)| (parts(row.name), Command { number }));
    let rows = parts.filter(|((_, argument), _)| !argument.is_empty());
    rows.map(|((name, argument), row)| (Command::named(name.as_bytes()), argument, row)).collect()
});

/// A row's command and its first argument, which may be empty.
const fn parts(name: &str) -> (&str, &str) {
    let mut at = 0;
    while at < name.len() {
        if name.as_bytes()[at] == b'|' {
            return (name.split_at(at).0, name.split_at(at + 1).1);
        }
        at += 1;
    }
    (name, "")
}

const fn is_same(one: &str, other: &str) -> bool {
    one.as_bytes().eq_ignore_ascii_case(other.as_bytes())
}

/// The length of the longest name of a command.
const MAX_NAME: usize = 20;

/// More than twice the number of names, so that few names share a place.
const PLACE_COUNT: usize = 1024;

/// A name in capitals, as two numbers, which are compared faster.
type NameKey = (u64, u64);

/// Commands by name. A command is at its name's place or after it, before the next [`Command::OTHER`].
static PLACES: [(NameKey, Command); PLACE_COUNT] = {
    let mut places = [((0, 0), Command::OTHER); PLACE_COUNT];
    let mut number = Command::UNNAMED;
    while number < ALL.len() {
        if parts(ALL[number].name).1.is_empty() {
            let key = key(ALL[number].name.as_bytes());
            let mut at = place(key);
            while places[at].1.number != Command::OTHER.number {
                at = (at + 1) % PLACE_COUNT;
            }
            places[at] = (key, Command { number: number as u16 });
        }
        number += 1;
    }
    places
};

/// In a name of more than sixteen bytes, later bytes push out those from the ninth on. No two commands differ only in these.
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

/// A letter in capitals. Any other byte maps to some byte, always to the same one.
const fn capital(byte: u8) -> u64 {
    (byte & 0xdf) as u64
}

/// Fibonacci hashing.
const fn place((first, rest): NameKey) -> usize {
    let mixed = (first ^ rest.rotate_left(31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (u64::BITS - PLACE_COUNT.ilog2())) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::resp::command_table::{Multiplexing, PinReason};

    fn multiplexing(name: &str, first: &str) -> Multiplexing {
        Command::named(name.as_bytes()).with(first.as_bytes()).facts().multiplexing
    }

    #[test]
    fn a_command_is_found_by_its_name_in_any_case() {
        let mut seen = HashSet::new();
        for (number, row) in ROWS.iter().enumerate().skip(Command::UNNAMED) {
            assert!(seen.insert(row.name), "{} has two rows", row.name);
            let (name, first) = parts(row.name);
            assert!(name.len() <= MAX_NAME, "{name}");
            for (name, first) in
                [(name.to_owned(), first.to_owned()), (name.to_ascii_lowercase(), first.to_ascii_lowercase())]
            {
                let command = Command::named(name.as_bytes());
                assert_ne!(command, Command::OTHER, "{name} has no row of its own");
                assert_eq!(command.family(), row.family, "{name}");
                let with_first = command.with(first.as_bytes());
                assert_eq!(with_first.number(), number, "{name} {first}");
                assert_eq!(with_first.name(), command.name(), "{name} {first}");
            }
        }
    }

    #[test]
    fn an_unknown_name_is_never_shown() {
        let almost = ["\0GET", " GET", "EVAL\x7fRO", "GEORADIUXBYMEMBER", "CLIENT|ID"];
        assert!(almost.iter().all(|name| Command::known(name.as_bytes()).is_none()));
        for name in
            ["", "G", "GE", "GETS", "get\r\n", "user:1000:password", "other", "modules", &"x".repeat(1000)]
        {
            let found = Command::named(name.as_bytes());
            assert_eq!(
                (found.name(), found.facts().multiplexing),
                ("other", Multiplexing::Unknown),
                "{name}"
            );
        }
        for name in ["JSON.GET", "ft.search", "a.secret"] {
            let found = Command::named(name.as_bytes());
            assert_eq!((found.name(), found.family()), ("module", Family::Module));
            assert_eq!(found.facts().multiplexing, Multiplexing::Unknown);
        }
    }

    #[test]
    fn each_family_has_its_label() {
        assert_eq!(Family::LABELS[Family::SortedSet as usize], "sorted_set");
        assert_eq!(Family::LABELS.len(), Family::VectorSet as usize + 1);
        assert!(Family::LABELS[1..].is_sorted());
    }

    #[test]
    fn subcommands_differ_and_unknown_ones_are_not_guessed() {
        let state = Multiplexing::Dedicated(PinReason::ConnectionState);
        assert_eq!(multiplexing("SCRIPT", "LOAD"), Multiplexing::Shared);
        assert_eq!(multiplexing("script", "kill"), Multiplexing::Dedicated(PinReason::Kill));
        assert_eq!(multiplexing("CLIENT", "NO-EVICT"), state);
        assert_eq!(multiplexing("CLIENT", &"x".repeat(100)), state);
        assert_eq!(multiplexing("CLIENT", "ID\0x"), state);
        assert_eq!(multiplexing("GET", "ID"), Multiplexing::Shared);
    }

    #[test]
    fn commands_whose_replies_hold_node_addresses_are_known() {
        for (first, reply) in [
            ("SLOTS", Some(AddressReply::Slots)),
            ("shards", Some(AddressReply::Shards)),
            ("Nodes", Some(AddressReply::Nodes)),
            ("replicas", Some(AddressReply::Replicas)),
            ("SLAVES", Some(AddressReply::Replicas)),
            ("INFO", None),
            ("SLOTSTATS", None),
            ("", None),
        ] {
            assert_eq!(Command::of_words(&[b"cluster", first.as_bytes()]).nodes(), reply, "{first}");
        }
        assert_eq!(Command::of_words(&[b"COMMAND", b"SLOTS"]).nodes(), None);
        assert_eq!(Command::of_words(&[]), Command::OTHER);
    }
}
