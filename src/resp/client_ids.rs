//! Finds the ids of connections in CLIENT subcommands.

use super::command_table::Command;
use super::words::is_same;

/// An id that no server gives to a connection.
pub const NO_ID: &[u8] = b"9223372036854775807";

/// The ids in a request with these words, each with the index of its word (`clientCommand` in `networking.c`).
pub fn named_in(words: &[&[u8]]) -> Vec<(usize, u64)> {
    let is = |at: usize, text: &str| words.get(at).is_some_and(|word| is_same(word, text.as_bytes()));
    let number = |at: usize| Some((at, std::str::from_utf8(words.get(at)?).ok()?.parse().ok()?));
    let options = 2..words.len();
    match Command::of_words(words) {
        Command::CLIENT_UNBLOCK => number(2).into_iter().collect(),
        Command::CLIENT_TRACKING => {
            options.filter(|at| is(*at, "REDIRECT")).filter_map(|at| number(at + 1)).collect()
        }
        // Valkey takes several ids after one ID.
        Command::CLIENT_KILL => {
            options.filter(|at| is(*at, "ID")).flat_map(|at| (at + 1..).map_while(number)).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether the reply to this command shows the client the id of its connection. ACL LOG shows it in its entries.
pub(super) fn is_shown_by(command: Command) -> bool {
    matches!(command, Command::ACL_LOG | Command::CLIENT_ID | Command::CLIENT_INFO | Command::CLIENT_LIST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_where_servers_read_them() {
        let named = |text: &str| named_in(&text.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        assert_eq!(named("client tracking on redirect 7 bcast prefix a"), [(4, 7)]);
        assert_eq!(named("CLIENT UNBLOCK 8 ERROR"), [(2, 8)]);
        assert_eq!(named("CLIENT KILL ID 9 MAXAGE 10"), [(3, 9)]);
        assert_eq!(named("CLIENT KILL TYPE normal id 10 11 SKIPME no"), [(5, 10), (6, 11)]);
        for none in [
            "CLIENT KILL 127.0.0.1:5",
            "CLIENT TRACKING ON",
            "CLIENT UNBLOCK x",
            "CLIENT ID",
            "GET UNBLOCK 7",
            "CLIENT",
        ] {
            assert!(named(none).is_empty(), "{none}");
        }
    }
}
