//! Two processes on one TCP port, an old one and its successor, so that one can follow the other without a client noticing.
//!
//! Sockets with `SO_REUSEPORT` share a port, if one user owns them all; but each has a queue of its own, and what is in it
//! is reset when it closes. By itself Linux spreads clients over all of them. A program of one instruction
//! (`SO_ATTACH_REUSEPORT_CBPF`, [`socket(7)`]) tells it to lead all to one instead, by their age: to the oldest, so that a
//! successor has time to become ready; and, once the oldest leaves, to the one after it, so that the queue is empty when
//! it closes. Where there is none, Linux takes no notice, and the one that there is serves on.
//!
//! [`socket(7)`]: https://man7.org/linux/man-pages/man7/socket.7.html

use std::io;
use std::os::fd::AsFd;

use nix::libc::{BPF_K, BPF_RET, sock_filter, sock_fprog};
use nix::sys::socket::{setsockopt, sockopt};

/// Which of the sockets on a port, by their age; when the oldest closes, the youngest has its place.
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
        let why = format!("the kernel does not choose between two listeners, which handover needs: {error}");
        io::Error::new(io::Error::from(error).kind(), why)
    })
}
