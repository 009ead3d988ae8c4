//! Replaces IAM in a build without the feature.
#![allow(clippy::unused_async, clippy::unused_self, reason = "as the real one")]

use std::sync::Arc;

use super::settings::Settings;
use crate::credentials::{Secret, SourceError};

/// Makes no tokens; its errors name the missing feature.
#[derive(Debug, Default)]
pub struct Tokens {}

#[allow(missing_docs, reason = "as the real one")]
impl Tokens {
    pub async fn ready(&self, _cache: &Settings) -> Result<(), Arc<SourceError>> {
        Err(Arc::new(SourceError::Aws("this build of pontoon lacks the feature \"iam\"".into())))
    }

    pub fn token(&self, _cache: &Settings, _user: &str) -> Result<Secret, Arc<SourceError>> {
        Err(Arc::new(SourceError::Unanswered))
    }

    pub async fn renew(&self, cache: &Settings) -> Result<(), Arc<SourceError>> {
        self.ready(cache).await
    }

    pub async fn renew_after_refusal(&self, _cache: &Settings) -> bool {
        false
    }
}
