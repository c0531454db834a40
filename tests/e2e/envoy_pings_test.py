"""Real gRPC channels ping through a real Envoy: one that reads HTTP/2 closes its connection all the same, one that forwards bytes keeps it."""

import json
import time
import unittest

import envoy_gateway
import grpc_test
import lab

NEWEST = list(envoy_gateway.VERSIONS)[-1]
# A channel pings every second.
READS_LIMIT, LIMIT = 15, 10
READS, FORWARDS = 8443, 8444
PATHS = f"""
paths:
  - {{name: reads, ports: [{READS}], idle_timeout: {READS_LIMIT}s, reads_http2: true}}
  - {{name: forwards, ports: [{FORWARDS}], idle_timeout: {LIMIT}s, refreshed_by: payload}}
"""
TYPES = "type.googleapis.com/envoy.extensions"
HTTP = {
    "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "stat_prefix": "http",
    "common_http_protocol_options": {"idle_timeout": f"{READS_LIMIT}s"},
    "drain_timeout": "0.1s",
    "http_filters": [
        {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}}
    ],
    "route_config": {
        "virtual_hosts": [
            {
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "backend"}}],
            }
        ]
    },
}
TCP = {
    "@type": f"{TYPES}.filters.network.tcp_proxy.v3.TcpProxy",
    "stat_prefix": "tcp",
    "cluster": "backend",
    "idle_timeout": f"{LIMIT}s",
}
HTTP2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": f"{TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}


class PingsTest(grpc_test.Grpc):
    def test_a_middlebox_that_reads_http2_counts_no_ping_and_one_that_forwards_bytes_does(self):
        pings = grpc_test.arguments_of(grpc_test.remedy("1s", interval="1s"))
        self.server(pings, 9000)
        envoy = envoy_gateway.Envoy(self, NEWEST, ports=(READS, FORWARDS))
        for port, proxy in ((READS, HTTP), (FORWARDS, TCP)):
            envoy.listeners[port] = {"filter_chains": [{"filters": [{"name": "proxy", "typed_config": proxy}]}]}
        envoy.cluster = {"typed_extension_protocol_options": HTTP2}
        envoy.start()
        config = self.dir / "paths.yaml"
        config.write_text(PATHS)
        for port in (READS, FORWARDS):
            self.client(pings, port, host=lab.GATEWAY_FRONT)
        begun = time.monotonic()

        # while both live: what each path makes of the PINGs
        recording = self.dir / "pings.jsonl"
        early = self.audit(lab.CLIENT, "--config", config, "--for", "8s", "--record", recording)
        found = {c["path"]: c for c in early}
        self.assertEqual({c["verdict"] for c in early}, {"exposed"}, early)
        reads = found["reads"]
        self.assertEqual((reads["cause"], reads["remedies"], reads["reads_http2"]), ("pings_not_counted", [], True), reads)
        self.assertIn("nothing but HTTP/2 PING frames came for at least", reads["why"])
        self.assertGreater(reads["request_idle_seconds"], reads["data_idle_seconds"], reads)
        self.assertEqual(found["forwards"]["cause"], "payload_only", found)
        # a limit that has passed: the same PINGs, and the connection is overdue
        config_of_less = self.dir / "less.yaml"
        config_of_less.write_text("paths: [{name: less, idle_timeout: 1s, reads_http2: true}]\n")
        of_client = ("--owner", lab.name(lab.CLIENT), *self.scope(lab.CLIENT)[2:])
        replayed = ("--replay", recording, "--config", config_of_less, *of_client)
        overdue = json.loads(lab.auditor("audit", "--all", "--format", "json", *replayed))["connections"]
        self.assertEqual([c["verdict"] for c in overdue], ["overdue"] * 2, overdue)

        # Envoy closes the one after its idle timeout, while PINGs come
        established = lambda port: self.run_in(lab.CLIENT, "ss", "-Htn", "state", "established", f"dport = :{port}")
        self.wait_until(lambda: not established(READS), "Envoy to close what only pings")
        self.assertEqual(envoy.counter("http.http.downstream_cx_idle_timeout"), 1)
        # and never the other one
        for _ in range(3):  # on a busy machine a PING may come late
            (forwards,) = self.audit(lab.CLIENT, "--config", config, "--for", "18s")
            if forwards["verdict"] == "app_protected":
                break
        self.assertEqual((forwards["path"], forwards["verdict"]), ("forwards", "app_protected"), forwards)
        self.assertEqual(forwards["local"], found["forwards"]["local"])
        self.assertGreater(time.monotonic() - begun, 2 * LIMIT)
        self.assertEqual(envoy.counter("tcp.tcp.idle_timeout"), 0)


if __name__ == "__main__":
    unittest.main()
