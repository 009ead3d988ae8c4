//! What a client says of who it is: AUTH, and HELLO with AUTH. Pontoon presents its own credentials upstream, so these are
//! answered here, or checked here, or refused; where they go on to the server, nothing of this is in the way.

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

/// A request that must be whole before it is sent on is never longer: AUTH, HELLO, CLIENT.
pub(super) const MAX_GUARDED_REQUEST: usize = 64 * 1024;

// Redis' own words (`acl.c`, `networking.c`), to the byte: clients look for them.
const NOAUTH: &[u8] = b"-NOAUTH Authentication required.\r\n";
const NOAUTH_HELLO: &[u8] = b"-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> \
    AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time\r\n";
const WRONGPASS: &[u8] = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n";
const AUTH_ARITY: &[u8] = b"-ERR wrong number of arguments for 'auth' command\r\n";
const AUTH_SYNTAX: &[u8] = b"-ERR syntax error\r\n";

/// Sent on in place of a line with unbalanced quotes: the server answers with its own error and closes, and sees no password.
const UNBALANCED: &[u8] = b"\"\r\n";

/// What a client's own AUTH gets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// It goes to the server.
    #[default]
    Forward,
    /// `+OK`, whatever it says: applications have a password setting left over.
    Accept,
    /// It is compared with this; a client may do nothing before.
    Verify(LocalPassword),
    /// An error.
    Reject,
}

/// The password that local clients must know. Its file is read for each AUTH: a new one counts at once.
#[derive(Clone, PartialEq, Eq)]
pub struct LocalPassword(pub PathBuf);

impl fmt::Debug for LocalPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalPassword({})", self.0.display())
    }
}

impl LocalPassword {
    /// `None`: the file is empty, which is a mistake, and no invitation.
    fn read(&self) -> Result<Option<Secret>, String> {
        let path = self.0.display();
        let stored = std::fs::read(&self.0)
            .map_err(|error| format!("auth.local_password_file {path} cannot be read: {error}"))?;
        Ok(Secret::without_newline(stored))
    }

    /// Whether any client could know it. The error says what is wrong with the file.
    pub fn check(&self) -> Result<(), String> {
        match self.read()? {
            Some(_) => Ok(()),
            None => Err(format!("auth.local_password_file {} is empty: nobody gets in", self.0.display())),
        }
    }

    /// Whether it is `password`, in a time that does not tell how much of it is right. The error is for the client.
    fn is(&self, password: &[u8]) -> Result<bool, Vec<u8>> {
        let stored = self.read().map_err(|problem| replies::error_reply(&problem))?;
        let hash = |bytes: &[u8]| digest(&SHA256, bytes);
        let is_same = |stored: Secret| {
            verify_slices_are_equal(hash(stored.expose()).as_ref(), hash(password).as_ref()).is_ok()
        };
        Ok(stored.is_some_and(is_same))
    }
}

/// One session's.
pub(super) struct Guard {
    how: ClientAuth,
    /// The client may send what it likes.
    open: bool,
    /// The beginning of a request that may have to stay here.
    held: Zeroizing<Vec<u8>>,
    /// The beginning of the present request was sent on, or dropped.
    part: Part,
    /// Requests that wait until pontoon has authenticated again.
    later: Zeroizing<Vec<u8>>,
    /// The request that just passed had been sent on in part.
    passed_in_pieces: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Nothing, or it is held.
    Held,
    Sent,
    Dropped,
}

/// What becomes of a request.
pub(super) enum Decision {
    /// It is sent on.
    Pass,
    /// This is sent on in its place, a request of that kind.
    Replace(Request, Zeroizing<Vec<u8>>),
    /// It is a line with quotes. These are its words as an array, which is decided on in its place.
    Again(Zeroizing<Vec<u8>>),
    /// It is not: the client gets this, in its turn.
    Answer(Vec<u8>),
}

/// A request that has to stay here is longer than any that makes sense.
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

    /// Whether the client may send what it likes.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Nothing waits here.
    pub(super) fn is_at_rest(&self) -> bool {
        self.held.is_empty() && self.later.is_empty()
    }

    /// A part of a request, not its end. `name`: of the request, if it is known by now.
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
            // It may name another client's connection.
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

    /// Sends on what is held, and `part` after it.
    pub(super) fn release(&mut self, part: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&std::mem::take(&mut self.held));
        out.extend_from_slice(part);
    }

    /// All of the request that ends with `part`. `None`: some of it was sent on, or is not taken.
    pub(super) fn whole(&self, part: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let is_here = self.open && self.part == Part::Held;
        is_here.then(|| Zeroizing::new([&self.held[..], part].concat()))
    }

    /// Another request takes the place of the one that ends.
    pub(super) fn forget(&mut self) {
        self.held = Zeroizing::default();
    }

    /// The request ends with `part`. What is held is the caller's to [release](Self::release) if it passes.
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
            // It could be AUTH.
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

    /// Whether the request that is held, and goes on with `part`, is a line.
    fn is_line(&self, part: &[u8]) -> bool {
        match skip(&self.held) {
            [] | [b'*', ..] => {
                let all = Zeroizing::new([&self.held[..], part].concat());
                skip(&all).first() != Some(&b'*')
            }
            _ => true,
        }
    }

    /// AUTH or HELLO, whole.
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
            // A version alone holds no password, and the server may know it.
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

    /// The error is for the client.
    fn check(&mut self, password: &[u8]) -> Result<(), Vec<u8>> {
        match &self.how {
            ClientAuth::Forward | ClientAuth::Accept => Ok(()),
            ClientAuth::Reject => Err(replies::error_reply(
                "AUTH is refused here, for auth.client is \"reject\": pontoon presents its own credentials; take the \
                 password out of the client's configuration",
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

    /// Keeps requests until pontoon has authenticated again.
    pub(super) fn keep_for_later(&mut self, bytes: &[u8]) {
        self.later.extend_from_slice(bytes);
    }

    /// Whether a part of the request that just ended was sent on before.
    pub(super) fn passed_in_pieces(&self) -> bool {
        self.passed_in_pieces
    }

    /// Keeps the request that just ended. `false`: a part of it was sent on.
    pub(super) fn put_back(&mut self, part: &[u8]) -> bool {
        if self.passed_in_pieces {
            return false;
        }
        let whole = std::mem::take(&mut self.held);
        self.later.extend_from_slice(&whole);
        self.later.extend_from_slice(part);
        true
    }

    /// Whether anything was kept.
    pub(super) fn has_later(&self) -> bool {
        !self.later.is_empty()
    }

    /// What was kept, if anything was.
    pub(super) fn take_for_later(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        (!self.later.is_empty()).then(|| std::mem::take(&mut self.later))
    }
}

impl From<UnbalancedQuotes> for Decision {
    fn from(_: UnbalancedQuotes) -> Self {
        Self::Replace(Request::Plain, UNBALANCED.to_vec().into())
    }
}

/// A HELLO that says nothing of who the client is can be set up on another connection.
fn without_login(request: Request) -> Request {
    match request {
        Request::Hello { resp3, has_options, .. } => {
            Request::Hello { resp3, leaves: Leaves::SetUp, has_options }
        }
        other => other,
    }
}

/// The scanner takes it for a request, and its words cannot be read.
fn unreadable() -> Decision {
    Decision::Answer(replies::error_reply("this request cannot be read"))
}

/// The words of a request, an array of strings or a line. `None`: it has none, or holds something else.
pub(super) fn words(request: &[u8]) -> Result<Option<Words>, UnbalancedQuotes> {
    let request = skip(request);
    if request.first() != Some(&b'*') {
        return Words::of_line(request).map(|words| Some(words).filter(|words| !words.is_empty()));
    }
    let Ok(value) = Value::parse(request) else { return Ok(None) };
    let strings: Option<Vec<&[u8]>> = value.list().and_then(|list| list.iter().map(Value::bytes).collect());
    Ok(strings.filter(|strings| !strings.is_empty()).map(|strings| Words::new(&strings)))
}

/// The request without what a server skips before it: empty arrays, and lines without a word.
fn skip(mut request: &[u8]) -> &[u8] {
    loop {
        match empty_array(request).or_else(|| blank_lines(request)) {
            Some(rest) => request = rest,
            None => return request,
        }
    }
}

/// What follows an empty array. The scanner takes more zeros than one.
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
    fn what_is_accepted_is_taken_out_and_the_rest_of_hello_stays() {
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
        // No password goes on, however it is put.
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
    fn a_local_password_opens_and_reset_closes_again() {
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
        // Rotated, emptied, gone.
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
    fn what_an_unknown_client_sends_is_dropped_as_it_comes_and_costs_no_memory() {
        let (_file, how) = file("hunter2");
        let mut guard = Guard::new(how);
        let mut out = Vec::new();
        assert!(guard.part(None, b"*3\r\n$3\r\nSE", &mut out).is_ok());
        for _ in 0..1000 {
            assert!(guard.part(Some(b"SET"), &[b'x'; 1024], &mut out).is_ok());
        }
        assert!(matches!(guard.decide(Request::Plain, b"x\r\n"), Decision::Answer(_)));
        assert!(out.is_empty() && guard.is_at_rest());
        // And what must be held to be understood is bounded.
        let mut long = 0;
        while guard.part(Some(b"AUTH"), &[b'x'; 1024], &mut out).is_ok() {
            long += 1;
        }
        assert_eq!(long, MAX_GUARDED_REQUEST / 1024);
    }

    #[test]
    fn a_line_in_quotes_is_looked_at_again_as_an_array_wherever_it_is_cut() {
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
    fn a_request_in_pieces_passes_in_pieces_and_auth_is_held_until_it_is_whole() {
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
