//! Certificates, made when needed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;

/// A certificate authority, and a directory with its certificate.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
    pub name: String,
}

/// A certificate with its key, in a directory of its own.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
    directory: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = format!("test CA {:08x}", fastrand::u32(..));
        params.distinguished_name.push(DnType::CommonName, &name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, directory, name }
    }

    /// The certificate, for `--tls-ca-file`.
    pub fn file(&self) -> String {
        self.directory.path().join("ca.pem").to_str().unwrap().to_owned()
    }

    pub fn certificate(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// SPKI pin of the authority's key.
    pub fn pin(&self) -> String {
        pontoon::tls::CertificatePin::of(self.issuer.der()).unwrap().to_string()
    }

    /// For clients of ours that trust it.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Arc::new(config.with_root_certificates(roots).with_no_client_auth())
    }

    /// For clients of ours that trust it and present `identity`.
    pub fn client_config_with(&self, identity: &Identity) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(identity.chain.clone(), identity.private_key())
            .unwrap();
        Arc::new(config)
    }

    /// A certificate for these names.
    pub fn issue(&self, names: &[&str]) -> Identity {
        self.issue_with(names, |_| {})
    }

    /// A certificate that was good once.
    pub fn issue_expired(&self, names: &[&str]) -> Identity {
        self.issue_with(names, |params| {
            let day = Duration::from_secs(24 * 3600);
            params.not_before = (SystemTime::now() - 20 * day).into();
            params.not_after = (SystemTime::now() - 10 * day).into();
        })
    }

    /// A client's certificate.
    pub fn issue_client(&self) -> Identity {
        self.issue_with(&["client"], |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    /// The certificate of a client whose common name is `name`.
    pub fn issue_user(&self, name: &str) -> Identity {
        self.issue_with(&[name], |params| {
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = params(names);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        Identity::new(
            vec![leaf.der().clone(), self.issuer.der().clone()],
            &(leaf.pem() + &self.issuer.pem()),
            key,
        )
    }
}

fn params(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

impl Identity {
    /// A certificate that nobody else signed.
    pub fn self_signed(names: &[&str]) -> Self {
        let key = KeyPair::generate().unwrap();
        let leaf = params(names).self_signed(&key).unwrap();
        Self::new(vec![leaf.der().clone()], &leaf.pem(), key)
    }

    fn new(chain: Vec<CertificateDer<'static>>, pem: &str, key: KeyPair) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("cert.pem"), pem).unwrap();
        std::fs::write(directory.path().join("key.pem"), key.serialize_pem()).unwrap();
        Self { chain, key, directory }
    }

    /// With a certificate after its own that has nothing to do with it.
    pub fn and_sends(mut self, other: &Authority) -> Self {
        self.chain.push(other.certificate());
        let pem = std::fs::read_to_string(self.cert_file()).unwrap() + &other.issuer.pem();
        std::fs::write(self.cert_file(), pem).unwrap();
        self
    }

    pub fn cert_file(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    pub fn key_file(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    /// SPKI pin of the key.
    pub fn pin(&self) -> String {
        pontoon::tls::CertificatePin::of(&self.chain[0]).unwrap().to_string()
    }

    /// What a server needs to present it.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.private_key())
            .unwrap();
        Arc::new(config)
    }

    pub fn chain_and_key(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (self.chain.clone(), self.private_key())
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }
}
