//! Sends a client its last bytes, and closes so that they can arrive.

use std::future::poll_fn;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::outbox::Outbox;
use crate::downstream::ClientStream;
use crate::resp::replies;

/// How long a client may take to accept its last bytes, and how long it may then go on to send.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client may be silent, after pontoon has closed its own side, before pontoon closes the connection.
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

/// Half-closes, and waits for the client to close, too: while it goes on to send, and for a moment of silence. Bytes that arrive at a closed
/// socket reset the connection, which destroys replies that the client has not read yet.
pub(super) async fn close(mut client: ClientStream) {
    let drained = async {
        client.shutdown().await?;
        let mut sink = [0; 1024];
        while matches!(timeout(CLOSE_LINGER, client.read(&mut sink)).await, Ok(Ok(1..))) {}
        Ok::<_, std::io::Error>(())
    };
    let _ = timeout(FAREWELL_TIMEOUT, drained).await;
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::downstream::Accepted;

    /// How long a connection stays open for a client that sends once per `pause`, `times` times.
    async fn open_for(times: u32, pause: Duration) -> Duration {
        let (client, mut other) = UnixStream::pair().unwrap();
        let began = Instant::now();
        let sending = async {
            for _ in 0..times {
                sleep(pause).await;
                let _ = other.write_all(b"PING\r\n").await;
            }
        };
        let closed = async {
            close(Accepted::unix(client).into_stream().unwrap()).await;
            began.elapsed()
        };
        tokio::join!(closed, sending).0
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_goes_on_to_send_can_still_read_its_replies() {
        let pause = Duration::from_millis(700);
        let open = open_for(4, pause).await;
        assert!(open >= 4 * pause, "{open:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_closes_does_not_keep_the_connection_open() {
        assert!(open_for(0, CLOSE_LINGER).await <= CLOSE_LINGER + Duration::from_millis(10));
        let open = open_for(100, Duration::from_millis(700)).await;
        assert!(open <= FAREWELL_TIMEOUT + Duration::from_millis(10), "{open:?}");
    }
}
