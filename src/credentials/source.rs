//! Where a secret comes from, and how often that is asked.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, fs, io};

use super::secret::Secret;
use super::{command, iam};

/// Bytes of a password file: a longer one does not hold a password.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// What a command printed is good for this long, unless a server refuses it: secret managers charge by the question.
const COMMAND_INTERVAL: Duration = Duration::from_secs(300);

/// A command is not run more often, whatever happens.
const COMMAND_PAUSE: Duration = Duration::from_secs(10);

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file, read again whenever it is looked at: a mounted secret changes by being replaced.
    File(PathBuf),
    /// An environment variable, by name.
    Variable(String),
    /// A program and its arguments, never empty: what it prints.
    Command(Vec<String>),
    /// The configuration itself.
    Inline(Secret),
    /// AWS IAM: a token for each connection.
    Iam(iam::Settings),
}

/// Why a source gives no secret. None of the texts holds what a source did give.
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
    /// It was read, and holds nothing, too much, or is no file.
    #[error("{} {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// A variable is not set, or empty.
    #[error("the environment variable {0} is not set")]
    Variable(String),
    /// A command gave nothing.
    #[error("the command {program} {problem}")]
    Command {
        /// Without its arguments.
        program: String,
        /// What happened, with the first line of what it wrote to standard error.
        problem: String,
    },
    /// AWS gives no credentials to sign with.
    #[error("AWS gives no credentials: {0}")]
    Aws(String),
    /// Somebody asks already, and has no answer yet.
    #[error("no answer yet")]
    Unanswered,
}

impl SecretSource {
    /// Whether it can be read without asking anybody.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::File(_) | Self::Variable(_) | Self::Inline(_))
    }

    /// Reads it once.
    pub(super) async fn read(&self) -> Result<Secret, SourceError> {
        match self {
            Self::File(path) => read(path),
            Self::Variable(name) => match std::env::var_os(name).filter(|value| !value.is_empty()) {
                Some(value) => Ok(Secret::new(value.into_encoded_bytes())),
                None => Err(SourceError::Variable(name.clone())),
            },
            Self::Command(words) => command::run(words).await,
            Self::Inline(secret) => Ok(secret.clone()),
            Self::Iam(_) => Err(SourceError::Unanswered),
        }
    }

    /// What was read is good for this long.
    pub(super) fn interval(&self) -> Duration {
        match self {
            Self::File(_) => Duration::ZERO,
            Self::Command(_) => COMMAND_INTERVAL,
            // They do not change.
            Self::Variable(_) | Self::Inline(_) | Self::Iam(_) => Duration::MAX,
        }
    }

    /// After a failure, and after a refusal by the server, until it is read again.
    pub(super) fn pause_after_failure(&self) -> Duration {
        match self {
            Self::Command(_) => COMMAND_PAUSE,
            _ => Duration::ZERO,
        }
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

fn read(path: &Path) -> Result<Secret, SourceError> {
    let failed = |source| SourceError::Read { path: path.to_owned(), source };
    let problem = |problem| SourceError::File { path: path.to_owned(), problem };
    let about = fs::metadata(path).map_err(failed)?;
    // A pipe would have us wait for its writer.
    if !about.is_file() {
        return Err(problem("is no regular file"));
    }
    if about.len() > MAX_SECRET_FILE {
        return Err(problem("is too long for a password (64 KiB)"));
    }
    Secret::without_newline(fs::read(path).map_err(failed)?).ok_or_else(|| problem("is empty"))
}
