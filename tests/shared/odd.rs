//! Requests that an engine may refuse by closing the connection: they reach it over a dedicated connection of the client that sends them.
//!
//! What engines check is in `networking.c`: `processMultibulkBuffer` (Valkey 9: `parseMultibulk`) and `processInlineBuffer`.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{SHARED, pinned};
use crate::harness::{Authority, Pontoon, Redis, StopOnDrop, Wire, command, eventually, valkey};

/// Number of other clients.
const OTHERS: usize = 20;

/// How often each of the odd requests is sent.
const TIMES: usize = 10;

/// What no client library sends.
const ODD: &[&[u8]] = &[
    // Bytes in place of CR LF after a string. Valkey 9.1 closes the connection, other engines accept the request.
    b"*2\r\n$3\r\nGETxx$1\r\nk\r\n",
    b"*2\r\n$3\r\nGET\r\n$1\r\nkxx",
    b"*2\r\n$3\r\nGET\n\r$1\r\nk\r\n",
    b"*1\r\n$4\r\nPING\n\n",
    b"*1\r\n$4\r\nPING\r\r",
    b"*3\r\n$3\r\nSET\r\n$3\r\nodd\r\n$0\r\nxx",
    b"*1\r\n$5\r\nMULTI\r\n*2\r\n$3\r\nGET\r\n$1\r\nkxx*1\r\n$4\r\nEXEC\r\n",
    b"*2\r\n$6\r\nSELECTxx$1\r\n1\r\n",
    b"*2\r\n$6\r\nNO.SUCxx$1\r\n1\r\n",
    // Invalid strings.
    b"*2\r\n$3\r\nGET\r\n$-1\r\n",
    b"*2\r\n$3\r\nGET\r\n$2\r\nk\r\n",
    b"*2\r\n$3\r\nGET\r\n$0\r\nk\r\n",
    b"*2\r\n$3\r\nGET\r\n:1\r\n",
    b"*2\r\n$3\r\nGET\r\nk\r\n",
    b"*2\r\n$3\r\nGET\r\n*1\r\n$1\r\nk\r\n",
    b"*1\r\n$0\r\n\r\n",
    // Lengths of strings: `proto-max-bulk-len` is 512 MB.
    b"*2\r\n$3\r\nGET\r\n$536870913\r\n",
    b"*2\r\n$3\r\nGET\r\n$99999999999999999999\r\n",
    b"*2\r\n$3\r\nGET\r\n$+1\r\nk\r\n",
    b"*2\r\n$3\r\nGET\r\n$01\r\nk\r\n",
    b"*2\r\n$3\r\nGET\r\n$ 1\r\nk\r\n",
    b"*2\r\n$3\r\nGET\r\n$1 \r\nk\r\n",
    b"*2\r\n$3\r\nGET\r\n$\r\nk\r\n",
    b"*2\r\n$3\r\nGET\r\n$-0\r\nk\r\n",
    b"*2\r\n$3\r\nGET\r\n$?\r\n",
    b"*2\r\n$3\r\nGET\r\n$1\rxk\r\n",
    // Numbers of arguments.
    b"*0\r\n*1\r\n$4\r\nPING\r\n",
    b"*-1\r\n*1\r\n$4\r\nPING\r\n",
    b"*-10\r\n*1\r\n$4\r\nPING\r\n",
    b"*2147483648\r\n$4\r\nPING\r\n",
    b"*99999999999999999999\r\n$4\r\nPING\r\n",
    b"*+1\r\n$4\r\nPING\r\n",
    b"*01\r\n$4\r\nPING\r\n",
    b"* 1\r\n$4\r\nPING\r\n",
    b"*1 \r\n$4\r\nPING\r\n",
    b"*\r\n*1\r\n$4\r\nPING\r\n",
    b"*?\r\n$4\r\nPING\r\n",
    b"*1\rx$4\r\nPING\r\n",
    // Inline requests.
    b"\r\nPING\r\n",
    b"PING\n",
    b"PING\r\r\n",
    b"GET \"k\r\n",
    b"GET 'k'x\r\n",
    b"GET\x0ck\r\n",
    b"GET\x0bk\r\n",
    b"GET\0k\r\n",
    b"\x0cGET k\r\n",
    b"get  k \r\n",
    b"$4\r\nPING\r\n",
    b"\xff\xff\r\n",
    // Engines take this for an attack from a browser.
    b"POST / HTTP/1.1\r\nHost: here\r\n\r\n",
    b"*1\r\n$4\r\nPOST\r\n",
    b"*1\r\n$5\r\nHost:\r\n",
    b"*2\r\n$6\r\nHOST:\0\r\n$1\r\nk\r\n",
];

/// Headers and lines that do not end: an engine reads up to 64 KiB of them.
fn endless() -> Vec<Vec<u8>> {
    let mut all = vec![[b"GET ", &[b'k'; 70_000][..], b"\r\n"].concat(), vec![b'k'; 70_000]];
    for (header, byte) in
        [("*", b'0'), ("*", b'1'), ("*1\r\n$", b'0'), ("*1\r\n$", b'1'), ("*2\r\n$3\r\nGET\r\n", b'x')]
    {
        all.push([header.as_bytes(), &vec![byte; 70_000]].concat());
    }
    all
}

fn odd() -> Vec<Vec<u8>> {
    ODD.iter().map(|form| form.to_vec()).chain(endless()).collect()
}

/// What an engine says before it closes a connection.
const REFUSAL: &str = "-ERR Protocol error";

/// All that a client that sends `form` gets from its server. The client half-closes, unless the engine is known to close.
fn answers(mut client: Wire, form: &[u8], is_refused: bool) -> String {
    // A server that has closed may have reset the connection.
    if client.try_send(form).is_err() || (!is_refused && client.try_finish().is_err()) {
        return String::new();
    }
    let answers = client.rest();
    let lines = answers.split_inclusive(|byte| *byte == b'\n');
    let of_the_server = lines.filter(|line| !line.starts_with(b"-ERR pontoon: connection to "));
    of_the_server.collect::<Vec<_>>().concat().escape_ascii().to_string()
}

/// Counts until stopped, and reports the first reply that is wrong.
fn counts(mut client: Wire, key: &str, stop: &AtomicBool) -> Result<u64, String> {
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        client.try_send(&command(&["INCR", key])).map_err(|error| error.to_string())?;
        client.try_send(&command(&["GET", key])).map_err(|error| error.to_string())?;
        let text = n.to_string();
        for expected in [format!(":{n}\r\n"), format!("${}\r\n{text}\r\n", text.len())] {
            let reply = client.try_reply().map(|reply| String::from_utf8_lossy(&reply).into_owned());
            if reply.as_deref() != Some(&expected) {
                return Err(format!("{key}: {reply:?} in place of {expected:?}"));
            }
        }
    }
    Ok(n)
}

fn bridge_to(engine: &Path) -> (Redis, Pontoon) {
    let authority = Authority::new();
    let mut redis = Redis::of(engine, authority.issue(&["localhost"]), &authority, &[]);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &SHARED);
    redis.keep(authority);
    (redis, pontoon)
}

/// While others count, one client after the other sends odd requests, and gets what it would from the engine itself.
fn odd_requests_hurt_none_but_their_senders(engine: &Path) {
    let (redis, pontoon) = bridge_to(engine);
    let stop = AtomicBool::new(false);
    redis.direct().expect(&["SET", "k", "v"], "+OK\r\n");
    let (differences, counted) = thread::scope(|scope| {
        let end = StopOnDrop(&stop);
        let others: Vec<_> = (0..OTHERS)
            .map(|number| {
                let (client, stop) = (pontoon.client(), &stop);
                scope.spawn(move || counts(client, &format!("n{number}"), stop))
            })
            .collect();
        let mut differences = Vec::new();
        for form in odd() {
            let expected = answers(redis.direct(), &form, false);
            let is_refused = expected.contains(REFUSAL);
            let got = (0..TIMES).map(|_| answers(pontoon.client(), &form, is_refused));
            let different: Vec<String> = got.filter(|got| *got != expected).collect();
            if let Some(got) = different.first() {
                let form = form[..form.len().min(80)].escape_ascii();
                differences.push(format!("{form}: {}x {got:?} in place of {expected:?}", different.len()));
            }
        }
        drop(end);
        let counted: Vec<_> = others.into_iter().map(|other| other.join().unwrap()).collect();
        (differences, counted)
    });
    let hurt: Vec<_> = counted.iter().filter_map(|counted| counted.as_ref().err()).collect();
    assert!(hurt.is_empty() && differences.is_empty(), "{}: {hurt:#?} {differences:#?}", engine.display());
    eventually("no client is pinned", || pinned(&pontoon) == 0);
}

#[test]
fn odd_requests_affect_only_their_senders_on_redis() {
    odd_requests_hurt_none_but_their_senders(Path::new("redis-server"));
}

#[test]
fn odd_requests_affect_only_their_senders_on_valkey() {
    odd_requests_hurt_none_but_their_senders(&valkey());
}
