//! Key pins: the SHA-256 of a certificate's `SubjectPublicKeyInfo`, in base64, as in
//! [RFC 7469](https://www.rfc-editor.org/rfc/rfc7469#section-2.4).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use x509_parser::prelude::{FromDer, X509Certificate};

/// SHA-256 of a certificate's `SubjectPublicKeyInfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CertificatePin([u8; 32]);

/// The text is not a pin.
#[derive(Debug, thiserror::Error)]
#[error("is not a pin: expected the base64 of 32 bytes, as in \"{example}\"", example = CertificatePin([0; 32]))]
pub struct InvalidPin;

impl CertificatePin {
    /// The pin of a DER certificate's key; `None` if it cannot be parsed.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let hash = digest(&SHA256, certificate.public_key().raw);
        hash.as_ref().try_into().ok().map(Self)
    }
}

impl FromStr for CertificatePin {
    type Err = InvalidPin;

    /// Parses a pin. Also accepts curl's prefix `sha256//` and the common `sha256/` and `sha256:`.
    fn from_str(text: &str) -> Result<Self, InvalidPin> {
        let bare = ["sha256//", "sha256/", "sha256:"].iter().find_map(|prefix| text.strip_prefix(prefix));
        let bytes = BASE64_STANDARD.decode(bare.unwrap_or(text)).map_err(|_| InvalidPin)?;
        bytes.try_into().map(Self).map_err(|_| InvalidPin)
    }
}

impl fmt::Display for CertificatePin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_pin_parses_back_with_or_without_curls_prefix() {
        let pin = CertificatePin([7; 32]);
        assert_eq!(pin.to_string().parse::<CertificatePin>().unwrap(), pin);
        assert_eq!(format!("sha256//{pin}").parse::<CertificatePin>().unwrap(), pin);
        assert!("bm90IDMyIGJ5dGVz".parse::<CertificatePin>().is_err());
        assert!("%".parse::<CertificatePin>().is_err());
    }
}
