//! Manifests: least privilege, and one DaemonSet whichever way it is installed.

use super::{files, read, yaml};
use serde_json::{Value, json};

const BASE: &str = "tests/deploy/golden/kustomize-base.yaml";
const MINIMAL: &str = "tests/deploy/golden/kustomize-minimal.yaml";
const BEFORE_1_30: &str = "tests/deploy/golden/kustomize-before-1.30.yaml";

fn object(file: &str, kind: &str) -> Value {
    let mut found: Vec<Value> = yaml(file).into_iter().filter(|object| object["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{file}: {kind}");
    found.remove(0)
}

fn agent(daemonset: &Value) -> &Value {
    let containers = daemonset["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    &containers[0]
}

fn host_paths(daemonset: &Value) -> Vec<&str> {
    let volumes = daemonset["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
    volumes.iter().filter_map(|volume| volume["hostPath"]["path"].as_str()).collect()
}

#[test]
fn standard_profile_asks_for_two_capabilities_and_nothing_writable() {
    let daemonset = object(BASE, "DaemonSet");
    let context = &agent(&daemonset)["securityContext"];
    assert_eq!(context["capabilities"], json!({"drop": ["ALL"], "add": ["SYS_ADMIN", "SYS_PTRACE"]}));
    assert_eq!(daemonset["spec"]["template"]["spec"]["hostPID"], true);
    assert_eq!(
        host_paths(&daemonset),
        ["/proc", "/sys/fs/cgroup", "/run/netns", "/var/log/pods", "/var/log/containers"]
    );
}

#[test]
fn minimal_profile_asks_for_one_capability_and_no_process_of_the_host() {
    let daemonset = object(MINIMAL, "DaemonSet");
    let context = &agent(&daemonset)["securityContext"];
    assert_eq!(context["capabilities"], json!({"drop": ["ALL"], "add": ["SYS_ADMIN"]}));
    assert!(daemonset["spec"]["template"]["spec"].get("hostPID").is_none());
    assert_eq!(host_paths(&daemonset), ["/sys/fs/cgroup", "/run/netns", "/var/log/pods", "/var/log/containers"]);
    assert!(!read(MINIMAL).contains("unconfined"), "AppArmor stays on if the agent reads no other process");
    assert!(!read("tests/deploy/golden/helm-minimal.yaml").contains("nconfined"));
}

#[test]
fn every_profile_is_confined_in_everything_else() {
    for file in files("tests/deploy/golden", ".yaml") {
        let daemonset = object(&file, "DaemonSet");
        let pod = &daemonset["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false, "{file}");
        for absent in ["hostNetwork", "hostIPC", "initContainers"] {
            assert!(pod.get(absent).is_none(), "{file}: {absent}");
        }
        let agent = agent(&daemonset);
        let context = &agent["securityContext"];
        assert_eq!(context["privileged"], false, "{file}");
        assert_eq!(context["allowPrivilegeEscalation"], false, "{file}");
        assert_eq!(context["readOnlyRootFilesystem"], true, "{file}");
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{file}");
        assert_eq!(context["runAsUser"], 0, "{file}");
        assert!(agent["resources"]["limits"].get("cpu").is_none(), "{file}: a CPU limit throttles sweeps");
        assert!(agent["resources"]["limits"]["memory"].is_string(), "{file}");
        for mount in agent["volumeMounts"].as_array().unwrap() {
            assert_eq!(mount["readOnly"], true, "{file}: {mount}");
        }
        let netns =
            agent["volumeMounts"].as_array().unwrap().iter().find(|mount| mount["mountPath"] == "/run/netns").unwrap();
        assert_eq!(netns["mountPropagation"], "HostToContainer", "{file}: new pods' namespaces would not be seen");
    }
}

/// Removes the legitimate differences between chart and kustomization: labels, the name of the configuration,
/// checksums, and the two forms of `AppArmor`.
fn comparable(mut daemonset: Value) -> Value {
    let unconfined_field =
        agent(&daemonset)["securityContext"].get("appArmorProfile") == Some(&json!({"type": "Unconfined"}));
    let template = &mut daemonset["spec"]["template"];
    let annotations = template["metadata"]["annotations"].as_object_mut().unwrap();
    let unconfined_annotation = annotations.remove("container.apparmor.security.beta.kubernetes.io/agent");
    annotations.remove("checksum/config");
    annotations
        .insert("unconfined".into(), json!(unconfined_field || unconfined_annotation == Some(json!("unconfined"))));
    template["metadata"]["labels"].as_object_mut().unwrap().remove("app.kubernetes.io/instance");
    let container = &mut template["spec"]["containers"][0];
    container["securityContext"].as_object_mut().unwrap().remove("appArmorProfile");
    for volume in template["spec"]["volumes"].as_array_mut().unwrap() {
        if let Some(name) = volume["configMap"]["name"].as_str() {
            assert!(name.starts_with("keepalive-auditor"), "{name}");
            volume["configMap"]["name"] = json!("keepalive-auditor");
        }
    }
    daemonset["metadata"].as_object_mut().unwrap().remove("labels");
    daemonset["spec"]["selector"]["matchLabels"].as_object_mut().unwrap().remove("app.kubernetes.io/instance");
    daemonset
}

#[test]
fn chart_and_kustomization_describe_the_same_daemonset() {
    for (kustomize, helm) in [
        (BASE, "tests/deploy/golden/helm-default.yaml"),
        (BEFORE_1_30, "tests/deploy/golden/helm-old-cluster.yaml"),
        (MINIMAL, "tests/deploy/golden/helm-minimal.yaml"),
    ] {
        let (ours, charts) = (comparable(object(kustomize, "DaemonSet")), comparable(object(helm, "DaemonSet")));
        assert_eq!(
            serde_json::to_string_pretty(&ours).unwrap(),
            serde_json::to_string_pretty(&charts).unwrap(),
            "{kustomize} and {helm}"
        );
        let config = |file| {
            let text = object(file, "ConfigMap")["data"]["config.yaml"].as_str().unwrap().to_owned();
            serde_saphyr::from_str::<Value>(&text).unwrap()
        };
        assert_eq!(config(kustomize), config(helm), "the configuration of {kustomize} and {helm}");
    }
}

#[test]
fn apparmor_is_set_once_in_the_form_of_the_clusters_version() {
    for (file, field, annotation) in [
        (BASE, true, false),
        (BEFORE_1_30, false, true),
        (MINIMAL, false, false),
        ("tests/deploy/golden/helm-old-cluster.yaml", false, true),
    ] {
        let text = read(file);
        assert_eq!(text.contains("appArmorProfile:"), field, "{file}");
        assert_eq!(text.contains("container.apparmor.security.beta.kubernetes.io/agent:"), annotation, "{file}");
    }
}

#[test]
fn the_runtimes_socket_is_mounted_by_its_directory() {
    for file in ["tests/deploy/golden/kustomize-everything.yaml", "tests/deploy/golden/helm-everything.yaml"] {
        let daemonset = object(file, "DaemonSet");
        let env = agent(&daemonset)["env"].as_array().unwrap();
        let endpoint = env.iter().find(|env| env["name"] == "KEEPALIVE_AUDITOR_CRI_ENDPOINT").unwrap();
        assert_eq!(endpoint["value"], "/run/containerd/containerd.sock", "{file}");
        assert!(host_paths(&daemonset).contains(&"/run/containerd"), "{file}");
        assert!(
            !host_paths(&daemonset).iter().any(|path| path.contains(".sock")),
            "{file}: a restart leaves a dead socket"
        );
    }
}

#[test]
fn defaults_of_the_server_are_written_out() {
    for file in files("tests/deploy/golden", ".yaml") {
        for monitor in
            yaml(&file).iter().filter(|object| object["kind"] == "PodMonitor" || object["kind"] == "ServiceMonitor")
        {
            let spec = &monitor["spec"];
            let endpoints = spec.get("podMetricsEndpoints").or(spec.get("endpoints")).unwrap().as_array().unwrap();
            for relabeling in endpoints.iter().flat_map(|endpoint| endpoint["relabelings"].as_array().unwrap()) {
                let own = relabeling["targetLabel"] == "node";
                assert!(!own || relabeling["action"] == "replace", "{file}: kubectl apply sees a change each time");
            }
        }
    }
}

#[test]
fn probes_wait_for_the_first_sweep() {
    let daemonset = object(BASE, "DaemonSet");
    let startup = &agent(&daemonset)["startupProbe"];
    assert_eq!(startup["httpGet"]["path"], "/readyz");
    assert!(startup["periodSeconds"].as_u64().unwrap() * startup["failureThreshold"].as_u64().unwrap() >= 120);
}

#[test]
fn comparison_sees_a_difference() {
    let base = object(BASE, "DaemonSet");
    let mut other = base.clone();
    other["spec"]["template"]["spec"]["containers"][0]["securityContext"]["capabilities"]["add"] = json!(["SYS_ADMIN"]);
    assert_ne!(comparable(base), comparable(other));
}

#[test]
fn both_ways_make_the_same_security_context_constraints() {
    let body = |file| {
        let mut scc = object(file, "SecurityContextConstraints");
        for own in ["metadata", "users"] {
            scc.as_object_mut().unwrap().remove(own);
        }
        scc
    };
    let scc = body("tests/deploy/golden/kustomize-openshift.yaml");
    assert_eq!(scc, body("tests/deploy/golden/helm-everything.yaml"));
    assert_eq!(scc["allowedCapabilities"], json!(["SYS_ADMIN", "SYS_PTRACE"]));
    assert_eq!(scc["allowPrivilegedContainer"], false);
}

#[test]
fn monitors_keep_the_labels_of_the_agent() {
    let pod_monitor = object("tests/deploy/golden/kustomize-prometheus-operator.yaml", "PodMonitor");
    let endpoint = &pod_monitor["spec"]["podMetricsEndpoints"][0];
    assert_eq!(endpoint["honorLabels"], true);
    assert_eq!(endpoint["relabelings"][0]["targetLabel"], "node");
    let charts = object("tests/deploy/golden/helm-prometheus-operator.yaml", "PodMonitor");
    assert_eq!(&charts["spec"]["podMetricsEndpoints"][0], endpoint);
    assert_eq!(charts["spec"]["jobLabel"], pod_monitor["spec"]["jobLabel"]);

    let everything = "tests/deploy/golden/helm-everything.yaml";
    assert_eq!(object(everything, "ServiceMonitor")["spec"]["endpoints"][0]["honorLabels"], true);
    assert!(yaml(everything).iter().all(|object| object["kind"] != "PodMonitor"), "never both");
}
