//! Raises the limit on open files, and compares it with what clients need.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::listener::{DESCRIPTORS_OF_A_CLIENT, OTHER_DESCRIPTORS};

/// The limit on open files is lower than what `limits.max_clients` of all routes needs.
#[derive(Debug, thiserror::Error)]
#[error(
    "fewer open files are allowed ({limit}) than limits.max_clients needs ({needed}), so that clients may have to wait: raise \
     the hard limit (ulimit -Hn, LimitNOFILE=) or lower limits.max_clients"
)]
pub struct TooFew {
    limit: u64,
    needed: u64,
}

/// Raises the soft limit, often 1024, to the hard limit. Returns the number of descriptors needed: a client takes two, one on each side.
pub fn raise_limit(config: &Config) -> Result<u64, TooFew> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    let clients: usize = config.routes.iter().map(|route| route.listener.max_clients).sum();
    let needed = clients as u64 * u64::from(DESCRIPTORS_OF_A_CLIENT) + OTHER_DESCRIPTORS as u64;
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < needed => Err(TooFew { limit, needed }),
        _ => Ok(needed),
    }
}
