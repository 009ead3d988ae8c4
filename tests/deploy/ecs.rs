//! The task definitions, the policies of their role, and the same in Terraform.

use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::{accepted, checked, drain_seconds, strings, variables};

fn read(platform: &str, path: &str) -> Value {
    checked(platform, &std::fs::read_to_string(path).unwrap())
}

/// The task for a group that requires TLS, and the one for the time before.
static TASKS: LazyLock<[Value; 2]> = LazyLock::new(|| {
    ["task-definition", "preferred"].map(|name| read("ecs", &format!("config/ecs/{name}.json")))
});

/// The app's container, and pontoon's.
fn containers(task: &Value) -> [&Value; 2] {
    let containers = &task["containerDefinitions"];
    assert_eq!((&containers[0]["name"], &containers[1]["name"]), (&"shop".into(), &"pontoon".into()));
    [&containers[0], &containers[1]]
}

#[test]
fn the_app_starts_after_pontoon_and_ends_before_it() {
    for [app, sidecar] in TASKS.each_ref().map(containers) {
        let wanted = json!([{ "containerName": "pontoon", "condition": "HEALTHY" }]);
        assert_eq!(app["dependsOn"], wanted, "ECS stops in the opposite order");
        let stop = sidecar["stopTimeout"].as_u64().unwrap();
        assert!(stop > drain_seconds() && stop <= 120, "120 s is Fargate's limit: {stop}");
        assert!(app["stopTimeout"].as_u64().unwrap() <= 120);
    }
}

#[test]
fn the_health_check_kills_no_task_while_redis_is_unreachable() {
    for [_, sidecar] in TASKS.each_ref().map(containers) {
        let check = &sidecar["healthCheck"];
        let command = strings(&check["command"]);
        assert_eq!(command[..2], ["CMD", "/usr/local/bin/pontoon"], "the image has no shell");
        pontoon::cli::command().try_get_matches_from(&command[1..]).unwrap();
        assert!(
            command.contains(&"--live".into()),
            "ECS replaces a task whose essential container is unhealthy"
        );
        // The ranges that the API documents; no schema has them.
        for (name, range) in
            [("interval", 5..=300), ("timeout", 2..=60), ("retries", 1..=10), ("startPeriod", 0..=300)]
        {
            assert!(range.contains(&check[name].as_u64().unwrap()), "{name}");
        }
    }
}

#[test]
fn the_container_is_confined_and_its_password_is_a_secret() {
    for [_, sidecar] in TASKS.each_ref().map(containers) {
        assert_eq!(sidecar["readonlyRootFilesystem"], true);
        assert_eq!(sidecar["user"], "65532:65532");
        assert_eq!(sidecar["linuxParameters"]["capabilities"]["drop"], json!(["ALL"]));
        let plain = variables(&sidecar["environment"]);
        assert!(plain.iter().all(|(name, _)| !name.contains("PASSWORD")));
    }
    let [_, sidecar] = containers(&TASKS[0]);
    let from = sidecar["secrets"][0]["valueFrom"].as_str().unwrap();
    assert!(from.starts_with("arn:aws:secretsmanager:"), "{from}");
    let [_, sidecar] = containers(&TASKS[1]);
    assert_eq!(sidecar["secrets"], Value::Null, "credentials are for the time after TLS is required");
}

/// pontoon's variables, with a value for each secret.
fn all_variables(sidecar: &Value) -> Vec<(String, String)> {
    let mut all = variables(&sidecar["environment"]);
    let secrets = sidecar["secrets"].as_array().into_iter().flatten();
    all.extend(secrets.map(|secret| (secret["name"].as_str().unwrap().into(), "a password".into())));
    all
}

#[test]
fn pontoon_accepts_the_containers_command_and_variables() {
    let [_, sidecar] = containers(&TASKS[0]);
    accepted(&strings(&sidecar["command"]), &all_variables(sidecar));
    let [_, sidecar] = containers(&TASKS[1]);
    let directory = tempfile::tempdir().unwrap();
    // On this machine, the volume's folder does not exist.
    let mounted = |(name, value): (String, String)| {
        (name, value.replace("/var/lib/pontoon", directory.path().to_str().unwrap()))
    };
    accepted(
        &strings(&sidecar["command"]),
        &all_variables(sidecar).into_iter().map(mounted).collect::<Vec<_>>(),
    );
}

#[test]
fn iam_replaces_the_password_with_the_policy_for_the_same_group_and_user() {
    let policy = read("policy", "config/iam/connect.json");
    let [statement] = &policy["Statement"].as_array().unwrap()[..] else { panic!("{policy}") };
    assert_eq!(statement["Action"], "elasticache:Connect");
    let [_, sidecar] = containers(&TASKS[0]);
    let mut all = variables(&sidecar["environment"]);
    let user = all.iter().find(|(name, _)| name == "PONTOON_AUTH_USERNAME").unwrap().1.clone();
    let group = "sessions";
    all.push(("PONTOON_AUTH_IAM_CACHE_NAME".into(), group.into()));
    accepted(&strings(&sidecar["command"]), &all);
    let ends: Vec<String> =
        strings(&statement["Resource"]).iter().map(|arn| arn.splitn(6, ':').last().unwrap().into()).collect();
    assert_eq!(ends, [format!("replicationgroup:{group}"), format!("user:{user}")]);
}

#[test]
fn only_ecs_tasks_of_the_account_can_take_the_role() {
    let trust = read("policy", "config/iam/task-role.json");
    let [statement] = &trust["Statement"].as_array().unwrap()[..] else { panic!("{trust}") };
    assert_eq!(statement["Principal"], json!({ "Service": "ecs-tasks.amazonaws.com" }));
    let account = statement["Condition"]["StringEquals"]["aws:SourceAccount"].as_str().unwrap();
    for task in &*TASKS {
        assert!(task["taskRoleArn"].as_str().unwrap().contains(account));
    }
}

#[test]
fn the_latch_outlives_the_task() {
    let task = &TASKS[1];
    let [_, sidecar] = containers(task);
    let file = variables(&sidecar["environment"])
        .into_iter()
        .find(|(name, _)| name == "PONTOON_STATE_FILE")
        .unwrap()
        .1;
    let (mount, volume) = (&sidecar["mountPoints"][0], &task["volumes"][0]);
    assert_eq!(Path::new(&file).parent().unwrap().to_str(), mount["containerPath"].as_str());
    assert_eq!(mount["sourceVolume"], volume["name"]);
    let system = &volume["efsVolumeConfiguration"];
    assert_eq!(system["transitEncryption"], "ENABLED", "an access point needs it");
    let policy = read("policy", "config/iam/state-file.json");
    let statement = &policy["Statement"][0];
    let place = |arn: &Value| arn.as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    assert_eq!(place(&statement["Resource"]), system["fileSystemId"].as_str().unwrap());
    let point = &statement["Condition"]["StringEquals"]["elasticfilesystem:AccessPointArn"];
    assert_eq!(place(point), system["authorizationConfig"]["accessPointId"].as_str().unwrap());
}

static TERRAFORM: LazyLock<Value> = LazyLock::new(|| read("terraform", "config/terraform/task.tf"));

/// A resource of the Terraform example.
fn resource(kind: &str, name: &str) -> &'static Value {
    let all = TERRAFORM["resource"].as_array().unwrap();
    all.iter()
        .map(|one| &one[kind][name])
        .find(|one| !one.is_null())
        .unwrap_or_else(|| panic!("{kind}.{name}"))
}

#[test]
fn terraforms_task_is_the_task_for_preferred() {
    let task = &TASKS[1];
    let [app, sidecar] = containers(task);
    let mut local = TERRAFORM["locals"][0].to_string();
    let log = &app["logConfiguration"]["options"];
    for (reference, value) in [
        ("var.pontoon_image", &sidecar["image"]),
        ("var.shop_image", &app["image"]),
        ("var.log_group", &log["awslogs-group"]),
        ("var.region", &log["awslogs-region"]),
        ("join(\\\",\\\", var.upstreams)", &sidecar["environment"][0]["value"]),
    ] {
        local = local.replace(&format!("${{{reference}}}"), value.as_str().unwrap());
    }
    let local: Value = serde_json::from_str(&local).unwrap();
    assert_eq!(&local["pontoon"], sidecar);
    assert_eq!(&local["shop"], app);
    let trust = resource("aws_iam_role", "shop")["assume_role_policy"].as_str().unwrap();
    assert!(trust.contains("data.aws_caller_identity.current.account_id"), "{trust}");
    let same = resource("aws_ecs_task_definition", "shop");
    for (theirs, ours) in [
        ("requires_compatibilities", "requiresCompatibilities"),
        ("network_mode", "networkMode"),
        ("cpu", "cpu"),
        ("memory", "memory"),
    ] {
        assert_eq!(same[theirs], task[ours], "{theirs}");
    }
    assert_eq!(same["container_definitions"], "${jsonencode([local.shop, local.pontoon])}");
    assert_eq!(same["volume"][0]["name"], task["volumes"][0]["name"]);
    let user = resource("aws_efs_access_point", "state")["posix_user"][0].clone();
    assert_eq!(format!("{}:{}", user["uid"], user["gid"]), sidecar["user"].as_str().unwrap());
}

#[test]
fn no_two_tasks_write_one_state_file() {
    let service = resource("aws_ecs_service", "shop");
    assert_eq!(service["desired_count"], 1);
    assert_eq!(
        (&service["deployment_minimum_healthy_percent"], &service["deployment_maximum_percent"]),
        (&0.into(), &100.into())
    );
}

#[test]
fn terraforms_group_is_changed_as_the_readme_says() {
    let file = read("terraform", "config/terraform/replication_group.tf");
    let group = &file["resource"][0]["aws_elasticache_replication_group"]["sessions"];
    assert_eq!(group["transit_encryption_mode"], "preferred", "the first apply");
    let readme = std::fs::read_to_string("README.md").unwrap();
    for name in ["transit_encryption_enabled", "transit_encryption_mode", "apply_immediately"] {
        let words = format!("`{name} = {}`", group[name]);
        assert!(readme.contains(&words), "{words}");
    }
    assert_eq!(group["lifecycle"][0]["prevent_destroy"], true);
}
