//! What requests are answered from.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::commands::AdminCommand;
use super::costly::Costly;
use super::history::RouteHistories;
use super::inventory::SingleLookup;
use super::routes::{self, AdminRoute};
use super::serving::{Serving, ServingReport};
use crate::clients::Inventory;
use crate::group::verdict;
use crate::metrics::PrometheusHandle;

/// What the admin server tells of. Cheap to clone.
#[derive(Clone)]
pub struct AdminContext {
    /// Whether clients are welcome.
    pub serving: Arc<Serving>,
    /// All metrics.
    pub metrics: PrometheusHandle,
    /// All sessions.
    pub inventory: Arc<Inventory>,
    /// What a reload may change.
    pub shown: Arc<ArcSwap<AdminView>>,
    /// Where commands go.
    pub commands: mpsc::Sender<AdminCommand>,
}

impl AdminContext {
    /// Whether clients are served, and what is wrong.
    pub fn serving_report(&self) -> ServingReport {
        routes::serving(self)
    }
}

/// What a reload may change.
#[derive(Default)]
pub struct AdminView {
    /// All routes.
    pub routes: Vec<AdminRoute>,
    /// How long is long enough.
    pub verdict: verdict::Settings,
}

/// What the handlers of requests share.
#[derive(Clone)]
pub(super) struct AdminState {
    pub(super) shared: Arc<AdminContext>,
    pub(super) looking: SingleLookup,
    pub(super) costly: Costly,
    /// Apart from the others: whoever asks for those does not keep a scraper waiting.
    pub(super) scrapes: Costly,
    pub(super) history: Arc<RouteHistories>,
    /// The address that shows the metrics instead of this one.
    pub(super) metrics_at: Option<Arc<str>>,
}
