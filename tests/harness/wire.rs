//! A client's connection, with a deadline on every wait.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pontoon::resp::scanner::{Event, ReplyScanner};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::explained::assert_explained;
use super::{PATIENCE, uninterrupted};

/// A command as an array of bulk strings.
pub fn command<W: AsRef<[u8]>>(words: &[W]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        let word = word.as_ref();
        bytes.extend(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend(word);
        bytes.extend(b"\r\n");
    }
    bytes
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

pub struct Wire {
    stream: Stream,
    received: Vec<u8>,
}

impl Wire {
    pub fn tcp(address: impl ToSocketAddrs) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: Stream::Tcp(stream), received: Vec::new() }
    }

    /// Connects over TLS, and returns once the handshake is done.
    pub fn tls(address: impl ToSocketAddrs, name: &str, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut tls = StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), stream);
        tls.conn.complete_io(&mut tls.sock)?;
        Ok(Self { stream: Stream::Tls(Box::new(tls)), received: Vec::new() })
    }

    pub fn unix(path: &Path) -> Self {
        Self::try_unix(path).unwrap()
    }

    /// As [`unix`](Self::unix), if the server may not be up yet.
    pub fn try_unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: Stream::Unix(stream), received: Vec::new() })
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes),
        }
    }

    /// Sends a command and returns its reply, to the byte.
    pub fn ask<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Vec<u8> {
        self.send(&command(words));
        self.reply()
    }

    /// As [`ask`](Self::ask), if the server may not be up yet.
    pub fn try_ask(&mut self, words: &[&str]) -> Option<Vec<u8>> {
        self.try_send(&command(words)).ok()?;
        self.try_reply()
    }

    /// Asserts that a command gets this reply.
    #[track_caller]
    pub fn expect<W: AsRef<[u8]>>(&mut self, words: &[W], reply: &str) {
        let got = self.ask(words);
        assert_eq!(String::from_utf8_lossy(&got), reply);
    }

    /// Asserts that this reply comes next.
    #[track_caller]
    pub fn expect_next(&mut self, reply: &str) {
        let got = self.reply();
        assert_eq!(String::from_utf8_lossy(&got), reply);
    }

    /// The next frame, to the byte.
    #[track_caller]
    pub fn reply(&mut self) -> Vec<u8> {
        self.try_reply().expect("a reply before the end of the connection")
    }

    /// The next frame; `None` if the connection ended before it was complete.
    #[track_caller]
    pub fn try_reply(&mut self) -> Option<Vec<u8>> {
        loop {
            let (length, event) = ReplyScanner::default().next(&self.received);
            match event {
                Event::Frame => {
                    let reply: Vec<u8> = self.received.drain(..length).collect();
                    assert_explained(&reply);
                    return Some(reply);
                }
                Event::NeedMore => {}
                Event::Malformed => panic!("no RESP: {:?}", String::from_utf8_lossy(&self.received)),
            }
            if self.fill() == 0 {
                return None;
            }
        }
    }

    /// Exactly `length` bytes, whatever their content.
    pub fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.received.len() < length {
            assert!(self.fill() > 0, "the connection ended after {} of {length} bytes", self.received.len());
        }
        self.received.drain(..length).collect()
    }

    /// Everything until the connection ends.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() > 0 {}
        std::mem::take(&mut self.received)
    }

    /// Asserts that the connection ends and nothing comes before.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "received before the end: {:?}", String::from_utf8_lossy(&rest));
    }

    /// Whether nothing arrives for a moment.
    pub fn is_silent(&mut self, moment: Duration) -> bool {
        let Stream::Tcp(stream) = &mut self.stream else { panic!("TCP only") };
        stream.set_read_timeout(Some(moment)).unwrap();
        let silent = matches!(uninterrupted(|| stream.peek(&mut [0])), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        silent && self.received.is_empty()
    }

    /// Half-closes the connection.
    pub fn finish(&mut self) {
        self.try_finish().unwrap();
    }

    /// As [`finish`](Self::finish), on a connection that may be gone.
    pub fn try_finish(&mut self) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tls(_) => panic!("TCP and Unix sockets only"),
        }
    }

    /// Ends the connection by RST, as a process that is killed with unread replies does.
    pub fn reset(self) {
        let stream = match &self.stream {
            Stream::Tcp(stream) => stream,
            Stream::Tls(stream) => &stream.sock,
            Stream::Unix(_) => panic!("TCP only"),
        };
        socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// A second handle, for a thread that writes while this one reads.
    pub fn writer(&self) -> TcpStream {
        let Stream::Tcp(stream) = &self.stream else { panic!("TCP only") };
        stream.try_clone().unwrap()
    }

    /// Reads what is available, and returns its length: 0 at the end, and if the connection was reset.
    fn fill(&mut self) -> usize {
        let mut buffer = vec![0; 64 * 1024];
        let read = uninterrupted(|| match &mut self.stream {
            Stream::Tcp(stream) => stream.read(&mut buffer),
            Stream::Unix(stream) => stream.read(&mut buffer),
            Stream::Tls(stream) => stream.read(&mut buffer),
        });
        let n = match read {
            Ok(n) => n,
            // TLS that ends without close_notify, as Redis' does when it is killed.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return self.fill(),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof) =>
            {
                0
            }
            Err(error) => panic!("reading failed: {error}"),
        };
        self.received.extend_from_slice(&buffer[..n]);
        n
    }
}
