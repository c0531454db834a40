#!/usr/bin/env python3
"""Reads the dashboards into Grafana's own typed models and writes them out again: a field that Grafana does not know would be lost.

Needs grafana-foundation-sdk of the Python index, whose models are generated from Grafana's schemas.
"""

import json
import pathlib
import re
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

# Fields that belong to the Prometheus data source or to a later Grafana than the models.
KNOWN_TO_OTHERS = {"templating.list[].definition", "annotations.list[].titleFormat", "annotations.list[].textFormat", "annotations.list[].step",
                   "panels[].options.tooltip.mode"}


def lost(ours, theirs, path=""):
    """The paths of missing or changed fields."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            where = f"{path}.{key}".lstrip(".")
            if key in theirs:
                yield from lost(value, theirs[key], where)
            elif value not in (None, [], {}, ""):
                yield where
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for mine, other in zip(ours, theirs):
            yield from lost(mine, other, f"{path}[]")
    elif ours != theirs:
        yield path


def main():
    register_default_plugins()
    unknown = set()
    for path in sorted(pathlib.Path(__file__).parents[2].glob("deploy/dashboards/*.json")):
        dashboard = json.loads(path.read_text())
        again = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(dashboard)))
        fields = len(re.findall(r'":', path.read_text()))
        print(f"{path.name}: {fields} fields")
        unknown |= set(lost(dashboard, again)) - KNOWN_TO_OTHERS
    if unknown:
        sys.exit(f"Grafana's models do not know {sorted(unknown)}")


if __name__ == "__main__":
    main()
