//! Verifies that a server is the intended one: by its chain and name, by pinned keys, or by both.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate, X509Version};

use super::certificate::date;
use super::error::TlsError;
use super::explain::certificate;
use super::pin::CertificatePin;

/// Why a certificate was refused, and what to do.
#[derive(Debug)]
pub(super) struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

#[derive(Debug)]
pub(super) struct Verifier {
    rule: Rule,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
enum Rule {
    /// A chain to a trusted root and the right name. With pins, also a pinned key in the chain.
    Chain(Arc<WebPkiServerVerifier>, Vec<CertificatePin>),
    /// A pinned server key, or a pinned CA key. The CA is then the root of a chain with the right name.
    Pinned(Vec<CertificatePin>),
    /// Any certificate.
    Anything,
}

impl Verifier {
    pub(super) fn chain(
        roots: RootCertStore,
        pins: Vec<CertificatePin>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|error| TlsError::Setup(error.to_string()))?;
        Ok(Self { rule: Rule::Chain(verifier, pins), provider: Arc::clone(provider) })
    }

    pub(super) fn pinned(pins: Vec<CertificatePin>, provider: &Arc<CryptoProvider>) -> Self {
        Self { rule: Rule::Pinned(pins), provider: Arc::clone(provider) }
    }

    pub(super) fn anything(provider: &Arc<CryptoProvider>) -> Self {
        Self { rule: Rule::Anything, provider: Arc::clone(provider) }
    }

    /// Verifies the chain under the pinned CAs in it. A server may send unrelated certificates, so a pinned one counts only if the chain
    /// leads to it.
    fn verify_under_pinned(
        &self,
        pins: &[CertificatePin],
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let mut verified = Err(none_pinned(leaf));
        for ca in chain.iter().filter(|ca| is_pinned(pins, ca)) {
            verified = self.verify_under(ca, leaf, chain, name, now);
            if verified.is_ok() {
                break;
            }
        }
        verified
    }

    /// Verifies the chain with `root` as the only root. webpki checks neither the dates of a root nor that it is a CA.
    fn verify_under(
        &self,
        root: &CertificateDer<'_>,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        may_vouch(root, now)?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(leaf, chain, name, &[], now)
            .map(|_| ())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = match &self.rule {
            Rule::Anything => Ok(()),
            Rule::Chain(webpki, pins) => {
                webpki.verify_server_cert(leaf, chain, name, ocsp, now).and_then(|_| {
                    if pins.is_empty() || is_pinned(pins, leaf) {
                        return Ok(());
                    }
                    self.verify_under_pinned(pins, leaf, chain, name, now)
                })
            }
            Rule::Pinned(pins) if is_pinned(pins, leaf) => valid_at(leaf, now),
            Rule::Pinned(pins) => self.verify_under_pinned(pins, leaf, chain, name, now),
        };
        match verified {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(Error::InvalidCertificate(CertificateError::Other(error))) if error.0.is::<Refused>() => {
                Err(Error::InvalidCertificate(CertificateError::Other(error)))
            }
            Err(Error::InvalidCertificate(error)) => Err(refuse(certificate(&error, leaf, name))),
            Err(error) => Err(error),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match old_key(cert) {
            Some(key) => verify_by_key(message, &key, dss, algorithms),
            None => verify_tls12_signature(message, cert, dss, algorithms),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match old_key(cert) {
            Some(key) => verify_tls13_signature_with_raw_key(message, &key, dss, algorithms),
            None => verify_tls13_signature(message, cert, dss, algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The key of a certificate older than X.509 version 3. webpki does not parse these, so their owner can only be verified by the key.
fn old_key(certificate: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    (parsed.version() != X509Version::V3).then(|| parsed.public_key().raw.to_vec().into())
}

/// Verifies TLS 1.2's signature with a bare key. rustls offers this for TLS 1.3 only.
fn verify_by_key(
    message: &[u8],
    key: &SubjectPublicKeyInfoDer<'_>,
    dss: &DigitallySignedStruct,
    supported: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let unreadable = || Error::InvalidCertificate(CertificateError::BadEncoding);
    let (_, parsed) = SubjectPublicKeyInfo::from_der(key).map_err(|_| unreadable())?;
    let bits = &parsed.subject_public_key.data;
    let algorithms = supported.mapping.iter().filter(|(scheme, _)| *scheme == dss.scheme);
    // Of several algorithms, the one that the key is for.
    let is_valid = algorithms.flat_map(|(_, algorithms)| algorithms.iter()).any(|algorithm| {
        is_of(algorithm.public_key_alg_id().as_ref(), key)
            && algorithm.verify_signature(bits, message, dss.signature()).is_ok()
    });
    if is_valid {
        return Ok(HandshakeSignatureValid::assertion());
    }
    Err(Error::InvalidCertificate(CertificateError::BadSignature))
}

/// Whether a key is of this algorithm. Both hold the algorithm as the same DER; in the key it follows the headers of two sequences.
fn is_of(algorithm: &[u8], key: &[u8]) -> bool {
    let header = |der: &[u8]| match der.get(1) {
        Some(length @ 0x81..) => 2 + usize::from(length - 0x80),
        _ => 2,
    };
    let contents = key.get(header(key)..).unwrap_or_default();
    contents.get(header(contents)..).is_some_and(|identifier| identifier.starts_with(algorithm))
}

/// A certificate with a pinned key can only vouch for others if it is a CA's and valid at present.
fn may_vouch(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
    };
    let subject = parsed.subject();
    if !parsed.is_ca() {
        return Err(refuse(format!(
            "the certificate whose key is pinned, \"{subject}\", is not a CA and cannot vouch for others: pin the key of the \
             server's own certificate, or of its CA"
        )));
    }
    match valid_at(certificate, now) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Err(refuse(format!(
                "the pinned CA \"{subject}\" expired on {}: renew it with the same key, or pin another",
                date(not_after)
            )))
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
            Err(refuse(format!(
                "the pinned CA \"{subject}\" is not valid before {}: set this machine's clock",
                date(not_before)
            )))
        }
        valid => valid,
    }
}

fn is_pinned(pins: &[CertificatePin], certificate: &CertificateDer<'_>) -> bool {
    CertificatePin::of(certificate).is_some_and(|pin| pins.contains(&pin))
}

fn none_pinned(leaf: &CertificateDer<'_>) -> Error {
    let found = CertificatePin::of(leaf).map_or_else(|| "not readable".to_owned(), |pin| pin.to_string());
    refuse(format!(
        "no key of the server's chain is pinned; its own key is {found}: if that is the server you mean, pass it as \
         --tls-pin"
    ))
}

fn valid_at(leaf: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
        return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
    };
    let time = |seconds: i64| {
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    };
    let not_before = time(parsed.validity().not_before.timestamp());
    let not_after = time(parsed.validity().not_after.timestamp());
    if now < not_before {
        let error = CertificateError::NotValidYetContext { time: now, not_before };
        return Err(Error::InvalidCertificate(error));
    }
    if now > not_after {
        return Err(Error::InvalidCertificate(CertificateError::ExpiredContext { time: now, not_after }));
    }
    Ok(())
}

fn refuse(words: String) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Refused(words)))))
}
