//! Finds the process of this machine at the other end of a connection, from `/proc`.
//!
//! This is expensive, because it walks the descriptors of every process. `inventory` decides when to do it. A process that `/proc` does not
//! show stays unknown, which is no error: without a shared process namespace, `/proc` does not show another container's processes.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::container::container;
use super::text::clean;

/// A process. Unknown fields are `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Process {
    /// Its PID, in pontoon's own namespace.
    pub pid: Option<u32>,
    /// The user that it runs as.
    pub uid: Option<u32>,
    /// The name of its command.
    pub name: Option<Box<str>>,
    /// The ID of its container.
    pub container: Option<Box<str>>,
}

impl Process {
    /// Whether any field is known.
    pub(super) fn is_known(&self) -> bool {
        *self != Self::default()
    }

    /// Reads the process from `/proc`.
    pub(super) fn of(pid: u32, uid: Option<u32>) -> Self {
        let directory = format!("/proc/{pid}");
        let read = |file: &str| fs::read(format!("{directory}/{file}")).unwrap_or_default();
        let cgroup = String::from_utf8_lossy(&read("cgroup")).into_owned();
        Self {
            pid: Some(pid),
            uid: uid.or_else(|| fs::metadata(&directory).map(|metadata| metadata.uid()).ok()),
            name: clean(&read("comm")),
            container: container(&cgroup).map(Into::into),
        }
    }
}

/// The two ends of a connection: the client's address, and the address that it connected to.
pub(super) type Ends = (SocketAddr, SocketAddr);

/// Finds the processes that hold the clients' ends of these connections. If no descriptor leads to a process, the user may still be known.
pub(super) fn find(connections: &[Ends]) -> HashMap<Ends, Arc<Process>> {
    let asked: HashSet<&Ends> = connections.iter().collect();
    let mut sockets: HashMap<Ends, ProcSocket> = HashMap::new();
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let Ok(file) = File::open(table) else { continue };
        for line in BufReader::new(file).lines().map_while(Result::ok) {
            if let Some(socket) = ProcSocket::parse(&line).filter(|socket| asked.contains(&socket.ends)) {
                sockets.insert(socket.ends, socket);
            }
        }
    }
    let owners = owners(sockets.values().map(|socket| socket.inode));
    let owner = |socket: &ProcSocket| {
        let known = owners.get(&socket.inode).cloned().flatten();
        known.unwrap_or_else(|| Arc::new(Process { uid: Some(socket.uid), ..Process::default() }))
    };
    sockets.values().map(|socket| (socket.ends, owner(socket))).collect()
}

/// Finds the process that holds each of these sockets, by the socket's inode. `None` if `/proc` does not show it.
pub fn owners(inodes: impl Iterator<Item = u64>) -> HashMap<u64, Option<Arc<Process>>> {
    let mut owners: HashMap<_, _> = inodes.map(|inode| (inode, None)).collect();
    let mut missing = owners.len();
    if missing > 0 {
        walk(Path::new("/proc"), &mut owners, &mut missing);
    }
    owners
}

/// Searches the descriptors of all processes until every socket has its owner.
fn walk(proc: &Path, owners: &mut HashMap<u64, Option<Arc<Process>>>, missing: &mut usize) {
    for process in fs::read_dir(proc).into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let mut found: Option<Arc<Process>> = None;
        for descriptor in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let inode = target.to_str().and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']'));
            let Some(inode) = inode.and_then(|inode| inode.parse().ok()) else { continue };
            // Several processes may have inherited a descriptor. The first one found is enough.
            if let Some(owner @ None) = owners.get_mut(&inode) {
                let process = found.get_or_insert_with(|| Arc::new(Process::of(pid, None)));
                *owner = Some(Arc::clone(process));
                *missing -= 1;
                if *missing == 0 {
                    return;
                }
            }
        }
    }
}

/// A line of `/proc/net/tcp`: an established connection as its owner sees it.
#[derive(Debug, PartialEq, Eq)]
struct ProcSocket {
    ends: Ends,
    uid: u32,
    inode: u64,
}

impl ProcSocket {
    /// Parses `sl local remote state queues timer retransmits uid timeout inode …`.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let local = address(fields.nth(1)?)?;
        let remote = address(fields.next()?)?;
        if fields.next()? != "01" {
            return None;
        }
        let uid = fields.nth(3)?.parse().ok()?;
        let inode = fields.nth(1)?.parse().ok()?;
        Some(Self { ends: (local, remote), uid, inode })
    }
}

/// Parses an address such as `0100007F:1F90`. Every four bytes of the IP address are a number in native byte order; the port is big-endian
/// hexadecimal. An IPv4 address on an IPv6 socket, as Java uses them, becomes an IPv4 address.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = ip.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?);
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn a_line_of_the_kernels_table_is_parsed_for_either_family() {
        let line = "   1: 0100007F:C350 0100007F:18EB 01 00000000:00000000 00:00000000 00000000  1000        0 98765 1 0000000000000000 20 4 0 10 -1";
        let socket = ProcSocket::parse(line).unwrap();
        let ends = ("127.0.0.1:50000".parse().unwrap(), "127.0.0.1:6379".parse().unwrap());
        assert_eq!(socket, ProcSocket { ends, uid: 1000, inode: 98765 });
        let six = line
            .replace("0100007F:C350", "00000000000000000000000001000000:C350")
            .replace("0100007F:18EB", "0000000000000000FFFF00000100007F:18EB");
        let ends = ProcSocket::parse(&six).unwrap().ends;
        assert_eq!(ends, ("[::1]:50000".parse().unwrap(), "127.0.0.1:6379".parse().unwrap()));
        assert_eq!(ProcSocket::parse(&line.replace(" 01 ", " 0A ")), None, "it listens");
    }

    #[test]
    fn a_malformed_line_of_the_table_is_skipped() {
        for line in [
            "",
            "  sl  local_address rem_address   st",
            "1: ü:1 ü:2 01",
            "1: 0:0 0:0 01 0",
            "1: 0100007F:C350",
        ] {
            assert_eq!(ProcSocket::parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_connection_of_our_own_leads_to_this_process() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // Some machines have no IPv6.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let ends = (client.local_addr().unwrap(), client.peer_addr().unwrap());
            let gone = ("127.0.0.1:1".parse().unwrap(), ends.1);
            let found = find(&[ends, gone]);
            let process = &found[&ends];
            assert_eq!(process.pid, Some(std::process::id()));
            assert_eq!(process.uid, Some(rustix::process::getuid().as_raw()));
            let name = fs::read_to_string("/proc/self/comm").unwrap();
            assert_eq!(process.name.as_deref(), Some(name.trim_end()));
            assert!(!found.contains_key(&gone));
        }
    }
}
