//! Real clients that know clusters, in their ordinary use.

use std::process::Command;

use super::programs::{assert_dialled, ioredis, redis_py, redis_py_cluster, run};
use super::{Shared, shared};

fn port(shared: &Shared) -> String {
    shared.pontoon.address().port().to_string()
}

/// Runs a script that ends by telling what it dialled.
fn works(mut program: Command, shared: &Shared, more: &[&str]) {
    let report = run(program.arg(port(shared)).args(more));
    assert_dialled(&serde_json::from_str(&report).unwrap(), &shared.pontoon);
}

#[test]
fn redis_py_works_with_a_cluster() {
    let shared = shared();
    for protocol in ["2", "3"] {
        works(redis_py("redis_py.py"), &shared, &[protocol]);
    }
}

#[test]
fn redis_py_cluster_works() {
    works(redis_py_cluster("redis_py_cluster.py"), &shared(), &[]);
}

#[test]
fn ioredis_works_with_a_cluster() {
    works(ioredis("ioredis.js"), &shared(), &[]);
}
