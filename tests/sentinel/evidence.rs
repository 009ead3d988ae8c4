//! What the servers of a Sentinel group report of their clients, and the verdict.

use serde_json::Value;

use crate::harness::{
    Authority, CountingNode, Engine, Entrance, MASTER_NAME, MemberSettings, Pontoon, SentinelMember, Wire,
    eventually, pontoon,
};

/// Starts a sentinel that reaches `primary` over TLS, because it would otherwise count as a client in plaintext.
fn sentinel_of(authority: &Authority, primary: &CountingNode) -> SentinelMember {
    let settings = MemberSettings {
        sentinel: true,
        name: None,
        client_tls: true,
        link_tls: true,
        entrance: Entrance::Own,
        password: None,
    };
    let port = primary.address().port();
    SentinelMember::start(
        authority,
        settings,
        &[format!("sentinel monitor {MASTER_NAME} 127.0.0.1 {port} 1")],
    )
}

fn route(pontoon: &Pontoon) -> Value {
    let routes: Value = serde_json::from_str(&pontoon.get("/routes").1).unwrap();
    routes[0].clone()
}

fn verdict(pontoon: &Pontoon) -> Value {
    route(pontoon)["safe_to_require_tls"].clone()
}

fn says(pontoon: &Pontoon, words: &str) {
    eventually(words, || verdict(pontoon)["because"].to_string().contains(words));
}

#[test]
fn servers_count_and_sentinels_do_not() {
    if !Engine::here().tls {
        // A sentinel without TLS would itself be a client in plaintext.
        return;
    }
    let authority = Authority::new();
    let mut primary = CountingNode::start(&authority, &[]);
    let port = primary.address().port();
    let replica = CountingNode::start(&authority, &["--replicaof", &format!("127.0.0.1 {port}")]);
    eventually("the replica follows the primary", || {
        String::from_utf8_lossy(&primary.direct().ask(&["INFO", "replication"])).contains("state=online")
    });
    let sentinel = sentinel_of(&authority, &primary);
    sentinel.pause();
    let endpoint = format!("localhost:{}", sentinel.client_port());
    let args =
        ["--topology", "sentinel", "--sentinel-master-name", MASTER_NAME, "--evidence-interval", "50ms"];
    let bridge = Pontoon::with(&endpoint, &authority, &[&args[..], &["--verdict-quiet-for", "1s"]].concat());
    bridge.allows("");
    says(&bridge, "the sentinels have not named");
    sentinel.resume();
    let nodes = [&primary, &replica].map(|node| format!("127.0.0.1:{}", node.address().port()));
    eventually("TLS is safe to require", || verdict(&bridge)["answer"] == true);
    assert_eq!(route(&bridge)["servers"]["nodes"], 2, "{}", route(&bridge));

    // All outputs show what each endpoint is, and where clients reach it.
    let shown = |node: &str| {
        let upstreams = route(&bridge)["upstreams"].clone();
        let found = upstreams.as_array().unwrap().iter().find(|upstream| upstream["endpoint"] == node)?;
        Some((found["role"].as_str()?.to_owned(), found["local_port"].as_u64()))
    };
    assert_eq!(shown(&endpoint), Some(("sentinel".to_owned(), None)));
    let role = |node: &str| shown(node).map(|(role, _)| role).unwrap_or_default();
    eventually("both servers are known", || {
        nodes.each_ref().map(|node| role(node)) == ["primary", "replica"]
    });
    let output = pontoon(&["status", "--admin", &bridge.admin().to_string()]);
    let (status, page) = (String::from_utf8(output.stdout).unwrap(), bridge.get("/").1);
    assert!(status.contains(&format!("{endpoint} (sentinel, ")), "{status}");
    assert!(page.contains(&format!("{endpoint}</th><td>sentinel</td>")), "{page}");
    for node in &nodes {
        let (role, port) = shown(node).unwrap();
        let port = port.unwrap();
        assert!(status.contains(&format!("{node} ({role}, local port {port}, ")), "{status}");
        assert!(page.contains(&format!("{node}</th><td>{role}</td><td>{port}</td>")), "{page}");
    }

    // A client of either server in plaintext speaks against it.
    for node in [&primary, &replica] {
        let mut client = Wire::tcp(node.address());
        assert_eq!(client.ask(&["GET", "k"]), b"$-1\r\n");
        says(&bridge, &format!("127.0.0.1:{} counts clients in plaintext: 1", node.address().port()));
        drop(client);
        eventually("TLS is safe to require again", || verdict(&bridge)["answer"] == true);
    }

    let named = || sentinel.text(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME]);
    let down_after = ["SENTINEL", "SET", MASTER_NAME, "down-after-milliseconds", "1000"];
    assert_eq!(sentinel.text(&down_after), "+OK\r\n");
    primary.crash();
    let promoted = replica.address().port().to_string();
    eventually("the replica is promoted", || named().contains(&promoted));
    // The failed server still counts: its clients may return with it.
    says(&bridge, &format!("{} could not be asked", nodes[0]));
    assert_eq!(verdict(&bridge)["answer"], false);
    primary.begin();
    eventually("TLS is safe to require again", || verdict(&bridge)["answer"] == true);
    assert_eq!(route(&bridge)["servers"]["nodes"], 2);
    eventually("the roles are exchanged", || {
        nodes.each_ref().map(|node| role(node)) == ["replica", "primary"]
    });
}
