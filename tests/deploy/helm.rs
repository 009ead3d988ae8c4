//! The Helm library chart, used by the example chart.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::kubernetes::{
    app_with_components, assert_pontoon_accepts, assert_restricted, assert_shares_socket, documents, first,
    kustomized, pod, sidecar,
};
use super::{must, said};
use crate::harness::programs::helm;

/// The library chart.
const CHART: &str = "config/helm/pontoon";

/// The example chart with its dependency.
struct Example(TempDir);

impl Example {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        must(Command::new("cp").args(["-r", "config/helm/example"]).arg(folder.path()));
        symlink(fs::canonicalize(CHART).unwrap(), folder.path().join("pontoon")).unwrap();
        let example = Self(folder);
        must(&mut example.helm(&["dependency", "update"], &[]));
        example
    }

    /// A command of helm on the chart, with values of pontoon. The release's name is the label of the Kustomize components.
    fn helm(&self, args: &[&str], values: &[&str]) -> Command {
        let mut command = helm();
        for variable in ["HELM_CONFIG_HOME", "HELM_CACHE_HOME", "HELM_DATA_HOME"] {
            command.env(variable, self.0.path().join("home"));
        }
        command.args(args).arg(self.0.path().join("example"));
        for value in values {
            command.arg("--set").arg(format!("pontoon.{value}"));
        }
        command
    }

    fn template(&self, values: &[&str]) -> Vec<Value> {
        documents(&must(&mut self.helm(&["template", "sidecar"], values)))
    }
}

/// All values that are off by default.
const EVERYTHING: [&str; 7] = [
    "readiness=true",
    "socket=true",
    "metrics=true",
    "podMonitor=true",
    "prometheusRule=true",
    "dashboard=true",
    "networkPolicy.enabled=true",
];

#[test]
fn the_linter_accepts_both_charts() {
    must(helm().args(["lint", "--strict", CHART]));
    let example = Example::new();
    must(&mut example.helm(&["lint", "--strict"], &[]));
    must(&mut example.helm(&["lint", "--strict"], &EVERYTHING));
}

#[test]
fn the_chart_has_the_version_of_pontoon() {
    let chart = fs::read_to_string(format!("{CHART}/Chart.yaml")).unwrap();
    let example = fs::read_to_string("config/helm/example/Chart.yaml").unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(chart.contains(&format!("\nversion: {version}\nappVersion: {version}\n")), "{chart}");
    assert!(example.contains(&format!("  - name: pontoon\n    version: {version}\n")), "{example}");
}

#[test]
fn the_chart_adds_the_same_sidecar_as_the_kustomize_components() {
    let example = Example::new();
    let names = ["metrics", "readiness", "socket"];
    for chosen in [&[][..], &["metrics"], &["readiness"], &["socket"], &names] {
        let kustomized = app_with_components(&[&["sidecar"], chosen].concat());
        let values = names.map(|name| format!("{name}={}", chosen.contains(&name)));
        let charted =
            example.template(&[&values.each_ref().map(|one| &one[..])[..], &["podMonitor=false"]].concat());
        let [from_kustomize, from_chart] = [&kustomized, &charted].map(|documents| {
            let pod = pod(documents, "Deployment");
            // Each gives the ConfigMap its own name.
            let config = first(documents, "ConfigMap")["metadata"]["name"].as_str().unwrap();
            let volumes = pod["spec"]["volumes"].to_string().replace(config, "CONFIG");
            let volumes: Value = serde_json::from_str(&volumes).unwrap();
            (sidecar(pod).clone(), volumes, pod["metadata"]["labels"]["pontoon"].clone())
        });
        assert_eq!(from_chart, from_kustomize, "{chosen:?}");
        assert_eq!(sidecar(pod(&charted, "Job")), sidecar(pod(&charted, "Deployment")), "{chosen:?}");
    }
}

#[test]
fn the_chart_adds_the_same_objects_as_the_kustomize_components() {
    let charted = Example::new().template(&EVERYTHING);
    let kustomized = [
        app_with_components(&["sidecar", "metrics", "network-policy"]),
        kustomized("config/prometheus"),
        kustomized("config/grafana"),
    ]
    .concat();
    for kind in ["PodMonitor", "PrometheusRule", "NetworkPolicy"] {
        assert_eq!(first(&charted, kind)["spec"], first(&kustomized, kind)["spec"], "{kind}");
    }
    let [from_chart, from_kustomize] = [&charted, &kustomized].map(|documents| {
        let dashboard = documents.iter().find(|one| one["data"].get("pontoon.json").is_some()).unwrap();
        (dashboard["data"].clone(), dashboard["metadata"]["labels"].clone())
    });
    assert_eq!(from_chart, from_kustomize);
}

#[test]
fn pods_of_the_example_chart_conform_to_the_restricted_standard() {
    let example = Example::new();
    for values in [&[][..], &EVERYTHING] {
        let documents = example.template(values);
        assert_restricted(&documents);
        for kind in ["Deployment", "Job"] {
            assert_pontoon_accepts(pod(&documents, kind), first(&documents, "ConfigMap"));
            assert_shares_socket(pod(&documents, kind));
        }
    }
}

#[test]
fn values_change_the_image_the_variables_the_resources_and_the_networks() {
    let documents = Example::new().template(&[
        "image=registry.example/mirror:2",
        "env[0].name=PONTOON_LOG_LEVEL,pontoon.env[0].value=debug",
        "resources.limits.memory=1Gi",
        "networkPolicy.enabled=true",
        "networkPolicy.redisPorts={6379,6380}",
        "networkPolicy.redisNetworks={10.1.0.0/16}",
        "networkPolicy.prometheusNamespace=observability",
    ]);
    let pod = pod(&documents, "Deployment");
    let container = sidecar(pod);
    assert_eq!(container["image"], "registry.example/mirror:2");
    assert!(
        container["env"]
            .as_array()
            .unwrap()
            .contains(&json!({ "name": "PONTOON_LOG_LEVEL", "value": "debug" }))
    );
    assert_eq!(container["resources"], json!({ "limits": { "memory": "1Gi" } }));
    let policy = &first(&documents, "NetworkPolicy")["spec"];
    let redis = json!({
        "to": [{ "ipBlock": { "cidr": "10.1.0.0/16" } }],
        "ports": [{ "protocol": "TCP", "port": 6379 }, { "protocol": "TCP", "port": 6380 }],
    });
    assert_eq!(policy["egress"][1], redis);
    let prometheus = json!({ "kubernetes.io/metadata.name": "observability" });
    assert_eq!(policy["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"], prometheus);
    assert_pontoon_accepts(pod, first(&documents, "ConfigMap"));
}

#[test]
fn values_mount_files_into_pontoons_container_only() {
    let documents = Example::new().template(&[
        "volumes[0].name=redis,pontoon.volumes[0].secret.secretName=shop-redis",
        "volumes[1].name=ca,pontoon.volumes[1].configMap.name=private-ca",
        "volumeMounts[0].name=redis,pontoon.volumeMounts[0].mountPath=/run/secrets/redis",
        "volumeMounts[1].name=ca,pontoon.volumeMounts[1].mountPath=/etc/ssl/private-ca",
    ]);
    for kind in ["Deployment", "Job"] {
        let pod = pod(&documents, kind);
        let volumes = pod["spec"]["volumes"].as_array().unwrap();
        assert!(volumes.contains(&json!({ "name": "redis", "secret": { "secretName": "shop-redis" } })));
        assert!(volumes.contains(&json!({ "name": "ca", "configMap": { "name": "private-ca" } })));
        let mounts = |container: &Value| container["volumeMounts"].to_string();
        assert!(mounts(sidecar(pod)).contains("/run/secrets/redis"));
        assert!(!mounts(&pod["spec"]["containers"][0]).contains("/run/secrets/redis"));
        assert_pontoon_accepts(pod, first(&documents, "ConfigMap"));
    }
}

#[test]
fn a_value_labels_what_the_prometheus_operator_selects() {
    let labels = "prometheusLabels.release=kube-prometheus-stack";
    let documents = Example::new().template(&["prometheusRule=true", labels]);
    for kind in ["PodMonitor", "PrometheusRule"] {
        let wanted = json!({ "release": "kube-prometheus-stack" });
        assert_eq!(first(&documents, kind)["metadata"]["labels"], wanted, "{kind}");
    }
}

#[test]
fn a_changed_configuration_restarts_the_pods() {
    let example = Example::new();
    let annotations =
        |values: &[&str]| pod(&example.template(values), "Deployment")["metadata"]["annotations"].clone();
    assert_eq!(annotations(&[]), annotations(&["readiness=true"]));
    assert_ne!(annotations(&[]), annotations(&["config=other"]));
}

#[test]
fn a_wrong_value_is_refused_by_its_name() {
    let example = Example::new();
    for (value, reason) in [
        ("readines=true", "readines"),
        ("socket=maybe", "socket"),
        ("volumeMounts[0].name=redis", "mountPath"),
        ("networkPolicy.redisPorts={70000}", "redisPorts"),
        ("networkPolicy.redisNetworks={redis.example}", "redisNetworks"),
        ("metrics=false", "metrics"), // the PodMonitor needs it
        ("image=", "pontoon.image is required"),
        ("config=", "pontoon.config is required"),
    ] {
        let output = example.helm(&["template", "sidecar"], &[value]).output().unwrap();
        assert!(!output.status.success(), "{value}");
        assert!(said(&output).contains(reason), "{value}: {}", said(&output));
    }
}

#[test]
fn each_value_is_explained_and_in_the_schema() {
    let text = fs::read_to_string(format!("{CHART}/values.yaml")).unwrap();
    let schema = fs::read_to_string(format!("{CHART}/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let (mut top, mut nested, mut before) = (vec![], vec![], "");
    for line in text.lines() {
        if let Some((key, _)) = line.split_once(':').filter(|_| !line.trim_start().starts_with(['#', '-'])) {
            assert!(before.trim_start().starts_with('#'), "{key} has no explanation");
            if key.starts_with(' ') { &mut nested } else { &mut top }.push(key.trim());
        }
        before = line;
    }
    let keys = |value: &Value| value["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    top.push("global"); // Helm adds it to the values of each dependency.
    top.sort_unstable();
    nested.sort_unstable();
    assert_eq!(sorted(keys(&schema)), top);
    assert_eq!(sorted(keys(&schema["properties"]["networkPolicy"])), nested);
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort_unstable();
    list
}
