"""The parts of every dashboard: variables, queries, panels and their layout, in Grafana's JSON model."""

import re

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
VERDICT_COLOURS = {
    "blackholed": "dark-red",
    "unanswered": "semi-dark-red",
    "overdue": "red",
    "exposed": "orange",
    "young": "blue",
    "protected": "green",
    "peer_protected": "light-green",
    "app_protected": "super-light-green",
    "local": "#808080",
    "undetermined": "purple",
}
KEEPALIVE_COLOURS = {"on": "green", "late": "yellow", "off": "orange", "unknown": "purple"}


def query_variable(name, label, query, multi=True, every=".*"):
    """A variable filled from Prometheus. `every` is what "All" means: ".*" also matches series without the label (connections outside
    pods, one cluster); None lists the values; False: there is no "All"."""
    current = {"selected": True, "text": ["All"] if multi else "All", "value": ["$__all"] if multi else "$__all"}
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": f"{name}-variable"},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": multi,
        "includeAll": every is not False,
        **({"allValue": every} if every else {}),
        "regex": "",
        "hide": 0,
        "skipUrlSync": False,
        "options": [],
        "current": {} if every is False else current,
    }


def datasource_variable():
    """The data source of every panel and variable."""
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "regex": "",
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "skipUrlSync": False,
        "options": [],
        "current": {},
    }


def target(expr, legend="", instant=False, form="time_series", ref="A"):
    """One query of a panel."""
    return {
        "datasource": DATASOURCE,
        "expr": expr,
        "legendFormat": legend or "__auto",
        "refId": ref,
        "editorMode": "code",
        "format": form,
        "instant": instant,
        "range": not instant,
    }


def _panel(kind, title, description, targets, unit, width, height, **extra):
    for i, t in enumerate(targets):
        t["refId"] = chr(ord("A") + i)
    defaults = {"unit": unit, **extra.pop("defaults", {})}
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": extra.pop("overrides", [])},
        "gridPos": {"w": width, "h": height, "x": 0, "y": 0},
        **extra,
    }


def colour_overrides(targets):
    """The same colour for the same verdict and keepalive state on every panel."""
    legends = {t["legendFormat"] for t in targets}
    names = (VERDICT_COLOURS if "{{verdict}}" in legends else {}) | (KEEPALIVE_COLOURS if "{{keepalive}}" in legends else {})
    return [
        {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}]}
        for name, colour in names.items()
    ]


def stat(title, description, expr, unit="short", steps=((None, "green"),), width=4):
    """One number; `steps` are (from, colour)."""
    return _panel(
        "stat",
        title,
        description,
        [target(expr, instant=True)],
        unit,
        width,
        4,
        defaults={
            "color": {"mode": "thresholds"},
            "noValue": "0" if unit == "short" else "–",
            "thresholds": {"mode": "absolute", "steps": [{"value": v, "color": c} for v, c in steps]},
        },
        options={"colorMode": "value", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}},
    )


def coloured_by(panel, limit, colour="red"):
    """The panel, whose number takes the colour from the value of another query: Grafana's transformation "Config from query results"."""
    panel["targets"].append(target(limit, "limit", instant=True, ref="B"))
    threshold = {"color": colour}
    mapping = {"fieldName": "limit", "handlerKey": "threshold1", "handlerArguments": {"threshold": threshold}}
    panel["transformations"] = [{"id": "configFromData", "options": {"configRefId": "B", "mappings": [mapping]}}]
    return panel


def linked(panel, *links):
    """The panel with links in its corner; `links` are (title, url)."""
    panel["links"] = [{"title": title, "url": url, "targetBlank": True} for title, url in links]
    return panel


def timeseries(title, description, targets, unit="short", stack=False, width=12, height=8, overrides=(), minimum=0, empty="No data", step="2m"):
    """Lines, or a stack of areas; `empty` is shown where there is no series. `step` is the shortest of a panel of recorded series."""
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 60 if stack else 10,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
    }
    # A recorded series has a point every two minutes: shorter steps would cost time and show nothing more.
    recorded = {} if any(re.search(r"(?<!:)\bkeepalive_auditor_|process_|scrape_", t["expr"]) for t in targets) else {"interval": step}
    return _panel(
        "timeseries",
        title,
        description,
        targets,
        unit,
        width,
        height,
        defaults={"min": minimum, "custom": custom, "color": {"mode": "palette-classic"}, "noValue": empty},
        overrides=colour_overrides(targets) + list(overrides),
        options={
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        **recorded,
    )


def logarithmic(panel):
    """The panel with a logarithmic axis: one connection that was forgotten for a day does not flatten those of minutes."""
    defaults = panel["fieldConfig"]["defaults"]
    defaults["custom"]["scaleDistribution"] = {"type": "log", "log": 10}
    # a logarithm has no zero
    del defaults["min"]
    return panel


def right_axis(name, unit):
    """An override that draws the series `name` against its own axis."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": "custom.axisPlacement", "value": "right"}, {"id": "unit", "value": unit}],
    }


def table(title, description, columns, keys, units=None, sort=None, width=24, height=10, empty="No such connection"):
    """Instant queries joined on their labels: `columns` is [(heading, expr)], `keys` [(label, heading)] in the order shown."""
    refs = [chr(ord("A") + i) for i in range(len(columns))]
    rename = {label: heading for label, heading in keys}
    rename |= {f"Value #{ref}" if len(columns) > 1 else "Value": heading for ref, (heading, _) in zip(refs, columns)}
    order = {name: i for i, name in enumerate(rename)}
    return _panel(
        "table",
        title,
        description,
        [target(expr, instant=True, form="table") for _, expr in columns],
        "short",
        width,
        height,
        defaults={"noValue": empty},
        overrides=[
            {"matcher": {"id": "byName", "options": heading}, "properties": [{"id": "unit", "value": unit}]}
            for heading, unit in (units or {}).items()
        ],
        transformations=[
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": rename, "indexByName": order}},
        ],
        options={"showHeader": True, "cellHeight": "sm", "sortBy": [{"displayName": sort or columns[0][0], "desc": True}]},
    )


def heatmap(title, description, expr, unit="s", width=12, height=9, empty="No such event"):
    """A Prometheus histogram over time."""
    panel = _panel(
        "heatmap",
        title,
        description,
        [target(expr, "{{le}}", form="heatmap")],
        "short",
        width,
        height,
        defaults={"noValue": empty},
        options={
            "calculate": False,
            "yAxis": {"unit": unit, "axisPlacement": "left"},
            "cellGap": 1,
            "legend": {"show": True},
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5},
            "tooltip": {"mode": "single", "yHistogram": True},
        },
    )
    return panel


def row(title):
    """A heading for the panels that follow it."""
    return {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"w": 24, "h": 1, "x": 0, "y": 0}}


def layout(panels):
    """Numbers the panels and arranges them from left to right, with a new line if the next one does not fit."""
    x = y = line = 0
    for number, panel in enumerate(panels, 1):
        grid = panel["gridPos"]
        if x + grid["w"] > 24:
            x, y, line = 0, y + line, 0
        grid["x"], grid["y"] = x, y
        x, line = x + grid["w"], max(line, grid["h"])
        panel["id"] = number
    return panels


def dashboard(uid, title, description, variables, panels, links, annotations=()):
    """A whole dashboard that Grafana provisions and that users do not edit there."""
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["keepalive-auditor", "networking"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "fiscalYearStartMonth": 0,
        "time": {"from": "now-6h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "refresh": "1m",
        "weekStart": "",
        "templating": {"list": variables},
        "annotations": {"list": list(annotations)},
        "links": links,
        "panels": layout(panels),
    }
