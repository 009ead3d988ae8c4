//! How a route's upstream connections are protected, as configured.

use std::path::PathBuf;

use rustls::pki_types::ServerName;

use super::pin::CertificatePin;

/// How a route's upstream connections are protected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// TLS or plaintext.
    pub mode: TlsMode,
    /// PEM bundles that replace the system roots; empty: the system's, else Mozilla's.
    pub ca_files: Vec<PathBuf>,
    /// Name to send as SNI and to verify; `None`: the endpoint's host.
    pub server_name: Option<ServerName<'static>>,
    /// SHA-256 of the SPKI of keys that the chain must hold one of; empty: no pinning.
    pub pins: Vec<CertificatePin>,
    /// Client certificate, for servers that ask for one.
    pub client_auth: Option<ClientAuthFiles>,
    /// The oldest protocol version accepted.
    pub min_version: MinVersion,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
}

/// TLS or plaintext, per route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// TLS or nothing.
    #[default]
    Required,
    /// TLS where the endpoint speaks it, else plaintext; one-way.
    Preferred,
    /// Plaintext.
    Disabled,
}

impl TlsMode {
    /// As it is configured.
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
