//! AWS IAM tokens, which ElastiCache accepts as passwords
//! ([documentation](https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/auth-iam.html)).

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
pub use self::region::{is_serverless, region_of};
pub use self::settings::Settings;
#[cfg(feature = "iam")]
pub use self::token::token;
#[cfg(not(feature = "iam"))]
pub use self::without::Tokens;
