//! Checks that sentinels know the group, and that its servers can be reached.

use std::sync::Arc;

use tokio::time::timeout;

use super::report::CheckReport;
use super::topology::{dial, has_room, shape};
use crate::cluster::{Election, Node, SentinelView};
use crate::config::Route;
use crate::metrics::RouteMetrics;
use crate::upstream::{Connection, NodeTls, Upstream};

/// Asks a sentinel for the group. `None`: it knows none, which was reported.
pub(super) async fn ask(
    connection: &mut Connection,
    master_name: &str,
    route: &Route,
    report: &mut CheckReport,
) -> Option<SentinelView> {
    let endpoint = connection.endpoint.to_string();
    let deadline = route.upstream.connect_timeout;
    let problem = match timeout(deadline, SentinelView::ask(connection, master_name)).await {
        Ok(Ok(view)) => {
            report.ok("sentinel", None, &format!("{endpoint}: {}", view.describe()));
            return Some(view);
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {}", humantime::format_duration(deadline)),
    };
    report.failed("sentinel", &format!("{endpoint}: {problem}"));
    None
}

/// Checks that the sentinels agree, and dials every server.
pub(super) async fn servers(
    election: Election,
    route: &Route,
    tls: Option<&NodeTls>,
    report: &mut CheckReport,
) {
    let claims = election.claims();
    let Some(first) = claims.first() else {
        return report
            .failed("topology", "the sentinels name different primaries, and none is known to the others");
    };
    let topology = election.topology(&first.primary);
    let nodes: Vec<&Node> = topology.nodes.iter().collect();
    let replicas = nodes.len() - 1;
    let shape = format!("{}, primary {}", shape(1, replicas), first.primary);
    match &claims[1..] {
        [] => report.ok("topology", None, &shape),
        others => {
            let others: Vec<_> = others.iter().map(|claim| claim.primary.to_string()).collect();
            report.warn("topology", &format!("{shape}; other sentinels name {}", others.join(", ")));
        }
    }
    has_room(&nodes, nodes.len() + 1, route, report);
    let metrics = Arc::new(RouteMetrics::unrecorded());
    let template = Upstream::new(&route.name, route.servers(), None, &metrics);
    dial(nodes.into_iter().filter(|node| !node.flags.has_failed()), route, tls, &template, report).await;
}
