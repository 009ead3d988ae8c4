//! The Kustomize components, applied to an app.

use std::sync::LazyLock;

use serde_json::Value;

use super::{accepted, checked, must, strings, variables};
use crate::harness::programs::kubectl;

/// All documents that the cluster receives.
static DOCUMENTS: LazyLock<Value> = LazyLock::new(|| {
    let text = must(kubectl().args(["kustomize", "config/kubernetes/example"]));
    checked("kubernetes", &text)
});

/// The first of these documents with this kind.
fn built(kind: &str) -> Value {
    let mut documents = DOCUMENTS.as_array().unwrap().iter();
    documents.find(|document| document["kind"] == kind).unwrap().clone()
}

fn pod() -> Value {
    built("Deployment")["spec"]["template"].clone()
}

/// The sidecar, among its pod's init containers.
fn sidecar(pod: &Value) -> Value {
    pod["spec"]["initContainers"][0].clone()
}

#[test]
fn the_component_puts_a_native_sidecar_before_all_that_needs_redis() {
    let pod = pod();
    let names: Vec<_> =
        pod["spec"]["initContainers"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names, ["pontoon", "migrate"], "the app's own init containers have Redis, too");
    assert_eq!(sidecar(&pod)["restartPolicy"], "Always");
    assert_eq!(pod["spec"]["containers"][0]["name"], "shop");
    assert_eq!(pod["metadata"]["labels"]["app"], "shop", "existing labels stay");
}

#[test]
fn the_sidecar_accepts_its_arguments_and_its_configuration() {
    let (pod, files) = (pod(), built("ConfigMap"));
    let volume = &pod["spec"]["volumes"][0];
    assert_eq!(volume["configMap"]["name"], files["metadata"]["name"], "with the hash of its content");
    let container = sidecar(&pod);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pontoon.toml"), files["data"]["pontoon.toml"].as_str().unwrap())
        .unwrap();
    let mount = &container["volumeMounts"][0];
    assert_eq!(mount["name"], volume["name"]);
    let mounted = format!("{}/", mount["mountPath"].as_str().unwrap());
    let here = format!("{}/", directory.path().display());
    let args: Vec<String> =
        strings(&container["args"]).iter().map(|arg| arg.replace(&mounted, &here)).collect();
    let mut variables = variables(&container["env"]);
    assert!(variables.iter().any(|(_, value)| value == "/var/lib/pontoon/state.json"));
    variables.retain(|(name, _)| name != "PONTOON_STATE_FILE");
    accepted(&args, &variables);
}

#[test]
fn an_unreachable_redis_restarts_no_container_and_delays_no_start() {
    let container = sidecar(&pod());
    for (probe, liveness) in [("startupProbe", true), ("livenessProbe", true), ("readinessProbe", false)] {
        let command = strings(&container[probe]["exec"]["command"]);
        assert_eq!(command[0], "/usr/local/bin/pontoon", "the image has no shell");
        pontoon::cli::command().try_get_matches_from(&command).unwrap();
        assert_eq!(command.contains(&"--live".into()), liveness, "{probe}");
        // Longer than the command's own timeout.
        assert!(container[probe]["timeoutSeconds"].as_u64().unwrap() > 2, "{probe}");
    }
}

/// Checks the standard's requirements on containers: <https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted>.
#[test]
fn the_sidecar_conforms_to_the_restricted_pod_security_standard() {
    let pod = pod();
    let container = sidecar(&pod);
    let context = &container["securityContext"];
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["privileged"], false);
    assert_eq!(context["capabilities"], serde_json::json!({ "drop": ["ALL"] }));
    assert_eq!(context["runAsNonRoot"], true);
    assert_ne!(context["runAsUser"], 0);
    assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
    for port in container["ports"].as_array().into_iter().flatten() {
        assert!(port.get("hostPort").is_none());
    }
    let kinds = ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"];
    for volume in pod["spec"]["volumes"].as_array().unwrap() {
        assert!(kinds.iter().any(|kind| volume.get(kind).is_some()), "{volume}");
    }
    // The standard does not require this.
    assert_eq!(context["readOnlyRootFilesystem"], true);
}

#[test]
fn prometheus_finds_the_port_that_the_metrics_component_opens() {
    let (pod, monitor) = (pod(), built("PodMonitor"));
    let port = &sidecar(&pod)["ports"][0];
    let variables = variables(&sidecar(&pod)["env"]);
    let metrics = &variables.iter().find(|(name, _)| name == "PONTOON_ADMIN_METRICS_LISTEN").unwrap().1;
    assert_eq!(*metrics, format!("0.0.0.0:{}", port["containerPort"]));
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], port["name"]);
    let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
    assert!(wanted.iter().all(|(label, value)| pod["metadata"]["labels"][label] == *value));
}
