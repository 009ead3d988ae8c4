//! An `/etc/hosts` for the program under test: names of this machine that appear and vanish.

use std::fs::OpenOptions;
use std::io::Write;
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

    /// These names, and no others.
    pub fn set(&self, names: &[&str]) {
        let mut all = self.names.lock().unwrap();
        *all = names.iter().map(|&name| name.to_owned()).collect();
        write(&self.path(), &all);
    }

    /// This name, too.
    pub fn add(&self, name: &str) {
        let mut all = self.names.lock().unwrap();
        all.push(name.to_owned());
        write(&self.path(), &all);
    }
}

/// In one piece: whoever reads the file finds the names of before or these. In place, because it is mounted.
fn write(path: &Path, names: &[String]) {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
    let line = format!("127.0.0.1 localhost {}", names.join(" "));
    assert!(line.len() <= 1000, "a shorter one would leave the end of a longer one");
    file.write_all(format!("{line:<1000}\n").as_bytes()).unwrap();
}
