"""The dashboard Fleet: the workloads at risk, the endpoints of their connections, and the state of the agents."""

import panels as p
from queries import (
    CLUSTER,
    EXPOSED,
    FLAGGED_VERDICTS,
    FLEET,
    NO_EVENT,
    NODE,
    OVERDUE,
    POD,
    RUNBOOK,
    TO_POD,
    UNANSWERED,
    WORKLOAD,
    alerts_annotation,
    by_endpoint,
    cluster_variables,
    connections,
    dropped,
    flagged,
    link,
    linked_agent,
    namespace_variable,
    share_protected,
    to_runbook,
    verdicts,
    workload_variable,
)

RED, ORANGE = ((None, "green"), (1, "red")), ((None, "green"), (1, "orange"))


def recorded(name):
    return "%s{%s}" % (name, WORKLOAD)


def of_namespace(name):
    return '%s{cluster=~"$cluster", namespace=~"$namespace"}' % name


def at_risk():
    """The first rows: numbers, and the table of workloads."""
    columns = [("Overdue", OVERDUE), ("Unanswered", UNANSWERED), ("Exposed", EXPOSED)]
    table = p.table(
        "Workloads without effective keepalive",
        "Workloads with flagged connections, worst first. Outside pods the workload is a systemd unit, a container, a program or a network namespace.",
        [(heading, f"sum by (namespace, workload, workload_type) ({flagged(verdict)})") for heading, verdict in columns]
        + [
            (
                "Longest idle time",
                f"max by (namespace, workload, workload_type) ({recorded('namespace_workload:keepalive_auditor_flagged_wire_idle_seconds:max')})",
            )
        ],
        [("namespace", "Namespace"), ("workload", "Workload"), ("workload_type", "Kind")],
        {"Longest idle time": "s"},
        "Overdue",
    )
    table["fieldConfig"]["overrides"].append(
        {"matcher": {"id": "byName", "options": "Workload"}, "properties": [{"id": "links", "value": [TO_POD]}]}
    )
    return [
        p.row("At risk now"),
        p.linked(
            p.stat(
                "Overdue",
                "Connections that were idle for longer than their path's idle timeout, and that nothing refreshed. The next request on each probably fails.",
                f"sum({dropped(OVERDUE)}) or vector(0)",
                steps=RED,
            ),
            to_runbook("TCPKeepaliveMissingOnIdleConnections"),
        ),
        p.linked(
            p.stat(
                "Unanswered",
                "Connections that send and get no answer (verdicts unanswered and blackholed). The path or the peer is gone.",
                f"sum({dropped(UNANSWERED)}) or vector(0)",
                steps=RED,
            ),
            to_runbook("TCPConnectionsUnanswered"),
        ),
        p.linked(
            p.stat(
                "Exposed",
                "Long-lived connections that only their traffic protects. They are overdue after one idle spell.",
                f"sum({flagged(EXPOSED)}) or vector(0)",
                steps=ORANGE,
            ),
            to_runbook("TCPKeepaliveCoverageLow"),
        ),
        p.linked(
            p.stat(
                "Share protected",
                "The share of long-lived connections across a path that a keepalive or a heartbeat protects.",
                share_protected(),
                "percentunit",
                ((None, "red"), (0.75, "orange"), (0.95, "green")),
            ),
            to_runbook("TCPKeepaliveCoverageLow"),
        ),
        p.stat(
            "Workloads at risk",
            "Workloads with at least one flagged connection.",
            f"count(sum by (namespace, workload) ({flagged()}) > 0) or vector(0)",
            steps=ORANGE,
        ),
        p.linked(
            p.stat(
                "Resets after idle time, 10 min",
                "Established connections that were reset within 10 minutes, in pods that had overdue connections in the last half hour.",
                f"sum({recorded('namespace_workload:keepalive_auditor_resets_after_silence:increase10m')}) or vector(0)",
                steps=RED,
            ),
            to_runbook("TCPResetsAfterSilence"),
        ),
        table,
    ]


def trend():
    return [
        p.row("Trend"),
        p.timeseries(
            "Flagged connections by verdict",
            "Flagged connections over time.",
            [p.target(f"sum by (verdict) ({flagged()})", "{{verdict}}")],
            stack=True,
            empty="No flagged connection",
        ),
        p.timeseries(
            "Share protected by namespace",
            "The share of each namespace's long-lived connections that is protected; the ten lowest.",
            [
                p.target(
                    f"bottomk(10, 1 - {of_namespace('namespace:keepalive_auditor_unprotected_connections:ratio')})",
                    "{{namespace}}",
                )
            ],
            "percentunit",
        ),
        p.timeseries(
            "Flagged connections by namespace",
            "The ten namespaces with the most flagged connections. The one without a name is outside pods.",
            [p.target(f"topk(10, sum by (namespace) ({flagged()}))", "{{namespace}}")],
            empty="No flagged connection",
        ),
        p.timeseries(
            "Flagged connections by workload",
            "The ten workloads with the most flagged connections.",
            [p.target(f"topk(10, sum by (namespace, workload) ({flagged()}))", "{{namespace}}/{{workload}}")],
            empty="No flagged connection",
            step="5m",
        ),
    ]


def where_to():
    return [
        p.row("Where to"),
        p.table(
            "Top endpoints",
            "The listening end of flagged connections: remote for outbound ones, local for inbound ones.",
            [("Connections", f"topk(25, sum by (endpoint, direction, path) ({by_endpoint()}))")],
            [("endpoint", "Endpoint"), ("direction", "Direction"), ("path", "Path")],
            width=14,
        ),
        p.timeseries(
            "Flagged connections by path",
            "The configured path that the connections cross.",
            [p.target(f"sum by (path) ({flagged()})", "{{path}}")],
            stack=True,
            width=10,
            height=10,
            empty="No flagged connection",
        ),
        p.table(
            "Paths",
            "The idle timeout of each path, where it comes from, what refreshes it, and what was measured: the longest idle time that was survived and the shortest that broke. On a path that payload refreshes, TCP keepalive protects nothing.",
            [
                (
                    heading,
                    "%s by (path, refreshed_by, source) (%s{%s} * on (cluster, instance, path) group_right ()"
                    " keepalive_auditor_path_info{%s})" % (function, metric, CLUSTER, CLUSTER),
                )
                for heading, function, metric in (
                    ("Idle timeout", "max", "keepalive_auditor_idle_timeout_seconds"),
                    ("Survived", "max", "keepalive_auditor_path_idle_survived_seconds"),
                    ("Broken", "min", "keepalive_auditor_path_idle_broken_seconds"),
                )
            ],
            [("path", "Path"), ("refreshed_by", "Refreshed by"), ("source", "Source")],
            {"Idle timeout": "s", "Survived": "s", "Broken": "s"},
            width=24,
            height=7,
        ),
    ]


def keepalive():
    return [
        p.row("Keepalive"),
        p.timeseries(
            "Connections by keepalive state",
            "on: probes in time. late: probes after the idle timeout. off: no timer. unknown: another timer hides it.",
            [p.target(f"sum by (keepalive) ({connections()})", "{{keepalive}}")],
            stack=True,
        ),
        p.timeseries(
            "Connections by verdict",
            "Every established connection of the chosen workloads, local ones excepted.",
            [p.target(f"sum by (verdict) ({connections()})", "{{verdict}}")],
            stack=True,
        ),
        p.row("Idle time against the limit"),
        p.heatmap(
            "Idle times that ended, without effective keepalive",
            "How long connections with keepalive off or late were idle before traffic resumed or they closed, all namespaces. A path drops what lies above its idle timeout.",
            'sum by (le) (increase(keepalive_auditor_silence_seconds_bucket{cluster=~"$cluster", node=~"$node", keepalive=~"off|late"}[$__rate_interval]))',
        ),
        p.logarithmic(
            p.timeseries(
                "Longest idle time and idle timeouts",
                "The longest idle time of a flagged connection, by direction, and the idle timeout of each path.",
                [
                    p.target(
                        f"max by (direction) ({recorded('namespace_workload:keepalive_auditor_flagged_wire_idle_seconds:max')})",
                        "{{direction}}",
                    ),
                    p.target("max by (path) (keepalive_auditor_idle_timeout_seconds{%s})" % CLUSTER, "limit of {{path}}"),
                ],
                "s",
                height=9,
            )
        ),
    ]


def harm():
    return [
        p.row("Harm"),
        p.linked(
            p.timeseries(
                "Resets beside overdue connections",
                "Resets of established connections, and connections that their path dropped. In an incident one falls and the other rises.",
                [
                    p.target(f"sum({dropped()}) or vector(0)", "overdue or unanswered"),
                    p.target(
                        "sum(%s) or vector(0)" % of_namespace("namespace:keepalive_auditor_pod_tcp_established_resets:rate10m"),
                        "resets/s",
                    ),
                ],
                overrides=[p.right_axis("resets/s", "cps")],
            ),
            to_runbook("TCPResetsAfterSilence"),
        ),
        p.linked(
            p.timeseries(
                "Connections given up",
                "Connections that the kernel closed because segments or keepalive probes found no answer.",
                [
                    p.target(
                        "sum by (namespace) (%s) > 0" % of_namespace("namespace:keepalive_auditor_pod_tcp_abort_on_timeout:rate10m"),
                        "{{namespace}}",
                    )
                ],
                "cps",
                empty=NO_EVENT,
            ),
            to_runbook("TCPConnectionsBlackholed"),
        ),
        p.linked(
            p.timeseries(
                "Flagged connections that ended",
                "reset: by an RST of the path or the peer. timed_out: nothing answered. closed: by a program. unknown: nothing proves how; --watch-ends makes it exact. Of the chosen nodes.",
                [
                    p.target(
                        "sum by (outcome) (increase(keepalive_auditor_node_flagged_connections_ended_total{%s}[$__rate_interval])) > 0"
                        % NODE,
                        "{{outcome}}",
                    )
                ],
                empty=NO_EVENT,
            ),
            to_runbook("TCPFlaggedConnectionsLost"),
        ),
        p.linked(
            p.timeseries(
                "Flagged connections lost, by workload",
                "The ten workloads that lost the most flagged connections to resets and timeouts, over ten minutes.",
                [
                    p.target(
                        "topk(10, sum by (namespace, workload) (%s))"
                        % recorded("namespace_workload:keepalive_auditor_flagged_connections_lost:increase10m"),
                        "{{namespace}}/{{workload}}",
                    )
                ],
                empty=NO_EVENT,
            ),
            to_runbook("TCPFlaggedConnectionsLost"),
        ),
        p.timeseries(
            "Half-closed connections",
            "Sockets that wait for one side to close. close_wait: the peer has closed, the program has not. They are counted, not judged; growth is a leak in the program.",
            [
                p.target(
                    'topk(10, sum by (namespace, state) (keepalive_auditor_half_closed_connections{cluster=~"$cluster", namespace=~"$namespace"}))',
                    "{{namespace}} {{state}}",
                )
            ],
            width=24,
            empty="No half-closed connection",
        ),
    ]


def nodes():
    of_node = "keepalive_auditor_node_connections{%s, %s}"
    return [
        p.row("Nodes"),
        p.linked(
            linked_agent(
                p.table(
                    "Nodes with flagged connections",
                    "The 25 nodes with the most flagged connections. The agent's page lists them, where its port can be reached.",
                    [("Connections", f"topk(25, sum by (node, instance, verdict) ({of_node % (NODE, verdicts(*FLAGGED_VERDICTS))}) > 0)")],
                    [("node", "Node"), ("instance", "Agent"), ("verdict", "Verdict")],
                    height=8,
                    width=8,
                )
            ),
            ("Where to run an audit", RUNBOOK),
        ),
        p.timeseries(
            "Connections of the nodes by verdict",
            "Every established connection of the chosen nodes, in pods or not.",
            [p.target(f"sum by (verdict) (keepalive_auditor_node_connections{{{NODE}}})", "{{verdict}}")],
            stack=True,
            width=8,
        ),
        p.timeseries(
            "Flagged connections by node",
            "The ten nodes with the most flagged connections.",
            [p.target(f"topk(10, sum by (node) ({of_node % (NODE, verdicts(*FLAGGED_VERDICTS))}))", "{{node}}")],
            width=8,
        ),
    ]


def agents():
    job = f'job="keepalive-auditor", {NODE}'
    return [
        p.row("Agents"),
        p.stat("Agents up", "Agents that Prometheus reaches.", "sum(up{%s})" % job, steps=((None, "red"), (1, "green"))),
        p.linked(
            p.stat("Agents down", "Agents that Prometheus knows and does not reach.", "count(up{%s} == 0) or vector(0)" % job, steps=RED),
            to_runbook("KeepaliveAuditorDown"),
        ),
        p.stat(
            "Oldest sweep",
            "Time since the last sweep of the agent that is furthest behind.",
            "time() - min(keepalive_auditor_last_sweep_timestamp_seconds{%s})" % NODE,
            "s",
            ((None, "green"), (120, "orange"), (300, "red")),
        ),
        p.stat(
            "Connections watched",
            "Connections that the agents keep in memory.",
            "sum(keepalive_auditor_tracked_connections{%s})" % NODE,
        ),
        p.stat(
            "Series left out",
            "Series over the agents' --max-series.",
            "sum(keepalive_auditor_series_dropped{%s}) or vector(0)" % NODE,
            steps=ORANGE,
        ),
        p.stat(
            "Versions",
            "Different versions of the agent that are running.",
            "count(count by (version) (keepalive_auditor_build_info{%s}))" % NODE,
            steps=((None, "green"), (2, "orange")),
        ),
        p.timeseries(
            "Network namespaces by result",
            "dumped: read. looked_up: the known connections were read one by one. skipped: its counters did not change. empty: no connection. vanished: gone during the sweep. failed: not readable.",
            [p.target("sum by (result) (keepalive_auditor_namespaces{%s})" % NODE, "{{result}}")],
            stack=True,
            width=8,
        ),
        p.timeseries(
            "Failures and interrupted dumps",
            "Namespaces that could not be read, by reason, and dumps during which the kernel's table changed.",
            [
                p.target(
                    "sum by (reason) (rate(keepalive_auditor_namespace_failures_total{%s}[$__rate_interval])) > 0" % NODE, "{{reason}}"
                ),
                p.target("sum(rate(keepalive_auditor_dumps_interrupted_total{%s}[$__rate_interval])) > 0" % NODE, "interrupted dumps"),
            ],
            "cps",
            width=8,
            empty=NO_EVENT,
        ),
        p.timeseries(
            "Duration of a sweep",
            "Half of all sweeps, and 99 of 100, take less than this.",
            [
                p.target(
                    "histogram_quantile(%s, sum by (le) (rate(keepalive_auditor_sweep_duration_seconds_bucket{%s}[$__rate_interval])))"
                    % (quantile, NODE),
                    f"p{round(quantile * 100)}",
                )
                for quantile in (0.5, 0.99)
            ],
            "s",
            width=8,
        ),
        p.timeseries(
            "CPU of an agent",
            "Processor time of the busiest agents.",
            [p.target("topk(5, rate(process_cpu_seconds_total{%s}[$__rate_interval]))" % job, "{{node}} {{instance}}")],
            "percentunit",
            width=8,
        ),
        p.timeseries(
            "Memory of an agent",
            "Resident memory of the largest agents.",
            [p.target("topk(5, process_resident_memory_bytes{%s})" % job, "{{node}} {{instance}}")],
            "bytes",
            width=8,
        ),
        p.timeseries(
            "Samples of a scrape",
            "Series that the agents expose, the largest.",
            [p.target("topk(5, scrape_samples_scraped{%s})" % job, "{{node}} {{instance}}")],
            width=8,
        ),
    ]


def fleet():
    """The dashboard, in Grafana's JSON model."""
    node = p.query_variable("node", "Node", "label_values(keepalive_auditor_build_info{%s}, node)" % CLUSTER)
    return p.dashboard(
        FLEET,
        "Keepalive / Fleet",
        "Which workloads hold long-lived TCP connections without an effective keepalive. The variable Node applies to the rows Nodes and Agents.",
        [*cluster_variables(), namespace_variable(), workload_variable(), node],
        [*at_risk(), *trend(), *where_to(), *keepalive(), *harm(), *nodes(), *agents()],
        [link("Pod", POD)],
        [alerts_annotation()],
    )
