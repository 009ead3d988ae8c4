//! Looks for addresses of servers in what a client gets.

/// Fields of replies that show a server's address, by the text that they begin with. No client library connects to it.
/// docs/clusters.md and docs/sentinel.md say why, and list the commands that tests do not ask.
const EXCEPTIONS: [&str; 3] = [
    // CLIENT LIST, CLIENT INFO: the two ends of a connection. A replica also lists its connection to its primary.
    "addr=", "laddr=", // INFO: where the server itself listens.
    "listener",
];

/// Asserts that `reply` names no host of `domain`, and none of these ports of servers.
#[track_caller]
pub fn assert_reveals_no_address<R>(request: &[R], reply: &[u8], domain: &str, ports: &[u16])
where
    R: AsRef<str> + std::fmt::Debug,
{
    let reply = String::from_utf8_lossy(reply);
    let fields =
        reply.split([' ', '\n']).filter(|field| !EXCEPTIONS.iter().any(|begin| field.starts_with(begin)));
    let text = fields.collect::<Vec<_>>().join(" ");
    assert!(!text.contains(domain), "{request:?}: {reply}");
    let is_digit = |at: usize| text.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
    for port in ports.iter().map(ToString::to_string) {
        for (at, _) in text.match_indices(&port) {
            // A host stands shortly before its port, and other numbers may be equal to a port.
            let before = &text.as_bytes()[at.saturating_sub(48)..at];
            let is_number = !is_digit(at.wrapping_sub(1)) && !is_digit(at + port.len());
            let follows_host = [&b"127.0.0.1"[..], b"?", b"host"]
                .iter()
                .any(|host| before.windows(host.len()).any(|part| part == *host));
            assert!(!(is_number && follows_host), "{request:?}: port {port}: {reply}");
        }
    }
}
