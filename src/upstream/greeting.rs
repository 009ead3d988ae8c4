//! What pontoon says on a connection before the client's first byte: AUTH where credentials are configured, who it is, so
//! that an audit can tell bridged from direct clients until a client names its own library (then
//! `resp::client_requests` marks that), and the client name where one is configured. On a connection that
//! another client has left, RESET goes before.

use std::sync::atomic::{AtomicBool, Ordering};

use zeroize::Zeroizing;

use super::auth::{self, Auth, Verdict};
use super::connection::Connection;
use super::error::Cause;
use crate::credentials::{Credentials, Login};
use crate::resp::replies::{self, Answer};
use crate::resp::scanner::{Event, ReplyScanner};

/// A reply to a greeting is a status or an error line; what never ends is no reply.
const LONGEST: usize = 64 * 1024;

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
    /// The server is asked who we are: a client certificate may have said so.
    asks_identity: bool,
    with_setinfo: Script,
    without_setinfo: Script,
    /// The engine is older than `CLIENT SETINFO` (Redis 7.2): asking again would only fill its error statistics.
    knows_setinfo: AtomicBool,
    /// The engine is older than RESET (Redis 6.2).
    knows_reset: AtomicBool,
}

/// Commands, encoded: RESET, and then the greeting.
struct Script {
    bytes: Vec<u8>,
    /// Where RESET ends.
    greeting: usize,
    /// Replies to the greeting.
    replies: usize,
}

impl Script {
    fn new(commands: &[&[&str]]) -> Self {
        let mut bytes = replies::encode_command(&["RESET"]);
        let greeting = bytes.len();
        for command in commands {
            bytes.extend(replies::encode_command(command));
        }
        Self { bytes, greeting, replies: commands.len() }
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
        let setinfo: [&[&str]; 2] = [
            &["CLIENT", "SETINFO", "LIB-NAME", "pontoon"],
            &["CLIENT", "SETINFO", "LIB-VER", env!("CARGO_PKG_VERSION")],
        ];
        let name = client_name.map(|name| ["CLIENT", "SETNAME", name]);
        let name = name.iter().map(|command| &command[..]);
        let identity: Option<&[&str]> = certificate.then_some(&["ACL", "WHOAMI"]);
        let rest: Vec<&[&str]> = name.chain(identity).collect();
        Self {
            asks_identity: certificate,
            with_setinfo: Script::new(&[&setinfo[..], &rest].concat()),
            without_setinfo: Script::new(&rest),
            knows_setinfo: AtomicBool::new(true),
            knows_reset: AtomicBool::new(true),
        }
    }

    /// Authenticates and greets. A server that declines the greeting, because it is older or wants AUTH first, is greeted well
    /// enough; one that closes is not, and its words are the error.
    pub(super) async fn exchange(
        &self,
        connection: &mut Connection,
        credentials: Option<&Credentials>,
    ) -> Result<Auth, Cause> {
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
    ) -> Result<Auth, Unclean> {
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
    ) -> Result<Auth, Unclean> {
        match credentials {
            None => self.say(connection, reset, None).await.map(|_| Auth::None),
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
    ) -> Result<Auth, Unclean> {
        let mut logins = credentials.logins().await.map_err(Cause::from)?;
        let mut refused = Vec::new();
        let mut first_words = None;
        while !logins.is_empty() {
            let again = !refused.is_empty();
            for login in logins.drain(..) {
                match self.say(connection, std::mem::take(&mut reset), Some(&login)).await? {
                    Verdict::Accepted => return Ok(Auth::Accepted),
                    Verdict::Unwanted => return Ok(Auth::Unwanted),
                    Verdict::Refused(words) => {
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
    ) -> Result<Verdict, Unclean> {
        let (script, setinfo) = self.script();
        let (resets, greets) = script.bytes.split_at(script.greeting);
        let auth = login.map(auth::command);
        let parts = [if reset { resets } else { &[] }, auth.as_ref().map_or(&[][..], |auth| auth), greets];
        // Of its final size at once: a buffer that grows leaves copies of the secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
        for part in parts {
            bytes.extend_from_slice(part);
        }
        if bytes.is_empty() {
            return Ok(Verdict::Accepted);
        }
        // A server that has closed already may still have said why.
        let sent = connection.send(&bytes).await;
        match self.hear(connection, reset, login.is_some(), script.replies, setinfo).await {
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
        replies: usize,
        setinfo: bool,
    ) -> Result<Verdict, Unclean> {
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
            Verdict::Accepted
        };
        match (self.answers(replies, setinfo, connection).await, verdict) {
            // It said why, before the greeting's turn came: too many clients, say.
            (Err(Cause::Closed | Cause::Io(_)), Verdict::Refused(words)) => Err(Cause::Refused(words).into()),
            (Err(cause), _) => Err(cause.into()),
            (Ok(()), verdict) => Ok(verdict),
        }
    }

    /// What to say, and whether that begins with `CLIENT SETINFO`.
    fn script(&self) -> (&Script, bool) {
        let setinfo = self.knows_setinfo.load(Ordering::Relaxed);
        (if setinfo { &self.with_setinfo } else { &self.without_setinfo }, setinfo)
    }

    async fn answers(&self, count: usize, setinfo: bool, connection: &mut Connection) -> Result<(), Cause> {
        let mut last_words = None;
        let mut greeted = Greeted { wants_auth: (count > 0).then_some(false), identity: None };
        for number in 0..count {
            let Some(answer) = next_answer(connection).await? else {
                return Err(last_words.map_or(Cause::Closed, Cause::Refused));
            };
            if self.asks_identity && number + 1 == count {
                greeted.identity = Some(answer.clone());
            }
            if let Answer::Error(words) = answer {
                if words.starts_with("NOAUTH") {
                    greeted.wants_auth = Some(true);
                }
                // "unknown subcommand", and from 6.0 on "Unknown subcommand or wrong number of arguments".
                if setinfo && number == 0 && words.to_ascii_lowercase().contains("subcommand") {
                    self.knows_setinfo.store(false, Ordering::Relaxed);
                }
                last_words = Some(words);
            }
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
    next_answer_within(connection, LONGEST).await
}

/// The next reply, of so many bytes at most. `None`: the server sends no more.
pub(super) async fn next_answer_within(
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
