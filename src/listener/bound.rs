//! A bound socket, and how it accepts clients until it is closed.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::sleep;
use tracing::warn;

use super::admission::{Admission, Clients, stranger};
use super::inherited::Inherited;
use super::socket::{Acceptor, BACKLOG, BindError, ListeningSocket};
use crate::downstream::Accepted;
use crate::drain::Drain;
use crate::endpoint::ListenAddr;
use crate::metrics::RouteMetrics;

/// How long a listener that is handed over goes on accepting once clients are led to its successor, at least: who was
/// half way through TCP's handshake by then is still its own.
pub const HANDOVER: Duration = Duration::from_millis(200);

/// How often a Unix socket that waits for its predecessor to leave looks whether it was killed.
const SUCCEED: Duration = Duration::from_millis(250);

/// How long to wait for a descriptor to become free; clients wait in the kernel's queue.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// A bound socket. Dropping it stops listening and removes a Unix socket's file.
#[derive(Debug)]
pub struct Listener {
    socket: ListeningSocket,
    /// As configured.
    wanted: ListenAddr,
    /// With the port that the system chose.
    address: ListenAddr,
}

impl Listener {
    /// Binds `address` and listens.
    pub fn bind(address: &ListenAddr) -> Result<Self, BindError> {
        Self::open(address, false, &Inherited::default())
    }

    /// Listens on `address`: on the socket that was inherited, if one is bound to it; else on one of its own, which with
    /// `handover` it may share.
    pub fn open(address: &ListenAddr, handover: bool, inherited: &Inherited) -> Result<Self, BindError> {
        let (socket, bound) = match ListeningSocket::inherit(address, inherited) {
            Some(Ok(socket)) => (socket, address.clone()),
            Some(Err(source)) => return Err(BindError::Other { address: address.clone(), source }),
            None => ListeningSocket::bind(address, handover)?,
        };
        Ok(Self { socket, wanted: address.clone(), address: bound })
    }

    /// Whether `address` could be bound now. Nobody can connect meanwhile.
    pub fn could_bind(address: &ListenAddr) -> Result<(), BindError> {
        ListeningSocket::could_bind(address)
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

    /// For whom it is from now on, where it [is already](Self::is_at). Fails if its file's mode stays as it was; users and
    /// groups hold all the same.
    pub fn readdress(&mut self, wanted: &ListenAddr) -> io::Result<()> {
        let before = std::mem::replace(&mut self.wanted, wanted.clone());
        let (ListenAddr::Unix { mode: before, .. }, ListenAddr::Unix { path, mode, .. }) = (&before, wanted)
        else {
            return Ok(());
        };
        self.address = wanted.clone();
        // The file may be the service manager's, and not ours to change.
        if before == mode {
            return Ok(());
        }
        let file = self.socket.file().unwrap_or_else(|| path.clone());
        fs::set_permissions(file, Permissions::from_mode(*mode))
    }

    /// Accepts on the event loop of this thread, for whoever has rules of his own.
    pub fn accepting(self) -> io::Result<Accepting> {
        Ok(Accepting { socket: self.socket.listen()?, address: self.address })
    }

    /// Accepts clients and hands them on until draining starts; at the end of all, those who wait in the queue then, too: they
    /// would be reset.
    pub async fn run(
        self,
        route: &str,
        clients: &Clients,
        drain: &Drain,
        metrics: &RouteMetrics,
        mut hand_on: impl FnMut(Accepted, Admission),
    ) -> io::Result<()> {
        let Self { socket, address, .. } = self;
        let socket = socket.listen()?;
        let (leaving, draining) = (drain.leaving(), drain.started());
        tokio::pin!(leaving, draining);
        let mut is_leaving = false;
        let mut waits = socket.waits();
        let mut full_since = None;
        loop {
            // Clients that are queued have waited as long as those before them; one that comes later has not.
            let queued =
                full_since.filter(|_| !drain.is_draining()).and_then(|_| socket.accept().now_or_never());
            let accepted = if let Some(accepted) = queued {
                accepted
            } else {
                full_since = None;
                tokio::select! {
                    accepted = socket.accept() => accepted,
                    () = &mut leaving, if !is_leaving => {
                        is_leaving = true;
                        step_aside(&socket, &address, route);
                        continue;
                    }
                    () = sleep(SUCCEED), if waits.is_some() => {
                        if let Some(Err(error)) = waits.as_ref().map(|file| file.succeed())
                            && let Some(suppressed) = clients.throttle.allow("succeed")
                        {
                            warn!(
                                route,
                                %address,
                                suppressed,
                                "nobody can connect: whoever listened here is gone, and the socket's file cannot take its place: {error}"
                            );
                        }
                        waits = socket.waits();
                        continue;
                    }
                    () = &mut draining => break,
                }
            };
            let error = match accepted {
                Ok(client) => {
                    // It may be from before; or a successor that has just come has led it here, to the oldest.
                    if is_leaving {
                        step_aside(&socket, &address, route);
                    }
                    let admission = {
                        let admitting =
                            clients.admit(&client, &address, route, metrics, &mut full_since, drain);
                        tokio::pin!(admitting);
                        loop {
                            tokio::select! {
                                biased;
                                () = &mut leaving, if !is_leaving => {
                                    is_leaving = true;
                                    step_aside(&socket, &address, route);
                                }
                                admission = &mut admitting => break admission,
                            }
                        }
                    };
                    if let Some(admission) = admission {
                        hand_on(client, admission);
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
                    %address,
                    suppressed,
                    "accepting a client failed: {error}; clients wait. Raise the limit of open files (ulimit -n) \
                     or lower limits.max_clients"
                );
            }
            tokio::select! {
                () = sleep(EXHAUSTED) => {}
                () = &mut draining => break,
            }
        }
        // Else another task, or another process, may serve them: the socket may be another route's by now.
        if drain.is_all_draining() && !socket.is_inherited() {
            for _ in 0..BACKLOG {
                let Some(client) = socket.accept_now() else { break };
                let admission =
                    clients.admit(&client, &address, route, metrics, &mut full_since, drain).await;
                if let Some(admission) = admission {
                    hand_on(client, admission);
                }
            }
        }
        Ok(())
    }
}

fn step_aside(socket: &Acceptor, address: &ListenAddr, route: &str) {
    if let Err(error) = socket.step_aside() {
        warn!(
            route,
            %address,
            "clients cannot be led to a successor, and some may fail to connect: {error}"
        );
    }
}

/// A listener that only accepts.
pub struct Accepting {
    socket: Acceptor,
    address: ListenAddr,
}

impl Accepting {
    /// The next client; `None`: one that the socket is not for.
    pub async fn accept(&self) -> io::Result<Option<Accepted>> {
        let client = self.socket.accept().await?;
        Ok(stranger(&client, &self.address).is_none().then_some(client))
    }
}

/// The process or the machine has no descriptors or memory for another socket.
fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::super::admission::Terms;
    use super::super::descriptors::DescriptorBudget;
    use super::*;

    /// How many clients it hands on after `drain` has begun.
    async fn handed_on(listener: &Listener, drain: &Drain) -> usize {
        let terms = Terms { max_clients: 100, patience: Duration::ZERO };
        let (clients, metrics) =
            (Clients::new(terms, DescriptorBudget::default()), RouteMetrics::new("r", &[]));
        let mut count = 0;
        let listener = listener.try_clone().unwrap();
        listener.run("r", &clients, drain, &metrics, |_, _| count += 1).await.unwrap();
        count
    }

    #[tokio::test]
    async fn who_waits_at_the_end_is_served_and_at_a_change_is_the_next_ones() {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let ListenAddr::Tcp(address) = *listener.address() else { panic!("it is TCP") };
        let _waiting = [(); 30].map(|()| TcpStream::connect(address).unwrap());
        let whole = Drain::new();
        let changed = whole.part();
        changed.start();
        let mut before = handed_on(&listener, &changed).await;
        assert!(before < 30, "a task that is replaced does not look for more");
        let removed = whole.part();
        removed.start();
        before += handed_on(&listener, &removed.part()).await;
        assert!(before < 30, "nor one of a route that is removed: the socket may be another's");
        let last = whole.part();
        whole.start();
        assert_eq!(handed_on(&listener, &last).await, 30 - before);
    }

    #[tokio::test]
    async fn whom_a_socket_is_for_changes_even_where_its_mode_cannot() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let address =
            |options: &str| format!("unix:{}?{options}", path.display()).parse::<ListenAddr>().unwrap();
        let mut listener = Listener::bind(&address("mode=0666")).unwrap();
        fs::remove_file(&path).unwrap();
        listener.readdress(&address("mode=0666&uid=1")).unwrap();
        assert_eq!(listener.address(), &address("mode=0666&uid=1"));
        listener.readdress(&address("mode=0600&uid=2")).unwrap_err();
        assert_eq!(listener.address(), &address("mode=0600&uid=2"));
    }
}
