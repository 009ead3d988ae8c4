//! A host and a port.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::error::AddressError;
use super::redacted::is_number;

/// Redis' default port, used if an upstream has none.
pub const DEFAULT_PORT: u16 = 6379;

/// An upstream endpoint: a host, by name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The host as configured.
    pub host: Host,
    /// The TCP port.
    pub port: u16,
}

/// A host, by DNS name or by IP address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A DNS name, resolved again for every connection.
    Name(String),
    /// A literal address.
    Ip(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
        }
    }
}

impl FromStr for Endpoint {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        // Copied from a console or a file, a name often has a space or a newline at its end.
        Self::parse(text.trim()).map_err(|error| error.about(text))
    }
}

impl Endpoint {
    fn parse(text: &str) -> Result<Self, AddressError> {
        // A bare IPv6 address: its colons do not introduce a port.
        if let Ok(ip) = text.parse::<Ipv6Addr>() {
            return Ok(Self { host: Host::Ip(ip.into()), port: DEFAULT_PORT });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
            _ => (text, None),
        };
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => match port.parse() {
                Ok(port @ 1..) => port,
                // It could be the password of a URL without a host.
                _ if !is_number(port) => return Err(AddressError::BadPort("***".to_owned())),
                _ => return Err(AddressError::BadPort(port.to_owned())),
            },
        };
        if host.is_empty() {
            return Err(AddressError::NoHost(text.to_owned()));
        }
        Ok(Self { host: host.parse()?, port })
    }
}

impl FromStr for Host {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bad = || AddressError::BadHost(text.to_owned()).about(text);
        if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return inner.parse::<Ipv6Addr>().map(|ip| Self::Ip(ip.into())).map_err(|_| bad());
        }
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Ip(ip.into()));
        }
        // Strictly, host names have no underscores, but Docker and Kubernetes networks use them. Four numbers that are not an IPv4 address
        // are a mistake, not a name.
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
                && !label.starts_with('-')
        };
        let name = text.strip_suffix('.').unwrap_or(text);
        let numeric = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if name.len() <= 253 && !numeric && name.split('.').all(is_label) {
            Ok(Self::Name(text.to_owned()))
        } else {
            Err(bad())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_endpoint_reads_back_as_printed(ip: IpAddr, name in "[a-z][a-z0-9_-]{0,20}(\\.[a-z0-9]{1,9}){0,3}", port in 1u16..) {
            for host in [Host::Ip(ip), Host::Name(name)] {
                let endpoint = Endpoint { host, port };
                prop_assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
            }
        }
    }
}
