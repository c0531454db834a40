"""What both dashboards say about connections: selectors, variables, annotations, links."""

import panels as p

FLEET, POD = "keepalive-auditor-fleet", "keepalive-auditor-pod"
FLAGGED = 'verdict=~"exposed|overdue|blackholed"'
OVERDUE, BLACKHOLED, EXPOSED = 'verdict="overdue"', 'verdict="blackholed"', 'verdict="exposed"'
FORGOTTEN, NOT_LOCAL = 'verdict=~"overdue|blackholed"', 'verdict!="local"'
# Connections that a keepalive could protect: neither local nor young nor undetermined.
JUDGED = 'verdict=~"protected|peer_protected|exposed|overdue|blackholed"'
WORKLOAD = 'cluster=~"$cluster", namespace=~"$namespace", workload=~"$workload"'
OWNERS = f"namespace_workload_pod:keepalive_auditor_owner:relabel{{{WORKLOAD}}}"
TO_POD = {
    "title": "Pod",
    "url": f"/d/{POD}?${{datasource:queryparam}}&${{cluster:queryparam}}&var-namespace=${{__data.fields.Namespace}}&var-workload=${{__data.fields.Workload}}",
}


def connections(*matchers):
    return "namespace_workload:keepalive_auditor_connections:sum{%s}" % ", ".join([WORKLOAD, *matchers])


def flagged(*matchers):
    return "namespace_workload:keepalive_auditor_flagged_connections:sum{%s}" % ", ".join([WORKLOAD, *matchers])


def of_workload(metric, *matchers):
    """A metric of the agent, narrowed to the pods of the chosen workloads and, outside pods, to the containers of that name."""

    def selector(*more):
        return metric + "{" + ", ".join(['cluster=~"$cluster"', 'namespace=~"$namespace"', *more, *matchers]) + "}"

    inside, outside = selector('pod!=""'), selector('pod=""', 'container=~"$workload"')
    return f"({inside} and on (cluster, namespace, pod) {OWNERS} or {outside})"


def share_protected(by=""):
    return f"1 - (sum {by}({connections(FLAGGED)}) or 0 * sum {by}({connections(JUDGED)})) / sum {by}({connections(JUDGED)})"


def workload_variables():
    return [
        p.datasource_variable(),
        p.query_variable("cluster", "Cluster", "label_values(keepalive_auditor_build_info, cluster)"),
        p.query_variable(
            "namespace", "Namespace", 'label_values(namespace_workload:keepalive_auditor_connections:sum{cluster=~"$cluster"}, namespace)'
        ),
        p.query_variable(
            "workload",
            "Workload",
            'label_values(namespace_workload:keepalive_auditor_connections:sum{cluster=~"$cluster", namespace=~"$namespace"}, workload)',
        ),
    ]


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
