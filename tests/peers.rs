//! A Unix socket admits only the users and groups that it names.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{getegid, geteuid};
use tempfile::TempDir;

use crate::harness::{Authority, Pontoon, Redis, Wire, command, pontoon};

/// A bridge on a Unix socket with these options, and the socket's path.
fn on_socket(redis: &Redis, authority: &Authority, options: &str) -> (Pontoon, PathBuf, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    // Other users must be able to reach the socket.
    set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let path = directory.path().join("redis.sock");
    let listen = format!("unix:{}?{options}", path.display());
    (Pontoon::with(&redis.endpoint(), authority, &["--listen", &listen]), path, directory)
}

#[test]
fn a_client_whose_user_or_group_is_named_is_served() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let others = format!("uid={}&gid={}", uid + 1, gid + 1);
    for options in [format!("{others}&uid={uid}"), format!("mode=0600&gid={gid}&{others}")] {
        let (_pontoon, path, _directory) = on_socket(&redis, &authority, &options);
        Wire::unix(&path).expect(&["PING"], "+PONG\r\n");
    }
}

#[test]
fn a_client_of_an_unnamed_user_gets_an_error_and_is_logged_once() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let options = format!("uid={}&gid={}", uid + 1, gid + 1);
    let (pontoon, path, _directory) = on_socket(&redis, &authority, &options);
    let text = format!("this socket is not for uid {uid}, gid {gid}");
    pontoon.expects(&format!("client refused, add its uid=… or gid=… to the address to admit it: {text}"));
    for _ in 0..5 {
        let mut client = Wire::unix(&path);
        let _ = client.try_send(&command(&["SET", "k", "v"]));
        client.expect_next(&format!("-ERR pontoon: {text}\r\n"));
        client.expect_end();
    }
    assert_eq!(pontoon.metric("pontoon_clients_refused_total", "reason=\"peer\""), 5);
    assert_eq!(pontoon.metric("pontoon_sessions_total", ""), 0);
    pontoon.expect_one_line(&text);
    redis.direct().expect(&["EXISTS", "k"], ":0\r\n");
}

#[test]
fn a_client_of_another_user_is_recognised() {
    // Only root can run programs as another user.
    if !geteuid().is_root() {
        return;
    }
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let (pontoon, path, _directory) = on_socket(&redis, &authority, "mode=0666&uid=0&uid=33&gid=1000");
    pontoon.expects("this socket is not for uid 34, gid 33");
    let said_to = |uid: &str, gid: &str| {
        let client = ["60", "setpriv", "--reuid", uid, "--regid", gid, "--clear-groups", "redis-cli", "-s"];
        let output = Command::new("timeout").args(client).arg(&path).arg("PING").output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(said_to("33", "33"), "PONG");
    assert_eq!(said_to("34", "1000"), "PONG");
    assert_eq!(said_to("34", "33"), "ERR pontoon: this socket is not for uid 34, gid 33");
}

#[test]
fn a_socket_for_named_users_cannot_be_combined_with_nodes_open_to_all() {
    let listen = "unix:/run/pontoon/redis.sock?uid=1000";
    let output =
        pontoon(&["check", "--offline", "--upstream", "x", "--listen", listen, "--topology", "cluster"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("--listen: uid and gid apply only to a Unix socket"), "{error}");
}
