//! HTTP requests to the admin server byte by byte, so that tests can also send malformed ones.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use super::{PATIENCE, uninterrupted};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Status line and header, in lower case.
    pub head: String,
    pub body: String,
}

/// Sends these bytes to a TCP address and reads until the server closes; `None` if it closes without an answer.
pub fn send(address: SocketAddr, bytes: &[u8]) -> Option<Answer> {
    exchange(connect(address), bytes)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// As [`send`], over a Unix socket.
pub fn send_unix(path: &Path, bytes: &[u8]) -> Option<Answer> {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    exchange(stream, bytes)
}

/// Sends a request without a body, with these header lines, and returns the answer.
pub fn ask(address: SocketAddr, request_line: &str, header: &[(&str, &str)]) -> Answer {
    let bytes = request(request_line, header);
    let began = Instant::now();
    let (answer, end) = read_answer(connect(address), bytes.as_bytes());
    parse(&answer).unwrap_or_else(|| {
        panic!("no answer to {bytes}within {:?}: read {answer:?}, then {end:?}", began.elapsed())
    })
}

pub fn request(request_line: &str, header: &[(&str, &str)]) -> String {
    let mut text = format!("{request_line} HTTP/1.1\r\nConnection: close\r\n");
    for (name, value) in header {
        text.extend([name, ": ", value, "\r\n"]);
    }
    text + "\r\n"
}

fn exchange(stream: impl Read + Write, bytes: &[u8]) -> Option<Answer> {
    parse(&read_answer(stream, bytes).0)
}

/// Returns what the server sent, and how the connection ended.
fn read_answer(mut stream: impl Read + Write, bytes: &[u8]) -> (String, io::Result<()>) {
    // The server may stop reading before all is sent, and a reset may follow its answer.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    let end = loop {
        match uninterrupted(|| stream.read(&mut chunk)) {
            Ok(0) => break Ok(()),
            Ok(count) => answer.extend(&chunk[..count]),
            Err(error) => break Err(error),
        }
    };
    (String::from_utf8(answer).unwrap(), end)
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_lowercase(), body: body.to_owned() })
}
