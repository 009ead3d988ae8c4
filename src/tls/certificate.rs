//! The fields of a certificate that people and programs read.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, UnixTime};
use serde::Serialize;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The fields of a certificate that people read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// Distinguished name of the subject.
    pub subject: String,
    /// Distinguished name of the issuer.
    pub issuer: String,
    /// The DNS names and IP addresses that the certificate is valid for.
    pub names: Vec<String>,
    /// Start of validity, in RFC 3339.
    pub not_before: String,
    /// End of validity, in RFC 3339.
    pub not_after: String,
    /// Whole days until it expires; negative if it has expired.
    pub days_left: i64,
}

impl Certificate {
    /// Parses a certificate; `None` if it cannot be parsed.
    pub fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let names = parsed.subject_alternative_name().ok().flatten().map_or_else(Vec::new, |extension| {
            let names = extension.value.general_names.iter().filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                GeneralName::IPAddress(bytes) => ip(bytes).map(|ip| ip.to_string()),
                _ => None,
            });
            names.collect()
        });
        let (from, until) =
            (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Some(Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            names,
            not_before: rfc3339(from),
            not_after: rfc3339(until),
            days_left: (until - i64::try_from(now).unwrap_or(i64::MAX)).div_euclid(24 * 3600),
        })
    }
}

/// When a certificate expires, in Unix time; `None` if it cannot be parsed.
pub fn expiry(der: &CertificateDer<'_>) -> Option<u64> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    u64::try_from(parsed.validity().not_after.timestamp()).ok()
}

fn rfc3339(seconds: i64) -> String {
    date(UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))))
}

pub(super) fn date(time: UnixTime) -> String {
    // The latest date that the format holds. Certificates without an end are dated to the year 9999.
    let latest = Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time.as_secs()).min(latest))
        .to_string()
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}
