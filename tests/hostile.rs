//! What a server says cannot steer the terminal of the person who reads it.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use rustls::{ServerConnection, StreamOwned};

use crate::harness::{Authority, Fake, pontoon};

/// Clears the screen, and reverses the direction of the text after it.
const HOSTILE: &str = "\u{1b}[2J\u{9b}2J\u{202e}\u{2066}\u{200b}evil";

/// A server that answers every command with an error of these words.
fn answering_with(words: &'static str, authority: &Authority) -> Fake {
    let config = authority.issue(&["localhost"]).server_config();
    Fake::start(move |stream, _| {
        let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = tls.read(&mut buffer) {
            let commands = buffer[..n].split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"*"));
            let answer = format!("-ERR {words}\r\n").repeat(commands.count());
            if tls.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// Fails if the output contains a character that a reader could not see.
#[track_caller]
fn assert_printable(output: &str) {
    let hidden: Vec<char> = output
        .chars()
        .filter(|c| (c.is_control() && *c != '\n') || "\u{202e}\u{2066}\u{200b}".contains(*c))
        .collect();
    assert!(hidden.is_empty(), "{hidden:?} in {output:?}");
}

#[test]
fn no_command_prints_what_could_steer_a_terminal() {
    let authority = Authority::new();
    let (fake, ca) = (answering_with(HOSTILE, &authority), authority.file());
    let endpoint = fake.endpoint();
    for command in [
        &["check", "--listen", "127.0.0.1:0", "--admin", "off", "--upstream", &endpoint][..],
        &["audit", &endpoint],
        &["probe", &endpoint],
    ] {
        for format in [&[][..], &["--json"]] {
            let output = pontoon(&[command, format, &["--tls-ca-file", &ca]].concat());
            let output = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert_printable(&output);
            let shown = if format.is_empty() { r"\u{1b}[2J\u{9b}2J\u{202e}" } else { r"\u202e" };
            // A probe repeats a server's words only if the server refuses credentials.
            assert!(command[0] == "probe" || output.contains(shown), "{command:?}: {output}");
        }
    }
}

#[test]
fn client_names_in_an_audit_cannot_reverse_text() {
    let authority = Authority::new();
    let list =
        "$70\r\nid=9 addr=10.0.0.1:5 age=1 flags=N name=\u{202e}\u{1b}[31mr\u{e9}d user=default x=1\n\r\n";
    let fake = Fake::counting(&authority, &Arc::new(AtomicU32::new(1)), list);
    for format in [&[][..], &["--json"]] {
        let args = ["audit", &fake.endpoint(), "--tls-ca-file", &authority.file()];
        let output = String::from_utf8(pontoon(&[&args, format].concat()).stdout).unwrap();
        assert_printable(&output);
        assert!(output.contains("[31mr\u{e9}d"), "ordinary characters stay: {output}");
    }
}
