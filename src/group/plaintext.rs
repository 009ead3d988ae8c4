//! Tests whether servers refuse plaintext: tries it at each node that does not count its clients in plaintext, and reads which ports the
//! node reports.

use std::net::SocketAddr;

use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};

use super::client_list;
use super::info::Info;
use super::node::{NodeReplies, plaintext_clients};
use super::servers::Servers;
use super::survey::{AT_ONCE, Round};

/// Whether a server accepts plaintext.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaintextAccess {
    /// It refuses plaintext, and has no other port for it.
    Refused,
    /// It answers in plaintext on its TLS port.
    Accepted,
    /// It refuses plaintext on its TLS port, and accepts it on this port.
    OtherPort(u16),
    /// Whether it refuses plaintext is not known, for this reason.
    Unknown(String),
}

/// Tests each node of a round that does not count its clients in plaintext.
pub(super) async fn look<S: Servers>(servers: &S, round: &mut Round<S::Connection>) {
    let looks = round.nodes.iter_mut().filter_map(|node| {
        let replies = node.replies.as_mut().ok()?.first_mut()?;
        let connection = node.connection.as_ref()?;
        let is_counted = plaintext_clients(Info(&replies.info)).is_some();
        (!is_counted).then(|| (replies, servers.accepts_plaintext(connection)))
    });
    stream::iter(looks)
        .for_each_concurrent(AT_ONCE, |(replies, attempt)| async {
            replies.plaintext = attempt.await.map(|(address, accepts)| judge(address, accepts, replies));
        })
        .await;
}

/// `accepts` is the result of the attempt at `address`, or why there is none.
fn judge(address: SocketAddr, accepts: Result<bool, String>, replies: &NodeReplies) -> PlaintextAccess {
    match accepts {
        Ok(true) => PlaintextAccess::Accepted,
        Ok(false) => other_port(address, replies),
        Err(problem) => {
            PlaintextAccess::Unknown(format!("{problem}; `pontoon probe {address}` shows what it accepts"))
        }
    }
}

/// Whether a node that refuses plaintext at `address` has another port for it.
///
/// Redis 7.2 and later and Valkey list each listener in INFO. Older servers report only `tcp_port`: the plaintext port, or the TLS port if
/// there is no plaintext port (`genRedisInfoString` in `server.c`). That number counts only if the server, too, sees our connection arrive
/// at `address`. Behind a proxy that ends TLS, or behind address translation, its port numbers are not ours.
fn other_port(address: SocketAddr, replies: &NodeReplies) -> PlaintextAccess {
    let info = Info(&replies.info);
    let is_direct = own_address(replies) == Some(address);
    let is_tried = |port: u16| is_direct && port == address.port();
    let listeners: Vec<&str> = info.fields("listener").collect();
    if listeners.is_empty() {
        return match info.number("tcp_port").and_then(|port| u16::try_from(port).ok()) {
            Some(port) if is_tried(port) => PlaintextAccess::Refused,
            Some(port) if is_direct && port > 0 => PlaintextAccess::OtherPort(port),
            _ => PlaintextAccess::Unknown(
                "it refuses plaintext here, but does not report whether it has a plaintext port: check there that \
                 `CONFIG GET port` returns 0, and set evidence.interval at a bridge that connects to it directly"
                    .into(),
            ),
        };
    }
    let mut has_tls = false;
    for listener in listeners {
        let part =
            |name: &str| listener.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        match part("name") {
            Some("tls") => has_tls = true,
            Some("unix") => {}
            // Closed with `CONFIG SET port 0`.
            Some("tcp") if listener == "name=tcp" => {}
            Some("tcp") => match part("port").and_then(|port| port.parse().ok()) {
                Some(port) if is_tried(port) => has_tls = true,
                Some(port) => return PlaintextAccess::OtherPort(port),
                None => return PlaintextAccess::Unknown(unread(listener)),
            },
            _ => return PlaintextAccess::Unknown(unread(listener)),
        }
    }
    if has_tls {
        PlaintextAccess::Refused
    } else {
        PlaintextAccess::Unknown(
            "it has no TLS listener, so TLS ends before it: check there that no client can reach it without TLS".into(),
        )
    }
}

fn unread(listener: &str) -> String {
    format!("it has a listener of an unknown type ({listener}): check there whether that accepts plaintext")
}

/// Returns the address at which the server saw our connection arrive.
fn own_address(replies: &NodeReplies) -> Option<SocketAddr> {
    let own = u64::try_from(replies.own_id?).ok()?;
    let list = replies.list.as_ref()?.as_ref().ok()?;
    client_list::parse(list).find(|client| client.id == own)?.laddr.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(info: &str, laddr: &str, accepts: Result<bool, String>) -> PlaintextAccess {
        let replies = NodeReplies {
            own_id: Some(7),
            list: Some(Ok(format!("id=6 laddr=10.0.0.1:6380\nid=7 addr=10.0.0.9:5000 laddr={laddr}\n"))),
            ..NodeReplies::saying(info)
        };
        judge("10.0.0.1:6380".parse().unwrap(), accepts, &replies)
    }

    fn refusing(info: &str, laddr: &str) -> PlaintextAccess {
        of(info, laddr, Ok(false))
    }

    const TRIED: &str = "10.0.0.1:6380";

    #[test]
    fn a_server_without_a_port_for_plaintext_refuses_it() {
        // The replies of Redis 7.0.15, Redis 8.0, Valkey 8.1 and Valkey 9.1 with `port 0`.
        assert_eq!(refusing("tcp_port:6380\r\n", TRIED), PlaintextAccess::Refused);
        let listeners = "tcp_port:6380\r\nlistener2:name=tls,bind=10.0.0.1,port=6380\r\n";
        assert_eq!(refusing(listeners, TRIED), PlaintextAccess::Refused);
        assert_eq!(
            refusing(listeners, "172.17.0.2:6380"),
            PlaintextAccess::Refused,
            "through address translation"
        );
        let closed = format!("listener0:name=tcp\r\n{listeners}");
        assert_eq!(refusing(&closed, TRIED), PlaintextAccess::Refused);
        let with_socket = format!("{listeners}listener1:name=unix,bind=/run/redis.sock\r\n");
        assert_eq!(refusing(&with_socket, TRIED), PlaintextAccess::Refused);
    }

    #[test]
    fn a_plaintext_port_beside_the_tls_port_is_found() {
        let other = PlaintextAccess::OtherPort(6379);
        assert_eq!(refusing("tcp_port:6379\r\n", TRIED), other);
        let listeners = "tcp_port:6379\r\nlistener0:name=tcp,bind=10.0.0.1,port=6379\r\nlistener2:name=tls,bind=10.0.0.1,port=6380\r\n";
        for laddr in [TRIED, "172.17.0.2:6380"] {
            assert_eq!(refusing(listeners, laddr), other);
        }
    }

    #[test]
    fn a_server_that_cannot_be_judged_for_certain_is_unknown() {
        let unknown = |info: &str, laddr: &str| {
            let access = refusing(info, laddr);
            assert!(matches!(access, PlaintextAccess::Unknown(_)), "{info} {laddr}: {access:?}");
        };
        // A proxy ends TLS, or addresses are translated.
        unknown("tcp_port:6380\r\n", "10.0.0.2:6380");
        unknown("tcp_port:6379\r\n", "10.0.0.1:6379");
        unknown("tcp_port:0\r\n", TRIED);
        unknown("tcp_port:6380\r\n", "");
        unknown("", TRIED);
        unknown("listener0:name=rdma,bind=10.0.0.1,port=6380\r\nlistener2:name=tls,port=6380\r\n", TRIED);
        unknown("listener1:name=unix,bind=/run/redis.sock\r\n", TRIED);
        let silent = of("tcp_port:6380\r\n", TRIED, Err("no answer".into()));
        assert!(
            matches!(silent, PlaintextAccess::Unknown(why) if why.contains("`pontoon probe 10.0.0.1:6380`"))
        );
        assert_eq!(of("tcp_port:6380\r\n", TRIED, Ok(true)), PlaintextAccess::Accepted);
    }
}
