//! A route's user and its secrets.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::TaskTracker;

use super::answer::SourceAnswer;
use super::expiry::Expiry;
use super::iam;
use super::secret::Secret;
use super::source::{SecretSource, SourceError};
use crate::moment::Moment;

/// How a route authenticates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The user; `None` if the source names it, or for the default user.
    pub username: Option<String>,
    /// Where the secret comes from.
    pub source: SecretSource,
    /// Whether the secret may be sent in plaintext.
    pub allow_plaintext: bool,
    /// Time after which live connections authenticate again; `None` for never.
    pub renewal: Option<Duration>,
}

impl Settings {
    /// `auth.reauthenticate` with IAM where it is not configured. ElastiCache closes connections after 12 hours.
    pub const IAM_RENEWAL: Duration = Duration::from_secs(11 * 3600);
}

/// The arguments of AUTH.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user; `None` for the default user.
    pub username: Option<String>,
    /// A password or a token.
    pub secret: Secret,
    /// When the server stops accepting it, if the source says so.
    pub expiry: Option<Expiry>,
}

impl Login {
    /// Whether the server cannot distinguish the two.
    fn is_same(&self, other: &Self) -> bool {
        self.username == other.username && self.secret == other.secret
    }
}

/// There is no secret to present.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no secret for user {user}: {source}")]
pub struct NoSecret {
    /// The user.
    pub user: String,
    /// The source's error.
    pub source: Arc<SourceError>,
}

/// The result of a check of the source.
#[derive(Debug)]
pub enum SecretRefresh {
    /// The present secret was read.
    Good,
    /// The source gave no secret. The last one stays in use.
    Failed(NoSecret),
}

/// A route's user and its two latest secrets. The previous one is for a server that has not learned the newest yet, or that learned it too
/// early.
pub struct Credentials {
    username: Option<String>,
    source: SecretSource,
    allow_plaintext: bool,
    renewal: Option<Duration>,
    known: Arc<Mutex<KnownSecrets>>,
    /// Held by the task that reads the source.
    reading: Arc<tokio::sync::Mutex<()>>,
    /// The tasks that run a command. They run to their end even if the caller is cancelled.
    tasks: TaskTracker,
    /// Number of secrets that have replaced another.
    generation: watch::Sender<u64>,
    tokens: iam::Tokens,
}

#[derive(Default)]
struct KnownSecrets {
    newest: Option<Login>,
    previous: Option<Login>,
    /// The error of the last read.
    problem: Option<Arc<SourceError>>,
    /// Number of failed reads since the last good one.
    failures: u32,
    /// When the source is read again if no server refuses the secret. `None` before the first read.
    due: Option<Instant>,
    /// The source is not read before this time, even if a server refuses the secret.
    earliest: Option<Instant>,
}

impl Credentials {
    /// Prepares the credentials. Nothing is read yet.
    pub fn new(settings: &Settings) -> Self {
        Self {
            username: settings.username.clone(),
            source: settings.source.clone(),
            allow_plaintext: settings.allow_plaintext,
            renewal: settings.renewal,
            known: Arc::default(),
            reading: Arc::default(),
            tasks: TaskTracker::new(),
            generation: watch::Sender::default(),
            tokens: iam::Tokens::default(),
        }
    }

    /// The user's name, for messages.
    pub fn user(&self) -> String {
        let known = self.known.lock();
        let named = known.newest.as_ref().and_then(|login| login.username.as_ref());
        named.or(self.username.as_ref()).map_or("default", |name| name).to_owned()
    }

    /// When the newest secret expires, if its source says so. IAM tokens are made for each login and do not count.
    pub fn expires(&self) -> Option<Moment> {
        Some(self.known.lock().newest.as_ref()?.expiry?.moment())
    }

    /// Whether the secrets may be sent in plaintext.
    pub fn allow_plaintext(&self) -> bool {
        self.allow_plaintext
    }

    /// Time after which live connections authenticate again; `None` for never.
    pub fn renewal(&self) -> Option<Duration> {
        self.renewal
    }

    /// Waits until there is a secret to present. The first read, or AWS, may take its time.
    pub async fn ready(&self) -> Result<(), NoSecret> {
        if let SecretSource::Iam(cache) = &self.source {
            return self.tokens.ready(cache).await.map_err(|source| self.none(source));
        }
        if self.known.lock().usable().next().is_none() {
            self.read(|known| known.earliest).await;
        }
        let why_not = self.known.lock().why_not();
        why_not.map_or(Ok(()), |problem| Err(self.none(problem)))
    }

    /// The logins to present on a new connection, the likeliest first. Never empty.
    pub async fn logins(&self) -> Result<Vec<Login>, NoSecret> {
        self.ready().await?;
        if let SecretSource::Iam(cache) = &self.source {
            let token = self.tokens.token(cache, &self.user()).map_err(|source| self.none(source))?;
            return Ok(vec![Login { username: self.username.clone(), secret: token, expiry: None }]);
        }
        Ok(self.known.lock().usable().cloned().collect())
    }

    /// The logins to present on a live session before its secret expires. Reads the source first if that is due.
    pub async fn renewed_logins(&self) -> Result<Vec<Login>, NoSecret> {
        self.look().await;
        self.logins().await
    }

    /// The logins to try after the server refused all of `refused`, in that order: what the source gives now, if that differs and is worth
    /// another attempt.
    pub async fn logins_after_refusal(&self, refused: &[Login]) -> Vec<Login> {
        if let SecretSource::Iam(cache) = &self.source {
            // Tokens differ each second, so the signing credentials are compared.
            if !self.tokens.renew_after_refusal(cache).await {
                return Vec::new();
            }
        } else {
            self.read(|known| known.earliest).await;
        }
        let mut logins = self.logins().await.unwrap_or_default();
        // Both were refused, the newest first. The server may have learned the newest in between, so that is tried once more.
        let told_meanwhile = refused.len() > 1;
        let is_first = |login: &Login| refused.first().is_some_and(|first| first.is_same(login));
        let was_refused = |login: &Login| refused.iter().any(|refused| refused.is_same(login));
        logins.retain(|login| !was_refused(login) || told_meanwhile && is_first(login));
        logins
    }

    /// Reads the source again if that is due.
    pub async fn look(&self) -> SecretRefresh {
        if let SecretSource::Iam(cache) = &self.source {
            return match self.tokens.renew(cache).await {
                Ok(()) => SecretRefresh::Good,
                Err(source) => SecretRefresh::Failed(self.none(source)),
            };
        }
        self.read(|known| known.due).await;
        let problem = self.known.lock().problem.clone();
        problem.map_or(SecretRefresh::Good, |source| SecretRefresh::Failed(self.none(source)))
    }

    /// Waits until a command whose secret expires is due to run again. Other sources are checked often enough.
    pub async fn renewal_due(&self) {
        let is_command = matches!(self.source, SecretSource::Command(_));
        let due = self.known.lock().due.filter(|_| is_command);
        match due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Notifies when a secret has replaced another. Connections that authenticated with the old one should get no new work.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Reads the source, but not before `when`. Concurrent callers wait for the result.
    async fn read(&self, when: fn(&KnownSecrets) -> Option<Instant>) {
        let turn = Arc::clone(&self.reading).lock_owned().await;
        if when(&self.known.lock()).is_some_and(|when| when > Instant::now()) {
            return;
        }
        if self.source.is_local() {
            let found = self.source.read(self.username.as_deref()).await;
            self.known.lock().take(found, &self.source, &self.generation);
            return;
        }
        let (source, username) = (self.source.clone(), self.username.clone());
        let (known, generation) = (Arc::clone(&self.known), self.generation.clone());
        // A dial may have less time than the command needs. The answer then serves the next dial.
        let reading = self.tasks.spawn(async move {
            let found = source.read(username.as_deref()).await;
            known.lock().take(found, &source, &generation);
            drop(turn);
        });
        let _ = reading.await;
    }

    fn none(&self, source: Arc<SourceError>) -> NoSecret {
        NoSecret { user: self.user(), source }
    }
}

impl KnownSecrets {
    /// The logins that have not expired, the newest first.
    fn usable(&self) -> impl Iterator<Item = &Login> {
        let both = self.newest.iter().chain(&self.previous);
        both.filter(|login| !login.expiry.is_some_and(|expiry| expiry.is_over()))
    }

    /// Why there is no usable login; `None` if there is one.
    fn why_not(&self) -> Option<Arc<SourceError>> {
        if self.usable().next().is_some() {
            return None;
        }
        let expired = || self.newest.as_ref().and_then(|login| login.expiry);
        Some(match &self.problem {
            Some(problem) => Arc::clone(problem),
            None => Arc::new(
                expired().map_or(SourceError::Unanswered, |expiry| SourceError::Expired(expiry.moment())),
            ),
        })
    }

    /// Stores the result of a read.
    fn take(
        &mut self,
        found: Result<SourceAnswer, SourceError>,
        source: &SecretSource,
        generation: &watch::Sender<u64>,
    ) {
        match found {
            Ok(SourceAnswer { username, secret, expires }) => {
                (self.problem, self.failures) = (None, 0);
                let login = Login { username, secret, expiry: expires.map(Expiry::new) };
                let is_known = self.newest.as_ref().is_some_and(|newest| newest.is_same(&login));
                // What is known may have a new end.
                let before = self.newest.replace(login).filter(|_| !is_known);
                if before.is_some() {
                    self.previous = before;
                    generation.send_modify(|generation| *generation += 1);
                }
            }
            Err(problem) => {
                self.problem = Some(Arc::new(problem));
                self.failures += 1;
            }
        }
        let expiry = self.newest.as_ref().and_then(|login| login.expiry.as_ref());
        let pause = source.pause(self.failures, expiry);
        let interval = if self.failures == 0 { source.interval(expiry) } else { pause };
        let now = Instant::now();
        (self.earliest, self.due) = (Some(now + pause), Some(now + interval));
    }
}

/// The user, and where the secret comes from, for people.
impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}, {}", self.user(), self.source)?;
        self.expires().map_or(Ok(()), |at| write!(f, ", expires at {at}"))
    }
}
