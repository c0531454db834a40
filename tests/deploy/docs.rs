//! Documentation: links have targets, and the alerts, kustomizations and files that it names exist.

use super::{files, path, read};

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let mut links = 0;
    for page in files("docs", ".md") {
        let text = read(&page);
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            if target.starts_with("http") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { page.clone() } else { format!("docs/{file}") };
            assert!(path(&file).exists(), "{page}: {target}");
            if !heading.is_empty() {
                let headings = read(&file).to_lowercase();
                assert!(headings.contains(&format!("# {}", heading.replace('-', " "))), "{page}: {target}");
            }
            links += 1;
        }
    }
    assert!(links > 5);
}

#[test]
fn kustomizations_in_the_documents_exist() {
    let install = read("docs/install.md");
    for overlay in [
        "base",
        "overlays/minimal",
        "overlays/prometheus-operator",
        "overlays/openshift",
        "overlays/before-1.30",
        "components/minimal",
        "components/cri",
        "components/node-critical",
        "components/prometheus-discovery",
    ] {
        let directory = format!("deploy/kustomize/{overlay}");
        assert!(install.contains(&directory), "{directory} is not in docs/install.md");
        assert!(path(&directory).join("kustomization.yaml").exists());
    }
}

#[test]
fn each_alert_of_connections_has_the_lines_to_run_from_finding_to_proof() {
    let runbook = read("docs/runbook.md");
    let mut count = 0;
    for entry in runbook.split("\n## ").filter(|entry| entry.starts_with("TCP")) {
        let name = entry.lines().next().unwrap();
        let runs = |start: &str, parts: &[&str]| {
            let lines = entry.lines().map(|line| line.strip_prefix("$ ").unwrap_or(line));
            lines.filter(|line| line.starts_with(start)).any(|line| parts.iter().all(|part| line.contains(part)))
        };
        if name.starts_with("TCPPath") || name.starts_with("TCPNode") {
            continue;
        }
        let agent = "-- /keepalive-auditor audit --owner 'shop/";
        for (start, parts) in [
            ("kubectl keepalive-auditor audit --all-nodes", &["--explain"][..]),
            ("kubectl -n keepalive-auditor exec ", &["spec.nodeName=NODE", agent, "--explain"]),
            ("keepalive-auditor audit", &["--explain"]),
            ("kubectl keepalive-auditor audit --node NODE", &["--record before.jsonl"]),
            ("kubectl keepalive-auditor audit --node NODE", &["--compare before.jsonl"]),
            ("kubectl -n keepalive-auditor exec ", &[agent, "--record - > before.jsonl"]),
            ("kubectl -n keepalive-auditor exec -i ", &[agent, "--compare - < before.jsonl"]),
            ("keepalive-auditor audit", &["--record before.jsonl"]),
            ("keepalive-auditor audit", &["--compare before.jsonl"]),
        ] {
            assert!(runs(start, parts), "{name} has no line `{start}…` with {parts:?}");
        }
        count += 1;
    }
    assert_eq!(count, 7);
}
