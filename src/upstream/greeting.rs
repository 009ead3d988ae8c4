//! What pontoon sends on a connection before the client's first byte: AUTH if credentials are configured, its library name, and the client
//! name if one is configured. The library name lets an audit distinguish bridged from direct clients until a client sets its own
//! (`resp::client_requests` marks that one). On a reused connection, RESET goes first.

use std::iter;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::auth::{self, AuthOutcome, LoginReply};
use super::connection::Connection;
use super::error::Cause;
use crate::credentials::{Credentials, Login};
use crate::resp::replies::{self, Answer};
use crate::resp::scanner::{Event, ReplyScanner};

/// Size limit of a reply to the greeting, in bytes. The reply is a status or an error line; a longer one is refused.
const MAX_GREETING_REPLY: usize = 64 * 1024;

/// The parts of the server's replies to the greeting that are used later.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Greeted {
    /// Whether the server requires AUTH; `None` if no reply shows it.
    pub(super) wants_auth: Option<bool>,
    /// The reply to ACL WHOAMI, if it was asked.
    identity: Option<Answer>,
}

/// The commands of the greeting for one endpoint, and what is known of how its server replies.
pub(super) struct Greeting {
    /// CLIENT SETINFO; CLIENT SETNAME.
    parts: [GreetingPart; 2],
    /// ACL WHOAMI, if a client certificate may select the user.
    whoami: Option<Vec<u8>>,
    /// `false` if the engine is older than RESET (Redis 6.2).
    knows_reset: AtomicBool,
}

/// Commands of the greeting that are accepted or declined together.
struct GreetingPart {
    /// The encoded commands.
    bytes: Vec<u8>,
    replies: usize,
    /// `false` if the engine is older than `CLIENT SETINFO` (Redis 7.2): sending it again would only fill the server's error statistics.
    is_known: AtomicBool,
    /// The default user's permission.
    as_default: Permission,
    /// The permission of the user of the credentials.
    as_configured: Permission,
}

/// Whether a user may send a command, as far as is known. Servers log each refusal (ACL LOG).
#[derive(Default)]
struct Permission {
    refused: Mutex<Option<Instant>>,
}

/// A refused command is sent again after this time, because the user may have been given the permission.
const ASK_AGAIN: Duration = Duration::from_secs(3600);

impl GreetingPart {
    fn new(commands: &[&[&str]]) -> Self {
        Self {
            bytes: commands.iter().flat_map(|command| replies::encode_command(command)).collect(),
            replies: commands.len(),
            is_known: AtomicBool::new(true),
            as_default: Permission::default(),
            as_configured: Permission::default(),
        }
    }

    fn permission(&self, configured: bool) -> &Permission {
        if configured { &self.as_configured } else { &self.as_default }
    }

    /// Whether to send this part as the user of the credentials (`configured`) or as the default user.
    fn is_worth_saying(&self, configured: bool) -> bool {
        self.is_known.load(Ordering::Relaxed) && !self.permission(configured).is_refused()
    }
}

impl Permission {
    fn is_refused(&self) -> bool {
        self.refused.lock().is_some_and(|at| at.elapsed() < ASK_AGAIN)
    }

    fn note_refusal(&self) {
        *self.refused.lock() = Some(Instant::now());
    }

    fn forget(&self) {
        *self.refused.lock() = None;
    }
}

/// Why a connection that a client left cannot be reused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unclean {
    #[error("the engine does not know RESET")]
    NoReset,
    #[error("the reply to RESET is not RESET")]
    NotReset,
    #[error("after RESET the server uses another user than the one that the client certificate names")]
    OtherUser,
    #[error(transparent)]
    Greeting(#[from] Cause),
}

impl Greeting {
    /// `certificate`: connections may present a client certificate.
    pub(super) fn new(client_name: Option<&str>, certificate: bool) -> Self {
        let name = client_name.map(|name| ["CLIENT", "SETNAME", name]);
        let setinfo: [&[&str]; 2] = [
            &["CLIENT", "SETINFO", "LIB-NAME", "pontoon"],
            &["CLIENT", "SETINFO", "LIB-VER", env!("CARGO_PKG_VERSION")],
        ];
        let setname: Vec<&[&str]> = name.iter().map(|command| &command[..]).collect();
        Self {
            parts: [GreetingPart::new(&setinfo), GreetingPart::new(&setname)],
            whoami: certificate.then(|| replies::encode_command(&["ACL", "WHOAMI"])),
            knows_reset: AtomicBool::new(true),
        }
    }

    /// Forgets refusals, because users may have been given permissions.
    pub(super) fn forget_refusals(&self) {
        for part in &self.parts {
            part.as_default.forget();
            part.as_configured.forget();
        }
    }

    /// Authenticates and greets. It is no error if the server refuses the greeting because it is older or requires AUTH first. If the
    /// server closes the connection, its words are the error.
    pub(super) async fn exchange(
        &self,
        connection: &mut Connection,
        credentials: Option<&Credentials>,
    ) -> Result<AuthOutcome, Cause> {
        self.introduce(connection, false, credentials).await.map_err(|unclean| match unclean {
            Unclean::Greeting(cause) => cause,
            reset => Cause::Refused(reset.to_string()),
        })
    }

    /// Resets, authenticates and greets, so that the next client finds the state of a new connection.
    pub(super) async fn renew(
        &self,
        connection: &mut Connection,
        credentials: Option<&Credentials>,
    ) -> Result<AuthOutcome, Unclean> {
        if !self.knows_reset.load(Ordering::Relaxed) {
            return Err(Unclean::NoReset);
        }
        let before = connection.greeted.identity.take();
        let auth = self.introduce(connection, true, credentials).await?;
        // With `tls-auth-clients-user`, RESET in Valkey 9 selects the default user, not the certificate's.
        if connection.greeted.identity == before { Ok(auth) } else { Err(Unclean::OtherUser) }
    }

    async fn introduce(
        &self,
        connection: &mut Connection,
        reset: bool,
        credentials: Option<&Credentials>,
    ) -> Result<AuthOutcome, Unclean> {
        match credentials {
            None => self.say(connection, reset, None).await.map(|_| AuthOutcome::None),
            // Boxed, so that the future stays small for connections without credentials.
            Some(credentials) => Box::pin(self.log_in(connection, reset, credentials)).await,
        }
    }

    /// Tries the newest secret, then the one before it, then what the source gives by now.
    async fn log_in(
        &self,
        connection: &mut Connection,
        mut reset: bool,
        credentials: &Credentials,
    ) -> Result<AuthOutcome, Unclean> {
        let mut logins = credentials.logins().await.map_err(Cause::from)?;
        let mut refused = Vec::new();
        let mut first_words = None;
        while !logins.is_empty() {
            let again = !refused.is_empty();
            for login in logins.drain(..) {
                match self.say(connection, std::mem::take(&mut reset), Some(&login)).await? {
                    LoginReply::Accepted => {
                        connection.login_expiry = login.expiry;
                        return Ok(AuthOutcome::Accepted);
                    }
                    LoginReply::Unwanted => return Ok(AuthOutcome::Unwanted),
                    LoginReply::Refused(words) => {
                        first_words.get_or_insert(words);
                        refused.push(login);
                    }
                }
            }
            if !again {
                logins = credentials.logins_after_refusal(&refused).await;
            }
        }
        let (user, words) = (credentials.user(), first_words.unwrap_or_default());
        Err(Cause::AuthRefused { user, words }.into())
    }

    /// Sends all commands at once and reads the replies.
    async fn say(
        &self,
        connection: &mut Connection,
        reset: bool,
        login: Option<&Login>,
    ) -> Result<LoginReply, Unclean> {
        let said: Vec<&GreetingPart> =
            self.parts.iter().filter(|part| part.is_worth_saying(login.is_some())).collect();
        let reset_bytes = reset.then(|| replies::encode_command(&["RESET"]));
        let auth = login.map(auth::command);
        let parts: Vec<&[u8]> = (reset_bytes.as_deref().into_iter())
            .chain(auth.as_ref().map(|auth| &auth[..]))
            .chain(said.iter().map(|part| &part.bytes[..]))
            .chain(self.whoami.as_deref())
            .collect();
        // Allocated at its final size: a buffer that grows leaves copies of the secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
        for part in &parts {
            bytes.extend_from_slice(part);
        }
        if bytes.is_empty() {
            return Ok(LoginReply::Accepted);
        }
        // If sending fails, the server may still have sent its reason before it closed.
        let sent = connection.send(&bytes).await;
        match self.hear(connection, reset, login.is_some(), &said).await {
            Err(Unclean::Greeting(Cause::Closed)) => {
                Err(sent.err().map_or(Cause::Closed, Cause::from).into())
            }
            heard => heard,
        }
    }

    async fn hear(
        &self,
        connection: &mut Connection,
        reset: bool,
        auth: bool,
        said: &[&GreetingPart],
    ) -> Result<LoginReply, Unclean> {
        if reset {
            match next_answer(connection).await? {
                Some(Answer::Text(text)) if text == "RESET" => {}
                Some(Answer::Error(words)) if words.to_ascii_lowercase().contains("unknown command") => {
                    self.knows_reset.store(false, Ordering::Relaxed);
                    return Err(Unclean::NoReset);
                }
                _ => return Err(Unclean::NotReset),
            }
        }
        let verdict = if auth {
            auth::verdict(next_answer(connection).await?.ok_or(Cause::Closed)?)
        } else {
            LoginReply::Accepted
        };
        // After a refusal the greeting ran as another user.
        let user = (!matches!(verdict, LoginReply::Refused(_))).then_some(auth);
        match (self.answers(said, user, connection).await, verdict) {
            // The server gave its reason before the greeting's replies, for example too many clients.
            (Err(Cause::Closed | Cause::Io(_)), LoginReply::Refused(words)) => {
                Err(Cause::Refused(words).into())
            }
            (Err(cause), _) => Err(cause.into()),
            (Ok(()), verdict) => Ok(verdict),
        }
    }

    /// `configured`: the user of the credentials sent the greeting, otherwise the default user; `None` if the server refused the login.
    async fn answers(
        &self,
        said: &[&GreetingPart],
        configured: Option<bool>,
        connection: &mut Connection,
    ) -> Result<(), Cause> {
        let mut last_words = None;
        let mut greeted = Greeted::default();
        // The part that each reply belongs to; `None` for ACL WHOAMI.
        let said = said.iter().flat_map(|part| iter::repeat_n(Some(*part), part.replies));
        for part in said.chain(self.whoami.as_ref().map(|_| None)) {
            let Some(answer) = next_answer(connection).await? else {
                return Err(last_words.map_or(Cause::Closed, Cause::Refused));
            };
            greeted.wants_auth.get_or_insert(false);
            if part.is_none() {
                greeted.identity = Some(answer.clone());
            }
            let Answer::Error(words) = answer else { continue };
            if words.starts_with("NOAUTH") {
                greeted.wants_auth = Some(true);
            }
            match (part, configured) {
                // Checked first, because before 7.0 its text also contains "subcommand".
                (Some(part), Some(configured)) if words.starts_with("NOPERM") => {
                    part.permission(configured).note_refusal();
                }
                // The text is "unknown subcommand"; from 6.0 on, "Unknown subcommand or wrong number of arguments".
                (Some(part), _) if words.to_ascii_lowercase().contains("unknown subcommand") => {
                    part.is_known.store(false, Ordering::Relaxed);
                }
                _ => {}
            }
            last_words = Some(words);
        }
        connection.greeted = greeted;
        Ok(())
    }
}

/// The next reply as bytes, at most `longest` of them.
pub(super) async fn next_frame(connection: &mut Connection, longest: usize) -> Result<Vec<u8>, Cause> {
    let length = await_frame(connection, longest).await?.ok_or(Cause::Closed)?;
    Ok(connection.unread.drain(..length).collect())
}

/// The next reply; `None` if the server sends no more.
pub(super) async fn next_answer(connection: &mut Connection) -> Result<Option<Answer>, Cause> {
    next_answer_within(connection, MAX_GREETING_REPLY).await
}

/// The next reply, at most `longest` bytes; `None` if the server sends no more.
pub(crate) async fn next_answer_within(
    connection: &mut Connection,
    longest: usize,
) -> Result<Option<Answer>, Cause> {
    let Some(length) = await_frame(connection, longest).await? else { return Ok(None) };
    let answer = replies::decode_answer(&connection.unread[..length]).map_err(Cause::NotRedis)?;
    connection.unread.drain(..length);
    Ok(answer.map(|(answer, _)| answer))
}

/// Receives until a reply is complete and scans no byte twice. Returns its length; `None` if the server sends no more.
async fn await_frame(connection: &mut Connection, longest: usize) -> Result<Option<usize>, Cause> {
    let mut scanner = ReplyScanner::default();
    let mut scanned = 0;
    loop {
        let (n, event) = scanner.next(&connection.unread[scanned..]);
        scanned += n;
        match event {
            Event::Frame => return Ok(Some(scanned)),
            Event::Malformed => return Err(Cause::NotRedis("the reply is not RESP".into())),
            Event::NeedMore if scanned > longest => {
                return Err(Cause::Refused(format!("a reply of more than {longest} bytes")));
            }
            Event::NeedMore => {}
        }
        match connection.receive().await {
            Ok(true) => {}
            Err(error) if connection.unread.is_empty() => return Err(error.into()),
            // What arrived before a reset has been read; the reset itself counts as the end.
            Ok(false) | Err(_) => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refused_command_is_sent_again_after_an_hour() {
        let greeting = Greeting::new(None, false);
        let [setinfo, _] = &greeting.parts;
        setinfo.permission(true).note_refusal();
        assert_eq!((setinfo.is_worth_saying(true), setinfo.is_worth_saying(false)), (false, true));
        tokio::time::advance(ASK_AGAIN).await;
        assert!(setinfo.is_worth_saying(true));
        setinfo.permission(true).note_refusal();
        greeting.forget_refusals();
        assert!(setinfo.is_worth_saying(true));
    }
}
