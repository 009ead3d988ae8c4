//! Assigns a local port to each node. A node keeps its port, and a freed port goes to another node only after a while.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;

use crate::endpoint::ListenAddr;

/// Time until a freed port goes to another node: clients that still know the old node must not reach the new one.
const PORT_REUSE_INTERVAL: Duration = Duration::from_secs(600);

/// How often the system is asked for a port, because it may return one that was freed recently.
const TRIES: usize = 32;

/// Returns the addresses of nodes' listeners, which are those of the route's own listeners.
pub fn node_addresses(listen: &[ListenAddr]) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for ip in listen.iter().filter_map(ListenAddr::ip) {
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    // Clients of a Unix socket reach nodes over loopback.
    if addresses.is_empty() {
        addresses.push(Ipv4Addr::LOCALHOST.into());
    }
    addresses
}

/// Ports for nodes, such as `7000-7099`; never 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRange(RangeInclusive<u16>);

/// The text is not a port range.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is not a port range: write it as \"7000-7099\"")]
pub struct InvalidPortRange(String);

impl FromStr for PortRange {
    type Err = InvalidPortRange;

    fn from_str(text: &str) -> Result<Self, InvalidPortRange> {
        let parse = || {
            let (first, last) = text.split_once('-')?;
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (0 < first && first <= last).then_some(Self(first..=last))
        };
        parse().ok_or_else(|| InvalidPortRange(text.to_owned()))
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.start(), self.0.end())
    }
}

impl PortRange {
    /// Returns the number of ports.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The ports, in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + use<> {
        self.0.clone()
    }

    /// Whether the range contains this port.
    pub fn contains(&self, port: u16) -> bool {
        self.0.contains(&port)
    }

    /// Always false: a range has at least one port.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// Why a node got no port.
#[derive(Debug, thiserror::Error)]
pub enum NoPort {
    /// All ports of the range are in use, were freed recently, or cannot be bound.
    #[error("no port of {key} = \"{range}\" is free ({} in total): make the range larger", range.len())]
    Exhausted {
        /// The key that sets the range.
        key: &'static str,
        /// The range.
        range: PortRange,
    },
    /// The system provided no port.
    #[error("the system provided no local port: {0}")]
    System(#[source] io::Error),
}

/// Assigns ports.
#[derive(Debug)]
pub struct Ports {
    /// The key that sets the range.
    key: &'static str,
    /// `None` if the system chooses ports.
    range: Option<PortRange>,
    /// Freed ports, and when they were freed.
    resting: HashMap<u16, Instant>,
}

impl Ports {
    /// Uses a range; without one, ports that the system chooses.
    pub fn new(key: &'static str, range: Option<PortRange>) -> Self {
        Self { key, range, resting: HashMap::new() }
    }

    /// Changes the range. Ports in use are kept.
    pub fn choose_from(&mut self, range: Option<PortRange>) {
        self.range = range;
    }

    /// Returns what `bind` returns for a port that is neither in use nor freed recently. `bind` is called with 0 if the system should
    /// choose, and returns the port that was bound.
    pub fn take<T>(&mut self, mut bind: impl FnMut(u16) -> io::Result<(T, u16)>) -> Result<(T, u16), NoPort> {
        self.resting.retain(|_, since| since.elapsed() < PORT_REUSE_INTERVAL);
        let Some(range) = &self.range else {
            // Keep unusable ports bound until one is usable, or the system would choose them again.
            let mut unfit = Vec::new();
            let mut problem = io::ErrorKind::AddrInUse.into();
            for _ in 0..TRIES {
                match bind(0) {
                    Ok((bound, port)) if !self.resting.contains_key(&port) => return Ok((bound, port)),
                    Ok((bound, _)) => unfit.push(bound),
                    // A port that was chosen on one address may be in use on another.
                    Err(error) => problem = error,
                }
            }
            return Err(NoPort::System(problem));
        };
        let free = range.0.clone().filter(|port| !self.resting.contains_key(port));
        free.into_iter()
            .find_map(|port| bind(port).ok())
            .ok_or_else(|| NoPort::Exhausted { key: self.key, range: range.clone() })
    }

    /// Frees the port of a node that is gone.
    pub fn give_back(&mut self, port: u16) {
        self.resting.insert(port, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::unnecessary_wraps, reason = "as a bind is")]
    fn any(port: u16) -> io::Result<((), u16)> {
        Ok(((), port))
    }

    #[test]
    fn a_range_is_two_ports_with_a_hyphen_between() {
        assert_eq!("7000-7099".parse::<PortRange>().unwrap().to_string(), "7000-7099");
        assert_eq!("7000-7000".parse::<PortRange>().unwrap().len(), 1);
        for text in ["", "7000", "7001-7000", "0-5", "a-b", "7000-70000", "-1-5"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_freed_port_goes_to_another_node_only_after_a_while() {
        let mut ports = Ports::new("cluster.ports", Some("7000-7001".parse().unwrap()));
        let mut in_use = vec![7000];
        let take = |ports: &mut Ports, in_use: &[u16]| {
            ports.take(
                |port| if in_use.contains(&port) { Err(io::ErrorKind::AddrInUse.into()) } else { any(port) },
            )
        };
        assert_eq!(take(&mut ports, &in_use).unwrap().1, 7001);
        in_use.push(7001);
        let error = take(&mut ports, &in_use).unwrap_err().to_string();
        assert!(error.contains("7000-7001") && error.contains("2 in total"), "{error}");
        in_use.retain(|port| *port != 7000);
        ports.give_back(7000);
        assert!(take(&mut ports, &in_use).is_err());
        tokio::time::advance(PORT_REUSE_INTERVAL).await;
        assert_eq!(take(&mut ports, &in_use).unwrap().1, 7000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_the_system_chooses_was_not_freed_recently() {
        let mut ports = Ports::new("cluster.ports", None);
        ports.give_back(40_000);
        let mut chosen = [40_000, 40_001].into_iter();
        assert_eq!(ports.take(|_| any(chosen.next().unwrap())).unwrap().1, 40_001);
    }

    #[test]
    fn another_port_is_tried_if_one_is_in_use_on_another_address() {
        let mut ports = Ports::new("cluster.ports", None);
        let mut chosen = [Err(io::ErrorKind::AddrInUse.into()), any(40_001)].into_iter();
        assert_eq!(ports.take(|_| chosen.next().unwrap()).unwrap().1, 40_001);
        let error = ports.take::<()>(|_| Err(io::ErrorKind::PermissionDenied.into())).unwrap_err();
        assert!(error.to_string().contains("permission denied"), "{error}");
    }
}
