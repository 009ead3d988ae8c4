//! Whether servers refuse plaintext: an attempt at each that does not count its clients in plaintext, and what it says of its own ports.

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
    /// It refuses plaintext, and has no port for it.
    Refused,
    /// It answers in plaintext where it speaks TLS.
    Accepted,
    /// It refuses plaintext where it speaks TLS, and has this port for it.
    OtherPort(u16),
    /// That is not known, for this reason.
    Unknown(String),
}

/// Looks at each node of a round that does not count its clients in plaintext.
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

/// `accepts`: what came of the attempt at `address`, or why nothing is known.
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
/// Redis from 7.2 on and Valkey name each listener in INFO. Before, there is `tcp_port` alone: the port for plaintext, or that for TLS where
/// there is none for plaintext (`genRedisInfoString` in `server.c`). Then the ports count only if the server sees our connection arrive
/// at `address`, too: on the way through a proxy that ends TLS, or through translated addresses, its numbers are not ours.
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
                "it refuses plaintext here, and does not tell whether it has another port for it: see there that \
                 `CONFIG GET port` says 0, and set evidence.interval at a bridge that reaches it directly"
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
            // It was closed, with `CONFIG SET port 0`.
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
            "it has no listener for TLS, so that TLS ends before it: see there that it can be reached in no other way".into(),
        )
    }
}

fn unread(listener: &str) -> String {
    format!(
        "it listens in a way that pontoon does not know ({listener}): see there whether that is in plaintext"
    )
}

/// Where our connection arrived, as the server sees it.
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
        // As Redis 7.0.15, Redis 8.0 and Valkey 8.1 and 9.1 say it with `port 0`.
        assert_eq!(refusing("tcp_port:6380\r\n", TRIED), PlaintextAccess::Refused);
        let listeners = "tcp_port:6380\r\nlistener2:name=tls,bind=10.0.0.1,port=6380\r\n";
        assert_eq!(refusing(listeners, TRIED), PlaintextAccess::Refused);
        assert_eq!(refusing(listeners, "172.17.0.2:6380"), PlaintextAccess::Refused, "through translation");
        let closed = format!("listener0:name=tcp\r\n{listeners}");
        assert_eq!(refusing(&closed, TRIED), PlaintextAccess::Refused);
        let with_socket = format!("{listeners}listener1:name=unix,bind=/run/redis.sock\r\n");
        assert_eq!(refusing(&with_socket, TRIED), PlaintextAccess::Refused);
    }

    #[test]
    fn a_port_for_plaintext_beside_that_for_tls_is_found() {
        let other = PlaintextAccess::OtherPort(6379);
        assert_eq!(refusing("tcp_port:6379\r\n", TRIED), other);
        let listeners = "tcp_port:6379\r\nlistener0:name=tcp,bind=10.0.0.1,port=6379\r\nlistener2:name=tls,bind=10.0.0.1,port=6380\r\n";
        for laddr in [TRIED, "172.17.0.2:6380"] {
            assert_eq!(refusing(listeners, laddr), other);
        }
    }

    #[test]
    fn what_cannot_be_known_for_certain_is_not() {
        let unknown = |info: &str, laddr: &str| {
            let access = refusing(info, laddr);
            assert!(matches!(access, PlaintextAccess::Unknown(_)), "{info} {laddr}: {access:?}");
        };
        // A proxy that ends TLS, or addresses that are translated.
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
