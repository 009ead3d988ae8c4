//! A node of a cluster, as nodes describe it.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::endpoint::{Endpoint, Host};

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// 40 hexadecimal digits that identify the node for as long as it exists.
    pub id: String,
    /// Every host that may name the node. The first is the one that clients should dial. Empty if the node has no address.
    pub names: Vec<Host>,
    /// The node's port for the kind of connection that asked: its TLS port over TLS. 0 if it has none.
    pub port: u16,
    /// `None` if it is not known, for example because the node was only just met.
    pub role: Option<Role>,
    /// The ID of its primary; `None` if this node is a primary, or its primary is not known.
    pub primary: Option<String>,
    /// The flags from `CLUSTER NODES`.
    pub flags: Flags,
    /// Slots that it owns, without slots being imported.
    pub slots: Vec<RangeInclusive<u16>>,
    /// Whether the node that was asked has a link to it.
    pub connected: bool,
}

/// A node's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Owns slots, or could own slots.
    Primary,
    /// Replicates a primary.
    Replica,
}

impl Role {
    /// The role as a log field.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// A node's flags, including unknown ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flags(pub(super) String);

impl Flags {
    /// Whether the flags contain `flag`, for example `fail?`.
    pub fn has(&self, flag: &str) -> bool {
        self.0.split(',').any(|has| has == flag)
    }

    /// Whether this is the node that was asked.
    pub fn is_myself(&self) -> bool {
        self.has("myself")
    }

    /// Whether the cluster agrees that the node is down.
    pub fn has_failed(&self) -> bool {
        self.has("fail")
    }

    /// Whether the node that was asked cannot reach it.
    pub fn is_suspected(&self) -> bool {
        self.has("fail?")
    }

    /// Whether its address is no longer known.
    pub fn has_no_address(&self) -> bool {
        self.has("noaddr")
    }

    /// Whether it was met but has not answered, so that its ID is still temporary.
    pub fn is_being_met(&self) -> bool {
        self.has("handshake")
    }

    /// Whether it is never promoted automatically.
    pub fn never_fails_over(&self) -> bool {
        self.has("nofailover")
    }
}

impl Node {
    /// Returns where clients should dial it; `None` if it has no address.
    pub fn endpoint(&self) -> Option<Endpoint> {
        let host = self.names.first()?.clone();
        (self.port != 0).then_some(Endpoint { host, port: self.port })
    }

    /// Whether this host and port may name the node.
    pub fn is_at(&self, host: &Host, port: u16) -> bool {
        let is_same = |name: &Host| match (name, host) {
            (Host::Name(name), Host::Name(other)) => name.eq_ignore_ascii_case(other),
            _ => name == host,
        };
        self.port == port && self.names.iter().any(is_same)
    }

    /// Whether the node can be expected to answer at its address, under its own ID.
    pub(super) fn is_sound(&self) -> bool {
        !self.flags.has_failed() && !self.flags.has_no_address() && !self.flags.is_being_met()
    }
}

/// Parses a host as nodes print it: IPv6 without brackets. Names become lower case, because they are case-insensitive. `None` for an
/// invalid host, an empty one and `?`, the last two of which mean "the host that you asked".
pub(super) fn host(text: &str) -> Option<Host> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(Host::Ip(ip));
    }
    text.to_ascii_lowercase().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_the_same_in_any_spelling() {
        assert_eq!(host("::1"), host("0:0:0:0:0:0:0:1"));
        assert_eq!(host("[::1]"), host("::1"));
        assert_eq!(host("A.Example"), host("a.example"));
        assert_eq!(host("a.example").unwrap().to_string(), "a.example");
        for none in ["", "?", "a b"] {
            assert_eq!(host(none), None);
        }
    }

    #[test]
    fn a_suspected_node_has_not_failed() {
        let flags = Flags("slave,fail?,nofailover".into());
        assert!(flags.is_suspected() && flags.never_fails_over() && !flags.has_failed());
    }
}
