//! The state file, which keeps across a restart: the endpoints that have accepted TLS, so that plaintext to them stays refused; the
//! inventory; and each group's servers, with the time for which no server counted a client in plaintext.
//!
//! The file belongs to one process, except during a handover: what either process learns about TLS is kept, and otherwise what the successor
//! has written. It is replaced as a whole, so that a crash leaves the old file or the new one. A file that cannot be read or parsed is never
//! treated as empty: at the start the caller decides what to do, and later the file is not replaced.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::clients::ClientHistory;
use crate::endpoint::Endpoint;
use crate::moment::{Moment, Quiet};

const VERSION: u32 = 1;

/// A state file and what it holds.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// The number of this run: one more than that of the run whose file it found.
    run: u64,
    contents: Mutex<Contents>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    version: u32,
    /// The run that has written the file last.
    #[serde(default)]
    run: u64,
    /// By endpoint: since when it is known to accept TLS, in RFC 3339.
    tls_since: BTreeMap<String, Moment>,
    #[serde(default)]
    inventory: Option<ClientHistory>,
    /// By the route's name and endpoints.
    #[serde(default)]
    servers: BTreeMap<String, ServersMemory>,
}

/// What an observer of a group's servers keeps across a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServersMemory {
    /// The time for which no server counted a client in plaintext.
    pub quiet: Option<Quiet>,
    /// The addresses at which they were reached.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// The `run_id` of each server that has answered.
    #[serde(default)]
    pub processes: BTreeMap<String, String>,
}

/// Why a state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file exists but cannot be read.
    #[error("state file {path} cannot be read: {source}")]
    Read {
        /// The file.
        path: String,
        /// The system's words.
        source: io::Error,
    },
    /// The file has the wrong content.
    #[error("state file {path} is damaged: {problem}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl StateFile {
    /// Reads `path`. A file that does not exist yet counts as empty.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let name = || path.display().to_string();
        let contents = match read(path) {
            Ok(bytes) => parse(&bytes).map_err(|problem| StateError::Damaged { path: name(), problem })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Contents {
                version: VERSION,
                run: 0,
                tls_since: BTreeMap::new(),
                inventory: None,
                servers: BTreeMap::new(),
            },
            Err(source) => return Err(StateError::Read { path: name(), source }),
        };
        Ok(Self { path: path.to_owned(), run: contents.run + 1, contents: Mutex::new(contents) })
    }

    /// Whether the file could be replaced. Nothing is written.
    pub fn could_write(path: &Path) -> io::Result<()> {
        if fs::metadata(path).is_ok_and(|file| !file.is_file()) {
            return Err(no_file());
        }
        Ok(access(directory(path), Access::WRITE_OK | Access::EXEC_OK)?)
    }

    /// Whether `endpoint` is known to accept TLS.
    pub fn speaks_tls(&self, endpoint: &Endpoint) -> bool {
        let contents = self.contents.lock();
        contents.tls_since.contains_key(&key(endpoint))
    }

    /// Remembers that these endpoints accept TLS.
    pub fn note_tls(&self, endpoints: &[Endpoint]) -> io::Result<()> {
        self.change(false, |contents| {
            for endpoint in endpoints {
                contents.tls_since.entry(key(endpoint)).or_insert_with(Moment::now);
            }
        })
    }

    /// The inventory that was last [kept](Self::keep).
    pub fn inventory(&self) -> Option<ClientHistory> {
        self.contents.lock().inventory.clone()
    }

    /// What was last [kept](Self::keep) about these servers.
    pub fn servers(&self, servers: &str) -> Option<ServersMemory> {
        self.contents.lock().servers.get(servers).cloned()
    }

    /// Keeps the inventory, and what each route's observer knows. `is_last`: the process ends, so what a successor has written stays.
    pub fn keep(
        &self,
        inventory: ClientHistory,
        servers: BTreeMap<String, ServersMemory>,
        is_last: bool,
    ) -> io::Result<()> {
        self.change(is_last, |contents| {
            contents.inventory = Some(inventory);
            contents.servers = servers;
        })
    }

    fn change(&self, is_last: bool, change: impl FnOnce(&mut Contents)) -> io::Result<()> {
        let mut contents = self.contents.lock();
        change(&mut contents);
        contents.run = self.run;
        // During a handover two processes write the file.
        match read(&self.path) {
            Ok(bytes) => {
                let theirs =
                    parse(&bytes).map_err(|problem| io::Error::other(format!("it is damaged: {problem}")))?;
                for (endpoint, since) in theirs.tls_since {
                    contents.tls_since.entry(endpoint).or_insert(since);
                }
                if is_last && theirs.run > self.run {
                    // The successor's inventory and evidence are newer.
                    *contents = Contents { tls_since: std::mem::take(&mut contents.tls_since), ..theirs };
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let bytes = serde_json::to_vec_pretty(&*contents)?;
        replace(&self.path, &bytes)
    }
}

fn no_file() -> io::Error {
    io::Error::other("it is not a regular file")
}

/// Reads a regular file. A directory may have been mounted in its place, and a device may have no end.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.is_file() { fs::read(path) } else { Err(no_file()) }
}

fn key(endpoint: &Endpoint) -> String {
    endpoint.to_string().to_ascii_lowercase()
}

fn parse(bytes: &[u8]) -> Result<Contents, String> {
    let contents: Contents = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match contents.version {
        VERSION => Ok(contents),
        other => Err(format!("its version is {other}, expected {VERSION}")),
    }
}

/// Replaces the file at `path`, so that a crash leaves the old one or the new one.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = directory(path);
    // Its name is unique, because another process may replace the file, too.
    let mut aside = NamedTempFile::new_in(directory)?;
    aside.write_all(bytes)?;
    aside.as_file().sync_all()?;
    aside.persist(path)?;
    // The rename is durable only once the directory is synced.
    File::open(directory)?.sync_all()
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_remembers_tls_regardless_of_the_names_case() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let (known, unknown): (Endpoint, Endpoint) =
            ("cache.example:6379".parse().unwrap(), "other.example:6379".parse().unwrap());
        let state = StateFile::open(&path).unwrap();
        assert!(!state.speaks_tls(&known));
        state.note_tls(std::slice::from_ref(&known)).unwrap();
        let state = StateFile::open(&path).unwrap();
        assert!(state.speaks_tls(&"CACHE.example:6379".parse().unwrap()));
        assert!(!state.speaks_tls(&unknown));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left aside");
    }

    #[test]
    fn what_either_of_two_processes_learns_about_tls_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let (old, new) = (StateFile::open(&path).unwrap(), StateFile::open(&path).unwrap());
        let endpoints: [Endpoint; 2] = ["one:6379".parse().unwrap(), "two:6379".parse().unwrap()];
        new.note_tls(&endpoints[..1]).unwrap();
        old.note_tls(&endpoints[1..]).unwrap();
        let after = StateFile::open(&path).unwrap();
        for endpoint in &endpoints {
            assert!(after.speaks_tls(endpoint), "{endpoint}");
        }
    }

    #[test]
    fn a_process_that_ends_changes_nothing_that_its_successor_has_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let of = |node: &str| {
            let memory = ServersMemory { nodes: vec![node.to_owned()], ..ServersMemory::default() };
            BTreeMap::from([("route".to_owned(), memory)])
        };
        let keep = |state: &StateFile, node: &str, is_last: bool| {
            state.keep(ClientHistory::default(), of(node), is_last).unwrap();
            StateFile::open(&path).unwrap().servers("route").unwrap().nodes.concat()
        };
        let old = StateFile::open(&path).unwrap();
        assert_eq!(keep(&old, "old", false), "old");
        let new = StateFile::open(&path).unwrap();
        assert_eq!(keep(&new, "new", false), "new");
        assert_eq!(keep(&old, "old", true), "new");
        // A successor that failed takes nothing from a process that goes on.
        assert_eq!(keep(&new, "new", true), "new");
        assert_eq!(keep(&old, "old goes on", false), "old goes on");
        assert_eq!(keep(&old, "old ends", true), "old ends");
    }

    #[test]
    fn a_file_that_was_damaged_later_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let state = StateFile::open(&path).unwrap();
        let endpoints: [Endpoint; 2] = ["one:6379".parse().unwrap(), "two:6379".parse().unwrap()];
        state.note_tls(&endpoints[..1]).unwrap();
        let before = fs::read(&path).unwrap();
        fs::write(&path, "{").unwrap();
        assert!(state.note_tls(&endpoints[1..]).unwrap_err().to_string().starts_with("it is damaged"));
        assert_eq!(fs::read(&path).unwrap(), b"{");
        fs::write(&path, before).unwrap();
        state.note_tls(&endpoints[1..]).unwrap();
        let after = StateFile::open(&path).unwrap();
        assert!(endpoints.iter().all(|endpoint| after.speaks_tls(endpoint)));
    }

    #[test]
    fn a_damaged_file_is_not_treated_as_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        for text in ["", "{", "[]", "{\"version\":2,\"tls_since\":{}}", "{\"version\":1}", "\0\0\0\0"] {
            fs::write(&path, text).unwrap();
            assert!(matches!(StateFile::open(&path), Err(StateError::Damaged { .. })), "{text:?}");
        }
        assert!(matches!(StateFile::open(directory.path()), Err(StateError::Read { .. })));
    }
}
