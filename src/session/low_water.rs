//! How much must be there before the kernel wakes us (`SO_RCVLOWAT`).
//!
//! A large value arrives piece by piece, and each piece would wake the session, be decrypted and be sent on by itself.
//! While the scanners know that more of it must come, one wake-up serves for many pieces.

use std::os::fd::AsFd;

use nix::sys::socket::setsockopt;
// The macro is made of these.
use nix::{libc, setsockopt_impl, sockopt_impl};

sockopt_impl!(
    /// Bytes to wait for.
    ReceiveLowWater,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_RCVLOWAT,
    usize
);

/// Below, setting it costs more than it saves.
const WORTHWHILE: u64 = 16 * 1024;

/// A socket's mark.
#[derive(Debug)]
pub(super) struct LowWater(usize);

impl Default for LowWater {
    fn default() -> Self {
        Self(1)
    }
}

impl LowWater {
    /// At least `certain` bytes will still come through `socket`: has the kernel wait for them, or for `most`. An end of
    /// the stream, or a full receive buffer, wakes us all the same (`tcp_data_ready` in Linux).
    pub(super) fn expect(&mut self, socket: &impl AsFd, certain: u64, most: usize) {
        let mark = if certain < WORTHWHILE { 1 } else { usize::try_from(certain).unwrap_or(most).min(most) };
        // Where it cannot be raised it stays at 1; what could be raised can be lowered.
        if mark != self.0 && setsockopt(socket, ReceiveLowWater, &mark).is_ok() {
            self.0 = mark;
        }
    }
}
