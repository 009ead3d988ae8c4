//! Which cache tokens are for.

/// Which cache a token is for. The user is the credentials'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The replication group's id, or the serverless cache's name: never an endpoint.
    pub cache_name: String,
    /// It is a serverless cache: that is signed, too.
    pub serverless: bool,
    /// The cache's region, `us-east-1`.
    pub region: String,
}
