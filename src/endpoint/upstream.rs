//! An upstream as configured: a host and a port, or a URL.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use super::error::AddressError;
use super::host::Endpoint;

/// An upstream as configured: an endpoint, whether its URL asks for TLS, and a login.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamAddress {
    /// The host and the port.
    pub endpoint: Endpoint,
    /// Whether it was a `rediss://` URL. `redis://` does not mean plaintext: the route's settings decide.
    pub tls: bool,
    /// The URL's user, if it has one, and password.
    pub login: Option<(Option<String>, Zeroizing<Vec<u8>>)>,
}

impl UpstreamAddress {
    /// The endpoint, if the URL has no login.
    pub fn anonymous(self) -> Result<Endpoint, AddressError> {
        if self.login.is_some() { Err(AddressError::Credentials) } else { Ok(self.endpoint) }
    }
}

impl fmt::Debug for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({})", self.endpoint)
    }
}

impl FromStr for UpstreamAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text.trim()).map_err(|error| error.about(text))
    }
}

impl UpstreamAddress {
    fn parse(text: &str) -> Result<Self, AddressError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            if text.contains('@') {
                return Err(AddressError::Credentials);
            }
            return Ok(Self { endpoint: text.parse()?, tls: false, login: None });
        };
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(credentials(login)?), rest),
            None => (None, rest),
        };
        let without_login = format!("{scheme}://{rest}");
        let tls = match scheme {
            "redis" => false,
            "rediss" => true,
            _ => return Err(AddressError::BadUrl(without_login)),
        };
        let (address, database) = rest.split_once('/').unwrap_or((rest, ""));
        if rest.contains(['?', '#']) {
            return Err(AddressError::BadUrl(without_login));
        }
        if !matches!(database, "" | "0") {
            return Err(AddressError::Database(without_login));
        }
        Ok(Self { endpoint: address.parse()?, tls, login })
    }
}

/// Parses a URL's user and password, which are percent-encoded.
fn credentials(text: &str) -> Result<(Option<String>, Zeroizing<Vec<u8>>), AddressError> {
    let (user, password) = text.split_once(':').ok_or(AddressError::BadCredentials)?;
    let user = percent_decode_str(user).decode_utf8().map_err(|_| AddressError::BadCredentials)?;
    let password = Zeroizing::new(percent_decode_str(password).collect::<Vec<u8>>());
    if password.is_empty() {
        return Err(AddressError::BadCredentials);
    }
    Ok((Some(user.into_owned()).filter(|user| !user.is_empty()), password))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> String {
        text.parse::<UpstreamAddress>()
            .map_or_else(|error| error.to_string(), |upstream| upstream.endpoint.to_string())
    }

    #[test]
    fn an_upstream_is_a_name_an_address_or_a_url_and_6379_the_default_port() {
        assert_eq!(endpoint("cache.example"), "cache.example:6379");
        assert_eq!(endpoint("cache.example:6380"), "cache.example:6380");
        assert_eq!(endpoint("10.0.0.1"), "10.0.0.1:6379");
        assert_eq!(endpoint("::1"), "[::1]:6379");
        assert_eq!(endpoint("[::1]"), "[::1]:6379");
        assert_eq!(endpoint("[::1]:7000"), "[::1]:7000");
        assert_eq!(endpoint("redis://cache_1:7000/0"), "cache_1:7000");
        assert!("rediss://cache.example".parse::<UpstreamAddress>().unwrap().tls);
    }

    #[test]
    fn an_invalid_upstream_is_refused_with_what_is_expected() {
        for (text, expected) in [
            ("", "no host"),
            (":6379", "no host"),
            ("cache:0", "not a port"),
            ("cache:70000", "not a port"),
            ("cache:abc", "not a port"),
            ("::1:99999:", "not a port"),
            ("ca che:1", "neither a host name"),
            ("10.0.0.256", "neither a host name"),
            ("-x:1", "neither a host name"),
            ("http://cache:1", "not an upstream"),
            ("redis://cache:1/3", "database"),
            ("redis://cache:1?x=y", "not an upstream"),
        ] {
            let error = text.parse::<UpstreamAddress>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_url_may_name_a_user_and_a_password() {
        let login = |text: &str| {
            let (user, password) = text.parse::<UpstreamAddress>().unwrap().login.unwrap();
            (user.unwrap_or_default(), String::from_utf8(password.to_vec()).unwrap())
        };
        assert_eq!(login("rediss://app:hunter2@cache"), ("app".into(), "hunter2".into()));
        assert_eq!(login("redis://:p%40ss%3Aw@cache:7000/0"), (String::new(), "p@ss:w".into()));
        assert_eq!(endpoint("rediss://app:a@b:c@cache:7000"), "cache:7000");
    }

    #[test]
    fn no_message_repeats_a_password() {
        for text in [
            "hunter2@cache",
            "rediss://hunter2@cache",
            "http://app:hunter2@cache",
            "redis://app:hunter2@cache/3",
            "redis://app:hunter2@cache?x=y",
            "redis://app:hunter2@-",
            "redis://app:hunter2/cache",
            "redis://app:hunter2%40cache:6379",
            "redis://cache?password=hunter2",
            "redis://cache#hunter2",
            "cache;password=hunter2",
            "app:hunter2",
        ] {
            let error = text.parse::<UpstreamAddress>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{text}: {error}");
        }
        let taken = "redis://app:hunter2@cache".parse::<UpstreamAddress>().unwrap();
        assert!(!format!("{taken:?}").contains("hunter2"));
        assert!(!taken.anonymous().unwrap_err().to_string().contains("hunter2"));
    }
}
