//! Which processes are connected to which ports of this machine, according to the kernel.

use std::collections::{BTreeSet, HashSet};
use std::fs;

/// The processes that have connections to these ports of 127.0.0.1.
pub fn connected_to(ports: &[u16]) -> BTreeSet<u32> {
    let sockets: HashSet<String> = fs::read_to_string("/proc/net/tcp")
        .unwrap()
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let port = u16::from_str_radix(fields[2].split_once(':')?.1, 16).ok()?;
            let established = fields[3] == "01";
            (established && ports.contains(&port)).then(|| format!("socket:[{}]", fields[9]))
        })
        .collect();
    let is_one = |path: std::path::PathBuf| {
        fs::read_link(path).is_ok_and(|link| sockets.contains(&*link.to_string_lossy()))
    };
    let processes = fs::read_dir("/proc").unwrap().map_while(Result::ok);
    let connected = processes.filter_map(|process| {
        let id = process.file_name().to_str()?.parse().ok()?;
        // The process may have ended by now, or belong to another user.
        let mut descriptors = fs::read_dir(process.path().join("fd")).ok()?.map_while(Result::ok);
        descriptors.any(|descriptor| is_one(descriptor.path())).then_some(id)
    });
    connected.collect()
}
