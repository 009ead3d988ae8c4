//! What a server says before it closes a connection reaches the client unchanged, and nothing comes after it.

use crate::harness::{Authority, Pontoon, Redis, Wire, command, eventually};

const MODES: [[&str; 4]; 2] =
    [["--sharing", "dedicated", "--workers", "1"], ["--sharing", "shared", "--workers", "1"]];

/// Requests that make a server close the connection.
fn causes() -> Vec<Vec<u8>> {
    let ping = command(&["PING"]);
    vec![
        b"*x\r\n".to_vec(),
        b"*1\r\n$536870913\r\n".to_vec(),
        b"*1\r\n$x\r\n".to_vec(),
        b"*1\r\nPING\r\n".to_vec(),
        [&ping[..], b"*1\r\n$536870913\r\n", &ping].concat(),
        [&ping[..], b"*2\r\n$3\r\nGET\r\n:1\r\n", &ping, &ping].concat(),
        b"SET k \"unbalanced\r\nPING\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        [command(&["QUIT"]), ping.clone()].concat(),
        [&ping[..], &command(&["QUIT"]), &ping, &ping].concat(),
    ]
}

/// Everything that the client receives until the end. The server may have closed before it read all that the client sent.
fn all_after(mut client: Wire, cause: &[u8], finishes: bool) -> String {
    client.send(cause);
    if finishes {
        let _ = client.try_finish();
    }
    String::from_utf8(client.rest()).unwrap()
}

#[test]
fn a_servers_last_words_are_the_last_that_a_client_gets() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    for mode in MODES {
        let pontoon = Pontoon::with(&redis.endpoint(), &authority, &mode);
        for cause in causes() {
            for finishes in [false, true] {
                let direct = all_after(redis.direct(), &cause, finishes);
                let bridged = all_after(pontoon.client(), &cause, finishes);
                // In shared mode a request is answered before one that closes is sent.
                let earlier = "-ERR wrong number of arguments for 'get' command\r\n";
                let bridged =
                    bridged.strip_prefix(earlier).filter(|rest| *rest == direct).unwrap_or(&bridged);
                let cause = cause.escape_ascii();
                assert_eq!(bridged, direct, "{mode:?}, {cause}, with its end: {finishes}");
            }
        }
    }
}

#[test]
fn a_close_that_a_client_caused_leaves_other_clients_connections_open() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    for mode in MODES {
        let args = [&mode[..], &["--pool-warm", "true", "--pool-warm-min", "8"]].concat();
        let pontoon = Pontoon::with(&redis.endpoint(), &authority, &args);
        eventually("connections are kept ready", || idle(&pontoon) >= 8);
        for cause in causes() {
            all_after(pontoon.client(), &cause, false);
        }
        assert_eq!(pontoon.metric("pontoon_upstream_discards_total", "reason=\"retired\""), 0, "{mode:?}");
        assert_eq!(pontoon.log_count("ready connections"), 0, "{mode:?}");
    }
}

fn idle(pontoon: &Pontoon) -> u64 {
    pontoon.metric("pontoon_upstream_connections", "state=\"idle\"")
}
