//! Removes what could be a secret from text that was given as an address, so that messages may show it.

use std::borrow::Cow;

const HIDDEN: &str = "***";

/// Characters that cannot occur in a host, a port or a database.
const AUTHORITY_TERMINATORS: &[char] = &['?', '#', ';', '&', '='];

/// Words that may introduce a secret outside of URLs.
const SECRETS: &[&str] = &["password", "passwd", "pwd", "secret", "token"];

/// `text` without what could be a secret. Of a URL, or of text that looks like one, the scheme, host, port and database remain.
pub(super) fn redacted(text: &str) -> Cow<'_, str> {
    let lower = text.to_ascii_lowercase();
    let is_url = text.contains("://")
        || text.starts_with("//")
        || text.contains(['@', '?'])
        || SECRETS.iter().any(|name| lower.contains(name));
    if is_url { Cow::Owned(shown(text)) } else { Cow::Borrowed(text) }
}

/// A message that may repeat the text `given`, without what could be a secret in that.
pub fn without_secrets(message: String, given: &str) -> String {
    match redacted(given) {
        Cow::Owned(shown) => message.replace(given, &shown),
        Cow::Borrowed(_) => message,
    }
}

fn shown(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) if is_of(scheme, "+-.") => (format!("{scheme}://"), rest),
        _ => match text.strip_prefix("unix:") {
            Some(rest) => ("unix:".to_owned(), rest),
            None => (String::new(), text),
        },
    };
    // A password may hold any character, so what follows one of these may be a part of it.
    let (login, rest) = match rest.rsplit_once('@') {
        Some((login, _)) if login.contains(AUTHORITY_TERMINATORS) => return scheme + HIDDEN,
        Some((_, rest)) => (format!("{HIDDEN}@"), rest),
        None => (String::new(), rest),
    };
    let (place, end) = match rest.split_once(AUTHORITY_TERMINATORS) {
        Some((place, _)) => (place, &rest[place.len()..=place.len()]),
        None => (rest, ""),
    };
    let is_path = scheme == "unix:" && place.starts_with('/');
    if end == "=" || !(is_path || is_place(place)) {
        return scheme + &login + HIDDEN;
    }
    let hidden = if end.is_empty() { "" } else { HIDDEN };
    format!("{scheme}{login}{place}{end}{hidden}")
}

/// Whether the text is a host, with an optional port and database.
fn is_place(text: &str) -> bool {
    let (address, database) = text.split_once('/').unwrap_or((text, ""));
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !address.ends_with(']') => (host, port),
        _ => (address, ""),
    };
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => is_of(address, ":."),
        None => is_of(host, "._-"),
    };
    is_host && is_number(port) && is_number(database)
}

fn is_of(text: &str, others: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

/// Whether the text is empty or looks like a port. Other text could be a password.
pub(super) fn is_number(text: &str) -> bool {
    text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_without_secrets_are_shown_unchanged() {
        for text in [
            "",
            "cache",
            "ca che:1",
            "cache:70000",
            "-x",
            "::1:99999:",
            "[::1]:6379",
            "5s",
            "sha256//AAAA=",
            "unix:/run/x.sock",
            "unix:/run//x.sock",
            "/run/x//y",
            "redis://cache:1/3",
            "http://cache",
            "rediss://[::1]:70000",
        ] {
            assert_eq!(redacted(text), text);
        }
    }

    #[test]
    fn text_that_could_be_a_secret_is_hidden() {
        for (text, expected) in [
            ("redis://app:hunter2@cache:1/3", "redis://***@cache:1/3"),
            ("redis://cache:1?password=hunter2", "redis://cache:1?***"),
            ("redis://cache:1#hunter2", "redis://cache:1#***"),
            ("redis://cache:1/0?password=hunter2@x", "redis://***"),
            ("redis://app:hun?ter2@cache", "redis://***"),
            ("redis://app:hunter2", "redis://***"),
            ("redis://app:hunter2@cache:hunter2", "redis://***@***"),
            ("redis://hunter2%40cache", "redis://***"),
            ("hunter2@cache", "***@cache"),
            ("cache:6379;password=hunter2", "cache:6379;***"),
            ("password=hunter2", "***"),
            ("//app:hunter2", "***"),
            ("unix:/run/x.sock?password=hunter2", "unix:/run/x.sock?***"),
        ] {
            assert_eq!(redacted(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_password_of_a_url_is_shown(password in "[!-~]{0,3}hunter2[!-~]{0,3}", user in "[a-z]{0,3}") {
            for text in [
                format!("redis://{user}:{password}@cache:6379/0"),
                format!("{user}:{password}@cache"),
                format!("rediss://cache?password={password}"),
                format!("cache:6379?password={password}"),
            ] {
                let shown = redacted(&text);
                prop_assert!(!shown.contains("hunter2"), "{}: {}", text, shown);
            }
        }
    }
}
