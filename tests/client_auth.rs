//! What a client's own AUTH gets, and how long-lived connections are authenticated again.

use std::fs;
use std::path::Path;

use crate::harness::programs::{printed, python};
use crate::harness::{Authority, CHECK, Pontoon, Redis, Wire, clients_share, command, eventually, pontoon};

const SECRET: &str = "s3rv3r-s3cr3t-of-the-test";
const LOCAL: &str = "l0cal-s3cr3t-of-the-test";
const WRONGPASS: &str = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
const NOAUTH: &str = "-NOAUTH Authentication required.\r\n";

/// A server with a password, and a bridge that has it. The folder has the bridge's files, and must be dropped last.
fn bridge(args: &[&str]) -> (tempfile::TempDir, Redis, Pontoon) {
    let authority = Authority::new();
    let mut redis = Redis::with(authority.issue(&["localhost"]), &authority, &["--requirepass", SECRET]);
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (server, local) = (file("server", SECRET), file("local", LOCAL));
    let mut all = vec!["--auth-password-file", &server];
    if args.contains(&"verify") {
        all.extend(["--auth-local-password-file", &local]);
    }
    all.extend(args);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &all);
    redis.keep(authority);
    (directory, redis, pontoon)
}

fn text(reply: Vec<u8>) -> String {
    String::from_utf8(reply).unwrap()
}

fn works(client: &mut Wire) {
    client.expect(&["SET", "k", "v"], "+OK\r\n");
}

/// Waits until a client is blocked, then pushes the element that it waits for.
fn push_once_blocked(redis: &Redis) {
    let mut direct = redis.direct();
    direct.expect(&["AUTH", SECRET], "+OK\r\n");
    eventually("the client is blocked", || {
        text(direct.ask(&["INFO", "clients"])).contains("blocked_clients:1")
    });
    direct.expect(&["RPUSH", "queue", "job"], ":1\r\n");
}

#[test]
fn a_password_still_configured_in_a_client_does_no_harm() {
    let (_directory, _redis, pontoon) = bridge(&[]);
    let mut client = pontoon.client();
    client.expect(&["AUTH", "left over"], "+OK\r\n");
    client.expect(&["AUTH", "user", "left over"], "+OK\r\n");
    works(&mut client);
    let hello = text(client.ask(&["HELLO", "3", "AUTH", "default", "left over", "SETNAME", "shop"]));
    assert!(hello.starts_with('%') && hello.contains("proto\r\n:3"), "{hello}");
    client.expect(&["CLIENT", "GETNAME"], "$4\r\nshop\r\n");
    client.send(b"AUTH inline\r\n");
    client.expect_next("+OK\r\n");
    works(&mut client);
}

#[test]
fn replies_of_the_bridge_keep_their_order() {
    let (_directory, _redis, pontoon) = bridge(&[]);
    let mut client = pontoon.client();
    let mut pipeline = Vec::new();
    let mut expected = String::new();
    for n in 1..=500 {
        pipeline.extend(command(&["INCR", "n"]));
        pipeline.extend(command(&["AUTH", "x"]));
        pipeline.extend(command(&["ECHO", &"e".repeat(n)]));
        expected.extend([format!(":{n}\r\n+OK\r\n${n}\r\n"), "e".repeat(n), "\r\n".into()]);
    }
    client.send(&pipeline);
    assert_eq!(text(client.exactly(expected.len())), expected);

    // Byte by byte, beginning with AUTH.
    for byte in [command(&["AUTH", "x"]), command(&["GET", "n"]), command(&["AUTH"])].concat() {
        client.send(&[byte]);
    }
    client.expect_next("+OK\r\n");
    client.expect_next("$3\r\n500\r\n");
    client.expect_next("-ERR wrong number of arguments for 'auth' command\r\n");
}

/// Uses redis-py as its users configure it, in both protocols.
const REDIS_PY: &str = r#"
import sys, redis
mode, port, local = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def ping(**options):
    with redis.Redis(port=port, **options) as r:
        assert r.set("k", "v") and r.get("k") == b"v"
        with r.pipeline() as p:
            assert p.incr("n").execute()
def refused(expected, **options):
    try:
        ping(**options)
    except expected as error:
        return str(error)
    raise AssertionError(options)
for protocol in (2, 3):
    if mode == "accept":
        ping(protocol=protocol)
        ping(protocol=protocol, password="left over")
        ping(protocol=protocol, username="app", password="left over")
    elif mode == "verify":
        ping(protocol=protocol, password=local)
        ping(protocol=protocol, username="default", password=local)
        refused(redis.AuthenticationError, protocol=protocol, password="guess")
        refused(redis.AuthenticationError, protocol=protocol)
    elif mode == "reject":
        ping(protocol=protocol)
        assert "AUTH is refused because" in refused(redis.RedisError, protocol=protocol, password="left over")
    else:
        ping(protocol=protocol)
        refused(redis.AuthenticationError, protocol=protocol, password="guess")
"#;

#[test]
fn redis_py_gets_the_configured_auth_mode() {
    for mode in ["accept", "verify", "reject", "forward"] {
        let (_directory, _redis, pontoon) = bridge(&["--auth-client", mode]);
        let port = pontoon.address().port().to_string();
        printed(python().args(["-c", REDIS_PY, mode, &port, LOCAL]));
    }
}

#[test]
fn a_tls_client_at_a_plaintext_listener_reaches_no_server() {
    let (_directory, redis, pontoon) = bridge(&[]);
    pontoon.expects("it speaks TLS to a listener for plaintext");
    let mut admin = redis.direct();
    admin.expect(&["AUTH", SECRET], "+OK\r\n");
    let mut client = pontoon.client();
    client.send(b"\x16\x03\x01\x00\xff and so on");
    assert_eq!(client.rest(), [21, 3, 3, 0, 2, 2, 40]);
    let stats = text(admin.ask(&["INFO", "errorstats"]));
    assert!(!stats.contains("unknown command"), "{stats}");
}

#[test]
fn a_reply_of_the_bridge_does_not_split_a_message_that_arrives() {
    let (_directory, redis, pontoon) = bridge(&["--auth-reauthenticate", "200ms"]);
    let mut publisher = redis.direct();
    publisher.expect(&["AUTH", SECRET], "+OK\r\n");
    let mut client = pontoon.client();
    client.ask(&["HELLO", "3"]);
    client.ask(&["SUBSCRIBE", "channel"]);
    let large = "m".repeat(4_000_000);
    for _ in 0..5 {
        publisher.expect(&["PUBLISH", "channel", &large], ":1\r\n");
        client.send(&command(&["AUTH", "x"]));
        let message = format!(">3\r\n$7\r\nmessage\r\n$7\r\nchannel\r\n${}\r\n{large}\r\n", large.len());
        // The bridge's reply comes before or after the message, never within it.
        let got = client.exactly(message.len() + 5);
        assert!(
            got == [b"+OK\r\n", message.as_bytes()].concat()
                || got == [message.as_bytes(), b"+OK\r\n"].concat()
        );
    }
}

#[test]
fn a_pipeline_after_reset_is_not_confused_by_the_bridges_auth() {
    let (_directory, _redis, pontoon) = bridge(&[]);
    for _ in 0..50 {
        let mut client = pontoon.client();
        client.send(&[command(&["RESET"]), command(&["SUBSCRIBE", "channel"])].concat());
        client.expect_next("+RESET\r\n");
        client.expect_next("*3\r\n$9\r\nsubscribe\r\n$7\r\nchannel\r\n:1\r\n");
        client.expect(&["PING"], "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    }
}

#[test]
fn a_reply_of_the_bridge_keeps_its_place_before_a_subscription() {
    let (_directory, redis, pontoon) = bridge(&[]);
    let mut client = pontoon.client();
    let pipeline =
        [command(&["BLPOP", "queue", "0"]), command(&["AUTH", "x"]), command(&["SUBSCRIBE", "channel"])]
            .concat();
    client.send(&pipeline);
    push_once_blocked(&redis);
    client.expect_next("*2\r\n$5\r\nqueue\r\n$3\r\njob\r\n");
    client.expect_next("+OK\r\n");
    client.expect_next("*3\r\n$9\r\nsubscribe\r\n$7\r\nchannel\r\n:1\r\n");
}

#[test]
fn a_reply_of_the_bridge_keeps_its_place_after_an_unsubscription() {
    let (_directory, _redis, pontoon) = bridge(&["--auth-client", "accept"]);
    for (words, confirmed) in [
        (&["PUNSUBSCRIBE"][..], "*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:0\r\n"),
        (&["UNSUBSCRIBE", "a"], "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n"),
    ] {
        let mut client = pontoon.client();
        client.send(&[command(words), command(&["AUTH", "x"]), command(&["PING"])].concat());
        client.expect_next(confirmed);
        client.expect_next("+OK\r\n");
        client.expect_next("+PONG\r\n");
    }
}

#[test]
fn a_client_that_does_not_read_fills_no_memory() {
    let (_directory, _redis, pontoon) = bridge(&["--auth-client", "verify"]);
    let stranger = pontoon.client();
    let mut writer = stranger.writer();
    writer.set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    let before = pontoon.peak_memory_kib();
    // Each request of two bytes gets a reply of 34.
    let flood = b"a\n".repeat(512 * 1024);
    let mut sent = 0;
    while sent < 64 * 1024 * 1024 && std::io::Write::write_all(&mut writer, &flood).is_ok() {
        sent += flood.len();
    }
    assert!(sent < 64 * 1024 * 1024, "pontoon stops reading");
    assert!(pontoon.peak_memory_kib() < before + 64 * 1024);
    pontoon.client().expect(&["AUTH", LOCAL], "+OK\r\n");
}

#[test]
fn a_blocked_client_gets_its_reply_before_the_bridges_own() {
    let (_directory, redis, pontoon) = bridge(&[]);
    let mut client = pontoon.client();
    client.send(&[command(&["BLPOP", "queue", "0"]), command(&["AUTH", "x"])].concat());
    push_once_blocked(&redis);
    client.expect_next("*2\r\n$5\r\nqueue\r\n$3\r\njob\r\n");
    client.expect_next("+OK\r\n");
}

#[test]
fn a_local_password_keeps_other_clients_out() {
    let (directory, redis, pontoon) = bridge(&["--auth-client", "verify"]);
    let mut stranger = pontoon.client();
    stranger.expect(&["GET", "k"], NOAUTH);
    stranger.expect(&["AUTH", SECRET], WRONGPASS);
    stranger.expect(&["AUTH", "default", "guess"], WRONGPASS);
    assert!(text(stranger.ask(&["HELLO", "3"])).starts_with("-NOAUTH HELLO must be called"));
    stranger.expect(&["HELLO", "3", "AUTH", "default", "guess"], WRONGPASS);
    stranger.send(&[command(&["MULTI"]), command(&["EXEC"])].concat());
    stranger.expect_next(NOAUTH);
    stranger.expect_next(NOAUTH);
    // pontoon drops a large request while it arrives.
    stranger.send(&command(&["SET", "k", &"x".repeat(3_000_000)]));
    stranger.expect_next(NOAUTH);
    stranger.send(&[command(&["SET", "k", "w"]), command(&["AUTH", LOCAL]), command(&["GET", "k"])].concat());
    stranger.expect_next(NOAUTH);
    stranger.expect_next("+OK\r\n");
    stranger.expect_next("$-1\r\n");
    works(&mut stranger);

    let mut client = pontoon.client();
    assert!(text(client.ask(&["HELLO", "3", "AUTH", "default", LOCAL])).starts_with('%'));
    works(&mut client);
    // RESET ends the authentication at the bridge, as it does on the server.
    client.expect(&["RESET"], "+RESET\r\n");
    client.expect(&["GET", "k"], NOAUTH);
    client.expect(&["AUTH", LOCAL], "+OK\r\n");
    works(&mut client);

    fs::write(directory.path().join("local"), "another").unwrap();
    let mut late = pontoon.client();
    late.expect(&["AUTH", LOCAL], WRONGPASS);
    late.expect(&["AUTH", "another"], "+OK\r\n");
    late.send(&command(&["QUIT"]));
    late.expect_next("+OK\r\n");
    let mut direct = redis.direct();
    direct.expect(&["AUTH", SECRET], "+OK\r\n");
    let stats = text(direct.ask(&["INFO", "errorstats"]));
    // The one NOAUTH went to the harness, which asked whether the server is up.
    assert!(
        stats.contains("errorstat_NOAUTH:count=1\r") && !stats.contains("errorstat_WRONGPASS"),
        "{stats}"
    );
}

#[test]
fn check_and_the_start_report_a_local_password_that_is_missing() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("local");
    let args = ["--auth-client", "verify", "--auth-local-password-file", path.to_str().unwrap()];
    for (contents, problem) in [(None, "cannot be read"), (Some("\n"), "is empty")] {
        if let Some(contents) = contents {
            fs::write(&path, contents).unwrap();
        }
        let (endpoint, ca) = (redis.endpoint(), authority.file());
        let check = ["check", "--offline", "--upstream", &endpoint, "--tls-ca-file", &ca];
        let output = pontoon(&[&check[..], &args].concat());
        let report = text(output.stdout);
        assert!(output.status.code() == Some(1) && report.contains(problem), "{report}");
        let pontoon = Pontoon::with(&endpoint, &authority, &args);
        pontoon.expects("clients cannot authenticate for now");
        pontoon.wait_for_log("clients cannot authenticate for now");
    }
    fs::write(&path, LOCAL).unwrap();
    let (endpoint, ca) = (redis.endpoint(), authority.file());
    let check = [&CHECK[..], &["--upstream", &endpoint, "--tls-ca-file", &ca]].concat();
    assert_eq!(pontoon(&[&check[..], &args].concat()).status.code(), Some(0));
}

#[test]
fn auth_can_be_refused_or_left_to_the_client() {
    let (_directory, _redis, pontoon) = bridge(&["--auth-client", "reject"]);
    let mut client = pontoon.client();
    for request in [&["AUTH", "x"][..], &["HELLO", "3", "AUTH", "default", "x"]] {
        let reply = text(client.ask(request));
        assert!(reply.starts_with("-ERR pontoon: AUTH is refused because"), "{reply}");
    }
    assert!(text(client.ask(&["HELLO", "3"])).starts_with('%'));
    works(&mut client);

    let (_directory, redis, pontoon) = bridge(&["--auth-client", "forward"]);
    let mut direct = redis.direct();
    direct.expect(&["AUTH", SECRET], "+OK\r\n");
    direct.expect(&["ACL", "SETUSER", "own", "on", ">own", "+@all", "~*"], "+OK\r\n");
    let mut client = pontoon.client();
    client.expect(&["ACL", "WHOAMI"], "$7\r\ndefault\r\n");
    client.expect(&["AUTH", "own", "guess"], WRONGPASS);
    client.expect(&["AUTH", "own", "own"], "+OK\r\n");
    client.expect(&["ACL", "WHOAMI"], "$3\r\nown\r\n");
    drop(client);
    // The next client does not inherit that user.
    eventually("another client is the configured user", || {
        pontoon.client().ask(&["ACL", "WHOAMI"]) == b"$7\r\ndefault\r\n"
    });
}

/// The password of the server's user `other`. A connection has that user only if a client's own AUTH reached the server.
const OTHER: &str = "0ther-s3cr3t-of-the-test";

/// Runs `test` in each mode that keeps a client's AUTH from the server, in dedicated and in shared mode. In mode `verify` its clients have
/// authenticated.
fn where_auth_stays(test: impl Fn(&str, &dyn Fn() -> Wire)) {
    for mode in ["accept", "reject", "verify"] {
        for sharing in ["dedicated", "shared"] {
            let (_directory, redis, pontoon) = bridge(&["--auth-client", mode, "--sharing", sharing]);
            let mut direct = redis.direct();
            direct.expect(&["AUTH", SECRET], "+OK\r\n");
            let other = ["ACL", "SETUSER", "other", "on", &format!(">{OTHER}"), "+@all", "~*"];
            direct.expect(&other, "+OK\r\n");
            test(mode, &|| {
                let mut client = pontoon.client();
                if mode == "verify" {
                    client.expect(&["AUTH", LOCAL], "+OK\r\n");
                }
                client
            });
        }
    }
}

#[track_caller]
fn is_pontoon(client: &mut Wire, request: impl std::fmt::Debug) {
    let user = text(client.ask(&["ACL", "WHOAMI"]));
    assert_eq!(user, "$7\r\ndefault\r\n", "{request:?}");
}

#[test]
fn no_hello_makes_a_client_another_user_than_pontoons() {
    where_auth_stays(|mode, connect| {
        for request in [
            &["HELLO", "3", "SETNAME", "SETNAME", "AUTH", "other", OTHER][..],
            &["HELLO", "3", "setname", "AUTH", "auth", "other", OTHER],
            &["HELLO", "3", "AUTH", "AUTH", "SETNAME", "AUTH", "other", OTHER],
            &["HELLO", "3", "AUTH\0", "other", OTHER],
            &["HELLO", "3", "SETNAME\0x", "SETNAME", "AUTH\0x", "other", OTHER],
        ] {
            let mut client = connect();
            let reply = text(client.ask(request));
            match mode {
                "accept" => assert!(reply.starts_with('%'), "{request:?}: {reply}"),
                "reject" => {
                    assert!(reply.starts_with("-ERR pontoon: AUTH is refused"), "{request:?}: {reply}");
                }
                _ => assert_eq!(reply, WRONGPASS, "{request:?}"),
            }
            is_pontoon(&mut client, request);
        }
        let name = connect().ask(&["HELLO", "3", "SETNAME", "SETNAME"]);
        assert!(name.starts_with(b"%"));
    });
}

#[test]
fn a_wrong_hello_gets_the_servers_own_error() {
    where_auth_stays(|_, connect| {
        for (request, error) in [
            (&["HELLO", "4", "AUTH", "other", OTHER][..], "-NOPROTO unsupported protocol version"),
            (&["HELLO", "4"], "-NOPROTO unsupported protocol version"),
            (
                &["HELLO", "03", "AUTH", "other", OTHER],
                "-ERR Protocol version is not an integer or out of range",
            ),
            (&["HELLO", "AUTH", "other", OTHER], "-ERR Protocol version is not an integer or out of range"),
            (&["HELLO", "3", "AUTH", "other"], "-ERR Syntax error in HELLO option 'AUTH'"),
            (&["HELLO", "3", "SETNAME"], "-ERR Syntax error in HELLO option 'SETNAME'"),
            (&["HELLO", "3", "AUTH", "other", OTHER, "O\r\nP"], "-ERR Syntax error in HELLO option 'O  P'"),
            (
                &["HELLO", "3", "SETNAME", "a b", "AUTH", "other", OTHER],
                "-ERR Client names cannot contain spaces, newlines or special characters.",
            ),
            (&["AUTH", "one", "two", "three"], "-ERR syntax error"),
        ] {
            let mut client = connect();
            client.expect(request, &format!("{error}\r\n"));
            is_pontoon(&mut client, request);
        }
    });
}

#[test]
fn a_command_whose_name_a_server_truncates_changes_no_user() {
    where_auth_stays(|_, connect| {
        let mut client = connect();
        for n in 0..2_000 {
            client.ask(&["AUTH\0".to_owned() + &n.to_string(), "other".into(), OTHER.into()]);
            client.ask(&[
                format!("AUTH\0 and so on, longer than any name {n}"),
                "other".into(),
                OTHER.into(),
            ]);
        }
        is_pontoon(&mut client, "AUTH");
    });
}

#[test]
fn a_quoted_password_is_read_as_the_server_reads_it() {
    let escaped = LOCAL.bytes().map(|byte| format!("\\x{byte:02X}")).collect::<Vec<_>>().concat();
    where_auth_stays(|mode, connect| {
        for password in [format!("\"{LOCAL}\""), format!("'{LOCAL}'"), format!("\"{escaped}\"")] {
            for (line, hello) in [
                (format!("AUTH {password}\r\n"), false),
                (format!("AUTH default {password}\n"), false),
                (format!(" \r\n\"AUTH\"  {password}\r\n"), false),
                (format!("A'uth' {password}\r\n"), false),
                (format!("HELLO 3 AUTH default {password} SETNAME 'shop'\r\n"), true),
                (format!("\"HELLO\" \"3\" \"SETNAME\" shop \"AUTH\" default {password}\r\n"), true),
            ] {
                for pieces in [1, 3, line.len()] {
                    let mut client = connect();
                    for piece in line.as_bytes().chunks(line.len().div_ceil(pieces)) {
                        client.send(piece);
                    }
                    let reply = text(client.reply());
                    match (mode, hello) {
                        ("reject", _) => {
                            assert!(reply.starts_with("-ERR pontoon: AUTH is refused"), "{reply}");
                        }
                        (_, true) => {
                            assert!(reply.starts_with('%'), "{line}: {reply}");
                            client.expect(&["CLIENT", "GETNAME"], "$4\r\nshop\r\n");
                        }
                        _ => assert_eq!(reply, "+OK\r\n", "{line}"),
                    }
                    is_pontoon(&mut client, &line);
                }
            }
        }
        for (line, reply) in [
            ("\"PING\"\r\n", "+PONG\r\n"),
            ("'ECHO' \"a\\x20\\\"b\"\r\n", "$4\r\na \"b\r\n"),
            ("\"RESET\"\r\n", "+RESET\r\n"),
        ] {
            let mut client = connect();
            client.send(line.as_bytes());
            client.expect_next(reply);
            if line.contains("RESET") && mode == "verify" {
                client.expect(&["GET", "k"], NOAUTH);
            } else {
                is_pontoon(&mut client, line);
            }
        }
    });
}

#[test]
fn unbalanced_quotes_end_the_connection_as_they_do_on_a_server() {
    where_auth_stays(|_, connect| {
        for line in ["AUTH \"pw\r\n", "AUTH \"pw\"x\r\n", "\"AUTH pw\r\n", "HELLO 3 AUTH other 'pw\r\n"] {
            let mut client = connect();
            client.send(&[&command(&["PING"]), line.as_bytes()].concat());
            client.expect_next("+PONG\r\n");
            client.expect_next("-ERR Protocol error: unbalanced quotes in request\r\n");
            assert!(client.rest().is_empty());
        }
    });
}

#[test]
fn a_client_that_quotes_must_authenticate_like_any_other() {
    for sharing in ["dedicated", "shared"] {
        let (_directory, _redis, pontoon) = bridge(&["--auth-client", "verify", "--sharing", sharing]);
        for line in ["\"GET\" k\r\n", "\"AUTH", "'SET' k v\r\n"] {
            let mut stranger = pontoon.client();
            stranger.send(line.as_bytes());
            if line.ends_with('\n') {
                stranger.expect_next(NOAUTH);
            } else {
                stranger.send(b"\" guess\r\n");
                stranger.expect_next(WRONGPASS);
            }
            stranger.send(b"\"QUIT\"\r\n");
            stranger.expect_next("+OK\r\n");
        }
    }
}

#[test]
fn after_reset_the_client_is_pontoons_user_again() {
    for mode in ["accept", "forward"] {
        let (_directory, _redis, pontoon) = bridge(&["--auth-client", mode]);
        let mut client = pontoon.client();
        client.send(
            &[
                command(&["SELECT", "3"]),
                command(&["RESET"]),
                command(&["SET", "in", "zero"]),
                command(&["RESET"]),
                command(&["GET", "in"]),
            ]
            .concat(),
        );
        for reply in ["+OK\r\n", "+RESET\r\n", "+OK\r\n", "+RESET\r\n", "$4\r\nzero\r\n"] {
            client.expect_next(reply);
        }
        works(&mut client);
    }
}

#[test]
fn a_long_session_authenticates_again_and_its_client_sees_nothing_of_it() {
    if clients_share() {
        // In shared mode a connection is replaced, and never authenticates again.
        return;
    }
    let (_directory, redis, pontoon) = bridge(&["--auth-reauthenticate", "300ms", "--pool-reuse", "false"]);
    let mut admin = redis.direct();
    admin.expect(&["AUTH", SECRET], "+OK\r\n");
    let again = || pontoon.metric("pontoon_reauthentications_total", "result=\"ok\"");
    let mut client = pontoon.client();
    let mut n = 0;
    eventually("a session under load authenticates several times", || {
        n += 1;
        client.expect(&["INCR", "n"], &format!(":{n}\r\n"));
        again() >= 3
    });
    assert!(pontoon.metric("pontoon_next_reauthentication_timestamp_seconds", "") > 1_700_000_000);
    // Idle sessions authenticate again, too.
    let before = again();
    eventually("an idle session authenticates again", || again() >= before + 2);
    client.expect(&["INCR", "n"], &format!(":{}\r\n", n + 1));

    // But not within a transaction.
    client.expect(&["MULTI"], "+OK\r\n");
    let before = again();
    let mut other = pontoon.client();
    other.expect(&["PING"], "+PONG\r\n");
    eventually("another session authenticates meanwhile", || again() >= before + 2);
    client.expect(&["INCR", "n"], "+QUEUED\r\n");
    client.expect(&["EXEC"], &format!("*1\r\n:{}\r\n", n + 2));
    works(&mut client);
    let stats = text(admin.ask(&["INFO", "errorstats"]));
    assert!(!stats.contains("errorstat_WRONGPASS") && !stats.contains("errorstat_EXECABORT"), "{stats}");
}

#[test]
fn sessions_that_reauthenticate_follow_a_rotation_and_others_are_counted() {
    if clients_share() {
        // In shared mode a connection is replaced, and never authenticates again.
        return;
    }
    let (directory, redis, pontoon) = bridge(&["--auth-reauthenticate", "200ms", "--pool-reuse", "false"]);
    let mut admin = redis.direct();
    admin.expect(&["AUTH", SECRET], "+OK\r\n");
    let mut client = pontoon.client();
    works(&mut client);
    // ROTATE: first both passwords are valid, then only the new one.
    admin.expect(&["ACL", "SETUSER", "default", ">new-s3cr3t"], "+OK\r\n");
    fs::write(Path::new(directory.path()).join("server"), "new-s3cr3t").unwrap();
    pontoon.wait_for_log("credentials changed");
    let before = pontoon.metric("pontoon_reauthentications_total", "result=\"ok\"");
    eventually("the session authenticates with the new password", || {
        pontoon.metric("pontoon_reauthentications_total", "result=\"ok\"") >= before + 2
    });
    admin.expect(&["ACL", "SETUSER", "default", &format!("<{SECRET}")], "+OK\r\n");
    let before = pontoon.metric("pontoon_reauthentications_total", "result=\"ok\"");
    eventually("the session still authenticates", || {
        pontoon.metric("pontoon_reauthentications_total", "result=\"ok\"") >= before + 2
    });
    works(&mut client);

    // A session that cannot safely authenticate again is left alone, and counted.
    let mut subscriber = pontoon.client();
    subscriber.send(&command(&["SUBSCRIBE", "channel"]));
    subscriber.expect_next("*3\r\n$9\r\nsubscribe\r\n$7\r\nchannel\r\n:1\r\n");
    eventually("the session that cannot authenticate again is counted", || {
        pontoon.metric("pontoon_reauthentications_total", "result=\"impossible\"") == 1
    });
    works(&mut client);
    client.expect(&["PUBLISH", "channel", "message"], ":1\r\n");
    subscriber.expect_next("*3\r\n$7\r\nmessage\r\n$7\r\nchannel\r\n$7\r\nmessage\r\n");
}
