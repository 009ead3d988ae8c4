//! The log as JSON, one object in each line. It holds the record's fields under their own names, and also under OpenTelemetry's where it
//! defines one ([databases](https://opentelemetry.io/docs/specs/semconv/db/redis/),
//! [errors](https://opentelemetry.io/docs/specs/semconv/general/recording-errors/)).

use std::error::Error;
use std::fmt::{self, Debug};
use std::net::SocketAddr;

use serde::Serializer as _;
use serde::ser::SerializeMap as _;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::endpoint::Endpoint;
use crate::printable::printable_json;

/// Formats records as JSON.
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        let about = event.metadata();
        let line = line(&time, about.level().as_str(), about.target(), &fields.0).map_err(|_| fmt::Error)?;
        writeln!(out, "{line}")
    }
}

fn line(
    time: &str,
    level: &str,
    target: &str,
    fields: &[(&'static str, Value)],
) -> Result<String, serde_json::Error> {
    let mut line = Vec::new();
    let mut json = serde_json::Serializer::new(&mut line);
    let mut map = json.serialize_map(None)?;
    map.serialize_entry("timestamp", time)?;
    map.serialize_entry("level", level)?;
    for (name, value) in fields.iter().chain(&attributes(fields)) {
        map.serialize_entry(name, value)?;
    }
    map.serialize_entry("target", target)?;
    map.end()?;
    Ok(printable_json(&String::from_utf8_lossy(&line)).into_owned())
}

#[derive(Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.push((field.name(), value.into()));
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.add(field, value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, format!("{value:?}"));
    }
}

/// The fields that have a name in OpenTelemetry.
fn attributes(fields: &[(&'static str, Value)]) -> Vec<(&'static str, Value)> {
    let get = |name: &str| fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
    let mut attributes = Vec::new();
    let mut add = |name: &'static str, value: Value| attributes.push((name, value));
    // A list of upstreams does not parse as one endpoint, and so gives no server.
    let upstream = get("upstream").and_then(Value::as_str).and_then(|text| text.parse::<Endpoint>().ok());
    if let Some(Endpoint { host, port }) = upstream {
        add("db.system.name", "redis".into());
        add("server.address", host.to_string().into());
        add("server.port", port.into());
    }
    let peer = get("peer").and_then(Value::as_str).and_then(|text| text.parse::<SocketAddr>().ok());
    if let Some(peer) = peer {
        add("network.peer.address", peer.ip().to_string().into());
        add("network.peer.port", peer.port().into());
    }
    if let Some(command) = get("command") {
        add("db.operation.name", command.clone());
    }
    if let Some(commands) = get("commands").filter(|commands| commands.as_u64() > Some(1)) {
        add("db.operation.batch.size", commands.clone());
    }
    if let Some(stage) = get("stage") {
        add("error.type", stage.clone());
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(fields: &[(&'static str, Value)]) -> Value {
        serde_json::from_str(&line("2026-01-31T12:00:00Z", "WARN", "pontoon::session", fields).unwrap())
            .unwrap()
    }

    #[test]
    fn fields_have_their_own_names_and_opentelemetrys() {
        let line = line_of(&[
            ("message", "slow \"command\"".into()),
            ("route", "sessions".into()),
            ("upstream", "[::1]:6380".into()),
            ("peer", "10.0.0.7:6379".into()),
            ("stage", "tls".into()),
            ("command", "PIPELINE GET".into()),
            ("commands", 2.into()),
        ]);
        assert_eq!(
            line,
            serde_json::json!({
                "timestamp": "2026-01-31T12:00:00Z", "level": "WARN", "target": "pontoon::session",
                "message": "slow \"command\"", "route": "sessions", "upstream": "[::1]:6380", "peer": "10.0.0.7:6379",
                "stage": "tls", "command": "PIPELINE GET", "commands": 2,
                "db.system.name": "redis", "server.address": "::1", "server.port": 6380,
                "network.peer.address": "10.0.0.7", "network.peer.port": 6379, "error.type": "tls",
                "db.operation.name": "PIPELINE GET", "db.operation.batch.size": 2
            })
        );
    }

    #[test]
    fn text_from_others_is_escaped() {
        let line = line("", "WARN", "t", &[("message", "a\u{1b}\u{9b}\u{202e}".into())]).unwrap();
        assert!(line.contains(r"a\u001b\u009b\u202e"), "{line}");
    }

    #[test]
    fn unknown_values_give_no_attribute() {
        let line = line_of(&[
            ("upstream", "a:6379, b:6379".into()),
            ("peer", "nonsense".into()),
            ("commands", 1.into()),
        ]);
        assert!(!line.to_string().contains("server.") && !line.to_string().contains("network."), "{line}");
        assert!(line.get("db.operation.batch.size").is_none());
    }
}
