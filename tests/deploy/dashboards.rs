//! Dashboards: the checks of Grafana's dashboard linter, and more.

use super::{files, json, known_metrics, metric_names, read, yaml};
use serde_json::Value;

const UNITS: [&str; 7] = ["short", "s", "percentunit", "cps", "bytes", "none", "percent"];

fn dashboards() -> Vec<(String, Value)> {
    files("deploy/dashboards", ".json").into_iter().map(|file| (file.clone(), json(&file))).collect()
}

fn panels(dashboard: &Value) -> Vec<&Value> {
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row").collect()
}

fn targets(panel: &Value) -> &[Value] {
    panel["targets"].as_array().unwrap()
}

fn recorded() -> Vec<String> {
    let groups = &yaml("deploy/prometheus/recording.yaml")[0]["groups"];
    let rules = groups.as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
    rules.map(|rule| rule["record"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_has_a_stable_uid_and_is_not_edited_in_place() {
    for (file, dashboard) in dashboards() {
        let uid = dashboard["uid"].as_str().unwrap();
        assert_eq!(file, format!("deploy/dashboards/{uid}.json"));
        assert!(uid.len() <= 40, "{uid}: Grafana takes 40 characters");
        assert_eq!(dashboard["editable"], false);
        assert!(dashboard.get("id").is_none(), "{file}: an id belongs to one Grafana");
        assert!(dashboard["description"].as_str().is_some_and(|text| !text.is_empty()));
        assert_eq!(
            read(&file),
            read(&format!("deploy/helm/keepalive-auditor/files/dashboards/{uid}.json")),
            "run deploy/generate.py"
        );
        assert!(read("deploy/dashboards/kustomization.yaml").contains(&format!("{uid}.json")));
    }
}

#[test]
fn one_data_source_is_chosen_by_a_variable() {
    for (file, dashboard) in dashboards() {
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        let sources: Vec<&Value> = variables.iter().filter(|variable| variable["type"] == "datasource").collect();
        assert_eq!(sources.len(), 1, "{file}");
        assert_eq!((&sources[0]["name"], &sources[0]["label"]), (&"datasource".into(), &"Data source".into()));
        for panel in panels(&dashboard) {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{file}: {}", panel["title"]);
            for target in targets(panel) {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{file}: {}", panel["title"]);
            }
        }
    }
}

#[test]
fn variables_reload_and_match_series_without_the_label() {
    for (file, dashboard) in dashboards() {
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        let names: Vec<&str> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
        for wanted in ["datasource", "cluster", "namespace", "workload"] {
            assert!(names.contains(&wanted), "{file}: {wanted}");
        }
        assert_eq!(names.contains(&"pod"), file.ends_with("pod.json"));
        assert_eq!(names.contains(&"node"), file.ends_with("fleet.json"));
        for variable in variables.iter().filter(|variable| variable["type"] == "query") {
            assert_eq!(variable["refresh"], 2, "{file}: {} must reload when the time range changes", variable["name"]);
            match (variable["name"].as_str().unwrap(), file.ends_with("pod.json")) {
                // one workload, and the names of its pods: over every pod of a fleet its queries would take seconds
                ("workload", true) => assert_eq!(variable["includeAll"], false),
                ("pod", _) => assert!(variable.get("allValue").is_none(), "{file}: the pods must be named"),
                (name, _) => {
                    assert_eq!(variable["allValue"], ".*", "{file}: {name} must match series without the label");
                }
            }
            assert!(variable["label"].is_string());
            assert_eq!(variable["datasource"]["uid"], "${datasource}");
        }
    }
}

#[test]
fn every_panel_is_explained_and_has_a_unit() {
    for (file, dashboard) in dashboards() {
        let mut seen = Vec::new();
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap();
            assert!(!title.is_empty(), "{file}");
            assert!(
                panel["description"].as_str().is_some_and(|text| text.ends_with('.')),
                "{file}: {title} is not described"
            );
            let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap();
            assert!(UNITS.contains(&unit), "{file}: {title}: {unit} is not a unit of Grafana's");
            assert!(
                panel["type"] == "stat" || panel["fieldConfig"]["defaults"]["noValue"].is_string(),
                "{file}: {title} does not explain what an empty panel means"
            );
            seen.push(panel["id"].as_u64().unwrap());
        }
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count, "{file}: two panels share an id");
    }
}

#[test]
fn panels_of_idle_times_are_logarithmic_and_panels_of_harm_lead_to_the_runbook() {
    let runbook = read("docs/runbook.md").to_lowercase();
    for (file, dashboard) in dashboards() {
        let panels = panels(&dashboard);
        let of =
            |title: &str| *panels.iter().find(|panel| panel["title"] == title).unwrap_or_else(|| panic!("{title}"));
        let idle = &of("Longest idle time and idle timeouts")["fieldConfig"]["defaults"];
        assert_eq!(idle["custom"]["scaleDistribution"]["type"], "log", "{file}");
        assert!(idle.get("min").is_none(), "{file}: a logarithm has no zero");
        let mut links = 0;
        for link in panels.iter().filter_map(|panel| panel["links"].as_array()).flatten() {
            let url = link["url"].as_str().unwrap();
            if let Some((_, entry)) = url.split_once("runbook.md#") {
                assert!(runbook.contains(&format!("\n## {entry}\n")), "{file}: the runbook has no entry {entry}");
                links += 1;
            }
        }
        assert!(links >= 5, "{file}: {links} links to the runbook");
        assert!(of("Connections given up")["links"].is_array(), "{file}");
    }
}

#[test]
fn panels_do_not_overlap() {
    for (file, dashboard) in dashboards() {
        let all = dashboard["panels"].as_array().unwrap();
        let edge = |panel: &Value, at: &str, size: &str| {
            let (at, size) = (panel["gridPos"][at].as_u64().unwrap(), panel["gridPos"][size].as_u64().unwrap());
            (at, at + size)
        };
        for (number, panel) in all.iter().enumerate() {
            assert!(edge(panel, "x", "w").1 <= 24, "{file}: {}", panel["title"]);
            for other in &all[..number] {
                let apart = |at, size| {
                    edge(panel, at, size).0 >= edge(other, at, size).1
                        || edge(other, at, size).0 >= edge(panel, at, size).1
                };
                assert!(apart("x", "w") || apart("y", "h"), "{file}: {} covers {}", panel["title"], other["title"]);
            }
        }
    }
}

#[test]
fn every_query_is_made_of_series_that_exist_over_the_rate_interval() {
    let recorded = recorded();
    for (file, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            assert!(!targets(panel).is_empty(), "{file}: {}", panel["title"]);
            for target in targets(panel) {
                let expr = target["expr"].as_str().unwrap();
                for name in metric_names(expr) {
                    assert!(known_metrics().contains(&name) || recorded.contains(&name), "{file}: {name} in {expr}");
                }
                for (at, _) in expr.match_indices('[') {
                    assert!(expr[at..].starts_with("[$__rate_interval]"), "{file}: a fixed window in {expr}");
                }
                assert!(expr.contains("$cluster"), "{file}: {expr} mixes clusters");
                for function in ["rate(", "increase(", "irate("] {
                    for (at, _) in expr.match_indices(function) {
                        let argument = &expr[at..expr[at..].find('[').map_or(expr.len(), |end| at + end)];
                        assert!(
                            argument.contains("_total") || argument.contains("_bucket"),
                            "{file}: {expr} is not a rate of a counter"
                        );
                    }
                }
            }
        }
    }
}
