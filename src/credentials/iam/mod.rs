//! Tokens of AWS IAM, which ElastiCache takes for passwords
//! ([its documentation](https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/auth-iam.html)).

#[cfg(feature = "iam")]
mod chain;
mod region;
#[cfg(feature = "iam")]
mod token;
#[cfg(not(feature = "iam"))]
mod without;

#[cfg(feature = "iam")]
pub use self::chain::Tokens;
pub use self::region::{is_serverless, region_of};
#[cfg(feature = "iam")]
pub use self::token::token;
#[cfg(not(feature = "iam"))]
pub use self::without::Tokens;

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
