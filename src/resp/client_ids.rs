//! CLIENT subcommands that name a connection by its number, and what a server says to a number that it does not know.

use super::words::is_same;

/// What a request asks of connections that it names by their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedIds {
    /// Their numbers.
    pub ids: Vec<u64>,
    /// The server's reply if there is no such connection, to the byte.
    pub unknown: &'static [u8],
}

/// `trackingCommand` and the branches of `clientCommand` in `networking.c`.
const NO_REDIRECT: &[u8] = b"-ERR The client ID you want redirect to does not exist\r\n";
const NONE: &[u8] = b":0\r\n";

impl NamedIds {
    /// Of a request with these words. `None`: it names no connection by its number.
    pub fn of(words: &[&[u8]]) -> Option<Self> {
        let is = |word: &[u8], text: &str| is_same(word, text.as_bytes());
        let [client, subcommand, rest @ ..] = words else { return None };
        if !is(client, "CLIENT") {
            return None;
        }
        let (candidates, unknown): (Vec<&[u8]>, _) = if is(subcommand, "UNBLOCK") {
            (rest.iter().take(1).copied().collect(), NONE)
        } else if is(subcommand, "TRACKING") {
            let after = rest.windows(2).filter(|pair| is(pair[0], "REDIRECT"));
            (after.map(|pair| pair[1]).collect(), NO_REDIRECT)
        } else if is(subcommand, "KILL") {
            // Valkey takes several after one ID.
            let at = rest.iter().position(|word| is(word, "ID"));
            (at.map(|at| rest[at + 1..].to_vec()).unwrap_or_default(), NONE)
        } else {
            return None;
        };
        let ids: Vec<u64> =
            candidates.iter().filter_map(|word| std::str::from_utf8(word).ok()?.parse().ok()).collect();
        (!ids.is_empty()).then_some(Self { ids, unknown })
    }

    /// Whether a CLIENT subcommand may name one.
    pub(super) fn may_be_in(subcommand: &[u8]) -> bool {
        [&b"KILL"[..], b"TRACKING", b"UNBLOCK"].iter().any(|known| is_same(subcommand, known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_where_servers_look_for_them() {
        let of = |text: &str| {
            let words: Vec<&[u8]> = text.split(' ').map(str::as_bytes).collect();
            NamedIds::of(&words).map(|named| (named.ids, named.unknown))
        };
        assert_eq!(of("client tracking on redirect 7 bcast prefix a"), Some((vec![7], NO_REDIRECT)));
        assert_eq!(of("CLIENT UNBLOCK 8 ERROR"), Some((vec![8], NONE)));
        assert_eq!(of("CLIENT KILL ID 9"), Some((vec![9], NONE)));
        assert_eq!(of("CLIENT KILL TYPE normal id 10 11 SKIPME no"), Some((vec![10, 11], NONE)));
        for none in [
            "CLIENT KILL 127.0.0.1:5",
            "CLIENT TRACKING ON",
            "CLIENT UNBLOCK x",
            "CLIENT ID",
            "GET UNBLOCK 7",
            "CLIENT",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
