//! Python's clients, and applications that are built on redis-py.

use std::process::Command;

use crate::harness::programs::{python, python_4};

fn program(mut python: Command, library: &str) -> Command {
    python.args(["tests/clients/matrix/python_client.py", library]);
    python
}

clients! {
    redis_py in dedicated = Dedicated, pooled = Pooled, shared = Shared, cluster = Cluster: Client {
        library: "redis-py",
        version: "8.1.0",
        inventory: "redis-py 8.1.0",
        program: || program(python(), "redis-py"),
        ..Client::USUAL
    };
    redis_py_4 in dedicated = Dedicated, pooled = Pooled, shared = Shared, cluster = Cluster: Client {
        library: "redis-py",
        version: "4.6.0",
        // This library does not send its name.
        inventory: "unknown",
        program: || program(python_4(), "redis-py"),
        ..Client::USUAL
    };
    celery in dedicated = Dedicated, pooled = Pooled, shared = Shared: Client {
        library: "celery",
        version: "5.7.0",
        inventory: "redis-py 8.1.0",
        program: || program(python(), "celery"),
        has_all_scenarios: false,
        ..Client::USUAL
    };
    channels_redis in dedicated = Dedicated, pooled = Pooled, shared = Shared: Client {
        library: "channels_redis",
        version: "4.3.0",
        inventory: "redis-py 8.1.0",
        program: || program(python(), "channels_redis"),
        has_all_scenarios: false,
        ..Client::USUAL
    };
}
