//! `pontoon plan`: where replication groups stand between plaintext and TLS, from what AWS says of them. [`GroupFacts`] are
//! AWS' words in plain types, [`Plan`] is what follows from them, without AWS, and [`text()`] is how people read it. Only
//! the module `aws`, of the feature `iam`, sends requests, and it has none that changes anything.

#[cfg(feature = "iam")]
mod aws;
mod error;
mod facts;
mod recipes;
mod road;
#[cfg(test)]
mod tests;
mod text;

#[cfg(feature = "iam")]
pub use self::aws::Aws;
pub use self::error::PlanError;
pub use self::facts::{
    EndpointUse, EngineVersion, GlobalDatastore, GroupEndpoint, GroupFacts, PendingChanges, TransitEncryption,
};
pub use self::recipes::Recipes;
pub use self::road::{Blocker, Modification, NextStep, Plan, WayBack};
pub use self::text::text;
