//! TLS towards the upstream: what is trusted, what is presented, and a channel that carries bytes.
//!
//! Opening TCP connections and deadlines are `upstream`'s work.

mod certificate;
pub mod channel;
mod explain;
mod files;
mod pin;
mod sessions;
mod verify;

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

pub use self::certificate::{Certificate, expiry};
pub use self::explain::{describe_leaf, explain};
use self::files::Files;
pub use self::pin::{InvalidPin, Pin};
use self::sessions::Sessions;
use crate::endpoint::{Endpoint, Host};

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
    /// TLS where the endpoint speaks it, else plaintext; one-way.
    Preferred,
    /// Plaintext.
    Disabled,
}

impl Mode {
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

/// What became of looking at the files again.
#[derive(Debug)]
pub enum Reload {
    /// They are as they were.
    Unchanged,
    /// They changed, and new connections use them.
    Reloaded,
    /// They changed and cannot be used; new connections go on with the old.
    Failed(TlsError),
}

/// A route's TLS: one client configuration, and with it one cache of sessions to resume, for all its connections.
pub struct Tls {
    settings: Settings,
    current: ArcSwap<Current>,
}

struct Current {
    config: Arc<ClientConfig>,
    verifier: Arc<verify::Verifier>,
    /// Of the files that it was made from.
    digest: Vec<u8>,
    trust: String,
}

impl Tls {
    /// Reads the files that `settings` name.
    pub fn load(settings: &Settings) -> Result<Self, TlsError> {
        let files = Files::read(settings)?;
        let current = Current::build(settings, &files)?;
        Ok(Self { settings: settings.clone(), current: ArcSwap::from_pointee(current) })
    }

    /// What new connections use.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.current.load().config)
    }

    /// For a look at a server, never for a client's bytes: accepts any certificate, and speaks this version alone.
    pub fn for_a_look(
        &self,
        version: &'static SupportedProtocolVersion,
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Arc::new(verify::Verifier::anything(&provider));
        let files = Files::read(&self.settings)?;
        client_config(&self.settings, &files, provider, &[version], verifier).map(Arc::new)
    }

    /// Whether the server with this chain, leaf first, is the one that is meant by `name`; if not, why, and what to do.
    pub fn verify(&self, chain: &[CertificateDer<'_>], name: &ServerName<'_>) -> Result<(), String> {
        let Some((leaf, rest)) = chain.split_first() else {
            return Err("the server has no certificate".into());
        };
        let verifier = &self.current.load().verifier;
        match verifier.verify_server_cert(leaf, rest, name, &[], UnixTime::now()) {
            Ok(_) => Ok(()),
            Err(error) => Err(explain(&error)),
        }
    }

    /// The name to send and to verify for `endpoint`.
    pub fn server_name(&self, endpoint: &Endpoint) -> Result<ServerName<'static>, TlsError> {
        if let Some(name) = &self.settings.server_name {
            return Ok(name.clone());
        }
        match &endpoint.host {
            Host::Ip(ip) => Ok(ServerName::from(*ip)),
            Host::Name(name) => {
                // A rooted name, "host.", is for the resolver; certificates have none.
                let plain = name.strip_suffix('.').unwrap_or(name);
                ServerName::try_from(plain.to_owned()).map_err(|_| TlsError::ServerName(name.clone()))
            }
        }
    }

    /// Takes over files that have changed, if they can be used. A new configuration starts with an empty cache: what
    /// was verified under other roots is not resumed.
    pub fn reload_if_changed(&self) -> Reload {
        let files = match Files::read(&self.settings) {
            Ok(files) => files,
            Err(error) => return Reload::Failed(error),
        };
        if files.digest() == self.current.load().digest {
            return Reload::Unchanged;
        }
        match Current::build(&self.settings, &files) {
            Ok(current) => {
                self.current.store(Arc::new(current));
                Reload::Reloaded
            }
            Err(error) => Reload::Failed(error),
        }
    }

    /// In a few words, for the log.
    pub fn describe(&self) -> String {
        let version = match self.settings.min_version {
            MinVersion::Tls12 => "TLS 1.2 or later",
            MinVersion::Tls13 => "TLS 1.3",
        };
        let mode = if self.settings.mode == Mode::Preferred { "preferred" } else { "required" };
        let mut text = format!("{mode}, {version}, trust: {}", self.current.load().trust);
        if !self.settings.pins.is_empty() {
            let _ = write!(text, ", {} pinned", self.settings.pins.len());
        }
        if self.settings.client_auth.is_some() {
            text += ", client certificate";
        }
        if let Some(name) = &self.settings.server_name {
            let _ = write!(text, ", server name {}", name.to_str());
        }
        text
    }
}

impl Current {
    fn build(settings: &Settings, files: &Files) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let versions: &[_] = match settings.min_version {
            MinVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            MinVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let (verifier, trust) = verifier(settings, files, &provider)?;
        let verifier = Arc::new(verifier);
        let config = client_config(settings, files, provider, versions, Arc::clone(&verifier))?;
        Ok(Self { config: Arc::new(config), verifier, digest: files.digest(), trust })
    }
}

fn client_config(
    settings: &Settings,
    files: &Files,
    provider: Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    verifier: Arc<verify::Verifier>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| TlsError::Setup(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match files.client_auth(settings)? {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(TlsError::ClientAuth)?,
    };
    config.resumption = Resumption::store(Arc::new(Sessions::default()));
    Ok(config)
}

fn verifier(
    settings: &Settings,
    files: &Files,
    provider: &Arc<CryptoProvider>,
) -> Result<(verify::Verifier, String), TlsError> {
    let pins = settings.pins.clone();
    if settings.insecure_skip_verify {
        return Ok((verify::Verifier::anything(provider), "none (insecure)".into()));
    }
    if !pins.is_empty() && settings.ca_files.is_empty() {
        return Ok((verify::Verifier::pinned(pins, provider), "pinned keys only".into()));
    }
    let (roots, trust) = files.roots(settings)?;
    Ok((verify::Verifier::chain(roots, pins, provider)?, trust))
}

/// The system's roots, and if it has none, Mozilla's.
fn default_roots() -> (RootCertStore, String) {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added > 0 {
        return (roots, format!("{added} system roots"));
    }
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let count = roots.len();
    (roots, format!("{count} built-in Mozilla roots"))
}
