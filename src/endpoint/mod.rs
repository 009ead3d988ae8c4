//! Where things are: an upstream's host and port, a listener's address.
//!
//! Parsing only. Resolving names is `resolve`'s work, binding is `listener`'s.

mod listen;
mod redacted;

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

pub use self::listen::{ListenAddr, Peers};
use self::redacted::redacted;
pub use self::redacted::without_secrets;

/// Redis' own port, used where an upstream names none.
pub const DEFAULT_PORT: u16 = 6379;

/// An upstream endpoint: a host, by name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The host as configured.
    pub host: Host,
    /// The TCP port.
    pub port: u16,
}

/// A host, by DNS name or by IP address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A DNS name, resolved again for every connection.
    Name(String),
    /// A literal address.
    Ip(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
        }
    }
}

/// An upstream as configured: an endpoint, whether its notation asks for TLS, and who it names.
#[derive(Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Where to.
    pub endpoint: Endpoint,
    /// It was a `rediss://` URL. `redis://` is notation only: whether TLS is spoken is the route's to say.
    pub tls: bool,
    /// A URL's user, if it names one, and its password.
    pub login: Option<(Option<String>, Zeroizing<Vec<u8>>)>,
}

impl Upstream {
    /// The endpoint, of one that names nobody.
    pub fn anonymous(self) -> Result<Endpoint, AddressError> {
        if self.login.is_some() { Err(AddressError::Credentials) } else { Ok(self.endpoint) }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({})", self.endpoint)
    }
}

/// Text that is no address, and what would be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no host.
    #[error("\"{0}\" has no host: expected HOST or HOST:PORT")]
    NoHost(String),
    /// The host is neither a name nor an address.
    #[error("\"{0}\" is no host name and no IP address (IPv6 goes in brackets: [::1]:6379)")]
    BadHost(String),
    /// The port is no port.
    #[error("\"{0}\" is no port: expected 1 to 65535")]
    BadPort(String),
    /// Credentials where none are taken. The text is not repeated: it may hold a secret.
    #[error("credentials are not taken here")]
    Credentials,
    /// Credentials that are none. The text is not repeated, either.
    #[error(
        "the credentials are no USER:PASSWORD: expected redis://USER:PASSWORD@HOST or redis://:PASSWORD@HOST"
    )]
    BadCredentials,
    /// A URL's database, which only a client can select.
    #[error("\"{0}\" names a database other than 0: clients SELECT theirs")]
    Database(String),
    /// A URL of another kind, or with parts that mean nothing here.
    #[error("\"{0}\" is no upstream: expected HOST:PORT, redis://HOST:PORT or rediss://HOST:PORT")]
    BadUrl(String),
    /// Nothing to listen on.
    #[error(
        "\"{0}\" is nothing to listen on: expected 127.0.0.1:6379, [::1]:6379 or unix:/run/pontoon/redis.sock"
    )]
    BadListen(String),
    /// A Unix socket's path does not fit.
    #[error("\"{0}\": the path of a Unix socket has 1 to 107 bytes")]
    BadPath(String),
    /// A Unix socket's options are wrong.
    #[error(
        "\"{0}\": expected permission bits in octal and numbers of users and groups, one at a time, as in \
         unix:/run/pontoon/redis.sock?mode=0660&uid=1000&uid=33&gid=1000"
    )]
    BadSocketOption(String),
}

impl AddressError {
    /// About `text`, of which it repeats no secret.
    fn about(self, text: &str) -> Self {
        let Cow::Owned(shown) = redacted(text) else { return self };
        match self {
            Self::NoHost(_) => Self::NoHost(shown),
            Self::BadHost(_) => Self::BadHost(shown),
            Self::BadPort(_) => Self::BadPort(shown),
            Self::Credentials => Self::Credentials,
            Self::BadCredentials => Self::BadCredentials,
            Self::Database(_) => Self::Database(shown),
            Self::BadUrl(_) => Self::BadUrl(shown),
            Self::BadListen(_) => Self::BadListen(shown),
            Self::BadPath(_) => Self::BadPath(shown),
            Self::BadSocketOption(_) => Self::BadSocketOption(shown),
        }
    }
}

impl FromStr for Endpoint {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text).map_err(|error| error.about(text))
    }
}

impl Endpoint {
    fn parse(text: &str) -> Result<Self, AddressError> {
        // A bare IPv6 address, whose colons are not a port's.
        if let Ok(ip) = text.parse::<Ipv6Addr>() {
            return Ok(Self { host: Host::Ip(ip.into()), port: DEFAULT_PORT });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
            _ => (text, None),
        };
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => match port.parse() {
                Ok(port @ 1..) => port,
                // It could be the password of a URL without a host.
                _ if !redacted::is_number(port) => return Err(AddressError::BadPort("***".to_owned())),
                _ => return Err(AddressError::BadPort(port.to_owned())),
            },
        };
        if host.is_empty() {
            return Err(AddressError::NoHost(text.to_owned()));
        }
        Ok(Self { host: host.parse()?, port })
    }
}

impl FromStr for Host {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bad = || AddressError::BadHost(text.to_owned()).about(text);
        if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return inner.parse::<Ipv6Addr>().map(|ip| Self::Ip(ip.into())).map_err(|_| bad());
        }
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Ip(ip.into()));
        }
        // Underscores are no host name's by the letter, but Docker and Kubernetes networks have them. Four numbers
        // that are no IPv4 address are a mistake, not a name.
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
                && !label.starts_with('-')
        };
        let name = text.strip_suffix('.').unwrap_or(text);
        let numeric = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if name.len() <= 253 && !numeric && name.split('.').all(is_label) {
            Ok(Self::Name(text.to_owned()))
        } else {
            Err(bad())
        }
    }
}

impl FromStr for Upstream {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text).map_err(|error| error.about(text))
    }
}

impl Upstream {
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

/// A URL's user and password, percent-encoded.
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
    use proptest::prelude::*;

    fn endpoint(text: &str) -> String {
        text.parse::<Upstream>()
            .map_or_else(|error| error.to_string(), |upstream| upstream.endpoint.to_string())
    }

    #[test]
    fn upstreams_are_names_addresses_or_urls_and_the_port_is_redis_own_if_none_is_given() {
        assert_eq!(endpoint("cache.example"), "cache.example:6379");
        assert_eq!(endpoint("cache.example:6380"), "cache.example:6380");
        assert_eq!(endpoint("10.0.0.1"), "10.0.0.1:6379");
        assert_eq!(endpoint("::1"), "[::1]:6379");
        assert_eq!(endpoint("[::1]"), "[::1]:6379");
        assert_eq!(endpoint("[::1]:7000"), "[::1]:7000");
        assert_eq!(endpoint("redis://cache_1:7000/0"), "cache_1:7000");
        assert!("rediss://cache.example".parse::<Upstream>().unwrap().tls);
    }

    #[test]
    fn what_is_no_upstream_is_refused_with_what_would_be_one() {
        for (text, expected) in [
            ("", "no host"),
            (":6379", "no host"),
            ("cache:0", "no port"),
            ("cache:70000", "no port"),
            ("cache:abc", "no port"),
            ("::1:99999:", "no port"),
            ("ca che:1", "no host name"),
            ("10.0.0.256", "no host name"),
            ("-x:1", "no host name"),
            ("http://cache:1", "no upstream"),
            ("redis://cache:1/3", "database"),
            ("redis://cache:1?x=y", "no upstream"),
        ] {
            let error = text.parse::<Upstream>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_url_may_name_a_user_and_a_password() {
        let login = |text: &str| {
            let (user, password) = text.parse::<Upstream>().unwrap().login.unwrap();
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
            let error = text.parse::<Upstream>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{text}: {error}");
        }
        let taken = "redis://app:hunter2@cache".parse::<Upstream>().unwrap();
        assert!(!format!("{taken:?}").contains("hunter2"));
        assert!(!taken.anonymous().unwrap_err().to_string().contains("hunter2"));
    }

    proptest! {
        #[test]
        fn an_endpoint_reads_back_as_printed(ip: IpAddr, name in "[a-z][a-z0-9_-]{0,20}(\\.[a-z0-9]{1,9}){0,3}", port in 1u16..) {
            for host in [Host::Ip(ip), Host::Name(name)] {
                let endpoint = Endpoint { host, port };
                prop_assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
            }
        }
    }
}
