"""Real gRPC channels ping through nginx and HAProxy: those that read HTTP/2 close their connections all the same, as their profiles say."""

import unittest

import lab
import pinging
import proxies
from pinging import FIRST, LIMIT, SHORT_LIMIT

NGINX, HAPROXY, FORWARDS = 8443, 8444, 8445
READ = {"nginx": NGINX, "haproxy": HAPROXY}
PATHS = [
    {"name": "nginx", "ports": [NGINX], "profile": "nginx-http", "idle_timeout": f"{LIMIT}s"},
    {"name": "haproxy", "ports": [HAPROXY], "profile": "haproxy", "idle_timeout": f"{LIMIT}s"},
    {"name": "forwards", "ports": [FORWARDS], "profile": "haproxy", "idle_timeout": f"{LIMIT}s", "reads_http2": False},
]
SHORT = [{**path, "idle_timeout": f"{SHORT_LIMIT}s"} for path in PATHS]
HAPROXY_SETTINGS = f"""
defaults
  mode http
  timeout connect 60s
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


class PingsTest(pinging.Pinging):
    def test_a_proxy_that_reads_http2_counts_no_ping(self):
        self.server(pinging.pings(), 9000)
        server = f"listen {NGINX} http2; location / {{ grpc_pass grpc://{lab.BACKEND_IP}:9000; }}"
        nginx = proxies.nginx(self.dir, server, http=f"keepalive_timeout {LIMIT}s;")
        self.start(lab.GATEWAY, *FIRST, *nginx)
        settings = self.dir / "haproxy.cfg"
        settings.write_text(HAPROXY_SETTINGS)
        self.start(lab.GATEWAY, *FIRST, "haproxy", "-db", "-f", settings)
        for port in (NGINX, HAPROXY, FORWARDS):
            self.wait_for_port(lab.GATEWAY, port)
        self.play(self.scene)

    def scene(self):
        watch, short = pinging.Watch(self, PATHS), pinging.Watch(self, SHORT)
        self.open_channels(NGINX, HAPROXY, FORWARDS)
        for path, port in READ.items():
            self.wait_until_not_counted(watch, path, port)
            self.wait_until_overdue(short, path, port)
        for port in READ.values():
            self.wait_for_close(port)
        self.wait_until_kept(watch, "forwards", FORWARDS)
        for path in READ:
            self.assert_never_protected(watch, path)


if __name__ == "__main__":
    unittest.main()
