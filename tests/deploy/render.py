#!/usr/bin/env python3
"""Renders the chart and the kustomizations as their users do, and checks the results.

Each render equals its golden file (--update writes them). Every object validates strictly against the schemas of every
Kubernetes release from 1.27 on. The chart passes Helm's linter, and its schema rejects wrong values.
Needs kubectl, and helm-python-sdk and kubernetes-validate of the Python index.
"""

import pathlib
import subprocess
import sys

import helm_python
import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/deploy/golden"
CHART = ROOT / "deploy/helm/keepalive-auditor"
# Name of the golden file: directory, and the Kubernetes minor versions that it is for.
SINCE_FIELD, BEFORE_FIELD = (30, 99), (27, 29)
OVERLAYS = {
    "base": ("base", SINCE_FIELD),
    "before-1.30": ("overlays/before-1.30", BEFORE_FIELD),
    "minimal": ("overlays/minimal", (27, 99)),
    "prometheus-operator": ("overlays/prometheus-operator", SINCE_FIELD),
    "openshift": ("overlays/openshift", SINCE_FIELD),
    "everything": ("../../tests/deploy/everything", SINCE_FIELD),
}
# Kinds of operators. kubernetes-validate has no schema for them.
FOREIGN = ("monitoring.coreos.com/", "security.openshift.io/")
WRONG_VALUES = [
    {"privilege": "minimal"},
    {"privileges": "all"},
    {"image": {"tags": "1"}},
    {"config": {"idle_timeot": "350s"}},
    {"config": {"idle_timeout": 350}},
    {"config": {"paths": [{"name": "no-timeout", "ports": [443]}]}},
    {"config": {"paths": [{"name": "wrong-key", "cidr": "10.0.0.0/8", "idle_timeout": "60s"}]}},
    {"config": {"metrics_detail": "everything"}},
    {"monitor": {"kind": "PodMonitor,ServiceMonitor"}},
    {"podMonitor": {"enabled": True}},
    {"criEndpoint": "containerd.sock"},
    {"monitor": {"discovery": {"serviceAccount": ""}}},
    {"web": {"port": 0}},
    {"web": {"config": {"tls_server_config": {}}}},
    {"web": {"configSecret": True}},
    {"web": {"tls": True}},
    {"livenessProbe": {"path": "/healthz"}},
    {"prometheusRule": {"disabledAlerts": "TCPKeepaliveTooLate"}},
]

failures = []


def minor(version):
    """27 of 1.27."""
    return int(version.split(".")[1])


def fail(text):
    print(text)
    failures.append(text)


def kustomize(overlay):
    command = ["kubectl", "kustomize", str(overlay)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def helm(values):
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(values, name="keepalive-auditor", namespace="keepalive-auditor")
    notes = files.pop("keepalive-auditor/templates/NOTES.txt")
    if "port-forward" not in notes:
        fail(f"NOTES.txt does not say how to reach an agent: {notes}")
    return "".join(f"---\n# {name}\n{text.strip()}\n" for name, text in sorted(files.items()) if text.strip())


def elide_dashboards(text):
    """The text with each dashboard, which is checked here to be the committed one, replaced by its name."""
    for path in sorted((ROOT / "deploy/dashboards").glob("*.json")):
        block = "".join("    " + line for line in path.read_text().splitlines(keepends=True)).rstrip("\n")
        text = text.replace(block, f"    (deploy/dashboards/{path.name})")
    return text


def check_golden(name, text):
    text = elide_dashboards(text)
    if '"schemaVersion"' in text:
        fail(f"{name}: carries a dashboard that is not the one in deploy/dashboards")
    path = GOLDEN / f"{name}.yaml"
    if "--update" in sys.argv:
        path.write_text(text)
    elif not path.exists() or path.read_text() != text:
        fail(f"{name}: differs from {path.relative_to(ROOT)}; read the change, then run tests/deploy/render.py --update")
        subprocess.run(["diff", "-u", str(path), "-"], input=text, text=True, check=False)


def check_schemas(name, text, versions):
    """Every object against the strict schema of each version."""
    count = 0
    for thing in yaml.safe_load_all(text):
        if thing is None or thing["apiVersion"].startswith(FOREIGN):
            continue
        for version in versions:
            try:
                kubernetes_validate.validate(thing, version, strict=True)
                count += 1
            except kubernetes_validate.ValidationError as error:
                fail(f"{name}: {thing['kind']} {thing['metadata']['name']} is not valid in {version}: {error.message}")
    print(f"{name}: {count} validations")


def main():
    versions = [v for v in map(kubernetes_validate.utils.major_minor, kubernetes_validate.utils.all_versions()) if minor(v) >= 27]
    versions = sorted(set(versions), key=minor)
    print("Kubernetes", versions[0], "to", versions[-1], "· Helm", helm_python.helm_sdk_version())
    for name, (overlay, (oldest, newest)) in OVERLAYS.items():
        text = kustomize(ROOT / "deploy/kustomize" / overlay)
        check_golden(f"kustomize-{name}", text)
        check_schemas(f"kustomize-{name}", text, [v for v in versions if oldest <= minor(v) <= newest])
    for path in sorted((ROOT / "tests/deploy/values").glob("*.yaml")):
        values = yaml.safe_load(path.read_text())
        check_golden(f"helm-{path.stem}", helm(values))
        # The chart asks the cluster's version; before 1.30 it writes the annotation.
        check_schemas(f"helm-{path.stem}", helm({"appArmor": "annotation"} | values), [v for v in versions if minor(v) < 30])
        check_schemas(f"helm-{path.stem}", helm(values), [v for v in versions if minor(v) >= 30])
        report = helm_python.lint(CHART, values, strict=True)
        if report["errors"]:
            fail(f"helm lint with {path.name}: {report['errors']}")
    for values in WRONG_VALUES:
        try:
            with helm_python.Chart.load(CHART) as chart:
                chart.render(values, name="x")
            fail(f"the chart accepts {values}")
        except helm_python.HelmError as error:
            if "schema" not in str(error):
                fail(f"the chart refuses {values} for another reason: {error}")
    print(f"{len(WRONG_VALUES)} wrong values tried")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
