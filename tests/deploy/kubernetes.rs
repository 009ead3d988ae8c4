//! The Kustomize components, applied to apps.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::{accepted, checked, must, strings, variables};
use crate::harness::programs::kubectl;

const METRICS: &str = "PONTOON_ADMIN_METRICS_LISTEN";

/// All documents that the cluster receives, after the schemas of Kubernetes have accepted them.
pub(super) fn documents(text: &str) -> Vec<Value> {
    checked("kubernetes", text).as_array().unwrap().clone()
}

pub(super) fn kustomized(folder: &str) -> Vec<Value> {
    documents(&must(kubectl().args(["kustomize", folder])))
}

fn example_app() -> String {
    fs::read_to_string("config/kubernetes/example/app.yaml").unwrap()
}

/// This app and the example's configuration, with this kustomization, whose `config` is that of the repository.
fn app_with(app: &str, kustomization: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("app.yaml"), app).unwrap();
    fs::copy("config/kubernetes/example/pontoon.toml", folder.path().join("pontoon.toml")).unwrap();
    symlink(fs::canonicalize("config").unwrap(), folder.path().join("config")).unwrap();
    fs::write(folder.path().join("kustomization.yaml"), kustomization).unwrap();
    kustomized(folder.path().to_str().unwrap())
}

/// The example's app with these components.
pub(super) fn app_with_components(components: &[&str]) -> Vec<Value> {
    app_with(&example_app(), &kustomization(components))
}

fn kustomization(components: &[&str]) -> String {
    let list = components.iter().map(|name| format!("config/kubernetes/{name}")).collect::<Vec<_>>();
    json!({
        "resources": ["app.yaml"],
        "components": list,
        "configMapGenerator": [{ "name": "pontoon", "files": ["pontoon.toml"] }],
        "images": [{ "name": "pontoon", "newName": "registry.example/pontoon", "newTag": "0.1.0" }],
    })
    .to_string()
}

/// The first of these documents with this kind.
pub(super) fn first<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    documents.iter().find(|document| document["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

/// The pod template of the first document with this kind.
pub(super) fn pod<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    &first(documents, kind)["spec"]["template"]
}

/// The sidecar, which is the first of its pod's init containers.
pub(super) fn sidecar(pod: &Value) -> &Value {
    &pod["spec"]["initContainers"][0]
}

/// Asserts that pontoon accepts the sidecar's arguments and variables, with the file that this object holds, a volume of the pod.
pub(super) fn assert_pontoon_accepts(pod: &Value, files: &Value) {
    let container = sidecar(pod);
    let volume =
        pod["spec"]["volumes"].as_array().unwrap().iter().find(|one| one["name"] == "pontoon").unwrap();
    assert_eq!(volume["configMap"]["name"], files["metadata"]["name"]);
    let mounts = container["volumeMounts"].as_array().unwrap();
    let mounted = |name: &str| {
        let mount = mounts.iter().find(|mount| mount["name"] == name)?;
        Some(format!("{}/", mount["mountPath"].as_str().unwrap()))
    };
    let directory = tempfile::tempdir().unwrap();
    let here = format!("{}/", directory.path().display());
    let mut config = files["data"]["pontoon.toml"].as_str().unwrap().to_owned();
    if let Some(shared) = mounted("pontoon-socket") {
        assert!(config.contains(&shared), "a socket on the volume: {config}");
        config = config.replace(&shared, &here);
    }
    fs::write(directory.path().join("pontoon.toml"), config).unwrap();
    let mounted = mounted("pontoon").unwrap();
    let args: Vec<String> =
        strings(&container["args"]).iter().map(|arg| arg.replace(&mounted, &here)).collect();
    let mut variables = variables(&container["env"]);
    assert!(variables.iter().any(|(_, value)| value == "/var/lib/pontoon/state.json"));
    variables.retain(|(name, _)| name != "PONTOON_STATE_FILE");
    accepted(&args, &variables);
}

/// Asserts that the API server admits all pods of these documents where it enforces the *restricted* Pod Security Standard:
/// <https://kubernetes.io/docs/concepts/security/pod-security-standards/>, with the rules of the *baseline* standard, which it includes.
/// Where the standard allows some values of a setting that pontoon does not need, this allows none.
pub(super) fn assert_restricted(documents: &[Value]) {
    let pods: Vec<_> = documents.iter().filter_map(|one| one["spec"].get("template")).collect();
    assert!(!pods.is_empty());
    for pod in pods {
        let spec = &pod["spec"];
        let unset = |value: &Value, keys: &[&str]| {
            for key in keys {
                assert!(matches!(&value[*key], Value::Null | Value::Bool(false)), "{key}: {value}");
            }
        };
        unset(spec, &["hostNetwork", "hostPID", "hostIPC"]);
        for volume in spec["volumes"].as_array().into_iter().flatten() {
            let kinds = [
                "configMap",
                "csi",
                "downwardAPI",
                "emptyDir",
                "ephemeral",
                "persistentVolumeClaim",
                "projected",
                "secret",
            ];
            assert!(volume.as_object().unwrap().keys().all(|key| key == "name" || kinds.contains(&&key[..])));
        }
        let annotations = pod["metadata"]["annotations"].as_object();
        assert!(!annotations.into_iter().flatten().any(|(name, _)| name.contains("apparmor")));
        let at_pod = &spec["securityContext"];
        unset(at_pod, &["sysctls"]);
        let kinds = ["initContainers", "containers", "ephemeralContainers"];
        for container in kinds.iter().filter_map(|kind| spec[*kind].as_array()).flatten() {
            let context = &container["securityContext"];
            unset(context, &["privileged", "procMount"]);
            for port in container["ports"].as_array().into_iter().flatten() {
                assert!(matches!(port["hostPort"].as_u64(), None | Some(0)), "{port}");
            }
            let handlers = [
                &container["startupProbe"],
                &container["livenessProbe"],
                &container["readinessProbe"],
                &container["lifecycle"]["postStart"],
                &container["lifecycle"]["preStop"],
            ];
            for handler in handlers {
                assert!(handler["httpGet"].get("host").or(handler["tcpSocket"].get("host")).is_none());
            }
            for context in [context, at_pod] {
                unset(context, &["windowsOptions", "appArmorProfile", "seLinuxOptions"]);
                assert_ne!(context["runAsUser"], 0);
            }
            // A container's own setting has precedence over its pod's.
            let set = |key: &str| context.get(key).unwrap_or(&at_pod[key]);
            assert_eq!(context["allowPrivilegeEscalation"], false, "{container}");
            assert_eq!(*set("runAsNonRoot"), true, "{container}");
            let profile = &set("seccompProfile")["type"];
            assert!(profile == "RuntimeDefault" || profile == "Localhost", "{container}");
            let capabilities = &context["capabilities"];
            assert!(strings(&capabilities["drop"]).contains(&"ALL".into()), "{container}");
            let added = capabilities["add"].as_array().into_iter().flatten();
            assert!(added.into_iter().all(|one| one == "NET_BIND_SERVICE"), "{container}");
        }
    }
}

#[test]
fn the_component_puts_a_native_sidecar_before_all_that_needs_redis() {
    let example = kustomized("config/kubernetes/example");
    let pod = pod(&example, "Deployment");
    let names: Vec<_> =
        pod["spec"]["initContainers"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names, ["pontoon", "migrate"], "the app's own init containers have Redis, too");
    assert_eq!(sidecar(pod)["restartPolicy"], "Always");
    assert_eq!(pod["spec"]["containers"][0]["name"], "shop");
    assert_eq!(pod["metadata"]["labels"]["app"], "shop", "existing labels stay");
}

#[test]
fn the_sidecar_accepts_its_arguments_and_its_configuration() {
    let example = kustomized("config/kubernetes/example");
    assert_pontoon_accepts(pod(&example, "Deployment"), first(&example, "ConfigMap"));
}

#[test]
fn every_kind_of_workload_gets_the_same_sidecar() {
    let components = ["sidecar", "metrics", "readiness", "socket"];
    let deployment = app_with_components(&components);
    for (kind, replicas) in [("StatefulSet", "  serviceName: shop\n"), ("DaemonSet", "")] {
        let app = example_app().replace("kind: Deployment", &format!("kind: {kind}"));
        let documents = app_with(&app.replace("  replicas: 2\n", replicas), &kustomization(&components));
        assert_eq!(pod(&documents, kind), pod(&deployment, "Deployment"), "{kind}");
    }
}

/// Kubernetes stops a native sidecar when the job's containers have ended. An ordinary container would keep the job running.
#[test]
fn a_job_has_pontoon_as_a_native_sidecar_and_shares_a_socket_with_it() {
    let documents = kustomized("config/kubernetes/job");
    let pod = pod(&documents, "Job");
    let container = sidecar(pod);
    assert_eq!(container["name"], "pontoon");
    assert_eq!(container["restartPolicy"], "Always");
    assert_pontoon_accepts(pod, first(&documents, "ConfigMap"));
    assert_shares_socket(pod);
    assert_restricted(&documents);
}

/// Asserts that the app connects to a socket on a volume that it shares with pontoon.
pub(super) fn assert_shares_socket(pod: &Value) {
    let mount = |container: &Value| {
        let mounts = container["volumeMounts"].as_array().unwrap();
        mounts.iter().find(|mount| mount["name"] == "pontoon-socket").unwrap().clone()
    };
    let (app, pontoon) = (&pod["spec"]["containers"][0], mount(sidecar(pod)));
    let path = pontoon["mountPath"].as_str().unwrap();
    assert_eq!(mount(app)["mountPath"], path);
    assert_eq!(mount(app)["readOnly"], true, "the app cannot replace the socket");
    assert_eq!(variables(&app["env"])[0].1, format!("unix://{path}/redis.sock"));
    let mut volumes = pod["spec"]["volumes"].as_array().unwrap().iter();
    assert!(volumes.any(|volume| volume["name"] == "pontoon-socket" && volume.get("emptyDir").is_some()));
}

#[test]
fn an_unreachable_redis_restarts_no_pod_and_takes_none_out_of_its_services() {
    let documents = app_with_components(&["sidecar"]);
    let container = sidecar(pod(&documents, "Deployment"));
    assert!(container.get("readinessProbe").is_none());
    for probe in ["startupProbe", "livenessProbe"] {
        assert!(probe_command(container, probe).contains(&"--live".into()), "{probe}");
    }
}

#[test]
fn a_component_makes_readiness_depend_on_redis() {
    let documents = app_with_components(&["sidecar", "readiness"]);
    let command = probe_command(sidecar(pod(&documents, "Deployment")), "readinessProbe");
    assert!(!command.contains(&"--live".into()));
}

fn probe_command(container: &Value, probe: &str) -> Vec<String> {
    let command = strings(&container[probe]["exec"]["command"]);
    assert_eq!(command[0], "/usr/local/bin/pontoon", "the image has no shell");
    pontoon::cli::command().try_get_matches_from(&command).unwrap();
    // Longer than the command's own timeout.
    assert!(container[probe]["timeoutSeconds"].as_u64().unwrap() > 2, "{probe}");
    command
}

#[test]
fn the_sidecar_conforms_to_the_restricted_pod_security_standard() {
    let components = ["sidecar", "metrics", "readiness", "socket", "network-policy"];
    let documents = app_with_components(&components);
    assert_restricted(&documents);
    // The standard does not require this.
    let container = sidecar(pod(&documents, "Deployment"));
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
}

#[test]
fn what_a_newcomer_copies_from_the_page_conforms_to_the_restricted_standard() {
    let page = fs::read_to_string("docs/deployment.md").unwrap();
    let kustomization = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let remote = "github.com/ORGANISATION/pontoon/config/kubernetes/sidecar?ref=v0.1.0";
    assert!(kustomization.contains(remote));
    let documents = app_with(&example_app(), &kustomization.replace(remote, "config/kubernetes/sidecar"));
    assert_restricted(&documents);
    assert_pontoon_accepts(pod(&documents, "Deployment"), first(&documents, "ConfigMap"));
}

#[test]
fn the_page_mounts_a_secret_where_the_sidecar_reads_it() {
    let page = fs::read_to_string("docs/deployment.md").unwrap();
    let [_, whole, patches, ..] = &page.split("```yaml\n").collect::<Vec<_>>()[..] else { panic!("{page}") };
    let [whole, patches] = [whole, patches].map(|block| block.split("```").next().unwrap());
    let remote = "github.com/ORGANISATION/pontoon/config/kubernetes/sidecar?ref=v0.1.0";
    let whole = whole.replace(remote, "config/kubernetes/sidecar");
    let documents = app_with(&example_app(), &format!("{whole}{patches}"));
    let pod = pod(&documents, "Deployment");
    let mount = json!({ "name": "redis", "mountPath": "/run/secrets/redis", "readOnly": true });
    assert!(sidecar(pod)["volumeMounts"].as_array().unwrap().contains(&mount));
    let volume = json!({ "name": "redis", "secret": { "secretName": "redis" } });
    assert!(pod["spec"]["volumes"].as_array().unwrap().contains(&volume));
    assert!(page.contains("password_file = \"/run/secrets/redis/"));
    assert_pontoon_accepts(pod, first(&documents, "ConfigMap"));
    assert_restricted(&documents);
}

#[test]
fn a_job_checks_a_configuration_before_the_rollout() {
    let mut kustomization: Value = serde_json::from_str(&kustomization(&[])).unwrap();
    kustomization["resources"] = json!(["config/kubernetes/check"]);
    let documents = app_with("", &kustomization.to_string());
    let pod = pod(&documents, "Job");
    let container = &pod["spec"]["containers"][0];
    let command = [vec!["pontoon".into()], strings(&container["args"])].concat();
    pontoon::cli::command().try_get_matches_from(&command).unwrap();
    assert_eq!(command[1..], ["check", "--config", "/etc/pontoon/pontoon.toml"]);
    assert_eq!(container["volumeMounts"][0]["mountPath"], "/etc/pontoon");
    let config = &first(&documents, "ConfigMap")["metadata"]["name"];
    assert_eq!(pod["spec"]["volumes"][0]["configMap"]["name"], *config);
    assert_eq!(container["image"], "registry.example/pontoon:0.1.0");
    assert_restricted(&documents);
}

#[test]
fn the_restricted_standard_refuses_what_it_must() {
    let documents = kustomized("config/kubernetes/job");
    for (pointer, value) in [
        ("/hostNetwork", json!(true)),
        ("/volumes/0", json!({ "name": "node", "hostPath": { "path": "/" } })),
        ("/initContainers/0/securityContext", json!({})),
        ("/initContainers/0/securityContext/privileged", json!(true)),
        ("/containers/0/securityContext/capabilities/drop", json!(["NET_RAW"])),
        ("/containers/0/securityContext/runAsNonRoot", json!(false)),
        ("/containers/0/securityContext/seccompProfile/type", json!("Unconfined")),
        ("/containers/0/securityContext/allowPrivilegeEscalation", json!(true)),
    ] {
        let mut pod = pod(&documents, "Job").clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match pod["spec"].pointer_mut(parent).unwrap() {
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
            object => object[key] = value,
        }
        let changed = [json!({ "spec": { "template": pod } })];
        assert!(std::panic::catch_unwind(|| assert_restricted(&changed)).is_err(), "{pointer}");
    }
}

#[test]
fn prometheus_finds_the_port_that_the_metrics_component_opens() {
    let documents = kustomized("config/kubernetes/example");
    let (pod, monitor) = (pod(&documents, "Deployment"), first(&documents, "PodMonitor"));
    let port = &sidecar(pod)["ports"][0];
    let variables = variables(&sidecar(pod)["env"]);
    let metrics = &variables.iter().find(|(name, _)| name == METRICS).unwrap().1;
    assert_eq!(*metrics, format!("0.0.0.0:{}", port["containerPort"]));
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], port["name"]);
    assert_selects(&monitor["spec"]["selector"], pod);
}

fn assert_selects(selector: &Value, pod: &Value) {
    let wanted = selector["matchLabels"].as_object().unwrap();
    assert!(wanted.iter().all(|(label, value)| pod["metadata"]["labels"][label] == *value), "{selector}");
}

#[test]
fn the_network_policy_admits_only_dns_redis_and_prometheus() {
    let documents = app_with_components(&["sidecar", "metrics", "network-policy"]);
    let (pod, policy) = (pod(&documents, "Deployment"), &first(&documents, "NetworkPolicy")["spec"]);
    assert_selects(&policy["podSelector"], pod);
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    let dns = json!([{ "protocol": "UDP", "port": 53 }, { "protocol": "TCP", "port": 53 }]);
    assert_eq!(
        policy["egress"],
        json!([{ "ports": dns }, { "ports": [{ "protocol": "TCP", "port": 6379 }] }])
    );
    let port = &sidecar(pod)["ports"][0]["containerPort"];
    assert_eq!(policy["ingress"][0]["ports"], json!([{ "protocol": "TCP", "port": port }]));
    assert!(policy["ingress"][0]["from"][0].get("namespaceSelector").is_some());
    assert_eq!(policy["ingress"].as_array().unwrap().len(), 1);
}

#[test]
fn the_prometheus_operator_gets_the_same_rules() {
    let [rules, copy] = ["pontoon.rules.yml", "prometheusrule.yaml"]
        .map(|name| fs::read_to_string(format!("config/prometheus/{name}")).unwrap());
    let indented = |line: &str| if line.is_empty() { "\n".into() } else { format!("  {line}\n") };
    let expected: String = rules.lines().map(indented).collect();
    let (_, spec) = copy.split_once("\nspec:\n").unwrap();
    assert_eq!(
        spec, expected,
        "run: cd config/prometheus && sed -i '/^spec:$/q' prometheusrule.yaml && sed 's/./  &/' pontoon.rules.yml >>prometheusrule.yaml"
    );
    let documents = kustomized("config/prometheus");
    let groups = first(&documents, "PrometheusRule")["spec"]["groups"].as_array().unwrap();
    assert_eq!(groups.len(), rules.matches("\n  - name: ").count());
}

#[test]
fn grafana_gets_the_dashboard_as_a_config_map() {
    let documents = kustomized("config/grafana");
    let dashboard = first(&documents, "ConfigMap");
    assert_eq!(dashboard["metadata"]["labels"], json!({ "grafana_dashboard": "1" }));
    let file = fs::read_to_string("config/grafana/pontoon.json").unwrap();
    assert_eq!(dashboard["data"]["pontoon.json"], file);
}
