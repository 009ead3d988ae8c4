//! Makes one token: a signed request to connect, which is never sent as a request.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::settings::Settings;
use crate::credentials::Secret;

/// ElastiCache and MemoryDB accept no token with a longer life.
const LIFE: Duration = Duration::from_secs(900);

/// A token's minimum life, if the signing credentials are about to expire.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// Unreserved characters of [RFC 3986](https://www.rfc-editor.org/rfc/rfc3986#section-2.3) are not escaped.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A token for `user`, signed at `now`. It is valid for a quarter of an hour at most, and not longer than `signer`. The error is from AWS'
/// signer.
pub fn token(cache: &Settings, user: &str, signer: &Credentials, now: SystemTime) -> Result<Secret, String> {
    let left = signer.expiry().map(|expiry| expiry.duration_since(now).unwrap_or_default());
    let life = left.map_or(LIFE, |left| left.min(LIFE)).max(SHORTEST_LIFE);
    // The console keeps the name's case, but AWS verifies the lower case.
    let mut url = format!("http://{}/?Action=connect", cache.cache_name.to_ascii_lowercase());
    if cache.serverless {
        url.push_str("&ResourceType=ServerlessCache");
    }
    let _ = write!(url, "&User={}", escape(user));
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(Duration::from_secs(life.as_secs()));
    let identity = signer.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(&cache.region)
        .name(cache.service.name())
        .time(now)
        .settings(settings)
        .build()
        .map_err(|error| error.to_string())?
        .into();
    let request = SignableRequest::new("GET", &*url, std::iter::empty(), SignableBody::Bytes(&[]))
        .map_err(|error| error.to_string())?;
    let (instructions, _) = sign(request, &params).map_err(|error| error.to_string())?.into_parts();
    let length = |value: &str| 32 + 3 * value.len();
    let added: usize = instructions.params().iter().map(|(_, value)| length(value)).sum();
    // Allocated at its final size: a buffer that grows leaves copies behind.
    let mut token = String::with_capacity(url.len() + added);
    token.push_str(url.trim_start_matches("http://"));
    for (name, value) in instructions.params() {
        let _ = write!(token, "&{name}={}", escape(value));
    }
    Ok(Secret::new(token.into_bytes()))
}

fn escape(text: &str) -> percent_encoding::PercentEncode<'_> {
    utf8_percent_encode(text, ESCAPED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::iam::Service;

    fn cache() -> Settings {
        Settings {
            service: Service::ElastiCache,
            cache_name: "Sessions".into(),
            serverless: true,
            region: "eu-west-1".into(),
        }
    }

    fn signed(expiry: Option<SystemTime>, now: SystemTime) -> String {
        let signer = Credentials::new("AKIDEXAMPLE", "secret", Some("to/ken".into()), expiry, "test");
        let token = token(&cache(), "app+1", &signer, now).unwrap();
        String::from_utf8(token.expose().to_vec()).unwrap()
    }

    #[test]
    fn a_token_is_a_request_to_connect_without_its_scheme() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let token = signed(None, now);
        let begins = "sessions/?Action=connect&ResourceType=ServerlessCache&User=app%2B1&X-Amz-Algorithm=AWS4-HMAC-SHA256&\
                      X-Amz-Credential=AKIDEXAMPLE%2F20231114%2Feu-west-1%2Felasticache%2Faws4_request&\
                      X-Amz-Date=20231114T221320Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host&X-Amz-Signature=";
        assert!(token.starts_with(begins), "{token}");
        assert!(token.ends_with("&X-Amz-Security-Token=to%2Fken"), "{token}");
    }

    #[test]
    fn a_token_expires_with_its_signing_credentials() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let token = signed(Some(now + Duration::from_secs(75)), now);
        assert!(token.contains("&X-Amz-Expires=75&"), "{token}");
        let token = signed(Some(now + Duration::from_secs(3600)), now);
        assert!(token.contains("&X-Amz-Expires=900&"), "{token}");
    }
}
