//! What requests are answered from.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::commands::Command;
use super::costly::Costly;
use super::history::History;
use super::inventory::Looking;
use super::readiness::Readiness;
use super::routes::Route;
use crate::clients::Inventory;
use crate::group::verdict;
use crate::metrics::PrometheusHandle;

/// What the admin server tells of. Cheap to clone.
#[derive(Clone)]
pub struct Shared {
    /// Whether clients are welcome.
    pub readiness: Arc<Readiness>,
    /// All metrics.
    pub metrics: PrometheusHandle,
    /// All sessions.
    pub inventory: Arc<Inventory>,
    /// What a reload may change.
    pub shown: Arc<ArcSwap<Shown>>,
    /// Where commands go.
    pub commands: mpsc::Sender<Command>,
}

/// What a reload may change.
#[derive(Default)]
pub struct Shown {
    /// All routes.
    pub routes: Vec<Route>,
    /// How long is long enough.
    pub verdict: verdict::Settings,
}

/// Where requests are answered.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) shared: Arc<Shared>,
    pub(super) looking: Looking,
    pub(super) costly: Costly,
    /// Apart from the others: whoever asks for those does not keep a scraper waiting.
    pub(super) scrapes: Costly,
    pub(super) history: Arc<History>,
}
