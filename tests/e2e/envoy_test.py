"""Every remedy for Envoy works on a real Envoy: connections are flagged without it and protected with exactly the printed values."""

import unittest

import envoy_gateway
import lab
import yaml

IDLE, INTERVAL, PROBES = 300, 20, 4
FLAGS = ("--idle", f"{IDLE}s", "--interval", f"{INTERVAL}s", "--probes", PROBES)


def seconds(duration):
    """The API's "300s" as Envoy's 300."""
    assert duration.endswith("s"), duration
    return int(duration[:-1])


def upstream(time, interval, probes):
    """Envoy's fields that a control plane generates from its own keepalive fields."""
    values = {"keepalive_time": seconds(time), "keepalive_interval": seconds(interval), "keepalive_probes": probes}
    return {"upstream_connection_options": {"tcp_keepalive": values}}


def fields(keepalive, prefix):
    """keepaliveTime, keepaliveInterval, keepaliveProbes, with that prefix."""
    return (keepalive[prefix + field] for field in ("Time", "Interval", "Probes"))


def options(found):
    """Gloo's socketOptions with Envoy's field names."""
    return {"socket_options": [{"int_value": option.pop("intValue"), **option} for option in found]}


def listener_policy(keepalive):
    """Gloo Mesh's listener keepalive as socket options, which every Envoy supports."""
    values = (
        (1, 9, 1),
        (6, 4, seconds(keepalive["time"])),
        (6, 5, seconds(keepalive["interval"])),
        (6, 6, keepalive["probes"]),
    )
    state = {"state": "STATE_PREBIND"}
    return {
        "socket_options": [{"level": level, "name": name, "int_value": value, **state} for level, name, value in values]
    }


LISTENER = {
    "envoy-listener": lambda docs: docs[0],
    "istio-gateway": lambda docs: docs[0]["spec"]["configPatches"][0]["patch"]["value"],
    "istio-sidecar-inbound": lambda docs: docs[0]["spec"]["configPatches"][0]["patch"]["value"],
    "gloo-gateway": lambda docs: options(docs[0]["spec"]["options"]["socketOptions"]),
    "gloo-mesh": lambda docs: listener_policy(docs[1]["spec"]["config"]["tcpKeepalive"]),
}
CLUSTER = {
    "envoy-cluster": lambda docs: docs[0],
    "istio-destination-rule": lambda docs: upstream(
        **docs[-1]["spec"]["trafficPolicy"]["connectionPool"]["tcp"]["tcpKeepalive"]
    ),
    "istio-mesh": lambda docs: upstream(**docs[0]["meshConfig"]["tcpKeepalive"]),
    "gloo-upstream": lambda docs: upstream(*fields(docs[0]["spec"]["connectionConfig"]["tcpKeepalive"], "keepalive")),
    "gloo-mesh": lambda docs: upstream(**docs[0]["spec"]["config"]["tcp"]["tcpKeepalive"]),
    "kgateway": lambda docs: upstream(*fields(docs[0]["spec"]["tcpKeepalive"], "keepAlive")),
    "envoy-gateway": lambda docs: upstream(
        *map(docs[1]["spec"]["tcpKeepalive"].get, ("idleTime", "interval", "probes"))
    ),
}


def knows_tcp_keepalive(version):
    """A Listener has the field since Envoy 1.37."""
    return tuple(map(int, version.split(".")[:2])) >= (1, 37)


def fragment(table, target, *flags):
    """The target's configuration for Envoy, ready to be merged."""
    return table[target](list(yaml.safe_load_all(lab.remedy(target, *FLAGS, *flags))))


@envoy_gateway.each_version
class EnvoyTest(lab.Lab):
    def gateway(self, version):
        self.serve(lab.BACKEND, 9000)
        return envoy_gateway.Envoy(self, version).start()

    def prove(self, version, side, table, target, *flags):
        """Checks one remedy from start to end: connections are flagged, the running Envoy is changed, new connections are protected, old ones are replaced."""
        envoy = self.gateway(version)
        wanted = {"direction": "inbound", "endpoint": ":8443"}
        if side == "cluster":
            wanted = {"direction": "outbound", "endpoint": f"{lab.BACKEND_IP}:9000"}
        clients = self.dial(lab.CLIENT, lab.GATEWAY_FRONT, 8443, count=2)
        before = self.connections(lab.GATEWAY, **wanted)
        self.assertEqual(len(before), 2, before)
        self.assert_flagged(before, "off")
        explained = lab.auditor("audit", "--explain", *self.scope(lab.GATEWAY))
        self.assertIn(f"keepalive-auditor remedy envoy-{side}", explained)
        recording = self.dir / "before.jsonl"
        lab.auditor("audit", "--record", recording, *self.scope(lab.GATEWAY))

        printed = fragment(table, target, *flags)
        if side == "cluster":
            envoy.cluster = printed
        else:
            envoy.listeners[8443] = printed
        envoy.write()
        envoy.wait_for_change(side)
        clients += self.dial(lab.CLIENT, lab.GATEWAY_FRONT, 8443)
        known = {(c["local"], c["remote"]) for c in before}
        after = self.connections(lab.GATEWAY, **wanted)
        old = [c for c in after if (c["local"], c["remote"]) in known]
        new = [c for c in after if (c["local"], c["remote"]) not in known]
        self.assertEqual((len(old), len(new)), (2, 1), after)
        self.assert_flagged(old, "off")
        self.assert_protected(new, IDLE)

        # status 3: the other side of the gateway, which nobody changed, has a new connection without keepalive
        comparison = lab.auditor("audit", "--compare", recording, *self.scope(lab.GATEWAY), status=3)
        self.assertIn("newly protected 1, new but unprotected 0, fixed while open 0, old and unprotected 2", comparison)
        self.assertIn("Envoy needs no restart: the Envoy that still holds 2 from before", comparison)
        self.assertIn("2 opened before the change stay as they are", comparison)

        for client in clients:
            lab.stop(client)
        self.dial(lab.CLIENT, lab.GATEWAY_FRONT, 8443, count=2)
        self.assert_protected(self.connections(lab.GATEWAY, **wanted), IDLE)

    def each_form_that_envoy_does_not_know_changes_nothing_and_the_wire_says_so(self, version):
        if knows_tcp_keepalive(version):
            self.skipTest(f"Envoy {version} knows tcp_keepalive")
        envoy = self.gateway(version)
        self.dial(lab.CLIENT, lab.GATEWAY_FRONT, 8443)
        recording = self.dir / "before.jsonl"
        lab.auditor("audit", "--record", recording, *self.scope(lab.GATEWAY))
        envoy.listeners[8443] = fragment(LISTENER, "envoy-listener", "--envoy-version", "1.37")
        envoy.write()
        # Over xDS, Envoy only counts an unknown field and drops it.
        self.wait_until(lambda: envoy.counter("server.dynamic_unknown_fields") > 0, "Envoy to read the listener")
        self.dial(lab.CLIENT, lab.GATEWAY_FRONT, 8443)
        self.assert_flagged(self.connections(lab.GATEWAY, direction="inbound", endpoint=":8443"), "off")
        comparison = lab.auditor("audit", "--compare", recording, *self.scope(lab.GATEWAY), status=3)
        self.assertIn("It did not take effect", comparison)
        self.assertIn("Restart Envoy if the setting has reached it", comparison)


def add(version, side, table, target, *flags):
    def test(self):
        self.prove(version, side, table, target, *flags)

    words = ("test", target, side, *("as_tcp_keepalive" for _ in flags[:1]), "on_envoy", version)
    setattr(EnvoyTest, "_".join(words).replace("-", "_").replace(".", "_"), test)


for tested in envoy_gateway.VERSIONS:
    for name in LISTENER:
        add(tested, "listener", LISTENER, name)
    for name in CLUSTER:
        add(tested, "cluster", CLUSTER, name)
    if knows_tcp_keepalive(tested):
        add(tested, "listener", LISTENER, "envoy-listener", "--envoy-version", tested)

if __name__ == "__main__":
    unittest.main()
