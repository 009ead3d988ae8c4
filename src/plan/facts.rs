//! The facts that AWS reports about a replication group.

use std::fmt;

use serde::Serialize;

/// A replication group. Hidden characters in AWS' text are already escaped.
#[derive(Debug, Clone, Serialize)]
pub struct GroupFacts {
    /// The replication group's id.
    pub id: String,
    /// The AWS region that the group is in.
    pub region: String,
    /// AWS' status: `available`, `modifying` and others.
    pub status: String,
    /// Which connections the group accepts.
    pub transit_encryption: TransitEncryption,
    /// `redis` or `valkey`.
    pub engine: String,
    /// The oldest engine version of its nodes. `None` if AWS does not report every node's version.
    pub engine_version: Option<EngineVersion>,
    /// Whether its nodes form a cluster, so that clients use the configuration endpoint.
    pub cluster_mode: bool,
    /// `cluster-preferred-endpoint-type` of its parameter groups, if it is a cluster.
    pub cluster_endpoint_type: Option<String>,
    /// Parameter groups of its nodes.
    pub parameter_groups: Vec<String>,
    /// Types of its nodes.
    pub node_types: Vec<String>,
    /// Number of nodes.
    pub nodes: usize,
    /// Names that clients use, as AWS reports them now.
    pub endpoints: Vec<GroupEndpoint>,
    /// Whether clients need an AUTH token.
    pub auth_token: bool,
    /// User groups (RBAC) of the group.
    pub user_groups: Vec<String>,
    /// The global datastore that it belongs to.
    pub global_datastore: Option<GlobalDatastore>,
    /// Modifications that AWS has accepted and not applied.
    pub pending: PendingChanges,
    /// When AWS applies changes that are not immediate, in UTC. Example: `sun:05:00-sun:06:00`.
    pub maintenance_window: Option<String>,
}

/// Which connections a group accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransitEncryption {
    /// Plaintext only.
    Disabled,
    /// Plaintext and TLS.
    Preferred,
    /// TLS only.
    Required,
}

impl fmt::Display for TransitEncryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disabled => "disabled",
            Self::Preferred => "preferred",
            Self::Required => "required",
        })
    }
}

/// A version of an engine: major, minor, patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EngineVersion(pub u32, pub u32, pub u32);

impl EngineVersion {
    /// Reads `7.1.0`, `7.1` and `7`; anything else is no version.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = [0; 3];
        let mut parts = text.split('.');
        for (number, part) in numbers.iter_mut().zip(&mut parts) {
            *number = part.parse().ok()?;
        }
        let [major, minor, patch] = numbers;
        parts.next().is_none().then_some(Self(major, minor, patch))
    }
}

impl fmt::Display for EngineVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(major, minor, patch) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

impl Serialize for EngineVersion {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A name that clients use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupEndpoint {
    /// What clients reach by it.
    pub r#use: EndpointUse,
    /// Its name.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// The endpoint's other name: the one with TLS if `address` is the one without, or the reverse. AWS does not report it, so it is
    /// derived from the pattern of AWS' names.
    pub counterpart: Option<String>,
}

/// What clients reach by a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointUse {
    /// All nodes of a cluster.
    Configuration,
    /// The primary.
    Primary,
    /// Any replica.
    Reader,
    /// One node.
    Node,
}

impl fmt::Display for EndpointUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configuration => "configuration",
            Self::Primary => "primary",
            Self::Reader => "reader",
            Self::Node => "node",
        })
    }
}

impl GroupEndpoint {
    /// Creates an endpoint of the group `id`, with its counterpart.
    pub fn new(id: &str, r#use: EndpointUse, address: String, port: u16) -> Self {
        let counterpart = counterpart(id, r#use, &address);
        Self { r#use, address, port, counterpart }
    }
}

/// Returns the endpoint's name with TLS if `address` is the one without, or the reverse.
///
/// The nodes of a cluster have no counterpart, because AWS reports no names for them.
fn counterpart(id: &str, r#use: EndpointUse, address: &str) -> Option<String> {
    let labels: Vec<&str> = address.split('.').collect();
    let id = id.to_ascii_lowercase();
    let (first, rest) = labels.split_first()?;
    let made = match (r#use, rest) {
        (EndpointUse::Configuration, [hash, "clustercfg", rest @ ..]) if *first == id => {
            format!("clustercfg.{id}.{hash}.{}", rest.join("."))
        }
        (EndpointUse::Configuration, [name, hash, rest @ ..]) if *first == "clustercfg" && *name == id => {
            format!("{id}.{hash}.clustercfg.{}", rest.join("."))
        }
        (EndpointUse::Primary, [hash, "ng", "0001", rest @ ..]) if *first == id => {
            format!("master.{id}.{hash}.{}", rest.join("."))
        }
        (EndpointUse::Primary, [name, hash, rest @ ..]) if *first == "master" && *name == id => {
            format!("{id}.{hash}.ng.0001.{}", rest.join("."))
        }
        (EndpointUse::Reader, [hash, "ng", "0001", rest @ ..]) if *first == format!("{id}-ro") => {
            format!("replica.{id}.{hash}.{}", rest.join("."))
        }
        (EndpointUse::Reader, [name, hash, rest @ ..]) if *first == "replica" && *name == id => {
            format!("{id}-ro.{hash}.ng.0001.{}", rest.join("."))
        }
        _ => return None,
    };
    Some(made)
}

/// The global datastore that a group belongs to.
#[derive(Debug, Clone, Serialize)]
pub struct GlobalDatastore {
    /// Its id.
    pub id: String,
    /// `PRIMARY` or `SECONDARY`.
    pub role: String,
}

/// Modifications that AWS has accepted and not applied.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PendingChanges {
    /// The transit encryption after the modification.
    pub transit_encryption: Option<TransitEncryption>,
    /// Descriptions of all other modifications.
    pub others: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let version = |text: &str| EngineVersion::parse(text).unwrap();
        assert!(version("6.2.6") < version("7.0.5") && version("7.0.5") < version("7.0.10"));
        assert_eq!(version("7.1"), EngineVersion(7, 1, 0));
        for text in ["", "7.x", "5.0.6.1", "seven"] {
            assert_eq!(EngineVersion::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_is_the_counterpart_of_its_counterpart() {
        for (r#use, plaintext, tls) in [
            (EndpointUse::Primary, "Sessions.abc.ng.0001.use1", "master.sessions.abc.use1"),
            (EndpointUse::Reader, "sessions-ro.abc.ng.0001.use1", "replica.sessions.abc.use1"),
            (EndpointUse::Configuration, "sessions.abc.clustercfg.use1", "clustercfg.sessions.abc.use1"),
        ] {
            let (plaintext, tls) = (
                format!("{}.cache.amazonaws.com", plaintext.to_lowercase()),
                format!("{tls}.cache.amazonaws.com"),
            );
            assert_eq!(counterpart("Sessions", r#use, &plaintext).as_ref(), Some(&tls));
            assert_eq!(counterpart("Sessions", r#use, &tls), Some(plaintext));
        }
    }

    #[test]
    fn a_name_of_another_pattern_has_no_counterpart() {
        for name in ["primary.sessions.abc.use1.cache.amazonaws.com", "cache.example", "", "10.0.0.1"] {
            assert_eq!(counterpart("sessions", EndpointUse::Primary, name), None, "{name}");
        }
        assert_eq!(
            counterpart("sessions", EndpointUse::Node, "sessions-001.abc.0001.use1.cache.amazonaws.com"),
            None
        );
    }
}
