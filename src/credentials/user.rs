//! A route's user and its secrets.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::iam;
use super::secret::Secret;
use super::source::{SecretSource, SourceError};

/// How a route authenticates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The user; `None` for the default user.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user; `None` for the default user.
    pub username: Option<String>,
    /// A password or a token.
    pub secret: Secret,
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
    /// Held by the task that reads the source. Holds the time at which the last read began.
    reading: Arc<tokio::sync::Mutex<Option<Instant>>>,
    /// The tasks that run a command. They run to their end even if the caller is cancelled.
    tasks: TaskTracker,
    /// Number of secrets that have replaced another.
    generation: watch::Sender<u64>,
    tokens: iam::Tokens,
}

#[derive(Default)]
struct KnownSecrets {
    newest: Option<Secret>,
    previous: Option<Secret>,
    /// The error of the last read.
    problem: Option<Arc<SourceError>>,
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
    pub fn user(&self) -> &str {
        self.username.as_deref().unwrap_or("default")
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
        if self.known.lock().newest.is_none() {
            self.read(self.source.pause_after_failure()).await;
        }
        let known = self.known.lock();
        match (&known.newest, &known.problem) {
            (Some(_), _) => Ok(()),
            (None, Some(problem)) => Err(self.none(Arc::clone(problem))),
            (None, None) => Err(self.none(Arc::new(SourceError::Unanswered))),
        }
    }

    /// The logins to present on a new connection, the likeliest first. Never empty.
    pub async fn logins(&self) -> Result<Vec<Login>, NoSecret> {
        self.ready().await?;
        if let SecretSource::Iam(cache) = &self.source {
            let token = self.tokens.token(cache, self.user()).map_err(|source| self.none(source))?;
            return Ok(vec![self.login(token)]);
        }
        let known = self.known.lock();
        let secrets = known.newest.iter().chain(&known.previous);
        Ok(secrets.map(|secret| self.login(secret.clone())).collect())
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
            self.read(self.source.pause_after_failure()).await;
        }
        let mut logins = self.logins().await.unwrap_or_default();
        // Both were refused, the newest first. The server may have learned the newest in between, so that is tried once more.
        let told_meanwhile = refused.len() > 1;
        let is_first = |login: &Login| refused.first() == Some(login);
        logins.retain(|login| !refused.contains(login) || told_meanwhile && is_first(login));
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
        let failed = self.known.lock().problem.is_some();
        self.read(if failed { self.source.pause_after_failure() } else { self.source.interval() }).await;
        match &self.known.lock().problem {
            None => SecretRefresh::Good,
            Some(source) => SecretRefresh::Failed(self.none(Arc::clone(source))),
        }
    }

    /// Notifies when a secret has replaced another. Connections that authenticated with the old one should get no new work.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Reads the source unless it was read within `pause`. Concurrent callers wait for the result.
    async fn read(&self, pause: Duration) {
        let mut read_at = Arc::clone(&self.reading).lock_owned().await;
        if read_at.is_some_and(|at| at.elapsed() < pause) {
            return;
        }
        *read_at = Some(Instant::now());
        if self.source.is_local() {
            let found = self.source.read().await;
            self.known.lock().take(found, &self.generation);
            return;
        }
        let (source, known, generation) =
            (self.source.clone(), Arc::clone(&self.known), self.generation.clone());
        // A dial may have less time than the command needs. The answer then serves the next dial.
        let reading = self.tasks.spawn(async move {
            let found = source.read().await;
            known.lock().take(found, &generation);
            drop(read_at);
        });
        let _ = reading.await;
    }

    fn login(&self, secret: Secret) -> Login {
        Login { username: self.username.clone(), secret }
    }

    fn none(&self, source: Arc<SourceError>) -> NoSecret {
        NoSecret { user: self.user().to_owned(), source }
    }
}

impl KnownSecrets {
    /// Stores the result of a read.
    fn take(&mut self, found: Result<Secret, SourceError>, generation: &watch::Sender<u64>) {
        match found {
            Ok(secret) => {
                self.problem = None;
                if self.newest.as_ref() != Some(&secret) {
                    self.previous = self.newest.replace(secret);
                    if self.previous.is_some() {
                        generation.send_modify(|generation| *generation += 1);
                    }
                }
            }
            Err(problem) => self.problem = Some(Arc::new(problem)),
        }
    }
}

/// The user, and where the secret comes from, for people.
impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}, {}", self.user(), self.source)
    }
}
