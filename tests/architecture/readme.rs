//! Everything that README.md names exists: flags, words, metrics and files. Its configuration is valid.

use clap::{Command, CommandFactory};
use keepalive_auditor::cli::{Cli, Common};
use keepalive_auditor::config::{Config, ConfigFile};
use keepalive_auditor::judge::verdict::{Keepalive, Verdict};
use keepalive_auditor::show::metrics::families;

use super::{quoted, read, section};

fn flags(command: &Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(|argument| argument.get_long()).map(|name| format!("--{name}"));
    own.chain(command.get_subcommands().flat_map(flags)).collect()
}

#[test]
fn its_flags_exist() {
    // cargo's own
    let known: Vec<_> = flags(&Cli::command()).into_iter().chain(["--release".to_owned()]).collect();
    let readme = read("README.md");
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '.');
    let named: Vec<_> = readme
        .split(word)
        .filter(|word| word.starts_with("--") && !word.trim_matches('-').is_empty())
        .map(|word| word.trim_end_matches('.'))
        .collect();
    assert!(named.len() > 10, "{named:?}");
    let unknown: Vec<_> = named.into_iter().filter(|flag| !known.iter().any(|known| known == flag)).collect();
    assert!(unknown.is_empty(), "no such flags: {unknown:?}");
}

#[test]
fn every_keepalive_state_and_verdict_is_explained() {
    let readme = read("README.md");
    let words: Vec<_> = section(&readme, "What the words mean")
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .flat_map(|row| quoted(row.split('|').next().unwrap_or_default()))
        .collect();
    for name in Keepalive::ALL.map(Keepalive::name).into_iter().chain(Verdict::ALL.map(Verdict::name)) {
        assert!(words.iter().any(|word| word == name), "`{name}` is not explained");
    }
    assert_eq!(words.len(), Keepalive::ALL.len() + Verdict::ALL.len(), "{words:?}");
}

#[test]
fn its_metrics_exist() {
    let readme = read("README.md");
    let names: Vec<_> = quoted(section(&readme, "In a cluster"))
        .into_iter()
        .filter_map(|name| name.strip_prefix("keepalive_auditor_").or(name.strip_prefix("…_")).map(str::to_owned))
        .collect();
    assert!(names.len() > 3, "{names:?}");
    for name in names {
        assert!(families::ALL.iter().any(|family| family.name == name), "no metric keepalive_auditor_{name}");
    }
}

#[test]
fn its_configuration_is_valid() {
    let readme = read("README.md");
    let example = section(&readme, "Configuration").split("```yaml\n").nth(1).and_then(|text| text.split("```").next());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, example.expect("a YAML block")).unwrap();
    let file = ConfigFile::load(Some(&path)).unwrap();
    let policy = Config::new(&Common::default(), &file).unwrap().policy;
    let path = policy.path("172.16.1.1".parse().unwrap(), 443);
    assert_eq!((path.name.as_str(), path.idle_timeout.as_secs()), ("to-azure", 240));
    assert_eq!(policy.ignore.len(), 1);
}

#[test]
fn links_of_the_front_pages_lead_to_files() {
    let mut links = 0;
    for page in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"] {
        for link in read(page).split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap_or_default();
            if !target.is_empty() && !target.starts_with("http") {
                assert!(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(target).exists(), "{page}: {target}");
                links += 1;
            }
        }
    }
    assert!(links > 5, "{links}");
}

#[test]
fn every_remedy_is_named() {
    let readme = read("README.md");
    let named = quoted(section(&readme, "Remedies"));
    let targets = keepalive_auditor::remedy::list().unwrap();
    let missing: Vec<_> =
        targets.iter().map(|target| target.name.clone()).filter(|name| !named.contains(name)).collect();
    assert!(missing.is_empty(), "README.md does not name {missing:?}");
    assert!(readme.contains(&format!("the {} targets", targets.len())), "there are {} targets", targets.len());
}
