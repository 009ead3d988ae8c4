//! The sources of secrets, and how often each is read.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, fs, io};

use super::secret::Secret;
use super::{command, iam};

/// Size limit of a password file, in bytes. A longer file does not hold a password.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// A command's output is used for this long, unless a server refuses it, because secret managers charge for each request.
const COMMAND_INTERVAL: Duration = Duration::from_secs(300);

/// Minimum time between two runs of a command.
const COMMAND_PAUSE: Duration = Duration::from_secs(10);

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file. It is read at every check, because a mounted secret changes by being replaced.
    File(PathBuf),
    /// An environment variable, by name.
    Variable(String),
    /// The output of a program. Holds the program and its arguments, never empty.
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
    /// The file is empty, too long, or not a regular file.
    #[error("{} {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
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
    /// Another task is asking AWS and has no answer yet.
    #[error("no answer yet")]
    Unanswered,
}

impl SecretSource {
    /// Whether it can be read without a process or a network request.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::File(_) | Self::Variable(_) | Self::Inline(_))
    }

    /// Reads the source once.
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

    /// Time for which a secret that was read is used.
    pub(super) fn interval(&self) -> Duration {
        match self {
            Self::File(_) => Duration::ZERO,
            Self::Command(_) => COMMAND_INTERVAL,
            // These do not change.
            Self::Variable(_) | Self::Inline(_) | Self::Iam(_) => Duration::MAX,
        }
    }

    /// Minimum time until the next read after a failure, or after a server refused the secret.
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
    // Reading a pipe would block until its writer writes.
    if !about.is_file() {
        return Err(problem("is not a regular file"));
    }
    if about.len() > MAX_SECRET_FILE {
        return Err(problem("is too long for a password (64 KiB)"));
    }
    Secret::without_newline(fs::read(path).map_err(failed)?).ok_or_else(|| problem("is empty"))
}
