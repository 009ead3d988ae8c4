//! The judgement of `pontoon plan`: where replication groups are between plaintext and TLS, and what comes next.
//!
//! [`GroupFacts`] holds what AWS reports, [`Plan`] what follows from it, and [`text()`] formats a plan for people. Only the module `aws`
//! (feature `iam`) sends requests, and these only read.

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
