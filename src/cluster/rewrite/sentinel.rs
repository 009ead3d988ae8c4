//! Rewrites what sentinels say: their replies about the group, and the messages that they publish. Source: `sentinelCommand`,
//! `addReplySentinelRedisInstance` and `sentinelEvent` in `sentinel.c`.
//!
//! A client gets the primary's port wherever a sentinel names the group's primary. A server that is not known at first is looked up; if it
//! stays unknown, it gets port 0.

use super::rewriter::{RewriteError, Rewriter};
use super::splice::Splice;
use crate::cluster::election::{DOWN, port};
use crate::cluster::map::LocalNode;
use crate::cluster::node::{Role, host};
use crate::endpoint::Host;
use crate::resp::command_table::AddressReply;
use crate::resp::value::{Data, Value};

/// What a rewriter knows about the sentinels of a group.
#[derive(Debug, Clone, Copy)]
pub struct AtSentinel<'a> {
    /// The name of the group.
    pub master_name: &'a str,
    /// The local port that stands for every sentinel.
    pub port: u16,
    /// The servers were just looked up, so that a second look-up finds nothing else.
    pub is_settled: bool,
}

const fn shape(reply: AddressReply, expected: &'static str) -> RewriteError {
    RewriteError::Shape { reply, expected }
}

const ADDRESS_SHAPE: RewriteError = shape(AddressReply::SentinelAddress, "a host and a port");
const FIELDS_SHAPE: RewriteError = shape(AddressReply::SentinelServers, "servers as maps of fields");

/// The fields of a server, or of a sentinel's settings, that matter here.
#[derive(Default)]
struct SentinelFields<'v, 'a> {
    name: Option<&'v Value<'a>>,
    flags: Option<&'v Value<'a>>,
    /// Pairs of host and port.
    own: [Option<&'v Value<'a>>; 2],
    primary: [Option<&'v Value<'a>>; 2],
    announced: [Option<&'v Value<'a>>; 2],
    argv: Option<&'v Value<'a>>,
}

impl<'v, 'a> SentinelFields<'v, 'a> {
    fn read(entry: &'v Value<'a>) -> Option<Self> {
        let mut fields = Self::default();
        for (key, value) in entry.pairs()? {
            match key.text()? {
                "name" => fields.name = Some(value),
                "flags" => fields.flags = Some(value),
                "ip" => fields.own[0] = Some(value),
                "port" => fields.own[1] = Some(value),
                "master-host" | "primary-host" => fields.primary[0] = Some(value),
                "master-port" | "primary-port" => fields.primary[1] = Some(value),
                "announce-ip" => fields.announced[0] = Some(value),
                "announce-port" => fields.announced[1] = Some(value),
                "argv" => fields.argv = Some(value),
                _ => {}
            }
        }
        Some(fields)
    }

    fn has_flag(&self, names: &[&str]) -> bool {
        let flags = self.flags.and_then(Value::text).unwrap_or_default();
        flags.split(',').any(|flag| names.contains(&flag))
    }
}

impl Rewriter<'_> {
    /// Rewrites the address of a primary. Null, which means that the group is unknown, takes the place of a server that does not belong to
    /// the group, unless the client asked for this group (`is_own`): then the sentinel is wrong.
    pub(super) fn sentinel_address(
        &self,
        is_own: bool,
        reply: &Value<'_>,
        splice: &mut Splice<'_>,
    ) -> Result<(), RewriteError> {
        let Some([host, number]) = reply.list() else { return Err(ADDRESS_SHAPE) };
        let text = host.text().ok_or(ADDRESS_SHAPE)?;
        let port = port(number).ok_or(ADDRESS_SHAPE)?;
        let is_known = self.named(text, port).is_some() || (is_own && self.primary().is_some());
        if !is_known && self.at_sentinel.is_some_and(|sentinel| sentinel.is_settled) {
            splice.null_list(reply);
            return Ok(());
        }
        let local = self.primary_port(text, port)?;
        splice.text(host, &self.local_host);
        splice.port(number, local);
        Ok(())
    }

    /// Rewrites one map of fields, or a list of such maps.
    pub(super) fn sentinel_servers(
        &self,
        reply: &Value<'_>,
        splice: &mut Splice<'_>,
    ) -> Result<(), RewriteError> {
        match &reply.data {
            Data::List(entries) if !entries.iter().any(|entry| matches!(entry.data, Data::Text(_))) => {
                entries.iter().try_for_each(|entry| self.sentinel_server(entry, splice))
            }
            _ => self.sentinel_server(reply, splice),
        }
    }

    fn sentinel_server(&self, entry: &Value<'_>, splice: &mut Splice<'_>) -> Result<(), RewriteError> {
        let fields = SentinelFields::read(entry).ok_or(FIELDS_SHAPE)?;
        if let [Some(host), Some(number)] = fields.own {
            let (text, port) = (host.text().ok_or(FIELDS_SHAPE)?, port(number).ok_or(FIELDS_SHAPE)?);
            let name = fields.name.and_then(Value::text).unwrap_or_default();
            // What is said of another server does not hold for the primary that takes its place.
            let is_other = self.is_group(name)
                && fields.has_flag(&["master"])
                && self.named(text, port).is_none_or(|local| local.node.role != Some(Role::Primary));
            let local = if fields.has_flag(&["sentinel"]) {
                self.sentinel_port()
            } else if fields.has_flag(&["master", "primary"]) {
                if self.is_group(name) { self.primary_port(text, port)? } else { 0 }
            } else {
                self.server_port(text, port, fields.has_flag(&DOWN))?
            };
            splice.text(host, &self.local_host);
            splice.port(number, local);
            if let Some(flags) = fields.flags.filter(|_| is_other) {
                splice.text(flags, "master");
            }
            // A replica's name is its address, and so is that of a sentinel in old versions.
            if let (Some(name), Some(_)) = (fields.name, split(name)) {
                splice.text(name, &self.joined(local));
            }
        }
        if let [Some(host), Some(number)] = fields.primary
            && let (Some(text), Some(port)) = (host.text(), port(number))
            && self::host(text).is_some()
        {
            splice.text(host, &self.local_host);
            splice.port(number, self.named(text, port).map_or(0, |local| local.port));
        }
        if let [Some(host), number] = fields.announced
            && !host.is_empty()
        {
            splice.text(host, &self.local_host);
            if let Some(number) = number.filter(|number| port(number) != Some(0)) {
                splice.port(number, self.sentinel_port());
            }
        }
        self.script(fields.argv.and_then(Value::list).unwrap_or_default(), splice)
    }

    /// Rewrites a script's arguments: its path, the group, roles, and two addresses; or its path, an event's channel and its text.
    fn script(&self, argv: &[Value<'_>], splice: &mut Splice<'_>) -> Result<(), RewriteError> {
        if let [_, channel, text] = argv {
            return self.payload(channel, text, splice);
        }
        for (at, pair) in argv.windows(2).enumerate() {
            let is_address = argv.len() == 8 && matches!(at, 4 | 6);
            if let (Some(text), Some(port)) = (pair[0].text(), port(&pair[1]))
                && (is_address || self.may_be_host(text))
            {
                splice.text(&pair[0], &self.local_host);
                splice.port(&pair[1], self.server_port(text, port, true)?);
            }
        }
        Ok(())
    }

    /// Rewrites replies to INFO in lists.
    pub(super) fn sentinel_info(
        &self,
        reply: &Value<'_>,
        splice: &mut Splice<'_>,
    ) -> Result<(), RewriteError> {
        match &reply.data {
            Data::List(elements) | Data::Map(elements) => {
                elements.iter().try_for_each(|element| self.sentinel_info(element, splice))
            }
            Data::Text(text) if text.contains(&b'\n') => self.info(reply, splice),
            _ => Ok(()),
        }
    }

    /// Rewrites a message, as a push or as RESP2 sends it: its kind, a pattern perhaps, the channel and the text. Everything else is
    /// unchanged.
    pub(super) fn message(&self, value: &Value<'_>, splice: &mut Splice<'_>) -> Result<(), RewriteError> {
        let (channel, payload) = match value.list() {
            Some([kind, channel, payload]) if kind.text() == Some("message") => (channel, payload),
            Some([kind, _, channel, payload]) if kind.text() == Some("pmessage") => (channel, payload),
            _ => return Ok(()),
        };
        self.payload(channel, payload, splice)
    }

    fn payload(
        &self,
        channel: &Value<'_>,
        payload: &Value<'_>,
        splice: &mut Splice<'_>,
    ) -> Result<(), RewriteError> {
        if let Some(text) = payload.bytes().map(String::from_utf8_lossy) {
            let rewritten = self.event(channel.text().unwrap_or_default(), &text)?;
            if rewritten != text {
                splice.text(payload, &rewritten);
            }
        }
        Ok(())
    }

    /// Rewrites the words of an event: `host port`, `ip host port port` and `host:port`. A host name that is not known is one if it stands
    /// where the event has a host.
    fn event(&self, channel: &str, text: &str) -> Result<String, RewriteError> {
        // Sentinels greet each other with values in a list: `host,port,runid,…`.
        let is_greeting = channel == "__sentinel__:hello";
        let separator = if is_greeting { ',' } else { ' ' };
        let words: Vec<&str> = text.split(separator).collect();
        // A server or a sentinel: its kind, its name, its host and its port. `@` and its group may follow, in the same form.
        let is_member = matches!(words[..], ["master" | "primary" | "slave" | "replica" | "sentinel", ..]);
        let switches = channel.starts_with("+switch-") && words.len() == 5;
        let mut rewritten: Vec<String> = Vec::with_capacity(words.len());
        let mut at = 0;
        while let Some(word) = words.get(at) {
            let before = |back: usize| at.checked_sub(back).and_then(|at| words.get(at)).copied();
            let after = |ahead: usize| words.get(at + ahead).and_then(|word| word.parse::<u16>().ok());
            // Only `+sentinel-address-switch` has it.
            let is_labelled = before(1) == Some("ip") && words.get(at + 1) == Some(&"port");
            let is_sentinel =
                is_labelled || if is_greeting { at == 0 } else { before(2) == Some("sentinel") };
            let is_new_primary = switches && at == 3 && self.is_group(words[0]);
            let is_host = is_sentinel
                || if is_greeting { at == 5 } else { is_member && (at == 2 || before(2) == Some("@")) }
                || (switches && matches!(at, 1 | 3))
                || self.may_be_host(word);
            if let Some(port) = after(if is_labelled { 2 } else { 1 }).filter(|_| is_host) {
                let local = if is_sentinel {
                    self.sentinel_port()
                } else if is_new_primary {
                    self.primary_port(word, port)?
                } else {
                    self.server_port(word, port, false)?
                };
                rewritten.push(self.local_host.clone());
                if is_labelled {
                    rewritten.push("port".to_owned());
                    at += 1;
                }
                rewritten.push(local.to_string());
                at += 2;
                continue;
            }
            let named = split(word).filter(|(host, _)| (is_member && at == 1) || self.may_be_host(host));
            rewritten.push(match named {
                Some((host, port)) => self.joined(self.server_port(host, port, false)?),
                None => (*word).to_owned(),
            });
            at += 1;
        }
        Ok(rewritten.join(&separator.to_string()))
    }

    /// Whether a word is an address, or a host name of the group.
    fn may_be_host(&self, word: &str) -> bool {
        host(word).is_some_and(|host| match host {
            Host::Ip(_) => true,
            Host::Name(_) => self.nodes.iter().any(|local| local.node.names.contains(&host)),
        })
    }

    fn joined(&self, port: u16) -> String {
        if self.local_host.contains(':') {
            format!("[{}]:{port}", self.local_host)
        } else {
            format!("{}:{port}", self.local_host)
        }
    }

    fn primary(&self) -> Option<&LocalNode> {
        self.nodes.iter().find(|local| local.node.role == Some(Role::Primary))
    }

    fn named(&self, text: &str, port: u16) -> Option<&LocalNode> {
        self.nodes.by_address(&host(text)?, port)
    }

    fn is_group(&self, name: &str) -> bool {
        self.at_sentinel.is_some_and(|sentinel| sentinel.master_name == name)
    }

    fn sentinel_port(&self) -> u16 {
        self.at_sentinel.map_or(0, |sentinel| sentinel.port)
    }

    /// The local port of the primary. An error if the sentinel names another server, unless the servers were just looked up: then most
    /// sentinels disagree with this one.
    fn primary_port(&self, text: &str, port: u16) -> Result<u16, RewriteError> {
        let primary = self.primary();
        let is_it = |local: &&LocalNode| host(text).is_some_and(|host| local.node.is_at(&host, port));
        match primary.filter(is_it) {
            Some(local) => Ok(local.port),
            None => self.unless_settled(text, port, primary.map_or(0, |local| local.port)),
        }
    }

    /// The local port of any server. An unknown one that is not expected to answer (`is_out`) is not looked up.
    fn server_port(&self, text: &str, port: u16, is_out: bool) -> Result<u16, RewriteError> {
        match self.named(text, port) {
            Some(local) => Ok(local.port),
            None if is_out => Ok(0),
            None => self.unless_settled(text, port, 0),
        }
    }

    fn unless_settled(&self, text: &str, port: u16, then: u16) -> Result<u16, RewriteError> {
        if self.at_sentinel.is_none_or(|sentinel| sentinel.is_settled) {
            return Ok(then);
        }
        Err(RewriteError::UnknownNode(format!("{text}:{port}")))
    }
}

/// Splits `host:port`, with or without brackets around an IPv6 address.
fn split(word: &str) -> Option<(&str, u16)> {
    let (host, port) = word.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host, port.parse().ok()?))
}
