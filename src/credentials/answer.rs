//! What a source gives: a password as it is, or a JSON object with a password, its user and the time when both expire.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

use super::secret::Secret;
use crate::moment::Moment;

/// The keys of the object. A JSON object without any of these keys is a password.
const SECRET_KEYS: [&str; 3] = ["username", "password", "expires_at"];

/// One answer of a source.
#[derive(Debug)]
pub(super) struct SourceAnswer {
    pub(super) username: Option<String>,
    pub(super) secret: Secret,
    /// When the server stops accepting the secret, if the source says so.
    pub(super) expires: Option<SystemTime>,
}

/// A problem with a source's answer. The texts complete a sentence such as "the command x printed …", and contain no secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnusableAnswer {
    #[error("nothing")]
    Empty,
    #[error("a JSON object without a password: set its key \"password\"")]
    NoPassword,
    #[error(
        "a JSON object in which username, password or expires_at is not a string or is given twice: write each once, as a string"
    )]
    NotStrings,
    #[error("a JSON object whose expires_at is not a time of RFC 3339: write it like 2026-01-31T12:00:00Z")]
    BadTime,
    #[error("credentials that expired at {0}: make it give new ones, or correct this machine's clock")]
    Expired(Moment),
    #[error(
        "credentials of the user \"{found}\", but auth.username is \"{configured}\": remove auth.username, or change one of them"
    )]
    OtherUser { found: String, configured: String },
}

#[derive(Deserialize)]
struct JsonSecret<'a> {
    #[serde(borrow)]
    username: Option<JsonText<'a>>,
    #[serde(borrow)]
    password: Option<JsonText<'a>>,
    #[serde(borrow)]
    expires_at: Option<JsonText<'a>>,
}

/// Borrowed from the source's answer unless it contains escapes.
#[derive(Deserialize)]
struct JsonText<'a>(#[serde(borrow)] Cow<'a, str>);

impl JsonText<'_> {
    /// The text, unless it is empty. Wiped on drop.
    fn given(self) -> Option<Zeroizing<String>> {
        Some(Zeroizing::new(self.0.into_owned())).filter(|text| !text.is_empty())
    }
}

impl SourceAnswer {
    /// Reads a source's answer. `configured`: the value of `auth.username`.
    pub(super) fn parse(
        mut bytes: Zeroizing<Vec<u8>>,
        configured: Option<&str>,
        now: SystemTime,
    ) -> Result<Self, UnusableAnswer> {
        if !is_secret_object(&bytes) {
            let secret = Secret::without_newline(std::mem::take(&mut *bytes));
            let secret = secret.ok_or(UnusableAnswer::Empty)?;
            return Ok(Self { username: configured.map(str::to_owned), secret, expires: None });
        }
        // The parser's own error could quote the password.
        let found: JsonSecret<'_> = serde_json::from_slice(&bytes).map_err(|_| UnusableAnswer::NotStrings)?;
        let mut password = found.password.and_then(JsonText::given).ok_or(UnusableAnswer::NoPassword)?;
        let secret = Secret::new(std::mem::take(&mut *password).into_bytes());
        let username = found.username.and_then(JsonText::given).map(|name| name.as_str().to_owned());
        if let (Some(found), Some(configured)) = (&username, configured)
            && found != configured
        {
            let configured = configured.to_owned();
            return Err(UnusableAnswer::OtherUser { found: found.clone(), configured });
        }
        let expires = match found.expires_at {
            Some(text) => Some(time(&text.0).ok_or(UnusableAnswer::BadTime)?),
            None => None,
        };
        if let Some(at) = expires.filter(|at| *at <= now) {
            let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            return Err(UnusableAnswer::Expired(Moment::at(since.as_secs())));
        }
        Ok(Self { username: username.or_else(|| configured.map(str::to_owned)), secret, expires })
    }
}

/// Whether these bytes are a JSON object with one of our keys.
#[expect(clippy::zero_sized_map_values, reason = "serde reads an object as a map; its values are skipped")]
fn is_secret_object(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"{")
        && serde_json::from_slice::<HashMap<Cow<'_, str>, IgnoredAny>>(bytes)
            .is_ok_and(|object| SECRET_KEYS.iter().any(|key| object.contains_key(*key)))
}

/// Parses a time of [RFC 3339](https://www.rfc-editor.org/rfc/rfc3339#section-5.6).
fn time(text: &str) -> Option<SystemTime> {
    let text = text.to_ascii_uppercase();
    if text.ends_with('Z') {
        return humantime::parse_rfc3339(&text).ok();
    }
    // humantime parses only UTC, which is Z.
    let (local, offset) = text.split_at_checked(text.len().checked_sub("+00:00".len())?)?;
    let local = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let number = |digits: &str| {
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let ahead = Duration::from_secs((hours * 60 + minutes) * 60);
    match offset.as_bytes()[0] {
        _ if hours > 23 || minutes > 59 => None,
        b'+' => local.checked_sub(ahead),
        b'-' => local.checked_add(ahead),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    fn parse(text: &str, configured: Option<&str>) -> Result<SourceAnswer, UnusableAnswer> {
        let bytes = Zeroizing::new(text.as_bytes().to_vec());
        SourceAnswer::parse(bytes, configured, SystemTime::UNIX_EPOCH + NOW)
    }

    #[test]
    fn an_object_holds_a_password_a_user_and_an_end() {
        let text = "\n{\"username\": \"app\", \"password\": \"hunter2\", \"expires_at\": \"2023-11-14T22:13:25Z\"}\n";
        let answer = parse(text, None).unwrap();
        assert_eq!((answer.username.as_deref(), answer.secret.expose()), (Some("app"), &b"hunter2"[..]));
        assert_eq!(answer.expires, Some(SystemTime::UNIX_EPOCH + NOW + Duration::from_secs(5)));
        let text = r#"{"password": "a\"\\\u00e4", "engine": "redis", "port": 6379, "username": null}"#;
        let answer = parse(text, Some("app")).unwrap();
        assert_eq!((answer.username.as_deref(), answer.expires), (Some("app"), None));
        assert_eq!(answer.secret.expose(), "a\"\\ä".as_bytes());
        assert_eq!(
            parse(r#"{"password": "p", "username": "app"}"#, Some("app")).unwrap().username.unwrap(),
            "app"
        );
    }

    #[test]
    fn what_is_no_such_object_is_the_password_itself() {
        for text in [
            "{hunter2",
            "{}",
            "{\"password\": \"cut o",
            "{\"password\": \"x\"} and more",
            "{\"other\": \"x\"}",
            "[\"password\"]",
            "\"password\"",
            "{\"nested\": {\"password\": \"x\"}}",
            "{\u{e4}",
        ] {
            let answer = parse(&format!("{text}\n"), Some("app")).unwrap();
            assert_eq!(answer.secret.expose(), text.as_bytes());
            assert_eq!((answer.username.as_deref(), answer.expires), (Some("app"), None));
        }
        assert_eq!(parse("\n", None).unwrap_err(), UnusableAnswer::Empty);
    }

    #[test]
    fn an_object_that_cannot_be_used_is_refused_without_quoting_it() {
        let error = |text: &str| {
            let error = parse(text, Some("app")).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
            error
        };
        for text in [r#"{"username": "app"}"#, r#"{"password": null}"#, r#"{"password": ""}"#] {
            assert!(error(text).contains("without a password"), "{text}");
        }
        for text in [
            r#"{"password": ["hunter2"]}"#,
            r#"{"password": "hunter2", "expires_at": 1700000005}"#,
            r#"{"password": "hunter2", "password": "hunter2"}"#,
        ] {
            assert!(error(text).contains("is not a string or is given twice"), "{text}");
        }
        let expiring = |time: &str| error(&format!(r#"{{"password": "hunter2", "expires_at": "{time}"}}"#));
        for time in [
            "tomorrow",
            "2023-11-14 22:13:25",
            "2023-11-14T22:13:25",
            "2023-11-14T22:13:25+1:00",
            "",
            "+00:00",
        ] {
            assert!(expiring(time).contains("not a time of RFC 3339"), "{time}");
        }
        assert!(expiring("2023-11-14T22:13:20Z").contains("expired at 2023-11-14T22:13:20Z"));
        let other = error(r#"{"password": "hunter2", "username": "other"}"#);
        assert!(other.contains("the user \"other\", but auth.username is \"app\""), "{other}");
    }

    #[test]
    fn a_time_may_have_a_fraction_and_an_offset() {
        let at =
            |text: &str| time(text).map(|at| at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis());
        assert_eq!(at("2023-11-14t22:13:20z"), Some(1_700_000_000_000));
        assert_eq!(at("2023-11-14T22:13:20.250+00:00"), Some(1_700_000_000_250));
        assert_eq!(at("2023-11-15T03:43:20+05:30"), Some(1_700_000_000_000));
        assert_eq!(at("2023-11-14T14:13:20-08:00"), Some(1_700_000_000_000));
        assert_eq!((at("2023-11-14T14:13:20-24:00"), at("2023-11-14T14:13:20-+8:00")), (None, None));
    }
}
