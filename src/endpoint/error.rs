//! Why text is not an address.

use std::borrow::Cow;

use super::redacted::redacted;

/// Why text is not an address, and what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The host is missing.
    #[error("\"{0}\" has no host: expected HOST or HOST:PORT")]
    NoHost(String),
    /// The host is neither a name nor an IP address.
    #[error("\"{0}\" is neither a host name nor an IP address (IPv6 goes in brackets: [::1]:6379)")]
    BadHost(String),
    /// The port is not a port number.
    #[error("\"{0}\" is not a port: expected 1 to 65535")]
    BadPort(String),
    /// Credentials that are not accepted here. The text is not repeated, because it may hold a secret.
    #[error("credentials are not accepted here")]
    Credentials,
    /// Malformed credentials. The text is not repeated, either.
    #[error(
        "the credentials are not USER:PASSWORD: expected redis://USER:PASSWORD@HOST or redis://:PASSWORD@HOST"
    )]
    BadCredentials,
    /// A database in a URL. Only a client can select one.
    #[error("\"{0}\" names a database other than 0: clients select theirs with SELECT")]
    Database(String),
    /// A URL with another scheme, or with parts that have no meaning here.
    #[error("\"{0}\" is not an upstream: expected HOST:PORT, redis://HOST:PORT or rediss://HOST:PORT")]
    BadUrl(String),
    /// Text that is not a listener's address.
    #[error(
        "\"{0}\" is not an address to listen on: expected 127.0.0.1:6379, [::1]:6379 or unix:/run/pontoon/redis.sock"
    )]
    BadListen(String),
    /// The path of a Unix socket is empty or too long.
    #[error("\"{0}\": the path of a Unix socket has 1 to 107 bytes")]
    BadPath(String),
    /// An option of a Unix socket is wrong.
    #[error(
        "\"{0}\": expected permission bits in octal and numeric user and group ids, each with its own uid= or gid=, as in \
         unix:/run/pontoon/redis.sock?mode=0660&uid=1000&uid=33&gid=1000"
    )]
    BadSocketOption(String),
}

impl AddressError {
    /// The error about `text`, with its secrets removed.
    pub(super) fn about(self, text: &str) -> Self {
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
