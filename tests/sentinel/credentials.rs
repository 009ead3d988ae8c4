//! Passwords of a Sentinel group that change or expire while clients use it: those of its servers, and those of its sentinels.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::{bridge_with, configuration_with, primary_port, wait_until_known};
use crate::auth::{NEW, OLD, Password, after};
use crate::harness::{Pontoon, SentinelGroup, SentinelMember, SentinelSettings, Wire, eventually};

/// A group whose servers have the user `app`, and whose sentinels have the user `bridge`. Both users have the old password.
struct GuardedGroup {
    group: SentinelGroup,
    of_servers: Password,
    of_sentinels: Password,
}

impl GuardedGroup {
    fn start() -> Self {
        let guarded = Self {
            group: SentinelGroup::start(SentinelSettings::tls()),
            of_servers: Password::new(OLD),
            of_sentinels: Password::new(OLD),
        };
        let (password, servers) = (format!(">{OLD}"), &guarded.group.servers);
        set_user(servers, &["app", "on", &password, "allkeys", "+@all"]);
        set_user(&guarded.group.sentinels, &["bridge", "on", &password, "allchannels", "+@all"]);
        guarded
    }

    /// A bridge that presents both users, with `more` keys of the route.
    fn bridge(&self, directory: &Path, more: &str) -> Pontoon {
        let login = |prefix: &str, user: &str, password: &Password| {
            let file = password.path().display().to_string();
            format!("{prefix}username = \"{user}\"\n{prefix}password_file = \"{file}\"\n")
        };
        let of_route = login("auth.", "app", &self.of_servers) + more;
        let of_sentinel = login("", "bridge", &self.of_sentinels);
        let text = configuration_with(&self.group, directory, &of_route, &of_sentinel);
        let pontoon = bridge_with(&text, &self.group, directory);
        wait_until_known(&self.group, &pontoon);
        pontoon
    }
}

fn set_user(members: &[SentinelMember], rules: &[&str]) {
    for member in members {
        member.wire().expect(&[&["ACL", "SETUSER"], rules].concat(), "+OK\r\n");
    }
}

/// The connections of a user to a member, by number, each with the command that it executed last.
fn connections(member: &SentinelMember, user: &str) -> Vec<(u64, String)> {
    let list = member.text(&["CLIENT", "LIST"]);
    let field = |line: &str, name: &str| {
        line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
    };
    list.lines()
        .filter(|line| field(line, "user").as_deref() == Some(user))
        .map(|line| (field(line, "id").unwrap().parse().unwrap(), field(line, "cmd").unwrap()))
        .collect()
}

/// Changes the password of the servers, which accept both for a while, and then only the new one.
#[track_caller]
fn the_servers_password_changes(sharing: &str) {
    let guarded = GuardedGroup::start();
    let GuardedGroup { group, of_servers, .. } = &guarded;
    let directory = tempfile::tempdir().unwrap();
    let pontoon = guarded.bridge(directory.path(), &format!("sharing = \"{sharing}\""));
    let port = primary_port(&mut pontoon.client());
    let client = || Wire::tcp(("127.0.0.1", port));
    let mut lasting = client();
    lasting.expect(&["ECHO", "k"], "$1\r\nk\r\n");
    client().expect(&["ACL", "WHOAMI"], "$3\r\napp\r\n");
    let newest = connections(&group.servers[0], "app").iter().map(|(id, _)| *id).max().unwrap();

    set_user(&group.servers, &["app", &format!(">{NEW}")]);
    of_servers.replace(NEW);
    let record = pontoon.wait_for_log("credentials changed");
    assert_eq!((&record["user"], &record["presented_to"]), (&json!("app"), &json!("servers")), "{record}");
    assert_eq!(pontoon.metric("pontoon_credentials_reloads_total", "result=\"ok\""), 1);
    let mut new = client();
    new.expect(&["GET", "k"], "$-1\r\n");
    let connections = connections(&group.servers[0], "app");
    let is_new = |(id, command): &(u64, String)| command == "get" && *id > newest;
    assert!(connections.iter().any(is_new), "no further client on those up to {newest}: {connections:?}");

    set_user(&group.servers, &["app", &format!("<{OLD}")]);
    client().expect(&["ACL", "WHOAMI"], "$3\r\napp\r\n");
    lasting.expect(&["ECHO", "k"], "$1\r\nk\r\n");
    for server in &group.servers {
        assert_eq!(server.text(&["ACL", "LOG"]), "*0\r\n", "no server refused a password");
    }
    pontoon.expect_one_line("credentials changed");
}

#[test]
fn a_new_password_of_the_servers_is_used_before_they_refuse_the_old_one() {
    the_servers_password_changes("dedicated");
}

#[test]
fn a_new_password_of_the_servers_is_used_for_shared_connections_before_they_refuse_the_old_one() {
    the_servers_password_changes("shared");
}

#[test]
fn a_new_password_of_the_sentinels_is_used_before_they_refuse_the_old_one() {
    let guarded = GuardedGroup::start();
    let GuardedGroup { group, of_sentinels, .. } = &guarded;
    let directory = tempfile::tempdir().unwrap();
    let pontoon = guarded.bridge(directory.path(), "");
    set_user(&group.sentinels, &["bridge", &format!(">{NEW}")]);
    of_sentinels.replace(NEW);
    let record = pontoon.wait_for_log("credentials changed");
    let named = (&record["user"], &record["presented_to"]);
    assert_eq!(named, (&json!("bridge"), &json!("sentinels")), "{record}");
    primary_port(&mut pontoon.client());
    set_user(&group.sentinels, &["bridge", &format!("<{OLD}")]);
    primary_port(&mut pontoon.client());
    for sentinel in &group.sentinels {
        assert_eq!(sentinel.text(&["ACL", "LOG"]), "*0\r\n", "no sentinel refused a password");
    }
    pontoon.expect_one_line("credentials changed");
}

#[test]
fn the_end_of_the_password_that_expires_first_is_shown() {
    let guarded = GuardedGroup::start();
    let GuardedGroup { of_servers, of_sentinels, .. } = &guarded;
    let expires = |password: &Password, hours: u64| {
        let end = after(Duration::from_secs(hours * 3600));
        password.replace(&json!({"password": OLD, "expires_at": end}).to_string());
        format!("{}Z", end.split_once('.').unwrap().0)
    };
    let in_two_hours = expires(of_servers, 2);
    let directory = tempfile::tempdir().unwrap();
    let pontoon = guarded.bridge(directory.path(), "");
    let shown = || {
        let routes: serde_json::Value = serde_json::from_str(&pontoon.get("/routes").1).unwrap();
        routes[0]["credentials_expire"].as_str().map(str::to_owned)
    };
    eventually("the end of the servers' password", || shown().as_ref() == Some(&in_two_hours));
    let in_metric = || pontoon.metric("pontoon_credentials_expiry_timestamp_seconds", "");
    let of_servers_password = in_metric();
    let in_one_hour = expires(of_sentinels, 1);
    eventually("the end of the sentinels' password", || shown().as_ref() == Some(&in_one_hour));
    assert!(in_metric() < of_servers_password);
    expires(of_sentinels, 3);
    eventually("the end of the servers' password again", || shown().as_ref() == Some(&in_two_hours));
}

#[test]
fn a_password_that_cannot_be_read_is_reported_until_both_can_be() {
    let guarded = GuardedGroup::start();
    let GuardedGroup { of_servers, of_sentinels, .. } = &guarded;
    let directory = tempfile::tempdir().unwrap();
    let pontoon = guarded.bridge(directory.path(), "");
    let can_be_read = || pontoon.metric("pontoon_credentials_last_read_successful", "") == 1;
    eventually("both can be read", can_be_read);
    for password in [of_servers, of_sentinels] {
        std::fs::remove_file(password.path()).unwrap();
    }
    pontoon.expects("credentials not available");
    eventually("both are reported", || pontoon.log_count("credentials not available") == 2);
    assert!(!can_be_read());
    of_sentinels.replace(OLD);
    let record = pontoon.wait_for_log("credentials available again");
    assert_eq!(record["presented_to"], "sentinels", "{record}");
    assert!(!can_be_read(), "the servers' password cannot be read");
    of_servers.replace(OLD);
    eventually("both can be read again", can_be_read);
}
