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
            let standalone = words.contains("cluster support disabled");
            let words = format!("unknown: the server said \"{words}\"");
            return if standalone {
                report.ok("topology", None, "standalone");
            } else {
                report.warn("topology", &words);
            };
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
    if let Some(range) = settings.ports.as_ref().filter(|range| range.len() < nodes.len()) {
        let (ports, nodes) = (range.len(), nodes.len());
        report.failed(
            "ports",
            &format!(
                "cluster.ports = \"{range}\" has {}, and the cluster has {}",
                counted(ports, "port"),
                counted(nodes, "node")
            ),
        );
    }
    if let Some(problem) = settings.ports.as_ref().and_then(|range| lacking(range, nodes.len(), route)) {
        report.failed("ports", &problem);
    }
    if nodes.len() > settings.max_nodes {
        let (max, nodes) = (settings.max_nodes, nodes.len());
        report.failed(
            "nodes",
            &format!(
                "the cluster has {nodes} nodes, and clients reach only {max} of them. Raise cluster.max_nodes"
            ),
        );
    }
    let who = own.credentials().map(ToString::to_string).unwrap_or_default();
    for node in nodes.into_iter().take(settings.max_nodes) {
        let Some(endpoint) = node.endpoint() else { continue };
        let tls = tls.map(|tls| tls.of(&endpoint));
        let settings = upstream::Settings { endpoints: vec![endpoint], ..route.upstream.clone() };
        let metrics = Arc::new(RouteMetrics::unrecorded());
        match Arc::new(own.another(&route.name, &settings, tls, &metrics)).connect().await {
            Ok(connection) => {
                dialled(connection, &who, deadline, report).await;
            }
            Err(error) => {
                for attempt in error.attempts {
                    report.failed(attempt.stage.label(), &attempt.to_string());
                }
            }
        }
    }
}

/// Why the nodes cannot all get a local port, because other programs have ports of the range. A pontoon that will be replaced may have them.
fn lacking(range: &PortRange, nodes: usize, route: &Route) -> Option<String> {
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
        if free >= nodes {
            return None;
        }
    }
    let error = error?;
    let (taken, nodes) = (counted(taken, "port"), counted(nodes, "node"));
    Some(format!(
        "cluster.ports = \"{range}\" has {taken} that cannot be used, and the cluster has {nodes}: {error}"
    ))
}

/// Formats the cluster's shape: `1 primary, 2 replicas`.
fn shape(primaries: usize, replicas: usize) -> String {
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
