//! A user without permission for CLIENT: the server writes a line into its ACL LOG for each command that it refuses.

use std::path::Path;

use super::{NEW, OLD, Password, admin, guarded_by, to};
use crate::harness::{Authority, Engine, Redis, eventually, valkey};

/// Connections that serve one client, one client after another, or many at once.
const MODES: [&[&str]; 3] = [
    &["--sharing", "dedicated", "--pool-reuse", "false"],
    &["--sharing", "dedicated", "--pool-reuse", "true"],
    &["--sharing", "shared", "--pool-reuse", "true"],
];

const NAME: [&str; 2] = ["--client-name", "bridge"];

fn may(redis: &Redis, user: &str, rule: &str) {
    admin(redis).expect(&["ACL", "SETUSER", user, rule], "+OK\r\n");
}

/// How often the server has refused a command.
fn refusals(redis: &Redis) -> u64 {
    let log = String::from_utf8(admin(redis).ask(&["ACL", "LOG"])).unwrap();
    let counts = log.split("$5\r\ncount\r\n:").skip(1);
    counts.map(|rest| rest.split("\r\n").next().unwrap().parse::<u64>().unwrap()).sum()
}

/// How often the server refuses commands while clients come one after the other.
fn refusals_over_clients(engine: &Path, mode: &[&str]) -> u64 {
    let authority = Authority::new();
    let redis = guarded_by(engine, &authority);
    may(&redis, "app", "-client");
    let password = Password::new(OLD);
    let pontoon = to(&redis, &authority, &password, &[mode, &NAME].concat()).ready();
    for n in 1..=20 {
        let mut client = pontoon.client();
        client.expect(&["INCR", "n"], &format!(":{n}\r\n"));
        // These need a dedicated connection for a while, and leave state behind that must be undone.
        client.expect(&["SELECT", "1"], "+OK\r\n");
        // Before Redis 7.0, 0.001 s is rounded to 0, which means forever.
        client.expect(&["BLPOP", "none", "0.01"], "*-1\r\n");
    }
    refusals(&redis)
}

#[test]
fn forbidden_commands_are_tried_on_one_connection_only() {
    let valkey = valkey();
    for engine in [Path::new("redis-server"), &valkey] {
        // CLIENT SETNAME, and CLIENT SETINFO twice. Redis 7.0 does not refuse subcommands that it does not know; Redis before 7.0 refuses
        // all of CLIENT.
        let version = Engine::of(engine);
        let most = if version.has_library_names() || version.is_before_7() { 3 } else { 1 };
        for mode in MODES {
            let refusals = refusals_over_clients(engine, mode);
            assert!(refusals <= most, "{} {mode:?}: {refusals} refusals", engine.display());
        }
    }
}

#[test]
fn permissions_that_come_with_a_new_password_are_used() {
    let authority = Authority::new();
    let redis = guarded_by(&valkey(), &authority);
    may(&redis, "app", "-client");
    let password = Password::new(OLD);
    let pontoon = to(&redis, &authority, &password, &[MODES[0], &NAME].concat()).ready();
    pontoon.client().expect(&["PING"], "+PONG\r\n");
    may(&redis, "app", "+client");
    may(&redis, "app", &format!(">{NEW}"));
    password.replace(NEW);
    pontoon.wait_for_log("credentials changed");
    eventually("connections have a name", || {
        let mut client = pontoon.client();
        client.expect(&["PING"], "+PONG\r\n");
        let list = String::from_utf8(admin(&redis).ask(&["CLIENT", "LIST"])).unwrap();
        list.contains("name=bridge") && list.contains("lib-name=pontoon")
    });
}
