//! PHP's client.

use std::process::Command;

use crate::harness::programs::php;

fn program() -> Command {
    let mut php = php();
    php.arg("tests/clients/matrix/php_client.php");
    php
}

clients! {
    phpredis in dedicated = Dedicated, pooled = Pooled, shared = Shared, cluster = Cluster: Client {
        library: "phpredis",
        version: "6.",
        // This library does not send its name.
        inventory: "unknown",
        program,
        // One for each transaction, because the library waits for the reply to MULTI.
        pinned: 2000,
        ..Client::USUAL
    };
}
