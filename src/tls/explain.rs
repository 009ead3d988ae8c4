//! Explains TLS errors: what is wrong and what to do.

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, CertificateError, Error};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificate::{Certificate, date};
use super::pin::CertificatePin;

/// Why a handshake failed, and what to do.
pub fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(error)) => error.0.to_string(),
        Error::InvalidMessage(_) => {
            format!("peer does not speak TLS ({error}): is this a plaintext port, or transit encryption off?")
        }
        Error::PeerIncompatible(_) => format!(
            "no TLS version or cipher suite in common ({error}): see tls.min_version and the server's settings"
        ),
        Error::AlertReceived(alert) => from_alert(*alert),
        other => other.to_string(),
    }
}

fn from_alert(alert: AlertDescription) -> String {
    use AlertDescription as A;
    let remedy = match alert {
        A::CertificateRequired => {
            "the server asks for a client certificate: set tls.cert_file and tls.key_file \
             (--tls-cert-file, --tls-key-file)"
        }
        A::UnknownCA
        | A::BadCertificate
        | A::CertificateExpired
        | A::CertificateRevoked
        | A::CertificateUnknown => {
            "the server does not accept our client certificate: check tls.cert_file against the server's CA"
        }
        A::ProtocolVersion => "the server supports no TLS version that pontoon accepts: see tls.min_version",
        A::HandshakeFailure => {
            "no cipher suite in common, or the server asks for a client certificate (--tls-cert-file)"
        }
        A::UnrecognisedName => "the server does not know the name: set tls.server_name (--tls-server-name)",
        _ => "see the server's log",
    };
    let number = u8::from(alert).to_string();
    format!("the server refused with alert {}: {remedy}", alert.as_str().unwrap_or(&number))
}

/// Why a certificate was refused, and what to do.
pub(super) fn certificate(
    error: &CertificateError,
    leaf: &CertificateDer<'_>,
    name: &ServerName<'_>,
) -> String {
    match error {
        CertificateError::ExpiredContext { time, not_after } => format!(
            "certificate expired on {} (it is {} here): renew it on the server, or set this machine's clock",
            date(*not_after),
            date(*time)
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "certificate is not valid before {} (it is {} here): set this machine's clock, or the server's \
             certificate is too new",
            date(*not_before),
            date(*time)
        ),
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<&str> = presented.iter().map(|name| plain_name(name)).collect();
            let names = if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") };
            format!(
                "certificate is for {names}, not for \"{}\": dial the endpoint by a name that it holds, or set \
                 tls.server_name (--tls-server-name)",
                name.to_str()
            )
        }
        CertificateError::UnknownIssuer => {
            let parsed = X509Certificate::from_der(leaf).map(|(_, parsed)| parsed).ok();
            let issuer =
                parsed.as_ref().map(|parsed| format!(" \"{}\"", parsed.issuer())).unwrap_or_default();
            let is_self_made = parsed.is_some_and(|parsed| parsed.issuer() == parsed.subject());
            let or_pin = if is_self_made { or_pin(leaf) } else { String::new() };
            format!(
                "issuer{issuer} unknown: pass the CA that signed it as --tls-ca-file (tls.ca_files){or_pin}"
            )
        }
        other if is_old_version(other) => {
            format!(
                "certificate is of X.509 version 1 or 2, which holds no names to verify: reissue it as version 3, with a \
                 subjectAltName (openssl x509 -extfile){}",
                or_pin(leaf)
            )
        }
        other if is_ca_as_leaf(other) => {
            format!("certificate is self-signed, a CA's own{}", or_pin(leaf))
        }
        other => format!("certificate refused: {other}"),
    }
}

/// A certificate's names, issuer and expiry, in one line.
pub fn describe_leaf(leaf: &CertificateDer<'_>) -> String {
    let Some(Certificate { names, issuer, not_after, .. }) = Certificate::read(leaf) else {
        return "a certificate that cannot be read".into();
    };
    let names = if names.is_empty() { "no name".into() } else { names.join(" ") };
    format!("certificate for {names}, issued by {issuer}, until {not_after}")
}

/// The alternative for a server with a self-made certificate: a pin. It must be compared, because the certificate may be an attacker's.
fn or_pin(leaf: &CertificateDer<'_>) -> String {
    CertificatePin::of(leaf).map_or_else(String::new, |pin| {
        format!("; if this is the key of your server, which you must compare there: --tls-pin {pin}")
    })
}

/// Whether webpki refused a CA certificate as a server's. rustls passes this error on without a variant of its own.
fn is_ca_as_leaf(error: &CertificateError) -> bool {
    matches!(error, CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity"))
}

/// Whether webpki refused the certificate's version. rustls passes this error on without a variant of its own.
fn is_old_version(error: &CertificateError) -> bool {
    matches!(error, CertificateError::Other(other) if format!("{other:?}").contains("UnsupportedCertVersion"))
}

/// The name without the kind that webpki puts around it, as in `DnsName("cache.example")`.
fn plain_name(name: &str) -> &str {
    name.split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'))
        .map_or(name, |inner| inner.trim_matches('"'))
}
