//! Handles the requests that set up a client's connection: pontoon keeps the state for each client, and the server still decides.
//! Requests whose replies get the client's local addresses are handled in the same way, without state.

use std::sync::Arc;
use std::task::Context;

use super::client::{ClientNeed, DedicatedReason, LookOutcome, SharedClient};
use super::connection::{PutError, SharedLease};
use super::in_flight::Recipient;
use crate::cluster::{RewriteError, Rewriter};
use crate::resp::arguments::{ClientInfo, MAX_CLIENT_INFO};
use crate::resp::client_requests;
use crate::resp::command_table::{AddressReply, Command, Leaves, PinReason};
use crate::resp::hello::{self, Hello};
use crate::resp::replies::{OK, encode_command, encode_secret, error_reply};
use crate::resp::request::Request;
use crate::resp::whole::{Front, Whole};
use crate::session::counts::RequestCounts;
use crate::session::guard::Decision;
use crate::session::rewriting::unknown_node;
use crate::session::setup::SharingKey;
use crate::session::user::ClientUser;
use crate::upstream::SeenId;

/// Longer names go to the server unchanged, over a dedicated connection.
const MAX_KEPT_NAME: usize = 1024;

/// A change for a client that takes effect once the server accepts it.
pub(super) enum PendingSetup {
    Told(ClientInfo),
    /// The client's user, and what else the request says about it.
    User(Arc<ClientUser>, Option<ClientInfo>),
    Replica(bool),
    /// Nothing changes, and the reply may name nodes.
    Nodes(AddressReply),
    Nothing,
}

impl SharedClient<'_> {
    /// Handles a request that sets up the connection. No reply is outstanding. Returns how many bytes are done.
    pub(super) fn set_up(
        &mut self,
        cx: &mut Context<'_>,
        shared: &SharedLease,
        whole: &Whole<'_>,
    ) -> (usize, LookOutcome) {
        let length = whole.bytes.len();
        let own = |reason| (0, LookOutcome::Next(ClientNeed::Own(DedicatedReason::Command(reason))));
        let mut key = self.key();
        // Sent in place of the client's request, so that all connections with the key stay alike.
        let mut instead = None;
        let asked = match whole.command {
            Command::QUIT => return (length, LookOutcome::Next(ClientNeed::Quit(OK))),
            Command::SELECT => {
                let database = std::str::from_utf8(whole.first).ok().and_then(|text| text.parse().ok());
                // The server itself answers an invalid database.
                let Some(database) = database.filter(|_| whole.words == 2) else {
                    return own(PinReason::Administration);
                };
                key.database = database;
                PendingSetup::Told(ClientInfo::Database(database))
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
                    PendingSetup::Told(ClientInfo::Hello { resp3, name: name.map(Into::into) })
                }
                _ => return own(PinReason::Auth),
            },
            Command::CLIENT_SETNAME => {
                match whole.arguments().nth(1).filter(|name| is_name(name) && whole.words == 3) {
                    Some(name) => {
                        let ours = self.session.route.upstream.client_name().unwrap_or_default();
                        instead = Some(encode_command(&["CLIENT", "SETNAME", ours]));
                        PendingSetup::Told(ClientInfo::Name(name.into()))
                    }
                    None => return own(PinReason::Administration),
                }
            }
            Command::CLIENT_GETNAME => {
                let name = self.session.profile.setup().map_or(&[][..], |setup| &setup.name);
                if !name.is_empty() && whole.words == 2 {
                    let reply = [format!("${}\r\n", name.len()).as_bytes(), name, b"\r\n"].concat();
                    self.writer.deliver(&reply, 0);
                    return (length, LookOutcome::More);
                }
                PendingSetup::Nothing
            }
            Command::CLIENT_SETINFO => match library(whole) {
                Some(told) => {
                    instead = marked_or_off(whole);
                    PendingSetup::Told(told)
                }
                None => return own(PinReason::Administration),
            },
            Command::READONLY => {
                key.replica = true;
                PendingSetup::Replica(true)
            }
            Command::READWRITE => {
                key.replica = false;
                PendingSetup::Replica(false)
            }
            Command::CLIENT_MAINT_NOTIFICATIONS => {
                instead = marked_or_off(whole);
                PendingSetup::Nothing
            }
            command => match command.nodes() {
                Some(reply) => PendingSetup::Nodes(reply),
                // The effect of other requests is unknown.
                None => return own(PinReason::ConnectionState),
            },
        };
        self.ask(cx, shared, whole, key, instead.as_deref(), asked)
    }

    /// Asks the server over a connection with this key, with the client's request or with `instead`.
    fn ask(
        &mut self,
        cx: &mut Context<'_>,
        shared: &SharedLease,
        whole: &Whole<'_>,
        key: SharingKey,
        instead: Option<&[u8]>,
        asked: PendingSetup,
    ) -> (usize, LookOutcome) {
        if key != self.on {
            return (0, LookOutcome::Next(ClientNeed::Shared(key)));
        }
        if self.session.profile.looks() {
            self.session.profile.look(whole.bytes);
        }
        let length = whole.bytes.len();
        match shared.put(cx, &self.writer, instead.unwrap_or(whole.bytes), 1, Recipient::Task) {
            Ok(()) => {
                let mut counts = RequestCounts::default();
                counts.add(whole.command);
                counts.record(&self.session.route.metrics);
                self.session.profile.sent(length, 1);
                self.asked = Some(asked);
                (length, LookOutcome::Asked)
            }
            Err(PutError::Full) => (0, LookOutcome::Wait),
            Err(PutError::Closed) => (0, LookOutcome::Next(ClientNeed::Shared(key))),
        }
    }

    /// Takes the server's reply to the request for the client, and applies the change if it was accepted.
    pub(super) fn take_answer(&mut self, shared: &SharedLease) {
        if self.asked.is_none() {
            return;
        }
        let Some(reply) = self.writer.take_answer() else { return };
        let accepted = !reply.starts_with(b"-") && !reply.starts_with(b"!");
        if accepted
            && let Some(
                PendingSetup::Told(ClientInfo::Hello { .. })
                | PendingSetup::User(_, Some(ClientInfo::Hello { .. })),
            ) = self.asked
        {
            // The id is that of the shared connection.
            let mut state = shared.state.lock();
            state.seen_id = SeenId::by_hello(Some(&reply));
            if let (SeenId::Seen(id), None) = (state.seen_id, &state.passed_on) {
                state.passed_on = Some(self.session.route.upstream.pass_on(id));
            }
        }
        match self.asked.take() {
            // It holds whether or not the server supports CLIENT SETINFO.
            Some(PendingSetup::Told(told @ (ClientInfo::Library(_) | ClientInfo::Version(_)))) => {
                self.session.profile.accepted(told);
            }
            Some(PendingSetup::Told(told)) if accepted => self.session.profile.accepted(told),
            Some(PendingSetup::User(user, told)) if accepted => {
                self.session.profile.is_user(&user);
                if let Some(told) = told {
                    self.session.profile.accepted(told);
                }
            }
            Some(PendingSetup::Replica(replica)) if accepted => self.session.profile.reads_replicas(replica),
            Some(PendingSetup::Nodes(kind)) => {
                let reply = self.with_local_addresses(shared, kind, reply);
                self.writer.deliver(&reply, 0);
                return;
            }
            _ => {}
        }
        self.writer.deliver(&reply, 0);
    }

    /// The reply with local addresses in place of those of nodes.
    fn with_local_addresses(&self, shared: &SharedLease, kind: AddressReply, reply: Vec<u8>) -> Vec<u8> {
        let route = self.session.route;
        let (Some(nodes), Some(host)) = (&route.nodes, &self.writer.local_host) else { return reply };
        let (kind, bytes) =
            match Rewriter::new(&nodes.map(), host, &shared.upstream.dialled.endpoint).reply(kind, &reply) {
                Ok(rewritten) if rewritten == reply => return reply,
                Ok(rewritten) => ("topology", rewritten),
                Err(RewriteError::UnknownNode(_)) => ("refused", unknown_node()),
                Err(error) => ("refused", error_reply(&error.to_string())),
            };
        route.metrics.rewritten(kind);
        bytes
    }

    /// Handles AUTH, or HELLO with AUTH. No reply is outstanding. Returns how many bytes are done.
    pub(super) fn identify(
        &mut self,
        cx: &mut Context<'_>,
        shared: &SharedLease,
        whole: &Whole<'_>,
    ) -> (usize, LookOutcome) {
        let length = whole.bytes.len();
        let is_auth = whole.command == Command::AUTH;
        let request = if is_auth {
            Request::Auth
        } else {
            Request::Hello { resp3: None, leaves: Leaves::UntilReset, has_options: true }
        };
        match self.session.guard.as_mut().map(|guard| guard.decide(request, whole.bytes)) {
            Some(Decision::Answer(reply)) => {
                self.writer.deliver(&reply, 0);
                (length, LookOutcome::More)
            }
            Some(Decision::Replace(_, rest)) => match Front::of(&rest) {
                Front::Whole(hello) => {
                    let (passed, what) = self.set_up(cx, shared, &hello);
                    (if passed > 0 { length } else { 0 }, what)
                }
                _ => (0, LookOutcome::Next(ClientNeed::Own(DedicatedReason::Command(PinReason::Auth)))),
            },
            None if self.session.route.upstream.credentials().is_none() => {
                self.authenticate(cx, shared, whole)
            }
            Some(Decision::Pass | Decision::Again(_)) | None => {
                (0, LookOutcome::Next(ClientNeed::Own(DedicatedReason::Command(PinReason::Auth))))
            }
        }
    }

    /// Lets the server decide on AUTH. Each client's AUTH is sent over a connection that clients with the same user and password share,
    /// where it changes nothing.
    fn authenticate(
        &mut self,
        cx: &mut Context<'_>,
        shared: &SharedLease,
        whole: &Whole<'_>,
    ) -> (usize, LookOutcome) {
        let words: Vec<&[u8]> = whole.arguments().collect();
        let mut key = self.key();
        let (mut instead, mut told) = (None, None);
        let user = if whole.command == Command::AUTH {
            ClientUser::of(&words)
        } else if let Some(hello @ Hello { resp3: Some(resp3), login: Some([user, password]), name }) =
            hello(&words)
        {
            key.resp3 = resp3;
            instead = Some(Hello { name: None, ..hello }.encode());
            told = Some(ClientInfo::Hello { resp3: Some(resp3), name: name.map(Into::into) });
            ClientUser::of(&[user, password])
        } else {
            None
        };
        let Some(user) = user.map(Arc::new) else {
            return (0, LookOutcome::Next(ClientNeed::Own(DedicatedReason::Command(PinReason::Auth))));
        };
        key.user = Some(Arc::clone(&user));
        self.ask(
            cx,
            shared,
            whole,
            key,
            instead.as_ref().map(|hello| &hello[..]),
            PendingSetup::User(user, told),
        )
    }
}

/// Parses a HELLO that a server accepts and that can be kept whole. An option that stands twice is excluded, because servers treat the
/// first one differently.
fn hello<'a>(words: &[&'a [u8]]) -> Option<Hello<'a>> {
    let hello = Hello::parse(words).ok()?;
    (hello.words() == words.len() && hello.name.is_none_or(is_name)).then_some(hello)
}

/// Whether a server accepts the name, and it can be kept whole.
fn is_name(name: &[u8]) -> bool {
    hello::is_name(name) && name.len() != MAX_CLIENT_INFO && name.len() <= MAX_KEPT_NAME
}

/// What CLIENT SETINFO says about the client.
fn library(whole: &Whole<'_>) -> Option<ClientInfo> {
    let words: Vec<&[u8]> = whole.arguments().collect();
    let [_, option, value] = words[..] else { return None };
    ClientInfo::by_setinfo(option, value)
}

/// What to send in place of `CLIENT SETINFO` or `CLIENT MAINT_NOTIFICATIONS`.
fn marked_or_off(whole: &Whole<'_>) -> Option<Vec<u8>> {
    let words: Vec<&[u8]> = std::iter::once(whole.name).chain(whole.arguments()).collect();
    client_requests::instead(&words).map(|words| encode_secret(&words).to_vec())
}
