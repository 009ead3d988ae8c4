//! What clients send to set up their connection: it is kept for each of them, and the server has its say.

use std::sync::Arc;
use std::task::Context;

use super::{Member, Next, Reason, What};
use crate::resp::arguments::{ClientInfo, MAX_CLIENT_INFO};
use crate::resp::client_requests;
use crate::resp::command_table::{Command, Leaves, PinReason};
use crate::resp::hello::{self, Hello};
use crate::resp::replies::{encode_command, encode_secret};
use crate::resp::request::Request;
use crate::resp::whole::{Front, Whole};
use crate::session::counts::Counts;
use crate::session::guard::Decision;
use crate::session::shared::Key;
use crate::session::shared::in_flight::Whose;
use crate::session::shared::line::{Hold, NotNow};
use crate::session::user::User;
use crate::upstream::SeenId;

/// Redis' own word.
const OK: &[u8] = b"+OK\r\n";

/// A longer name is the server's to judge.
const LONGEST_NAME: usize = 1024;

/// What was asked for a client, and counts if the server agrees.
pub(super) enum Asked {
    Told(ClientInfo),
    /// Who the client is, and what else it has told.
    User(Arc<User>, Option<ClientInfo>),
    Replica(bool),
    Nothing,
}

impl Member<'_> {
    /// A request that sets up the connection; no reply is due. Returns how much of it needs no further look.
    pub(super) fn set_up(&mut self, cx: &mut Context<'_>, line: &Hold, whole: &Whole<'_>) -> (usize, What) {
        let length = whole.bytes.len();
        let own = |reason| (0, What::Next(Next::Own(Reason::Command(reason))));
        let mut key = self.key();
        // Sent in place of the client's request: it makes the same of every connection of the kind.
        let mut instead = None;
        let asked = match whole.command {
            Command::QUIT => return (length, What::Next(Next::Quit(OK))),
            Command::SELECT => {
                let database = std::str::from_utf8(whole.first).ok().and_then(|text| text.parse().ok());
                // What is none, the server says so itself.
                let Some(database) = database.filter(|_| whole.words == 2) else {
                    return own(PinReason::Administration);
                };
                key.database = database;
                Asked::Told(ClientInfo::Database(database))
            }
            Command::HELLO => match hello(&whole.arguments().collect::<Vec<_>>()) {
                Some(Hello { resp3, login: None, name }) => {
                    if let Some(resp3) = resp3 {
                        key.resp3 = resp3;
                    }
                    if name.is_some() {
                        let version = if key.resp3 { "3" } else { "2" };
                        instead = Some(encode_command(&["HELLO", version]));
                    }
                    Asked::Told(ClientInfo::Hello { resp3, name: name.map(Into::into) })
                }
                _ => return own(PinReason::Auth),
            },
            Command::CLIENT_SETNAME => {
                match whole.arguments().nth(1).filter(|name| is_name(name) && whole.words == 3) {
                    Some(name) => {
                        let ours = self.session.route.upstream.client_name().unwrap_or_default();
                        instead = Some(encode_command(&["CLIENT", "SETNAME", ours]));
                        Asked::Told(ClientInfo::Name(name.into()))
                    }
                    None => return own(PinReason::Administration),
                }
            }
            Command::CLIENT_GETNAME => {
                let name = self.session.about.setup().map_or(&[][..], |setup| &setup.name);
                if !name.is_empty() && whole.words == 2 {
                    let reply = [format!("${}\r\n", name.len()).as_bytes(), name, b"\r\n"].concat();
                    self.seat.deliver(&reply, 0);
                    return (length, What::More);
                }
                Asked::Nothing
            }
            Command::CLIENT_SETINFO => match library(whole) {
                Some(told) => {
                    instead = marked_or_off(whole);
                    Asked::Told(told)
                }
                None => return own(PinReason::Administration),
            },
            Command::READONLY => {
                key.replica = true;
                Asked::Replica(true)
            }
            Command::READWRITE => {
                key.replica = false;
                Asked::Replica(false)
            }
            // CLIENT MAINT_NOTIFICATIONS.
            _ => {
                instead = marked_or_off(whole);
                Asked::Nothing
            }
        };
        self.ask(cx, line, whole, key, instead.as_deref(), asked)
    }

    /// Asks the server, with what the client has sent or with this instead of it, over a connection of the kind that it makes.
    fn ask(
        &mut self,
        cx: &mut Context<'_>,
        line: &Hold,
        whole: &Whole<'_>,
        key: Key,
        instead: Option<&[u8]>,
        asked: Asked,
    ) -> (usize, What) {
        if key != self.on {
            return (0, What::Next(Next::Line(key)));
        }
        if self.session.about.looks() {
            self.session.about.look(whole.bytes);
        }
        let length = whole.bytes.len();
        match line.put(cx, &self.seat, instead.unwrap_or(whole.bytes), 1, Whose::Task) {
            Ok(()) => {
                let mut counts = Counts::default();
                counts.add(whole.command);
                counts.record(&self.session.route.metrics);
                self.session.about.sent(length, 1);
                self.asked = Some(asked);
                (length, What::Asked)
            }
            Err(NotNow::Full) => (0, What::Wait),
            Err(NotNow::Closed) => (0, What::Next(Next::Line(key))),
        }
    }

    /// The server's word on what was asked for the client.
    pub(super) fn take_answer(&mut self, line: &Hold) {
        if self.asked.is_none() {
            return;
        }
        let Some(reply) = self.seat.take_answer() else { return };
        let accepted = !reply.starts_with(b"-") && !reply.starts_with(b"!");
        if accepted
            && let Some(
                Asked::Told(ClientInfo::Hello { .. }) | Asked::User(_, Some(ClientInfo::Hello { .. })),
            ) = self.asked
        {
            // The number is that of the connection that all share.
            let mut state = line.state.lock();
            state.seen_id = SeenId::by_hello(Some(&reply));
            if let (SeenId::Seen(id), None) = (state.seen_id, &state.passed_on) {
                state.passed_on = Some(self.session.route.upstream.pass_on(id));
            }
        }
        match self.asked.take() {
            // True whether the server knows CLIENT SETINFO or not.
            Some(Asked::Told(told @ (ClientInfo::Library(_) | ClientInfo::Version(_)))) => {
                self.session.about.accepted(told);
            }
            Some(Asked::Told(told)) if accepted => self.session.about.accepted(told),
            Some(Asked::User(user, told)) if accepted => {
                self.session.about.is_user(&user);
                if let Some(told) = told {
                    self.session.about.accepted(told);
                }
            }
            Some(Asked::Replica(replica)) if accepted => self.session.about.reads_replicas(replica),
            _ => {}
        }
        self.seat.deliver(&reply, 0);
    }

    /// AUTH, or HELLO with it; no reply is due. Returns how much of it needs no further look.
    pub(super) fn identify(&mut self, cx: &mut Context<'_>, line: &Hold, whole: &Whole<'_>) -> (usize, What) {
        let length = whole.bytes.len();
        let is_auth = whole.command == Command::AUTH;
        let request = if is_auth {
            Request::Auth
        } else {
            Request::Hello { resp3: None, leaves: Leaves::UntilReset, has_options: true }
        };
        match self.session.guard.as_mut().map(|guard| guard.decide(request, whole.bytes)) {
            Some(Decision::Answer(reply)) => {
                self.seat.deliver(&reply, 0);
                (length, What::More)
            }
            Some(Decision::Replace(_, rest)) => match Front::of(&rest) {
                Front::Whole(hello) => {
                    let (passed, what) = self.set_up(cx, line, &hello);
                    (if passed > 0 { length } else { 0 }, what)
                }
                _ => (0, What::Next(Next::Own(Reason::Command(PinReason::Auth)))),
            },
            None if self.session.route.upstream.credentials().is_none() => self.authenticate(cx, line, whole),
            Some(Decision::Pass | Decision::Again(_)) | None => {
                (0, What::Next(Next::Own(Reason::Command(PinReason::Auth))))
            }
        }
    }

    /// The same, where it is the server's to judge: each client's is sent to it, over a connection that clients of the same user
    /// and password share, and makes no difference there.
    fn authenticate(&mut self, cx: &mut Context<'_>, line: &Hold, whole: &Whole<'_>) -> (usize, What) {
        let words: Vec<&[u8]> = whole.arguments().collect();
        let mut key = self.key();
        let (mut instead, mut told) = (None, None);
        let user = if whole.command == Command::AUTH {
            User::of(&words)
        } else if let Some(hello @ Hello { resp3: Some(resp3), login: Some([user, password]), name }) =
            hello(&words)
        {
            key.resp3 = resp3;
            instead = Some(Hello { name: None, ..hello }.encode());
            told = Some(ClientInfo::Hello { resp3: Some(resp3), name: name.map(Into::into) });
            User::of(&[user, password])
        } else {
            None
        };
        let Some(user) = user.map(Arc::new) else {
            return (0, What::Next(Next::Own(Reason::Command(PinReason::Auth))));
        };
        key.user = Some(Arc::clone(&user));
        self.ask(cx, line, whole, key, instead.as_ref().map(|hello| &hello[..]), Asked::User(user, told))
    }
}

/// A HELLO that a server takes, and that can be kept whole. Not one with an option twice: servers differ in what they make of the
/// first.
fn hello<'a>(words: &[&'a [u8]]) -> Option<Hello<'a>> {
    let hello = Hello::parse(words).ok()?;
    (hello.words() == words.len() && hello.name.is_none_or(is_name)).then_some(hello)
}

/// What a server takes for a name, and can be kept whole.
fn is_name(name: &[u8]) -> bool {
    hello::is_name(name) && name.len() != MAX_CLIENT_INFO && name.len() <= LONGEST_NAME
}

/// CLIENT SETINFO.
fn library(whole: &Whole<'_>) -> Option<ClientInfo> {
    let words: Vec<&[u8]> = whole.arguments().collect();
    let [_, option, value] = words[..] else { return None };
    ClientInfo::by_setinfo(option, value)
}

/// What is sent in place of `CLIENT SETINFO` or `CLIENT MAINT_NOTIFICATIONS`.
fn marked_or_off(whole: &Whole<'_>) -> Option<Vec<u8>> {
    let words: Vec<&[u8]> = std::iter::once(whole.name).chain(whole.arguments()).collect();
    client_requests::instead(&words).map(|words| encode_secret(&words).to_vec())
}
