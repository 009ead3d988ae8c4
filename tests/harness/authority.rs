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

use super::limit::Limit;

/// A certificate authority, and a directory with its certificate. Almost every test has one, so it also limits the test's time.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
    pub name: String,
    _limit: Limit,
}

/// A certificate with its key, in its own directory.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
    directory: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// An authority whose certificate has expired.
    pub fn expired() -> Self {
        Self::with(expire)
    }

    /// An authority whose certificate does not say that it may sign others.
    pub fn without_permission() -> Self {
        Self::with(|params| params.is_ca = IsCa::NoCa)
    }

    fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let name = format!("test CA {:08x}", fastrand::u32(..));
        params.distinguished_name.push(DnType::CommonName, &name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, directory, name, _limit: Limit::start() }
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

    /// A TLS client of the tests that trusts this authority.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Arc::new(config.with_root_certificates(roots).with_no_client_auth())
    }

    /// A TLS client of the tests that trusts this authority and presents `identity`.
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

    /// A certificate that has expired.
    pub fn issue_expired(&self, names: &[&str]) -> Identity {
        self.issue_with(names, expire)
    }

    /// A certificate that expires in `days` days.
    pub fn issue_for_days(&self, names: &[&str], days: u32) -> Identity {
        let day = Duration::from_secs(24 * 3600);
        self.issue_with(names, |params| params.not_after = (SystemTime::now() + days * day).into())
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

fn expire(params: &mut CertificateParams) {
    let day = Duration::from_secs(24 * 3600);
    params.not_before = (SystemTime::now() - 20 * day).into();
    params.not_after = (SystemTime::now() - 10 * day).into();
}

fn params(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

impl Identity {
    /// A certificate that no authority signed.
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

    /// Adds an unrelated certificate after its own.
    pub fn and_sends(mut self, other: &Authority) -> Self {
        self.chain.push(other.certificate());
        let pem = std::fs::read_to_string(self.cert_file()).unwrap() + &other.issuer.pem();
        std::fs::write(self.cert_file(), pem).unwrap();
        self
    }

    /// The certificate alone, in version 1, which has no extensions. The signature is that of the original, and therefore wrong.
    pub fn in_version_1(mut self) -> Self {
        let old = self.chain[0].clone();
        let [body, algorithm, signature] = elements(contents(&old))[..] else { panic!("no certificate") };
        let body = elements(contents(body));
        // The first element is the version, the last holds the extensions.
        let body = sequence(&body[1..7].concat());
        let new = CertificateDer::from(sequence(&[&body, algorithm, signature].concat()));
        let base64 = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &new);
        let lines: Vec<&str> =
            base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"));
        std::fs::write(self.cert_file(), pem).unwrap();
        self.chain = vec![new];
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

    /// The configuration of a server that presents it.
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

    /// The configuration of an impostor: this certificate with another key.
    pub fn server_config_of_impostor(
        &self,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::try_from(KeyPair::generate().unwrap().serialize_der()).unwrap();
        let key = provider.key_provider.load_private_key(key).unwrap();
        let certified = rustls::sign::CertifiedKey::new(self.chain.clone(), key);
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
        Arc::new(config)
    }

    pub fn chain_and_key(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (self.chain.clone(), self.private_key())
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }
}

/// A DER element's length with its header, and the header's length.
fn lengths(der: &[u8]) -> (usize, usize) {
    let size = usize::from(der[1]);
    if size < 0x80 {
        return (2 + size, 2);
    }
    let header = 2 + size - 0x80;
    let size = der[2..header].iter().fold(0, |size, byte| size << 8 | usize::from(*byte));
    (header + size, header)
}

/// The contents of a DER element.
fn contents(der: &[u8]) -> &[u8] {
    &der[lengths(der).1..]
}

/// DER elements that follow each other.
fn elements(mut der: &[u8]) -> Vec<&[u8]> {
    let mut elements = Vec::new();
    while !der.is_empty() {
        let (element, rest) = der.split_at(lengths(der).0);
        elements.push(element);
        der = rest;
    }
    elements
}

/// A DER sequence of these elements.
fn sequence(elements: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(elements.len()).unwrap().to_be_bytes();
    let header = match (high, low) {
        (0, ..0x80) => vec![0x30, low],
        (0, _) => vec![0x30, 0x81, low],
        _ => vec![0x30, 0x82, high, low],
    };
    [header, elements.to_vec()].concat()
}
