//! A node of a cluster, as others tell of it.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::endpoint::{Endpoint, Host};

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// 40 hexadecimal digits, for as long as the node lives.
    pub id: String,
    /// Every host by which it may be named; first the one that clients are meant to dial. Empty: it has no address.
    pub names: Vec<Host>,
    /// As seen on the connection that was asked: the TLS port, if that was one. 0: it has none.
    pub port: u16,
    /// `None`: not known, as of a node that has only been met.
    pub role: Option<Role>,
    /// Of a replica, if it is known.
    pub primary: Option<String>,
    /// What `CLUSTER NODES` says of it.
    pub flags: Flags,
    /// Slots that it owns; not those that are on their way to it.
    pub slots: Vec<RangeInclusive<u16>>,
    /// Whether the node that was asked has a link to it.
    pub connected: bool,
}

/// A node's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It owns slots, or could.
    Primary,
    /// It follows a primary.
    Replica,
}

/// A node's flags, those that are not known here among them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flags(pub(super) String);

impl Flags {
    /// Whether this is among them: `fail?`, say.
    pub fn has(&self, flag: &str) -> bool {
        self.0.split(',').any(|has| has == flag)
    }

    /// The node that was asked.
    pub fn is_myself(&self) -> bool {
        self.has("myself")
    }

    /// The cluster agrees that it is down.
    pub fn has_failed(&self) -> bool {
        self.has("fail")
    }

    /// The node that was asked does not reach it.
    pub fn is_suspected(&self) -> bool {
        self.has("fail?")
    }

    /// Its address is not known any more.
    pub fn has_no_address(&self) -> bool {
        self.has("noaddr")
    }

    /// It has been met, and has not answered: its id is not its own yet.
    pub fn is_being_met(&self) -> bool {
        self.has("handshake")
    }

    /// Never promoted by itself.
    pub fn never_fails_over(&self) -> bool {
        self.has("nofailover")
    }
}

impl Node {
    /// Where clients are meant to dial it. `None`: it has no address.
    pub fn endpoint(&self) -> Option<Endpoint> {
        let host = self.names.first()?.clone();
        (self.port != 0).then_some(Endpoint { host, port: self.port })
    }

    /// Whether it may be named so.
    pub fn is_at(&self, host: &Host, port: u16) -> bool {
        let is_same = |name: &Host| match (name, host) {
            (Host::Name(name), Host::Name(other)) => name.eq_ignore_ascii_case(other),
            _ => name == host,
        };
        self.port == port && self.names.iter().any(is_same)
    }

    /// Whether it may be there, and is who it says.
    pub(super) fn is_sound(&self) -> bool {
        !self.flags.has_failed() && !self.flags.has_no_address() && !self.flags.is_being_met()
    }
}

/// A host as nodes print it: IPv6 without brackets. Names are lower-cased, for they are the same in any case. `None`: it
/// is none, and so are the empty one and `?`, which mean "where you found me".
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
    fn a_suspicion_is_no_failure() {
        let flags = Flags("slave,fail?,nofailover".into());
        assert!(flags.is_suspected() && flags.never_fails_over() && !flags.has_failed());
    }
}
