"""A real Envoy on the gateway host, configured by files that it watches, so that a listener or cluster can change while it runs."""

import json
import os

import lab

VERSIONS = dict(pair.split("=", 1) for pair in os.environ.get("ENVOYS", "").split() if pair)


def each_version(case):
    """Turns every `each_NAME(self, version)` of a test case into one test per version."""
    for name in [name for name in vars(case) if name.startswith("each_")]:
        for version in VERSIONS:

            def test(self, name=name, version=version):
                getattr(self, name)(version)

            test.__doc__ = getattr(case, name).__doc__
            setattr(case, f"test_{name.removeprefix('each_')}_on_envoy_{version.replace('.', '_')}", test)
    return case


class Envoy:
    """One Envoy with one listener per port, all to one cluster. `listeners` and `cluster` are merged into them as printed.

    `redirected`: connections come by iptables REDIRECT and go on to where they were meant to go, as with a sidecar.
    """

    def __init__(self, test, version, ports=(8443,), host=lab.GATEWAY, wrap=(), redirected=False):
        self.test, self.version, self.ports, self.host, self.wrap = test, version, ports, host, wrap
        self.redirected = redirected
        self.folder = test.dir
        self.listeners = {port: {} for port in ports}
        self.cluster = {}
        self.process = None

    def write(self):
        """Replaces the file by a rename, because Envoy watches for that."""
        resources = {
            "listener.v3.Listener": [self.listener(port) for port in self.ports],
            "cluster.v3.Cluster": [self.upstream()],
        }
        for kind, items in resources.items():
            url = f"type.googleapis.com/envoy.config.{kind}"
            path = self.folder / f"{kind.split('.')[0]}.json"
            temporary = path.with_suffix(".new")
            temporary.write_text(json.dumps({"resources": [{"@type": url, **item} for item in items]}))
            temporary.rename(path)

    def listener(self, port):
        proxy = {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "tcp",
            "cluster": "backend",
        }
        original_dst = {
            "name": "envoy.filters.listener.original_dst",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst"
            },
        }
        return {
            "name": f"0.0.0.0_{port}",
            "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
            "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}],
            "listener_filters": [original_dst] if self.redirected else [],
            **self.listeners[port],
        }

    def upstream(self):
        if self.redirected:
            wherever = {"type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"}
            return {"name": "backend", "connect_timeout": "2s", **wherever, **self.cluster}
        address = {"socket_address": {"address": lab.BACKEND_IP, "port_value": 9000}}
        endpoint = {"endpoint": {"address": address}}
        return {
            "name": "backend",
            "type": "STATIC",
            "connect_timeout": "2s",
            "load_assignment": {"cluster_name": "backend", "endpoints": [{"lb_endpoints": [endpoint]}]},
            **self.cluster,
        }

    def start(self):
        self.write()
        watched = {
            key: {"path_config_source": {"path": str(self.folder / file)}, "resource_api_version": "V3"}
            for key, file in (("lds_config", "listener.json"), ("cds_config", "cluster.json"))
        }
        bootstrap = self.folder / "bootstrap.json"
        admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 15000}}}
        node = {"id": "gateway", "cluster": "gateway"}
        bootstrap.write_text(json.dumps({"node": node, "admin": admin, "dynamic_resources": watched}))
        binary = VERSIONS[self.version]
        command = (*self.wrap, binary, "-c", bootstrap, "--concurrency", 1, "--use-dynamic-base-id", "-l", "warning")
        self.process = self.test.start(self.host, *command)
        for port in self.ports:
            self.test.wait_for_port(self.host, port, self.process)
        return self

    def restart(self):
        lab.stop(self.process)
        return self.start()

    def wait_for_change(self, kind):
        """Waits until Envoy and its worker use the changed "listener" or "cluster"."""
        modified = lambda: self.counter(f"{kind}_manager.{kind}_modified") == 1
        self.test.wait_until(modified, f"Envoy to use the new {kind}")
        if kind == "listener":
            created = lambda: self.counter("listener_manager.listener_create_success") == len(self.ports) + 1
            self.test.wait_until(created, "Envoy's worker to listen again")

    def counter(self, name):
        """The value of one of Envoy's statistics."""
        request = "import urllib.request;print(urllib.request.urlopen('http://127.0.0.1:15000/stats').read().decode())"
        lines = self.test.run_in(self.host, "python3", "-c", request).splitlines()
        return sum(int(line.rsplit(": ", 1)[1]) for line in lines if line.startswith(f"{name}: "))
