//! Clients that authenticate themselves: those with the same user and password share a connection, and no client acts as another user.

use super::{SHARED, connections, pinned};
use crate::harness::{Authority, Pontoon, Redis, Wire, command, eventually};

const SECRET: &str = "s3cr3t-of-the-test";
const NOAUTH: &str = "-NOAUTH Authentication required.\r\n";
const WRONGPASS: &str = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";

/// A server with a password, and a bridge that does not have it.
fn guarded() -> (Redis, Pontoon) {
    let authority = Authority::new();
    let mut redis = Redis::with(authority.issue(&["localhost"]), &authority, &["--requirepass", SECRET]);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &SHARED);
    redis.keep(authority);
    (redis, pontoon)
}

/// A connection with the server's password.
fn owner(redis: &Redis) -> Wire {
    let mut direct = redis.direct();
    direct.expect(&["AUTH", SECRET], "+OK\r\n");
    direct
}

/// As [`guarded`], with two more users, each with its own keys.
fn with_users() -> (Redis, Pontoon) {
    let (redis, pontoon) = guarded();
    for user in ["ann", "bob"] {
        let keys = format!("~{user}:*");
        let rule = ["ACL", "SETUSER", user, "on", &format!(">{user}-{SECRET}"), &keys, "+@all"];
        owner(&redis).expect(&rule, "+OK\r\n");
    }
    (redis, pontoon)
}

/// A client that has authenticated as `user`.
fn client(pontoon: &Pontoon, user: &str) -> Wire {
    let mut client = pontoon.client();
    client.expect(&["AUTH", user, &format!("{user}-{SECRET}")], "+OK\r\n");
    client
}

#[track_caller]
fn refused(client: &mut Wire, words: &[&str]) {
    let told = String::from_utf8(client.ask(words)).unwrap();
    assert!(told.starts_with("-NOPERM"), "{told}");
}

#[test]
fn clients_with_the_same_password_share_a_connection() {
    let (redis, pontoon) = guarded();
    let mut clients: Vec<Wire> = (0..20).map(|_| pontoon.client()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.expect(&["GET", "k"], NOAUTH);
        if i % 2 == 0 {
            client.expect(&["AUTH", SECRET], "+OK\r\n");
        } else {
            let hello = client.ask(&["HELLO", "3", "SETNAME", "odd", "AUTH", "default", SECRET]);
            assert!(hello.starts_with(b"%"), "{}", hello.escape_ascii());
            client.expect(&["CLIENT", "GETNAME"], "$3\r\nodd\r\n");
        }
    }
    for (i, client) in clients.iter_mut().enumerate() {
        client.expect(&["INCR", "n"], &format!(":{}\r\n", i + 1));
    }
    assert_eq!(pinned(&pontoon), 0);
    assert_eq!(pontoon.metric("pontoon_sessions_pinned_total", "reason=\"auth\""), 0);
    // One in each protocol, one for clients that have not authenticated, and one that checks whether the server is up.
    let mut owner = owner(&redis);
    eventually("the clients have four connections", || connections(&mut owner) <= 4);
}

#[test]
fn no_client_acts_as_another_user() {
    let (_redis, pontoon) = with_users();
    let (mut ann, mut bob, mut nobody) = (client(&pontoon, "ann"), client(&pontoon, "bob"), pontoon.client());
    for _ in 0..3 {
        ann.expect(&["SET", "ann:k", "1"], "+OK\r\n");
        bob.expect(&["SET", "bob:k", "1"], "+OK\r\n");
        refused(&mut ann, &["SET", "bob:k", "1"]);
        refused(&mut bob, &["SET", "ann:k", "1"]);
        nobody.expect(&["GET", "ann:k"], NOAUTH);
    }
    // On a dedicated connection each has its own user, too.
    for (who, user) in [(&mut ann, "ann"), (&mut bob, "bob")] {
        who.expect(&["ACL", "WHOAMI"], &format!("$3\r\n{user}\r\n"));
        who.expect(&["MULTI"], "+OK\r\n");
        who.expect(&["GET", &format!("{user}:k")], "+QUEUED\r\n");
        who.expect(&["EXEC"], "*1\r\n$1\r\n1\r\n");
        who.expect(&["BLPOP", &format!("{user}:none"), "0.01"], "*-1\r\n");
        who.expect(&["SELECT", "1"], "+OK\r\n");
        who.expect(&["GET", &format!("{user}:k")], "$-1\r\n");
    }
    // The client becomes another user, and then none.
    ann.expect(&["AUTH", "bob", &format!("bob-{SECRET}")], "+OK\r\n");
    ann.expect(&["SET", "bob:k", "2"], "+OK\r\n");
    ann.expect(&["RESET"], "+RESET\r\n");
    ann.expect(&["GET", "bob:k"], NOAUTH);
    bob.expect(&["GET", "bob:k"], "$1\r\n2\r\n");
    eventually("no client is pinned", || pinned(&pontoon) == 0);
}

#[test]
fn only_the_server_refuses_a_wrong_password() {
    let (redis, pontoon) = with_users();
    let mut ann = client(&pontoon, "ann");
    let mut guest = pontoon.client();
    guest.expect(&["AUTH", "ann", "guess"], WRONGPASS);
    guest.expect(&["GET", "ann:k"], NOAUTH);
    // A changed password stays valid for clients that authenticated before, as on their own connections.
    let change = ["ACL", "SETUSER", "ann", &format!("<ann-{SECRET}"), ">new"];
    owner(&redis).expect(&change, "+OK\r\n");
    ann.expect(&["GET", "ann:k"], "$-1\r\n");
    let mut late = pontoon.client();
    late.expect(&["AUTH", "ann", &format!("ann-{SECRET}")], WRONGPASS);
    late.expect(&["GET", "ann:k"], NOAUTH);
    late.expect(&["AUTH", "ann", "new"], "+OK\r\n");
    late.expect(&["SET", "ann:k", "1"], "+OK\r\n");
    ann.expect(&["GET", "ann:k"], "$1\r\n1\r\n");
}

#[test]
fn a_password_that_the_server_does_not_require_prevents_no_sharing() {
    let (redis, pontoon) = super::shared(&[]);
    let mut direct = redis.direct();
    let mut client = pontoon.client();
    for words in [&["AUTH", "left over"][..], &["AUTH"], &["HELLO", "3", "AUTH", "ann", "x"]] {
        assert_eq!(client.ask(words), direct.ask(words), "{words:?}");
    }
    let mut other = pontoon.client();
    assert_eq!(other.ask(&["AUTH", "left over"]), redis.direct().ask(&["AUTH", "left over"]));
    other.expect(&["SET", "k", "v"], "+OK\r\n");
    assert_eq!(pontoon.metric("pontoon_sessions_pinned_total", "reason=\"auth\""), 1, "AUTH alone");
}

#[test]
fn clients_authenticate_again_if_a_lost_connection_cannot_be_restored() {
    let (mut redis, pontoon) = with_users();
    let mut ann = client(&pontoon, "ann");
    ann.expect(&["GET", "ann:k"], "$-1\r\n");
    // The users are lost with the server's memory.
    redis.kill();
    redis.restart();
    pontoon.allows("localhost");
    ann.send(&command(&["GET", "ann:k"]));
    let told = String::from_utf8(ann.rest()).unwrap();
    assert!(told.contains("no longer accepts this client's password"), "{told}");
}

#[test]
fn commands_are_learned_as_the_user_who_sends_them() {
    let (_redis, pontoon) = with_users();
    // A client that has not authenticated may not ask, so pontoon learns nothing.
    pontoon.client().ask(&["NO.SUCH", "x"]);
    let (mut ann, mut bob) = (client(&pontoon, "ann"), client(&pontoon, "bob"));
    for who in [&mut ann, &mut bob] {
        let told = String::from_utf8(who.ask(&["NO.SUCH", "x"])).unwrap();
        assert!(told.starts_with("-ERR unknown command"), "{told}");
    }
    assert_eq!(pontoon.metric("pontoon_sessions_pinned_total", "reason=\"unknown_command\""), 1, "nobody's");
    eventually("no client is pinned", || pinned(&pontoon) == 0);
}
