//! `docs/metrics.md` must equal the table of families. `UPDATE_GOLDENS=1 cargo test --test metrics_doc` writes it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use keepalive_auditor::show::metrics::agent::{AgentState, PROCESS, agent_text};
use keepalive_auditor::show::metrics::families;
use keepalive_auditor::show::metrics::{Detail, Limits, SweepDurations, View, text};

const HEAD: &str = "\
# Metrics

The agent serves these on `/metrics`, in Prometheus' text format. \
This page is written from `src/show/metrics/families.rs`.

- Series of connections and pods are built from the last sweep: those of a pod that is gone end with the next sweep.
- A connection outside any pod has empty `namespace` and `pod`. Its `container` is the systemd unit, the container id \
(12 digits) or the name
  of the network namespace.
- `endpoint` is the listening end: the remote `ip:port` of an outbound connection, the local `:port` of an inbound one.
- With `metrics_detail: workload` the connections of a workload's pods on one node are summed: \
`pod` and `container` are empty, and `workload` is
  one more label.
- Other labels never contain an address, an ephemeral port, a cookie or a pid.
- [runbook.md](runbook.md) explains the alerts, [scaling.md](scaling.md) the number of series.

";

fn document() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for family in families::ALL {
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let name = family.full_name();
        let _ = writeln!(page, "| `{name}` | {} | {} | {} |", family.kind.name(), labels.join(" "), family.help);
    }
    for (name, kind, meaning) in PROCESS {
        let _ = writeln!(page, "| `{name}` | {} | | {meaning} |", kind.name());
    }
    page.push_str("\n## Example queries\n");
    for family in families::ALL {
        let (name, question, query) = (family.full_name(), family.question, family.query);
        let _ = write!(page, "\n`{name}`: {question}\n\n```promql\n{query}\n```\n");
    }
    page
}

#[test]
fn the_page_is_that_of_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(&path, document()).expect("the page is written");
    }
    let page = fs::read_to_string(&path).unwrap_or_default();
    let differs = page.lines().zip(document().lines().map(str::to_owned)).find(|(page, table)| page != table);
    assert!(page == document(), "docs/metrics.md differs from the table: {differs:?}\n(UPDATE_GOLDENS=1 writes it)");
}

#[test]
fn each_family_is_complete_and_its_query_is_about_it() {
    let mut names = BTreeSet::new();
    for family in families::ALL {
        let name = family.full_name();
        assert!(names.insert(family.name), "{name} twice");
        assert!(family.query.contains(&name), "{name}: {}", family.query);
        assert!(family.help.ends_with('.') && family.question.ends_with('?'), "{name}");
        assert_eq!(family.kind == families::Kind::Counter, name.ends_with("_total"), "{name}");
    }
}

#[test]
fn a_scrape_holds_no_family_that_the_page_lacks() {
    let limits = Limits { detail: Detail::Container, top_endpoints: 10, max_series: 100 };
    let report = keepalive_auditor::judge::report::Report::default();
    let state = AgentState { web_config_is_current: Some(true), ..AgentState::default() };
    let own = agent_text(&state).expect("metrics");
    let scrape = text(View::new(Some(&report), &SweepDurations::default(), limits)).expect("metrics") + &own;
    let families: Vec<_> = scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(families.len() > 12, "{families:?}");
    let page = document();
    for family in families {
        let (name, kind) = family.split_once(' ').expect("name and type");
        assert!(page.contains(&format!("| `{name}` | {kind} |")), "{family} is not in docs/metrics.md");
    }
}
