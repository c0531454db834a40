"""What `remedy docker` and `remedy compose` print, given to a real Docker, a real Podman and a real docker-compose.

Run it in a mount namespace of its own, as runtimes_test: `.ci/steps/81-runtimes` makes it.
"""

import json
import subprocess
import sys
import unittest

import lab
import runtimes_test as runtimes
from remedied import FLAGS, IDLE, INTERVAL, PROBES

# Keepalive on with the system's times, as soon as the container has a network.
CLIENT = f"""
import socket, time
while True:
    try:
        client = socket.create_connection(("{lab.BACKEND_IP}", 9000), 1)
        break
    except OSError:
        time.sleep(0.1)
client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
client.settimeout(None)
client.recv(1)
"""
IMAGE = "keepalive-e2e:python"
NAME = "shop-client"
# Python is the node's.
SHARE = "/usr:/usr:ro"
COMPOSE = {
    "services": {
        "app": {
            "image": IMAGE, "container_name": NAME, "network_mode": "none", "volumes": [SHARE],
            "command": ["/usr/bin/python3", "-c", CLIENT], "ulimits": {"nofile": 1024, "nproc": 1000},
        }
    },
}  # fmt: skip


class ContainerSysctlsTest(lab.Lab):
    def setUp(self):
        super().setUp()
        self.serve(lab.BACKEND, 9000)
        self.links = 0

    def run_here(self, *command, **options):
        done = subprocess.run([*map(str, command)], capture_output=True, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.decode().strip()

    def import_image(self, *runtime):
        root = self.dir / "image"
        (root / "usr").mkdir(parents=True)
        for name in ("bin", "lib", "lib64"):
            (root / name).symlink_to(f"usr/{name}")
        image = subprocess.run(("tar", "-C", root, "-c", "."), check=True, capture_output=True).stdout
        self.run_here(*runtime, "import", "-", IMAGE, input=image)

    def connect(self, *runtime):
        """Gives the container a link to the gateway, and returns its connection."""
        pid = self.run_here(*runtime, "inspect", "--format={{.State.Pid}}", NAME)
        self.links += 1
        subnet, link = f"10.78.{self.links}", f"c{self.links}"
        lab.ip("link", "add", link, "netns", lab.name(lab.GATEWAY), "type", "veth", "peer", "name", "e0", "netns", pid)
        lab.ip("-n", lab.name(lab.GATEWAY), "address", "add", f"{subnet}.1/24", "dev", link)
        lab.ip("-n", lab.name(lab.GATEWAY), "link", "set", link, "up")
        for words in (f"address add {subnet}.2/24 dev e0", "link set e0 up", f"route add default via {subnet}.1"):
            self.run_here("nsenter", f"--net=/proc/{pid}/ns/net", "ip", *words.split())
        timers = ("nsenter", f"--net=/proc/{pid}/ns/net", "ss", "-Htno", "state", "established")
        self.wait_until(lambda: "timer:(keepalive" in self.run_here(*timers), "the client to set its option")

        def audit():
            flags = ("--exact", "--owner", NAME, "--local-scope", "namespace", "--long-lived", "1ms")
            (found,) = json.loads(lab.auditor("audit", "--all", "--format", "json", *flags))["connections"]
            return found

        self.wait_until(lambda: audit()["verdict"] != "young", "the connection to be old enough")
        return audit()

    def check(self, target, program, before, after):
        self.assertEqual((before["verdict"], before["keepalive"]), ("exposed", "late"), before)
        self.assertEqual((after["verdict"], after["keepalive"]), ("protected", "on"), after)
        seen = [after["exact"][name] for name in ("tcp_keepidle_seconds", "tcp_keepintvl_seconds", "tcp_keepcnt")]
        self.assertEqual(seen, [IDLE, INTERVAL, PROBES])
        print(f"\n| {target} | {program} | late | protected | {IDLE} s |", file=sys.stderr, flush=True)

    def container(self, runtime, *options):
        run = ("run", "--detach", f"--name={NAME}", "--network=none", f"--volume={SHARE}", *runtimes.LIMITS, *options)
        self.run_here(*runtime, *run, IMAGE, "/usr/bin/python3", "-c", CLIENT)
        found = self.connect(*runtime)
        self.run_here(*runtime, "rm", "--force", NAME)
        return found

    def docker_run(self, program, *runtime):
        self.import_image(*runtime)
        self.check("docker", program, self.container(runtime), self.container(runtime, *lab.remedy("docker", *FLAGS).split()))

    def test_podman(self):
        self.docker_run("podman run", *runtimes.PODMAN)

    def test_docker_and_compose(self):
        daemon = self.start_docker()
        self.docker_run("docker run", "docker")
        base, override = self.dir / "compose.yaml", self.dir / "compose.override.yaml"
        base.write_text(json.dumps(COMPOSE))
        override.write_text(lab.remedy("compose", *FLAGS))
        self.check("compose", "docker-compose up", self.compose(base), self.compose(base, override))
        self.assertIsNone(daemon.poll())

    def compose(self, *files):
        compose = ("docker-compose", "--project-name", "shop", *(word for file in files for word in ("-f", file)))
        self.run_here(*compose, "up", "--detach")
        found = self.connect("docker")
        self.run_here(*compose, "down", "--timeout", "0")
        return found

    def start_docker(self):
        log = self.dir / "dockerd.log"
        daemon = subprocess.Popen(runtimes.DOCKERD, stdout=log.open("wb"), stderr=subprocess.STDOUT)
        self.addCleanup(lambda: (daemon.terminate(), daemon.wait()))

        def answers():
            self.assertIsNone(daemon.poll(), log.read_text()[-3000:])
            return subprocess.run(("docker", "version"), capture_output=True).returncode == 0

        self.wait_until(answers, "dockerd to answer")
        return daemon


if __name__ == "__main__":
    unittest.main()
