//! A network path with a delay: a TCP relay that forwards all bytes a fixed time after they came, in both directions.
//!
//!     rustc --edition 2024 -O tests/bench/delay.rs && ./delay MICROSECONDS LISTEN_PORT TARGET_PORT
//!
//! A thread for each direction reads. One thread writes for all: the delay is the same for all, so what was read first is due first. Only
//! bytes are delayed: a connection opens at once, although a real network takes a round trip for it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// What is in flight to a stream: the time when it is due, and the bytes, or none at the end of the direction.
struct Chunk {
    due: Instant,
    to: Arc<TcpStream>,
    bytes: Vec<u8>,
}

fn main() {
    let [delay, listen, target] =
        [1, 2, 3].map(|n| env::args().nth(n).expect("three arguments").parse::<u16>().expect("a number"));
    let delay = Duration::from_micros(delay.into());
    // Threads inherit it. By default, Linux adds up to 50 µs to each sleep.
    fs::write("/proc/self/timerslack_ns", "1").expect("Linux");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, listen)).expect("a free port");
    let (sender, receiver) = channel();
    thread::spawn(|| write(receiver));
    for near in listener.incoming().flatten() {
        let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { continue };
        let (near, far) = (Arc::new(near), Arc::new(far));
        for (from, to) in [(&near, &far), (&far, &near)] {
            let _ = from.set_nodelay(true);
            let (from, to, sender) = (Arc::clone(from), Arc::clone(to), sender.clone());
            thread::spawn(move || read(&from, &to, delay, &sender));
        }
    }
}

fn read(mut from: &TcpStream, to: &Arc<TcpStream>, delay: Duration, sender: &Sender<Chunk>) {
    let mut buffer = [0; 1 << 16];
    loop {
        let n = from.read(&mut buffer).unwrap_or(0);
        let chunk = Chunk { due: Instant::now() + delay, to: Arc::clone(to), bytes: buffer[..n].to_vec() };
        if sender.send(chunk).is_err() || n == 0 {
            return;
        }
    }
}

fn write(receiver: Receiver<Chunk>) {
    for Chunk { due, to, bytes } in receiver {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // A failed write means that the receiver has closed. The sender then reads the end from the other direction.
        let _ = if bytes.is_empty() { to.shutdown(Shutdown::Write) } else { (&*to).write_all(&bytes) };
    }
}
