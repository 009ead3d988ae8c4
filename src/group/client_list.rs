//! Parses `CLIENT LIST`: one line per client, with `name=value` fields that differ from engine to engine.

/// A client's line. A field that the engine does not report is empty or `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientListEntry<'a> {
    /// The server's ID of the connection.
    pub id: u64,
    /// The client's address and port.
    pub addr: &'a str,
    /// The server's address and port that the client connected to; since Redis 6.2.
    pub laddr: &'a str,
    /// Age of the connection in seconds.
    pub age: u64,
    /// One letter each: `S` for a replica, `M` for the primary, `O` for MONITOR, `P` for Pub/Sub.
    pub flags: &'a str,
    /// The name set by CLIENT SETNAME.
    pub name: &'a str,
    /// The ACL user.
    pub user: &'a str,
    /// The library name set by CLIENT SETINFO LIB-NAME; `None` before Redis 7.2, which does not have it.
    pub lib_name: Option<&'a str>,
    /// The library version set by CLIENT SETINFO LIB-VER; since Redis 7.2.
    pub lib_ver: &'a str,
    /// The last command; empty if the client has sent none.
    pub cmd: &'a str,
}

impl ClientListEntry<'_> {
    /// Whether the connection belongs to replication and is no client.
    pub fn is_replication(&self) -> bool {
        self.flags.contains(['S', 'M'])
    }

    /// Returns the client's address without the port; IPv6 without brackets.
    pub fn ip(&self) -> &str {
        let host = self.addr.rsplit_once(':').map_or(self.addr, |(host, _)| host);
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }
}

/// Parses the clients of a reply. Skips lines without an ID.
pub fn parse(text: &str) -> impl Iterator<Item = ClientListEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut client = ClientListEntry::default();
        // Names contain no spaces, because the server refuses them.
        for field in line.split(' ') {
            let Some((name, value)) = field.split_once('=') else { continue };
            match name {
                "id" => client.id = value.parse().ok()?,
                "addr" => client.addr = value,
                "laddr" => client.laddr = value,
                "age" => client.age = value.parse().unwrap_or(0),
                "flags" => client.flags = value,
                "name" => client.name = value,
                "user" => client.user = value,
                "lib-name" => client.lib_name = Some(value),
                "lib-ver" => client.lib_ver = value,
                "cmd" if value != "NULL" => client.cmd = value,
                _ => {}
            }
        }
        (client.id > 0).then_some(client)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_old_and_new_engines_are_read_alike() {
        let text = "id=3 addr=10.0.0.7:50522 laddr=10.0.0.1:6379 fd=8 name= age=12 idle=0 flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf=26 events=r cmd=client|list user=default redir=-1 resp=2\n\
            id=4 addr=[fd00::7]:50524 laddr=[fd00::1]:6379 fd=9 name=web age=90061 idle=3 flags=P db=0 cmd=NULL user=app lib-name=redis-py lib-ver=5.0.1 io-thread=0 tot-net-in=26\n\
            id=5 addr=10.0.0.2:6379 flags=S\n\
            id=6 addr=/run/redis.sock:0 flags=U a=b=c stray\n\
            \n\
            something else\n";
        let clients: Vec<_> = parse(text).collect();
        assert_eq!(clients.len(), 4);
        assert_eq!((clients[0].ip(), clients[0].age, clients[0].lib_name), ("10.0.0.7", 12, None));
        assert_eq!((clients[0].cmd, clients[1].cmd), ("client|list", ""));
        assert_eq!((clients[1].ip(), clients[1].name, clients[1].user), ("fd00::7", "web", "app"));
        assert_eq!((clients[1].lib_name, clients[1].lib_ver), (Some("redis-py"), "5.0.1"));
        assert_eq!((clients[0].laddr, clients[1].laddr), ("10.0.0.1:6379", "[fd00::1]:6379"));
        assert!(clients[2].is_replication() && !clients[1].is_replication());
        assert_eq!(clients[3].ip(), "/run/redis.sock");
    }
}
