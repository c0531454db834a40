#!/usr/bin/env python3
"""Tests the whole chain with real programs: pods with connections of every verdict, agents, Prometheus with the project's rules, Alertmanager, a receiver.

    tests/e2e/prometheus/run.py BINARY

An overdue scene makes the alert fire and arrive; keepalive in the same pod lets it resolve. Then every expression of every dashboard, alert and
recording rule is asked of that Prometheus: each must be accepted, and each must have had data, except those named here with the reason.
Needs root, iproute2, Debian's prometheus and prometheus-alertmanager, and PyYAML. Everything happens on loopback and in namespaces made here.
"""

import pathlib
import subprocess
import sys
import time

import expressions
import runbook
from scene import Scene
from servers import Prometheus, Receiver, agent, alertmanager, get, stage, wait_for

VERDICTS = {"local", "blackholed", "undetermined", "protected", "peer_protected", "young", "overdue", "exposed"}
MAY_BE_EMPTY = {
    "namespace_owner:keepalive_auditor_workload:relabel": "no kube-state-metrics in the scene; promtool's tests cover it",
    "Keepalive / Fleet / Failures and interrupted dumps B": "the scene is too small for an interrupted dump",
    "TCPNodeLimitBelowPath": "the scene has no NAT; promtool's tests cover it",
}
# May have data or not.
EITHER = {
    "TCPConnectionsUnanswered": "connections that get no answer were overdue before, which is blackholed, unless a busy machine delays the sweep between",
    "TCPPathLimitTooHigh": "the link that is cut may look like a limit; promtool's tests cover it",
    "TCPPathLimitTooLow": "the scene may be long enough to measure a limit, or not; promtool's tests cover it",
    "Keepalive / Fleet / Paths B": "the scene may be long enough to measure a limit, or not",
    "Keepalive / Fleet / Paths C": "the link that is cut may look like a limit",
    "KeepaliveAuditorSweepsFailing": "an agent that answers also sweeps, unless a busy machine delays the sweeps for ten seconds; promtool's tests cover it",
}
HELD = 12  # connections that cart holds; more than the coverage alert asks for


def play(scene):
    """Opens connections of every verdict but `blackholed`, which needs an overdue one first. Returns the programs by name."""
    store = scene.pod("data", "store-0", "db")
    store.listen(port=7001)
    store.listen(port=7002, idle=2)
    store.listen(port=7003, read=False)
    store.listen(port=7004)
    at = {"host": store.address}

    cart = scene.pod("shop", "cart-7d9c5b8f4c-x2x4z", "app")
    cart.connect(name="quiet", port=7001, count=HELD, **at)
    cart.connect(name="busy", port=7001, **at)
    cart.chatter(name="busy", every=2)
    cart.churn(name="brief", port=7001, lifetime=3, **at)

    ledger = scene.pod("shop", "ledger-0", "app")
    ledger.connect(name="default", port=7001, count=2, idle=0, **at)

    good = scene.pod("shop", "good-5f6d7c8b9d-k2m4q", "app")
    good.connect(name="probing", port=7001, count=2, idle=3, **at)
    good.listen(port=8000, address="127.0.0.1")
    good.connect(name="local", host="127.0.0.1", port=8000)

    covered = scene.pod("shop", "covered-vz6tq", "app")
    covered.connect(name="covered", port=7002, count=2, **at)

    # More than the reader's window and the writer's buffer can hold: from the first sweep on, another timer masks keepalive.
    bulk = scene.pod("shop", "bulk-0", "app")
    for name in ("a", "b", "c", "d"):
        bulk.connect(name=name, port=7003, **at)
        bulk.send(name=name, size=16 << 20)

    orders = scene.pod("shop", "orders-6b5c7f9d8b-q7w2z", "app")
    orders.connect(name="old", port=7001, count=2, **at)
    orders.connect(name="impatient", port=7001, user_timeout=2000, **at)

    # In use and kept alive until its link is cut, so that it was never overdue.
    courier = scene.pod("shop", "courier-0", "app")
    courier.connect(name="kept", port=7001, count=2, idle=3, **at)
    courier.chatter(name="kept", every=1)

    web = scene.pod("shop", "web-6b5c7f9d8b-x8x9z", "app")
    web.connect(name="old", port=7004, count=3, **at)

    brief = scene.pod("shop", "gone-0", "app")
    brief.connect(name="old", port=7001, **at)

    forge = scene.outsider("forge")
    forge.connect(name="old", port=7001, count=2, **at)
    return {"store": store, "cart": cart, "orders": orders, "courier": courier, "gone": brief}


def connections(prometheus, **labels):
    """Connections of cluster one with these labels."""
    selector = ", ".join(f'{name}="{value}"' for name, value in ({"cluster": "one"} | labels).items())
    found = prometheus.query(f"sum(keepalive_auditor_connections{{{selector}}})")
    return found[0][1] if found else 0


def expect(what, got, wanted):
    if got != wanted:
        raise AssertionError(f"{what}: {got}, not {wanted}")
    print("ok:", what)


def incident(scene, programs, prometheus, receiver, binary):
    """From overdue connections to alerts, and back by keepalive."""
    wait_for("twelve overdue connections of cart", lambda: connections(prometheus, pod="cart-7d9c5b8f4c-x2x4z", verdict="overdue") == HELD)
    quiet_since = time.monotonic()
    for verdict in sorted(VERDICTS - {"blackholed"}):
        wait_for(f"a connection that is {verdict}", lambda v=verdict: connections(prometheus, verdict=v))
    print("ok: the scene has every verdict but blackholed")
    endpoint = f'{programs["store"].address}:7001'
    series = prometheus.query('keepalive_auditor_flagged_connections{cluster="one", pod="cart-7d9c5b8f4c-x2x4z", verdict="overdue"}')
    expect("cart's overdue connections, their labels", [({k: m.get(k) for k in ("namespace", "container", "direction", "endpoint")}, v) for m, v in series],
           [({"namespace": "shop", "container": "app", "direction": "outbound", "endpoint": endpoint}, float(HELD))])
    outside = 'namespace_workload:keepalive_auditor_flagged_connections:sum{cluster="one", namespace="", workload=~"ka.*-forge"}'
    wait_for("connections outside pods, by the name of their namespace", lambda: [v for _, v in prometheus.query(outside)] == [2.0])

    wait_for("counters of ten seconds ago", lambda: prometheus.query("keepalive_auditor_pod_tcp_keepalive_time_seconds offset 10s"))
    # Data or a reset before the connection is overdue is not an incident.
    for pod in ("orders-6b5c7f9d8b-q7w2z", "web-6b5c7f9d8b-x8x9z"):
        wait_for(f"three overdue connections of {pod}", lambda p=pod: connections(prometheus, pod=p, verdict="overdue") == 3)
    scene.unplug(programs["orders"])
    programs["orders"].send(name="old")
    programs["orders"].send(name="impatient")
    programs["store"].reset(port=7004)
    scene.unplug(programs["courier"])

    one = {"cluster": "one", "namespace": "shop"}
    for name, labels in [
        # first: its resets are in sight for ten seconds
        ("TCPResetsAfterSilence", one | {"workload": "web"}),
        ("TCPFlaggedConnectionsLost", one | {"workload": "web"}),
        ("TCPKeepaliveMissingOnIdleConnections", one | {"workload": "cart"}),
        ("TCPConnectionsBlackholed", one | {"workload": "orders"}),
        ("TCPConnectionsUnanswered", one | {"workload": "courier"}),
        ("TCPKeepaliveTooLate", one | {"workload": "ledger"}),
        ("TCPKeepaliveCoverageLow", one),
        ("KeepaliveAuditorNamespacesUnreadable", {"cluster": "two"}),
        ("KeepaliveAuditorSeriesDropped", {"cluster": "two"}),
    ]:
        alert = wait_for(f"{name} arrives at the receiver", lambda n=name, s=labels: receiver.received("firing", alertname=n, **s))[0]
        print("ok:", name, "·", alert["annotations"]["summary"])
        print("ok: the runbook,", runbook.follow(name, labels, prometheus, binary, scene.logs), "blocks")
    for name in ("KeepaliveAuditorDown", "KeepaliveAuditorAbsent", "KeepaliveAuditorSweepsFailing"):
        expect(f"{name} does not fire", receiver.find("firing", alertname=name), [])
    expect("no alert names the protected workload", [a for a in receiver.notifications if a["labels"].get("workload") in ("good", "covered")], [])

    scene.remove(programs["gone"])
    wait_for("the deleted pod's series are gone", lambda: not prometheus.query('{pod="gone-0", __name__=~"keepalive_auditor_.*"}'))
    print("ok: a deleted pod leaves no series")

    # Idle times count from 30 s on. These end now, because the connections close.
    time.sleep(max(0, 25 - (time.monotonic() - quiet_since)))
    programs["cart"].close(name="quiet")
    programs["cart"].connect(name="fixed", host=programs["store"].address, port=7001, count=HELD, idle=3)
    wait_for("the alert on cart is resolved at the receiver",
             lambda: receiver.find("resolved", alertname="TCPKeepaliveMissingOnIdleConnections", **(one | {"workload": "cart"})))
    wait_for("cart's connections with keepalive on", lambda: connections(prometheus, pod="cart-7d9c5b8f4c-x2x4z", verdict="protected") == HELD)
    expect("the others' alert goes on", len(receiver.find("firing", alertname="TCPKeepaliveMissingOnIdleConnections", **(one | {"workload": "ledger"}))), 1)
    wait_for("the ended idle times are counted",
             lambda: prometheus.query('keepalive_auditor_silence_seconds_count{cluster="one", keepalive="off"} >= %d' % HELD))


def ask_everything(prometheus, started):
    """Checks that Prometheus accepts every expression and that each had data at some moment of the scene."""
    bad = []
    all_of_them = expressions.everything()
    for where, expr in all_of_them:
        try:
            # The zero that a panel shows instead of nothing is not data.
            found = prometheus.over(expr.replace(" or vector(0)", ""), started)
        except ValueError as error:
            bad.append(f"{where}: refused: {error}: {expr}")
            continue
        if not found and where not in MAY_BE_EMPTY | EITHER:
            bad.append(f"{where}: no data: {expr}")
        if found and where in MAY_BE_EMPTY:
            bad.append(f"{where}: has data, though it is listed as empty: {expr}")
    print(f"{len(all_of_them)} expressions asked, {len(bad)} bad")
    if bad:
        raise AssertionError("\n".join(bad))


def main():
    binary = str(pathlib.Path(sys.argv[1]).resolve())
    started = time.time()
    with stage() as (directory, ending):
        scene = Scene(directory / "log")
        ending.append(scene)
        receiver = Receiver()
        ending.append(receiver)
        manager = alertmanager(directory, receiver)
        ending.append(manager)
        whole = agent(directory, "agent", binary, scene.logs)
        ending.append(whole)
        # A second cluster, whose agent may not read other processes and may export only few series.
        blind = agent(directory, "agent-two", binary, scene.logs, "--max-series=3", wrapper=runbook.BLIND)
        ending.append(blind)
        # The labels that a PodMonitor gives its targets. A connection outside pods must have none of them.
        own = {"namespace": "keepalive-auditor", "pod": "keepalive-auditor-x7k2p", "container": "agent"}
        targets = [(whole.port, {"cluster": "one", "node": "node-one"} | own), (blind.port, {"cluster": "two", "node": "node-two"} | own)]
        prometheus = Prometheus(directory, expressions.RULES, targets, manager.port)
        ending.append(prometheus)
        programs = play(scene)
        for server in (whole, blind, manager, prometheus):
            server.wait()

        incident(scene, programs, prometheus, receiver, binary)

        page = get(f"http://127.0.0.1:{whole.port}/metrics")
        subprocess.run(["promtool", "check", "metrics"], input=page, text=True, check=True)
        print("ok: promtool check metrics,", len(page), "bytes")

        for server, name in ((blind, "KeepaliveAuditorDown"), (whole, "KeepaliveAuditorAbsent")):
            ending.remove(server)
            server.end()
            wait_for(f"{name} arrives at the receiver", lambda n=name: receiver.find("firing", alertname=n))
            print("ok:", name)
        ask_everything(prometheus, started)


if __name__ == "__main__":
    main()
