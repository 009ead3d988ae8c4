//! Handles the client's AUTH, and HELLO with AUTH, if pontoon presents its own credentials upstream or checks a local password. Pontoon
//! answers these requests, checks them, or refuses them. If neither applies, they go to the server and a session has no guard.

use std::fmt;
use std::path::PathBuf;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use zeroize::Zeroizing;

use crate::credentials::Secret;
use crate::resp::command_table::{Command, Leaves};
use crate::resp::hello::Hello;
use crate::resp::replies::{self, OK};
use crate::resp::request::Request;
use crate::resp::value::Value;
use crate::resp::words::{UnbalancedQuotes, Words};

/// The longest request that pontoon holds until it is whole: AUTH, HELLO, CLIENT.
pub(super) const MAX_GUARDED_REQUEST: usize = 64 * 1024;

// Redis' own texts (`acl.c`, `networking.c`), byte for byte, because clients search for them.
const NOAUTH: &[u8] = b"-NOAUTH Authentication required.\r\n";
const NOAUTH_HELLO: &[u8] = b"-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> \
    AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time\r\n";
const WRONGPASS: &[u8] = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n";
const AUTH_ARITY: &[u8] = b"-ERR wrong number of arguments for 'auth' command\r\n";
const AUTH_SYNTAX: &[u8] = b"-ERR syntax error\r\n";

/// Sent in place of a line with unbalanced quotes. The server answers with its own error and closes, and sees no password.
const UNBALANCED: &[u8] = b"\"\r\n";

/// What happens to a client's own AUTH.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// It goes to the server.
    #[default]
    Forward,
    /// Pontoon answers `+OK` without a check, for applications that still have a password configured.
    Accept,
    /// Pontoon compares it with this password. Before, the client may send nothing else.
    Verify(LocalPassword),
    /// Pontoon answers with an error.
    Reject,
}

/// The password for local clients. Pontoon reads the file for each AUTH, so a new password applies at once.
#[derive(Clone, PartialEq, Eq)]
pub struct LocalPassword(pub PathBuf);

impl fmt::Debug for LocalPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalPassword({})", self.0.display())
    }
}

impl LocalPassword {
    /// `None`: the file is empty. That is a mistake, and does not mean that no password is needed.
    fn read(&self) -> Result<Option<Secret>, String> {
        let path = self.0.display();
        let stored = std::fs::read(&self.0)
            .map_err(|error| format!("auth.local_password_file {path} cannot be read: {error}"))?;
        Ok(Secret::without_newline(stored))
    }

    /// Checks that the file holds a password. The error says what is wrong with the file.
    pub fn check(&self) -> Result<(), String> {
        match self.read()? {
            Some(_) => Ok(()),
            None => Err(format!(
                "auth.local_password_file {} is empty, so no client can authenticate",
                self.0.display()
            )),
        }
    }

    /// Whether the stored password is `password`. The time that it takes does not depend on how much of it is right. The error is a reply
    /// for the client.
    fn is(&self, password: &[u8]) -> Result<bool, Vec<u8>> {
        let stored = self.read().map_err(|problem| replies::error_reply(&problem))?;
        let hash = |bytes: &[u8]| digest(&SHA256, bytes);
        let is_same = |stored: Secret| {
            verify_slices_are_equal(hash(stored.expose()).as_ref(), hash(password).as_ref()).is_ok()
        };
        Ok(stored.is_some_and(is_same))
    }
}

/// The guard of one session.
pub(super) struct Guard {
    how: ClientAuth,
    /// The client may send any request.
    open: bool,
    /// The beginning of a request that may have to be held.
    held: Zeroizing<Vec<u8>>,
    /// Whether the beginning of the present request was sent or dropped.
    part: Part,
    /// Requests that wait until pontoon has authenticated again.
    later: Zeroizing<Vec<u8>>,
    /// A part of the request that just passed had been sent before.
    passed_in_pieces: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// No part was sent or dropped. It may be held.
    Held,
    Sent,
    Dropped,
}

/// What to do with a request.
pub(super) enum Decision {
    /// Send it.
    Pass,
    /// Send this in its place, as a request of this kind.
    Replace(Request, Zeroizing<Vec<u8>>),
    /// Decide on these words instead, encoded as an array. The request was a line with quotes.
    Again(Zeroizing<Vec<u8>>),
    /// Do not send it. The client gets this reply in its turn.
    Answer(Vec<u8>),
}

/// A request that has to be held is longer than any that makes sense.
pub(super) struct TooLong;

impl Guard {
    pub(super) fn new(how: ClientAuth) -> Self {
        let open = !matches!(how, ClientAuth::Verify(_));
        Self {
            how,
            open,
            held: Zeroizing::default(),
            part: Part::Held,
            later: Zeroizing::default(),
            passed_in_pieces: false,
        }
    }

    /// Whether the client may send any request.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Whether no request waits here.
    pub(super) fn is_at_rest(&self) -> bool {
        self.held.is_empty() && self.later.is_empty()
    }

    /// Handles a part of a request that does not end it. `name`: the request's name, if it is known by now.
    pub(super) fn part(
        &mut self,
        name: Option<&[u8]>,
        part: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), TooLong> {
        let stays = match name.map(|name| (name, Command::named(name))) {
            None => true,
            // Quotes may hide any name.
            Some(([], _)) if self.is_line(part) => true,
            // It may contain the id of another client's connection.
            Some((_, Command::CLIENT)) if self.open => true,
            Some((_, command)) if self.open => {
                !matches!(self.how, ClientAuth::Forward) && matches!(command, Command::AUTH | Command::HELLO)
            }
            Some((_, command)) => {
                matches!(command, Command::AUTH | Command::HELLO | Command::RESET | Command::QUIT)
            }
        };
        match self.part {
            Part::Sent => out.extend_from_slice(part),
            Part::Dropped => {}
            Part::Held if stays => {
                if self.held.len() + part.len() > MAX_GUARDED_REQUEST {
                    return Err(TooLong);
                }
                self.held.extend_from_slice(part);
            }
            Part::Held if self.open => {
                self.release(part, out);
                self.part = Part::Sent;
            }
            Part::Held => {
                self.held = Zeroizing::default();
                self.part = Part::Dropped;
            }
        }
        Ok(())
    }

    /// Sends what is held, and `part` after it.
    pub(super) fn release(&mut self, part: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&std::mem::take(&mut self.held));
        out.extend_from_slice(part);
    }

    /// The whole request that ends with `part`. `None`: a part was sent or dropped.
    pub(super) fn whole(&self, part: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let is_here = self.open && self.part == Part::Held;
        is_here.then(|| Zeroizing::new([&self.held[..], part].concat()))
    }

    /// Drops what is held, because another request replaces the one that ends.
    pub(super) fn forget(&mut self) {
        self.held = Zeroizing::default();
    }

    /// Decides on the request that ends with `part`. If it passes, the caller [releases](Self::release) what is held.
    pub(super) fn decide(&mut self, request: Request, part: &[u8]) -> Decision {
        let sent = std::mem::replace(&mut self.part, Part::Held);
        self.passed_in_pieces = sent == Part::Sent;
        if sent == Part::Sent {
            self.note(request);
            return Decision::Pass;
        }
        if sent == Part::Dropped {
            return Decision::Answer(NOAUTH.into());
        }
        let decision = match request {
            Request::Auth | Request::Hello { .. } if !matches!(self.how, ClientAuth::Forward) => {
                let mut whole = std::mem::take(&mut self.held);
                whole.extend_from_slice(part);
                self.identify(request, &whole)
            }
            // The hidden name may be AUTH.
            Request::Unknown if !matches!(self.how, ClientAuth::Forward) => {
                let mut whole = std::mem::take(&mut self.held);
                whole.extend_from_slice(part);
                match words(&whole) {
                    Ok(Some(words)) => {
                        Decision::Again(replies::encode_secret(&words.iter().collect::<Vec<_>>()))
                    }
                    Ok(None) => unreadable(),
                    Err(unbalanced) => unbalanced.into(),
                }
            }
            Request::Reset => Decision::Pass,
            _ if self.open || self.quits(part) => Decision::Pass,
            _ => {
                self.held = Zeroizing::default();
                Decision::Answer(NOAUTH.into())
            }
        };
        if matches!(decision, Decision::Pass) {
            self.note(request);
        }
        decision
    }

    fn note(&mut self, request: Request) {
        if request == Request::Reset {
            self.open = !matches!(self.how, ClientAuth::Verify(_));
        }
    }

    fn quits(&self, part: &[u8]) -> bool {
        let whole = [&self.held[..], part].concat();
        let Ok(Some(words)) = words(&whole) else { return false };
        words.iter().next().is_some_and(|name| Command::named(name) == Command::QUIT)
    }

    /// Whether the request that is held and continues with `part` is a line.
    fn is_line(&self, part: &[u8]) -> bool {
        match skip(&self.held) {
            [] | [b'*', ..] => {
                let all = Zeroizing::new([&self.held[..], part].concat());
                skip(&all).first() != Some(&b'*')
            }
            _ => true,
        }
    }

    /// Decides on a whole AUTH or HELLO.
    fn identify(&mut self, request: Request, whole: &[u8]) -> Decision {
        let words = match words(whole) {
            Ok(Some(words)) => words,
            Ok(None) => return unreadable(),
            Err(unbalanced) => return unbalanced.into(),
        };
        let arguments: Vec<&[u8]> = words.iter().skip(1).collect();
        if request == Request::Auth {
            return Decision::Answer(match arguments[..] {
                [] => AUTH_ARITY.into(),
                [password] | [_, password] => self.check(password).err().unwrap_or_else(|| OK.into()),
                _ => AUTH_SYNTAX.into(),
            });
        }
        let hello = match Hello::parse(&arguments) {
            Ok(hello) => hello,
            // A version alone contains no password, and the server may support it.
            Err(_) if self.open && arguments.len() == 1 => {
                return Decision::Replace(request, whole.to_vec().into());
            }
            Err(error) => return Decision::Answer(error.reply()),
        };
        if let Some([_, password]) = hello.login {
            return match self.check(password) {
                Ok(()) => Decision::Replace(without_login(request), hello.without_login()),
                Err(refusal) => Decision::Answer(refusal),
            };
        }
        if !self.open {
            return Decision::Answer(NOAUTH_HELLO.into());
        }
        Decision::Replace(request, whole.to_vec().into())
    }

    /// Checks a password. The error is a reply for the client.
    fn check(&mut self, password: &[u8]) -> Result<(), Vec<u8>> {
        match &self.how {
            ClientAuth::Forward | ClientAuth::Accept => Ok(()),
            ClientAuth::Reject => Err(replies::error_reply(
                "AUTH is refused because auth.client is \"reject\": pontoon presents its own credentials; remove the \
                 password from the client's configuration",
            )),
            ClientAuth::Verify(local) => {
                if !local.is(password)? {
                    return Err(WRONGPASS.into());
                }
                self.open = true;
                Ok(())
            }
        }
    }

    /// Holds requests until pontoon has authenticated again.
    pub(super) fn keep_for_later(&mut self, bytes: &[u8]) {
        self.later.extend_from_slice(bytes);
    }

    /// Whether a part of the request that just ended had been sent before.
    pub(super) fn passed_in_pieces(&self) -> bool {
        self.passed_in_pieces
    }

    /// Holds the request that just ended for later. `false`: a part of it had been sent.
    pub(super) fn put_back(&mut self, part: &[u8]) -> bool {
        if self.passed_in_pieces {
            return false;
        }
        let whole = std::mem::take(&mut self.held);
        self.later.extend_from_slice(&whole);
        self.later.extend_from_slice(part);
        true
    }

    /// Whether requests are held for later.
    pub(super) fn has_later(&self) -> bool {
        !self.later.is_empty()
    }

    /// Takes the requests that were held for later, if there are any.
    pub(super) fn take_for_later(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        (!self.later.is_empty()).then(|| std::mem::take(&mut self.later))
    }
}

impl From<UnbalancedQuotes> for Decision {
    fn from(_: UnbalancedQuotes) -> Self {
        Self::Replace(Request::Plain, UNBALANCED.to_vec().into())
    }
}

/// A HELLO without credentials can be set up on another connection.
fn without_login(request: Request) -> Request {
    match request {
        Request::Hello { resp3, has_options, .. } => {
            Request::Hello { resp3, leaves: Leaves::SetUp, has_options }
        }
        other => other,
    }
}

/// The scanner accepts it as a request, but its words cannot be read.
fn unreadable() -> Decision {
    Decision::Answer(replies::error_reply("this request cannot be parsed"))
}

/// The words of a request, which is an array of strings or a line. `None`: it has no words, or elements that are not strings.
pub(super) fn words(request: &[u8]) -> Result<Option<Words>, UnbalancedQuotes> {
    let request = skip(request);
    if request.first() != Some(&b'*') {
        return Words::of_line(request).map(|words| Some(words).filter(|words| !words.is_empty()));
    }
    let Ok(value) = Value::parse(request) else { return Ok(None) };
    let strings: Option<Vec<&[u8]>> = value.list().and_then(|list| list.iter().map(Value::bytes).collect());
    Ok(strings.filter(|strings| !strings.is_empty()).map(|strings| Words::new(&strings)))
}

/// The request without what a server skips before it: empty arrays and blank lines.
fn skip(mut request: &[u8]) -> &[u8] {
    loop {
        match empty_array(request).or_else(|| blank_lines(request)) {
            Some(rest) => request = rest,
            None => return request,
        }
    }
}

/// The rest after an empty array. The scanner accepts several zeros as its length.
fn empty_array(request: &[u8]) -> Option<&[u8]> {
    let count = request.strip_prefix(b"*")?;
    let zeros = count.iter().take_while(|byte| **byte == b'0').count();
    let end = if zeros > 0 { &count[zeros..] } else { count.strip_prefix(b"-1")? };
    end.strip_prefix(b"\r\n")
}

fn blank_lines(request: &[u8]) -> Option<&[u8]> {
    let blanks = request.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == 0x0b).count();
    let last = request[..blanks].iter().rposition(|byte| *byte == b'\n')?;
    Some(&request[last + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(password: &str) -> (tempfile::NamedTempFile, ClientAuth) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), password).unwrap();
        let local = LocalPassword(file.path().to_owned());
        (file, ClientAuth::Verify(local))
    }

    fn decide(guard: &mut Guard, request: Request, words: &[&str]) -> Result<String, String> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let whole = replies::encode_secret(&words);
        match guard.decide(request, &whole) {
            Decision::Pass => Ok(text(&whole)),
            Decision::Replace(_, bytes) => Ok(text(&bytes)),
            Decision::Again(_) => panic!("it is an array already"),
            Decision::Answer(reply) => Err(text(&reply)),
        }
    }

    #[test]
    fn an_accepted_password_is_removed_and_the_rest_of_hello_stays() {
        let mut guard = Guard::new(ClientAuth::Accept);
        assert_eq!(decide(&mut guard, Request::Auth, &["AUTH", "old"]), Err("+OK\r\n".into()));
        assert_eq!(decide(&mut guard, Request::Auth, &["auth", "user", "old"]), Err("+OK\r\n".into()));
        assert_eq!(decide(&mut guard, Request::Auth, &["AUTH"]).unwrap_err().as_bytes(), AUTH_ARITY);
        let hello = Request::Hello { resp3: Some(true), leaves: Leaves::SetUp, has_options: false };
        let rest = "*4\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$7\r\nSETNAME\r\n$1\r\nn\r\n";
        for words in [
            ["HELLO", "3", "AUTH", "u", "p", "SETNAME", "n"],
            ["HELLO", "3", "SETNAME", "n", "auth", "u", "p"],
        ] {
            assert_eq!(decide(&mut guard, hello, &words), Ok(rest.into()));
        }
        assert_eq!(decide(&mut guard, hello, &["HELLO", "3"]), Ok("*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n".into()));
        assert_eq!(
            decide(&mut guard, hello, &["HELLO", "3", "AUTH", "u"]).unwrap_err(),
            "-ERR Syntax error in HELLO option 'AUTH'\r\n"
        );
        assert!(decide(&mut guard, Request::Plain, &["GET", "AUTH"]).is_ok());
        // No password is sent, wherever it stands.
        let twice = ["HELLO", "3", "AUTH", "u", "p", "AUTH", "u", "q", "SETNAME", "AUTH"];
        let named = "*4\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$7\r\nSETNAME\r\n$4\r\nAUTH\r\n";
        assert_eq!(decide(&mut guard, hello, &twice), Ok(named.into()));
        assert!(decide(&mut guard, hello, &["HELLO", "AUTH", "u", "p"]).is_err());
        let named = ["HELLO", "3", "SETNAME", "SETNAME", "AUTH", "u", "p"];
        let sent = "*4\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$7\r\nSETNAME\r\n$7\r\nSETNAME\r\n";
        assert_eq!(decide(&mut guard, hello, &named), Ok(sent.into()));
        let skipped = [b"\r\n*0\r\n".to_vec(), replies::encode_secret(&["AUTH", "p"]).to_vec()].concat();
        assert!(matches!(guard.decide(Request::Auth, &skipped), Decision::Answer(reply) if reply == OK));
    }

    #[test]
    fn a_local_password_admits_a_client_until_reset() {
        let (file, how) = file("hunter2\n");
        let mut guard = Guard::new(how);
        let noauth = String::from_utf8(NOAUTH.into()).unwrap();
        assert_eq!(decide(&mut guard, Request::Plain, &["GET", "k"]), Err(noauth.clone()));
        for wrong in ["", "hunter", "hunter2\n", "hunter22"] {
            let refused = decide(&mut guard, Request::Auth, &["AUTH", wrong]).unwrap_err();
            assert!(refused.starts_with("-WRONGPASS"), "{refused}");
        }
        let hello = Request::Hello { resp3: Some(true), leaves: Leaves::SetUp, has_options: false };
        assert!(decide(&mut guard, hello, &["HELLO", "3"]).unwrap_err().starts_with("-NOAUTH HELLO"));
        assert!(decide(&mut guard, Request::Plain, &["QUIT"]).is_ok());
        assert_eq!(decide(&mut guard, Request::Auth, &["AUTH", "hunter2"]), Err("+OK\r\n".into()));
        assert!(decide(&mut guard, Request::Plain, &["GET", "k"]).is_ok());
        assert!(decide(&mut guard, Request::Reset, &["RESET"]).is_ok());
        assert_eq!(decide(&mut guard, Request::Plain, &["GET", "k"]), Err(noauth));
        assert!(decide(&mut guard, hello, &["HELLO", "3", "AUTH", "default", "hunter2"]).is_ok());
        // The file is rotated, then emptied, then deleted.
        std::fs::write(file.path(), "new").unwrap();
        assert!(
            decide(&mut guard, Request::Auth, &["AUTH", "hunter2"]).unwrap_err().starts_with("-WRONGPASS")
        );
        std::fs::write(file.path(), "\n").unwrap();
        assert!(decide(&mut guard, Request::Auth, &["AUTH", ""]).unwrap_err().starts_with("-WRONGPASS"));
        drop(file);
        let gone = decide(&mut guard, Request::Auth, &["AUTH", "new"]).unwrap_err();
        assert!(gone.starts_with("-ERR pontoon: auth.local_password_file"), "{gone}");
    }

    #[test]
    fn requests_before_authentication_are_dropped_without_memory() {
        let (_file, how) = file("hunter2");
        let mut guard = Guard::new(how);
        let mut out = Vec::new();
        assert!(guard.part(None, b"*3\r\n$3\r\nSE", &mut out).is_ok());
        for _ in 0..1000 {
            assert!(guard.part(Some(b"SET"), &[b'x'; 1024], &mut out).is_ok());
        }
        assert!(matches!(guard.decide(Request::Plain, b"x\r\n"), Decision::Answer(_)));
        assert!(out.is_empty() && guard.is_at_rest());
        // The part that must be held is bounded, too.
        let mut long = 0;
        while guard.part(Some(b"AUTH"), &[b'x'; 1024], &mut out).is_ok() {
            long += 1;
        }
        assert_eq!(long, MAX_GUARDED_REQUEST / 1024);
    }

    #[test]
    fn a_line_in_quotes_is_decided_as_an_array_wherever_it_is_cut() {
        for before in ["", "\r\n", " \t\n", "*0\r\n", "*-1\r\n", "*000\r\n \n"] {
            let line = format!("{before}\"AUTH\" 'p w'\r\n");
            for cut in 0..line.len() {
                let (first, second) = line.as_bytes().split_at(cut);
                let (mut guard, mut out) = (Guard::new(ClientAuth::Accept), Vec::new());
                // The name ends before the space.
                let known = cut > before.len() + "\"AUTH\"".len();
                assert!(cut == 0 || guard.part(known.then_some(&b""[..]), first, &mut out).is_ok());
                let Decision::Again(array) = guard.decide(Request::Unknown, second) else {
                    panic!("{line} {cut}")
                };
                assert_eq!(&array[..], &replies::encode_secret(&["AUTH", "p w"])[..]);
                assert!(out.is_empty() && guard.is_at_rest(), "{line} {cut}");
            }
        }
        let mut guard = Guard::new(ClientAuth::Accept);
        for (request, line) in [(Request::Auth, "AUTH \"p\r\n"), (Request::Unknown, "\"AUTH p\r\n")] {
            let Decision::Replace(Request::Plain, sent) = guard.decide(request, line.as_bytes()) else {
                panic!("{line}")
            };
            assert_eq!(&sent[..], UNBALANCED);
        }
    }

    #[test]
    fn requests_pass_in_pieces_but_auth_is_held_until_it_is_whole() {
        let mut guard = Guard::new(ClientAuth::Accept);
        let mut out = Vec::new();
        assert!(guard.part(None, b"*2\r\n$3\r\nG", &mut out).is_ok());
        assert!(out.is_empty(), "it could still be AUTH");
        assert!(guard.part(Some(b"GET"), b"ET\r\n$1", &mut out).is_ok());
        assert!(matches!(guard.decide(Request::Plain, b"\r\nk\r\n"), Decision::Pass));
        guard.release(b"\r\nk\r\n", &mut out);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
        assert!(guard.part(Some(b"AUTH"), b"*2\r\n$4\r\nAUTH\r\n$3\r\np", &mut out).is_ok());
        assert!(matches!(guard.decide(Request::Auth, b"wd\r\n"), Decision::Answer(reply) if reply == OK));
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
        assert!(guard.is_at_rest());
    }
}
