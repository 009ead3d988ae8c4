//! The files that TLS settings name, as read at one time.

use std::fs;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::error::TlsError;
use super::settings::Settings;
use crate::counted::counted;

/// The contents, in the order of the settings. They are not kept, because one is a private key.
pub(super) struct Files {
    ca: Vec<Vec<u8>>,
    client_auth: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
}

impl Files {
    pub(super) fn read(settings: &Settings) -> Result<Self, TlsError> {
        let ca = settings.ca_files.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
        let client_auth = match &settings.client_auth {
            None => None,
            Some(files) => Some((read(&files.cert_file)?, Zeroizing::new(read(&files.key_file)?))),
        };
        Ok(Self { ca, client_auth })
    }

    /// A digest to detect changes. Modification times would miss the symbolic links that Kubernetes swaps.
    pub(super) fn digest(&self) -> Vec<u8> {
        let mut digest = Context::new(&SHA256);
        let client_auth = self.client_auth.iter().flat_map(|(chain, key)| [chain, &**key]);
        for content in self.ca.iter().chain(client_auth) {
            // The length goes first, so that moving bytes from one file to the next is a change.
            digest.update(&content.len().to_be_bytes());
            digest.update(content);
        }
        digest.finish().as_ref().to_vec()
    }

    /// The trusted roots, and their description for the log.
    pub(super) fn roots(&self, settings: &Settings) -> Result<(RootCertStore, String), TlsError> {
        if self.ca.is_empty() {
            return Ok(default_roots());
        }
        let mut roots = RootCertStore::empty();
        for (path, pem) in settings.ca_files.iter().zip(&self.ca) {
            for certificate in certificates(path, pem)? {
                roots
                    .add(certificate)
                    .map_err(|error| content(path, format!("is not a CA certificate: {error}")))?;
            }
        }
        let trust =
            format!("{} in {}", counted(roots.len(), "certificate"), counted(self.ca.len(), "CA file"));
        Ok((roots, trust))
    }

    /// The client's certificate chain and key.
    pub(super) fn client_auth(
        &self,
        settings: &Settings,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, TlsError> {
        let (Some(files), Some((chain, key))) = (&settings.client_auth, &self.client_auth) else {
            return Ok(None);
        };
        let chain = certificates(&files.cert_file, chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
            let encrypted = key.windows(9).any(|window| window == b"ENCRYPTED");
            let problem = if encrypted {
                "the private key is encrypted: decrypt it (openssl pkey -in … -out …) and protect the file instead"
            } else {
                "has no private key in PEM: expected \"-----BEGIN PRIVATE KEY-----\""
            };
            content(&files.key_file, problem.into())
        })?;
        Ok(Some((chain, key)))
    }
}

/// The system's roots, or Mozilla's if the system has none.
fn default_roots() -> (RootCertStore, String) {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added > 0 {
        return (roots, counted(added, "system root"));
    }
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let count = roots.len();
    (roots, counted(count, "built-in Mozilla root"))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.display().to_string(), source })
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| content(path, format!("is damaged: {error}")))?;
    if found.is_empty() {
        let problem = "has no certificate in PEM: expected \"-----BEGIN CERTIFICATE-----\"";
        return Err(content(path, problem.into()));
    }
    Ok(found)
}

fn content(path: &Path, problem: String) -> TlsError {
    TlsError::Content { path: path.display().to_string(), problem }
}
