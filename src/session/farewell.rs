//! Sends a client its last bytes, and closes so that they can arrive.

use std::future::poll_fn;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::outbox::Outbox;
use crate::downstream::ClientStream;
use crate::resp::replies;

/// How long a client may take to accept its last bytes.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client may take to close its side after pontoon has closed its own.
const CLOSE_LINGER: Duration = Duration::from_secs(1);

/// Number of errors written at once: few enough to hold in memory, many enough to save system calls.
const ERRORS_PER_WRITE: u64 = 64;

/// Answers `count` requests with one error each, then closes.
pub(super) async fn refuse(mut client: ClientStream, count: u64, reason: &str) {
    let reply = replies::error_reply(reason);
    let batch = reply.repeat(count.min(ERRORS_PER_WRITE) as usize);
    let write = async {
        let mut left = count;
        while left > 0 {
            let now = left.min(ERRORS_PER_WRITE);
            client.write_all(&batch[..reply.len() * now as usize]).await?;
            left -= now;
        }
        Ok::<_, std::io::Error>(())
    };
    if matches!(timeout(FAREWELL_TIMEOUT, write).await, Ok(Ok(()))) {
        close(client).await;
    }
}

/// Sends the output that waits for a client. Returns whether the client took it.
pub(super) async fn deliver(client: &mut ClientStream, output: &mut Outbox) -> bool {
    if output.is_empty() {
        return true;
    }
    let flushed = timeout(FAREWELL_TIMEOUT, poll_fn(|cx| output.poll_flush(cx, client))).await;
    matches!(flushed, Ok(Ok(())))
}

/// Sends `words`, then closes.
pub(super) async fn say(mut client: ClientStream, words: &[u8]) {
    if matches!(timeout(FAREWELL_TIMEOUT, client.write_all(words)).await, Ok(Ok(()))) {
        close(client).await;
    }
}

/// Half-closes, and waits a moment for the client to close, too. Closing a socket with unread bytes resets the connection, which can
/// destroy replies that the client has not read yet.
pub(super) async fn close(mut client: ClientStream) {
    let drained = async {
        client.shutdown().await?;
        let mut sink = [0; 1024];
        while client.read(&mut sink).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    let _ = timeout(CLOSE_LINGER, drained).await;
}
