//! Go's client.

use crate::harness::programs::go_client;

clients! {
    go_redis in dedicated = Dedicated, pooled = Pooled, shared = Shared, cluster = Cluster: Client {
        library: "go-redis",
        version: "9.",
        inventory: "go-redis(,go1.27.3) 9.",
        program: go_client,
        ..Client::USUAL
    };
}
