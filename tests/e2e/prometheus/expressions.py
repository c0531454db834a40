"""Every expression in panels, variables, annotations, alerts and recording rules."""

import json
import pathlib
import re

import yaml

from servers import faster

ROOT = pathlib.Path(__file__).resolve().parents[3]
RULES = sorted((ROOT / "deploy/prometheus").glob("*.yaml"))
# The values that Grafana inserts for "All", and a rate interval for scrapes every second.
VARIABLES = {"$__rate_interval": "10s"} | {f"${name}": ".*" for name in ("cluster", "node", "namespace", "workload", "pod", "container")}


def filled(expr, chosen=None):
    for name, value in (VARIABLES | (chosen or {})).items():
        expr = expr.replace(name, value)
    if "$" in expr:
        raise ValueError(f"an unknown variable in {expr}")
    return expr


def of_rules():
    """(where, expression): the rules, with their shorter times."""
    for path in RULES:
        for group in yaml.safe_load(faster(path.read_text()))["groups"]:
            for rule in group["rules"]:
                yield rule.get("alert") or rule["record"], rule["expr"]


def dashboards():
    return [json.loads(path.read_text()) for path in sorted((ROOT / "deploy/dashboards").glob("*.json"))]


def of_panels(chosen=None):
    """(where, expression, seconds between the points of a graph or None for the present moment). `chosen` are variables by the dashboard's title."""
    for dashboard in dashboards():
        variables = (chosen or {}).get(dashboard["title"])
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                yield f"{dashboard['title']} / {panel['title']} {target['refId']}", filled(target["expr"], variables), None if target["instant"] else step_of(panel)


def step_of(panel):
    """The shortest step that the panel asks for: Grafana's own is the interval of scrapes."""
    minutes = re.fullmatch(r"(\d+)m", panel.get("interval", ""))
    return int(minutes[1]) * 60 if minutes else 30


def of_dashboards():
    """(where, expression): panels and annotations; a variable's label_values(series, label) as the series."""
    yield from ((where, expr) for where, expr, _ in of_panels())
    for dashboard in dashboards():
        for annotation in dashboard["annotations"]["list"]:
            yield f"{dashboard['title']} / {annotation['name']}", filled(annotation["expr"])
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                yield f"{dashboard['title']} / ${variable['name']}", filled(re.fullmatch(r"label_values\((.*), \w+\)", variable["definition"])[1])


def everything():
    return [*of_rules(), *of_dashboards()]
