//! Listeners: bind TCP and Unix sockets, accept those clients that may come and of them as many as may, survive a lack
//! of descriptors.
//!
//! What happens to an accepted client is its caller's business.

mod admission;
mod inherited;
mod socket;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tokio::time::sleep;
use tracing::warn;

pub use self::admission::{Admission, Clients, Place};
pub use self::inherited::{InheritError, Inherited};
pub use self::socket::BindError;
use self::socket::Socket;
use crate::drain::Drain;
use crate::endpoint::ListenAddr;
use crate::metrics::RouteMetrics;
use crate::session::Accepted;

/// Where and for how many clients a route listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Addresses; never empty.
    pub listen: Vec<ListenAddr>,
    /// Clients at once over all of the route's listeners.
    pub max_clients: usize,
}

impl Settings {
    /// `limits.max_clients` where it is not configured.
    pub const MAX_CLIENTS: usize = 10_000;
}

/// How long to wait for a descriptor to become free; clients wait in the kernel's queue.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// A bound socket. Dropping it stops listening and removes a Unix socket's file.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    /// As configured.
    wanted: ListenAddr,
    /// With the port that the system chose.
    address: ListenAddr,
}

impl Listener {
    /// Binds `address` and listens.
    pub fn bind(address: &ListenAddr) -> Result<Self, BindError> {
        let (socket, bound) = Socket::bind(address)?;
        Ok(Self { socket, wanted: address.clone(), address: bound })
    }

    /// Listens on `address`: on the socket that was inherited, if one is bound to it; else on one of its own.
    pub fn open(address: &ListenAddr, inherited: &Inherited) -> Result<Self, BindError> {
        match Socket::inherit(address, inherited) {
            Some(Ok(socket)) => Ok(Self { socket, wanted: address.clone(), address: address.clone() }),
            Some(Err(source)) => Err(BindError::Other { address: address.clone(), source }),
            None => Self::bind(address),
        }
    }

    /// Whether `address` could be bound now. Nobody can connect meanwhile.
    pub fn could_bind(address: &ListenAddr) -> Result<(), BindError> {
        Socket::could_bind(address)
    }

    /// The address, with the port that the system chose.
    pub fn address(&self) -> &ListenAddr {
        &self.address
    }

    /// The same listener once more, for another thread.
    pub fn try_clone(&self) -> io::Result<Self> {
        let (wanted, address) = (self.wanted.clone(), self.address.clone());
        Ok(Self { socket: self.socket.try_clone()?, wanted, address })
    }

    /// Whether it is at the place that `wanted` names, were its file's mode and whom it is for to change.
    pub fn is_at(&self, wanted: &ListenAddr) -> bool {
        self.wanted.is_at(wanted)
    }

    /// For whom it is from now on, where it [is already](Self::is_at).
    pub fn readdress(&mut self, wanted: &ListenAddr) -> io::Result<()> {
        if self.wanted == *wanted {
            return Ok(());
        }
        if let ListenAddr::Unix { path, mode, .. } = wanted {
            fs::set_permissions(path, Permissions::from_mode(*mode))?;
            self.address = wanted.clone();
        }
        self.wanted = wanted.clone();
        Ok(())
    }

    /// Accepts clients and hands them on until draining starts.
    pub async fn run(
        self,
        route: &str,
        clients: &Clients,
        drain: &Drain,
        metrics: &RouteMetrics,
        mut hand_on: impl FnMut(Accepted, Admission),
    ) -> io::Result<()> {
        let socket = self.socket.listen()?;
        let draining = drain.started();
        tokio::pin!(draining);
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = &mut draining => return Ok(()),
            };
            let error = match accepted {
                Ok(client) => {
                    match clients.admit(&client, &self.address, route, metrics) {
                        Some(admission) => hand_on(client, admission),
                        None => drop(client),
                    }
                    continue;
                }
                Err(error) => error,
            };
            let reason = if is_exhaustion(&error) { "exhausted" } else { "other" };
            metrics.accept_error(reason);
            // A client that left while it waited to be accepted is nobody's problem.
            if error.kind() == io::ErrorKind::ConnectionAborted {
                continue;
            }
            if let Some(suppressed) = clients.throttle.allow(reason) {
                warn!(
                    route,
                    address = %self.address,
                    suppressed,
                    "accepting a client failed: {error}; clients wait. Raise the limit of open files (ulimit -n) \
                     or lower limits.max_clients"
                );
            }
            tokio::select! {
                () = sleep(EXHAUSTED) => {}
                () = &mut draining => return Ok(()),
            }
        }
    }
}

/// The process or the machine has no descriptors or memory for another socket.
fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}
