"""The dashboard Pod: the connections of one pod, before and after a change."""

import panels as p
from queries import (
    EXPOSED,
    FLAGGED,
    FLEET,
    FORGOTTEN,
    JUDGED,
    NOT_LOCAL,
    OWNERS,
    POD,
    alerts_annotation,
    connections,
    flagged,
    link,
    of_workload,
    workload_variables,
)


def pod():
    """The dashboard, in Grafana's JSON model."""

    def gauge(*matchers, metric="keepalive_auditor_connections"):
        return of_workload(metric, 'pod=~"$pod"', 'container=~"$container"', *matchers)

    def of_pod(metric):
        return f'({metric}{{cluster=~"$cluster", namespace=~"$namespace", pod=~"$pod"}} and on (cluster, namespace, pod) {OWNERS})'

    def rate(name):
        counter = f'{name}{{cluster=~"$cluster", namespace=~"$namespace", pod=~"$pod"}}'
        return f"sum by (namespace, pod) (rate({counter}[$__rate_interval]) and on (cluster, namespace, pod) {OWNERS})"

    endpoints = gauge(metric="keepalive_auditor_flagged_connections")
    silence = gauge(metric="keepalive_auditor_flagged_wire_idle_seconds_max")
    keepalive_time = of_pod("keepalive_auditor_pod_tcp_keepalive_time_seconds")
    variables = workload_variables() + [
        p.query_variable(
            "pod",
            "Pod",
            'label_values(namespace_workload_pod:keepalive_auditor_owner:relabel{cluster=~"$cluster", namespace=~"$namespace", workload=~"$workload"}, pod)',
        ),
        p.query_variable(
            "container",
            "Container",
            'label_values(keepalive_auditor_connections{cluster=~"$cluster", namespace=~"$namespace", pod=~"$pod"}, container)',
        ),
    ]

    return p.dashboard(
        POD,
        "Keepalive / Pod",
        "The connections of one pod (or of one unit, container or namespace outside pods), and what changed.",
        variables,
        [
            p.row("Now"),
            p.stat(
                "Connections",
                "Established connections of the chosen pods and containers.",
                f"sum({gauge()}) or vector(0)",
                steps=((None, "text"),),
            ),
            p.stat(
                "Overdue or blackholed",
                "Connections that their path has probably forgotten, or certainly.",
                f"sum({gauge(FORGOTTEN)}) or vector(0)",
                steps=((None, "green"), (1, "red")),
            ),
            p.stat(
                "Exposed",
                "Long-lived connections that only their traffic protects.",
                f"sum({gauge(EXPOSED)}) or vector(0)",
                steps=((None, "green"), (1, "orange")),
            ),
            p.stat(
                "Share protected",
                "Of the long-lived connections that cross a path: those that a keepalive of either end protects in time.",
                f"1 - (sum({gauge(FLAGGED)}) or 0 * sum({gauge(JUDGED)})) / sum({gauge(JUDGED)})",
                "percentunit",
                ((None, "red"), (0.75, "orange"), (0.95, "green")),
            ),
            p.stat(
                "Longest silence",
                "The longest silence of a flagged connection.",
                f"max({silence})",
                "s",
                ((None, "green"), (240, "orange"), (350, "red")),
            ),
            p.stat(
                "tcp_keepalive_time",
                "The pod's sysctl: what a socket with keepalive and without a time of its own waits before its first probe. The node's setting does not reach pods.",
                f"max({keepalive_time})",
                "s",
                ((None, "green"), (300, "orange")),
            ),
            p.table(
                "Containers and directions",
                "Every established connection, by container, direction, keepalive and verdict.",
                [("Connections", f"sum by (pod, container, direction, keepalive, verdict) ({gauge()})")],
                [
                    ("pod", "Pod"),
                    ("container", "Container"),
                    ("direction", "Direction"),
                    ("keepalive", "Keepalive"),
                    ("verdict", "Verdict"),
                ],
                width=12,
            ),
            p.table(
                "Endpoints of flagged connections",
                "The listening end of each flagged connection: remote for outbound, local for inbound ones.",
                [("Connections", f"sum by (container, direction, endpoint, path, verdict) ({endpoints})")],
                [
                    ("container", "Container"),
                    ("direction", "Direction"),
                    ("endpoint", "Endpoint"),
                    ("path", "Path"),
                    ("verdict", "Verdict"),
                ],
                width=12,
            ),
            p.row("Before and after a change"),
            p.timeseries(
                "Connections by keepalive state",
                "After a remedy, new connections show on; existing ones keep what they were opened with.",
                [p.target(f"sum by (keepalive) ({gauge(NOT_LOCAL)})", "{{keepalive}}")],
                stack=True,
            ),
            p.timeseries(
                "Connections by verdict",
                "After a remedy, exposed and overdue turn into protected.",
                [p.target(f"sum by (verdict) ({gauge()})", "{{verdict}}")],
                stack=True,
            ),
            p.timeseries(
                "Pods of the workload",
                "One line a pod: a rollout is where old ones end and new ones begin.",
                [
                    p.target(f"count by (namespace, workload) ({OWNERS})", "{{namespace}}/{{workload}}"),
                    p.target(f"sum by (pod) ({gauge(FLAGGED)})", "{{pod}}, flagged"),
                ],
                width=12,
            ),
            p.timeseries(
                "tcp_keepalive_time",
                "The pod's sysctl over time.",
                [p.target(f"max by (namespace, pod) ({keepalive_time})", "{{namespace}}/{{pod}}")],
                "s",
                width=12,
            ),
            p.row("Silence and harm"),
            p.timeseries(
                "Longest silence and idle timeouts",
                "The longest silence of a flagged connection against the idle timeout of the paths.",
                [
                    p.target(f"max by (container, direction) ({silence})", "{{container}} {{direction}}"),
                    p.target('max by (path) (keepalive_auditor_idle_timeout_seconds{cluster=~"$cluster"})', "limit of {{path}}"),
                ],
                "s",
                width=12,
            ),
            p.timeseries(
                "Resets of established connections",
                "From the pod's own counters; a burst where connections were overdue is the incident.",
                [p.target(rate("keepalive_auditor_pod_tcp_established_resets_total"), "{{namespace}}/{{pod}}")],
                "cps",
                width=12,
            ),
            p.timeseries(
                "Connections given up",
                "Connections that the kernel aborted because nothing came back.",
                [p.target(rate("keepalive_auditor_pod_tcp_abort_on_timeout_total"), "{{namespace}}/{{pod}}")],
                "cps",
                width=12,
            ),
            p.timeseries(
                "Keepalive probes sent",
                "Probes of this pod's own keepalive timers: after a remedy they appear.",
                [p.target(rate("keepalive_auditor_pod_tcp_keepalive_probes_total"), "{{namespace}}/{{pod}}")],
                "cps",
                width=12,
            ),
        ],
        [link("Fleet", FLEET)],
        [alerts_annotation()],
    )
