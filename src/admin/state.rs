//! The data from which requests are answered.

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

/// What the admin server reports on. Cheap to clone.
#[derive(Clone)]
pub struct AdminContext {
    /// Whether clients are served.
    pub serving: Arc<Serving>,
    /// All metrics.
    pub metrics: PrometheusHandle,
    /// All sessions.
    pub inventory: Arc<Inventory>,
    /// The part that a reload may change.
    pub shown: Arc<ArcSwap<AdminView>>,
    /// The channel for commands.
    pub commands: mpsc::Sender<AdminCommand>,
}

impl AdminContext {
    /// Reports whether clients are served, and current problems.
    pub fn serving_report(&self) -> ServingReport {
        routes::serving(self)
    }

    /// Each route with a certificate that must be renewed, and what is wrong with it.
    pub fn expiring_certificates(&self) -> Vec<(Arc<str>, String)> {
        routes::expiring_certificates(self)
    }
}

/// The part that a reload may change.
#[derive(Default)]
pub struct AdminView {
    /// All routes.
    pub routes: Vec<AdminRoute>,
    /// Limits of the verdicts.
    pub verdict: verdict::Settings,
}

/// Shared by all request handlers.
#[derive(Clone)]
pub(super) struct AdminState {
    pub(super) shared: Arc<AdminContext>,
    pub(super) looking: SingleLookup,
    pub(super) costly: Costly,
    /// Separate from other responses, so that these do not delay a scraper.
    pub(super) scrapes: Costly,
    pub(super) history: Arc<RouteHistories>,
    /// The address that serves the metrics instead of this one.
    pub(super) metrics_at: Option<Arc<str>>,
}
