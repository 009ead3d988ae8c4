//! AUTH on a connection: what is said, and what servers answer.

use zeroize::Zeroizing;

use super::connection::Connection;
use super::error::Cause;
use super::greeting::next_answer;
use crate::credentials::Login;
use crate::resp::replies::{self, Answer};

/// Who we are on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthOutcome {
    /// Nobody: no credentials are configured, or this was no matter of them.
    None,
    /// Nobody: the connection is in plaintext, and credentials stay at home.
    Withheld,
    /// Nobody: the server has no password.
    Unwanted,
    /// The configured user.
    Accepted,
}

/// What a server made of a login.
pub(super) enum LoginReply {
    Accepted,
    /// It has no password: not yet, in a migration.
    Unwanted,
    /// Its words.
    Refused(String),
}

/// Of AUTH.
pub(super) fn verdict(answer: Answer) -> LoginReply {
    match answer {
        // From Redis 6 on, and before; Valkey as Redis 7.
        Answer::Error(words)
            if words.contains("without any password configured") || words.contains("no password is set") =>
        {
            LoginReply::Unwanted
        }
        Answer::Error(words) => LoginReply::Refused(words),
        _ => LoginReply::Accepted,
    }
}

/// Authenticates. `Some`: the server's words where it refuses, or wants none.
pub(crate) async fn present(login: &Login, connection: &mut Connection) -> Result<Option<String>, Cause> {
    connection.send(&command(login)).await?;
    match next_answer(connection).await?.ok_or(Cause::Closed)? {
        Answer::Error(words) => Ok(Some(words)),
        _ => Ok(None),
    }
}

/// AUTH, encoded.
pub fn command(login: &Login) -> Zeroizing<Vec<u8>> {
    let username = login.username.as_deref().map(str::as_bytes);
    let words: Vec<&[u8]> =
        [&b"AUTH"[..]].into_iter().chain(username).chain([login.secret.expose()]).collect();
    replies::encode_secret(&words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Secret;

    #[test]
    fn a_user_is_named_only_where_one_is_configured() {
        let login = |username: Option<&str>| Login {
            username: username.map(str::to_owned),
            secret: Secret::new(b"a\r\nb".to_vec()),
        };
        assert_eq!(&*command(&login(None)), b"*2\r\n$4\r\nAUTH\r\n$4\r\na\r\nb\r\n");
        assert_eq!(&*command(&login(Some("app"))), b"*3\r\n$4\r\nAUTH\r\n$3\r\napp\r\n$4\r\na\r\nb\r\n");
    }
}
