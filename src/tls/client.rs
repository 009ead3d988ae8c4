//! A route's TLS client configuration, which is reloaded when its files change.

use std::fmt::Write;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, SupportedProtocolVersion};

use super::error::TlsError;
use super::explain::explain;
use super::files::Files;
use super::sessions::Sessions;
use super::settings::{MinVersion, Settings, TlsMode};
use super::verify;
use crate::endpoint::{Endpoint, Host};

/// The result of a check for changed files.
#[derive(Debug)]
pub enum Reload {
    /// The files have not changed.
    Unchanged,
    /// The files have changed, and new connections use them.
    Reloaded,
    /// The files have changed but cannot be used. New connections still use the old ones.
    Failed(TlsError),
}

/// A route's TLS: one client configuration with one session cache, for all its connections.
pub struct Tls {
    settings: Settings,
    current: ArcSwap<Current>,
}

struct Current {
    config: Arc<ClientConfig>,
    verifier: Arc<verify::Verifier>,
    /// The digest of the files that the configuration was made from.
    digest: Vec<u8>,
    trust: String,
}

impl Tls {
    /// Loads the files that `settings` name.
    pub fn load(settings: &Settings) -> Result<Self, TlsError> {
        let files = Files::read(settings)?;
        let current = Current::build(settings, &files)?;
        Ok(Self { settings: settings.clone(), current: ArcSwap::from_pointee(current) })
    }

    /// The configuration for new connections.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.current.load().config)
    }

    /// A configuration for probing a server, never for a client's bytes: it accepts any certificate, and this TLS version only.
    pub fn for_a_look(
        &self,
        version: &'static SupportedProtocolVersion,
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Arc::new(verify::Verifier::anything(&provider));
        let files = Files::read(&self.settings)?;
        client_config(&self.settings, &files, provider, &[version], verifier).map(Arc::new)
    }

    /// Verifies a server's chain, leaf first, for `name`. The error says why it fails and what to do.
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
                // A rooted name, "host.", is for the resolver; certificates hold no final dot.
                let plain = name.strip_suffix('.').unwrap_or(name);
                ServerName::try_from(plain.to_owned()).map_err(|_| TlsError::ServerName(name.clone()))
            }
        }
    }

    /// Reloads the files if they have changed and can be used. A new configuration starts with an empty session cache, so that sessions
    /// verified with other roots are not resumed.
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

    /// Describes the settings in a few words, for the log.
    pub fn describe(&self) -> String {
        let version = match self.settings.min_version {
            MinVersion::Tls12 => "TLS 1.2 or later",
            MinVersion::Tls13 => "TLS 1.3",
        };
        let mode = if self.settings.mode == TlsMode::Preferred { "preferred" } else { "required" };
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
