//! Which local port leads to which node: each node keeps its own, and one that is free again is not another node's at once.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;

use crate::endpoint::ListenAddr;

/// Time until another node may get a freed port, in seconds: clients that still know the old one must not meet the new.
const PORT_REUSE_INTERVAL: Duration = Duration::from_secs(600);

/// The system is asked so often for a port that is not at rest.
const TRIES: usize = 32;

/// The addresses of nodes' listeners: those of the route's own.
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

/// Ports for nodes: `7000-7099`. None of them is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRange(RangeInclusive<u16>);

/// It is no range of ports.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is no range of ports: write \"7000-7099\"")]
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
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it holds this port.
    pub fn contains(&self, port: u16) -> bool {
        self.0.contains(&port)
    }

    /// There is always at least one.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// Why a node got no port.
#[derive(Debug, thiserror::Error)]
pub enum NoPort {
    /// All of the range are in use or at rest, or cannot be bound.
    #[error("no port of cluster.ports = \"{range}\" is free: it has {}, make it larger", range.len())]
    Exhausted {
        /// The range.
        range: PortRange,
    },
    /// The system gave none.
    #[error("no local port can be had: {0}")]
    System(#[source] io::Error),
}

/// Gives each node a port.
#[derive(Debug)]
pub struct Ports {
    /// `None`: the system chooses.
    range: Option<PortRange>,
    /// Ports that were given back, and when.
    resting: HashMap<u16, Instant>,
}

impl Ports {
    /// From a range, or, without one, wherever the system finds them.
    pub fn new(range: Option<PortRange>) -> Self {
        Self { range, resting: HashMap::new() }
    }

    /// From another range from now on. Ports that are in use stay so.
    pub fn choose_from(&mut self, range: Option<PortRange>) {
        self.range = range;
    }

    /// What `bind` makes of a port that is neither in use nor at rest; it is given 0 where the system is to choose, and
    /// tells which port that was.
    pub fn take<T>(&mut self, mut bind: impl FnMut(u16) -> io::Result<(T, u16)>) -> Result<(T, u16), NoPort> {
        self.resting.retain(|_, since| since.elapsed() < PORT_REUSE_INTERVAL);
        let Some(range) = &self.range else {
            // Kept until there is one that may be used: the system would give the same again.
            let mut unfit = Vec::new();
            let mut problem = io::ErrorKind::AddrInUse.into();
            for _ in 0..TRIES {
                match bind(0) {
                    Ok((bound, port)) if !self.resting.contains_key(&port) => return Ok((bound, port)),
                    Ok((bound, _)) => unfit.push(bound),
                    // What was chosen on one address may be in use on another.
                    Err(error) => problem = error,
                }
            }
            return Err(NoPort::System(problem));
        };
        let free = range.0.clone().filter(|port| !self.resting.contains_key(port));
        free.into_iter()
            .find_map(|port| bind(port).ok())
            .ok_or_else(|| NoPort::Exhausted { range: range.clone() })
    }

    /// Its node is gone.
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
    fn a_range_is_two_ports_with_a_line_between() {
        assert_eq!("7000-7099".parse::<PortRange>().unwrap().to_string(), "7000-7099");
        assert_eq!("7000-7000".parse::<PortRange>().unwrap().len(), 1);
        for text in ["", "7000", "7001-7000", "0-5", "a-b", "7000-70000", "-1-5"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_is_free_again_is_not_another_nodes_at_once() {
        let mut ports = Ports::new(Some("7000-7001".parse().unwrap()));
        let mut in_use = vec![7000];
        let take = |ports: &mut Ports, in_use: &[u16]| {
            ports.take(
                |port| if in_use.contains(&port) { Err(io::ErrorKind::AddrInUse.into()) } else { any(port) },
            )
        };
        assert_eq!(take(&mut ports, &in_use).unwrap().1, 7001);
        in_use.push(7001);
        let error = take(&mut ports, &in_use).unwrap_err().to_string();
        assert!(error.contains("7000-7001") && error.contains("it has 2"), "{error}");
        in_use.retain(|port| *port != 7000);
        ports.give_back(7000);
        assert!(take(&mut ports, &in_use).is_err());
        tokio::time::advance(PORT_REUSE_INTERVAL).await;
        assert_eq!(take(&mut ports, &in_use).unwrap().1, 7000);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_system_chooses_is_no_port_at_rest_either() {
        let mut ports = Ports::new(None);
        ports.give_back(40_000);
        let mut chosen = [40_000, 40_001].into_iter();
        assert_eq!(ports.take(|_| any(chosen.next().unwrap())).unwrap().1, 40_001);
    }

    #[test]
    fn a_port_that_is_in_use_on_another_address_is_not_the_last_word() {
        let mut ports = Ports::new(None);
        let mut chosen = [Err(io::ErrorKind::AddrInUse.into()), any(40_001)].into_iter();
        assert_eq!(ports.take(|_| chosen.next().unwrap()).unwrap().1, 40_001);
        let error = ports.take::<()>(|_| Err(io::ErrorKind::PermissionDenied.into())).unwrap_err();
        assert!(error.to_string().contains("permission denied"), "{error}");
    }
}
