//! Why a route's TLS could not be set up.

/// Why a route's TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {problem}")]
    Content {
        /// The file.
        path: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("client certificate: {0}")]
    ClientAuth(rustls::Error),
    /// rustls refused the settings.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
    /// The endpoint's host can be no name in a certificate.
    #[error("\"{0}\" is no name that a certificate can be for: set tls.server_name (--tls-server-name)")]
    ServerName(String),
}
