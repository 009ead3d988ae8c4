//! Rewrites `CLUSTER NODES`, a text of lines, and `CLUSTER REPLICAS`, a list of lines.

use super::rewriter::{Named, RewriteError, Rewriter};
use super::splice::Splice;
use crate::cluster::line::{NodeLine, NodeLineAddress};
use crate::resp::command_table::AddressReply;
use crate::resp::value::{Data, Value};

impl Rewriter<'_> {
    pub(super) fn nodes(
        &self,
        kind: AddressReply,
        reply: &Value<'_>,
        splice: &mut Splice<'_>,
    ) -> Result<(), RewriteError> {
        let lines = match &reply.data {
            Data::List(lines) => lines.as_slice(),
            _ => std::slice::from_ref(reply),
        };
        for value in lines {
            let text = value.text().and_then(|text| self.lines(text).transpose());
            let shape = RewriteError::Shape { reply: kind, expected: "a line for each node" };
            splice.text(value, &text.ok_or(shape)??);
        }
        Ok(())
    }

    /// Rewrites lines; `Ok(None)` if one is malformed.
    fn lines(&self, text: &str) -> Result<Option<String>, RewriteError> {
        let mut lines = Vec::new();
        for line in text.split('\n') {
            if line.is_empty() {
                lines.push(String::new());
                continue;
            }
            let Some(line) = NodeLine::parse(line) else { return Ok(None) };
            lines.push(self.line(line)?);
        }
        Ok(Some(lines.join("\n")))
    }

    fn line<'s>(&'s self, line: NodeLine<'s>) -> Result<String, RewriteError> {
        let place = line.place;
        let hostname = place.hostname();
        let is_nowhere = place.host.is_empty() && place.port == 0;
        let (host, port) = if line.has_flag("noaddr") && is_nowhere {
            ("", 0)
        } else {
            let mut hosts = vec![place.host];
            hosts.extend(hostname);
            let is_out = ["fail", "noaddr", "handshake"].iter().any(|flag| line.has_flag(flag));
            let named = Named { id: Some(line.id), hosts, ports: vec![place.port], is_out };
            (self.local_host.as_str(), self.port(&named)?)
        };
        // The bus port stays unchanged, because clients do not use it.
        let names = match (place.names, hostname) {
            (Some(names), Some(hostname)) => Some(format!("{}{}", self.local_host, &names[hostname.len()..])),
            (names, _) => names.map(str::to_owned),
        };
        let place = NodeLineAddress { host, port, bus: place.bus, names: names.as_deref() };
        Ok(NodeLine { place, ..line }.to_string())
    }
}
