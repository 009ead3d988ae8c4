//! Why text is no address.

use std::borrow::Cow;

use super::redacted::redacted;

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
