"""What `remedy` prints for ingress controllers and Kong, in the HAProxy and nginx that they run: flagged before, protected after."""

import unittest

import lab
import proxies
from remedied import FLAGS, RemedyTest, yaml_of


class IngressTest(RemedyTest):
    def setUp(self):
        super().setUp()
        self.serve(lab.BACKEND, 9000, "hold")

    def haproxy(self, defaults="", frontend="", backend=""):
        config = self.dir / "haproxy.cfg"
        config.write_text(f"""
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
{defaults}
frontend clients
    bind 0.0.0.0:8080
    default_backend pods
{frontend}
backend pods
    server pod {lab.BACKEND_IP}:9000
{backend}
""")
        return proxies.start(self, "haproxy", "-db", "-f", config)

    def test_both_haproxy_ingress_controllers(self):
        process = self.haproxy()
        self.before(lab.GATEWAY, "off")
        lab.stop(process)
        ours = yaml_of("haproxy-ingress")["data"]
        theirs = yaml_of("haproxytech-ingress")["data"]
        sections = {
            "haproxy-ingress": {"defaults": ours["config-defaults"]},
            "haproxytech-ingress": {"frontend": theirs["frontend-config-snippet"], "backend": theirs["backend-config-snippet"]},
        }
        for target, settings in sections.items():
            process = self.haproxy(**settings)
            for direction in ("inbound", "outbound"):
                program = f"HAProxy with the controller's sections, {direction}"
                self.after(lab.GATEWAY, target=target, program=program, before="off", direction=direction)
            lab.stop(process)

    def nginx(self, listen, http="", server="", port=8080):
        to_backend = f"location / {{ proxy_pass http://{lab.BACKEND_IP}:9000; }}"
        return proxies.start(self, *proxies.nginx(self.dir, f"{listen} {server} {to_backend}", http), port=port)

    def test_ingress_nginx(self):
        """nginx takes the system's times for these connections, as the remedy's caveat says."""
        process = self.nginx("listen 8080;")
        self.before(lab.GATEWAY, "off", direction="outbound")
        lab.stop(process)
        snippet = yaml_of("ingress-nginx")["data"]["http-snippet"]
        process = self.nginx("listen 8080;", http=snippet)
        self.before(lab.GATEWAY, "late", direction="outbound")
        lab.stop(process)
        self.set_sysctls(lab.GATEWAY)
        self.nginx("listen 8080;", http=snippet)
        self.after(lab.GATEWAY, target="ingress-nginx", program="nginx, with pod-sysctl", before="off", direction="outbound")

    def test_kong(self):
        """Kong writes `listen ADDRESS SUFFIXES;` for each address, and `DIRECTIVE VALUE;` for nginx_proxy_DIRECTIVE, into its server."""
        process = self.nginx("listen 0.0.0.0:8000 reuseport backlog=16384;", port=8000)
        self.before(lab.GATEWAY, "off")
        lab.stop(process)
        lines = (line for line in lab.remedy("kong", *FLAGS).splitlines() if not line.startswith("#"))
        settings = dict(line.split(" = ", 1) for line in lines)
        listeners = settings.pop("proxy_listen").split(", ")
        ((name, value),) = settings.items()
        self.assertTrue(name.startswith("nginx_proxy_"), name)
        self.set_sysctls(lab.GATEWAY)
        # The second address needs a certificate.
        self.nginx(f"listen {listeners[0]};", server=f"{name.removeprefix('nginx_proxy_')} {value};", port=8000)
        for direction in ("inbound", "outbound"):
            self.after(lab.GATEWAY, target="kong", program=f"nginx with Kong's lines, {direction}", before="off", direction=direction)


if __name__ == "__main__":
    unittest.main()
