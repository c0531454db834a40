"""Real gRPC channels ping through nginx and HAProxy: those that read HTTP/2 close their connections all the same, as their profiles say."""

import time
import unittest

import grpc_test
import lab
import proxies

# A channel pings every second.
LIMIT = 12
NGINX, HAPROXY, FORWARDS = 8443, 8444, 8445
PATHS = f"""
paths:
  - {{name: nginx, ports: [{NGINX}], profile: nginx-http, idle_timeout: {LIMIT}s}}
  - {{name: haproxy, ports: [{HAPROXY}], profile: haproxy, idle_timeout: {LIMIT}s}}
  - {{name: forwards, ports: [{FORWARDS}], profile: haproxy, idle_timeout: {LIMIT}s, reads_http2: false}}
"""
HAPROXY_SETTINGS = f"""
defaults
  mode http
  timeout connect 2s
  timeout client {LIMIT}s
  timeout server {LIMIT}s
frontend reads
  bind :{HAPROXY} proto h2
  timeout http-keep-alive {LIMIT}s
  default_backend reads
backend reads
  server one {lab.BACKEND_IP}:9000 proto h2
listen forwards
  mode tcp
  bind :{FORWARDS}
  server one {lab.BACKEND_IP}:9000
"""


class PingsTest(grpc_test.Grpc):
    def test_a_proxy_that_reads_http2_counts_no_ping(self):
        pings = grpc_test.arguments_of(grpc_test.remedy("1s", interval="1s"))
        self.server(pings, 9000)
        server = f"listen {NGINX} http2; location / {{ grpc_pass grpc://{lab.BACKEND_IP}:9000; }}"
        self.start(lab.GATEWAY, *proxies.nginx(self.dir, server, http=f"keepalive_timeout {LIMIT}s;"))
        settings = self.dir / "haproxy.cfg"
        settings.write_text(HAPROXY_SETTINGS)
        self.start(lab.GATEWAY, "haproxy", "-db", "-f", settings)
        for port in (NGINX, HAPROXY, FORWARDS):
            self.wait_for_port(lab.GATEWAY, port)
        for port in (NGINX, HAPROXY, FORWARDS):
            self.client(pings, port, host=lab.GATEWAY_FRONT)
        begun = time.monotonic()
        config = self.dir / "paths.yaml"
        config.write_text(PATHS)

        early = {c["path"]: c for c in self.audit(lab.CLIENT, "--config", config, "--for", "6s")}
        self.assertEqual({c["verdict"] for c in early.values()}, {"exposed"}, early)
        causes = {path: c["cause"] for path, c in early.items()}
        not_counted = dict.fromkeys(("nginx", "haproxy"), "pings_not_counted")
        self.assertEqual(causes, {**not_counted, "forwards": "payload_only"}, early)

        established = lambda port: self.run_in(lab.CLIENT, "ss", "-Htn", "state", "established", f"dport = :{port}")
        self.wait_until(lambda: not established(NGINX) and not established(HAPROXY), "both proxies to close what only pings")
        for _ in range(3):  # on a busy machine a PING may come late
            (forwards,) = self.audit(lab.CLIENT, "--config", config, "--for", "18s")
            if forwards["verdict"] == "app_protected":
                break
        self.assertEqual((forwards["path"], forwards["verdict"]), ("forwards", "app_protected"), forwards)
        self.assertEqual(forwards["local"], early["forwards"]["local"])
        self.assertGreater(time.monotonic() - begun, 2 * LIMIT)


if __name__ == "__main__":
    unittest.main()
