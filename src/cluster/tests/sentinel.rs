//! What sentinels say, with local addresses.

use super::support::{bulk, host, utf8};
use crate::cluster::{AtSentinel, Election, NodeMap, RewriteError, Rewriter, SentinelView};
use crate::endpoint::Endpoint;
use crate::resp::command_table::AddressReply;

/// A list of bulk strings.
fn list(words: &[&str]) -> String {
    format!("*{}\r\n{}", words.len(), words.iter().map(|word| bulk(word)).collect::<String>())
}

/// The group `mymaster` with two replicas. The primary's listener has port 7000.
fn group() -> NodeMap {
    let replica = |host, port| list(&["ip", host, "port", port, "flags", "slave"]);
    let replicas = format!("*2\r\n{}{}", replica("10.0.0.2", "6379"), replica("c.example", "6380"));
    let view = SentinelView::parse(
        list(&["10.0.0.1", "6379"]).as_bytes(),
        list(&["config-epoch", "0"]).as_bytes(),
        replicas.as_bytes(),
    );
    let primary: Endpoint = "10.0.0.1:6379".parse().unwrap();
    let topology = Election::new(vec![view.unwrap()]).topology(&primary);
    NodeMap::new(topology.nodes.into_iter().zip(7000..))
}

fn rewrite(
    is_settled: bool,
    work: impl Fn(&Rewriter<'_>) -> Result<Vec<u8>, RewriteError>,
) -> Result<String, RewriteError> {
    let (map, asked) = (group(), "10.0.0.9:26379".parse().unwrap());
    let local = host("127.0.0.9");
    let rewriter = Rewriter::new(&map, &local, &asked);
    let sentinel = AtSentinel { master_name: "mymaster", port: 26000, is_settled };
    work(&rewriter.at_sentinel(sentinel)).map(|reply| utf8(&reply))
}

fn reply(kind: AddressReply, reply: &str) -> String {
    rewrite(true, |rewriter| rewriter.reply(kind, reply.as_bytes())).unwrap()
}

fn published(channel: &str, text: &str) -> String {
    let frame = list(&["message", channel, text]);
    let rewritten = rewrite(true, |rewriter| rewriter.published(frame.as_bytes())).unwrap();
    let text = rewritten.trim_end().rsplit("\r\n").next().unwrap().to_owned();
    assert_eq!(rewritten, list(&["message", channel, &text]));
    text
}

#[test]
fn the_primarys_address_is_that_of_its_own_listener() {
    let address = |host, port| reply(AddressReply::SentinelAddress, &list(&[host, port]));
    assert_eq!(address("10.0.0.1", "6379"), list(&["127.0.0.9", "7000"]));
    // A sentinel that most others contradict.
    assert_eq!(address("10.0.0.2", "6379"), list(&["127.0.0.9", "7000"]));
    // A server of another group.
    assert_eq!(address("10.6.6.6", "6379"), "*-1\r\n");
    assert_eq!(reply(AddressReply::SentinelAddress, "*-1\r\n"), "*-1\r\n");
    // A sentinel that names a foreign server as the primary of this group.
    let own = reply(AddressReply::PrimaryAddress, &list(&["10.6.6.6", "6379"]));
    assert_eq!(own, list(&["127.0.0.9", "7000"]));
}

#[test]
fn a_server_that_is_not_the_known_primary_is_looked_up_first() {
    let unknown = |kind, reply: &str| {
        let result = rewrite(false, |rewriter| rewriter.reply(kind, reply.as_bytes()));
        matches!(result, Err(RewriteError::UnknownNode(_)))
    };
    assert!(unknown(AddressReply::SentinelAddress, &list(&["10.0.0.2", "6379"])));
    assert!(unknown(AddressReply::SentinelAddress, &list(&["10.6.6.6", "6379"])));
    assert!(!unknown(AddressReply::SentinelAddress, &list(&["10.0.0.1", "6379"])));
    let switch = |old, new: &str| {
        let frame = list(&["message", "+switch-master", &format!("mymaster {old} {new}")]);
        rewrite(false, |rewriter| rewriter.published(frame.as_bytes())).is_err()
    };
    assert!(switch("10.0.0.1 6379", "10.0.0.2 6379"));
    assert!(!switch("10.0.0.2 6379", "10.0.0.1 6379"));
}

#[test]
fn each_server_gets_its_port_and_every_sentinel_the_one_of_the_route() {
    let entry = |fields: &[&str]| {
        let one = reply(AddressReply::SentinelServers, &list(fields));
        // As an element of a list, and as a map of RESP3.
        let many = reply(AddressReply::SentinelServers, &format!("*1\r\n{}", list(fields)));
        assert_eq!(many, format!("*1\r\n{one}"));
        let map =
            |entry: &str| entry.replacen(&format!("*{}", fields.len()), &format!("%{}", fields.len() / 2), 1);
        let resp3 = reply(AddressReply::SentinelServers, &map(&list(fields)));
        assert_eq!(resp3, map(&one));
        one
    };
    let primary = ["name", "mymaster", "ip", "10.0.0.1", "port", "6379", "flags", "s_down,master"];
    let local = ["name", "mymaster", "ip", "127.0.0.9", "port", "7000", "flags", "s_down,master"];
    assert_eq!(entry(&primary), list(&local));
    let other = ["name", "other", "ip", "10.0.0.7", "port", "6379", "flags", "master"];
    let nowhere = ["name", "other", "ip", "127.0.0.9", "port", "0", "flags", "master"];
    assert_eq!(entry(&other), list(&nowhere));
    let replica = [
        "name",
        "c.example:6380",
        "ip",
        "c.example",
        "port",
        "6380",
        "flags",
        "slave",
        "master-host",
        "10.0.0.1",
        "master-port",
        "6379",
        "role-reported",
        "slave",
    ];
    let local = [
        "name",
        "127.0.0.9:7002",
        "ip",
        "127.0.0.9",
        "port",
        "7002",
        "flags",
        "slave",
        "master-host",
        "127.0.0.9",
        "master-port",
        "7000",
        "role-reported",
        "slave",
    ];
    assert_eq!(entry(&replica), list(&local));
    let sentinel = ["name", "4d6e", "ip", "10.0.0.8", "port", "26379", "runid", "4d6e", "flags", "sentinel"];
    let local = ["name", "4d6e", "ip", "127.0.0.9", "port", "26000", "runid", "4d6e", "flags", "sentinel"];
    assert_eq!(entry(&sentinel), list(&local));
    let settings = ["announce-ip", "10.0.0.8", "announce-port", "26379", "resolve-hostnames", "no"];
    let local = ["announce-ip", "127.0.0.9", "announce-port", "26000", "resolve-hostnames", "no"];
    assert_eq!(entry(&settings), list(&local));
}

#[test]
fn the_arguments_of_a_pending_script_have_no_address() {
    let argv =
        list(&["/x/reconfig.sh", "mymaster", "leader", "start", "10.0.0.1", "6379", "10.0.0.2", "6379"]);
    let script =
        |argv: &str| format!("*1\r\n*4\r\n{}{argv}{}{}", bulk("argv"), bulk("flags"), bulk("scheduled"));
    let local =
        list(&["/x/reconfig.sh", "mymaster", "leader", "start", "127.0.0.9", "7000", "127.0.0.9", "7001"]);
    assert_eq!(reply(AddressReply::SentinelServers, &script(&argv)), script(&local));
    let unknown = argv.replace("$8\r\n10.0.0.2", "$9\r\nd.example");
    let local = local.replace("$4\r\n7001", "$1\r\n0");
    assert_eq!(reply(AddressReply::SentinelServers, &script(&unknown)), script(&local));
    let notified = |address| list(&["/x/notify.sh", "+sdown", &format!("master mymaster {address}")]);
    let local = script(&notified("127.0.0.9 7000"));
    assert_eq!(reply(AddressReply::SentinelServers, &script(&notified("10.0.0.1 6379"))), local);
}

#[test]
fn info_names_local_addresses() {
    let info = "# Sentinel\r\nsentinel_masters:2\r\nmaster0:name=mymaster,status=ok,address=10.0.0.1:6379,slaves=2\r\n\
                master1:name=other,status=ok,address=10.0.0.7:6379,slaves=0\r\n";
    let local = info.replace("10.0.0.1:6379", "127.0.0.9:7000").replace("10.0.0.7:6379", "127.0.0.9:0");
    assert_eq!(reply(AddressReply::Info, &bulk(info)), bulk(&local));
    let of_server = |host, port| {
        let info = format!("role:slave\r\nmaster_host:{host}\r\nmaster_port:{port}\r\n");
        format!("*2\r\n{}*1\r\n*2\r\n:7\r\n{}", bulk("mymaster"), bulk(&info))
    };
    let cached = reply(AddressReply::SentinelInfo, &of_server("10.0.0.1", "6379"));
    assert_eq!(cached, of_server("127.0.0.9", "7000"));
}

#[test]
fn messages_name_local_addresses() {
    for (channel, text, local) in [
        ("+switch-master", "mymaster 10.0.0.2 6379 10.0.0.1 6379", "mymaster 127.0.0.9 7001 127.0.0.9 7000"),
        // A lone sentinel's claim.
        ("+switch-master", "mymaster 10.0.0.1 6379 d.example 6379", "mymaster 127.0.0.9 7000 127.0.0.9 7000"),
        ("+switch-master", "other 10.0.0.7 6379 10.0.0.8 6379", "other 127.0.0.9 0 127.0.0.9 0"),
        ("+sdown", "master mymaster 10.0.0.1 6379", "master mymaster 127.0.0.9 7000"),
        ("+odown", "master mymaster 10.0.0.1 6379 #quorum 2/2", "master mymaster 127.0.0.9 7000 #quorum 2/2"),
        (
            "+slave",
            "slave c.example:6380 c.example 6380 @ mymaster 10.0.0.1 6379",
            "slave 127.0.0.9:7002 127.0.0.9 7002 @ mymaster 127.0.0.9 7000",
        ),
        (
            "+sentinel",
            "sentinel 4d6e s.example 26379 @ mymaster 10.0.0.1 6379",
            "sentinel 4d6e 127.0.0.9 26000 @ mymaster 127.0.0.9 7000",
        ),
        (
            "__sentinel__:hello",
            "10.0.0.8,26379,4d6e,12,mymaster,10.0.0.1,6379,12",
            "127.0.0.9,26000,4d6e,12,mymaster,127.0.0.9,7000,12",
        ),
        (
            "+sentinel-address-switch",
            "master mymaster 10.0.0.1 6379 ip s.example port 26379 for 4d6e",
            "master mymaster 127.0.0.9 7000 ip 127.0.0.9 port 26000 for 4d6e",
        ),
        ("+vote-for-leader", "4d6e 12", "4d6e 12"),
        ("+tilt", "#tilt mode entered", "#tilt mode entered"),
    ] {
        assert_eq!(published(channel, text), local, "{channel}");
    }
}

#[test]
fn a_host_name_that_is_not_known_is_looked_up_and_does_not_reach_clients() {
    for (channel, text, local) in [
        (
            "+slave",
            "slave d.example:6380 d.example 6380 @ mymaster 10.0.0.1 6379",
            "slave 127.0.0.9:0 127.0.0.9 0 @ mymaster 127.0.0.9 7000",
        ),
        (
            "+slave",
            "slave 10.0.0.2:6379 10.0.0.2 6379 @ mymaster d.example 6380",
            "slave 127.0.0.9:7001 127.0.0.9 7001 @ mymaster 127.0.0.9 0",
        ),
        ("+monitor", "master other d.example 6380 quorum 2", "master other 127.0.0.9 0 quorum 2"),
        ("+switch-master", "other d.example 6380 e.example 6381", "other 127.0.0.9 0 127.0.0.9 0"),
        (
            "__sentinel__:hello",
            "s.example,26379,4d6e,12,other,d.example,6380,12",
            "127.0.0.9,26000,4d6e,12,other,127.0.0.9,0,12",
        ),
    ] {
        assert_eq!(published(channel, text), local, "{channel}");
        let frame = list(&["message", channel, text]);
        let unknown = rewrite(false, |rewriter| rewriter.published(frame.as_bytes()));
        assert!(matches!(unknown, Err(RewriteError::UnknownNode(_))), "{channel}");
    }
}

#[test]
fn other_frames_pass_unchanged() {
    for frame in
        [list(&["subscribe", "+switch-master"]), list(&["10.0.0.1", "6379"]), list(&[]), ":1\r\n".into()]
    {
        let passed = rewrite(false, |rewriter| rewriter.published(frame.as_bytes())).unwrap();
        assert_eq!(passed, frame);
    }
    let push = format!(">{}", &list(&["pmessage", "*", "+sdown", "master mymaster 10.0.0.1 6379"])[1..]);
    let local = push.replace("$29\r\nmaster mymaster 10.0.0.1 6379", "$30\r\nmaster mymaster 127.0.0.9 7000");
    assert_eq!(rewrite(true, |rewriter| rewriter.published(push.as_bytes())).unwrap(), local);
}
