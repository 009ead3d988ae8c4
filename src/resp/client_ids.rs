//! CLIENT subcommands that name connections by their numbers.

use super::words::is_same;

/// A number that no server gives to a connection.
pub const NO_ID: &[u8] = b"9223372036854775807";

/// The numbers in a request with these words, each with its place among them (`clientCommand` in `networking.c`).
pub fn named_in(words: &[&[u8]]) -> Vec<(usize, u64)> {
    let is = |at: usize, text: &str| words.get(at).is_some_and(|word| is_same(word, text.as_bytes()));
    let number = |at: usize| Some((at, std::str::from_utf8(words.get(at)?).ok()?.parse().ok()?));
    if !is(0, "CLIENT") {
        return Vec::new();
    }
    let options = 2..words.len();
    if is(1, "UNBLOCK") {
        number(2).into_iter().collect()
    } else if is(1, "TRACKING") {
        options.filter(|at| is(*at, "REDIRECT")).filter_map(|at| number(at + 1)).collect()
    } else if is(1, "KILL") {
        // Valkey takes several after one ID.
        options.filter(|at| is(*at, "ID")).flat_map(|at| (at + 1..).map_while(number)).collect()
    } else {
        Vec::new()
    }
}

/// Whether the reply to a request with this CLIENT subcommand tells the client the number of its connection.
pub(super) fn is_told_by(subcommand: &[u8]) -> bool {
    [&b"ID"[..], b"INFO", b"LIST"].iter().any(|known| is_same(subcommand, known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_where_servers_look_for_them() {
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
