//! A network path with a delay: bytes, FIN and RST arrive in the order in which they were sent, and later.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// The most chunks in flight in one direction. A receiver that stalls then stalls its sender.
const CHUNKS: usize = 64;

/// The most bytes in a chunk.
const CHUNK: usize = 16 * 1024;

/// A TCP forwarder with a delay. The end of a direction is forwarded as the sender made it: FIN as FIN, RST as RST.
pub struct Link {
    address: SocketAddr,
    /// Dropping it ends the thread.
    _running: oneshot::Sender<()>,
}

/// What is in flight.
enum Event {
    Bytes(Vec<u8>),
    Fin,
}

/// The sender of a direction has reset its connection.
struct Reset;

impl Link {
    /// A link to a server on this machine. Each direction takes half of `round_trip`.
    pub fn to(port: u16, round_trip: Duration) -> Self {
        Self::with(port, round_trip / 2, round_trip / 2)
    }

    /// A link with one delay to the server and one back.
    pub fn with(port: u16, there: Duration, back: Duration) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let (running, stopped) = oneshot::channel();
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, port, there, back) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, _running: running }
    }

    pub fn endpoint(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(listener: TcpListener, port: u16, there: Duration, back: Duration) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        connections.spawn(async move {
            match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                Ok(far) => carry(near, far, there, back).await,
                Err(_) => reset(near),
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(mut near: TcpStream, mut far: TcpStream, there: Duration, back: Duration) {
    for stream in [&near, &far] {
        stream.set_nodelay(true).unwrap();
    }
    let (near_reset, far_reset) = {
        let (near_reads, near_writes) = near.split();
        let (far_reads, far_writes) = far.split();
        let (there_in, there_out) = mpsc::channel(CHUNKS);
        let (back_in, back_out) = mpsc::channel(CHUNKS);
        // What is due at the same time as a reset was sent before it.
        tokio::select! {
            biased;
            ((), ()) = async { tokio::join!(write(far_writes, there_out), write(near_writes, back_out)) } => {
                (false, false)
            }
            Reset = read(&near_reads, &there_in, there) => (true, false),
            Reset = read(&far_reads, &back_in, back) => (false, true),
        }
    };
    if near_reset {
        reset(far);
    } else if far_reset {
        reset(near);
    }
}

/// Receives what the sender sends. Returns once the other side has to learn of a reset.
async fn read(from: &ReadHalf<'_>, to: &mpsc::Sender<(Instant, Event)>, delay: Duration) -> Reset {
    let take = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            let permit = to.reserve().await.expect("the receiver lives as long");
            from.readable().await.expect("the runtime lives as long");
            match from.try_read(&mut buffer) {
                Ok(0) => {
                    permit.send((Instant::now() + delay, Event::Fin));
                    break;
                }
                Ok(n) => permit.send((Instant::now() + delay, Event::Bytes(buffer[..n].to_vec()))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        std::future::pending::<()>().await;
    };
    // A reset also comes after a FIN, and while nothing is read. What was sent before it is received first.
    let broken = async {
        let _ = from.ready(Interest::ERROR).await;
        sleep(delay).await;
    };
    tokio::select! {
        biased;
        () = take => {}
        () = broken => {}
    }
    Reset
}

/// Delivers each event when it is due, until the direction ends.
async fn write(mut to: WriteHalf<'_>, mut events: mpsc::Receiver<(Instant, Event)>) {
    while let Some((due, event)) = events.recv().await {
        sleep_until(due).await;
        let delivered = match event {
            Event::Bytes(bytes) => to.write_all(&bytes).await,
            Event::Fin => {
                let _ = to.shutdown().await;
                return;
            }
        };
        if delivered.is_err() {
            // The receiver has reset its connection; the other direction forwards that.
            std::future::pending::<()>().await;
        }
    }
}

/// Closes a connection by RST.
fn reset(stream: TcpStream) {
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}
