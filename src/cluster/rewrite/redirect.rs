//! Rewrites `MOVED slot host:port` and `ASK slot host:port`.

use super::rewriter::{RewriteError, Rewriter};
use super::splice::Splice;
use crate::resp::value::{Data, Value};

/// Codes of errors that name a slot and a node.
const REDIRECTS: [&str; 2] = ["MOVED", "ASK"];

/// Whether an error that starts with these bytes may name a node.
pub fn may_redirect(error: &[u8]) -> bool {
    let text = match error {
        [b'-', text @ ..] => text,
        // The length comes before the text.
        [b'!', rest @ ..] => rest.splitn(2, |byte| *byte == b'\n').nth(1).unwrap_or_default(),
        _ => return true,
    };
    // Valkey has REDIRECT only for clients that request it, which pontoon does not let them do.
    REDIRECTS.iter().chain(&["REDIRECT"]).any(|code| text.starts_with(code.as_bytes()))
}

impl Rewriter<'_> {
    /// Rewrites a redirect. An error with one of these codes but no address, perhaps from a script, leads no client anywhere and is
    /// unchanged.
    pub(super) fn redirect(&self, reply: &Value<'_>, splice: &mut Splice<'_>) -> Result<(), RewriteError> {
        let Data::Error(words) = reply.data else { return Ok(()) };
        let Some(redirect) = std::str::from_utf8(words).ok().and_then(Redirect::parse) else { return Ok(()) };
        let Redirect { code, slot, host, port, rest } = redirect;
        let Some(local) = self.nodes.redirected(host, port, self.asked) else {
            return Err(RewriteError::UnknownNode(format!("{host}:{port}")));
        };
        splice.text(reply, &format!("{code} {slot} {}:{}{rest}", self.local_host, local.port));
        Ok(())
    }
}

struct Redirect<'a> {
    code: &'a str,
    slot: &'a str,
    host: &'a str,
    port: u16,
    /// Additions of a newer engine.
    rest: &'a str,
}

impl<'a> Redirect<'a> {
    fn parse(error: &'a str) -> Option<Self> {
        let (code, words) = error.split_once(' ')?;
        if !REDIRECTS.contains(&code) {
            return None;
        }
        let (slot, words) = words.split_once(' ')?;
        let end = words.find(' ').unwrap_or(words.len());
        let (address, rest) = words.split_at(end);
        // IPv6 has no brackets. Accept leading zeros in the port, as clients do.
        let (host, port) = address.rsplit_once(':')?;
        Some(Self { code, slot, host, port: port.parse().ok()?, rest })
    }
}
