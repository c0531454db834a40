#!/usr/bin/env python3
"""Serves the pages of many simulated nodes to a real Prometheus, and prints the time that each rule and each panel takes.

    tests/e2e/prometheus/fleet.py NODES [--pods 250] [--every 15] [--detail workload] [--no-kube-state-metrics] [--limit SECONDS]

The table of docs/scaling.md comes from here. A node has the families and labels of the agent's pages under tests/sweeps; this is checked at
the start. Everything listens on loopback. With --limit, the exit status is 1 if all rules together or one panel take longer than that.
Needs Debian's prometheus and PyYAML, and 8 KB of memory for each series.
"""

import argparse
import collections
import http.server
import json
import os
import pathlib
import re
import statistics
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

import yaml

import expressions
from servers import Server, free_port

LETTERS = "bcdfghjklmnpqrstvwxz2456789"
PODS_PER_WORKLOAD = 10
WORKLOADS_PER_NAMESPACE = 25
# What the pods of a workload hold: direction, keepalive, verdict, number of connections. In one workload of five some are overdue.
HELD = [
    ("outbound", "off", "exposed", 3),
    ("inbound", "off", "exposed", 2),
    ("outbound", "on", "protected", 5),
    ("inbound", "off", "peer_protected", 4),
    ("inbound", "on", "local", 2),
]
FLAGGED = ("exposed", "overdue", "unanswered", "blackholed")
# Families that no recorded page holds.
UNRECORDED = {"keepalive_auditor_silence_seconds_bucket", "process_cpu_seconds_total", "process_resident_memory_bytes"}
KINDS = ["Deployment"] * 7 + ["DaemonSet", "StatefulSet", "Job"]


def generated(number, length):
    """A suffix as Kubernetes generates them."""
    text = ""
    for _ in range(length):
        number, digit = divmod(number * 7 + 3, len(LETTERS))
        text += LETTERS[digit]
    return text


def digits(number, length):
    """Distinct generated suffixes for distinct numbers."""
    text = ""
    for _ in range(length):
        number, digit = divmod(number, len(LETTERS))
        text += LETTERS[digit]
    return text


class Pod:
    """One pod of the fleet: its names, and what owns it."""

    def __init__(self, number, node):
        workload, replica = divmod(number, PODS_PER_WORKLOAD)
        self.node = node
        self.kind = KINDS[workload % len(KINDS)]
        self.at_risk = workload % 5 == 0
        self.workload = f"service-{workload}"
        self.namespace = f"team-{workload // WORKLOADS_PER_NAMESPACE}"
        self.endpoint = f"10.20.{workload // 200 % 250}.{workload % 200}:5432"
        hashed = f"{self.workload}-{generated(workload, 9)}"
        self.owner_kind, self.owner = {
            "Deployment": ("ReplicaSet", hashed), "Job": ("Job", f"{self.workload}-29{workload:06}"),
        }.get(self.kind, (self.kind, self.workload))
        ordinal = str(replica) if self.kind == "StatefulSet" else digits(number, 5)
        self.name = f"{self.owner}-{ordinal}"


def labels(**pairs):
    return "{" + ",".join(f'{name}="{value}"' for name, value in pairs.items()) + "}"


def page(pods, node, detail):
    """A node's page: the families of the agent that grow with pods, and those of the agent itself."""
    families = collections.defaultdict(list)

    def add(name, value, **pairs):
        families["keepalive_auditor_" + name].append(f"keepalive_auditor_{name}{labels(**pairs)} {value}")

    counts = collections.Counter()
    for pod in pods:
        of_pod = {"namespace": pod.namespace, "pod": pod.name}
        owner = of_pod | {"container": "app"}
        if detail == "workload":
            owner = {"namespace": pod.namespace, "pod": "", "container": "", "workload": pod.workload}
        for direction, keepalive, verdict, held in HELD:
            if pod.at_risk and (direction, verdict) == ("inbound", "exposed"):
                direction, keepalive, verdict = "outbound", "late", "overdue"
            counts["connections", tuple((owner | {"direction": direction, "keepalive": keepalive, "verdict": verdict}).items())] += held
            if verdict in FLAGGED:
                more = {"direction": direction, "endpoint": pod.endpoint, "path": "default", "verdict": verdict}
                counts["flagged_connections", tuple((owner | more).items())] += held
        counts["flagged_wire_idle_seconds_max", tuple((owner | {"direction": "outbound"}).items())] = 4321.5
        add("pod_info", 1, **of_pod, workload=pod.workload)
        add("pod_tcp_keepalive_time_seconds", 7200, **of_pod)
        for name in ("established_resets", "abort_on_timeout", "keepalive_probes"):
            add(f"pod_tcp_{name}_total", 17, **of_pod)
    for (name, pairs), value in counts.items():
        add(name, value, **dict(pairs))
    for unit in ("kubelet.service", "containerd.service", "sshd.service"):
        outside = {"namespace": "", "pod": "", "container": unit}
        if detail == "workload":
            outside |= {"container": "", "workload": unit}
        add("connections", 4, **outside, direction="outbound", keepalive="on", verdict="protected")
    for verdict in ("blackholed", "unanswered", "overdue", "exposed", "undetermined", "young", "app_protected", "peer_protected", "protected", "local"):
        add("node_connections", len(pods), verdict=verdict)
    add("metrics_detail_info", 1, detail=detail)
    add("path_info", 1, path="default", refreshed_by="segment", source="default")
    add("build_info", 1, version="0.1.0", revision="simulated")
    add("idle_timeout_seconds", 350, path="default")
    add("last_sweep_timestamp_seconds", time.time(), )
    add("sweeps_total", 100)
    add("tracked_connections", 16 * len(pods))
    add("series_dropped", 0)
    for result in ("dumped", "empty", "vanished", "failed", "skipped", "looked_up"):
        add("namespaces", 10, result=result)
    for keepalive in ("off", "late", "on"):
        for le in (30, 60, 120, 240, 350, 600, 900, 1800, 3600, 7200, "+Inf"):
            add("silence_seconds_bucket", 5, keepalive=keepalive, le=le)
    for le in (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, "+Inf"):
        add("sweep_duration_seconds_bucket", 100, le=le)
    lines = [line for name in sorted(families) for line in families[name]]
    lines += ["process_cpu_seconds_total 12.5", "process_resident_memory_bytes 9000000"]
    return "\n".join(lines).replace("{}", "") + "\n"


def kube_state_metrics(pods):
    """What kube-state-metrics says of the pods' owners."""
    lines, owners = [], set()
    for pod in pods:
        lines.append("kube_pod_owner" + labels(namespace=pod.namespace, pod=pod.name, owner_kind=pod.owner_kind, owner_name=pod.owner,
                                               owner_is_controller="true") + " 1")
        if pod.kind == "Deployment":
            owners.add("kube_replicaset_owner" + labels(namespace=pod.namespace, replicaset=pod.owner, owner_kind="Deployment",
                                                        owner_name=pod.workload, owner_is_controller="true") + " 1")
        elif pod.kind == "Job":
            owners.add("kube_job_owner" + labels(namespace=pod.namespace, job_name=pod.owner, owner_kind="CronJob",
                                                 owner_name=pod.workload, owner_is_controller="true") + " 1")
    return "\n".join([*lines, *sorted(owners)]) + "\n"


def check_families(text, detail):
    """Each simulated family has the labels that the agent gives it, by the pages that tests/replay.rs compares with the program's."""
    real = collections.defaultdict(set)
    for golden in (expressions.ROOT / "tests/sweeps").glob("*/metrics.txt"):
        for name, names in families_of(golden.read_text()):
            real[name].add(names)
    for name, names in set(families_of(text)):
        names = tuple(label for label in names if not (detail == "workload" and label == "workload"))
        if name in UNRECORDED:
            continue
        if names not in {tuple(l for l in found if not (detail == "workload" and l == "workload")) for found in real[name]}:
            sys.exit(f"the agent has no {name} with the labels {names}; it has {sorted(real[name])}")


def families_of(text):
    for line in text.splitlines():
        if line and not line.startswith("#"):
            yield line.partition("{")[0].partition(" ")[0], tuple(re.findall(r'[{,](\w+)="', line))


def serve(pages):
    """Serves each page under its name."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = pages[self.path.strip("/")]
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Listener(http.server.ThreadingHTTPServer):
        request_queue_size = 1024

    server = Listener(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def scrape(name, server, pages, every, labelled):
    """A scrape configuration for these pages."""
    return {
        "job_name": name, "honor_labels": True, "scrape_interval": f"{every}s", "scrape_timeout": f"{every}s",
        "static_configs": [
            {"targets": [f"127.0.0.1:{server.server_port}"], "labels": {"__metrics_path__": f"/{page}", "instance": page} | labelled(page)}
            for page in pages
        ],
    }


class Fleet(Server):
    """A Prometheus with the project's rules, whose groups are evaluated every few seconds."""

    def __init__(self, directory, scrapes, every, rules):
        self.port = free_port()
        (directory / "rules").mkdir()
        for path in sorted(rules.glob("*.yaml")):
            text = re.sub(r"(?m)^(\s+interval:) .*$", rf"\1 {every}s", path.read_text())
            (directory / "rules" / path.name).write_text(text)
        config = {"global": {"evaluation_interval": f"{every}s"}, "rule_files": [f"{directory}/rules/*.yaml"], "scrape_configs": scrapes}
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = ["prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/tsdb",
                   f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn", "--query.timeout=5m"]
        super().__init__(directory, "prometheus", command, f"http://127.0.0.1:{self.port}/-/ready")

    def api(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=300) as answer:
            return json.load(answer)["data"]

    def count(self, expr):
        result = self.api("query", query=expr)["result"]
        return int(float(result[0]["value"][1])) if result else 0


def time_rules(prometheus, rounds):
    """Seconds of each rule in the last evaluations: {(group, rule): [seconds, …]}."""
    taken, seen = collections.defaultdict(list), set()
    while not taken or min(map(len, taken.values())) < rounds:
        for group in prometheus.api("rules")["groups"]:
            for number, rule in enumerate(group["rules"]):
                key = (group["name"], number, rule["name"])
                taken.setdefault(key, [])
                if (key, rule["lastEvaluation"]) not in seen and rule["health"] != "unknown":
                    seen.add((key, rule["lastEvaluation"]))
                    if rule["health"] != "ok":
                        sys.exit(f"{rule['name']}: {rule.get('lastError')}")
                    taken[key].append(rule["evaluationTime"])
        time.sleep(0.5)
    return {key: statistics.median(times[-rounds:]) for key, times in taken.items()}


def cpu_seconds(process):
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cost_of_rules(prometheus, rules):
    """Processor seconds of each rule's expression, asked three times: what a rule costs on a machine that does other things as well."""
    for path in sorted(rules.glob("*.yaml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                before = cpu_seconds(prometheus.process)
                for _ in range(3):
                    prometheus.api("query", query=f"count({rule['expr']})")
                yield rule.get("alert") or rule["record"], (cpu_seconds(prometheus.process) - before) / 3


def time_panels(prometheus, started, pods):
    """Seconds of each panel as Grafana asks for it: instantly, or over the whole run. The dashboard Pod has one workload chosen."""
    names = "|".join(pod.name for pod in pods if pod.workload == pods[0].workload)
    chosen = {"$namespace": pods[0].namespace, "$workload": pods[0].workload, "$pod": names}
    for where, expr, instant in expressions.of_panels({"Keepalive / Pod": chosen}):
        begun = time.monotonic()
        if instant:
            prometheus.api("query", query=expr)
        else:
            prometheus.api("query_range", query=expr, start=started, end=time.time(), step=15)
        yield where, time.monotonic() - begun


def measure(arguments, directory, servers, endings):
    pods = [Pod(number, number % arguments.nodes) for number in range(arguments.nodes * arguments.pods)]
    by_node = collections.defaultdict(list)
    for pod in pods:
        by_node[pod.node].append(pod)
    pages = {f"node-{node}": page(of_node, node, arguments.detail) for node, of_node in by_node.items()}
    check_families(pages["node-0"], arguments.detail)
    served = serve({name: text.encode() for name, text in pages.items()})
    servers.append(served)
    scrapes = [scrape("keepalive-auditor", served, pages, arguments.every, lambda node: {"node": node, "cluster": "one"})]
    if not arguments.no_kube_state_metrics:
        other = serve({"kube-state-metrics": kube_state_metrics(pods).encode()})
        servers.append(other)
        scrapes.append(scrape("kube-state-metrics", other, ["kube-state-metrics"], arguments.every, lambda _: {"cluster": "one"}))
    started = time.time()
    prometheus = Fleet(directory, scrapes, arguments.every, arguments.rules)
    endings.append(prometheus)
    prometheus.wait()
    while prometheus.count('count(up == 1)') < len(pages) + len(scrapes) - 1:
        time.sleep(1)
    # Rules of which each is made of the one before it take a few rounds until all have data.
    time.sleep(3 * arguments.every)
    series = prometheus.count('count({__name__=~"keepalive_auditor_.*"})')
    print(f"{arguments.nodes} nodes, {len(pods)} pods, {series} series, {sum(map(len, pages.values())) // len(pages)} bytes of a page"
          f"{'' if arguments.no_kube_state_metrics else ', with kube-state-metrics'}, detail {arguments.detail}")
    rules = time_rules(prometheus, arguments.rounds)
    for (group, _, name), seconds in sorted(rules.items(), key=lambda entry: -entry[1]):
        print(f"  rule  {seconds:8.3f} s  {group}: {name}")
    for group in sorted({key[0] for key in rules}):
        print(f"  group {sum(s for (g, *_), s in rules.items() if g == group):8.3f} s  {group}")
    total = sum(rules.values())
    print(f"  all rules together {total:.3f} s")
    costs = list(cost_of_rules(prometheus, arguments.rules))
    for name, seconds in sorted(costs, key=lambda entry: -entry[1])[:8]:
        print(f"  processor {seconds:5.2f} s  {name}")
    print(f"  processor time of all rules together, scrapes meanwhile included: {sum(seconds for _, seconds in costs):.2f} s")
    panels = sorted(time_panels(prometheus, started, pods), key=lambda entry: -entry[1])
    for where, seconds in panels if arguments.all else panels[:8]:
        print(f"  panel {seconds:8.3f} s  {where}")
    memory = next(int(line.split()[1]) for line in open(f"/proc/{prometheus.process.pid}/status") if line.startswith("VmRSS"))
    print(f"  Prometheus: {memory // 1024} MiB resident")
    return total, panels[0][1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("nodes", type=int)
    parser.add_argument("--pods", type=int, default=250, help="pods of a node")
    parser.add_argument("--every", type=int, default=15, help="seconds between scrapes and between evaluations")
    parser.add_argument("--rounds", type=int, default=3, help="evaluations of which the median is taken")
    parser.add_argument("--detail", choices=["container", "workload"], default="container")
    parser.add_argument("--no-kube-state-metrics", action="store_true")
    parser.add_argument("--rules", type=pathlib.Path, default=expressions.ROOT / "deploy/prometheus")
    parser.add_argument("--limits", type=float, nargs=2, metavar=("RULES", "PANEL"), help="seconds that may not be exceeded")
    parser.add_argument("--all", action="store_true", help="print every panel, not only the slowest")
    arguments = parser.parse_args()
    servers, endings = [], []
    with tempfile.TemporaryDirectory(prefix="keepalive-auditor-fleet-") as directory:
        try:
            taken = measure(arguments, pathlib.Path(directory), servers, endings)
        finally:
            for thing in endings:
                thing.end()
            for server in servers:
                server.shutdown()
    if arguments.limits and any(seconds > limit for seconds, limit in zip(taken, arguments.limits)):
        sys.exit(f"rules took {taken[0]:.2f} s and the slowest panel {taken[1]:.2f} s; the limits are {arguments.limits}")


if __name__ == "__main__":
    main()
