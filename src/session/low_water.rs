//! Sets how many bytes must arrive before the kernel wakes a session (`SO_RCVLOWAT`).
//!
//! A large value arrives piece by piece. Each piece would wake the session, and be decrypted and sent on its own. While the scanners know
//! that more of the value must come, one wake-up serves many pieces.

use std::os::fd::AsFd;
use std::sync::LazyLock;

use nix::sys::socket::setsockopt;
// The macro needs these imports.
use nix::{libc, setsockopt_impl, sockopt_impl};

sockopt_impl!(
    /// Number of bytes to wait for.
    ReceiveLowWater,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_RCVLOWAT,
    usize
);

/// Below this, setting the option costs more than it saves.
const MIN_LOW_WATER: u64 = 16 * 1024;

/// Before Linux 5.12 a reader could wait forever for more than its receive buffer holds ("tcp: fix `SO_RCVLOWAT` hangs with fat skbs",
/// "tcp: fix `SO_RCVLOWAT` related hangs under mem pressure"). Other systems were not examined, so the option is not used there.
const LOW_WATER_SINCE: (u32, u32) = (5, 12);

static SUPPORTED: LazyLock<bool> = LazyLock::new(|| {
    let uname = rustix::system::uname();
    uname.sysname().to_bytes() == b"Linux"
        && version(&uname.release().to_string_lossy()) >= Some(LOW_WATER_SINCE)
});

/// The version in a kernel's release, such as `6.1.115-126.197.amzn2023.x86_64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The low-water mark that a socket has now.
#[derive(Debug)]
pub(super) struct LowWater(usize);

impl Default for LowWater {
    fn default() -> Self {
        Self(1)
    }
}

impl LowWater {
    /// At least `certain` more bytes will come through `socket`. Has the kernel wait for them, or for `most`. The end of the stream and a
    /// full receive buffer still wake the session (`tcp_data_ready` in Linux).
    pub(super) fn expect(&mut self, socket: &impl AsFd, certain: u64, most: usize) {
        let mark = if certain < MIN_LOW_WATER || !*SUPPORTED {
            1
        } else {
            usize::try_from(certain).unwrap_or(most).min(most)
        };
        // A system that does not raise the mark leaves it at 1. A mark that could be raised can be lowered.
        if mark != self.0 && setsockopt(socket, ReceiveLowWater, &mark).is_ok() {
            self.0 = mark;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_could_wait_forever_are_recognized() {
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
