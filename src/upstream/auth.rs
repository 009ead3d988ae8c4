//! AUTH on an upstream connection: the command, and the meaning of the server's reply.

use zeroize::Zeroizing;

use super::connection::Connection;
use super::error::Cause;
use super::greeting::next_answer;
use crate::credentials::Login;
use crate::resp::replies::{self, Answer};

/// The user that the server takes pontoon for on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthOutcome {
    /// The connection was not authenticated: no credentials are configured, or the attempt was made without them.
    None,
    /// The connection was not authenticated: it is in plaintext, and credentials are not sent in plaintext.
    Withheld,
    /// The connection was not authenticated: the server has no password.
    Unwanted,
    /// The server accepted the configured user.
    Accepted,
}

/// The server's reply to a login.
pub(super) enum LoginReply {
    Accepted,
    /// The server has no password, which is normal before a migration sets one.
    Unwanted,
    /// The server refused the login with these words.
    Refused(String),
}

/// The meaning of the reply to AUTH.
pub(super) fn verdict(answer: Answer) -> LoginReply {
    match answer {
        // The first wording is that of Redis 6 and later and of Valkey, the second that of older versions.
        Answer::Error(words)
            if words.contains("without any password configured") || words.contains("no password is set") =>
        {
            LoginReply::Unwanted
        }
        Answer::Error(words) => LoginReply::Refused(words),
        _ => LoginReply::Accepted,
    }
}

/// Authenticates. Returns the server's words if it refuses the login or has no password.
pub(crate) async fn present(login: &Login, connection: &mut Connection) -> Result<Option<String>, Cause> {
    connection.send(&command(login)).await?;
    match next_answer(connection).await?.ok_or(Cause::Closed)? {
        Answer::Error(words) => Ok(Some(words)),
        _ => Ok(None),
    }
}

/// Encodes AUTH.
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
    fn auth_names_a_user_only_if_one_is_configured() {
        let login = |username: Option<&str>| Login {
            username: username.map(str::to_owned),
            secret: Secret::new(b"a\r\nb".to_vec()),
            expiry: None,
        };
        assert_eq!(&*command(&login(None)), b"*2\r\n$4\r\nAUTH\r\n$4\r\na\r\nb\r\n");
        assert_eq!(&*command(&login(Some("app"))), b"*3\r\n$4\r\nAUTH\r\n$3\r\napp\r\n$4\r\na\r\nb\r\n");
    }
}
