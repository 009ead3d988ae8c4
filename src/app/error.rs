//! Why pontoon did not start.

use std::io;

use crate::endpoint::ListenAddr;
use crate::listener::{BindError, InheritError};
use crate::tls::TlsError;

/// Why pontoon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("route \"{route}\": {source}")]
    Bind {
        /// Whose listener.
        route: String,
        /// Why.
        source: BindError,
    },
    /// An address cannot be had beside one that this process listens on.
    #[error(
        "route \"{route}\": cannot listen on {address} while this process itself listens on {own}: restart it to change from \
         one to the other"
    )]
    OwnAddress {
        /// Whose listener.
        route: String,
        /// What is wanted.
        address: ListenAddr,
        /// What there is.
        own: ListenAddr,
    },
    /// What systemd passed on is no use.
    #[error(transparent)]
    Inherited(#[from] InheritError),
    /// A route's TLS files could not be used.
    #[error("route \"{route}\": {source}")]
    Tls {
        /// Whose.
        route: String,
        /// Why.
        source: TlsError,
    },
    /// The admin server's address could not be bound.
    #[error("admin server: {0}; or choose another with --admin, or \"off\"")]
    Admin(BindError),
    /// The address for metrics could not be bound.
    #[error("metrics: {0}; or choose another address with --admin-metrics-listen")]
    Metrics(BindError),
    /// The system gave no threads.
    #[error("cannot start the event-loop threads: {0}")]
    Workers(#[from] io::Error),
}

impl StartError {
    /// Whether it is the machine's, and may pass by itself; else something must be configured otherwise.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Bind { source, .. } | Self::Admin(source) | Self::Metrics(source) => source.may_pass(),
            Self::Workers(_) => true,
            Self::Inherited(_) | Self::OwnAddress { .. } | Self::Tls { .. } => false,
        }
    }
}
