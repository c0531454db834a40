//! Series at each level of detail.

use std::sync::Arc;

use super::super::{SweepDurations, View, text};
use super::*;
use crate::judge::report::Waits;

fn pod(name: &str, container: &str) -> Arc<Owner> {
    let text = |text: &str| Some(text.to_owned());
    let (namespace, pod, container) = (text("shop"), text(name), text(container));
    Arc::new(Owner { kind: OwnerKind::Pod, namespace, pod, container, ..Owner::default() })
}

/// Two pods of one workload, a static pod and a unit, each with 3 connections.
fn report() -> Report {
    let mut tally = Tally::default();
    tally.counts[Keepalive::Off as usize][Verdict::Young as usize] = 3;
    let unit = Owner { kind: OwnerKind::Unit, container: Some("sshd.service".into()), ..Owner::default() };
    let owners =
        [pod("web-7d4b9c6f5-x2k8p", "app"), pod("web-7d4b9c6f5-zz5wq", "app"), pod("etcd-n1", "etcd"), unit.into()];
    let tallies = owners.map(|owner| ((owner, Direction::Outbound), tally.clone()));
    let tallies = Arc::new(BTreeMap::from(tallies));
    let pods = [(pod("quiet-0", "app"), PodCounters::default())].into();
    let half_closed = [((pod("etcd-n1", "etcd"), Waits::CloseWait), 2)].into();
    Report { node: "n1".to_owned(), tallies, pods, half_closed, ..Report::default() }
}

/// The series of a family at a level of detail.
fn series(detail: Detail, family: &str) -> Vec<String> {
    let limits = Limits { detail, top_endpoints: 1, max_series: 100 };
    let page = text(View::new(Some(&report()), &SweepDurations::default(), limits)).expect("it is a page");
    let start = format!("keepalive_auditor_{family}{{");
    page.lines().filter_map(|line| line.strip_prefix(&start).map(str::to_owned)).collect()
}

#[test]
fn workload_detail_sums_the_pods_of_a_workload_and_names_it() {
    let rest = r#"direction="outbound",keepalive="off",verdict="young""#;
    assert_eq!(
        series(Detail::Workload, "connections"),
        [
            format!(r#"namespace="",pod="",container="",{rest},workload="sshd.service"}} 3"#),
            format!(r#"namespace="shop",pod="",container="",{rest},workload="etcd"}} 3"#),
            format!(r#"namespace="shop",pod="",container="",{rest},workload="web"}} 6"#),
        ]
    );
    assert_eq!(series(Detail::Container, "connections").len(), 4);
    assert!(series(Detail::Container, "connections").iter().all(|series| !series.contains("workload=")));
    assert_eq!(series(Detail::Namespace, "connections").len(), 2);
}

#[test]
fn half_closed_connections_have_their_owner_and_state_at_each_detail() {
    let rest = r#"state="close_wait""#;
    for (detail, labels) in [
        (Detail::Container, format!(r#"namespace="shop",pod="etcd-n1",container="etcd",{rest}}} 2"#)),
        (Detail::Pod, format!(r#"namespace="shop",pod="etcd-n1",container="",{rest}}} 2"#)),
        (Detail::Workload, format!(r#"namespace="shop",pod="",container="",{rest},workload="etcd"}} 2"#)),
        (Detail::Namespace, format!(r#"namespace="shop",pod="",container="",{rest}}} 2"#)),
    ] {
        assert_eq!(series(detail, "half_closed_connections"), [labels], "{detail:?}");
    }
}

#[test]
fn each_pod_has_one_series_with_its_workload() {
    let pods =
        [("etcd-n1", "etcd"), ("quiet-0", "quiet"), ("web-7d4b9c6f5-x2k8p", "web"), ("web-7d4b9c6f5-zz5wq", "web")];
    let pods = pods.map(|(pod, workload)| format!(r#"namespace="shop",pod="{pod}",workload="{workload}"}} 1"#));
    for detail in [Detail::Container, Detail::Pod, Detail::Workload] {
        assert_eq!(series(detail, "pod_info"), pods, "{detail:?}");
        assert_eq!(series(detail, "metrics_detail_info"), [format!(r#"detail="{}"}} 1"#, detail.name())]);
    }
    assert_eq!(series(Detail::Namespace, "pod_info"), [] as [String; 0]);
}
