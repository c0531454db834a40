"""Runs the runbook's queries and commands while an alert fires. Each must find the subject of the alert."""

import re
import shlex
import subprocess

from expressions import ROOT

# The settings of the scene's agents. Deployed agents have them in their environment, and an audit in the pod shares it.
SETTINGS = ("--idle-timeout=10s", "--long-lived=5s", "--local-scope=namespace")
AUDIT = "kubectl keepalive-auditor audit"
# The second cluster's agent, and so an audit beside it.
BLIND = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace")
# What the audit of an alert's entry says of the connections, or of the node, that the alert is about. One sweep cannot say `blackholed`.
SAYS = {
    "TCPKeepaliveMissingOnIdleConnections": "overdue",
    "TCPConnectionsBlackholed": "unanswered",
    "TCPConnectionsUnanswered": "unanswered",
    "TCPKeepaliveTooLate": "its first probe comes after 7200s, the system's default",
    "TCPKeepaliveCoverageLow": "Keepalive is off",
    "KeepaliveAuditorNamespacesUnreadable": "CAP_SYS_PTRACE",
}


def entry(alert):
    """The alert's entry."""
    return re.search(rf"(?ms)^## {alert}\n(.*?)(?=^## |\Z)", (ROOT / "docs/runbook.md").read_text())[1]


def blocks(alert):
    """(language, text) of the alert's fenced blocks that a reader would run."""
    return re.findall(r"(?ms)^```(promql|sh)\n(.*?)^```", entry(alert))


def follow(alert, labels, prometheus, binary, logs):
    """Runs every block of the alert's entry, with its namespace and workload for shop and cart."""
    ran = 0
    for language, text in blocks(alert):
        text = text.strip().replace("shop", labels.get("namespace", "shop")).replace("cart", labels.get("workload", "cart"))
        if language == "promql":
            if not prometheus.query(text):
                raise AssertionError(f"{alert}: the runbook's query finds nothing: {text}")
        else:
            if not text.startswith(AUDIT):
                raise AssertionError(f"{alert}: the runbook's command is not an audit: {text}")
            # The plugin runs the audit inside the agents, with what they may do.
            wrapper = BLIND if labels["cluster"] == "two" else ()
            words = shlex.split(text.removeprefix(AUDIT).replace("--node NODE", "").replace("--all-nodes", ""))
            command = [*wrapper, binary, "audit", *words, f"--pod-logs={logs}", *SETTINGS]
            ran_audit = subprocess.run(command, capture_output=True, text=True, check=False)
            said, subject = ran_audit.stdout + ran_audit.stderr, labels.get("workload", labels.get("namespace", ""))
            if ran_audit.returncode or subject not in ran_audit.stdout or SAYS[alert] not in said:
                raise AssertionError(f"{alert}: {text} does not find {subject} with {SAYS[alert]!r}:\n{said}")
        ran += 1
    return ran
