//! Finds the bridges: admin addresses, names that resolve to many addresses, and files that list both.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use tokio::time::timeout;

use crate::endpoint::{AddressError, Endpoint, Host, ListenAddr};
use crate::resolve::{ResolveError, resolve};

/// The port of an admin server if none is given.
const DEFAULT_ADMIN_PORT: u16 = 9900;

/// One bridge, or a name whose addresses are all bridges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BridgeSource {
    /// An admin address.
    Address(ListenAddr),
    /// A name, for example of a headless service, and the port of its admin servers.
    Name(Endpoint),
}

impl FromStr for BridgeSource {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.starts_with("unix:") {
            return ListenAddr::private(text).map(Self::Address);
        }
        let with_port = if text.parse::<Ipv6Addr>().is_ok() {
            format!("[{text}]:{DEFAULT_ADMIN_PORT}")
        } else if !text.contains(':') || text.ends_with(']') {
            format!("{text}:{DEFAULT_ADMIN_PORT}")
        } else {
            text.to_owned()
        };
        let endpoint: Endpoint = with_port.parse()?;
        Ok(match endpoint.host {
            Host::Ip(ip) => Self::Address(ListenAddr::Tcp(SocketAddr::new(ip, endpoint.port))),
            Host::Name(_) => Self::Name(endpoint),
        })
    }
}

/// Reads a file with one source in each line. `#` starts a comment.
pub fn read(path: &Path) -> Result<Vec<BridgeSource>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).enumerate();
    let given = lines.filter(|(_, line)| !line.is_empty());
    let parse = |(number, line): (usize, &str)| {
        line.parse().map_err(|error| format!("{}: line {}: {error}", path.display(), number + 1))
    };
    given.map(parse).collect()
}

impl BridgeSource {
    /// Returns the source's admin addresses, or why they are unknown.
    pub(super) async fn addresses(&self, time: Duration) -> Result<Vec<ListenAddr>, String> {
        let name = match self {
            Self::Address(address) => return Ok(vec![address.clone()]),
            Self::Name(name) => name,
        };
        let resolved = timeout(time, resolve(name)).await;
        let resolved = resolved.map_err(|_| {
            format!("no answer from the name server within {}", humantime::format_duration(time))
        })?;
        let mut addresses = resolved.map_err(|error| match error {
            ResolveError::NoSuchHost(_) => "the name has no address".to_owned(),
            error @ ResolveError::Unavailable(_) => error.to_string(),
        })?;
        // A name server may return them in another order each time.
        addresses.sort_unstable_by_key(|address| match address.ip() {
            IpAddr::V4(ip) => (false, ip.to_ipv6_mapped()),
            IpAddr::V6(ip) => (true, ip),
        });
        Ok(addresses.into_iter().map(ListenAddr::Tcp).collect())
    }
}

impl std::fmt::Display for BridgeSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}
