//! How much must be there before the kernel wakes us (`SO_RCVLOWAT`).
//!
//! A large value arrives piece by piece, and each piece would wake the session, be decrypted and be sent on by itself.
//! While the scanners know that more of it must come, one wake-up serves for many pieces.

use std::os::fd::AsFd;
use std::sync::LazyLock;

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
const MIN_LOW_WATER: u64 = 16 * 1024;

/// Before Linux 5.12 a reader could wait for more than its receive buffer takes, for ever ("tcp: fix `SO_RCVLOWAT` hangs with fat
/// skbs", "tcp: fix `SO_RCVLOWAT` related hangs under mem pressure"); what other systems do has not been looked at.
const LOW_WATER_SINCE: (u32, u32) = (5, 12);

static SUPPORTED: LazyLock<bool> = LazyLock::new(|| {
    let uname = rustix::system::uname();
    uname.sysname().to_bytes() == b"Linux"
        && version(&uname.release().to_string_lossy()) >= Some(LOW_WATER_SINCE)
});

/// Of a kernel's release: `6.1.115-126.197.amzn2023.x86_64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

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
        let mark = if certain < MIN_LOW_WATER || !*SUPPORTED {
            1
        } else {
            usize::try_from(certain).unwrap_or(most).min(most)
        };
        // Where it cannot be raised it stays at 1; what could be raised can be lowered.
        if mark != self.0 && setsockopt(socket, ReceiveLowWater, &mark).is_ok() {
            self.0 = mark;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_could_wait_for_ever_are_told_apart() {
        for old in
            ["4.14.352-267.564.amzn2.x86_64", "5.10.226-214.880.amzn2.x86_64", "5.11.22", "", "odd", "6"]
        {
            assert!(version(old) < Some(LOW_WATER_SINCE), "{old}");
        }
        for new in ["5.12.0", "6.1.115-126.197.amzn2023.x86_64", "6.18.44-fc-v669", "7.0-rc1"] {
            assert!(version(new) >= Some(LOW_WATER_SINCE), "{new}");
        }
    }
}
