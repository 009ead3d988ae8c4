//! A Unix socket's file, and how a successor takes its path. The successor's file waits beside it under a longer name. When the old process
//! leaves, it gives the path to the successor. If the old process was killed, the successor takes the path once no process listens there.
//! So a successor gets no client before it is ready, and a successor that ends early causes no loss.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use socket2::{Domain, SockAddr, Socket as RawSocket, Type};

use super::socket::{BindError, is_stale};
use crate::endpoint::ListenAddr;

/// What a successor's file name has after the path.
const SUCCESSOR: &str = ".next";

/// A socket's file, removed on drop unless another file has replaced it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Whether a successor may take the path.
    shared: bool,
    identity: (u64, u64),
}

impl SocketFile {
    /// The file of the socket that is bound to `first` and is to be at `path`.
    pub(super) fn of(path: &Path, first: &Path, shared: bool) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), shared, identity: identity(first)? })
    }

    /// The path of the file at present.
    pub(super) fn now(&self) -> PathBuf {
        if self.waits() { successor(&self.path) } else { self.path.clone() }
    }

    /// Whether another process has the path for now.
    pub(super) fn waits(&self) -> bool {
        self.shared && self.is_at(&successor(&self.path))
    }

    /// Renames the waiting successor's file to the path, so that there is always a file to connect to. Returns whether there was one.
    pub(super) fn hand_over(&self) -> io::Result<bool> {
        let next = successor(&self.path);
        if !self.shared || !self.is_at(&self.path) {
            return Ok(false);
        }
        let Ok(metadata) = fs::symlink_metadata(&next) else { return Ok(false) };
        // In a directory that every user may write, such as /tmp, any user could pose as the successor.
        let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
        if !metadata.file_type().is_socket() || !is_ours || is_dead(&next)? {
            return Ok(false);
        }
        rename(&next, &self.path)
    }

    /// Takes the path once no process listens there.
    pub(super) fn succeed(&self) -> io::Result<()> {
        let is_free = match fs::symlink_metadata(&self.path) {
            Ok(metadata) => metadata.file_type().is_socket() && is_dead(&self.path)?,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if is_free && self.waits() {
            rename(&successor(&self.path), &self.path)?;
        }
        Ok(())
    }

    fn is_at(&self, path: &Path) -> bool {
        identity(path).is_ok_and(|found| found == self.identity)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.hand_over().unwrap_or(false) {
            return;
        }
        for place in [successor(&self.path), self.path.clone()] {
            if self.is_at(&place) {
                let _ = fs::remove_file(place);
            }
        }
    }
}

/// The path that a successor of the process on `path` binds, unless there is one already.
pub(super) fn room_for_successor(path: &Path, address: &ListenAddr) -> Result<PathBuf, BindError> {
    let next = successor(path);
    match is_stale(&next, address) {
        Ok(true) => {
            fs::remove_file(&next).map_err(|source| BindError::Other { address: address.clone(), source })?;
        }
        Ok(false) => {}
        Err(BindError::Live(address, _)) => return Err(BindError::Followed(address)),
        Err(error) => return Err(error),
    }
    Ok(next)
}

/// Whether no process listens on a socket's file. Tries a datagram first, which Linux refuses with another error if a stream socket is
/// there, and which its process does not notice. Does not wait for a full queue.
pub(super) fn is_dead(path: &Path) -> io::Result<bool> {
    for kind in [Type::DGRAM, Type::STREAM] {
        let socket = RawSocket::new(Domain::UNIX, kind, None)?;
        socket.set_nonblocking(true)?;
        let connected = socket.connect(&SockAddr::unix(path)?);
        if !connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn successor(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(SUCCESSOR);
    name.into()
}

/// Renames a file. Returns whether it was there, because another thread may have been first.
fn rename(from: &Path, to: &Path) -> io::Result<bool> {
    match fs::rename(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}
