//! Alerts and recording rules: complete, explained in the runbook, the same in every copy, and made of metrics that
//! exist.

use super::{files, known_metrics, metric_names, read, yaml};
use serde_json::{Value, json};

fn rules() -> Vec<Value> {
    let mut all = Vec::new();
    for file in files("deploy/prometheus", ".yaml") {
        for group in yaml(&file)[0]["groups"].as_array().unwrap() {
            all.extend(group["rules"].as_array().unwrap().iter().cloned());
        }
    }
    all
}

fn alerts() -> Vec<Value> {
    rules().into_iter().filter(|rule| rule.get("alert").is_some()).collect()
}

/// The anchor that a Markdown heading gets on the forge.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || *c == '-' || *c == ' ')
        .collect::<String>()
        .replace(' ', "-")
}

#[test]
fn every_alert_says_what_it_means_and_where_to_read_on() {
    let runbook = read("docs/runbook.md");
    let anchors: Vec<String> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).map(anchor).collect();
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        assert!(
            name.starts_with(char::is_uppercase) && name.chars().all(char::is_alphanumeric),
            "{name} is not CamelCase"
        );
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        for annotation in ["summary", "description", "runbook_url"] {
            assert!(
                alert["annotations"][annotation].as_str().is_some_and(|text| !text.is_empty()),
                "{name}: {annotation}"
            );
        }
        let url = alert["annotations"]["runbook_url"].as_str().unwrap();
        let (page, fragment) = url.split_once('#').unwrap();
        assert_eq!(page, "https://github.com/keepalive-auditor/keepalive-auditor/blob/main/docs/runbook.md");
        assert!(anchors.iter().any(|anchor| anchor == fragment), "docs/runbook.md has no entry #{fragment}");
        assert_eq!(fragment, name.to_lowercase());
    }
    assert_eq!(
        anchors.iter().filter(|anchor| anchor.contains("keepaliveauditor") || anchor.starts_with("tcp")).count(),
        alerts().len()
    );
}

#[test]
fn an_alert_of_connections_names_node_endpoint_idle_time_and_command() {
    let alerts = alerts();
    let of_connections = alerts.iter().filter(|alert| {
        let name = alert["alert"].as_str().unwrap();
        name.starts_with("TCP") && !name.starts_with("TCPPath") && !name.starts_with("TCPNode")
    });
    let mut count = 0;
    for alert in of_connections {
        let text = alert["annotations"]["description"].as_str().unwrap();
        for part in [".Labels.node", ".Labels.endpoint", "Longest idle time: ", "kubectl keepalive-auditor audit "] {
            assert!(text.contains(part), "{}: no {part} in {text}", alert["alert"]);
        }
        count += 1;
    }
    assert_eq!(count, 7);
}

#[test]
fn recorded_series_are_named_level_metric_operation() {
    for rule in rules().iter().filter(|rule| rule.get("record").is_some()) {
        let name = rule["record"].as_str().unwrap();
        let parts: Vec<&str> = name.split(':').collect();
        assert_eq!(parts.len(), 3, "{name}");
        assert!(parts[1].starts_with("keepalive_auditor_"), "{name}");
    }
}

#[test]
fn rules_are_made_of_metrics_that_exist() {
    let recorded: Vec<String> =
        rules().iter().filter_map(|rule| rule["record"].as_str().map(ToOwned::to_owned)).collect();
    for rule in rules() {
        for name in metric_names(rule["expr"].as_str().unwrap()) {
            assert!(known_metrics().contains(&name) || recorded.contains(&name), "{name} in {rule}");
        }
    }
    assert!(!known_metrics().contains(&"keepalive_auditor_connection".to_owned()));
}

#[test]
fn promtool_tests_reach_every_alert() {
    let tests = read("tests/e2e/prometheus/rules_test.yaml");
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        assert!(tests.contains(&format!("alertname: {name}")), "{name} has no test");
    }
}

#[test]
fn copies_equal_their_source() {
    let mut groups = Vec::new();
    for name in ["recording.yaml", "alerts.yaml"] {
        let source = format!("deploy/prometheus/{name}");
        assert_eq!(
            read(&source),
            read(&format!("deploy/helm/keepalive-auditor/files/rules/{name}")),
            "run deploy/generate.py"
        );
        groups.extend(yaml(&source)[0]["groups"].as_array().unwrap().clone());
    }
    assert_eq!(files("deploy/prometheus", ".yaml").len(), 2, "deploy/generate.py does not know the new file");
    let kustomize = yaml("deploy/kustomize/components/prometheus-operator/prometheusrule.yaml");
    assert_eq!(kustomize[0]["spec"]["groups"], json!(groups), "run deploy/generate.py");
}

#[test]
fn chart_carries_the_same_rules() {
    let golden = yaml("tests/deploy/golden/helm-prometheus-operator.yaml");
    let rule = golden.iter().find(|object| object["kind"] == "PrometheusRule").unwrap();
    let intervals = |groups: &Value| -> Vec<Value> {
        let groups = groups.as_array().unwrap().iter();
        groups.map(|group| json!([group["name"], group.get("interval")])).collect()
    };
    let sources =
        ["recording.yaml", "alerts.yaml"].map(|name| yaml(&format!("deploy/prometheus/{name}"))[0]["groups"].clone());
    assert_eq!(intervals(&rule["spec"]["groups"]), sources.iter().flat_map(intervals).collect::<Vec<_>>());
    let mut rendered: Vec<Value> = rule["spec"]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect();
    let mut expected = rules();
    // That render leaves one alert out and labels the others.
    expected.retain(|rule| rule["alert"] != "TCPKeepaliveCoverageLow");
    for rule in expected.iter_mut().filter(|rule| rule.get("alert").is_some()) {
        rule["labels"]["team"] = json!("platform");
    }
    let key = |rule: &Value| rule.get("alert").or(rule.get("record")).unwrap().to_string();
    rendered.sort_by_key(key);
    expected.sort_by_key(key);
    assert_eq!(rendered, expected);
}
