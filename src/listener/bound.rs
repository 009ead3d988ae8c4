//! A bound socket, and its accept loop.

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

/// Time, at least, that a listener goes on accepting after clients were led to its successor. A client whose TCP handshake had begun by
/// then still belongs to the old listener.
pub const HANDOVER: Duration = Duration::from_millis(200);

/// How often a Unix socket that waits to succeed another checks whether the other still listens.
const SUCCEED: Duration = Duration::from_millis(250);

/// Pause after a failed accept. Clients wait in the kernel's queue meanwhile.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// A bound socket. Dropping it stops listening and removes a Unix socket's file.
#[derive(Debug)]
pub struct Listener {
    socket: ListeningSocket,
    /// As configured.
    wanted: ListenAddr,
    /// The address with the port that the system chose.
    address: ListenAddr,
}

impl Listener {
    /// Binds `address` and listens.
    pub fn bind(address: &ListenAddr) -> Result<Self, BindError> {
        Self::open(address, false, &Inherited::default())
    }

    /// Listens on `address`: on the inherited socket that is bound to it, if there is one, otherwise on a new socket. With `handover`,
    /// another process may share the address.
    pub fn open(address: &ListenAddr, handover: bool, inherited: &Inherited) -> Result<Self, BindError> {
        let (socket, bound) = match ListeningSocket::inherit(address, inherited) {
            Some(Ok(socket)) => (socket, address.clone()),
            Some(Err(source)) => return Err(BindError::Other { address: address.clone(), source }),
            None => ListeningSocket::bind(address, handover)?,
        };
        Ok(Self { socket, wanted: address.clone(), address: bound })
    }

    /// Whether `address` could be bound now. Clients cannot connect meanwhile.
    pub fn could_bind(address: &ListenAddr, handover: bool) -> Result<(), BindError> {
        ListeningSocket::could_bind(address, handover)
    }

    /// The address, with the port that the system chose.
    pub fn address(&self) -> &ListenAddr {
        &self.address
    }

    /// Duplicates the listener for another thread.
    pub fn try_clone(&self) -> io::Result<Self> {
        let (wanted, address) = (self.wanted.clone(), self.address.clone());
        Ok(Self { socket: self.socket.try_clone()?, wanted, address })
    }

    /// Whether `wanted` names the address of this listener, regardless of file mode, users and groups.
    pub fn is_at(&self, wanted: &ListenAddr) -> bool {
        self.wanted.is_at(wanted)
    }

    /// Changes the users, groups and file mode of a socket that [is at](Self::is_at) the same address. Fails if the mode of the file cannot
    /// be changed; the users and groups are changed nevertheless.
    pub fn readdress(&mut self, wanted: &ListenAddr) -> io::Result<()> {
        let before = std::mem::replace(&mut self.wanted, wanted.clone());
        let (ListenAddr::Unix { mode: before, .. }, ListenAddr::Unix { path, mode, .. }) = (&before, wanted)
        else {
            return Ok(());
        };
        self.address = wanted.clone();
        // An inherited file belongs to the service manager, so an unchanged mode is left alone.
        if before == mode {
            return Ok(());
        }
        let file = self.socket.file().unwrap_or_else(|| path.clone());
        fs::set_permissions(file, Permissions::from_mode(*mode))
    }

    /// Accepts on the event loop of this thread, without the limits of a route.
    pub fn accepting(self) -> io::Result<Accepting> {
        Ok(Accepting { socket: self.socket.listen()?, address: self.address })
    }

    /// Accepts clients and passes each to `hand_on` until draining starts. If the whole process drains, the clients in the queue are
    /// accepted, too, because they would be reset.
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
            // Clients that are queued have waited as long as those before them; a later client has not.
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
                                %error,
                                "Unix socket cannot replace its predecessor's, clients cannot connect"
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
                    // This client may have come before leaving began. Or a new successor led it here, to the oldest socket.
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
            // A client that left while it was queued needs no log record.
            if error.kind() == io::ErrorKind::ConnectionAborted {
                continue;
            }
            if let Some(suppressed) = clients.throttle.allow(reason) {
                warn!(
                    route,
                    %address,
                    suppressed,
                    %error,
                    "accept failed, clients wait (raise LimitNOFILE= or ulimit -n, or lower limits.max_clients)"
                );
            }
            tokio::select! {
                () = sleep(EXHAUSTED) => {}
                () = &mut draining => break,
            }
        }
        // When only a part drains, another task or process may serve the queue: the socket may belong to another route by now.
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
            %error,
            "handover to the successor failed, some clients may fail to connect"
        );
    }
}

/// A listener that accepts and applies no limits.
pub struct Accepting {
    socket: Acceptor,
    address: ListenAddr,
}

impl Accepting {
    /// The next client; `None` for one that the socket does not admit.
    pub async fn accept(&self) -> io::Result<Option<Accepted>> {
        let client = self.socket.accept().await?;
        Ok(stranger(&client, &self.address).is_none().then_some(client))
    }
}

/// Whether the process or the machine has no descriptors or memory for another socket.
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

    /// The number of clients that the listener passes on once `drain` has begun.
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
    async fn queued_clients_are_accepted_at_the_end_and_left_alone_at_a_reload() {
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
        assert!(before < 30, "neither does one of a removed route: the socket may belong to another");
        let last = whole.part();
        whole.start();
        assert_eq!(handed_on(&listener, &last).await, 30 - before);
    }

    #[tokio::test]
    async fn users_of_a_socket_change_even_if_its_mode_cannot() {
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
