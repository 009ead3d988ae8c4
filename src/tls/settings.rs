//! How a route's upstream connections are protected, as configured.

use std::path::PathBuf;

use rustls::pki_types::ServerName;

use super::pin::CertificatePin;

/// How a route's upstream connections are protected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// TLS or plaintext.
    pub mode: TlsMode,
    /// PEM bundles that replace the system's roots. If empty, the system's roots are used, or Mozilla's if there are none.
    pub ca_files: Vec<PathBuf>,
    /// The name to send as SNI and to verify; `None` for the endpoint's host.
    pub server_name: Option<ServerName<'static>>,
    /// SHA-256 of the SPKI of keys. The server's chain must contain one of them, unless this is empty.
    pub pins: Vec<CertificatePin>,
    /// The client certificate, for servers that ask for one.
    pub client_auth: Option<ClientAuthFiles>,
    /// The oldest protocol version accepted.
    pub min_version: MinVersion,
    /// Accepts any certificate.
    pub insecure_skip_verify: bool,
}

/// TLS or plaintext, per route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// TLS only.
    #[default]
    Required,
    /// TLS if the endpoint accepts it, otherwise plaintext. Once it was TLS, plaintext is refused.
    Preferred,
    /// Plaintext.
    Disabled,
}

impl TlsMode {
    /// The value as it is configured.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Preferred => "preferred",
            Self::Disabled => "disabled",
        }
    }
}

/// The oldest TLS version that a route accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MinVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// A client certificate's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuthFiles {
    /// PEM chain, leaf first.
    pub cert_file: PathBuf,
    /// PEM private key.
    pub key_file: PathBuf,
}
