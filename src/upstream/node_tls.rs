//! How the certificates of a cluster's nodes are verified.

use std::sync::Arc;

use super::settings::Settings;
use crate::endpoint::{Endpoint, Host};
use crate::tls::{self, Tls, TlsError};

/// The TLS configurations of a cluster. Cheap to clone.
#[derive(Clone)]
pub struct NodeTls {
    /// For endpoints, and for nodes that are announced by name.
    pub by_name: Arc<Tls>,
    /// For nodes that are announced by address: their certificates are verified for the endpoint's name, if it has one.
    pub by_address: Arc<Tls>,
}

impl NodeTls {
    /// Loads the files that `settings` name.
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

    /// What `settings` ask for; `None` if everything is in plaintext and nothing has to be verified.
    pub fn wanted(settings: &Settings) -> Result<Option<Self>, TlsError> {
        match settings.tls.mode {
            tls::TlsMode::Disabled => Ok(None),
            tls::TlsMode::Required | tls::TlsMode::Preferred => Self::load(settings).map(Some),
        }
    }

    /// The TLS configuration for a node, by how it is announced.
    pub fn of(&self, node: &Endpoint) -> &Arc<Tls> {
        match node.host {
            Host::Name(_) => &self.by_name,
            Host::Ip(_) => &self.by_address,
        }
    }

    /// All TLS configurations, so that the caller can reload them.
    pub fn all(&self) -> Vec<Arc<Tls>> {
        let mut all = vec![Arc::clone(&self.by_name)];
        if !Arc::ptr_eq(&self.by_name, &self.by_address) {
            all.push(Arc::clone(&self.by_address));
        }
        all
    }
}
