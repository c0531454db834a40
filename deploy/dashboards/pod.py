"""The dashboard Pod: the connections of one pod, before and after a change."""

import panels as p
from queries import (
    CLUSTER,
    DROPPED,
    EXPOSED,
    FLAGGED,
    FLEET,
    JUDGED,
    NO_EVENT,
    NOT_LOCAL,
    OWNERS,
    POD,
    PODS,
    alerts_annotation,
    cluster_variables,
    link,
    linked_agent,
    namespace_variable,
    of_workload,
    to_runbook,
    workload_variable,
)


def pod():
    """The dashboard, in Grafana's JSON model."""

    def gauge(*matchers, metric="keepalive_auditor_connections"):
        return of_workload(metric, 'container=~"$container"', *matchers)

    def of_chosen(vector):
        return f"{vector} and on (cluster, namespace, pod) {OWNERS}"

    def rate(title, description, name):
        """A panel with the rate of a counter of each pod."""
        chosen = of_chosen(f"rate(keepalive_auditor_pod_tcp_{name}_total{{{PODS}}}[$__rate_interval])")
        targets = [p.target(f"sum by (namespace, pod) ({chosen}) > 0", "{{namespace}}/{{pod}}")]
        return p.timeseries(title, description, targets, "cps", width=12, empty=NO_EVENT)

    endpoints = gauge(metric="keepalive_auditor_flagged_connections")
    idle_time = gauge(metric="keepalive_auditor_flagged_wire_idle_seconds_max")
    keepalive_time = f"({of_chosen(f'keepalive_auditor_pod_tcp_keepalive_time_seconds{{{PODS}}}')})"
    ended = of_chosen(f"increase(keepalive_auditor_flagged_connections_ended_total{{{PODS}}}[$__rate_interval])")
    # The paths of the pods' flagged connections; where nothing is flagged, every path.
    of_paths = f"keepalive_auditor_idle_timeout_seconds{{{CLUSTER}}}"
    limit = f"({of_paths} and on (cluster, path) {endpoints} or {of_paths})"
    variables = cluster_variables() + [
        namespace_variable(),
        # One workload, and its pods by name: a query over every pod of a large fleet takes seconds.
        workload_variable(multi=False, every=False),
        p.query_variable(
            "pod",
            "Pod",
            'label_values(namespace_workload_pod:keepalive_auditor_owner:relabel{cluster=~"$cluster", namespace=~"$namespace", workload=~"$workload"}, pod)',
            every=None,
        ),
        p.query_variable(
            "container",
            "Container",
            'label_values(keepalive_auditor_connections{%s}, container)' % PODS,
        ),
    ]

    return p.dashboard(
        POD,
        "Keepalive / Pod",
        "The connections of the pods of one workload (or of one unit, container or namespace outside pods), before and after a change.",
        variables,
        [
            p.row("Now"),
            p.stat(
                "Connections",
                "Established connections of the chosen pods and containers.",
                f"sum({gauge()}) or vector(0)",
                steps=((None, "text"),),
            ),
            p.linked(
                p.stat(
                    "Overdue or unanswered",
                    "Connections that their path has dropped, or probably has, and connections that get no answer.",
                    f"sum({gauge(DROPPED)}) or vector(0)",
                    steps=((None, "green"), (1, "red")),
                ),
                to_runbook("TCPKeepaliveMissingOnIdleConnections"),
            ),
            p.linked(
                p.stat(
                    "Exposed",
                    "Long-lived connections that only their traffic protects.",
                    f"sum({gauge(EXPOSED)}) or vector(0)",
                    steps=((None, "green"), (1, "orange")),
                ),
                to_runbook("TCPKeepaliveCoverageLow"),
            ),
            p.stat(
                "Share protected",
                "The share of long-lived connections across a path that a keepalive or a heartbeat protects.",
                f"1 - (sum({gauge(FLAGGED)}) or 0 * sum({gauge(JUDGED)})) / sum({gauge(JUDGED)})",
                "percentunit",
                ((None, "red"), (0.75, "orange"), (0.95, "green")),
            ),
            p.coloured_by(
                p.stat(
                    "Longest idle time",
                    "The longest idle time of a flagged connection. Red from the shortest idle timeout of the pods' paths on.",
                    f"max({idle_time})",
                    "s",
                ),
                f"min({limit})",
            ),
            p.coloured_by(
                p.linked(
                    p.stat(
                        "tcp_keepalive_time",
                        "The pod's sysctl: how long a socket with keepalive, but without a time of its own, waits before its first probe. Pods do not inherit the node's setting. Orange where it is too long for the shortest idle timeout of the pods' paths.",
                        f"max({keepalive_time})",
                        "s",
                    ),
                    to_runbook("TCPKeepaliveTooLate"),
                ),
                f"min({limit}) * 8 / 9",
                "orange",
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
            linked_agent(
                p.table(
                    "Nodes of the chosen pods",
                    "The nodes that the connections are on, and their agents. The agent's page lists the connections, where its port can be reached.",
                    [("Connections", f"sum by (node, instance) ({gauge()})"), ("Flagged", f"sum by (node, instance) ({gauge(FLAGGED)})")],
                    [("node", "Node"), ("instance", "Agent")],
                    width=12,
                    height=6,
                )
            ),
            p.linked(
                p.timeseries(
                    "Flagged connections that ended",
                    "reset: by an RST of the path or the peer. timed_out: nothing answered. closed: by a program. unknown: nothing proves how; --watch-ends makes it exact.",
                    [p.target(f"sum by (outcome) ({ended}) > 0", "{{outcome}}")],
                    width=12,
                    height=6,
                    empty=NO_EVENT,
                ),
                to_runbook("TCPFlaggedConnectionsLost"),
            ),
            p.row("Before and after a change"),
            p.timeseries(
                "Connections by keepalive state",
                "After a remedy, new connections show on. Existing ones keep the options that they were opened with.",
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
                "One line for each pod. In a rollout old lines end and new ones begin.",
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
            p.row("Idle time and harm"),
            p.logarithmic(
                p.timeseries(
                    "Longest idle time and idle timeouts",
                    "The longest idle time of a flagged connection, and the idle timeout of each path.",
                    [
                        p.target(f"max by (container, direction) ({idle_time})", "{{container}} {{direction}}"),
                        p.target(f"max by (path) (keepalive_auditor_idle_timeout_seconds{{{CLUSTER}}})", "limit of {{path}}"),
                    ],
                    "s",
                    width=12,
                )
            ),
            p.linked(
                rate(
                    "Resets of established connections",
                    "From the pod's own counters. A burst after connections were overdue is the incident.",
                    "established_resets",
                ),
                to_runbook("TCPResetsAfterSilence"),
            ),
            p.linked(
                rate(
                    "Connections given up",
                    "Connections that the kernel closed because segments or keepalive probes found no answer.",
                    "abort_on_timeout",
                ),
                to_runbook("TCPConnectionsBlackholed"),
            ),
            rate(
                "Keepalive probes sent",
                "Probes that the pod's own keepalive timers sent. They appear after a remedy.",
                "keepalive_probes",
            ),
        ],
        [link("Fleet", FLEET)],
        [alerts_annotation()],
    )
