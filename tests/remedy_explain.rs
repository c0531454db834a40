//! `audit --explain` and `audit --compare` on constructed reports: the remedies that they name, and their statements
//! about a change.

#[path = "support/findings.rs"]
mod findings;

use std::sync::Arc;

use findings::{finding, inbound, late, on, pod};
use keepalive_auditor::judge::policy::{Path, RefreshedBy};
use keepalive_auditor::judge::report::{Finding, Heartbeats, HeartbeatsOf, LimitSource, Millis, Report};
use keepalive_auditor::judge::verdict::{Keepalive, Verdict};
use keepalive_auditor::owner::{Binary, Holder, Linking, Owner, OwnerKind};
use keepalive_auditor::show::compare::{self, compare};
use keepalive_auditor::show::explain::explain;
use keepalive_auditor::show::why::Why;
use keepalive_auditor::socket::{Endpoint, KeepaliveOptions};

fn report(findings: Vec<Finding>) -> Report {
    Report { findings, ..Report::default() }
}

/// The findings, with the executables that hold their sockets, by inode. All of them are dynamic.
fn held(findings: Vec<Finding>, programs: &[(u32, &str)]) -> Vec<Finding> {
    let holder = |inode: u32| {
        let (_, exe) = programs.iter().find(|(held, _)| *held == inode)?;
        let binary = Some(Binary { linking: Linking::Dynamic, language: None });
        Some(Arc::new(Holder { pid: 4711, exe: (*exe).to_owned(), binary, ..Holder::default() }))
    };
    findings.into_iter().map(|finding| Finding { holder: holder(finding.inode), ..finding }).collect()
}

fn explained(findings: Vec<Finding>, programs: &[(u32, &str)]) -> String {
    explain(&report(held(findings, programs))).expect("the remedies parse")
}

/// The remedies that a text names, in order.
fn named(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("  - ")?.split_once(": ").map(|(name, _)| name)).collect()
}

#[test]
fn nothing_flagged_needs_no_explanation() {
    assert_eq!(
        explained(vec![on(finding(pod("web-0", "app"), 1, 443))], &[]),
        "Nothing to explain: no connection is flagged.\n"
    );
}

#[test]
fn istio_gateway_inbound_is_fixed_downstream() {
    let gateway = pod("istio-ingressgateway-6b8c9d7f4b-zz5wq", "istio-proxy");
    let text = explained(vec![inbound(gateway, 1, 8443)], &[(1, "envoy")]);
    assert_eq!(named(&text), ["istio-gateway"]);
    assert!(
        text.contains("shop/istio-ingressgateway (istio-proxy), inbound on :8443: 1 connection (1 exposed)"),
        "{text}"
    );
    assert!(
        text.contains("keepalive-auditor remedy istio-gateway --idle-timeout 350s --port 8443 --namespace shop"),
        "{text}"
    );
}

#[test]
fn a_sidecar_differs_from_a_gateway_by_its_port() {
    let text = explained(vec![inbound(pod("web-0", "istio-proxy"), 1, 15006)], &[]);
    assert_eq!(named(&text), ["istio-sidecar-inbound"]);
}

#[test]
fn istio_outbound_is_fixed_upstream_for_the_endpoint() {
    let text = explained(vec![finding(pod("web-0", "istio-proxy"), 1, 5432)], &[(1, "envoy")]);
    assert_eq!(named(&text), ["istio-destination-rule", "istio-mesh"]);
    let command = "remedy istio-destination-rule --idle-timeout 350s --host 10.20.0.5 --port 5432 --namespace shop";
    assert!(text.contains(command), "{text}");
}

#[test]
fn a_bare_envoy_is_known_by_its_executable() {
    let host = Owner { kind: OwnerKind::Netns, container: Some("gw".into()), ..Owner::default() };
    let text = explained(vec![finding(host.clone(), 1, 443)], &[(1, "envoy")]);
    assert_eq!(named(&text), ["envoy-cluster"]);
    let text = explained(vec![inbound(host, 1, 443)], &[(1, "envoy")]);
    assert_eq!(named(&text), ["envoy-listener"]);
}

#[test]
fn an_application_is_fixed_in_its_language() {
    for (program, remedy) in [("python3.11", "python"), ("node", "node"), ("java", "java"), ("nginx", "nginx")] {
        let text = explained(vec![finding(pod("web-0", "app"), 1, 443)], &[(1, program)]);
        assert_eq!(named(&text).first(), Some(&remedy), "{text}");
        assert!(!named(&text).contains(&"pod-sysctl"), "a sysctl does nothing for off: {text}");
        assert!(text.contains("No sysctl helps a socket on which keepalive is off."), "{text}");
    }
}

#[test]
fn an_unknown_application_is_offered_every_language() {
    let text = explained(vec![finding(pod("web-0", "app"), 1, 443)], &[]);
    assert_eq!(named(&text), ["in the program's own code"]);
    assert!(text.contains("remedy c | dotnet | go | java | node | python | rust"), "{text}");
}

#[test]
fn late_is_fixed_by_the_pods_sysctl_which_is_shown_beside_the_nodes() {
    let finding_of_pod = late(finding(pod("web-0", "app"), 1, 5432));
    let findings = held(vec![finding_of_pod], &[(1, "ruby")]);
    let report = Report { node_tcp_keepalive_time: Some(300), ..report(findings) };
    let text = explain(&report).expect("the remedies parse");
    assert_eq!(named(&text), ["pod-sysctl", "preload"], "{text}");
    assert!(text.contains("This pod's tcp_keepalive_time is 7200s; the node's 300s does not reach it."), "{text}");
    assert!(text.contains("its first probe comes after 7200s, the system's default"), "{text}");
    let outside = explained(vec![late(finding(Owner::default(), 1, 443))], &[]);
    assert!(!named(&outside).contains(&"pod-sysctl"), "there is no pod: {outside}");
}

#[test]
fn a_timer_that_shows_a_little_less_than_the_default_is_probably_the_default() {
    let after = |ms, keepidle: Option<u64>| Finding {
        probes_after: Some(Millis::new(ms)),
        keepidle: keepidle.map(Millis::new),
        ..late(finding(pod("web-0", "app"), 1, 443))
    };
    for (finding, said) in [
        (after(7_198_400, None), "after 7200s, probably the system's default"),
        (after(6_300_000, None), "after 7200s, probably the system's default"),
        (after(3_600_000, None), "after 3600s, because KEEPIDLE or KEEPINTVL is so long"),
        (after(7_300_000, None), "after 7300s, because KEEPIDLE or KEEPINTVL is so long"),
        // only the interval is so long
        (after(7_000_000, Some(60_000)), "after 7000s, because KEEPIDLE or KEEPINTVL is so long"),
    ] {
        let text = explained(vec![finding], &[]);
        assert!(text.contains(said), "{said}: {text}");
    }
    // options that were read leave no doubt
    let exact = KeepaliveOptions { so_keepalive: Some(true), tcp_keepidle: Some(7_000), ..KeepaliveOptions::default() };
    let text = explained(vec![Finding { exact: Some(exact), ..after(7_000_000, Some(7_000_000)) }], &[]);
    assert!(text.contains("comes after 7000s:"), "{text}");
}

#[test]
fn a_hang_that_is_bounded_already_is_not_offered_a_bound() {
    let hangs = |timeout| Finding {
        verdict: Verdict::Unanswered,
        last_heard: Some(Millis::from_secs(400)),
        exact: Some(KeepaliveOptions { tcp_user_timeout: Some(timeout), ..KeepaliveOptions::default() }),
        ..finding(pod("web-0", "app"), 1, 443)
    };
    let text = explained(vec![hangs(0)], &[]);
    assert!(text.contains("libpq: tcp_user_timeout") && text.contains("from the peer for up to 6m40s"), "{text}");
    let text = explained(vec![hangs(60_000)], &[]);
    assert!(!text.contains("libpq") && text.contains("is not acknowledged for 1m."), "{text}");
}

#[test]
fn replicas_are_one_group_and_the_worst_comes_first() {
    let replica = |suffix: &str, number| finding(pod(&format!("web-7d4b9c6f5-{suffix}"), "app"), number, 443);
    let overdue = Finding {
        verdict: Verdict::Overdue,
        wire_idle: Some(Millis::from_secs(900)),
        ..finding(pod("db-0", "app"), 3, 6379)
    };
    let text = explained(vec![replica("x2k8p", 1), replica("zz5wq", 2), overdue], &[]);
    let heads: Vec<_> = text.lines().filter(|line| line.starts_with("shop/")).collect();
    assert_eq!(
        heads,
        [
            "shop/db (app), outbound to 10.20.0.5:6379: 1 connection (1 overdue)",
            "shop/web (app), outbound to 10.20.0.5:443: 2 connections (2 exposed) in 2 pods",
        ]
    );
    assert!(text.contains("The longest idle time so far is 15m."), "{text}");
}

fn one_change(before: Vec<Finding>, after: Vec<Finding>) -> compare::Change {
    let changes = compare::changes(&report(before), &report(after));
    assert_eq!(changes.len(), 1, "{changes:?}");
    *changes.values().next().expect("there is one")
}

fn proxy(number: u16) -> Finding {
    finding(pod("web-0", "istio-proxy"), number, 443)
}

/// A late connection that probes after this many seconds.
fn late_after(number: u16, seconds: u64) -> Finding {
    let after = Some(Millis::from_secs(seconds));
    Finding { keepidle: after, probes_after: after, ..late(finding(pod("web-0", "app"), number, 5432)) }
}

/// The paragraphs of an explanation.
fn paragraphs(text: &str) -> Vec<&str> {
    text.split("\n\n").filter(|paragraph| paragraph.contains("connection")).collect()
}

#[test]
fn each_statement_about_a_group_is_true_for_all_its_members() {
    let findings = |times: &[(u64, u16)]| -> Vec<Finding> {
        let all = times.iter().flat_map(|&(seconds, count)| (0..count).map(move |_| seconds));
        (1..).zip(all).map(|(number, seconds)| late_after(number, seconds)).collect()
    };
    let mixed = explained(findings(&[(400, 3), (7200, 4)]), &[]);
    let [default, own] = paragraphs(&mixed)[..] else { panic!("two groups: {mixed}") };
    assert!(default.contains("4 connections") && default.contains("after 7200s, the system's default"), "{mixed}");
    assert!(own.contains("3 connections") && own.contains("after 400s: too late"), "{mixed}");
    let two = explained(findings(&[(400, 3), (600, 4)]), &[]);
    assert_eq!(paragraphs(&two).len(), 2, "{two}");
    let many = explained(findings(&[(400, 1), (500, 1), (600, 1), (700, 1), (800, 2)]), &[]);
    let [all] = paragraphs(&many)[..] else { panic!("one group: {many}") };
    assert!(all.contains("6 connections") && all.contains("after 400s to 800s"), "{many}");
    let states = explained(vec![late_after(1, 7200), finding(pod("web-0", "app"), 2, 5432)], &[]);
    assert_eq!(paragraphs(&states).len(), 2, "{states}");
}

#[test]
fn processes_are_groups_of_their_own_but_the_replicas_of_a_workload_are_one() {
    let of = |pod_name: &str, number: u16, pid: u32| {
        let holder = Holder { pid, comm: "java".into(), exe: "java".into(), ..Holder::default() };
        Finding { holder: Some(Arc::new(holder)), ..finding(pod(pod_name, "app"), number, 443) }
    };
    let two =
        explain(&report(vec![of("web-0", 1, 17), of("web-0", 2, 17), of("web-0", 3, 4711)])).expect("it explains");
    assert_eq!(paragraphs(&two).len(), 2, "{two}");
    assert!(two.contains("2 connections (2 exposed) held by java[17]"), "{two}");
    assert!(two.contains("1 connection (1 exposed) held by java[4711]"), "{two}");
    let replicas = explain(&report(vec![of("web-0", 1, 17), of("web-1", 2, 18)])).expect("it explains");
    assert_eq!(paragraphs(&replicas).len(), 1, "{replicas}");
    assert!(replicas.contains("2 connections (2 exposed) in 2 pods held by java[17, 18]\n"), "{replicas}");
}

#[test]
fn unanswered_connections_are_explained_with_the_options_that_limit_them() {
    let unanswered = |verdict, keepalive| Finding { verdict, keepalive, ..late(finding(pod("web-0", "app"), 1, 5432)) };
    for (verdict, keepalive) in [
        (Verdict::Unanswered, Keepalive::On),
        (Verdict::Unanswered, Keepalive::Unknown),
        (Verdict::Unanswered, Keepalive::Off),
        (Verdict::Blackholed, Keepalive::Late),
    ] {
        let text = explained(vec![unanswered(verdict, keepalive)], &[]);
        for word in ["TCP_USER_TIMEOUT", "tcp_user_timeout", "tcp-ut", "Netty", "gRPC", "Go:", "setsockopt"] {
            assert!(text.contains(word), "{verdict:?} {keepalive:?} does not name {word}: {text}");
        }
        let probes = matches!(keepalive, Keepalive::Off | Keepalive::Late);
        assert_eq!(named(&text).is_empty(), !probes, "keepalive that is on needs no remedy: {text}");
    }
}

#[test]
fn a_path_that_counts_data_is_offered_no_tcp_remedy() {
    let path = Path {
        name: "alb".into(),
        idle_timeout: std::time::Duration::from_mins(1),
        refreshed_by: RefreshedBy::Payload,
        ..Path::default()
    };
    let path = Arc::new(path);
    for keepalive in [Keepalive::Off, Keepalive::Late, Keepalive::On] {
        let text =
            explained(vec![Finding { keepalive, path: path.clone(), ..finding(pod("web-0", "app"), 1, 443) }], &[]);
        assert!(named(&text).is_empty(), "{text}");
        for word in ["counts only data", "heartbeat", "at most every 30s", "a higher limit on the path"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}

#[test]
fn where_http2_pings_do_not_count_the_advice_says_so() {
    let idle_timeout = std::time::Duration::from_mins(1);
    let refreshed_by = RefreshedBy::Payload;
    let alb = Path { name: "alb".into(), idle_timeout, refreshed_by, reads_http2: true, ..Path::default() };
    let seconds = Millis::from_secs;
    let (longest_gap, watched, ago, other_ago) = (seconds(10), seconds(40), seconds(4), seconds(40));
    let pings = Heartbeats { protocol: HeartbeatsOf::Http2, longest_gap, watched, ago, other_ago };
    let pinging = Finding {
        path: Arc::new(alb),
        heartbeats: Some(pings),
        data_idle: Some(ago),
        request_idle: Some(other_ago),
        ..finding(pod("web-0", "app"), 1, 443)
    };
    let silent = Finding { heartbeats: None, ..pinging.clone() };
    for (finding, cause) in [(pinging, "answers HTTP/2 and gRPC PING"), (silent, "counts only data")] {
        let text = explained(vec![finding], &[]);
        assert!(named(&text).is_empty(), "{text}");
        let advice =
            "HTTP/2 and gRPC PING do not help: they end at the middlebox. What helps: a request at most every 30s";
        for word in [cause, advice, "max_connection_idle", "reads_http2: false"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}

#[test]
fn why_says_what_is_assumed_of_a_path_on_which_pings_protect() {
    let seconds = Millis::from_secs;
    let (longest_gap, watched, ago) = (seconds(10), seconds(400), seconds(4));
    let pings = Heartbeats { protocol: HeartbeatsOf::Http2, longest_gap, watched, ago, other_ago: watched };
    let protected = |source, protocol| Finding {
        verdict: Verdict::AppProtected,
        path: Arc::new(Path { source, ..Path::default() }),
        heartbeats: Some(Heartbeats { protocol, ..pings }),
        ..finding(pod("web-0", "app"), 1, 443)
    };
    let assumed = "a middlebox that reads HTTP/2 itself would not count these frames";
    for (source, protocol, says) in [
        (LimitSource::Default, HeartbeatsOf::Http2, true),
        (LimitSource::Default, HeartbeatsOf::Ssh, false),
        (LimitSource::Profile, HeartbeatsOf::Http2, false),
        (LimitSource::Configured, HeartbeatsOf::Http2, false),
    ] {
        let why = Why(&protected(source, protocol)).to_string();
        assert_eq!(why.contains(assumed), says, "{why}");
    }
}

#[test]
fn a_change_that_took_effect_leaves_old_connections_as_they_were() {
    let (before, after) = (vec![proxy(1), proxy(2)], vec![proxy(1), on(proxy(3)), on(proxy(4))]);
    let change = one_change(before.clone(), after.clone());
    assert_eq!(change.effect(), compare::Effect::Took);
    assert_eq!((change.new_protected, change.old_unprotected, change.gone_unprotected), (2, 1, 1));
    let text = compare(&report(before), &report(after));
    assert!(text.contains("It took effect"), "{text}");
    assert!(
        text.contains("Envoy needs no restart: the Envoy that still holds 1 from before opens protected ones."),
        "{text}"
    );
    assert!(text.contains("1 opened before the change stay as they are") && text.contains("They end with "), "{text}");
}

#[test]
fn a_listener_that_did_not_apply_the_change_needs_a_restart() {
    let gateway = |number| inbound(pod("gw-0", "istio-proxy"), number, 8443);
    let text = compare(&report(vec![gateway(1)]), &report(vec![gateway(1), gateway(2)]));
    assert!(text.contains("It did not take effect"), "{text}");
    assert!(text.contains("Restart Envoy if the setting has reached it"), "{text}");
}

#[test]
fn without_a_new_connection_nothing_is_claimed() {
    assert_eq!(one_change(vec![proxy(1)], vec![proxy(1)]).effect(), compare::Effect::Unseen);
    let fixed = one_change(vec![proxy(1)], vec![on(proxy(1))]);
    assert_eq!((fixed.effect(), fixed.fixed_in_place, fixed.new_protected), (compare::Effect::InPlace, 1, 0));
    let partly = one_change(vec![], vec![proxy(1), on(proxy(2))]);
    assert_eq!(partly.effect(), compare::Effect::Partly);
}

#[test]
fn a_young_unprotected_connection_counts_and_a_healthy_workload_does_not() {
    let young = Finding { verdict: Verdict::Young, ..proxy(2) };
    assert_eq!(one_change(vec![proxy(1)], vec![young]).new_unprotected, 1);
    let healthy = report(vec![on(proxy(1))]);
    assert_eq!(compare(&healthy, &healthy), "No connection was unprotected, neither before nor now.\n");
}

#[test]
fn a_restarted_pod_is_the_same_workload() {
    let replica = |suffix: &str, number| finding(pod(&format!("web-7d4b9c6f5-{suffix}"), "app"), number, 443);
    let change = one_change(vec![replica("x2k8p", 1)], vec![on(replica("zz5wq", 2))]);
    assert_eq!((change.new_protected, change.gone_unprotected, change.effect()), (1, 1, compare::Effect::Took));
}

#[test]
fn the_cookie_of_another_connection_does_not_match() {
    let reused = Finding { local: Endpoint { port: 50_000, ..proxy(1).local }, ..proxy(1) };
    let change = one_change(vec![proxy(1)], vec![on(reused)]);
    assert_eq!((change.new_protected, change.fixed_in_place), (1, 0));
}
