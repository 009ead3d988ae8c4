//! CLIENT requests that are not sent on as the client wrote them: one tells the server that the client comes through pontoon,
//! the other would make the server push addresses that lead around it.

use std::borrow::Cow;

use super::command_table::Command;
use super::words::is_same;

/// Added to the name of a client's library: what `CLIENT LIST` shows of a client that comes through pontoon.
pub const MARK: &str = "pontoon";

/// How much longer a marked name is, at most.
pub(super) const MARK_LENGTH: usize = MARK.len() + "()".len();

/// What to send in place of a request with these words. `None`: the request as it is. What is returned is itself sent as it is.
///
/// - `CLIENT SETINFO LIB-NAME redis-py` goes as `redis-py(pontoon)`. Clients themselves name what builds on them in parentheses,
///   separated by semicolons ([CLIENT SETINFO](https://redis.io/docs/latest/commands/client-setinfo/)). Servers take any printable
///   ASCII but spaces (`validateClientAttr` in `networking.c`), so the mark changes no verdict.
/// - `CLIENT MAINT_NOTIFICATIONS ON …` goes as `… OFF`. After ON, Redis Enterprise and Redis Cloud push addresses of their own nodes
///   ([smart client handoffs](https://redis.io/docs/latest/develop/clients/sch)). `off` without options is how go-redis takes it back
///   (`ClientMaintNotifications` in its `commands.go`). A server that does not know the subcommand answers with the same error
///   either way. redis-py 8 (`_enable_maintenance_notifications` in `connection.py`) and node-redis 6
///   (`enterprise-maintenance-manager.ts`) go on after an error, unless the application insists, and after `+OK`.
///
/// - `CLIENT CAPA redirect` goes without the capability, by a name that servers ignore: with it a replica of Valkey 8 answers
///   with `-REDIRECT` and the address of its primary ([CLIENT CAPA](https://valkey.io/commands/client-capa/)).
///
/// A request with another number of words is left alone: it gets the server's own error.
pub fn instead<'a>(words: &[&'a [u8]]) -> Option<Vec<Cow<'a, [u8]>>> {
    let is = |at: usize, text: &str| words.get(at).is_some_and(|word| is_same(word, text.as_bytes()));
    match (Command::of_words(words), words) {
        // An error repeats these words as the client wrote them.
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

/// Whether a request with this command must not be sent on unseen. The name of a library may: without the mark it counts as a direct
/// client's.
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

/// Whether a library of this name comes through pontoon, or is pontoon.
pub fn is_marked(name: &[u8]) -> bool {
    let within = || {
        let name = name.strip_suffix(b")")?;
        let begins = name.iter().rposition(|byte| *byte == b'(')?;
        Some(name[begins + 1..].split(|byte| *byte == b';').any(|part| part == MARK.as_bytes()))
    };
    name == MARK.as_bytes() || within().unwrap_or(false)
}

/// The name with the mark.
pub fn marked(name: &[u8]) -> Vec<u8> {
    match name.strip_suffix(b")") {
        _ if is_marked(name) => name.to_vec(),
        Some(rest) if rest.contains(&b'(') => [rest, b";", MARK.as_bytes(), b")"].concat(),
        _ => [name, b"(", MARK.as_bytes(), b")"].concat(),
    }
}

/// The name as it was before it was marked.
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
    fn the_name_of_a_library_is_sent_with_a_mark() {
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
    fn notifications_of_maintenance_are_switched_off_where_a_client_switches_them_on() {
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
    fn no_server_is_asked_to_redirect() {
        assert_eq!(sent("client capa Redirect").as_deref(), Some("client capa pontoon"));
        assert_eq!(sent("CLIENT CAPA other REDIRECT").as_deref(), Some("CLIENT CAPA other pontoon"));
    }

    #[test]
    fn all_else_is_sent_as_it_is() {
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
    fn a_name_that_no_server_takes_stays_one() {
        let other = instead(&[b"CLIENT", b"SETINFO", b"LIB-NAME", b"redis py"]).unwrap();
        assert_eq!(&other[3][..], b"redis py(pontoon)");
    }

    proptest! {
        #[test]
        fn a_mark_is_added_once_and_can_be_taken_off(name in "[a-c();]{0,6}(\\(?;?pontoon\\)?)?[();]{0,2}") {
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
