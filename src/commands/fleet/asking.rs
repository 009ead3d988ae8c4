//! Asks one bridge for its routes and clients. Limits the time and the size of the answer.

use std::time::Duration;

use serde::Deserialize;

use crate::admin::RouteReport;
use crate::admin::client::fetch_within;
use crate::clients::ClientRecord;
use crate::commands::reachable::reachable;
use crate::endpoint::ListenAddr;

/// Maximum size of one answer in bytes. A route to a cluster of 500 nodes takes some 200 KiB.
const MAX_BRIDGE_ANSWER: usize = 1024 * 1024;

/// Maximum number of routes of a bridge. No configuration comes close to it.
const MAX_BRIDGE_ROUTES: usize = 100;

/// The answer of a bridge.
#[derive(Debug)]
pub(super) struct BridgeAnswer {
    pub(super) routes: Vec<RouteReport>,
    pub(super) inventory: BridgeClients,
}

/// The fields of `/clients` that the fleet's report needs.
#[derive(Debug, Default, Deserialize)]
pub(super) struct BridgeClients {
    pub(super) clients: Vec<ClientRecord>,
    pub(super) clients_total: usize,
}

/// Asks the bridge at `address`. The error says why there is no usable answer.
pub(super) async fn ask(address: &ListenAddr, time: Duration) -> Result<BridgeAnswer, String> {
    let address = reachable(address.clone());
    let (routes, clients) = tokio::try_join!(
        fetch_within(time, MAX_BRIDGE_ANSWER, &address, "/routes"),
        fetch_within(time, MAX_BRIDGE_ANSWER, &address, "/clients?limit=100"),
    )
    .map_err(|error| error.problem)?;
    let foreign =
        |error: serde_json::Error| format!("the answer is not one of this pontoon version: {error}");
    let routes: Vec<RouteReport> = serde_json::from_str(&routes).map_err(foreign)?;
    let inventory = serde_json::from_str(&clients).map_err(foreign)?;
    match routes.len() {
        0 => Err("the answer has no routes".into()),
        1..=MAX_BRIDGE_ROUTES => Ok(BridgeAnswer { routes, inventory }),
        count => Err(format!("the answer has {count} routes, more than {MAX_BRIDGE_ROUTES}")),
    }
}
