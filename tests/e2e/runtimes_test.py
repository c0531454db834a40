"""Containers of a real Docker and a real Podman show under the names that people gave them.

Run it in a mount namespace of its own with empty file systems where the runtimes keep their state: `.ci/steps/81-runtimes` makes it.
"""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import lab

BUSYBOX = "/bin/busybox"
# A server, and a client that connects as soon as the server listens. Both ends keep the connection open.
IN_CONTAINER = """
busybox ifconfig lo 127.0.0.1 up 2>/dev/null
busybox nc -ll -p 9000 -e /bin/busybox cat &
until busybox netstat -ltn | busybox grep -q :9000; do busybox usleep 50000; done
busybox tail -f /dev/null | busybox nc 127.0.0.1 9000
"""
DOCKERD = ("dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs")
# crun refuses a machine with both cgroup versions.
PODMAN = ("podman", "--runtime=runc", "--cgroup-manager=cgroupfs", "--storage-driver=vfs")
LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000")


class RuntimesTest(unittest.TestCase):
    start, wait_until = lab.Lab.start, lab.Lab.wait_until

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="keepalive-e2e-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def test_docker_containers_show_with_their_names(self):
        daemon = subprocess.Popen(DOCKERD, stdout=(self.dir / "dockerd.log").open("wb"), stderr=subprocess.STDOUT)
        self.addCleanup(lambda: (daemon.terminate(), daemon.wait()))
        self.wait_until(lambda: self.answers(daemon), "dockerd to answer")
        self.check("docker", name="shop-web-1")

    def answers(self, daemon):
        self.assertIsNone(daemon.poll(), (self.dir / "dockerd.log").read_text()[-3000:])
        return subprocess.run(("docker", "version"), capture_output=True).returncode == 0

    def test_podman_containers_show_with_their_names(self):
        self.check(*PODMAN, name="shop_db.1")

    def check(self, *runtime, name):
        def run(*words, **options):
            return subprocess.run((*runtime, *words), check=True, capture_output=True, **options).stdout.decode().strip()

        root = self.dir / "image" / "bin"
        root.mkdir(parents=True)
        shutil.copy(BUSYBOX, root)
        image = subprocess.run(("tar", "-C", root.parent, "-c", "."), check=True, capture_output=True).stdout
        run("import", "-", "keepalive-e2e:1", input=image)
        run("run", "--detach", f"--name={name}", "--network=none", *LIMITS, "keepalive-e2e:1", BUSYBOX, "sh", "-c", IN_CONTAINER)
        self.addCleanup(run, "rm", "--force", name)

        def owners():
            text = lab.auditor("audit", "--all", "--format", "json", "--local-scope", "namespace", "--owner", name)
            return [connection["owner"] for connection in json.loads(text)["connections"]]

        def connected():
            state = run("inspect", "--format={{.State.Running}}", name)
            self.assertEqual(state, "true", run("logs", name))
            pid = run("inspect", "--format={{.State.Pid}}", name)
            shown = subprocess.run(("nsenter", f"--net=/proc/{pid}/ns/net", "ss", "-Htn"), check=True, capture_output=True)
            return len(shown.stdout.splitlines()) == 2

        self.wait_until(connected, "a connection in the container")
        found = owners()
        self.assertEqual([owner["container"] for owner in found], [name, name], found)


if __name__ == "__main__":
    unittest.main()
