//! Why a route's TLS could not be set up.

/// Why a route's TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file has the wrong content.
    #[error("{path}: {problem}")]
    Content {
        /// The file.
        path: String,
        /// What is wrong, and what is expected.
        problem: String,
    },
    /// The certificate and the key do not match, or their kind is not supported.
    #[error("client certificate: {0}")]
    ClientAuth(rustls::Error),
    /// rustls refused the settings.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
    /// The endpoint's host cannot be a name in a certificate.
    #[error("\"{0}\" cannot be a name in a certificate: set tls.server_name (--tls-server-name)")]
    ServerName(String),
}
