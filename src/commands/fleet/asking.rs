//! Asks one bridge for its routes and clients: within a time, and with a bound on what it may answer.

use std::time::Duration;

use serde::Deserialize;

use crate::admin::RouteReport;
use crate::admin::client::fetch_within;
use crate::clients::ClientRecord;
use crate::commands::reachable::reachable;
use crate::endpoint::ListenAddr;

/// Bytes of one answer of a bridge. A route to a cluster of 500 nodes has some 200 KiB.
const MAX_BRIDGE_ANSWER: usize = 1024 * 1024;

/// Routes of a bridge: more than anybody configures.
const MAX_BRIDGE_ROUTES: usize = 100;

/// What a bridge tells.
#[derive(Debug)]
pub(super) struct BridgeAnswer {
    pub(super) routes: Vec<RouteReport>,
    pub(super) inventory: BridgeClients,
}

/// Of `/clients`, what a fleet is asked for.
#[derive(Debug, Default, Deserialize)]
pub(super) struct BridgeClients {
    pub(super) clients: Vec<ClientRecord>,
    pub(super) clients_total: usize,
}

/// Asks the bridge at `address`. An error says why there is no answer that counts.
pub(super) async fn ask(address: &ListenAddr, time: Duration) -> Result<BridgeAnswer, String> {
    let address = reachable(address.clone());
    let (routes, clients) = tokio::try_join!(
        fetch_within(time, MAX_BRIDGE_ANSWER, &address, "/routes"),
        fetch_within(time, MAX_BRIDGE_ANSWER, &address, "/clients?limit=100"),
    )
    .map_err(|error| error.problem)?;
    let foreign =
        |error: serde_json::Error| format!("does not answer as this version of pontoon does: {error}");
    let routes: Vec<RouteReport> = serde_json::from_str(&routes).map_err(foreign)?;
    let inventory = serde_json::from_str(&clients).map_err(foreign)?;
    match routes.len() {
        0 => Err("tells of no route".into()),
        1..=MAX_BRIDGE_ROUTES => Ok(BridgeAnswer { routes, inventory }),
        count => Err(format!("tells of {count} routes, which no bridge has")),
    }
}
