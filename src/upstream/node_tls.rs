//! How the nodes of a cluster are verified.

use std::sync::Arc;

use super::settings::Settings;
use crate::endpoint::{Endpoint, Host};
use crate::tls::{self, Tls, TlsError};

/// What certificates are verified by. Cheap to clone.
#[derive(Clone)]
pub struct NodeTls {
    /// Of endpoints, and of nodes that are announced by name.
    pub by_name: Arc<Tls>,
    /// Of nodes that are announced by address: their certificates are good for the endpoint's name, where that is one.
    pub by_address: Arc<Tls>,
}

impl NodeTls {
    /// Reads the files.
    pub fn load(settings: &Settings) -> Result<Self, TlsError> {
        let by_name = Arc::new(Tls::load(&settings.tls)?);
        let named = settings.endpoints.iter().find(|endpoint| matches!(endpoint.host, Host::Name(_)));
        let group = named.and_then(|endpoint| by_name.server_name(endpoint).ok());
        let by_address = match (&settings.tls.server_name, group) {
            (None, Some(name)) => {
                Arc::new(Tls::load(&tls::Settings { server_name: Some(name), ..settings.tls.clone() })?)
            }
            _ => Arc::clone(&by_name),
        };
        Ok(Self { by_name, by_address })
    }

    /// As `settings` have it; `None`: nothing is to be verified, for everything is in plaintext.
    pub fn wanted(settings: &Settings) -> Result<Option<Self>, TlsError> {
        match settings.tls.mode {
            tls::TlsMode::Disabled => Ok(None),
            tls::TlsMode::Required | tls::TlsMode::Preferred => Self::load(settings).map(Some),
        }
    }

    /// For a node that is announced so.
    pub fn of(&self, node: &Endpoint) -> &Arc<Tls> {
        match node.host {
            Host::Name(_) => &self.by_name,
            Host::Ip(_) => &self.by_address,
        }
    }

    /// All of them, to be looked after.
    pub fn all(&self) -> Vec<Arc<Tls>> {
        let mut all = vec![Arc::clone(&self.by_name)];
        if !Arc::ptr_eq(&self.by_name, &self.by_address) {
            all.push(Arc::clone(&self.by_address));
        }
        all
    }
}
