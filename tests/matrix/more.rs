//! Clients that fewer applications use, and older versions. Only `tests/run.sh --clients all` installs them, and runs these tests.

use std::process::Command;

use crate::harness::programs::{node_more, python, python_3, python_more};

fn in_python(mut python: Command, library: &str) -> Command {
    python.args(["tests/clients/matrix/python_client.py", library]);
    python
}

fn in_node(module: &str) -> Command {
    let mut node = node_more();
    node.args(["tests/clients/matrix/node_client.js", module]);
    node
}

clients! {
    redis_py_3 in dedicated = Dedicated, pooled = Pooled, shared = Shared: Client {
        library: "redis-py",
        version: "3.5.3",
        inventory: "unknown",
        program: || in_python(python_3(), "redis-py"),
        ..Client::USUAL
    };
    redis_py_5 in dedicated = Dedicated, pooled = Pooled, shared = Shared, cluster = Cluster: Client {
        library: "redis-py",
        version: "5.3.1",
        inventory: "redis-py 5.3.1",
        program: || in_python(python_more(), "redis-py"),
        ..Client::USUAL
    };
    valkey_py in dedicated = Dedicated, pooled = Pooled, shared = Shared, cluster = Cluster: Client {
        library: "valkey-py",
        version: "6.1.1",
        inventory: "valkey-py 6.1.1",
        program: || in_python(python_more(), "valkey-py"),
        ..Client::USUAL
    };
    rq in dedicated = Dedicated, pooled = Pooled, shared = Shared: Client {
        library: "rq",
        version: "3.0.0",
        inventory: "redis-py 8.1.0",
        program: || in_python(python(), "rq"),
        has_all_scenarios: false,
        ..Client::USUAL
    };
    dramatiq in dedicated = Dedicated, pooled = Pooled, shared = Shared: Client {
        library: "dramatiq",
        version: "2.2.1",
        inventory: "redis-py 5.3.1",
        program: || in_python(python_more(), "dramatiq"),
        has_all_scenarios: false,
        ..Client::USUAL
    };
    ioredis_4 in dedicated = Dedicated, pooled = Pooled, shared = Shared, cluster = Cluster: Client {
        library: "ioredis",
        version: "4.31.0",
        inventory: "ioredis or node_redis",
        program: || in_node("ioredis-4"),
        ..Client::USUAL
    };
    iovalkey in dedicated = Dedicated, pooled = Pooled, shared = Shared, cluster = Cluster: Client {
        library: "iovalkey",
        version: "0.4.0",
        inventory: "ioredis or node_redis",
        program: || in_node("iovalkey"),
        ..Client::USUAL
    };
    node_redis_3 in dedicated = Dedicated, pooled = Pooled, shared = Shared: Client {
        library: "node_redis",
        version: "3.1.2",
        inventory: "ioredis or node_redis",
        program: || in_node("redis-3"),
        ..Client::USUAL
    };
    node_redis_4 in dedicated = Dedicated, pooled = Pooled, shared = Shared, cluster = Cluster: Client {
        library: "node-redis",
        version: "4.7.1",
        // The version of the inner package that contains its client.
        inventory: "node-redis 1.6.0",
        program: || in_node("redis-4"),
        survives_failover: false,
        ..Client::USUAL
    };
    node_redis_5 in dedicated = Dedicated, pooled = Pooled, shared = Shared, cluster = Cluster: Client {
        library: "node-redis",
        version: "5.12.1",
        inventory: "node-redis 5.12.1",
        program: || in_node("redis"),
        survives_failover: false,
        ..Client::USUAL
    };
}
