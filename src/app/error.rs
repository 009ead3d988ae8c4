//! Why pontoon did not start.

use std::io;
use std::path::PathBuf;

use crate::endpoint::ListenAddr;
use crate::listener::{BindError, InheritError};
use crate::tls::TlsError;

/// Why pontoon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("route \"{route}\": {source}")]
    Bind {
        /// The route.
        route: String,
        /// The cause.
        source: BindError,
    },
    /// An address overlaps one that this process listens on already.
    #[error(
        "route \"{route}\": cannot listen on {address} while this process itself listens on {own}: restart pontoon to change \
         the address"
    )]
    OwnAddress {
        /// The route.
        route: String,
        /// The configured address.
        address: ListenAddr,
        /// The address that this process listens on.
        own: ListenAddr,
    },
    /// A socket that systemd passed on cannot be used.
    #[error(transparent)]
    Inherited(#[from] InheritError),
    /// A route's TLS files could not be used.
    #[error("route \"{route}\": {source}")]
    Tls {
        /// The route.
        route: String,
        /// The cause.
        source: TlsError,
    },
    /// The admin server's address could not be bound.
    #[error("admin server: {0}; or set another address with --admin, or --admin off")]
    Admin(BindError),
    /// The address for metrics could not be bound.
    #[error("metrics: {0}; or set another address with --admin-metrics-listen")]
    Metrics(BindError),
    /// The state file cannot be written.
    #[error(
        "state file {} cannot be written: {source}: create its directory, writable for this user. Without the file, tls.mode \
         \"preferred\" accepts plaintext again after a restart",
        .path.display()
    )]
    StateFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The system did not start the threads.
    #[error("cannot start the event-loop threads: {0}")]
    Workers(#[from] io::Error),
}

impl StartError {
    /// Whether the problem is one of the machine that may end by itself. Otherwise the configuration must change.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Bind { source, .. } | Self::Admin(source) | Self::Metrics(source) => source.may_pass(),
            Self::Workers(_) | Self::StateFile { .. } => true,
            Self::Inherited(_) | Self::OwnAddress { .. } | Self::Tls { .. } => false,
        }
    }
}
