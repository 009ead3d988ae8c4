//! CLIENT requests that pontoon changes before it sends them. One tags the client's library, so that the server's client list shows that
//! the client connects through pontoon. The others would make the server send addresses that bypass pontoon.

use std::borrow::Cow;

use super::command_table::Command;
use super::words::is_same;

/// The mark that pontoon adds to the name of a client's library. `CLIENT LIST` shows it for clients of pontoon.
pub const MARK: &str = "pontoon";

/// Number of bytes that the mark adds, at most.
pub(super) const MARK_LENGTH: usize = MARK.len() + "()".len();

/// What to send in place of a request with these words. `None`: the request goes unchanged. A replacement is not replaced again.
///
/// - `CLIENT SETINFO LIB-NAME redis-py` goes as `redis-py(pontoon)`. Clients list the libraries built on them in parentheses, separated by
///   semicolons ([CLIENT SETINFO](https://redis.io/docs/latest/commands/client-setinfo/)). Servers accept any printable ASCII except spaces
///   (`validateClientAttr` in `networking.c`), so a name is accepted with the mark exactly if it is accepted without.
/// - `CLIENT MAINT_NOTIFICATIONS ON …` goes as `… OFF`. After ON, Redis Enterprise and Redis Cloud push addresses of their own nodes
///   ([smart client handoffs](https://redis.io/docs/latest/develop/clients/sch)). go-redis sends `off` without options to undo it
///   (`ClientMaintNotifications` in its `commands.go`). A server that lacks the subcommand answers with the same error either way. redis-py
///   8 (`_enable_maintenance_notifications` in `connection.py`) and node-redis 6 (`enterprise-maintenance-manager.ts`) continue after
///   `+OK`, and after an error unless the application requires notifications.
/// - `CLIENT CAPA redirect` goes with a name that servers ignore in place of the capability. With it, a replica of Valkey 8 answers with
///   `-REDIRECT` and the address of its primary ([CLIENT CAPA](https://valkey.io/commands/client-capa/)).
///
/// A request with another number of words goes unchanged, and the server answers with its own error.
pub fn instead<'a>(words: &[&'a [u8]]) -> Option<Vec<Cow<'a, [u8]>>> {
    let is = |at: usize, text: &str| words.get(at).is_some_and(|word| is_same(word, text.as_bytes()));
    match (Command::of_words(words), words) {
        // The first words stay as the client wrote them, because an error reply repeats them.
        (Command::CLIENT_SETINFO, [client, setinfo, option, name])
            if is(2, "LIB-NAME") && !is_marked(name) =>
        {
            Some(vec![(*client).into(), (*setinfo).into(), (*option).into(), marked(name).into()])
        }
        (Command::CLIENT_MAINT_NOTIFICATIONS, [client, notifications, _, ..]) if is(2, "ON") => {
            Some(vec![(*client).into(), (*notifications).into(), b"OFF"[..].into()])
        }
        (Command::CLIENT_CAPA, [_, _, capabilities @ ..]) => {
            let is_redirect = |word: &&[u8]| is_same(word, b"redirect");
            let without =
                |word: &&'a [u8]| if is_redirect(word) { MARK.as_bytes().into() } else { (*word).into() };
            capabilities.iter().any(is_redirect).then(|| words.iter().map(without).collect())
        }
        _ => None,
    }
}

/// Whether pontoon must read each request with this command before it sends it. CLIENT SETINFO is not among them: a library without the
/// mark only counts as a direct client.
pub(super) fn must_be_seen(command: Command) -> bool {
    matches!(
        command,
        Command::CLIENT_CAPA
            | Command::CLIENT_KILL
            | Command::CLIENT_MAINT_NOTIFICATIONS
            | Command::CLIENT_TRACKING
            | Command::CLIENT_UNBLOCK
    )
}

/// Whether this library name has the mark, or is pontoon's own.
pub fn is_marked(name: &[u8]) -> bool {
    let within = || {
        let name = name.strip_suffix(b")")?;
        let begins = name.iter().rposition(|byte| *byte == b'(')?;
        Some(name[begins + 1..].split(|byte| *byte == b';').any(|part| part == MARK.as_bytes()))
    };
    name == MARK.as_bytes() || within().unwrap_or(false)
}

/// The name with the mark added.
pub fn marked(name: &[u8]) -> Vec<u8> {
    match name.strip_suffix(b")") {
        _ if is_marked(name) => name.to_vec(),
        Some(rest) if rest.contains(&b'(') => [rest, b";", MARK.as_bytes(), b")"].concat(),
        _ => [name, b"(", MARK.as_bytes(), b")"].concat(),
    }
}

/// The name with the mark removed.
pub fn without_mark(name: &[u8]) -> Vec<u8> {
    let before = |mark: &[u8]| name.strip_suffix(b")")?.strip_suffix(MARK.as_bytes())?.strip_suffix(mark);
    match (before(b"("), before(b";")) {
        (Some(name), _) => name.to_vec(),
        (None, Some(rest)) => [rest, b")"].concat(),
        (None, None) => name.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::words::Words;
    use proptest::prelude::*;

    fn sent(line: &str) -> Option<String> {
        let words = Words::of_line(line.as_bytes()).unwrap();
        let words: Vec<&[u8]> = words.iter().collect();
        Some(String::from_utf8(instead(&words)?.join(&b' ')).unwrap())
    }

    #[test]
    fn a_library_name_is_sent_with_the_mark() {
        for (name, marked) in [
            ("redis-py", "redis-py(pontoon)"),
            ("redis-py(rq_v1)", "redis-py(rq_v1;pontoon)"),
            ("redis-py(rq_v1;celery_v5)", "redis-py(rq_v1;celery_v5;pontoon)"),
            ("x()", "x(;pontoon)"),
            ("x)", "x)(pontoon)"),
            ("x(y)z", "x(y)z(pontoon)"),
            ("''", "(pontoon)"),
            ("xpontoon", "xpontoon(pontoon)"),
            ("x(xpontoon)", "x(xpontoon;pontoon)"),
        ] {
            let expected = format!("client SetInfo lib-NAME {marked}");
            assert_eq!(sent(&format!("client SetInfo lib-NAME {name}")), Some(expected));
        }
    }

    #[test]
    fn a_request_for_maintenance_notifications_switches_them_off() {
        for line in [
            "CLIENT MAINT_NOTIFICATIONS ON",
            "CLIENT MAINT_NOTIFICATIONS ON moving-endpoint-type external-ip",
            "CLIENT MAINT_NOTIFICATIONS on x",
        ] {
            assert_eq!(sent(line).as_deref(), Some("CLIENT MAINT_NOTIFICATIONS OFF"));
        }
        assert_eq!(sent("client maint_notifications On").as_deref(), Some("client maint_notifications OFF"));
    }

    #[test]
    fn the_redirect_capability_is_not_requested() {
        assert_eq!(sent("client capa Redirect").as_deref(), Some("client capa pontoon"));
        assert_eq!(sent("CLIENT CAPA other REDIRECT").as_deref(), Some("CLIENT CAPA other pontoon"));
    }

    #[test]
    fn other_requests_are_sent_unchanged() {
        for line in [
            "CLIENT",
            "CLIENT SETINFO",
            "CLIENT SETINFO LIB-NAME",
            "CLIENT SETINFO LIB-NAME a b",
            "CLIENT SETINFO LIB-VER 1.0",
            "CLIENT SETINFO OTHER x",
            "CLIENT SETNAME lib-name",
            "CLIENT SETINFO LIB-NAME pontoon",
            "CLIENT SETINFO LIB-NAME redis-py(pontoon)",
            "CLIENT SETINFO LIB-NAME redis-py(rq_v1;pontoon)",
            "CLIENT SETINFO LIB-NAME redis-py(pontoon;rq_v1)",
            "CLIENT MAINT_NOTIFICATIONS",
            "CLIENT MAINT_NOTIFICATIONS OFF",
            "CLIENT MAINT_NOTIFICATIONS moving-endpoint-type ON",
            "CLIENT TRACKING ON",
            "CLIENT CAPA",
            "CLIENT CAPA other",
            "SET SETINFO LIB-NAME x",
            "SET MAINT_NOTIFICATIONS ON",
        ] {
            assert_eq!(sent(line), None, "{line}");
        }
    }

    #[test]
    fn an_invalid_name_stays_invalid() {
        let other = instead(&[b"CLIENT", b"SETINFO", b"LIB-NAME", b"redis py"]).unwrap();
        assert_eq!(&other[3][..], b"redis py(pontoon)");
    }

    proptest! {
        #[test]
        fn the_mark_is_added_once_and_can_be_removed(name in "[a-c();]{0,6}(\\(?;?pontoon\\)?)?[();]{0,2}") {
            let name = name.as_bytes();
            let marked = marked(name);
            prop_assert!(is_marked(&marked) && marked.len() <= name.len() + MARK_LENGTH);
            prop_assert_eq!(super::marked(&marked), marked.clone());
            prop_assert_eq!(instead(&[b"CLIENT", b"SETINFO", b"LIB-NAME", &marked]), None);
            if !is_marked(name) {
                prop_assert_eq!(without_mark(&marked), name);
            }
        }
    }
}
