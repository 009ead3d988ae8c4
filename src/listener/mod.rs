//! Listeners: bind TCP and Unix sockets, accept clients within their limit, survive a lack of descriptors.
//!
//! What happens to an accepted client is its caller's business.

mod socket;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tracing::warn;

pub use self::socket::BindError;
use self::socket::Socket;
use crate::drain::Drain;
use crate::endpoint::ListenAddr;
use crate::metrics::RouteMetrics;
use crate::session::Accepted;
use crate::telemetry::Throttle;

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

/// Refused clients that are being told so, at most; beyond, they are closed without a word.
const REFUSALS: usize = 64;

/// A bound socket. Dropping it stops listening and removes a Unix socket's file.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: ListenAddr,
}

/// The clients of a route, over all of its listeners.
#[derive(Debug, Clone)]
pub struct Clients {
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    throttle: Arc<Throttle>,
}

impl Clients {
    /// Room for so many.
    pub fn new(max_clients: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(max_clients.min(Semaphore::MAX_PERMITS))),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            throttle: Arc::default(),
        }
    }
}

/// Whether there is room for a client. Its place is free again when the permit is dropped.
pub enum Admission {
    /// There is.
    Welcome(OwnedSemaphorePermit),
    /// There is not; tell the client so.
    Refused(OwnedSemaphorePermit),
}

impl Listener {
    /// Binds `address` and listens.
    pub fn bind(address: &ListenAddr) -> Result<Self, BindError> {
        let (socket, address) = Socket::bind(address)?;
        Ok(Self { socket, address })
    }

    /// The address, with the port that the system chose.
    pub fn address(&self) -> &ListenAddr {
        &self.address
    }

    /// The same listener once more, for another thread.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, address: self.address.clone() })
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
                    if let Ok(place) = Arc::clone(&clients.places).try_acquire_owned() {
                        hand_on(client, Admission::Welcome(place));
                    } else {
                        metrics.refused("max_clients");
                        if let Some(suppressed) = clients.throttle.allow("max_clients") {
                            warn!(route, suppressed, "client refused: limits.max_clients is reached");
                        }
                        if let Ok(refusal) = Arc::clone(&clients.refusals).try_acquire_owned() {
                            hand_on(client, Admission::Refused(refusal));
                        }
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
