//! Which library a client uses, from the commands that it begins with. Only where they really tell; what a client says
//! itself, by `CLIENT SETINFO`, beats any guess.

/// Number of commands examined: a client's habits show in its first commands, or never.
const MAX_GUESS_COMMANDS: u8 = 4;

/// Looks at a client's first commands.
#[derive(Debug, Default)]
pub struct Guess {
    seen: u8,
    /// One of them did not set the connection up, in lower case.
    otherwise: bool,
    /// Then came `info`: only more commands tell a library from a person.
    asked_info: bool,
}

/// What ioredis before 5.8 (which says its name) and `node_redis` before 4 have in common.
pub(super) const NODE_LIBRARIES: &str = "ioredis or node_redis";

impl Guess {
    /// Whether the next command may tell.
    #[inline]
    pub fn goes_on(&self) -> bool {
        self.seen < MAX_GUESS_COMMANDS
    }

    /// Looks at the next command: its name and, where they matter, its first two arguments, and how many words it has.
    pub fn look(&mut self, command: [&[u8]; 3], words: u64) -> Option<&'static str> {
        self.seen = self.seen.saturating_add(1);
        let found = self.recognise(command, words);
        if found.is_some() {
            self.seen = MAX_GUESS_COMMANDS;
        }
        found
    }

    fn recognise(&mut self, [name, first, second]: [&[u8]; 3], words: u64) -> Option<&'static str> {
        if self.asked_info {
            return Some(NODE_LIBRARIES);
        }
        let is = |word: &[u8], text: &str| word.eq_ignore_ascii_case(text.as_bytes());
        // For its completions and hints (`cliInitHelp` in redis-cli.c, from 7.0 on).
        if is(name, "COMMAND") && is(first, "DOCS") {
            return Some("redis-cli");
        }
        // What it prints in its header (`getRedisConfig` in redis-benchmark.c).
        if self.seen == 1 && is(name, "CONFIG") && is(first, "GET") && is(second, "save") {
            return Some("redis-benchmark");
        }
        // Other libraries that begin with HELLO write it in upper case.
        if self.seen == 1 && name == b"hello" {
            return Some("go-redis");
        }
        self.asked_info = !self.otherwise && name == b"info" && words == 1;
        self.otherwise |= ![&b"auth"[..], b"select", b"client"].contains(&name);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(commands: &[&str]) -> Option<&'static str> {
        let mut guess = Guess::default();
        for command in commands {
            if !guess.goes_on() {
                return None;
            }
            let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
            let word = |at: usize| words.get(at).copied().unwrap_or_default();
            if let Some(library) = guess.look([word(0), word(1), word(2)], words.len() as u64) {
                assert!(!guess.goes_on());
                return Some(library);
            }
        }
        None
    }

    #[test]
    fn a_library_is_known_by_how_it_begins() {
        assert_eq!(guess(&["COMMAND DOCS"]), Some("redis-cli"));
        assert_eq!(guess(&["SELECT 1", "COMMAND DOCS"]), Some("redis-cli"));
        assert_eq!(guess(&["CONFIG GET save", "CONFIG GET appendonly"]), Some("redis-benchmark"));
        assert_eq!(guess(&["hello 3"]), Some("go-redis"));
        assert_eq!(guess(&["info", "get k"]), Some(NODE_LIBRARIES));
        assert_eq!(guess(&["auth", "client SETNAME", "select 2", "info"]), None, "nothing followed yet");
        assert_eq!(guess(&["client SETNAME", "select 2", "info", "set k"]), Some(NODE_LIBRARIES));
    }

    #[test]
    fn what_any_client_could_send_tells_nothing() {
        for commands in [
            &["GET k"][..],
            &["INFO", "GET k"],
            &["info"],
            &["info server", "get k"],
            &["get k", "info", "get k"],
            &["HELLO 3", "CLIENT SETNAME"],
            &["PING", "hello 3"],
            &["COMMAND"],
            &["CONFIG GET maxmemory"],
            &["GET k", "CONFIG GET save"],
            &["PING", "PING", "PING", "PING", "COMMAND DOCS"],
        ] {
            assert_eq!(guess(commands), None, "{commands:?}");
        }
    }
}
