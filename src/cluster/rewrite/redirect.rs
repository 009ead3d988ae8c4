//! `MOVED slot host:port` and `ASK slot host:port`.

use super::rewriter::{RewriteError, Rewriter};
use super::splice::Splice;
use crate::resp::value::{Data, Value};

impl Rewriter<'_> {
    /// An error with one of these codes and no address, a script's maybe, leads no client anywhere and stays as it is.
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
    /// What a newer engine adds.
    rest: &'a str,
}

impl<'a> Redirect<'a> {
    fn parse(error: &'a str) -> Option<Self> {
        let (code, words) = error.split_once(' ')?;
        if !matches!(code, "MOVED" | "ASK") {
            return None;
        }
        let (slot, words) = words.split_once(' ')?;
        let end = words.find(' ').unwrap_or(words.len());
        let (address, rest) = words.split_at(end);
        // IPv6 stands without brackets. A port is taken as clients take it, leading zeros and all.
        let (host, port) = address.rsplit_once(':')?;
        Some(Self { code, slot, host, port: port.parse().ok()?, rest })
    }
}
