//! The order in which a name's addresses are dialled: connections take turns.
//!
//! The order of the system's resolver cannot be used for this: it prefers the address most similar to the machine's own, for every
//! connection.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// The addresses of one endpoint.
#[derive(Default)]
pub(super) struct Spread {
    turn: AtomicUsize,
    /// Sorted addresses of the family that the last connection used.
    known: Mutex<Vec<SocketAddr>>,
}

impl Spread {
    /// The order in which to dial `resolved`: `first`, if it is among them, then each family, from the address that is next in turn. The
    /// families keep the resolver's order, because the resolver knows which one has a route.
    pub(super) fn order(&self, resolved: Vec<SocketAddr>, first: Option<SocketAddr>) -> Vec<SocketAddr> {
        if resolved.len() < 2 {
            return resolved;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let family = |ipv6: bool| {
            let mut own = of_family(&resolved, ipv6);
            let length = own.len().max(1);
            own.rotate_left(turn % length);
            own.into_iter()
        };
        let (mut v4, mut v6) = (family(false), family(true));
        let mut order: Vec<SocketAddr> = resolved
            .iter()
            .filter_map(|address| if address.is_ipv6() { v6.next() } else { v4.next() })
            .collect();
        order.sort_by_key(|address| Some(*address) != first);
        order
    }

    /// Records that a connection leads to one of `resolved`.
    pub(super) fn connected(&self, resolved: &[SocketAddr], peer: SocketAddr) {
        *self.known.lock() = of_family(resolved, peer.is_ipv6());
    }

    /// The addresses last resolved, of the family that the last connection used.
    pub(super) fn known(&self) -> Vec<SocketAddr> {
        self.known.lock().clone()
    }
}

fn of_family(addresses: &[SocketAddr], ipv6: bool) -> Vec<SocketAddr> {
    let mut own: Vec<SocketAddr> =
        addresses.iter().copied().filter(|address| address.is_ipv6() == ipv6).collect();
    own.sort_unstable();
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(all: &[&str]) -> Vec<SocketAddr> {
        all.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn addresses_take_turns_in_any_resolver_order_and_families_stay_in_order() {
        let spread = Spread::default();
        let one = addresses(&["[::1]:1", "2.2.2.2:1", "[::2]:1", "1.1.1.1:1"]);
        let other = addresses(&["[::2]:1", "1.1.1.1:1", "[::1]:1", "2.2.2.2:1"]);
        let turns = [
            addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1"]),
            addresses(&["[::2]:1", "2.2.2.2:1", "[::1]:1", "1.1.1.1:1"]),
        ];
        for turn in 0..4 {
            let resolved = if turn % 2 == 0 { &one } else { &other };
            assert_eq!(spread.order(resolved.clone(), None), turns[turn % 2]);
        }
        let first = one[3];
        assert_eq!(spread.order(one, Some(first))[0], first);
        spread.connected(&other, first);
        assert_eq!(spread.known(), addresses(&["1.1.1.1:1", "2.2.2.2:1"]));
    }
}
