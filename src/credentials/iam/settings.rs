//! The cache that IAM tokens are for.

/// The AWS service that verifies tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// ElastiCache.
    ElastiCache,
    /// MemoryDB.
    MemoryDb,
}

impl Service {
    /// The service's name in a signature, which is also its prefix in IAM policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::ElastiCache => "elasticache",
            Self::MemoryDb => "memorydb",
        }
    }
}

/// The cache that a token is for. The user belongs to the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The service that the cache belongs to.
    pub service: Service,
    /// The id of ElastiCache's replication group, or the name of its serverless cache or of MemoryDB's cluster; not an endpoint.
    pub cache_name: String,
    /// Whether it is a serverless cache, which is a part of what is signed.
    pub serverless: bool,
    /// The cache's region, such as `us-east-1`.
    pub region: String,
}
