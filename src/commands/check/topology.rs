//! Checks that the server is what the key `topology` says, and that all nodes of a cluster can be reached.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::dialled::dialled;
use super::report::CheckReport;
use crate::cluster::{Node, PortRange, Role, Topology, TopologyError, node_addresses};
use crate::config::Route;
use crate::counted::counted;
use crate::endpoint::ListenAddr;
use crate::listener::{BindError, Holder, Listener};
use crate::metrics::RouteMetrics;
use crate::resp::replies::Answer;
use crate::upstream::{self, Connection, Lease, NodeTls, Upstream};

/// Asks the server behind `connection` for its cluster, and dials every node.
pub(super) async fn check(
    mut connection: Lease,
    route: &Route,
    tls: Option<&NodeTls>,
    own: &Upstream,
    report: &mut CheckReport,
) {
    let deadline = route.upstream.connect_timeout;
    let topology = match ask(&mut connection, deadline).await {
        Ok(topology) => topology,
        Err(Ok(TopologyError::Refused(words))) if route.cluster.is_none() => {
            if words.contains("cluster support disabled") {
                return report.ok("topology", None, "standalone");
            }
            if is_sentinel(&mut connection, deadline).await {
                return report.failed("topology", A_SENTINEL);
            }
            return report.warn("topology", &format!("unknown: the server said \"{words}\""));
        }
        Err(Ok(_)) if is_sentinel(&mut connection, deadline).await => {
            return report.failed("topology", A_SENTINEL);
        }
        Err(Ok(error)) => {
            return report
                .failed("topology", &format!("{error}. Is the server a cluster? See the key topology"));
        }
        Err(Err(problem)) => return report.failed("topology", &problem),
    };
    let Some(settings) = &route.cluster else {
        return report.failed(
            "topology",
            "the server is a node of a cluster, which sends clients to other nodes around the bridge. Set topology = \
             \"cluster\" (--topology cluster)",
        );
    };
    let nodes: Vec<&Node> = topology.nodes.iter().filter(|node| !node.flags.has_failed()).collect();
    let primaries = nodes.iter().filter(|node| node.role == Some(Role::Primary)).count();
    report.ok("topology", None, &shape(primaries, nodes.len() - primaries));
    has_room(&nodes, nodes.len(), route, report);
    dial(nodes.into_iter().take(settings.max_nodes), route, tls, own, report).await;
}

/// Reports nodes that would get no port. `ports`: the number of ports that they need.
pub(super) fn has_room(nodes: &[&Node], ports: usize, route: &Route, report: &mut CheckReport) {
    let Some(settings) = &route.cluster else { return };
    let key = settings.ports_key();
    let (size, more) = match settings.sentinel {
        None => (format!("the cluster has {}", counted(nodes.len(), "node")), ""),
        Some(_) => (
            format!("the group has {}", counted(nodes.len(), "server")),
            ", and needs one more for its primary",
        ),
    };
    if let Some(range) = &settings.ports {
        if range.len() < ports {
            let has = counted(range.len(), "port");
            report.failed("ports", &format!("{key} = \"{range}\" has {has}, and {size}{more}"));
        } else if let Some((taken, error)) = lacking(range, ports, route) {
            let taken = counted(taken, "port");
            let problem =
                format!("{key} = \"{range}\" has {taken} that cannot be used, and {size}{more}: {error}");
            report.failed("ports", &problem);
        }
    }
    if nodes.len() > settings.max_nodes {
        let max = settings.max_nodes;
        let key = settings.max_nodes_key();
        report.failed("nodes", &format!("{size}, and clients reach only {max} of them. Raise {key}"));
    }
}

/// Dials nodes as `run` would. `own`: holds their credentials.
pub(super) async fn dial(
    nodes: impl Iterator<Item = &Node>,
    route: &Route,
    tls: Option<&NodeTls>,
    own: &Upstream,
    report: &mut CheckReport,
) {
    let who = own.credentials().map(ToString::to_string).unwrap_or_default();
    for endpoint in nodes.filter_map(Node::endpoint) {
        let tls = tls.map(|tls| tls.of(&endpoint));
        let settings = upstream::Settings { endpoints: vec![endpoint], ..route.servers().clone() };
        let metrics = Arc::new(RouteMetrics::unrecorded());
        let upstream = Arc::new(own.another(&route.name, &settings, tls, &metrics, None));
        upstream.look().await;
        match upstream.connect().await {
            Ok(connection) => {
                dialled(connection, &who, settings.connect_timeout, report).await;
            }
            Err(error) => {
                for attempt in error.attempts {
                    report.failed(attempt.stage.label(), &attempt.to_string());
                }
            }
        }
    }
}

const A_SENTINEL: &str =
    "the server is a sentinel, which holds no data. Set topology = \"sentinel\" and sentinel.master_name";

/// Whether the server says that it is a sentinel. Source: `redis_mode` in [INFO](https://valkey.io/commands/info/).
async fn is_sentinel(connection: &mut Connection, deadline: Duration) -> bool {
    let info = timeout(deadline, upstream::ask(connection, &["INFO", "server"])).await;
    matches!(info, Ok(Ok(Answer::Text(info))) if info.contains("_mode:sentinel"))
}

/// The number of ports that cannot be used, and why, if too few are left. A pontoon that will be replaced may have ports.
fn lacking(range: &PortRange, needed: usize, route: &Route) -> Option<(usize, BindError)> {
    let addresses = node_addresses(&route.listener.listen);
    let (mut free, mut taken, mut error) = (0, 0, None);
    for port in range.iter() {
        let bound = addresses.iter().try_for_each(|ip| {
            Listener::could_bind(&ListenAddr::Tcp((*ip, port).into()), route.listener.handover)
        });
        match bound {
            Ok(()) | Err(BindError::InUse(_, Holder::Pontoon(_))) => free += 1,
            Err(problem) => {
                taken += 1;
                error.get_or_insert(problem);
            }
        }
        if free >= needed {
            return None;
        }
    }
    Some((taken, error?))
}

/// Formats the cluster's shape: `1 primary, 2 replicas`.
pub(super) fn shape(primaries: usize, replicas: usize) -> String {
    let primaries = if primaries == 1 { "1 primary".into() } else { format!("{primaries} primaries") };
    format!("{primaries}, {}", counted(replicas, "replica"))
}

/// Asks for the topology. The outer error means that the server did not answer, the inner one that its answer is unusable.
async fn ask(
    connection: &mut Connection,
    deadline: Duration,
) -> Result<Topology, Result<TopologyError, String>> {
    let host = connection.endpoint.host.clone();
    match timeout(deadline, upstream::topology(connection)).await {
        Ok(Ok(replies)) => Topology::parse(&replies.slots, &replies.nodes, &host).map_err(Ok),
        Ok(Err(cause)) => Err(Err(cause.to_string())),
        Err(_) => Err(Err(format!("no answer within {}", humantime::format_duration(deadline)))),
    }
}
