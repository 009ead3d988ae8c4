//! Reads credentials from a command's output.

use std::process::{ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::answer::{SourceAnswer, UnusableAnswer};
use super::source::SourceError;
use crate::printable::printable;

/// A command that runs longer is killed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Size limit of a command's output, in bytes. Longer output is not a password.
const MAX_COMMAND_OUTPUT: usize = 64 * 1024;

/// Number of bytes of standard error that are searched for its first line.
const COMPLAINT: usize = 1024;

/// Runs `words`, a program and its arguments. It prints the credentials of the user `username`, if one is configured.
pub(super) async fn run(words: &[String], username: Option<&str>) -> Result<SourceAnswer, SourceError> {
    run_within(TIMEOUT, words, username).await
}

async fn run_within(
    limit: Duration,
    words: &[String],
    username: Option<&str>,
) -> Result<SourceAnswer, SourceError> {
    let (program, arguments) = words.split_first().expect("validated: a command is not empty");
    let failed = |problem: String| SourceError::Command { program: program.clone(), problem };
    let spawned = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A process group of its own lets pontoon kill the program together with all that it starts.
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let child = spawned.map_err(|error| failed(format!("cannot be started: {error}")))?;
    let mut group = ProcessGroup(child);
    let Ok(ended) = timeout(limit, group.outcome()).await else {
        group.kill();
        // The program was killed; this reaps it.
        let _ = group.0.wait().await;
        return Err(failed(format!("did not end within {}", humantime::format_duration(limit))));
    };
    let ended = ended.map_err(|error| failed(format!("cannot be waited for: {error}")))?;
    let said = if ended.complaint.is_empty() { String::new() } else { format!(": {}", ended.complaint) };
    if !ended.status.success() {
        return Err(failed(format!("failed ({}){said}", ended.status)));
    }
    if ended.printed.len() > MAX_COMMAND_OUTPUT {
        return Err(failed("printed more than 64 KiB, which is too long for a password".into()));
    }
    SourceAnswer::parse(ended.printed, username, SystemTime::now()).map_err(|problem| {
        let said = if problem == UnusableAnswer::Empty { said } else { String::new() };
        failed(format!("printed {problem}{said}"))
    })
}

/// A child process and all that it started.
struct ProcessGroup(Child);

struct ProgramOutput {
    status: ExitStatus,
    printed: Zeroizing<Vec<u8>>,
    /// The first line that it wrote to standard error.
    complaint: String,
}

impl ProcessGroup {
    async fn outcome(&mut self) -> std::io::Result<ProgramOutput> {
        let (stdout, stderr) = (self.0.stdout.take(), self.0.stderr.take());
        let printed = beginning(stdout, MAX_COMMAND_OUTPUT + 1);
        let complaint = beginning(stderr, COMPLAINT);
        let (printed, complaint, status) = tokio::try_join!(printed, complaint, self.0.wait())?;
        let complaint = String::from_utf8_lossy(&complaint);
        let line = complaint.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        let complaint = printable(line).into_owned();
        Ok(ProgramOutput { status, printed, complaint })
    }

    fn kill(&self) {
        let pid = self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // The task that waited for the program was cancelled. A program that ended and was reaped has no id.
        self.kill();
    }
}

/// The first `most` bytes. The rest is read and dropped, so that the writer does not block.
async fn beginning(from: Option<impl AsyncRead + Unpin>, most: usize) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let Some(mut from) = from else { return Ok(Zeroizing::default()) };
    // Allocated at its final size: a buffer that grows leaves copies behind.
    let mut kept = Zeroizing::new(Vec::with_capacity(most));
    (&mut from).take(most as u64).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(limit: Duration, script: &str) -> Result<SourceAnswer, String> {
        let words = ["sh", "-c", script].map(str::to_owned);
        run_within(limit, &words, None).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn the_output_without_its_newline_is_the_secret() {
        assert_eq!(shell(TIMEOUT, "echo hunter2").await.unwrap().secret.expose(), b"hunter2");
        assert_eq!(shell(TIMEOUT, "printf ' a b '").await.unwrap().secret.expose(), b" a b ");
    }

    #[tokio::test]
    async fn an_error_shows_the_commands_stderr_but_never_its_output() {
        let error =
            shell(TIMEOUT, "echo hunter2; echo; echo 'access denied' >&2; echo more >&2; exit 3").await;
        assert_eq!(error.unwrap_err(), "the command sh failed (exit status: 3): access denied");
        let error = shell(TIMEOUT, "echo quiet >&2").await.unwrap_err();
        assert_eq!(error, "the command sh printed nothing: quiet");
        let error = run(&["/nonexistent/secret-manager".to_owned()], None).await.unwrap_err().to_string();
        assert!(error.contains("cannot be started: No such file"), "{error}");
    }

    #[tokio::test]
    async fn endless_output_is_refused_and_takes_bounded_memory() {
        let error = shell(TIMEOUT, "head -c 10000000 /dev/zero").await.unwrap_err();
        assert!(error.contains("printed more than 64 KiB"), "{error}");
    }

    #[tokio::test]
    async fn a_command_that_does_not_end_is_killed_with_its_children_and_reaped() {
        let directory = tempfile::tempdir().unwrap();
        let pids = directory.path().join("pids");
        let script = format!("sleep 600 & echo $$ $! > {}; wait", pids.display());
        let error = shell(Duration::from_millis(500), &script).await.unwrap_err();
        assert!(error.contains("did not end within 500ms"), "{error}");
        for pid in std::fs::read_to_string(pids).unwrap().split_whitespace() {
            // init reaps the orphan, which may take a moment.
            let status = format!("/proc/{pid}/stat");
            let gone = || std::fs::read_to_string(&status).map_or(true, |stat| stat.contains(") Z "));
            while !gone() {
                tokio::task::yield_now().await;
            }
        }
    }
}
