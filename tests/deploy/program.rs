//! The program accepts everything in the manifests: every environment variable, argument and configuration file.

use super::{files, path, yaml};
use serde_json::Value;
use std::process::{Command, Output};

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keepalive-auditor")).args(arguments).output().unwrap()
}

/// Whether `audit` accepts a configuration. If it does, it fails later, at a recording that does not exist.
fn accepts(config: &str) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let (file, recording) = (directory.path().join("config.yaml"), directory.path().join("absent.jsonl"));
    std::fs::write(&file, config).unwrap();
    let output = program(&["audit", "--config", file.to_str().unwrap(), "--replay", recording.to_str().unwrap()]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(1) if stderr.contains("absent.jsonl") => Ok(()),
        _ => Err(stderr),
    }
}

fn help(command: &str) -> String {
    let help = program(&[command, "--help"]);
    assert!(help.status.success());
    String::from_utf8(help.stdout).unwrap()
}

#[test]
fn agent_has_every_setting_that_the_manifests_give_and_an_audit_in_its_pod_has_those_of_the_node() {
    let (agent, audit) = (help("agent"), help("audit"));
    let mut settings = 0;
    for file in files("tests/deploy/golden", ".yaml") {
        let objects = yaml(&file);
        let daemonset = objects.iter().find(|object| object["kind"] == "DaemonSet").unwrap();
        let container = &daemonset["spec"]["template"]["spec"]["containers"][0];
        let arguments = container["args"].as_array().unwrap();
        assert_eq!(arguments[0], "agent", "{file}");
        for argument in arguments[1..].iter().filter_map(Value::as_str) {
            let flag = argument.split('=').next().unwrap();
            assert!(agent.contains(&format!("{flag} ")), "{file}: the agent has no flag {flag}");
            // only what `extraArgs` adds
            assert!(file.ends_with("helm-everything.yaml"), "{file}: an audit in the pod does not see {flag}");
        }
        for variable in container["env"].as_array().unwrap().iter().filter_map(|env| env["name"].as_str()) {
            if variable.starts_with("KEEPALIVE_AUDITOR_") {
                assert!(agent.contains(&format!("[env: {variable}")), "{file}: the agent does not read {variable}");
                let only_the_agents = variable.starts_with("KEEPALIVE_AUDITOR_WEB_");
                assert_eq!(!only_the_agents, audit.contains(&format!("[env: {variable}")), "{file}: {variable}");
                settings += 1;
            }
        }
    }
    assert!(settings > 30, "{settings}");
}

#[test]
fn program_takes_every_configuration_that_is_deployed() {
    accepts(&std::fs::read_to_string(path("deploy/kustomize/base/config.yaml")).unwrap()).unwrap();
    for file in files("tests/deploy/golden", ".yaml") {
        let objects = yaml(&file);
        let config = objects.iter().find_map(|object| object["data"]["config.yaml"].as_str()).unwrap();
        accepts(config).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    assert!(accepts("idle_timeot: 350s\n").is_err());
}

#[test]
fn chart_allows_only_keys_that_the_program_takes() {
    let schema = super::json("deploy/helm/keepalive-auditor/values.schema.json");
    let keys = schema["properties"]["config"]["properties"].as_object().unwrap();
    for key in keys.keys() {
        // A key with a value of the wrong kind is refused for its value, an unknown key for itself.
        let error = accepts(&format!("{key}: {{ wrong: true }}\n")).unwrap_err();
        assert!(!error.contains(&format!("key {key}: unknown key")), "{error}");
    }
    let error = accepts("surely_unknown: { wrong: true }\n").unwrap_err();
    assert!(error.contains("key surely_unknown: unknown key"), "{error}");
}
