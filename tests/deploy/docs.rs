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
