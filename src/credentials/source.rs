//! The sources of secrets, and how often each is read.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fmt, fs, io};

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::answer::{SourceAnswer, UnusableAnswer};
use super::expiry::Expiry;
use super::secret::Secret;
use super::{command, iam};
use crate::moment::Moment;

/// Size limit of a password file, in bytes. A longer file does not hold a password.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// A command's output is used for this long if it names no end, unless a server refuses it, because secret managers charge for each request.
const COMMAND_INTERVAL: Duration = Duration::from_secs(300);

/// Minimum time between two runs of a command, unless its password expires soon.
const COMMAND_PAUSE: Duration = Duration::from_secs(10);

/// Minimum time between two runs of a command whose password expires soon.
const SHORT_COMMAND_PAUSE: Duration = Duration::from_secs(1);

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file. It is read at every check, because a mounted secret changes by being replaced.
    File(PathBuf),
    /// An environment variable, by name.
    Variable(String),
    /// The output of a program, which may have an end. Holds the program and its arguments, never empty.
    Command(Vec<String>),
    /// The configuration file itself.
    Inline(Secret),
    /// AWS IAM: a token for each connection.
    Iam(iam::Settings),
}

/// Why a source gives no secret. No text contains what a source did give.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The file's content cannot be used, is too long, or is not a regular file's.
    #[error("{} {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The variable is not set, or empty.
    #[error("the environment variable {0} is not set")]
    Variable(String),
    /// The command gave no secret.
    #[error("the command {program} {problem}")]
    Command {
        /// The program, without its arguments.
        program: String,
        /// What happened, with the first line that it wrote to standard error.
        problem: String,
    },
    /// AWS gave no credentials to sign with.
    #[error("AWS gives no credentials: {0}")]
    Aws(String),
    /// The last credentials expired, and the source was read recently.
    #[error(
        "the credentials expired at {0} and the source gave no newer ones: make it give new ones earlier, or correct this machine's clock"
    )]
    Expired(Moment),
    /// Another task is asking AWS and has no answer yet.
    #[error("no answer yet")]
    Unanswered,
}

impl SecretSource {
    /// Whether it can be read without a process or a network request.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::File(_) | Self::Variable(_) | Self::Inline(_))
    }

    /// Reads the source once. `username`: the user, if one is configured.
    pub(super) async fn read(&self, username: Option<&str>) -> Result<SourceAnswer, SourceError> {
        let constant = |secret| SourceAnswer { username: username.map(str::to_owned), secret, expires: None };
        match self {
            Self::File(path) => read(path, username),
            Self::Variable(name) => match std::env::var_os(name).filter(|value| !value.is_empty()) {
                Some(value) => Ok(constant(Secret::new(value.into_encoded_bytes()))),
                None => Err(SourceError::Variable(name.clone())),
            },
            Self::Command(words) => command::run(words, username).await,
            Self::Inline(secret) => Ok(constant(secret.clone())),
            Self::Iam(_) => Err(SourceError::Unanswered),
        }
    }

    /// Time until a secret that was read now is read again. `expiry`: the end of the secret.
    pub(super) fn interval(&self, expiry: Option<&Expiry>) -> Duration {
        match (self, expiry) {
            (Self::Command(_), Some(expiry)) => expiry.renewal.saturating_duration_since(Instant::now()),
            (Self::Command(_), None) => COMMAND_INTERVAL,
            // Reading these costs next to nothing.
            _ => Duration::ZERO,
        }
    }

    /// Minimum time until the next read, after `failures` in a row or after a server refused the secret. `expiry`: the end of the secret.
    pub(super) fn pause(&self, failures: u32, expiry: Option<&Expiry>) -> Duration {
        let Self::Command(_) = self else { return Duration::ZERO };
        let Some(expiry) = expiry else { return COMMAND_PAUSE };
        let pause = match failures {
            0 => expiry.left() / 4,
            // The secret ends soon, so the first attempts follow each other sooner.
            _ => SHORT_COMMAND_PAUSE.saturating_mul(1 << (failures - 1).min(4)),
        };
        pause.clamp(SHORT_COMMAND_PAUSE, COMMAND_PAUSE)
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "password from {}", path.display()),
            Self::Variable(name) => write!(f, "password from the variable {name}"),
            Self::Command(words) => write!(f, "password from the command {}", words[0]),
            Self::Inline(_) => f.write_str("password from the configuration"),
            Self::Iam(cache) => write!(f, "IAM token for {} in {}", cache.cache_name, cache.region),
        }
    }
}

fn read(path: &Path, username: Option<&str>) -> Result<SourceAnswer, SourceError> {
    let failed = |source| SourceError::Read { path: path.to_owned(), source };
    let problem = |problem: String| SourceError::File { path: path.to_owned(), problem };
    let about = fs::metadata(path).map_err(failed)?;
    // Reading a pipe would block until its writer writes.
    if !about.is_file() {
        return Err(problem("is not a regular file".into()));
    }
    if about.len() > MAX_SECRET_FILE {
        return Err(problem("is too long for a password (64 KiB)".into()));
    }
    let bytes = Zeroizing::new(fs::read(path).map_err(failed)?);
    SourceAnswer::parse(bytes, username, SystemTime::now()).map_err(|error| match error {
        UnusableAnswer::Empty => problem("is empty".into()),
        error => problem(format!("holds {error}")),
    })
}
