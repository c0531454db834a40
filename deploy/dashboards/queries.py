"""The queries that both dashboards share: verdicts, selectors, variables, annotations, links."""

import panels as p

FLEET, POD = "keepalive-auditor-fleet", "keepalive-auditor-pod"
# Worst first; src/judge/verdict.rs has the list, and tests/deploy compares the two.
FLAGGED_VERDICTS = ["blackholed", "unanswered", "overdue", "exposed"]
PROTECTED_VERDICTS = ["app_protected", "peer_protected", "protected"]


def verdicts(*names):
    return f'verdict=~"{"|".join(names)}"' if len(names) > 1 else f'verdict="{names[0]}"'


FLAGGED = verdicts(*FLAGGED_VERDICTS)
OVERDUE, UNANSWERED, EXPOSED = verdicts("overdue"), verdicts("blackholed", "unanswered"), verdicts("exposed")
# Connections whose path has dropped them, or probably has.
DROPPED, NOT_LOCAL = verdicts("blackholed", "unanswered", "overdue"), 'verdict!="local"'
# Connections that a keepalive could protect: not local, young or undetermined.
JUDGED = verdicts(*FLAGGED_VERDICTS, *PROTECTED_VERDICTS)
CLUSTER, NODE = 'cluster=~"$cluster"', 'cluster=~"$cluster", node=~"$node"'
WORKLOAD = 'cluster=~"$cluster", namespace=~"$namespace", workload=~"$workload"'
PODS = 'cluster=~"$cluster", namespace=~"$namespace", pod=~"$pod"'
OWNERS = f"namespace_workload_pod:keepalive_auditor_owner:relabel{{{WORKLOAD}}}"
NO_EVENT = "No such event"
RUNBOOK = "https://github.com/keepalive-auditor/keepalive-auditor/blob/main/docs/runbook.md"
# The page of the agent at the address that Prometheus scrapes.
TO_AGENT = {"title": "The agent's page", "url": "http://${__data.fields.Agent}/", "targetBlank": True}
TO_POD = {
    "title": "Pod",
    "url": f"/d/{POD}?${{datasource:queryparam}}&${{cluster:queryparam}}&var-namespace=${{__data.fields.Namespace}}&var-workload=${{__data.fields.Workload}}",
}


def connections(*matchers):
    return "namespace_workload:keepalive_auditor_connections:sum{%s}" % ", ".join([WORKLOAD, *matchers])


def flagged(*matchers):
    return "namespace_workload:keepalive_auditor_flagged_connections:sum{%s}" % ", ".join([WORKLOAD, *matchers])


def dropped(*matchers):
    """Connections whose path has dropped them, or probably has: what alerts wait for, and so of the last minute."""
    return "namespace_workload:keepalive_auditor_dropped_connections:sum{%s}" % ", ".join([WORKLOAD, *matchers])


def by_endpoint(*matchers):
    return "namespace_workload_endpoint:keepalive_auditor_flagged_connections:sum{%s}" % ", ".join([WORKLOAD, *matchers])


def of_workload(metric, *matchers):
    """A metric of the chosen pods. Outside pods: of the containers (units, namespaces) with the workload's name."""

    def selector(*more):
        return metric + "{" + ", ".join([CLUSTER, 'namespace=~"$namespace"', *more, *matchers]) + "}"

    inside, outside = selector('pod=~"$pod"'), selector('namespace=""', 'container=~"$workload"')
    return f"({inside} and on (cluster, namespace, pod) {OWNERS} or {outside})"


def share_protected(by=""):
    return f"1 - (sum {by}({connections(FLAGGED)}) or 0 * sum {by}({connections(JUDGED)})) / sum {by}({connections(JUDGED)})"


def to_runbook(alert):
    return f"Runbook: {alert}", f"{RUNBOOK}#{alert.lower()}"


def linked_agent(table):
    """The table, whose column Agent leads to the agent's page."""
    override = {"matcher": {"id": "byName", "options": "Agent"}, "properties": [{"id": "links", "value": [TO_AGENT]}]}
    table["fieldConfig"]["overrides"].append(override)
    return table


def cluster_variables():
    """Data source and cluster. Without a cluster label the list is empty and "All" means the one cluster."""
    return [
        p.datasource_variable(),
        p.query_variable("cluster", "Cluster", "label_values(keepalive_auditor_build_info, cluster)"),
    ]


def namespace_variable():
    return p.query_variable(
        "namespace", "Namespace", "label_values(namespace_workload:keepalive_auditor_connections:sum{%s}, namespace)" % CLUSTER
    )


def workload_variable(**options):
    query = 'label_values(namespace_workload:keepalive_auditor_connections:sum{%s, namespace=~"$namespace"}, workload)' % CLUSTER
    return p.query_variable("workload", "Workload", query, **options)


def alerts_annotation():
    return {
        "name": "Alerts",
        "datasource": p.DATASOURCE,
        "enable": True,
        "iconColor": "red",
        "titleFormat": "{{alertname}}",
        "textFormat": "{{namespace}}/{{workload}}",
        "expr": 'ALERTS{alertname=~"TCP.*", alertstate="firing", cluster=~"$cluster", namespace=~"$namespace"}',
        "step": "60s",
    }


def link(title, uid):
    return {
        "title": title,
        "type": "link",
        "url": f"/d/{uid}",
        "icon": "dashboard",
        "keepTime": True,
        "includeVars": True,
        "targetBlank": False,
    }
