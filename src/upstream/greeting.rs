//! What pontoon says on a new connection before the client's first byte: who it is, so that an audit can tell
//! bridged from direct clients, and the client name where one is configured.

use std::sync::atomic::{AtomicBool, Ordering};

use super::connection::Connection;
use super::error::Cause;
use crate::resp::replies::{self, Answer};

/// A reply to a greeting is a status or an error line; what never ends is no reply.
const LONGEST: usize = 64 * 1024;

/// What to say to one endpoint, and what is known of how it takes that.
pub(super) struct Greeting {
    client_name: Option<String>,
    /// The engine is older than `CLIENT SETINFO` (Redis 7.2): asking again would only fill its error statistics.
    knows_setinfo: AtomicBool,
}

impl Greeting {
    pub(super) fn new(client_name: Option<String>) -> Self {
        Self { client_name, knows_setinfo: AtomicBool::new(true) }
    }

    /// Greets. A server that declines, because it is older or wants AUTH first, is greeted well enough; one that
    /// closes is not, and its words are the error.
    pub(super) async fn exchange(&self, connection: &mut Connection) -> Result<(), Cause> {
        let setinfo = self.knows_setinfo.load(Ordering::Relaxed);
        let mut hello = Vec::new();
        let mut expected = 0;
        let mut say = |words: &[&str]| {
            hello.extend(replies::encode_command(words));
            expected += 1;
        };
        if setinfo {
            say(&["CLIENT", "SETINFO", "LIB-NAME", "pontoon"]);
            say(&["CLIENT", "SETINFO", "LIB-VER", env!("CARGO_PKG_VERSION")]);
        }
        if let Some(name) = &self.client_name {
            say(&["CLIENT", "SETNAME", name]);
        }
        if expected == 0 {
            return Ok(());
        }
        // A server that has closed already may still have said why.
        let sent = connection.send(&hello).await;
        let mut last_words = None;
        for number in 0..expected {
            let Some(answer) = next_answer(connection).await? else {
                sent?;
                return Err(last_words.map_or(Cause::Closed, Cause::Refused));
            };
            if let Answer::Error(words) = answer {
                // "unknown subcommand", and from 6.0 on "Unknown subcommand or wrong number of arguments".
                if setinfo && number == 0 && words.to_ascii_lowercase().contains("subcommand") {
                    self.knows_setinfo.store(false, Ordering::Relaxed);
                }
                last_words = Some(words);
            }
        }
        Ok(())
    }
}

/// The next reply. `None`: the server sends no more.
pub(super) async fn next_answer(connection: &mut Connection) -> Result<Option<Answer>, Cause> {
    loop {
        if let Some((answer, length)) = replies::decode_answer(&connection.unread).map_err(Cause::NotRedis)? {
            connection.unread.drain(..length);
            return Ok(Some(answer));
        }
        if connection.unread.len() > LONGEST {
            return Err(Cause::Refused("more than 64 KiB for a greeting".into()));
        }
        match connection.receive().await {
            Ok(true) => {}
            Err(error) if connection.unread.is_empty() => return Err(error.into()),
            // What arrived before a reset has been read; the reset itself is the end.
            Ok(false) | Err(_) => return Ok(None),
        }
    }
}
