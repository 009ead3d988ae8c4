//! Ruby's client, and a queue that is built on it.

use std::process::Command;

use crate::harness::programs::ruby;

fn program(script: &str) -> Command {
    let mut ruby = ruby();
    ruby.arg(format!("tests/clients/matrix/{script}"));
    ruby
}

clients! {
    redis_rb in dedicated = Dedicated, pooled = Pooled, shared = Shared, cluster = Cluster: Client {
        library: "redis-rb",
        version: "6.",
        inventory: "redis-rb 6.",
        program: || program("ruby_client.rb"),
        ..Client::USUAL
    };
    sidekiq in dedicated = Dedicated, pooled = Pooled, shared = Shared: Client {
        library: "sidekiq",
        version: "8.",
        inventory: "redis-client(sidekiq_v8.",
        program: || program("sidekiq_client.rb"),
        has_all_scenarios: false,
        ..Client::USUAL
    };
}
