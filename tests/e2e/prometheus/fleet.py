#!/usr/bin/env python3
"""Serves the pages of many simulated nodes to a real Prometheus, and prints the time that each rule and each panel takes.

    python3 tests/e2e/prometheus/fleet.py NODES [--pods 250] [--every 30] [--hours 6] [--limits RULES PANEL]; see --help

The table of docs/scaling.md comes from here. A node has the families and labels of the agent's pages under tests/sweeps; this is checked at
the start. Every group of rules is evaluated at the interval of --every, so that a run is short, and the best time of each rule counts. The sum
of each 30 seconds counts a rule as often as its group's own interval has it evaluated: a rule of two minutes by a quarter.
Panels are asked for the last six hours, as the dashboards open: the series that they read get a past of that length first.
Everything listens on loopback. With --limits, the exit status is 1 if the rules or one panel take longer. Needs Debian's prometheus and PyYAML,
and 8 KB of memory for each series.
"""

import argparse
import collections
import http.server
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

import yaml

import expressions
from fleet_pages import Pod, check_families, kube_state_metrics, labels, page
from servers import Server, free_port

BASE = 30  # seconds between evaluations of a group without an interval of its own


def serve(pages):
    """Serves each page at the path of its name."""

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
    """Seconds of each rule, the best of the last evaluations: {(group, number, rule): seconds}."""
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
    return {key: min(times[-rounds:]) for key, times in taken.items()}


def cpu_seconds(process):
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def groups_of(rules):
    """(group, seconds between its evaluations, its rules), as the files have them."""
    for path in sorted(rules.glob("*.yaml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield group["name"], int(group.get("interval", "0m").rstrip("m")) * 60 or BASE, group["rules"]


def cost_of_rules(prometheus, rules):
    """(rule, processor seconds, times in each 30 s): what an expression costs on a machine that does other things as well, the best of three."""
    for _, interval, members in groups_of(rules):
        for rule in members:
            costs = []
            for _ in range(3):
                before = cpu_seconds(prometheus.process)
                prometheus.api("query", query=f"count({rule['expr']})")
                costs.append(cpu_seconds(prometheus.process) - before)
            yield rule.get("alert") or rule["record"], min(costs), BASE / interval


def give_past(prometheus, directory, hours):
    """Writes blocks in which what the dashboards read has its present value every two minutes: recorded series, and those without a pod."""
    families = collections.defaultdict(list)
    recorded, of_nodes = '{__name__=~"namespace.*:keepalive_auditor_.*"}', '{__name__=~"(keepalive_auditor|process)_.*|up|scrape_.*", pod=""}'
    for selector in (recorded, of_nodes):
        for series in prometheus.api("query", query=selector)["result"]:
            name = series["metric"].pop("__name__")
            families[name].append((labels(**series["metric"]) if series["metric"] else "", series["value"][1]))
    end = int(time.time()) - 300
    with open(directory / "past.txt", "w") as past:
        for name, series in families.items():
            past.writelines(f"{name}{pairs} {value} {end - age}\n" for pairs, value in series for age in range(hours * 3600, 0, -120))
        past.write("# EOF\n")
    subprocess.run(["promtool", "tsdb", "create-blocks-from", "openmetrics", "-q", directory / "past.txt", directory / "tsdb"],
                   check=True, stdout=subprocess.DEVNULL)
    (directory / "past.txt").unlink()
    while not prometheus.count(f"count(up @ {end - 600})"):
        time.sleep(1)


def time_panels(prometheus, hours, pods):
    """(seconds, processor seconds, panel): each as Grafana asks for it, for now or for the dashboards' hours, the best of two.

    The dashboard Pod has one workload chosen.
    """
    names = "|".join(pod.name for pod in pods if pod.workload == pods[0].workload)
    chosen = {"$namespace": pods[0].namespace, "$workload": pods[0].workload, "$pod": names}
    now = time.time()
    for where, expr, step in expressions.of_panels({"Keepalive / Pod": chosen}):
        times = []
        for _ in range(2):
            begun, before = time.monotonic(), cpu_seconds(prometheus.process)
            if step is None:
                prometheus.api("query", query=expr)
            else:
                prometheus.api("query_range", query=expr, start=now - hours * 3600, end=now, step=max(step, 15))
            times.append((time.monotonic() - begun, cpu_seconds(prometheus.process) - before))
        yield *map(min, zip(*times)), where


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
    prometheus = Fleet(directory, scrapes, arguments.every, arguments.rules)
    endings.append(prometheus)
    prometheus.wait()
    while prometheus.count('count(up == 1)') < len(pages) + len(scrapes) - 1:
        time.sleep(1)
    # Rules that build on other rules need a few rounds until all have data.
    time.sleep(3 * arguments.every)
    series = prometheus.count('count({__name__=~"keepalive_auditor_.*"})')
    print(f"{arguments.nodes} nodes, {len(pods)} pods, {series} series, {sum(map(len, pages.values())) // len(pages)} bytes of a page"
          f"{'' if arguments.no_kube_state_metrics else ', with kube-state-metrics'}, detail {arguments.detail}")
    rules = time_rules(prometheus, arguments.rounds)
    for (group, _, name), seconds in sorted(rules.items(), key=lambda entry: -entry[1]):
        print(f"  rule  {seconds:8.3f} s  {group}: {name}")
    interval = {name: seconds for name, seconds, _ in groups_of(arguments.rules)}
    for group, seconds in interval.items():
        print(f"  group {sum(s for (g, *_), s in rules.items() if g == group):8.3f} s  {group}, every {seconds} s")
    total = sum(seconds * BASE / interval[group] for (group, *_), seconds in rules.items())
    print(f"  all rules once {sum(rules.values()):.2f} s; of each {BASE} s {total:.2f} s")
    costs = list(cost_of_rules(prometheus, arguments.rules))
    for name, seconds, _ in sorted(costs, key=lambda entry: -entry[1])[:8]:
        print(f"  processor {seconds:5.2f} s  {name}")
    print(f"  processor time, scrapes meanwhile included: all rules once {sum(cost for _, cost, _ in costs):.2f} s;"
          f" of each {BASE} s {sum(cost * share for _, cost, share in costs):.2f} s")
    give_past(prometheus, directory, arguments.hours)
    panels = sorted(time_panels(prometheus, arguments.hours, pods), reverse=True)
    for seconds, cost, where in panels if arguments.all else panels[:8]:
        print(f"  panel {seconds:8.3f} s, processor {cost:.2f} s  {where}")
    memory = next(int(line.split()[1]) for line in open(f"/proc/{prometheus.process.pid}/status") if line.startswith("VmRSS"))
    print(f"  Prometheus: {memory // 1024} MiB resident")
    return total, panels[0][0]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("nodes", type=int)
    parser.add_argument("--pods", type=int, default=250, help="pods of a node")
    parser.add_argument("--every", type=int, default=30, help="seconds between scrapes and between evaluations")
    parser.add_argument("--rounds", type=int, default=3, help="evaluations of which the best is taken")
    parser.add_argument("--hours", type=int, default=6, help="hours that the panels show")
    parser.add_argument("--detail", choices=["container", "workload"], default="container")
    parser.add_argument("--no-kube-state-metrics", action="store_true")
    parser.add_argument("--rules", type=pathlib.Path, default=expressions.ROOT / "deploy/prometheus")
    parser.add_argument("--limits", type=float, nargs=2, metavar=("RULES", "PANEL"),
                        help="seconds that the rules of each 30 s and the slowest panel may not exceed")
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
