//! The task definition.

use std::sync::LazyLock;

use serde_json::Value;

use super::{accepted, checked, drain_seconds, strings, variables};

static TASK: LazyLock<Value> =
    LazyLock::new(|| checked("ecs", &std::fs::read_to_string("config/ecs/task-definition.json").unwrap()));

/// The app's container, and pontoon's.
fn containers() -> [&'static Value; 2] {
    let containers = &TASK["containerDefinitions"];
    assert_eq!((&containers[0]["name"], &containers[1]["name"]), (&"shop".into(), &"pontoon".into()));
    [&containers[0], &containers[1]]
}

#[test]
fn the_app_starts_after_pontoon_and_ends_before_it() {
    let [app, sidecar] = containers();
    let wanted = serde_json::json!([{ "containerName": "pontoon", "condition": "HEALTHY" }]);
    assert_eq!(app["dependsOn"], wanted, "ECS stops in the opposite order");
    let stop = sidecar["stopTimeout"].as_u64().unwrap();
    assert!(stop > drain_seconds() && stop <= 120, "120 s is Fargate's limit: {stop}");
    assert!(app["stopTimeout"].as_u64().unwrap() <= 120);
}

#[test]
fn the_health_check_kills_no_task_while_redis_is_unreachable() {
    let [_, sidecar] = containers();
    let check = &sidecar["healthCheck"];
    let command = strings(&check["command"]);
    assert_eq!(command[..2], ["CMD", "/usr/local/bin/pontoon"], "the image has no shell");
    pontoon::cli::command().try_get_matches_from(&command[1..]).unwrap();
    assert!(command.contains(&"--live".into()), "ECS replaces a task whose essential container is unhealthy");
    // The ranges that the API documents; no schema has them.
    for (name, range) in
        [("interval", 5..=300), ("timeout", 2..=60), ("retries", 1..=10), ("startPeriod", 0..=300)]
    {
        assert!(range.contains(&check[name].as_u64().unwrap()), "{name}");
    }
}

#[test]
fn the_container_is_confined_and_its_password_is_a_secret() {
    let [_, sidecar] = containers();
    assert_eq!(sidecar["readonlyRootFilesystem"], true);
    assert_eq!(sidecar["user"], "65532:65532");
    assert_eq!(sidecar["linuxParameters"]["capabilities"]["drop"], serde_json::json!(["ALL"]));
    let plain = variables(&sidecar["environment"]);
    assert!(plain.iter().all(|(name, _)| !name.contains("PASSWORD")));
    let from = sidecar["secrets"][0]["valueFrom"].as_str().unwrap();
    assert!(from.starts_with("arn:aws:secretsmanager:"), "{from}");
}

#[test]
fn pontoon_accepts_the_containers_command_and_variables() {
    let [_, sidecar] = containers();
    let mut all = variables(&sidecar["environment"]);
    let secrets = sidecar["secrets"].as_array().unwrap();
    all.extend(secrets.iter().map(|secret| (secret["name"].as_str().unwrap().into(), "a password".into())));
    accepted(&strings(&sidecar["command"]), &all);
}
