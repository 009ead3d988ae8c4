//! Opens a TCP connection to the first of an endpoint's addresses that answers ([RFC 8305](https://www.rfc-editor.org/rfc/rfc8305), "Happy
//! Eyeballs").

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

/// Time, in milliseconds, that an address has before the next one is tried beside it.
const ADDRESS_HEAD_START: Duration = Duration::from_millis(250);

/// A silent peer is probed after this time, so that idle connections survive firewalls on the way and dead ones are found.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);

/// A peer that has not acknowledged data for this long is taken for dead.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(30);

type TcpAttempt = Pin<Box<dyn Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send>>;

/// Connects to addresses in order, each with a head start over the next.
pub(crate) struct Race {
    waiting: VecDeque<SocketAddr>,
    running: FuturesUnordered<TcpAttempt>,
    next_start: Instant,
}

impl Race {
    /// Prepares a race over these addresses. Nothing is dialled yet.
    pub(crate) fn new(addresses: Vec<SocketAddr>) -> Self {
        Self { waiting: addresses.into(), running: FuturesUnordered::new(), next_start: Instant::now() }
    }

    /// Number of addresses whose result is still outstanding.
    pub(super) fn remaining(&self) -> u32 {
        (self.waiting.len() + self.running.len()) as u32
    }

    /// The next connection or failure; `None` when no address is left.
    pub(crate) async fn next(&mut self) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        loop {
            if (self.running.is_empty() || Instant::now() >= self.next_start)
                && let Some(address) = self.waiting.pop_front()
            {
                self.running.push(Box::pin(connect(address)));
                self.next_start = Instant::now() + ADDRESS_HEAD_START;
            }
            tokio::select! {
                finished = self.running.next() => return finished,
                () = sleep_until(self.next_start), if !self.waiting.is_empty() => {}
            }
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<(TcpStream, SocketAddr)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok((stream, address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn an_address_that_refuses_causes_no_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let (dead, alive) = (closed.local_addr().unwrap(), listener.local_addr().unwrap());
        drop(closed);
        let mut race = Race::new(vec![dead, alive]);
        assert!(race.next().await.unwrap().is_err());
        assert_eq!(race.next().await.unwrap().unwrap().1, alive);
        assert!(race.next().await.is_none());
    }
}
