//! Which servers a Sentinel group has, and which one is the primary, by what its sentinels say.
//!
//! Each configured sentinel has one vote, because a server that could add sentinels could add votes. A server belongs to the group if more
//! than half of the sentinels that answered list it. `app` asks the sentinels, and servers for their role where sentinels disagree.

use std::cmp::Reverse;

use super::node::{Flags, Node, Role, host};
use super::topology::Topology;
use crate::counted::counted;
use crate::endpoint::Endpoint;
use crate::resp::value::{Data, Value};
use crate::upstream::{Cause, Connection, ask_frames};

/// What one sentinel says about a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentinelView {
    primary: Endpoint,
    /// The number of the configuration: each failover gets a higher one.
    epoch: u64,
    /// The other servers that the sentinel lists, and whether it considers them down.
    replicas: Vec<(Endpoint, bool)>,
}

/// Why a reply of a sentinel says nothing about the group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SentinelError {
    /// The server does not know the command SENTINEL.
    #[error(
        "is not a sentinel, it does not know SENTINEL: upstream must list the sentinels, not the servers"
    )]
    NoSentinel,
    /// The sentinel watches no group of this name.
    #[error("the sentinel knows no group of this name")]
    UnknownGroup,
    /// The sentinel requires a password, and none was sent.
    #[error(
        "the sentinel requires a password: set sentinel.password_file, and sentinel.username for an ACL user"
    )]
    NoPassword,
    /// The sentinel's own error.
    #[error("the sentinel refused SENTINEL: {0}")]
    Refused(String),
    /// The reply has an unexpected form.
    #[error("the sentinel's reply to SENTINEL cannot be read")]
    Unreadable,
}

/// Why a sentinel said nothing about the group.
#[derive(Debug, thiserror::Error)]
pub enum AskSentinelError {
    /// It did not answer.
    #[error(transparent)]
    Silent(#[from] Cause),
    /// It watches no group of this name.
    #[error(
        "the sentinel knows no group \"{0}\": check sentinel.master_name against \"sentinel monitor\" in sentinel.conf"
    )]
    UnknownGroup(String),
    /// Its answer has no use.
    #[error(transparent)]
    Said(SentinelError),
}

impl SentinelError {
    fn new(words: &[u8]) -> Self {
        let words = String::from_utf8_lossy(words).into_owned();
        let lower = words.to_ascii_lowercase();
        // Source: `sentinelGetMasterByNameOrReplyError` in `sentinel.c`, and `rejectCommandFormat` in `server.c`.
        if lower.contains("unknown command") {
            Self::NoSentinel
        } else if lower.contains("no such master") || lower.contains("no such primary") {
            Self::UnknownGroup
        } else if lower.starts_with("noauth") {
            Self::NoPassword
        } else {
            Self::Refused(words)
        }
    }
}

impl SentinelView {
    /// Parses a sentinel's replies to `SENTINEL GET-MASTER-ADDR-BY-NAME`, `SENTINEL MASTER` and `SENTINEL REPLICAS`. The first one names a
    /// promoted replica earlier than the second does.
    pub fn parse(primary: &[u8], group: &[u8], replicas: &[u8]) -> Result<Self, SentinelError> {
        let primary = read(primary)?;
        let address = match primary.list() {
            Some([host, port]) => address(host, port),
            None if primary.data == Data::Null => return Err(SentinelError::UnknownGroup),
            _ => None,
        };
        let group = read(group)?;
        let epoch = group.field("config-epoch").and_then(|epoch| epoch.text()?.parse().ok());
        let replicas = read(replicas)?;
        let entries = replicas.list().ok_or(SentinelError::Unreadable)?;
        let replicas = entries.iter().map(|entry| replica(entry).ok_or(SentinelError::Unreadable));
        Ok(Self {
            primary: address.ok_or(SentinelError::Unreadable)?,
            epoch: epoch.ok_or(SentinelError::Unreadable)?,
            replicas: replicas.collect::<Result<_, _>>()?,
        })
    }

    /// Asks the sentinel that `connection` leads to. The caller sets the deadline.
    pub async fn ask(connection: &mut Connection, master_name: &str) -> Result<Self, AskSentinelError> {
        let commands: [&[&str]; 3] = [
            &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", master_name],
            &["SENTINEL", "MASTER", master_name],
            &["SENTINEL", "REPLICAS", master_name],
        ];
        let [primary, group, replicas] = ask_frames(connection, commands).await?;
        Self::parse(&primary, &group, &replicas).map_err(|error| match error {
            SentinelError::UnknownGroup => AskSentinelError::UnknownGroup(master_name.to_owned()),
            error => AskSentinelError::Said(error),
        })
    }

    /// Describes what the sentinel says: `primary 10.0.0.1:6379, 2 replicas, 1 of them down`.
    pub fn describe(&self) -> String {
        let down = self.replicas.iter().filter(|(_, is_down)| *is_down).count();
        let down = if down == 0 { String::new() } else { format!(", {down} of them down") };
        format!("primary {}, {}{down}", self.primary, counted(self.replicas.len(), "replica"))
    }

    fn lists(&self, server: &Endpoint) -> bool {
        self.primary == *server || self.replicas.iter().any(|(replica, _)| replica == server)
    }
}

fn read(reply: &[u8]) -> Result<Value<'_>, SentinelError> {
    let value = Value::parse(reply).map_err(|_| SentinelError::Unreadable)?;
    if let Data::Error(words) = value.data { Err(SentinelError::new(words)) } else { Ok(value) }
}

fn replica(entry: &Value<'_>) -> Option<(Endpoint, bool)> {
    let is_down = entry.field("flags")?.text()?.split(',').any(|flag| DOWN.contains(&flag));
    Some((address(entry.field("ip")?, entry.field("port")?)?, is_down))
}

/// Flags of servers that sentinels cannot reach. Source: `addReplySentinelRedisInstance` in `sentinel.c`.
pub(super) const DOWN: [&str; 3] = ["s_down", "o_down", "disconnected"];

fn address(host: &Value<'_>, port: &Value<'_>) -> Option<Endpoint> {
    Some(Endpoint { host: self::host(host.text()?)?, port: self::port(port)? })
}

/// A port, which sentinels and ROLE write as a text or as a number.
pub(super) fn port(value: &Value<'_>) -> Option<u16> {
    match value.data {
        Data::Number(number) => u16::try_from(number).ok(),
        _ => value.text()?.parse().ok(),
    }
}

/// The result of asking the sentinels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Election {
    views: Vec<SentinelView>,
}

/// A server that sentinels name as the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The server.
    pub primary: Endpoint,
    /// Number of sentinels that name it.
    pub votes: usize,
    /// The highest number of the configurations in which it is the primary.
    pub epoch: u64,
}

impl Election {
    /// Counts what the sentinels said that answered, at least one.
    pub fn new(views: Vec<SentinelView>) -> Self {
        Self { views }
    }

    /// The servers that sentinels name as the primary and that belong to the group, by falling number of votes.
    pub fn claims(&self) -> Vec<Claim> {
        let mut claims: Vec<Claim> = Vec::new();
        for SentinelView { primary, epoch, .. } in &self.views {
            match claims.iter_mut().find(|claim| claim.primary == *primary) {
                Some(claim) => {
                    claim.votes += 1;
                    claim.epoch = claim.epoch.max(*epoch);
                }
                None => claims.push(Claim { primary: primary.clone(), votes: 1, epoch: *epoch }),
            }
        }
        claims.retain(|claim| self.has_majority(|view| view.lists(&claim.primary)));
        claims.sort_by_key(|claim| Reverse(claim.votes));
        claims
    }

    /// The servers of the group, with `primary` as their primary.
    pub fn topology(&self, primary: &Endpoint) -> Topology {
        let mut servers: Vec<&Endpoint> = vec![primary];
        for view in &self.views {
            for server in std::iter::once(&view.primary).chain(view.replicas.iter().map(|(server, _)| server))
            {
                if !servers.contains(&server) && self.has_majority(|view| view.lists(server)) {
                    servers.push(server);
                }
            }
        }
        let node = |server: &Endpoint| {
            let is_primary = server == primary;
            let is_down =
                !is_primary && self.has_majority(|view| view.replicas.contains(&(server.clone(), true)));
            Node {
                id: server.to_string(),
                names: vec![server.host.clone()],
                port: server.port,
                role: Some(if is_primary { Role::Primary } else { Role::Replica }),
                primary: (!is_primary).then(|| primary.to_string()),
                flags: Flags(if is_down { "fail".into() } else { String::new() }),
                slots: Vec::new(),
                connected: !is_down,
            }
        };
        Topology { nodes: servers.into_iter().map(node).collect() }
    }

    fn has_majority(&self, says: impl Fn(&SentinelView) -> bool) -> bool {
        self.views.iter().filter(|view| says(view)).count() * 2 > self.views.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse().unwrap()
    }

    fn view(primary: &str, replicas: &[(&str, bool)]) -> SentinelView {
        let replicas = replicas.iter().map(|(server, is_down)| (endpoint(server), *is_down)).collect();
        SentinelView { primary: endpoint(primary), epoch: 1, replicas }
    }

    fn claims(views: &[SentinelView]) -> Vec<(String, usize)> {
        let claims = Election::new(views.to_vec()).claims();
        claims.into_iter().map(|claim| (claim.primary.to_string(), claim.votes)).collect()
    }

    const A: &str = "10.0.0.1:6379";
    const B: &str = "10.0.0.2:6379";
    const C: &str = "10.0.0.3:6379";
    const EVIL: &str = "10.6.6.6:6379";

    fn honest() -> SentinelView {
        view(A, &[(B, false), (C, false)])
    }

    #[test]
    fn the_majority_names_the_primary() {
        assert_eq!(claims(&[honest(), honest(), honest()]), [(A.into(), 3)]);
        let ahead = view(B, &[(A, true), (C, false)]);
        assert_eq!(claims(&[ahead.clone(), honest(), honest()]), [(A.into(), 2), (B.into(), 1)]);
        assert_eq!(claims(&[honest(), ahead.clone()]), [(A.into(), 1), (B.into(), 1)]);
        assert_eq!(claims(&[ahead]), [(B.into(), 1)]);
    }

    #[test]
    fn a_lone_sentinel_cannot_add_a_server() {
        let lies = view(EVIL, &[(A, false), (EVIL, false)]);
        let views = [lies, honest(), honest()];
        assert_eq!(claims(&views), [(A.into(), 2)]);
        let servers = Election::new(views.to_vec()).topology(&endpoint(A)).nodes;
        let ids: Vec<_> = servers.iter().map(|node| node.id.as_str()).collect();
        assert_eq!(ids, [A, B, C]);
    }

    #[test]
    fn a_replica_is_down_if_most_sentinels_say_so_and_the_primary_never_is() {
        let late = view(A, &[(B, true), (C, true)]);
        let views = vec![late.clone(), late, honest()];
        let down = |primary: &str| {
            let nodes = Election::new(views.clone()).topology(&endpoint(primary)).nodes;
            nodes.into_iter().filter(|node| node.flags.has_failed()).map(|node| node.id).collect::<Vec<_>>()
        };
        assert_eq!(down(A), [B, C]);
        assert_eq!(down(B), [C]);
    }

    #[test]
    fn replies_are_read_or_refused_with_their_reason() {
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let primary = format!("*2\r\n{}{}", bulk("10.0.0.1"), bulk("6379"));
        let fields = ["ip", "b.example", "port", "6380", "flags", "slave,s_down"].map(bulk).concat();
        let replicas = format!("*1\r\n*6\r\n{fields}");
        let group = format!("*2\r\n{}{}", bulk("config-epoch"), bulk("1"));
        let read = SentinelView::parse(primary.as_bytes(), group.as_bytes(), replicas.as_bytes());
        assert_eq!(read.unwrap(), view(A, &[("b.example:6380", true)]));
        for (reply, error) in [
            ("-ERR unknown command 'SENTINEL', with args beginning with: \r\n", SentinelError::NoSentinel),
            ("*-1\r\n", SentinelError::UnknownGroup),
            ("-ERR No such master with that name\r\n", SentinelError::UnknownGroup),
            ("-NOAUTH Authentication required.\r\n", SentinelError::NoPassword),
            ("-NOPERM no\r\n", SentinelError::Refused("NOPERM no".into())),
            ("+OK\r\n", SentinelError::Unreadable),
            ("*1\r\n$1\r\n", SentinelError::Unreadable),
        ] {
            assert_eq!(
                SentinelView::parse(reply.as_bytes(), reply.as_bytes(), b"*0\r\n"),
                Err(error),
                "{reply}"
            );
        }
    }
}
