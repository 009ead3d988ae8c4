//! Reads what a server reports about a command that the table lacks: its reply to COMMAND INFO.

use crate::resp::value::{Data, Value};

/// What the reply to COMMAND INFO says about sharing a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandInfo {
    /// Clients may share a connection for the command. It reads or writes keys, and scripts may call it. Servers forbid scripts to call
    /// commands that block or that leave state on the connection.
    Shareable,
    /// Clients may not share a connection for it, or the reply does not settle that.
    NotShareable,
    /// The server lacks the command. It answers it with an error, and has no other effect.
    Absent,
}

/// Reads a server's reply to COMMAND INFO with one name.
pub fn may_be_shared(reply: &[u8]) -> CommandInfo {
    const NEEDS_MORE: &[&str] = &["admin", "blocking", "no_auth", "no_multi", "noscript", "pubsub"];
    let read = || {
        let reply = Value::parse(reply).ok()?;
        let [info] = reply.list()? else { return None };
        if info.data == Data::Null {
            return Some(CommandInfo::Absent);
        }
        // The elements are name, arity, flags.
        let flags = info.list()?.get(2)?.list()?;
        let has =
            |wanted: &[&str]| flags.iter().any(|flag| flag.text().is_some_and(|flag| wanted.contains(&flag)));
        (has(&["readonly", "write"]) && !has(NEEDS_MORE)).then_some(CommandInfo::Shareable)
    };
    read().unwrap_or(CommandInfo::NotShareable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_a_command_decide_whether_it_is_shared() {
        let info = |flags: &[&str]| {
            let count = flags.len();
            let flags = flags.iter().map(|flag| ["+", flag, "\r\n"].concat()).collect::<Vec<_>>().concat();
            format!("*1\r\n*4\r\n$3\r\nx.y\r\n:-2\r\n*{count}\r\n{flags}:1\r\n")
        };
        let of = |flags: &[&str]| may_be_shared(info(flags).as_bytes());
        assert_eq!(of(&["readonly", "fast"]), CommandInfo::Shareable);
        assert_eq!(of(&["write", "denyoom"]), CommandInfo::Shareable);
        assert_eq!(of(&["write", "blocking"]), CommandInfo::NotShareable);
        assert_eq!(of(&["write", "noscript"]), CommandInfo::NotShareable);
        assert_eq!(of(&[]), CommandInfo::NotShareable);
        for absent in [&b"*1\r\n$-1\r\n"[..], b"*1\r\n*-1\r\n", b"*1\r\n_\r\n"] {
            assert_eq!(may_be_shared(absent), CommandInfo::Absent);
        }
        assert_eq!(may_be_shared(b"-NOPERM\r\n"), CommandInfo::NotShareable);
    }
}
