//! Gets the credentials that sign tokens from AWS' default chain, and limits how often it is asked.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::Region;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials as _;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::settings::Settings;
use super::token::token;
use crate::credentials::{Secret, SourceError};

/// Credentials are renewed this long before they expire, when AWS has new ones already.
const AHEAD: Duration = Duration::from_secs(300);

/// Credentials without an expiry are asked for again after this time, because profiles are files that may change.
const GOOD_FOR: Duration = Duration::from_secs(300);

/// Shortest time between two requests to AWS, in seconds.
const MIN_AWS_INTERVAL: Duration = Duration::from_secs(10);

/// Time for the whole chain, in seconds. Each of its links has limits of its own.
const CREDENTIAL_CHAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Makes IAM tokens.
#[derive(Default)]
pub struct Tokens {
    known: Arc<Mutex<KnownSigner>>,
    /// Held by the task that asks AWS. Holds the time of the last request.
    asking: Arc<tokio::sync::Mutex<Option<Instant>>>,
    /// The tasks that ask AWS. They run to their end even if the caller is cancelled.
    tasks: TaskTracker,
}

#[derive(Default)]
struct KnownSigner {
    signer: Option<Credentials>,
    since: Option<Instant>,
    /// The error of the last request to AWS.
    problem: Option<Arc<SourceError>>,
}

impl Tokens {
    /// Waits for AWS if there are no credentials to sign with.
    pub async fn ready(&self, cache: &Settings) -> Result<(), Arc<SourceError>> {
        if self.known.lock().usable(SystemTime::now()).is_none() {
            self.ask(cache).await;
        }
        let known = self.known.lock();
        known.usable(SystemTime::now()).map(drop).ok_or_else(|| known.why_not())
    }

    /// Makes a token for a new connection.
    pub fn token(&self, cache: &Settings, user: &str) -> Result<Secret, Arc<SourceError>> {
        let (known, now) = (self.known.lock(), SystemTime::now());
        match known.usable(now) {
            Some(signer) => {
                token(cache, user, signer, now).map_err(|error| Arc::new(SourceError::Aws(error)))
            }
            None => Err(known.why_not()),
        }
    }

    /// Renews the signing credentials if they are due. The present ones are used meanwhile.
    pub async fn renew(&self, cache: &Settings) -> Result<(), Arc<SourceError>> {
        if self.known.lock().is_due(SystemTime::now()) {
            self.ask(cache).await;
        }
        self.known.lock().problem.clone().map_or(Ok(()), Err)
    }

    /// Asks AWS again after a server refused a token. Returns whether the credentials have changed.
    pub async fn renew_after_refusal(&self, cache: &Settings) -> bool {
        let key = |known: &KnownSigner| known.signer.as_ref().map(|signer| signer.access_key_id().to_owned());
        let before = key(&self.known.lock());
        self.ask(cache).await;
        key(&self.known.lock()) != before
    }

    async fn ask(&self, cache: &Settings) {
        let mut asked = Arc::clone(&self.asking).lock_owned().await;
        if asked.is_some_and(|at| at.elapsed() < MIN_AWS_INTERVAL) {
            return;
        }
        *asked = Some(Instant::now());
        let (known, region) = (Arc::clone(&self.known), cache.region.clone());
        // A dial may have less time than AWS needs. The answer then serves the next dial.
        let asking = self.tasks.spawn(async move {
            let answer = answer(region).await;
            let mut known = known.lock();
            match answer {
                Ok(signer) => {
                    *known = KnownSigner { signer: Some(signer), since: Some(Instant::now()), problem: None };
                }
                Err(problem) => known.problem = Some(Arc::new(SourceError::Aws(problem))),
            }
            drop(asked);
        });
        let _ = asking.await;
    }
}

/// Asks the chain for credentials.
async fn answer(region: String) -> Result<Credentials, String> {
    // Built for each request, because it reads its files only once, and its connections belong to one event loop.
    let chain = async {
        let chain = DefaultCredentialsChain::builder().region(Region::new(region));
        chain.build().await.provide_credentials().await
    };
    let ended = |signer: &Credentials| signer.expiry().is_some_and(|expiry| expiry <= SystemTime::now());
    match timeout(CREDENTIAL_CHAIN_TIMEOUT, chain).await {
        Ok(Ok(signer)) if ended(&signer) => {
            Err("the credentials have expired already: check this machine's clock".to_owned())
        }
        Ok(Ok(signer)) => Ok(signer),
        Ok(Err(error)) => Err(explain(&error)),
        Err(_) => Err(format!("no answer within {}", humantime::format_duration(CREDENTIAL_CHAIN_TIMEOUT))),
    }
}

impl KnownSigner {
    fn usable(&self, now: SystemTime) -> Option<&Credentials> {
        self.signer.as_ref().filter(|signer| signer.expiry().is_none_or(|expiry| expiry > now))
    }

    fn why_not(&self) -> Arc<SourceError> {
        self.problem.clone().unwrap_or_else(|| Arc::new(SourceError::Unanswered))
    }

    fn is_due(&self, now: SystemTime) -> bool {
        let old = self.since.is_none_or(|since| since.elapsed() >= GOOD_FOR);
        let signer = self.signer.as_ref().filter(|_| self.problem.is_none());
        signer.is_none_or(|signer| signer.expiry().map_or(old, |expiry| expiry < now + AHEAD))
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(…)")
    }
}

/// An error with its causes, because the outermost only says that something failed.
pub fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
