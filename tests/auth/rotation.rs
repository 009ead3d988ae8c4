//! A server that learns of a new secret at the worst moment.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::{ServerConnection, StreamOwned};

use super::{NEW, OLD, Password, WRONGPASS};
use crate::harness::{Authority, Fake, Pontoon};

/// Accepts the old password until it has refused the new one; from then on it accepts only the new one.
fn told_between_two_attempts(authority: &Authority) -> Fake {
    let config = authority.issue(&["localhost"]).server_config();
    let (is_told, refusal) = (AtomicBool::new(false), format!("-{WRONGPASS}\r\n"));
    Fake::start(move |stream, _| {
        let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = tls.read(&mut buffer) {
            let asked = String::from_utf8_lossy(&buffer[..n]).into_owned();
            let mut answer = "+RESET\r\n".repeat(asked.matches("\r\nRESET\r\n").count());
            if asked.contains("\r\nAUTH\r\n") {
                let told = is_told.load(Ordering::SeqCst);
                let right = asked.contains(if told { NEW } else { OLD });
                answer += if right { "+OK\r\n" } else { &refusal };
                is_told.store(told || asked.contains(NEW), Ordering::SeqCst);
            }
            answer += &"+OK\r\n".repeat(asked.matches("SETINFO").count());
            answer += &"+PONG\r\n".repeat(asked.matches("PING").count());
            if tls.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

#[test]
fn a_server_that_rotates_between_two_attempts_refuses_no_client() {
    let authority = Authority::new();
    let (fake, password) = (told_between_two_attempts(&authority), Password::new(OLD));
    let path = password.path();
    // Connections in reserve would meet that moment before the client does.
    let args = ["--pool-reuse", "false", "--auth-username", "app", "--auth-password-file"];
    let args = [&args[..], &[path.to_str().unwrap()]].concat();
    let pontoon = Pontoon::with(&fake.endpoint(), &authority, &args).ready();
    pontoon.client().expect(&["PING"], "+PONG\r\n");
    password.replace(NEW);
    pontoon.wait_for_log("credentials changed");
    for _ in 0..3 {
        pontoon.client().expect(&["PING"], "+PONG\r\n");
    }
    assert_eq!(pontoon.metric("pontoon_upstream_connect_errors_total", ""), 0);
}
