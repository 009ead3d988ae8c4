//! Reads HELLO as a server does: `helloCommand` in Redis' `networking.c`.

use zeroize::Zeroizing;

use super::replies::encode_secret;
use super::words::{is_same, up_to_zero};

/// What a HELLO asks for. Among several options of one kind the last counts.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Hello<'a> {
    /// RESP3 (`true`) or RESP2. `None`: the protocol does not change.
    pub resp3: Option<bool>,
    /// User and password.
    pub login: Option<[&'a [u8]; 2]>,
    /// The client's name.
    pub name: Option<&'a [u8]>,
}

/// Why a server refuses a HELLO from any user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HelloError {
    /// The version is not an integer.
    NotAnInteger,
    /// The version does not exist.
    Version,
    /// The name contains a space or an unprintable character.
    Name,
    /// The option does not exist, or lacks its arguments.
    Option(Vec<u8>),
}

impl HelloError {
    /// The server's reply, byte for byte.
    pub fn reply(&self) -> Vec<u8> {
        let text: &[u8] = match self {
            Self::NotAnInteger => b"ERR Protocol version is not an integer or out of range",
            Self::Version => b"NOPROTO unsupported protocol version",
            Self::Name => b"ERR Client names cannot contain spaces, newlines or special characters.",
            Self::Option(option) => &[b"ERR Syntax error in HELLO option '", &option[..], b"'"].concat(),
        };
        let line = text.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte });
        std::iter::once(b'-').chain(line).chain(*b"\r\n").collect()
    }
}

/// The role of a word of HELLO after the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HelloWord {
    /// The protocol version.
    Version,
    /// AUTH or SETNAME.
    Option,
    /// The user after AUTH.
    User,
    /// The password after the user.
    Password,
    /// The name after SETNAME.
    Name,
}

impl HelloWord {
    /// The role of the next word. The error is the server's.
    pub(super) fn next(self, word: &[u8]) -> Result<Self, HelloError> {
        match self {
            Self::Version => match word {
                b"2" | b"3" => Ok(Self::Option),
                other if is_integer(other) => Err(HelloError::Version),
                _ => Err(HelloError::NotAnInteger),
            },
            Self::Option if is_same(word, b"AUTH") => Ok(Self::User),
            Self::Option if is_same(word, b"SETNAME") => Ok(Self::Name),
            Self::Option => Err(HelloError::Option(up_to_zero(word).to_vec())),
            Self::User => Ok(Self::Password),
            Self::Password | Self::Name => Ok(Self::Option),
        }
    }
}

impl<'a> Hello<'a> {
    /// Reads the words after the command's name.
    pub fn parse(arguments: &[&'a [u8]]) -> Result<Self, HelloError> {
        let mut hello = Self::default();
        let (mut this, mut option, mut user) = (HelloWord::Version, &[][..], &[][..]);
        for word in arguments.iter().copied() {
            match this {
                HelloWord::Version => hello.resp3 = Some(word == b"3"),
                HelloWord::Option => option = word,
                HelloWord::User => user = word,
                HelloWord::Password => hello.login = Some([user, word]),
                HelloWord::Name if !is_name(word) => return Err(HelloError::Name),
                HelloWord::Name => hello.name = Some(word),
            }
            this = this.next(word)?;
        }
        match this {
            HelloWord::Version | HelloWord::Option => Ok(hello),
            // The option lacks its arguments.
            _ => Err(HelloError::Option(up_to_zero(option).to_vec())),
        }
    }

    /// The request without user and password, encoded.
    pub fn without_login(&self) -> Zeroizing<Vec<u8>> {
        Self { login: None, ..*self }.encode()
    }

    /// The whole request, encoded.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        encode_secret(&[&[&b"HELLO"[..]], &self.arguments()[..]].concat())
    }

    /// Number of words after the command's name, with each option once.
    pub fn words(&self) -> usize {
        self.arguments().len()
    }

    fn arguments(&self) -> Vec<&'a [u8]> {
        let mut words: Vec<&[u8]> = Vec::new();
        words.extend(self.resp3.map(|resp3| if resp3 { &b"3"[..] } else { b"2" }));
        if let Some([user, password]) = self.login {
            words.extend([b"AUTH", user, password]);
        }
        if let Some(name) = self.name {
            words.extend([b"SETNAME", name]);
        }
        words
    }
}

/// Whether a server accepts this client name (`validateClientName`). An empty name removes the old one.
pub fn is_name(name: &[u8]) -> bool {
    name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

/// Whether `string2ll` in Redis' `util.c` accepts it: no leading signs, zeros or spaces, so each number has one spelling.
fn is_integer(text: &[u8]) -> bool {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
    number.is_some_and(|number| number.to_string().as_bytes() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::arguments::{ClientInfo, MAX_CLIENT_INFO};
    use crate::resp::replies::encode_command;
    use crate::resp::scanner::{Event, RequestScanner};
    use proptest::prelude::*;

    fn parse<'a>(words: &[&'a str]) -> Result<Hello<'a>, HelloError> {
        Hello::parse(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>())
    }

    #[test]
    fn each_option_takes_the_words_that_follow_it() {
        let login = |words: &[&'static str]| {
            let hello = parse(words).ok().unwrap();
            let login = hello.login.map(|words| words.map(|word| std::str::from_utf8(word).unwrap()));
            (login, hello.name.map(|name| std::str::from_utf8(name).unwrap()))
        };
        assert_eq!(login(&[]), (None, None));
        assert_eq!(login(&["3"]), (None, None));
        assert_eq!(login(&["3", "auth", "u", "p", "SetName", "n"]), (Some(["u", "p"]), Some("n")));
        assert_eq!(
            login(&["3", "SETNAME", "SETNAME", "AUTH", "u", "p"]),
            (Some(["u", "p"]), Some("SETNAME"))
        );
        assert_eq!(login(&["3", "AUTH", "AUTH", "SETNAME"]), (Some(["AUTH", "SETNAME"]), None));
        assert_eq!(login(&["3", "SETNAME", "AUTH"]), (None, Some("AUTH")));
        assert_eq!(login(&["3", "AUTH", "a", "b", "AUTH", "u", "p"]), (Some(["u", "p"]), None));
        assert_eq!(login(&["3", "SETNAME", "a", "SETNAME", ""]), (None, Some("")));
        assert_eq!(login(&["3", "AUTH\0x", "u", "p"]), (Some(["u", "p"]), None));
    }

    #[test]
    fn a_refused_hello_gets_the_error_of_a_server() {
        for (words, reply) in [
            (&[""][..], "ERR Protocol version is not an integer or out of range"),
            (&["x"], "ERR Protocol version is not an integer or out of range"),
            (&["03"], "ERR Protocol version is not an integer or out of range"),
            (&["+3"], "ERR Protocol version is not an integer or out of range"),
            (&["3 "], "ERR Protocol version is not an integer or out of range"),
            (&["-0"], "ERR Protocol version is not an integer or out of range"),
            (&["9223372036854775808"], "ERR Protocol version is not an integer or out of range"),
            (&["AUTH", "u", "p"], "ERR Protocol version is not an integer or out of range"),
            (&["0"], "NOPROTO unsupported protocol version"),
            (&["-3"], "NOPROTO unsupported protocol version"),
            (&["4", "AUTH", "u", "p"], "NOPROTO unsupported protocol version"),
            (&["3", "AUTH", "u"], "ERR Syntax error in HELLO option 'AUTH'"),
            (&["3", "setname"], "ERR Syntax error in HELLO option 'setname'"),
            (&["3", "AUTH", "u", "p", "F\r\nO\0O"], "ERR Syntax error in HELLO option 'F  O'"),
            (
                &["3", "SETNAME", "a b", "NO"],
                "ERR Client names cannot contain spaces, newlines or special characters.",
            ),
        ] {
            let error = parse(words).err().unwrap();
            assert_eq!(String::from_utf8(error.reply()).unwrap(), format!("-{reply}\r\n"), "{words:?}");
        }
    }

    #[test]
    fn a_hello_is_sent_without_its_password() {
        let hello = parse(&["3", "SETNAME", "AUTH", "AUTH", "u", "p"]).ok().unwrap();
        assert_eq!(&hello.without_login()[..], encode_command(&["HELLO", "3", "SETNAME", "AUTH"]));
        assert_eq!(&hello.encode()[..], encode_command(&["HELLO", "3", "AUTH", "u", "p", "SETNAME", "AUTH"]));
        assert_eq!(&Hello::default().encode()[..], encode_command(&["HELLO"]));
        assert_eq!(hello.words(), 6);
    }

    proptest! {
        #[test]
        fn the_scanner_reads_hello_as_the_parser_does(
            words in proptest::collection::vec(
                proptest::sample::select(vec!["2", "3", "AUTH", "auth", "SETNAME", "setname", "u", "", "SETNAME\0x"]),
                0..9,
            ),
            long in 0..80usize,
        ) {
            let long = "n".repeat(long);
            let words: Vec<&str> = words.into_iter().map(|word| if word == "u" { &long } else { word }).collect();
            let Ok(hello) = parse(&words) else { return Ok(()) };
            let mut scanner = RequestScanner::default();
            let request = encode_command(&[&["HELLO"], &words[..]].concat());
            prop_assert_eq!(scanner.next(&request), (request.len(), Event::Frame));
            let name = hello.name.map(|name| name[..name.len().min(MAX_CLIENT_INFO)].to_vec());
            prop_assert_eq!(scanner.client_info(), Some(ClientInfo::Hello { resp3: hello.resp3, name }));
            // The encoded request reads back the same.
            let encoded = hello.arguments();
            prop_assert!(Hello::parse(&encoded).ok() == Some(hello));
        }
    }
}
