//! An `/etc/hosts` for the program under test: names of this machine that appear and vanish.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tempfile::TempDir;

pub struct Hosts {
    directory: TempDir,
    names: Mutex<Vec<String>>,
}

impl Hosts {
    pub fn new(names: &[&str]) -> Self {
        let hosts = Self { directory: tempfile::tempdir().unwrap(), names: Mutex::default() };
        hosts.set(names);
        hosts
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("hosts")
    }

    /// Replaces all names by these.
    pub fn set(&self, names: &[&str]) {
        let mut all = self.names.lock().unwrap();
        *all = names.iter().map(|&name| name.to_owned()).collect();
        write(&self.path(), &local(&all));
    }

    /// Leaves only this name, with these addresses.
    pub fn set_addresses(&self, name: &str, addresses: &[SocketAddr]) {
        let lines: Vec<String> =
            addresses.iter().map(|address| format!("{} {name}\n", address.ip())).collect();
        write(&self.path(), &lines.concat());
    }

    /// Adds this name.
    pub fn add(&self, name: &str) {
        let mut all = self.names.lock().unwrap();
        all.push(name.to_owned());
        write(&self.path(), &local(&all));
    }
}

fn local(names: &[String]) -> String {
    format!("127.0.0.1 localhost {}", names.join(" "))
}

/// Writes in one piece: a reader finds either the earlier names or these. Writes in place, because the file is mounted.
fn write(path: &Path, lines: &str) {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
    assert!(lines.len() <= 1000, "shorter ones would leave the end of longer ones");
    file.write_all(format!("{lines:<1000}\n").as_bytes()).unwrap();
}
