//! Who is asking, where pontoon asks for itself.

use zeroize::Zeroizing;

use super::connection::Connection;
use super::error::Cause;
use super::greeting::next_answer;
use crate::resp::replies::Answer;

/// A user and a password, which is wiped when it is dropped.
pub struct Credentials {
    /// `None`: the default user.
    pub username: Option<String>,
    /// Its password.
    pub password: Zeroizing<String>,
}

impl Credentials {
    /// Authenticates. `Some`: the server's words where it refuses.
    pub(super) async fn present(&self, connection: &mut Connection) -> Result<Option<String>, Cause> {
        connection.send(&self.command()).await?;
        match next_answer(connection).await?.ok_or(Cause::Closed)? {
            Answer::Error(words) => Ok(Some(words)),
            _ => Ok(None),
        }
    }

    fn command(&self) -> Zeroizing<Vec<u8>> {
        let words: Vec<&str> =
            ["AUTH"].into_iter().chain(self.username.as_deref()).chain([self.password.as_str()]).collect();
        let length = words.iter().map(|word| word.len() + 32).sum();
        // Of the right size at once: a buffer that grows leaves copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        bytes.extend(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            bytes.extend(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend(word.as_bytes());
            bytes.extend(b"\r\n");
        }
        bytes
    }
}
