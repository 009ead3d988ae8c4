//! The network between pontoon and a server. It can be made to drop connections silently.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

pub struct Forwarder {
    address: SocketAddr,
    network: Arc<Network>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Network {
    /// The server's port.
    port: AtomicU16,
    /// Incremented to silence every connection that began before.
    era: AtomicU64,
    stopped: AtomicBool,
    held: Mutex<bool>,
    released: Condvar,
    streams: Mutex<Vec<TcpStream>>,
}

impl Forwarder {
    /// A forwarder to a server on this machine.
    pub fn to(port: u16) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), port)
    }

    /// As [`to`](Self::to), at this address.
    pub fn at(address: SocketAddr, port: u16) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let network = Arc::new(Network { port: port.into(), ..Network::default() });
        let thread = {
            let network = Arc::clone(&network);
            thread::spawn(move || {
                while let Ok((near, _)) = listener.accept() {
                    if network.stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    let network = Arc::clone(&network);
                    thread::spawn(move || network.carry(&near));
                }
            })
        };
        Self { address, network, thread: Some(thread) }
    }

    pub fn endpoint(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads new connections to another server.
    pub fn lead_to(&self, port: u16) {
        self.network.port.store(port, Ordering::SeqCst);
    }

    /// Silently stops forwarding on all current connections.
    pub fn forget(&self) {
        self.network.era.fetch_add(1, Ordering::SeqCst);
    }

    /// Forwards nothing over new connections until [`release`](Self::release).
    pub fn hold_new(&self) {
        *self.network.held.lock().unwrap() = true;
    }

    pub fn release(&self) {
        *self.network.held.lock().unwrap() = false;
        self.network.released.notify_all();
    }
}

impl Network {
    fn carry(&self, near: &TcpStream) {
        let era = self.era.load(Ordering::SeqCst);
        let held = self.held.lock().unwrap();
        drop(self.released.wait_while(held, |held| *held).unwrap());
        let Ok(far) = TcpStream::connect(("127.0.0.1", self.port.load(Ordering::SeqCst))) else { return };
        for stream in [near, &far] {
            stream.set_nodelay(true).unwrap();
            self.streams.lock().unwrap().push(stream.try_clone().unwrap());
        }
        thread::scope(|scope| {
            scope.spawn(|| self.pump(near, &far, era));
            self.pump(&far, near, era);
        });
    }

    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream, era: u64) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            if self.era.load(Ordering::SeqCst) == era && to.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        if self.era.load(Ordering::SeqCst) == era {
            let _ = to.shutdown(Shutdown::Write);
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.network.stopped.store(true, Ordering::SeqCst);
        self.release();
        for stream in self.network.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
