//! Resolves names to addresses, for every connection anew, because an ElastiCache name moves at a failover.

use std::io;
use std::net::SocketAddr;

use tokio::net::lookup_host;

use crate::endpoint::{Endpoint, Host};

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The name does not exist, or has no address.
    #[error(
        "no such host \"{0}\": check the name. ElastiCache creates the names for TLS with \"preferred\", and deletes the others with \"required\""
    )]
    NoSuchHost(String),
    /// The name server gave no usable answer.
    #[error("the name server gave no answer: {0}")]
    Unavailable(io::Error),
}

/// All addresses of `endpoint`, in the system's order of preference but with alternating families, so that a family without a route costs
/// one attempt and not all.
pub async fn resolve(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, ResolveError> {
    match &endpoint.host {
        Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, endpoint.port)]),
        Host::Name(name) => match lookup_host((name.as_str(), endpoint.port)).await {
            Ok(found) => {
                let addresses = interleave(found);
                if addresses.is_empty() { Err(ResolveError::NoSuchHost(name.clone())) } else { Ok(addresses) }
            }
            Err(error) if is_no_such_host(&error) => Err(ResolveError::NoSuchHost(name.clone())),
            Err(error) => Err(ResolveError::Unavailable(error)),
        },
    }
}

/// Whether the name does not exist or has no address. getaddrinfo's codes arrive as words only; only "try again" means something else.
fn is_no_such_host(error: &io::Error) -> bool {
    let words = error.to_string();
    ["not known", "No address", "nodename nor servname"].iter().any(|known| words.contains(known))
}

fn interleave(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut unique = Vec::new();
    for address in addresses {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    let Some(first) = unique.first().map(SocketAddr::is_ipv6) else { return unique };
    let (mut preferred, mut other) = (Vec::new(), Vec::new());
    for address in unique {
        if address.is_ipv6() == first { preferred.push(address) } else { other.push(address) }
    }
    let mut order = Vec::with_capacity(preferred.len() + other.len());
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    loop {
        match (preferred.next(), other.next()) {
            (None, None) => return order,
            (a, b) => order.extend(a.into_iter().chain(b)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_families_alternate_and_the_systems_preference_leads() {
        let addresses: Vec<SocketAddr> =
            ["[::1]:1", "[::2]:1", "1.1.1.1:1", "[::1]:1", "2.2.2.2:1", "3.3.3.3:1"]
                .iter()
                .map(|a| a.parse().unwrap())
                .collect();
        let order: Vec<String> = interleave(addresses.into_iter()).iter().map(ToString::to_string).collect();
        assert_eq!(order, ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "3.3.3.3:1"]);
    }

    #[tokio::test]
    async fn a_name_that_cannot_exist_does_not_resolve() {
        let endpoint = Endpoint { host: Host::Name("cache.invalid".into()), port: 6379 };
        assert!(resolve(&endpoint).await.is_err());
    }
}
