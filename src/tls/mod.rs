//! TLS towards the upstream: what is trusted, what is presented, and a channel that carries bytes.
//!
//! Opening TCP connections and deadlines are `upstream`'s work.

pub mod channel;

use std::path::PathBuf;

use rustls::pki_types::ServerName;

/// How a route's upstream connections are protected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// TLS or plaintext.
    pub mode: Mode,
    /// PEM bundles that replace the system roots; empty: the system's, else Mozilla's.
    pub ca_files: Vec<PathBuf>,
    /// Name to send as SNI and to verify; `None`: the endpoint's host.
    pub server_name: Option<ServerName<'static>>,
    /// SHA-256 of the SPKI of keys that the chain must hold one of; empty: no pinning.
    pub pins: Vec<Pin>,
    /// Client certificate, for servers that ask for one.
    pub client_auth: Option<ClientAuthFiles>,
    /// The oldest protocol version accepted.
    pub min_version: MinVersion,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
}

/// TLS or plaintext, per route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// TLS or nothing.
    #[default]
    Required,
    /// Plaintext.
    Disabled,
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

/// SHA-256 of a certificate's SubjectPublicKeyInfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin(pub [u8; 32]);
