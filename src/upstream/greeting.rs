//! What pontoon says on a connection before the client's first byte: AUTH where credentials are configured, who it is, so
//! that an audit can tell bridged from direct clients until a client names its own library (then
//! `resp::client_requests` marks that), and the client name where one is configured. On a connection that
//! another client has left, RESET goes before.

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

/// Bytes of a reply to a greeting: it is a status or an error line, and a longer one is refused.
const MAX_GREETING_REPLY: usize = 64 * 1024;

/// What a server said to a greeting, as far as it matters later.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Greeted {
    /// It wants AUTH first; `None`: nothing was said that tells.
    pub(super) wants_auth: Option<bool>,
    /// Who we are by its own word, where that was asked.
    identity: Option<Answer>,
}

/// What to say to one endpoint, and what is known of how it takes that.
pub(super) struct Greeting {
    /// CLIENT SETINFO; CLIENT SETNAME.
    parts: [GreetingPart; 2],
    /// Asks who we are, where a client certificate may have said so.
    whoami: Option<Vec<u8>>,
    /// The engine is older than RESET (Redis 6.2).
    knows_reset: AtomicBool,
}

/// Commands of the greeting that are accepted or declined together.
struct GreetingPart {
    /// Encoded.
    bytes: Vec<u8>,
    replies: usize,
    /// The engine is older than `CLIENT SETINFO` (Redis 7.2): asking again would only fill its error statistics.
    is_known: AtomicBool,
    /// To the default user.
    as_default: Permission,
    /// To the user of the credentials.
    as_configured: Permission,
}

/// Whether a user may send a command, as far as is known. Servers log each refusal (ACL LOG).
#[derive(Default)]
struct Permission {
    refused: Mutex<Option<Instant>>,
}

/// A command that was refused is sent again after this time: the user may have been given the permission.
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

    /// Whether to say it as the user of the credentials, or else as the default user.
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

/// Why a connection that a client left is not as good as new.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unclean {
    #[error("the engine does not know RESET")]
    NoReset,
    #[error("RESET was answered by something else")]
    NotReset,
    #[error(
        "after RESET the server takes us for another user than the one that the client certificate names"
    )]
    OtherUser,
    #[error(transparent)]
    Greeting(#[from] Cause),
}

impl Greeting {
    /// `certificate`: connections may present one of our own.
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

    /// Users may have been given permissions.
    pub(super) fn forget_refusals(&self) {
        for part in &self.parts {
            part.as_default.forget();
            part.as_configured.forget();
        }
    }

    /// Authenticates and greets. A server that declines the greeting, because it is older or wants AUTH first, is greeted well
    /// enough; one that closes is not, and its words are the error.
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

    /// Resets, authenticates and greets, so that the next client finds what it would on a new connection.
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
        // Valkey 9 with `tls-auth-clients-user`: RESET makes us the default user, not the certificate's.
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
            // Boxed: it does not weigh on those who dial without credentials.
            Some(credentials) => Box::pin(self.log_in(connection, reset, credentials)).await,
        }
    }

    /// With the newest secret, then with the one before it, then with what the source gives by now.
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
                    LoginReply::Accepted => return Ok(AuthOutcome::Accepted),
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
        let (user, words) = (credentials.user().to_owned(), first_words.unwrap_or_default());
        Err(Cause::AuthRefused { user, words }.into())
    }

    /// Says it all at once, and hears the answers.
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
        // Of its final size at once: a buffer that grows leaves copies of the secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
        for part in &parts {
            bytes.extend_from_slice(part);
        }
        if bytes.is_empty() {
            return Ok(LoginReply::Accepted);
        }
        // A server that has closed already may still have said why.
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
        // After a refusal the greeting was another user's.
        let user = (!matches!(verdict, LoginReply::Refused(_))).then_some(auth);
        match (self.answers(said, user, connection).await, verdict) {
            // It said why, before the greeting's turn came: too many clients, say.
            (Err(Cause::Closed | Cause::Io(_)), LoginReply::Refused(words)) => {
                Err(Cause::Refused(words).into())
            }
            (Err(cause), _) => Err(cause.into()),
            (Ok(()), verdict) => Ok(verdict),
        }
    }

    /// `configured`: the user of the credentials said it, or else the default user; `None`: the server refused that user.
    async fn answers(
        &self,
        said: &[&GreetingPart],
        configured: Option<bool>,
        connection: &mut Connection,
    ) -> Result<(), Cause> {
        let mut last_words = None;
        let mut greeted = Greeted::default();
        // What each reply is to; `None`: to ACL WHOAMI.
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
                // Its words hold "subcommand" as well, before 7.0.
                (Some(part), Some(configured)) if words.starts_with("NOPERM") => {
                    part.permission(configured).note_refusal();
                }
                // "unknown subcommand", and from 6.0 on "Unknown subcommand or wrong number of arguments".
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

/// The next reply as it is, of so many bytes at most.
pub(super) async fn next_frame(connection: &mut Connection, longest: usize) -> Result<Vec<u8>, Cause> {
    let length = await_frame(connection, longest).await?.ok_or(Cause::Closed)?;
    Ok(connection.unread.drain(..length).collect())
}

/// The next reply. `None`: the server sends no more.
pub(super) async fn next_answer(connection: &mut Connection) -> Result<Option<Answer>, Cause> {
    next_answer_within(connection, MAX_GREETING_REPLY).await
}

/// The next reply, of so many bytes at most. `None`: the server sends no more.
pub(crate) async fn next_answer_within(
    connection: &mut Connection,
    longest: usize,
) -> Result<Option<Answer>, Cause> {
    let Some(length) = await_frame(connection, longest).await? else { return Ok(None) };
    let answer = replies::decode_answer(&connection.unread[..length]).map_err(Cause::NotRedis)?;
    connection.unread.drain(..length);
    Ok(answer.map(|(answer, _)| answer))
}

/// Receives until a reply is whole, and looks at no byte twice. Its length; `None`: the server sends no more.
async fn await_frame(connection: &mut Connection, longest: usize) -> Result<Option<usize>, Cause> {
    let mut scanner = ReplyScanner::default();
    let mut scanned = 0;
    loop {
        let (n, event) = scanner.next(&connection.unread[scanned..]);
        scanned += n;
        match event {
            Event::Frame => return Ok(Some(scanned)),
            Event::Malformed => return Err(Cause::NotRedis("the reply is no RESP".into())),
            Event::NeedMore if scanned > longest => {
                return Err(Cause::Refused(format!("more than {longest} bytes without an end")));
            }
            Event::NeedMore => {}
        }
        match connection.receive().await {
            Ok(true) => {}
            Err(error) if connection.unread.is_empty() => return Err(error.into()),
            // What arrived before a reset has been read; the reset itself is the end.
            Ok(false) | Err(_) => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_a_user_may_not_send_is_sent_again_after_an_hour() {
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
