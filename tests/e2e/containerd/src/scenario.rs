//! The test itself: pods of every kind, and agents in pods that must name each of them correctly.

use std::ffi::OsString;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cri::Cri;
use crate::node::Node;
use crate::pod::{Container, Pod, Running};
use crate::{deploy, http, image, node, proof, report};

/// The lines that each agent must report.
const PODS: [&str; 15] = [
    "kube-system/proxy (app) outbound off exposed",
    "shop/cart-0 (app) outbound off exposed",
    "shop/db-0 (postgres) inbound off exposed",
    "shop/db-0 (postgres) inbound off exposed",
    "shop/db-0 (postgres) inbound off exposed",
    "shop/db-0 (postgres) inbound off exposed",
    "shop/db-0 (postgres) inbound off exposed",
    "shop/db-0 (postgres) inbound off exposed",
    "shop/db-0 (postgres) inbound off peer_protected",
    "shop/db-0 (postgres) inbound off peer_protected",
    "shop/labelled-0 (app) outbound off exposed",
    "shop/tuned-0 (app) outbound on protected",
    "shop/web-0 (app) outbound off exposed",
    "shop/web-0 (app) outbound off exposed",
    "shop/web-0 (istio-proxy) outbound on protected",
];
/// The lines of agents that may also read the host's namespace.
const HOST: [&str; 1] = ["kube-system/node-agent (exporter) outbound off exposed"];

/// Both ends are on this node and connections are young. These settings make the agent judge them, and sweep often.
const SETTINGS: [(&str, &str); 3] = [
    ("KEEPALIVE_AUDITOR_LONG_LIVED", "1s"),
    ("KEEPALIVE_AUDITOR_LOCAL_SCOPE", "namespace"),
    ("KEEPALIVE_AUDITOR_INTERVAL", "1s"),
];

/// How long to wait for an expected event on a loaded machine.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Runs on the node that [`node::supervise`] made.
pub fn run(node: &Node<'_>, auditor: &Path) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(scenario(node, auditor))
}

async fn scenario(node: &Node<'_>, auditor: &Path) -> Result<()> {
    let Node { scratch, cgroup, .. } = *node;
    node::mount_file_systems(node)?;
    let mut containerd = node::start_containerd(node)?;
    let mut cri = Cri::connect().await?;
    let base = Path::new("deploy/kustomize/base");
    image::import(scratch, image::LOAD, &std::env::current_exe()?, "e2e", &["load", "pause"])?;
    image::import(scratch, &deploy::image(base)?, auditor, "keepalive-auditor", &["agent"])?;
    println!("containerd runs, with images of {} and of this test", auditor.display());

    let db =
        Pod::new("shop", "db-0", vec![Container::load("postgres", &["listen", "5432"])])?.run(&mut cri, cgroup).await?;
    let to = format!("{}:5432", db.ip);
    let dial = |name: &str, count: &str, keepalive: &str| Container::load(name, &["dial", &to, count, keepalive]);
    let web = vec![dial("app", "2", "off"), dial("istio-proxy", "1", "60")];
    Pod::new("shop", "web-0", web)?.run(&mut cri, cgroup).await?;
    let tuned = Pod {
        sysctls: [("net.ipv4.tcp_keepalive_time".to_owned(), "60".to_owned())].into(),
        ..Pod::new("shop", "tuned-0", vec![dial("app", "1", "system")])?
    };
    tuned.run(&mut cri, cgroup).await?;
    let host = Pod { host_network: true, ..Pod::new("kube-system", "node-agent", vec![dial("exporter", "1", "off")])? };
    host.run(&mut cri, cgroup).await?;
    let labelled = Pod { labels_only: true, ..Pod::new("shop", "labelled-0", vec![dial("app", "1", "off")])? };
    labelled.run(&mut cri, cgroup).await?;
    let proxy =
        renamed(&mut cri, cgroup, Pod::new("kube-system", "proxy-first", vec![dial("app", "1", "off")])?).await?;
    let others = namespaces()?;
    let cart = Pod::new("shop", "cart-0", vec![dial("app", "1", "off")])?.run(&mut cri, cgroup).await?;
    let netns =
        namespaces()?.into_iter().find(|name| !others.contains(name)).context("the pod has a network namespace")?;

    let mut agents = Vec::new();
    for (profile, folder) in [("standard", base), ("minimal", Path::new("deploy/kustomize/overlays/minimal"))] {
        let mut pod = deploy::agent(folder, &format!("agent-{profile}"), scratch)?;
        pod.containers[0].env.extend(SETTINGS.map(|(key, value)| (key.to_owned(), value.to_owned())));
        agents.push((profile, pod.run(&mut cri, cgroup).await?));
    }
    for (profile, agent) in &agents {
        reports(profile, agent).await?;
        audit_inside(&mut cri, profile, agent).await?;
    }
    proof::run(&mut cri, cgroup, scratch, &agents[0].1, &to).await?;
    audits(scratch, auditor, &proxy)?;
    let mut cri = runtime_restarts(node, &mut containerd).await?;
    deletes(&mut cri, cart, &netns, &agents).await?;
    let cart = Pod::new("shop", "cart-0", vec![dial("app", "1", "off")])?;
    recreates(&mut cri, cgroup, cart, &agents).await
}

fn expected(profile: &str) -> Vec<&'static str> {
    let host: &[_] = if profile == "minimal" { &[] } else { &HOST };
    let mut lines = [&PODS[..], host].concat();
    lines.sort_unstable();
    lines
}

/// Renames a static pod whose manifest contains a uid. kubelet makes another sandbox with a higher attempt, and the
/// runtime still lists the old one. Then the container fails once, so that two containers have the same name.
async fn renamed(cri: &mut Cri, cgroup: &str, first: Pod) -> Result<Running> {
    let pod = Pod { name: "proxy".to_owned(), attempt: 1, ..first.clone() };
    first.run(cri, cgroup).await?.stop(cri).await?;
    let mut running = pod.run(cri, cgroup).await?;
    running.restart(cri, cgroup).await?;
    let attempts = cri.sandboxes(&running.pod.uid).await?;
    ensure!(attempts == [(0, false), (1, true)], "the runtime lists both sandboxes: {attempts:?}");
    Ok(running)
}

/// Every connection is reported with its namespace, pod and container.
async fn reports(profile: &str, agent: &Running) -> Result<()> {
    let expected = expected(profile);
    let seen = until(profile, agent, |report| Ok(report::lines(report)? == expected)).await?;
    let seen = report::lines(&seen)?;
    ensure!(
        seen == expected,
        "{profile}: expected\n  {}\nseen\n  {}\nits log:\n{}",
        expected.join("\n  "),
        seen.join("\n  "),
        agent.log("agent")
    );
    println!("{profile}: {} connections have the right pod, container, keepalive and verdict", seen.len());

    let metrics = http::get(&agent.ip, "/metrics")?;
    let tuned = r#"keepalive_auditor_pod_tcp_keepalive_time_seconds{namespace="shop",pod="tuned-0"} 60"#;
    let default = r#"keepalive_auditor_pod_tcp_keepalive_time_seconds{namespace="shop",pod="web-0"} 7200"#;
    for line in [tuned, default] {
        ensure!(metrics.lines().any(|found| found == line), "{profile}: /metrics lacks {line}:\n{metrics}");
    }
    println!("{profile}: the pod's own sysctl is in /metrics");
    Ok(())
}

/// An audit inside the agent's container has the same settings, so it gives the same report, without a warning.
async fn audit_inside(cri: &mut Cri, profile: &str, agent: &Running) -> Result<()> {
    let command = ["/keepalive-auditor", "audit", "--all", "--format=json"];
    let (report, said, status) = cri.exec(agent.container(), &command).await?;
    ensure!(status == 0, "{profile}: the audit inside the pod ended with {status}: {said}");
    ensure!(
        !said.contains("cgroup"),
        "{profile}: the audit inside the pod warns about the mounted cgroup tree:\n{said}"
    );
    let (seen, expected) = (report::lines(&serde_json::from_str(&report)?)?, expected(profile));
    ensure!(
        seen == expected,
        "{profile}: an audit inside the pod: expected\n  {}\nseen\n  {}\nit says\n{said}",
        expected.join("\n  "),
        seen.join("\n  ")
    );
    println!("{profile}: an audit inside the pod equals the agent's report");
    Ok(())
}

/// Restarts the runtime. An agent that mounts the directory of the socket then finds the new socket.
async fn runtime_restarts(node: &Node<'_>, containerd: &mut Child) -> Result<Cri> {
    let endpoint = crate::cri::SOCKET;
    let failures =
        |page: &str| page.lines().any(|line| line.starts_with(r#"keepalive_auditor_owner_troubles_total{kind="cri"}"#));
    let mut cri = Cri::connect().await?;
    let mut pod = deploy::agent(Path::new("tests/e2e/containerd/cri"), "agent-cri", node.scratch)?;
    pod.containers[0].env.extend(SETTINGS.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let agent = pod.run(&mut cri, node.cgroup).await?;
    until("cri", &agent, |_| Ok(true)).await?;
    ensure!(
        !failures(&http::get(&agent.ip, "/metrics")?),
        "the runtime answers on {endpoint}, and the agent reports it dead"
    );
    containerd.kill()?;
    containerd.wait()?;
    let since = Instant::now();
    while !failures(&http::get(&agent.ip, "/metrics")?) {
        ensure!(since.elapsed() < TIMEOUT, "nobody listens on {endpoint}, and the agent does not report it");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("a dead socket of the runtime is reported although the log folders have all names");
    *containerd = node::start_containerd(node)?;
    let mut cri = Cri::connect().await?;
    let (report, said, status) = cri
        .exec(agent.container(), &["/keepalive-auditor", "audit", "--all", "--format=json", "--pod-logs=/empty"])
        .await?;
    ensure!(status == 0 && !said.contains("does not answer"), "after the runtime's restart: {status}: {said}");
    let seen = report::lines(&serde_json::from_str(&report)?)?;
    ensure!(
        seen.iter().any(|line| line.starts_with("shop/web-0 (istio-proxy)")),
        "by the restarted runtime:\n  {}",
        seen.join("\n  ")
    );
    println!("after a restart the runtime's new socket gives the names");
    agent.remove(&mut cri).await?;
    Ok(cri)
}

/// The audit filters by these names. Without logs and without `/proc` it gets them from the runtime.
fn audits(scratch: &Path, auditor: &Path, proxy: &Running) -> Result<()> {
    let auditor = auditor.display().to_string();
    let common = ["audit", "--all", "--long-lived=1s", "--local-scope=namespace"];
    let audit = |more: &[&str]| node::output(&auditor, &[&common[..], more].concat());

    let table = audit(&["--namespace=shop", "--pod=web-*"])?;
    let count = |word| table.lines().filter(|line| line.contains(word)).count();
    ensure!(
        count("shop/web-0 (istio-proxy)") == 1 && count("shop/web-0 (app)") == 2 && count("db-0") == 0,
        "the table:\n{table}"
    );
    println!("audit --namespace shop --pod 'web-*' shows shop/web-0 (istio-proxy) and shop/web-0 (app)");

    let empty = scratch.join("empty").display().to_string();
    let root = format!("--cgroup-root={empty}");
    let report: Value = serde_json::from_str(&audit(&["--format=json", &root])?)?;
    let (seen, all) = (report::lines(&report)?, expected("standard"));
    ensure!(seen == all, "by inode: expected\n  {}\nseen\n  {}", all.join("\n  "), seen.join("\n  "));
    println!("without cgroup v2 the holders of the sockets' inodes give the same names");

    let logs = format!("--pod-logs={empty}");
    let endpoint = format!("--cri-endpoint={}", crate::cri::SOCKET);
    let report: Value = serde_json::from_str(&audit(&["--format=json", &logs, &endpoint])?)?;
    let seen = report::lines(&report)?;
    ensure!(seen == all, "by CRI: expected\n  {}\nseen\n  {}", all.join("\n  "), seen.join("\n  "));
    // Only the uid identifies the pod as the owner of its namespace, and the order of the runtime's list changes.
    let file = scratch.join("sweep.jsonl").display().to_string();
    for _ in 0..8 {
        audit(&[&logs, &endpoint, "--record", &file, "--force"])?;
        let names = report::namespaces_of(&std::fs::read_to_string(&file)?, &proxy.pod.uid)?;
        ensure!(names == ["proxy"], "by CRI the namespace of the renamed pod belongs to {names:?}");
    }
    println!("without log folders the runtime's CRI gives the same names: by labels alone, and of the newest sandbox");

    // No process, cgroup or log can be read, so only the name of the namespace's bind mount is left.
    let procfs = format!("--path.procfs={empty}");
    let report: Value = serde_json::from_str(&audit(&["--format=json", &procfs, &root, &logs, &endpoint])?)?;
    let seen = report::lines(&report)?;
    for (pod, count) in [("shop/web-0", 2), ("shop/labelled-0", 1), ("kube-system/proxy", 1)] {
        let line = format!("{pod} (-) outbound off exposed");
        let found = seen.iter().filter(|seen| **seen == line).count();
        ensure!(found == count, "by CRI alone, {pod} {found} times:\n  {}", seen.join("\n  "));
    }
    println!("by CRI alone a namespace still has its pod");
    Ok(())
}

/// Deletes a pod: its network namespace and its series disappear.
async fn deletes(cri: &mut Cri, cart: Running, netns: &OsString, agents: &[(&str, Running)]) -> Result<()> {
    // One end of this pair is in the pod's namespace, so both ends are removed with it. CNI does not know the pair.
    node::command(
        "ip",
        &["link", "add", "probe", "type", "veth", "peer", "name", "probe", "netns", &netns.to_string_lossy()],
    )?;
    cart.remove(cri).await?;
    let removed = Instant::now();
    while node::output("ip", &["-o", "link"])?.contains(" probe@") {
        ensure!(removed.elapsed() < TIMEOUT, "the deleted pod's namespace is still alive: something holds it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("the deleted pod's network namespace was gone {} ms after its sandbox", removed.elapsed().as_millis());
    let ended = node::output("date", &["--utc", "+%FT%T.%3NZ"])?;
    for (profile, agent) in agents {
        let later = |report: &Value| report["sweep"]["started_at"].as_str().is_some_and(|begun| begun > ended.trim());
        let report = until(profile, agent, |report| Ok(later(report))).await?;
        ensure!(
            later(&report) && report::uids(&report, "cart-0").is_empty(),
            "{profile} still reports the deleted pod: {report:#}"
        );
        let metrics = http::get(&agent.ip, "/metrics")?;
        ensure!(!metrics.contains("cart-0"), "{profile}: /metrics still has the deleted pod:\n{metrics}");
    }
    println!("the first sweep after it has no series of the deleted pod");
    Ok(())
}

/// Creates a pod with the same name again: it is another pod.
async fn recreates(cri: &mut Cri, cgroup: &str, cart: Pod, agents: &[(&str, Running)]) -> Result<()> {
    let cart = cart.run(cri, cgroup).await?;
    for (profile, agent) in agents {
        let expected = expected(profile);
        let report = until(profile, agent, |report| Ok(report::lines(report)? == expected)).await?;
        let seen = report::lines(&report)?;
        ensure!(
            seen == expected,
            "{profile}: expected again\n  {}\nseen\n  {}",
            expected.join("\n  "),
            seen.join("\n  ")
        );
        let uids = report::uids(&report, "cart-0");
        ensure!(uids == [cart.pod.uid.clone()], "{profile}: uids {uids:?}, the successor has {}", cart.pod.uid);
    }
    println!("the successor under the same name has its own uid");
    Ok(())
}

/// The first report of the agent that satisfies `enough`. After [`TIMEOUT`] the last report, or the last error.
async fn until(profile: &str, agent: &Running, enough: impl Fn(&Value) -> Result<bool>) -> Result<Value> {
    let since = Instant::now();
    loop {
        let report = http::get(&agent.ip, "/api/v1/report").and_then(|body| Ok(serde_json::from_str::<Value>(&body)?));
        match report {
            Ok(report) if enough(&report)? || since.elapsed() > TIMEOUT => return Ok(report),
            Err(error) if since.elapsed() > TIMEOUT => {
                return Err(error)
                    .with_context(|| format!("{profile} does not answer; its log:\n{}", agent.log("agent")));
            }
            _ => tokio::time::sleep(Duration::from_millis(250)).await,
        }
    }
}

/// The names of the network namespaces that CNI has made.
fn namespaces() -> Result<Vec<OsString>> {
    Ok(std::fs::read_dir("/run/netns")?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<_>>()?)
}
