"""The dashboard Fleet: who is at risk, where to, and how the agents do."""

import panels as p
from queries import (
    BLACKHOLED,
    EXPOSED,
    FLEET,
    FORGOTTEN,
    NOT_LOCAL,
    OVERDUE,
    POD,
    TO_POD,
    WORKLOAD,
    alerts_annotation,
    connections,
    flagged,
    link,
    of_workload,
    share_protected,
    workload_variables,
)


def fleet():
    """The dashboard, in Grafana's JSON model."""
    red = ((None, "green"), (1, "red"))
    at_risk = p.table(
        "Workloads without effective keepalive",
        "Workloads with connections that no effective keepalive protects, worst first. Outside pods the workload is a systemd unit, a container or a network namespace.",
        [
            ("Overdue", f"sum by (namespace, workload, workload_type) ({flagged(OVERDUE)})"),
            ("Blackholed", f"sum by (namespace, workload, workload_type) ({flagged(BLACKHOLED)})"),
            ("Exposed", f"sum by (namespace, workload, workload_type) ({flagged(EXPOSED)})"),
            (
                "Longest silence",
                "max by (namespace, workload, workload_type) (namespace_workload:keepalive_auditor_flagged_wire_idle_seconds:max{%s})"
                % WORKLOAD,
            ),
        ],
        [("namespace", "Namespace"), ("workload", "Workload"), ("workload_type", "Kind")],
        {"Longest silence": "s"},
        "Overdue",
    )
    at_risk["fieldConfig"]["overrides"].append(
        {"matcher": {"id": "byName", "options": "Workload"}, "properties": [{"id": "links", "value": [TO_POD]}]}
    )
    return p.dashboard(
        FLEET,
        "Keepalive / Fleet",
        "Which workloads hold long-lived TCP connections without an effective keepalive.",
        workload_variables(),
        [
            p.row("At risk now"),
            p.stat(
                "Overdue",
                "Connections silent for longer than their path's idle timeout, with no keepalive: the next request on each meets a reset or silence.",
                f"sum({flagged(OVERDUE)}) or vector(0)",
                steps=red,
            ),
            p.stat(
                "Blackholed",
                "Connections that were overdue, then sent, and get no acknowledgement.",
                f"sum({flagged(BLACKHOLED)}) or vector(0)",
                steps=red,
            ),
            p.stat(
                "Exposed",
                "Long-lived connections that only their traffic protects: one quiet spell and they are overdue.",
                f"sum({flagged(EXPOSED)}) or vector(0)",
                steps=((None, "green"), (1, "orange")),
            ),
            p.stat(
                "Share protected",
                "Of the long-lived connections that cross a path: those that a keepalive of either end protects in time.",
                share_protected(),
                "percentunit",
                ((None, "red"), (0.75, "orange"), (0.95, "green")),
            ),
            p.stat(
                "Workloads at risk",
                "Workloads with at least one flagged connection.",
                f"count(sum by (namespace, workload) ({flagged()}) > 0) or vector(0)",
                steps=((None, "green"), (1, "orange")),
            ),
            p.stat(
                "Resets after silence, 10 min",
                "Established connections reset within 10 minutes in pods that had overdue connections in the last half hour.",
                "sum(namespace_workload:keepalive_auditor_resets_after_silence:increase10m{%s}) or vector(0)" % WORKLOAD,
                steps=red,
            ),
            at_risk,
            p.row("Trend"),
            p.timeseries(
                "Flagged connections by verdict",
                "Exposed, overdue and blackholed connections over time.",
                [p.target(f"sum by (verdict) ({flagged()})", "{{verdict}}")],
                stack=True,
            ),
            p.timeseries(
                "Share protected by namespace",
                "The share of each namespace's long-lived connections that a keepalive protects; the ten lowest.",
                [
                    p.target(
                        'bottomk(10, 1 - namespace:keepalive_auditor_unprotected_connections:ratio{cluster=~"$cluster", namespace=~"$namespace"})',
                        "{{namespace}}",
                    )
                ],
                "percentunit",
            ),
            p.timeseries(
                "Flagged connections by namespace",
                "The ten namespaces with the most flagged connections; without a name: outside pods.",
                [p.target(f"topk(10, sum by (namespace) ({flagged()}))", "{{namespace}}")],
            ),
            p.timeseries(
                "Flagged connections by workload",
                "The ten workloads with the most flagged connections.",
                [p.target(f"topk(10, sum by (namespace, workload) ({flagged()}))", "{{namespace}}/{{workload}}")],
            ),
            p.row("Where to"),
            p.table(
                "Top endpoints",
                "Service endpoints of flagged connections: the listening end, remote for outbound and local for inbound connections.",
                [("Connections", f'topk(25, sum by (endpoint, direction, path) ({of_workload("keepalive_auditor_flagged_connections")}))')],
                [("endpoint", "Endpoint"), ("direction", "Direction"), ("path", "Path")],
                width=12,
            ),
            p.timeseries(
                "Flagged connections by path",
                "The configured path that the connections cross.",
                [p.target(f"sum by (path) ({flagged()})", "{{path}}")],
                stack=True,
                width=7,
                height=10,
            ),
            p.table(
                "Idle timeouts",
                "What each path is configured to tolerate.",
                [("Idle timeout", 'max by (path) (keepalive_auditor_idle_timeout_seconds{cluster=~"$cluster"})')],
                [("path", "Path")],
                {"Idle timeout": "s"},
                width=5,
            ),
            p.row("Keepalive"),
            p.timeseries(
                "Connections by keepalive state",
                "on: probes in time. late: probes after the idle timeout. off: no timer. unknown: another timer hides it.",
                [p.target(f"sum by (keepalive) ({connections(NOT_LOCAL)})", "{{keepalive}}")],
                stack=True,
            ),
            p.timeseries(
                "Connections by verdict",
                "Every established connection of the chosen workloads.",
                [p.target(f"sum by (verdict) ({connections()})", "{{verdict}}")],
                stack=True,
            ),
            p.row("Silence against the limit"),
            p.heatmap(
                "Silences that ended, without effective keepalive",
                "How long long-lived connections with keepalive off or late were silent before traffic resumed or they closed, all namespaces. What lies above the path's idle timeout would have met a forgotten flow.",
                'sum by (le) (increase(keepalive_auditor_silence_seconds_bucket{cluster=~"$cluster", keepalive=~"off|late"}[$__rate_interval]))',
            ),
            p.timeseries(
                "Longest silence and idle timeouts",
                "The longest silence of any flagged connection right now, by direction, against the idle timeout of each path.",
                [
                    p.target(
                        "max by (direction) (namespace_workload:keepalive_auditor_flagged_wire_idle_seconds:max{%s})" % WORKLOAD,
                        "{{direction}}",
                    ),
                    p.target('max by (path) (keepalive_auditor_idle_timeout_seconds{cluster=~"$cluster"})', "limit of {{path}}"),
                ],
                "s",
                height=9,
            ),
            p.row("Harm"),
            p.timeseries(
                "Resets beside overdue connections",
                "Resets of established connections next to the connections that were overdue: an incident is a fall of one and a rise of the other.",
                [
                    p.target(f"sum({flagged(FORGOTTEN)}) or vector(0)", "overdue or blackholed"),
                    p.target(
                        'sum(rate(keepalive_auditor_pod_tcp_established_resets_total{cluster=~"$cluster", namespace=~"$namespace"}[$__rate_interval])) or vector(0)',
                        "resets/s",
                    ),
                ],
                overrides=[p.right_axis("resets/s", "cps")],
            ),
            p.timeseries(
                "Connections given up",
                "Connections that the kernel aborted because nothing came back: retransmissions or keepalive probes without an answer.",
                [
                    p.target(
                        'sum by (namespace) (rate(keepalive_auditor_pod_tcp_abort_on_timeout_total{cluster=~"$cluster", namespace=~"$namespace"}[$__rate_interval]))',
                        "{{namespace}}",
                    )
                ],
                "cps",
            ),
            p.row("Agents"),
            p.stat(
                "Agents up",
                "Agents that Prometheus reaches.",
                'sum(up{job="keepalive-auditor", cluster=~"$cluster"})',
                steps=((None, "red"), (1, "green")),
            ),
            p.stat(
                "Agents down",
                "Agents that Prometheus knows and does not reach.",
                'count(up{job="keepalive-auditor", cluster=~"$cluster"} == 0) or vector(0)',
                steps=red,
            ),
            p.stat(
                "Oldest sweep",
                "Time since the last sweep of the agent that is furthest behind.",
                'time() - min(keepalive_auditor_last_sweep_timestamp_seconds{cluster=~"$cluster"})',
                "s",
                ((None, "green"), (120, "orange"), (300, "red")),
            ),
            p.stat(
                "Connections watched",
                "Connections that the agents remember between sweeps.",
                'sum(keepalive_auditor_tracked_connections{cluster=~"$cluster"})',
            ),
            p.stat(
                "Series left out",
                "Series over the agents' --max-series.",
                'sum(keepalive_auditor_series_dropped{cluster=~"$cluster"}) or vector(0)',
                steps=((None, "green"), (1, "orange")),
            ),
            p.stat(
                "Versions",
                "Different versions of the agent that are running.",
                'count(count by (version) (keepalive_auditor_build_info{cluster=~"$cluster"}))',
                steps=((None, "green"), (2, "orange")),
            ),
            p.timeseries(
                "Network namespaces by result",
                "dumped: read. looked_up: the same connections as before, read one by one. skipped: unchanged since the last look, by its counters. empty: no established connection, so not read. vanished: gone during the sweep. failed: not readable.",
                [p.target('sum by (result) (keepalive_auditor_namespaces{cluster=~"$cluster"})', "{{result}}")],
                stack=True,
                width=8,
            ),
            p.timeseries(
                "Failures and interrupted dumps",
                "Namespaces that could not be read, by reason, and dumps during which the kernel's table changed.",
                [
                    p.target(
                        'sum by (reason) (rate(keepalive_auditor_namespace_failures_total{cluster=~"$cluster"}[$__rate_interval]))',
                        "{{reason}}",
                    ),
                    p.target(
                        'sum(rate(keepalive_auditor_dumps_interrupted_total{cluster=~"$cluster"}[$__rate_interval]))', "interrupted dumps"
                    ),
                ],
                "cps",
                width=8,
            ),
            p.timeseries(
                "Duration of a sweep",
                "Half of all sweeps, and 99 of 100, take less than this.",
                [
                    p.target(
                        f'histogram_quantile({q}, sum by (le) (rate(keepalive_auditor_sweep_duration_seconds_bucket{{cluster=~"$cluster"}}[$__rate_interval])))',
                        f"p{round(q * 100)}",
                    )
                    for q in (0.5, 0.99)
                ],
                "s",
                width=8,
            ),
            p.timeseries(
                "CPU of an agent",
                "Processor time of the busiest agents.",
                [
                    p.target(
                        'topk(5, rate(process_cpu_seconds_total{job="keepalive-auditor", cluster=~"$cluster"}[$__rate_interval]))',
                        "{{node}} {{instance}}",
                    )
                ],
                "percentunit",
                width=8,
            ),
            p.timeseries(
                "Memory of an agent",
                "Resident memory of the largest agents.",
                [p.target('topk(5, process_resident_memory_bytes{job="keepalive-auditor", cluster=~"$cluster"})', "{{node}} {{instance}}")],
                "bytes",
                width=8,
            ),
            p.timeseries(
                "Samples of a scrape",
                "Series that the agents expose, the largest.",
                [p.target('topk(5, scrape_samples_scraped{job="keepalive-auditor", cluster=~"$cluster"})', "{{node}} {{instance}}")],
                width=8,
            ),
        ],
        [link("Pod", POD)],
        [alerts_annotation()],
    )
