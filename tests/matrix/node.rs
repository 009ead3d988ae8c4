//! Node's clients, and a queue that is built on ioredis.

use std::process::Command;

use crate::harness::programs::node;

fn program(module: &str) -> Command {
    let mut node = node();
    node.args(["tests/clients/matrix/node_client.js", module]);
    node
}

clients! {
    ioredis in dedicated = Dedicated, pooled = Pooled, shared = Shared, cluster = Cluster: Client {
        library: "ioredis",
        version: "5.8.2",
        inventory: "ioredis 5.8.2",
        program: || program("ioredis"),
        ..Client::USUAL
    };
    node_redis in dedicated = Dedicated, pooled = Pooled, shared = Shared, cluster = Cluster: Client {
        library: "node-redis",
        version: "6.3.1",
        inventory: "node-redis 6.3.1",
        program: || program("redis-6"),
        ..Client::USUAL
    };
    bullmq in dedicated = Dedicated, pooled = Pooled, shared = Shared: Client {
        library: "bullmq",
        version: "6.7.0",
        inventory: "ioredis 5.8.2",
        program: || program("bullmq"),
        has_all_scenarios: false,
        ..Client::USUAL
    };
}
