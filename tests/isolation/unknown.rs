//! A command that pontoon does not know may leave any state on the connection, if it succeeds.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::{ServerConnection, StreamOwned};

use super::{DEDICATED, ONE_THREAD, SHARED, bridge, reused, settle};
use crate::harness::{Authority, Fake, Pontoon, command, eventually};

/// A server that accepts every command, even those that no real server knows. After one of these its connection refuses all others but
/// RESET, so that a client notices that it got that connection.
fn accepting() -> (Authority, Fake) {
    let authority = Authority::new();
    let config = authority.issue(&["localhost"]).server_config();
    let fake = Fake::start(move |stream, _| {
        let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
        let (mut buffer, mut unread, mut weird) = ([0; 4096], Vec::new(), false);
        while let Ok(n @ 1..) = tls.read(&mut buffer) {
            unread.extend_from_slice(&buffer[..n]);
            let mut answer = Vec::new();
            while let Some((words, length)) = whole_command(&unread) {
                unread.drain(..length);
                let said = words.join(" ").to_ascii_uppercase();
                answer.extend_from_slice(match words[0].as_str() {
                    "RESET" => b"+RESET\r\n",
                    // This server does not list its commands.
                    "COMMAND" => b"-ERR not here\r\n",
                    _ if weird => b"-ERR this connection has served another client\r\n",
                    "PING" => b"+PONG\r\n",
                    _ => b"+OK\r\n",
                });
                weird |= UNKNOWN.iter().any(|unknown| unknown.join(" ").eq_ignore_ascii_case(&said));
            }
            if tls.write_all(&answer).is_err() {
                return;
            }
        }
    });
    (authority, fake)
}

/// Whether the next client gets the connection of a client whose last words were these.
fn is_reused_after(last_words: &[u8], sharing: &[&str]) -> bool {
    let (authority, fake) = accepting();
    let pontoon = Pontoon::with(&fake.endpoint(), &authority, &[&ONE_THREAD[..], sharing].concat()).ready();
    let mut first = pontoon.client();
    first.send(last_words);
    first.expect_next("+OK\r\n");
    let ended = || pontoon.metric("pontoon_sessions_total", "");
    let before = ended();
    drop(first);
    eventually("the session ends", || ended() > before);
    // In shared mode, MULTI pins the second, and the third needs a connection in RESP3.
    [&["SET", "k", "v"][..], &["MULTI"], &["HELLO", "3"]].into_iter().any(|words| {
        let mut next = pontoon.client();
        let reply = next.ask(words);
        reply.starts_with(b"-") || next.ask(&["SET", "k", "v"]).starts_with(b"-")
    })
}

/// The words of the first command in `bytes`, an array of bulk strings or a line, and its length.
fn whole_command(bytes: &[u8]) -> Option<(Vec<String>, usize)> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    if !text.starts_with('*') {
        let (line, _) = text.split_once("\r\n")?;
        return Some((line.split(' ').map(str::to_owned).collect(), line.len() + 2));
    }
    let count: usize = text.strip_prefix('*')?.split("\r\n").next()?.parse().ok()?;
    let lines: Vec<&str> = text.split("\r\n").take(1 + 2 * count).collect();
    let length = lines.iter().map(|line| line.len() + 2).sum();
    let is_whole = lines.len() == 1 + 2 * count && bytes.len() >= length;
    is_whole.then(|| (lines[2..].iter().step_by(2).map(|word| (*word).to_owned()).collect(), length))
}

/// Commands that no version of any server knows, in every way to write them.
const UNKNOWN: &[&[&str]] = &[
    &["WEIRD"],
    &["WEIRD", "x"],
    &["weird.command", "x"],
    &["CLIENT", "WEIRD", "x"],
    &["client", "weird", "x"],
    &["A-NAME-THAT-IS-LONGER-THAN-ANY-COMMAND", "x"],
];

#[test]
fn a_connection_is_not_reused_after_an_unknown_command_succeeds() {
    let mut reused = Vec::new();
    for words in UNKNOWN {
        let inline = format!("{}\r\n", words.join(" ")).into_bytes();
        for sharing in [DEDICATED, SHARED] {
            let ways = [("an array", command(words)), ("a line", inline.clone())];
            let found = ways.into_iter().filter(|(_, bytes)| is_reused_after(bytes, &sharing));
            reused.extend(found.map(|(way, _)| format!("{}: {} as {way}", sharing[1], words.join(" "))));
        }
    }
    assert!(reused.is_empty(), "connections are reused after {reused:#?}");
}

#[test]
fn a_connection_is_reused_after_the_server_refuses_an_unknown_command() {
    let (redis, pontoon) = bridge(&DEDICATED);
    let mut direct = redis.direct();
    let commands = UNKNOWN.iter().filter(|words| !words[0].eq_ignore_ascii_case("CLIENT"));
    for (n, words) in commands.enumerate() {
        let mut client = pontoon.client();
        assert!(client.ask(words).starts_with(b"-ERR unknown"), "{words:?}");
        drop(client);
        settle(&pontoon, &mut direct, 1);
        pontoon.client().expect(&["PING"], "+PONG\r\n");
        settle(&pontoon, &mut direct, 1);
        assert_eq!(reused(&pontoon), 2 * n as u64 + 1, "after {words:?}");
    }
}
