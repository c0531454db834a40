//! Rules and dashboards know every verdict: all flagged ones, all protecting ones, and a colour for each.

use super::{files, json, read, yaml};
use keepalive_auditor::judge::verdict::Verdict;
use serde_json::Value;
use std::collections::BTreeSet;

type Names = BTreeSet<String>;

fn names(of: impl Fn(Verdict) -> bool) -> Names {
    Verdict::ALL.into_iter().filter(|verdict| of(*verdict)).map(|verdict| verdict.name().to_owned()).collect()
}

fn protects(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Protected | Verdict::PeerProtected | Verdict::AppProtected)
}

/// The verdicts of every `verdict="…"` and `verdict=~"…"` in a query.
fn matchers(expr: &str) -> Vec<Names> {
    let positive = expr.split("verdict=").skip(1).map(|rest| rest.trim_start_matches('~'));
    positive.map(|rest| rest.split('"').nth(1).unwrap().split('|').map(ToOwned::to_owned).collect()).collect()
}

/// The location of each query, and the query.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for file in files("deploy/prometheus", ".yaml") {
        for group in yaml(&file)[0]["groups"].as_array().unwrap() {
            for rule in group["rules"].as_array().unwrap() {
                let name = rule.get("alert").or(rule.get("record")).unwrap();
                queries.push((name.to_string(), rule["expr"].as_str().unwrap().to_owned()));
            }
        }
    }
    for file in files("deploy/dashboards", ".json") {
        let dashboard = json(&file);
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                queries.push((panel["title"].to_string(), target["expr"].as_str().unwrap().to_owned()));
            }
        }
    }
    queries
}

#[test]
fn no_query_misses_a_flagged_verdict_or_one_that_protects() {
    let (all, flagged, protected) = (names(|_| true), names(Verdict::flagged), names(protects));
    let judged: Names = flagged.union(&protected).cloned().collect();
    let dropped: Names = flagged.iter().filter(|name| *name != "exposed").cloned().collect();
    let unanswered = ["blackholed", "unanswered"].map(ToOwned::to_owned).into();
    let whole = [flagged, protected, judged, dropped, unanswered];
    let mut seen = 0;
    for (location, expr) in queries() {
        for verdicts in matchers(&expr) {
            assert!(verdicts.is_subset(&all), "{location}: an unknown verdict in {expr}");
            assert!(
                verdicts.len() == 1 || whole.contains(&verdicts),
                "{location}: {verdicts:?} is not a complete group in {expr}"
            );
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn each_flagged_verdict_but_exposed_has_an_alert_of_its_own() {
    let alerts = read("deploy/prometheus/alerts.yaml");
    for verdict in Verdict::ALL.into_iter().filter(|verdict| verdict.flagged() && *verdict != Verdict::Exposed) {
        assert!(alerts.contains(&format!("verdict=\"{}\"", verdict.name())), "{}", verdict.name());
    }
}

#[test]
fn each_verdict_has_a_colour_wherever_verdicts_are_lines() {
    let mut panels = 0;
    for file in files("deploy/dashboards", ".json") {
        for panel in json(&file)["panels"].as_array().unwrap() {
            let by_verdict = |target: &Value| target["legendFormat"] == "{{verdict}}";
            if !panel["targets"].as_array().into_iter().flatten().any(by_verdict) {
                continue;
            }
            let overrides = panel["fieldConfig"]["overrides"].as_array().unwrap();
            let coloured = overrides.iter().filter_map(|of| of["matcher"]["options"].as_str().map(ToOwned::to_owned));
            assert_eq!(coloured.collect::<Names>(), names(|_| true), "{file}: {}", panel["title"]);
            panels += 1;
        }
    }
    assert!(panels >= 3, "{panels}");
}

#[test]
fn the_runbook_explains_each_flagged_verdict() {
    let runbook = read("docs/runbook.md");
    for verdict in Verdict::ALL.into_iter().filter(|verdict| verdict.flagged()) {
        assert!(
            runbook.contains(&format!("*{}*", verdict.name())),
            "docs/runbook.md does not explain {}",
            verdict.name()
        );
    }
}
