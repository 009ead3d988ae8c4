//! `pontoon plan`, against moto, an AWS in Python, whose answers are checked with botocore's model.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::harness::free_port;
use crate::harness::programs::{printed, python};

/// ElastiCache of one region.
pub struct ElastiCache {
    process: Child,
    port: u16,
}

impl ElastiCache {
    pub fn start(spec: Value) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plan/elasticache.py");
        let mut command = python();
        command
            .args([script, &spec.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Ok(port) = line.trim().parse() else {
            drop(process.stdin.take());
            panic!(
                "moto did not start: {}",
                String::from_utf8_lossy(&process.wait_with_output().unwrap().stderr)
            );
        };
        // Its log must be read, because it would otherwise block on a full pipe.
        let log = process.stderr.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut BufReader::new(log), &mut std::io::sink()));
        Self { process, port }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `pontoon plan`, with credentials.
    pub fn plan(&self, args: &[&str]) -> Output {
        plan(&[("AWS_ENDPOINT_URL_ELASTICACHE", &self.url())], args)
    }

    pub fn report(&self, args: &[&str]) -> Value {
        let output = self.plan(&[args, &["--json"]].concat());
        assert!(output.status.success(), "{}", error(&output));
        let report = serde_json::from_slice(&output.stdout).unwrap();
        crate::json::assert_documented("plan", &report);
        report
    }

    /// Does what a command of the AWS CLI would.
    pub fn aws_cli(&self, command: &str) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plan/aws_cli.py");
        printed(python().args([script, &self.url(), command]));
    }
}

impl Drop for ElastiCache {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs `pontoon plan` with only these variables of AWS.
fn plan(variables: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_pontoon"), "plan"]).args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AWS_") || name.to_string_lossy().starts_with("PONTOON_") {
            command.env_remove(name);
        }
    }
    let none = "/nonexistent";
    command.envs([
        ("AWS_CONFIG_FILE", none),
        ("AWS_SHARED_CREDENTIALS_FILE", none),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_ACCESS_KEY_ID", "AKIATEST"),
        ("AWS_SECRET_ACCESS_KEY", "s3cr3t-k3y"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_MAX_ATTEMPTS", "1"),
    ]);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    for text in [&output.stdout, &output.stderr] {
        assert!(!String::from_utf8_lossy(text).contains("s3cr3t"), "a secret is printed");
    }
    output
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", error(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A group without TLS, of Redis 7.1, with its names.
pub fn plaintext(id: &str) -> Value {
    let endpoint =
        |name: String| json!({"Address": format!("{name}.euw1.cache.amazonaws.com"), "Port": 6379});
    json!({
        "create": {"ReplicationGroupId": id, "CacheNodeType": "cache.r6g.large", "ReplicasPerNodeGroup": 1},
        "group": {"NodeGroups": [{
            "NodeGroupId": "0001",
            "PrimaryEndpoint": endpoint(format!("{id}.abc123.ng.0001")),
            "ReaderEndpoint": endpoint(format!("{id}-ro.abc123.ng.0001")),
            "NodeGroupMembers": [{
                "CacheClusterId": format!("{id}-001"), "ReadEndpoint": endpoint(format!("{id}-001.abc123.0001")),
            }],
        }]},
        "nodes": {
            "EngineVersion": "7.1.0",
            "PreferredMaintenanceWindow": "sun:05:00-sun:06:00",
            "CacheParameterGroup": {"CacheParameterGroupName": "default.redis7"},
        },
    })
}

#[test]
fn the_plan_of_a_plaintext_group_has_facts_next_commands_and_rollback() {
    let aws = ElastiCache::start(json!({"answers": 0, "groups": [plaintext("sessions")]}));
    let text = text(&aws.plan(&["--group", "sessions", "--region", "eu-west-1"]));
    for line in [
        "group        sessions in eu-west-1, available",
        "mode         disabled: plaintext only; ElastiCache.5 fails",
        "engine       redis 7.1.0, cluster mode disabled, 2 nodes of cache.r6g.large",
        "             transit encryption can be changed in place",
        "primary      sessions.abc123.ng.0001.euw1.cache.amazonaws.com:6379",
        "             with TLS master.sessions.abc123.euw1.cache.amazonaws.com (derived from AWS' naming pattern)",
        "users        no AUTH token, no user group",
        "pending      nothing; maintenance window sun:05:00-sun:06:00 UTC",
        "position     step 0 of 2: plaintext only. Next is preferred, then required",
        "  aws elasticache modify-replication-group --region eu-west-1 --replication-group-id sessions \
         --transit-encryption-enabled --transit-encryption-mode preferred --apply-immediately",
        "  resource \"aws_elasticache_replication_group\" \"sessions\" {",
        "        TransitEncryptionMode: preferred",
        "  pontoon plan --region eu-west-1 --group sessions --wait",
        "  aws elasticache modify-replication-group --region eu-west-1 --replication-group-id sessions \
         --no-transit-encryption-enabled --apply-immediately",
    ] {
        assert!(text.lines().any(|printed| printed == line), "{line}\n\n{text}");
    }
}

#[test]
fn cloudformations_linter_accepts_the_printed_template() {
    let aws = ElastiCache::start(json!({"answers": 0, "groups": [plaintext("sessions-1")]}));
    let report = aws.report(&["--group", "sessions-1"]);
    let template = report["plans"][0]["next"]["recipes"]["cloudformation"].as_str().unwrap();
    // What the group's own template already contains.
    let whole = format!("{template}\n      Engine: redis\n      ReplicationGroupDescription: of a test\n");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("template.yaml");
    std::fs::write(&file, whole).unwrap();
    let linter = "from cfnlint.runner import main; main()";
    let output = python().args(["-c", linter]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_printed_commands_lead_to_required_and_back() {
    let aws = ElastiCache::start(json!({"answers": 2, "groups": [plaintext("sessions")]}));
    let plan = || aws.report(&["--group", "sessions"])["plans"][0].clone();
    let wait = || {
        let waited = aws.plan(&["--group", "sessions", "--wait=50s", "--interval", "10ms"]);
        text(&waited)
    };
    let readme = std::fs::read_to_string("README.md").unwrap();
    let assert_in_readme = |text: &str| assert!(readme.contains(text), "the README does not have {text}");
    for mode in ["preferred", "required"] {
        let recipes = plan()["next"]["recipes"].clone();
        let command = recipes["aws_cli"].as_str().unwrap();
        assert_in_readme(&command.replace("eu-west-1", "ap-northeast-1"));
        let terraform = recipes["terraform"].as_str().unwrap().lines();
        for setting in terraform.filter(|line| line.starts_with("  ") && line.contains(" = ")) {
            let words: Vec<&str> = setting.split_whitespace().collect();
            assert_in_readme(&words.join(" "));
        }
        aws.aws_cli(command);
        assert_eq!(plan()["modification"], json!({"to": mode, "running": true}));
        let waited = wait();
        assert!(
            waited.contains(&format!(
                "modifying, transit encryption {}",
                if mode == "preferred" { "disabled" } else { "preferred" }
            )),
            "{waited}"
        );
        assert_eq!(plan()["group"]["transit_encryption"], mode);
    }
    let back = plan()["way_back"]["commands"].clone();
    for (number, mode) in [(0, "preferred"), (2, "disabled")] {
        aws.aws_cli(back[number].as_str().unwrap());
        wait();
        assert_eq!(plan()["group"]["transit_encryption"], mode);
    }
}

#[test]
fn without_a_group_every_group_that_fails_elasticache_5_is_planned() {
    let mut preferred = plaintext("orders");
    preferred["create"]["TransitEncryptionEnabled"] = json!(true);
    preferred["group"]["TransitEncryptionMode"] = json!("preferred");
    let mut old = plaintext("carts");
    old["nodes"]["EngineVersion"] = json!("6.2.6");
    let aws = ElastiCache::start(json!({"answers": 0, "groups": [plaintext("sessions"), preferred, old]}));
    let report = aws.report(&[]);
    let ids: Vec<&Value> =
        report["plans"].as_array().unwrap().iter().map(|plan| &plan["group"]["id"]).collect();
    assert_eq!(ids, ["carts", "sessions"]);
    assert_eq!(report["plans"][0]["changes_in_place"], false);
    assert_eq!(
        report["passing"],
        json!([{"id": "orders", "region": "eu-west-1", "transit_encryption": "preferred"}])
    );
    let text = text(&aws.plan(&["--region", "eu-west-1", "--region", "us-east-1"]));
    assert!(
        text.contains("passes       orders in eu-west-1: preferred, which still accepts plaintext"),
        "{text}"
    );
    assert!(text.contains("redis 6.2.6 is too old"), "{text}");
    let result = "1 ready for the next step, 1 blocked; 1 group passes ElastiCache.5\n";
    assert!(text.ends_with(result), "{text}");
}

#[test]
fn a_clusters_endpoint_and_its_parameter_are_read() {
    let parameters = json!({"timeout": "0", "cluster-preferred-endpoint-type": "ip"});
    let aws = ElastiCache::start(json!({"answers": 0, "groups": [cluster()], "parameters": parameters}));
    let text = text(&aws.plan(&["--group", "feed"]));
    for words in [
        "valkey 8.0.1, cluster mode enabled, 4 nodes",
        "with TLS clustercfg.feed.abc123.euw1.cache.amazonaws.com",
        "parameters   own, cluster-preferred-endpoint-type ip",
        "cluster-preferred-endpoint-type is ip in own",
    ] {
        assert!(text.contains(words), "{words}\n\n{text}");
    }
}

#[test]
fn users_and_a_global_datastore_are_read() {
    let mut group = plaintext("sessions");
    group["create"]["TransitEncryptionEnabled"] = json!(true);
    group["create"]["AuthToken"] = json!("s3cr3t-t0k3n-0123456789");
    group["group"]["TransitEncryptionMode"] = json!("required");
    group["group"]["UserGroupIds"] = json!(["apps"]);
    group["group"]["PendingModifiedValues"] = json!({"AuthTokenStatus": "ROTATING"});
    // moto itself models the member of a global datastore, and knows only the group's id.
    group["create"]["GlobalReplicationGroupId"] = json!("ldgnf-x");
    let aws = ElastiCache::start(json!({"answers": 0, "groups": [group]}));
    let text = text(&aws.plan(&["--group", "sessions"]));
    for words in [
        "users        AUTH token, user groups apps",
        "global       SECONDARY of the global datastore ldgnf-x",
        "pending      AUTH token ROTATING",
        "step 2 of 2: done",
        "way back     closed by user groups (apps)",
    ] {
        assert!(text.contains(words), "{words}\n\n{text}");
    }
}

#[test]
fn plan_does_not_wait_for_a_change_that_waits_for_its_window() {
    let mut group = plaintext("sessions");
    group["group"]["PendingModifiedValues"] =
        json!({"TransitEncryptionEnabled": true, "TransitEncryptionMode": "preferred"});
    let aws = ElastiCache::start(json!({"answers": 0, "groups": [group]}));
    let output = aws.plan(&["--group", "sessions", "--wait", "--interval", "10ms"]);
    assert_eq!(output.status.code(), Some(1));
    let error = error(&output);
    assert!(error.contains("waits for the maintenance window"), "{error}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("--transit-encryption-mode preferred --apply-immediately"), "{text}");
}

#[test]
fn a_wait_has_an_end() {
    let aws = ElastiCache::start(json!({"answers": 1_000_000, "groups": [plaintext("sessions")]}));
    let report = aws.report(&["--group", "sessions"]);
    aws.aws_cli(report["plans"][0]["next"]["recipes"]["aws_cli"].as_str().unwrap());
    let output = aws.plan(&["--group", "sessions", "--wait=300ms", "--interval", "10ms"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(error(&output).contains("did not end within 300ms"), "{}", error(&output));
}

#[test]
fn each_failure_names_its_remedy() {
    let actions = ["DescribeReplicationGroups", "DescribeCacheClusters"];
    for action in actions {
        for (code, words) in [
            ("AccessDenied", format!("no permission for elasticache:{action} (in words)")),
            ("Throttling", format!("AWS throttled elasticache:{action} (in words)")),
            (
                "InvalidClientTokenId",
                "does not accept the credentials (InvalidClientTokenId: in words): renew them".into(),
            ),
            ("InternalFailure", format!("elasticache:{action} failed (InternalFailure: in words)")),
        ] {
            let mut errors = json!({});
            errors[action] = json!([code, "in words"]);
            let aws = ElastiCache::start(
                json!({"answers": 0, "groups": [plaintext("sessions")], "errors": errors}),
            );
            let output = aws.plan(&["--group", "sessions"]);
            assert_eq!(output.status.code(), Some(1));
            assert!(error(&output).contains(&words), "{code}: {}", error(&output));
        }
    }
}

/// A cluster for which `plan` makes all of its requests to AWS.
fn cluster() -> Value {
    json!({
        "create": {"ReplicationGroupId": "feed", "Engine": "valkey", "ClusterMode": "enabled", "NumNodeGroups": 2,
            "ReplicasPerNodeGroup": 1},
        "group": {"ConfigurationEndpoint": {"Address": "feed.abc123.clustercfg.euw1.cache.amazonaws.com", "Port": 6379}},
        "nodes": {"EngineVersion": "8.0.1", "CacheParameterGroup": {"CacheParameterGroupName": "own"}},
    })
}

#[test]
fn the_policy_allows_what_a_plan_needs_and_nothing_else() {
    let policy: Value =
        serde_json::from_str(&std::fs::read_to_string("config/iam/plan.json").unwrap()).unwrap();
    let [statement] = &policy["Statement"].as_array().unwrap()[..] else { panic!("{policy}") };
    let actions: Vec<&str> = statement["Action"]
        .as_array()
        .unwrap()
        .iter()
        .map(|action| action.as_str().unwrap().strip_prefix("elasticache:").unwrap())
        .collect();
    let aws = ElastiCache::start(json!({"answers": 0, "groups": [cluster()], "allowed": actions}));
    text(&aws.plan(&["--group", "feed", "--wait"]));
    for action in &actions {
        let rest: Vec<&&str> = actions.iter().filter(|other| other != &action).collect();
        let aws = ElastiCache::start(json!({"answers": 0, "groups": [cluster()], "allowed": rest}));
        let error = error(&aws.plan(&["--group", "feed"]));
        assert!(
            error.contains(&format!("no permission for elasticache:{action} (not in the policy)")),
            "{error}"
        );
    }
}

#[test]
fn a_name_of_something_else_than_a_group_is_reported_as_such() {
    let lone = json!({"CacheClusterId": "lone", "CacheNodeType": "cache.t4g.micro", "Engine": "redis"});
    let memcached = json!({"CacheClusterId": "pages", "CacheNodeType": "cache.t4g.micro", "Engine": "memcached",
        "NumCacheNodes": 1});
    let aws = ElastiCache::start(
        json!({"answers": 0, "groups": [plaintext("sessions")], "clusters": [lone, memcached]}),
    );
    for (group, words) in [
        ("session", "eu-west-1 has no replication group \"session\" in this account: check the id"),
        ("sessions-001", "is a node of the replication group \"sessions\": give --group sessions"),
        ("lone", "is a cache cluster outside of a replication group, and cannot use TLS"),
        (
            "pages",
            "\"pages\" is a Memcached cluster, but pontoon carries the Redis protocol: give --group the id",
        ),
    ] {
        let output = aws.plan(&["--group", group]);
        assert_eq!(output.status.code(), Some(1));
        assert!(error(&output).contains(words), "{}", error(&output));
    }
    // moto invents regions; the group is in another one.
    let output = aws.plan(&["--group", "sessions", "--region", "us-east-1"]);
    assert!(error(&output).contains("us-east-1 has no replication group"), "{}", error(&output));
}

#[test]
fn a_lack_of_credentials_region_or_network_names_the_remedy() {
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let cases: [(&[(&str, &str)], &str); 3] = [
        (&[("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")], "no AWS credentials: "),
        (&[("AWS_REGION", "")], "no AWS region: give --region"),
        (&[("AWS_ENDPOINT_URL", &nowhere)], "cannot reach AWS for elasticache:DescribeReplicationGroups"),
    ];
    for (variables, words) in cases {
        let output = plan(variables, &["--group", "sessions"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(error(&output).contains(words), "{}", error(&output));
    }
    for args in [&["--group", "a", "--region", "x", "--region", "y"][..], &["--wait"]] {
        assert_eq!(plan(&[], args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn answers_of_aws_cannot_steer_the_terminal() {
    let mut group = plaintext("sessions");
    group["nodes"]["PreferredMaintenanceWindow"] = json!("sun\u{202e}\u{200b}");
    let aws = ElastiCache::start(json!({"answers": 0, "groups": [group]}));
    let text = text(&aws.plan(&["--group", "sessions"]));
    assert!(text.contains(r"maintenance window sun\u{202e}\u{200b} UTC"), "{text}");
}
