//! Guesses a client's library from its first commands, where these identify it. What a client says by `CLIENT SETINFO` takes precedence.

/// Number of commands examined: a client shows its library in its first commands, or never.
const MAX_GUESS_COMMANDS: u8 = 4;

/// Examines a client's first commands.
#[derive(Debug, Default)]
pub struct Guess {
    seen: u8,
    /// Whether one of the commands, in lower case, was not part of the connection's setup.
    otherwise: bool,
    /// Whether the last command was `info`. Only another command distinguishes a library from a person.
    asked_info: bool,
}

/// The common guess for ioredis before 5.8 (later versions send their name) and `node_redis` before 4.
pub(super) const NODE_LIBRARIES: &str = "ioredis or node_redis";

impl Guess {
    /// Whether another command can still help.
    #[inline]
    pub fn goes_on(&self) -> bool {
        self.seen < MAX_GUESS_COMMANDS
    }

    /// Examines the next command: its name, its first two arguments where they matter, and its number of words.
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
        // redis-cli asks for completions and hints (`cliInitHelp` in redis-cli.c, since 7.0).
        if is(name, "COMMAND") && is(first, "DOCS") {
            return Some("redis-cli");
        }
        // redis-benchmark asks for what it prints in its header (`getRedisConfig` in redis-benchmark.c).
        if self.seen == 1 && is(name, "CONFIG") && is(first, "GET") && is(second, "save") {
            return Some("redis-benchmark");
        }
        // Other libraries that start with HELLO send it in upper case.
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
    fn a_library_is_recognised_by_its_first_commands() {
        assert_eq!(guess(&["COMMAND DOCS"]), Some("redis-cli"));
        assert_eq!(guess(&["SELECT 1", "COMMAND DOCS"]), Some("redis-cli"));
        assert_eq!(guess(&["CONFIG GET save", "CONFIG GET appendonly"]), Some("redis-benchmark"));
        assert_eq!(guess(&["hello 3"]), Some("go-redis"));
        assert_eq!(guess(&["info", "get k"]), Some(NODE_LIBRARIES));
        assert_eq!(guess(&["auth", "client SETNAME", "select 2", "info"]), None, "nothing followed yet");
        assert_eq!(guess(&["client SETNAME", "select 2", "info", "set k"]), Some(NODE_LIBRARIES));
    }

    #[test]
    fn commands_that_any_client_sends_identify_no_library() {
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
