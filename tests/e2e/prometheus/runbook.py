"""The runbook's queries and commands, run where an alert fires: each must find what the alert is about."""

import re
import shlex
import subprocess

from expressions import ROOT

# How the agents of the scene judge; the deployed ones have it in their environment, which an audit inside the pod shares.
SETTINGS = ("--idle-timeout=10s", "--long-lived=5s", "--local-scope=namespace")
AUDIT = "kubectl keepalive-auditor audit"


def blocks(alert):
    """(language, text) of the alert's fenced blocks that are meant to be run."""
    entry = re.search(rf"(?ms)^## {alert}\n(.*?)(?=^## |\Z)", (ROOT / "docs/runbook.md").read_text())[1]
    return re.findall(r"(?ms)^```(promql|sh)\n(.*?)^```", entry)


def follow(alert, labels, prometheus, binary, logs):
    """Runs every block of the alert's entry, with its namespace and workload for shop and cart."""
    ran = 0
    for language, text in blocks(alert):
        text = text.strip().replace("shop", labels.get("namespace", "shop")).replace("cart", labels.get("workload", "cart"))
        if language == "promql":
            if not prometheus.query(text):
                raise AssertionError(f"{alert}: the runbook's query finds nothing: {text}")
        elif "--node NODE" not in text:
            if not text.startswith(AUDIT):
                raise AssertionError(f"{alert}: the runbook's command is no audit: {text}")
            words = [word for word in shlex.split(text.removeprefix(AUDIT)) if word != "--all-nodes"]
            ran_audit = subprocess.run([binary, "audit", *words, f"--pod-logs={logs}", *SETTINGS], capture_output=True, text=True, check=False)
            subject = labels.get("workload", labels["namespace"])
            if ran_audit.returncode or subject not in ran_audit.stdout or "nothing to explain" in ran_audit.stdout:
                raise AssertionError(f"{alert}: {text} does not find {subject}:\n{ran_audit.stdout}{ran_audit.stderr}")
        ran += 1
    return ran
