//! Two processes on one TCP port, an old one and its successor, so that a restart loses no client.
//!
//! Sockets with `SO_REUSEPORT` share a port if one user owns them all. Each has its own queue, and closing a socket resets the clients in
//! its queue. By default Linux spreads clients over all sockets. A program of one instruction (`SO_ATTACH_REUSEPORT_CBPF`, [`socket(7)`])
//! selects one socket by age instead. It selects the oldest, so that a successor has time to become ready. Once the oldest leaves, it
//! selects the next one, so that the old queue is empty when it closes. If there is no second socket, Linux ignores the program, and the
//! only socket gets all clients.
//!
//! [`socket(7)`]: https://man7.org/linux/man-pages/man7/socket.7.html

use std::io;
use std::os::fd::AsFd;

use nix::libc::{BPF_K, BPF_RET, sock_filter, sock_fprog};
use nix::sys::socket::{setsockopt, sockopt};

/// Selects a socket on a port by age. When the oldest closes, the youngest takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lead {
    Oldest = 0,
    Successor = 1,
}

/// Leads all further clients of the port to one of its sockets.
pub(super) fn lead(socket: &impl AsFd, to: Lead) -> io::Result<()> {
    let mut answer = sock_filter { code: (BPF_RET | BPF_K) as u16, jt: 0, jf: 0, k: to as u32 };
    let program = sock_fprog { len: 1, filter: &raw mut answer };
    setsockopt(socket, sockopt::AttachReusePortCbpf, &program).map_err(|error| {
        let why = format!(
            "handover needs a kernel that can select one of two listeners (SO_ATTACH_REUSEPORT_CBPF): {error}"
        );
        io::Error::new(io::Error::from(error).kind(), why)
    })
}
