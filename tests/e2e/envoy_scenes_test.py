"""Two cases that users reported, with a real Envoy: a sidecar behind REDIRECT, and a gateway with two listeners."""

import unittest

import envoy_gateway
import envoy_test
import lab
import yaml

SIDECAR_GROUP = "1337"


@envoy_gateway.each_version
class SceneTest(lab.Lab):
    def each_application_to_sidecar_by_redirect_to_upstream(self, version):
        """The application's side is local; the sidecar's upstream is flagged, and protected by the DestinationRule's values."""
        self.serve(lab.BACKEND, 5432)
        redirect = ("-p", "tcp", "--dport", "5432", "-m", "owner", "!", "--gid-owner", SIDECAR_GROUP, "-j", "REDIRECT")
        self.run_in(lab.CLIENT, "iptables", "-t", "nat", "-A", "OUTPUT", *redirect, "--to-ports", "15001")
        own_group = ("setpriv", "--regid", SIDECAR_GROUP, "--clear-groups")
        envoy = envoy_gateway.Envoy(
            self, version, ports=(15001,), host=lab.CLIENT, wrap=own_group, redirected=True
        ).start()
        (application,) = self.dial(lab.CLIENT, lab.BACKEND_IP, 5432)
        before = self.connections(lab.CLIENT)
        self.assertEqual(sorted(c["verdict"] for c in before), ["exposed", "local", "local"], before)
        upstream = [c for c in before if c["verdict"] == "exposed"]
        self.assertEqual((upstream[0]["direction"], upstream[0]["endpoint"]), ("outbound", f"{lab.BACKEND_IP}:5432"))

        rule = ("istio-destination-rule", "--host", lab.BACKEND_IP, "--port", "5432")
        envoy.cluster = envoy_test.fragment(envoy_test.CLUSTER, *rule)
        envoy.write()
        envoy.wait_for_change("cluster")
        lab.stop(application)
        self.dial(lab.CLIENT, lab.BACKEND_IP, 5432)
        after = self.connections(lab.CLIENT)
        self.assertEqual(sorted(c["verdict"] for c in after), ["local", "local", "protected"], after)
        self.assert_protected([c for c in after if c["verdict"] == "protected"], envoy_test.IDLE)

    def each_gateway_behind_a_load_balancer_with_two_listeners(self, version):
        """EnvoyFilters with 300/20/4 on 443 and 600/75/9 on 8080: the first protects behind 350 s, the second needs 1200 s."""
        with self.assertRaisesRegex(AssertionError, "--idle 600s cannot protect"):
            lab.remedy("istio-gateway", "--port", "8080", "--idle", "600s", "--interval", "75s", "--probes", "9")
        filters = {
            443: ("--idle", "300s", "--interval", "20s", "--probes", "4"),
            8080: ("--idle", "600s", "--interval", "75s", "--probes", "9", "--idle-timeout", "1200s"),
        }
        self.serve(lab.BACKEND, 9000)
        envoy = envoy_gateway.Envoy(self, version, ports=tuple(filters)).start()
        clients = [self.dial(lab.CLIENT, lab.GATEWAY_FRONT, port)[0] for port in filters]
        self.assert_flagged(self.connections(lab.GATEWAY, direction="inbound"), "off")
        for port, values in filters.items():
            (patch,) = yaml.safe_load(lab.remedy("istio-gateway", "--port", port, *values))["spec"]["configPatches"]
            self.assertEqual(patch["match"]["listener"]["portNumber"], port)
            envoy.listeners[port] = patch["patch"]["value"]
        for client in clients:
            lab.stop(client)
        envoy.restart()
        for port in filters:
            self.dial(lab.CLIENT, lab.GATEWAY_FRONT, port)
        self.assert_protected(self.connections(lab.GATEWAY, endpoint=":443"), 300)
        self.assert_flagged(self.connections(lab.GATEWAY, endpoint=":8080"), "late")
        self.assert_protected(self.connections(lab.GATEWAY, "--idle-timeout", "1200s", endpoint=":8080"), 600)
        for port, wanted in ((443, (300, 20, 4)), (8080, (600, 75, 9))):
            for connection in self.connections(lab.GATEWAY, "--exact", endpoint=f":{port}"):
                keys = ("tcp_keepidle_seconds", "tcp_keepintvl_seconds", "tcp_keepcnt")
                self.assertEqual(tuple(map(connection["exact"].get, keys)), wanted)


if __name__ == "__main__":
    unittest.main()
