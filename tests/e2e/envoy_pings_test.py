"""Real gRPC channels ping through a real Envoy: one that reads HTTP/2 closes its connection all the same, one that forwards bytes keeps it."""

import unittest

import envoy_gateway
import pinging
from pinging import FIRST, LIMIT, SHORT_LIMIT

NEWEST = list(envoy_gateway.VERSIONS)[-1]
READS, FORWARDS = 8443, 8444
PATHS = [
    {"name": "reads", "ports": [READS], "idle_timeout": f"{LIMIT}s", "reads_http2": True},
    {"name": "forwards", "ports": [FORWARDS], "idle_timeout": f"{LIMIT}s", "refreshed_by": "payload"},
]
SHORT = [{"name": "short", "ports": [READS], "idle_timeout": f"{SHORT_LIMIT}s", "reads_http2": True}]
TYPES = "type.googleapis.com/envoy.extensions"
HTTP = {
    "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "stat_prefix": "http",
    "common_http_protocol_options": {"idle_timeout": f"{LIMIT}s"},
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


class PingsTest(pinging.Pinging):
    def test_a_middlebox_that_reads_http2_counts_no_ping_and_one_that_forwards_bytes_does(self):
        self.server(pinging.pings(), 9000)
        self.envoy = envoy_gateway.Envoy(self, NEWEST, ports=(READS, FORWARDS), wrap=FIRST)
        for port, proxy in ((READS, HTTP), (FORWARDS, TCP)):
            self.envoy.listeners[port] = {"filter_chains": [{"filters": [{"name": "proxy", "typed_config": proxy}]}]}
        self.envoy.cluster = {"connect_timeout": "60s", "typed_extension_protocol_options": HTTP2}
        self.envoy.start()
        self.play(self.scene)

    def scene(self):
        ended_before = self.ended_as_idle()
        watch, short = pinging.Watch(self, PATHS), pinging.Watch(self, SHORT)
        self.open_channels(READS, FORWARDS)
        reads = self.wait_until_not_counted(watch, "reads", READS)
        self.assertEqual((reads["remedies"], reads["reads_http2"]), ([], True), reads)
        self.assertIn("nothing but HTTP/2 PING frames came for at least", reads["why"])
        self.wait_until_overdue(short, "short", READS)

        self.wait_for_close(READS)
        self.wait_until_kept(watch, "forwards", FORWARDS)
        self.assert_never_protected(watch, "reads")
        ended = [after - before for after, before in zip(self.ended_as_idle(), ended_before)]
        self.assertEqual(ended, [1, 0], "Envoy ends the connection that it reads, and never the other")

    def ended_as_idle(self):
        names = ("http.http.downstream_cx_idle_timeout", "tcp.tcp.idle_timeout")
        return [self.envoy.counter(name) for name in names]


if __name__ == "__main__":
    unittest.main()
