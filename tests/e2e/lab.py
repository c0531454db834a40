"""Three hosts in network namespaces (client - gateway - backend), real programs on them, and the auditor."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

AUDITOR = os.environ.get("KEEPALIVE_AUDITOR", "keepalive-auditor")
CLIENT, GATEWAY, BACKEND = "client", "gateway", "backend"
# The address of each host on its neighbour's link.
GATEWAY_FRONT, CLIENT_IP = "10.77.1.1", "10.77.1.2"
GATEWAY_BACK, BACKEND_IP = "10.77.2.1", "10.77.2.2"
# Seconds to wait for an expected event on a loaded machine.
TIMEOUT = 60


class Lab(unittest.TestCase):
    """Each test gets new hosts. Everything that it started or made is removed afterwards."""

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="keepalive-e2e-"))
        os.chmod(self.dir, 0o755)
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        for host in (CLIENT, GATEWAY, BACKEND):
            ip("netns", "add", name(host))
            self.addCleanup(ip, "netns", "del", name(host))
            ip("-n", name(host), "link", "set", "lo", "up")
        self.wire(CLIENT, CLIENT_IP, GATEWAY, GATEWAY_FRONT)
        self.wire(BACKEND, BACKEND_IP, GATEWAY, GATEWAY_BACK)
        ip("-n", name(CLIENT), "route", "add", "default", "via", GATEWAY_FRONT)
        ip("-n", name(BACKEND), "route", "add", "default", "via", GATEWAY_BACK)
        self.run_in(GATEWAY, "sysctl", "-qw", "net.ipv4.ip_forward=1")

    def wire(self, one, one_ip, other, other_ip):
        ip("link", "add", "e0", "netns", name(one), "type", "veth", "peer", "name", f"to-{one}", "netns", name(other))
        for host, link, address in ((one, "e0", one_ip), (other, f"to-{one}", other_ip)):
            ip("-n", name(host), "address", "add", f"{address}/24", "dev", link)
            ip("-n", name(host), "link", "set", link, "up")

    def start(self, host, *command, **options):
        """A program on a host, until the test ends."""
        log = self.dir / f"{pathlib.Path(command[0]).name}-{time.monotonic_ns()}.log"
        with log.open("wb") as out:
            streams = {"stdin": subprocess.PIPE, "stdout": out, "stderr": out}
            process = subprocess.Popen(inside(host, command), start_new_session=True, **{**streams, **options})
        process.log = log
        self.addCleanup(stop, process)
        return process

    def run_in(self, host, *command, **options):
        ran = subprocess.run(inside(host, command), check=False, capture_output=True, text=True, **options)
        if ran.returncode:
            raise AssertionError(f"{command} ended with {ran.returncode}: {ran.stdout}{ran.stderr}")
        return ran.stdout

    def peer(self, host, *arguments):
        """Runs this file as a simple program without keepalive, see the end of the file."""
        return self.start(host, sys.executable, __file__, *map(str, arguments))

    def serve(self, host, port, how="echo"):
        self.peer(host, how, port)
        self.wait_for_port(host, port)

    def wait_for_port(self, host, port, process=None, seconds=TIMEOUT):
        def listens():
            if process is not None and process.poll() is not None:
                self.fail(f"ended with {process.returncode}:\n{process.log.read_text()[-3000:]}")
            return self.run_in(host, "ss", "-Hltn", f"sport = :{port}")

        self.wait_until(listens, f"something to listen on {host}:{port}", seconds)

    def dial(self, host, address, port, count=1, say="hello\n", until="answered"):
        """Opens connections without keepalive, and waits until the backend has answered on each."""
        clients = [self.peer(host, "dial", address, port, say) for _ in range(count)]
        for client in clients:
            self.wait_until(lambda c=client: until in c.log.read_text(), f"{address}:{port} to be {until}")
        return clients

    def wait_until(self, condition, what, seconds=TIMEOUT):
        deadline = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), deadline, f"waited {seconds} s for {what}")
            time.sleep(0.1)

    def audit(self, host, *flags):
        """The auditor's report of a host. Every connection older than a second is long-lived."""
        time.sleep(1.2)
        text = auditor("audit", "--all", "--format", "json", *self.scope(host), *flags)
        return json.loads(text)["connections"]

    def scope(self, host):
        return ("--netns", name(host), "--local-scope", "namespace", "--long-lived", "1s")

    def connections(self, host, *flags, **wanted):
        """The connections whose fields have the wanted values."""
        found = self.audit(host, *flags)
        chosen = [c for c in found if all(c[key] == value for key, value in wanted.items())]
        self.assertTrue(chosen, f"no connection of {host} has {wanted}: {json.dumps(found, indent=1)}")
        return chosen

    def assert_flagged(self, connections, keepalive):
        for connection in connections:
            self.assertIn(connection["verdict"], ("exposed", "overdue"), connection)
            self.assertEqual(connection["keepalive"], keepalive, connection)

    def assert_protected(self, connections, idle, talkative=False):
        """Checks that the connections are protected, and that the inferred KEEPIDLE is the value that was set.

        The inferred value is a lower bound. It lacks the time in which the two ends sent data after the kernel armed the timer: a moment, or
        a few seconds on a loaded machine. It may be null for a talkative program, because a probe may be hidden in the traffic. Then the
        timer itself shows the value.
        """
        for connection in connections:
            self.assertEqual((connection["verdict"], connection["keepalive"]), ("protected", "on"), connection)
            inferred = connection["keepalive_idle_seconds"]
            if inferred is None and talkative:
                inferred = connection["timer"]["expires_seconds"] + connection["wire_idle_seconds"]
            self.assertIsNotNone(inferred, connection)
            self.assertAlmostEqual(inferred, idle, delta=5, msg=connection)


def inside(host, command):
    return ["ip", "netns", "exec", name(host), *map(str, command)]


def name(host):
    return f"kae-{os.getpid()}-{host}"


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


def auditor(*arguments, status=0):
    done = subprocess.run([AUDITOR, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != status:
        raise AssertionError(f"{arguments} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def remedy(target, *flags):
    """The output of `remedy` for a target."""
    return auditor("remedy", target, *flags)


def stop(process):
    """Ends the process and all processes of its session, each by its own id."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.stdin:
        process.stdin.close()


def echo(port):
    """A server that sends everything back."""
    import threading

    def one(connection):
        while data := connection.recv(4096):
            connection.sendall(data)

    with socket.create_server(("0.0.0.0", int(port))) as listener:
        while True:
            threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()


def hold(port):
    """A server that accepts everything and never answers."""
    with socket.create_server(("0.0.0.0", int(port))) as listener:
        held = []
        while True:
            held.append(listener.accept())


def dial(host, port, say):
    """A client that sends one message and keeps the connection open."""
    with socket.create_connection((host, int(port))) as connection:
        print("connected", flush=True)
        connection.sendall(say.encode())
        connection.recv(4096)
        print("answered", flush=True)
        while connection.recv(4096):
            pass


if __name__ == "__main__":
    {"echo": echo, "hold": hold, "dial": dial}[sys.argv[1]](*sys.argv[2:])
