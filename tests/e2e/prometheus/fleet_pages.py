"""The pages of a simulated fleet: what agents and kube-state-metrics would serve."""

import collections
import re
import sys
import time

import expressions

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
