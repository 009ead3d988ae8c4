//! The cache that IAM tokens are for.

/// The cache that a token is for. The user belongs to the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The replication group's id, or the serverless cache's name; not an endpoint.
    pub cache_name: String,
    /// Whether it is a serverless cache, which is a part of what is signed.
    pub serverless: bool,
    /// The cache's region, such as `us-east-1`.
    pub region: String,
}
