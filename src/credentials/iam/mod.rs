//! AWS IAM tokens, which ElastiCache ([documentation](https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/auth-iam.html)) and MemoryDB
//! ([documentation](https://docs.aws.amazon.com/memorydb/latest/devguide/auth-iam.html)) accept as passwords. By the sample code on these
//! pages, the two kinds differ only in the service's name in the signature.

#[cfg(feature = "iam")]
mod chain;
mod region;
mod settings;
#[cfg(feature = "iam")]
mod token;
#[cfg(not(feature = "iam"))]
mod without;

#[cfg(feature = "iam")]
pub use self::chain::{Tokens, explain};
pub use self::region::{is_serverless, region_of, service_of};
pub use self::settings::{Service, Settings};
#[cfg(feature = "iam")]
pub use self::token::token;
#[cfg(not(feature = "iam"))]
pub use self::without::Tokens;
