"""Gives agents and audits folders and files that hang: FUSE file systems whose server never answers, and FIFOs.

Usage: hung.py BINARY, as root. It needs iproute2 and /dev/fuse, and network, mount and process namespaces of its own.
"""

import base64
import concurrent.futures
import ctypes
import itertools
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

sys.path.append(os.path.dirname(os.path.abspath(__file__)))
import faults  # noqa: E402

LIBC = ctypes.CDLL(None, use_errno=True)
FLAGS = ["--idle-timeout=2s", "--long-lived=1s", "--local-scope=namespace", "--log.level=warn"]
DEADLINE = 90
# one user of a web configuration, and the hash of the password
USER, PASSWORD = "prometheus", "secret"
HASH = "$2b$14$Efjj06FqRvwMH2n22WzSiuwsCXcWP2colEg1kY9rgemOtWUajrtpi"
CREDENTIALS = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
PORTS = itertools.count(19000)
# the servers' ends of the FUSE connections: closing one would end the hang
SERVERS = []


def mount_fuse(at, answers_init):
    """Mounts a file system whose server never answers, or answers only the first message."""
    server = os.open("/dev/fuse", os.O_RDWR)
    SERVERS.append(server)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if LIBC.mount(b"hung", at.encode(), b"fuse", 0, options) != 0:
        raise OSError(ctypes.get_errno(), f"cannot mount FUSE at {at}")
    if answers_init:
        request = os.read(server, 1 << 17)
        unique = struct.unpack_from("<Q", request, 8)[0]
        answer = struct.pack("<IIIIHHIIHHI", 7, 31, 0, 0, 12, 10, 1 << 16, 1, 0, 0, 0) + bytes(28)
        os.write(server, struct.pack("<IiQ", 16 + len(answer), 0, unique) + answer)


def folder_that_hangs(kind, at):
    if kind == "fifo":
        os.mkfifo(at)
    else:
        os.mkdir(at)
        mount_fuse(at, kind == "deaf")
    return at


def file_that_hangs(kind, at):
    return at if folder_that_hangs(kind, at) and kind == "fifo" else f"{at}/file"


class Agent:
    """An agent on a port of its own."""

    def __init__(self, binary, *flags):
        self.at = f"127.0.0.1:{next(PORTS)}"
        command = [binary, "agent", f"--web.listen-address={self.at}", "--interval=500ms", *FLAGS, *flags]
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stderr=self.log)

    def metrics(self):
        request = urllib.request.Request(f"http://{self.at}/metrics", headers={"Authorization": f"Basic {CREDENTIALS}"})
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            return faults.parse(answer.read().decode())

    def health(self):
        try:
            with urllib.request.urlopen(f"http://{self.at}/healthz", timeout=DEADLINE) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def wait_for(self, condition):
        end = time.monotonic() + DEADLINE
        found = {}
        while time.monotonic() < end and self.process.poll() is None:
            try:
                found = self.metrics()
                if condition(found):
                    return found
            except OSError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"not in time; exit status {self.process.poll()}; log: {self.text()}; shown: {found}")

    def text(self):
        self.log.seek(0)
        return self.log.read()

    def end(self):
        begun = time.monotonic()
        self.process.terminate()
        status = self.process.wait(DEADLINE)
        assert status == 0, f"it ended with {status}: {self.text()}"
        return time.monotonic() - begun


def overdue(found):
    return faults.total(found, "connections", verdict="overdue")


def agent_goes_on(binary, flags, reason):
    """It finds both ends of the overdue connection, is healthy, counts the reason, and ends on a signal."""
    agent = Agent(binary, *flags)
    try:
        seen = lambda found: overdue(found) == 2 and (reason is None or reason in faults.reasons(found))
        sweeps = agent.wait_for(seen)["sweeps_total"]
        found = agent.wait_for(lambda found: seen(found) and found["sweeps_total"] >= sweeps + 3)
        assert found["sweep_incomplete"] == (reason is not None), f"sweep_incomplete is {found['sweep_incomplete']}"
        assert agent.health() == 200, "it is not healthy"
        agent.end()
        # the agent also logs that both ends became overdue
        lines = [line for line in agent.text().splitlines() if "is flagged" not in line]
        assert (reason is None) == (not lines) and len(lines) <= 6, f"log: {lines}"
        return f"{reason or 'nothing is lost'}; {lines[0].split('] ')[-1][:150] if lines else 'nothing is logged'}"
    finally:
        agent.process.kill()


def agent_refuses(binary, flags, word):
    """It does not start, and says why."""
    agent = Agent(binary, *flags)
    try:
        status = agent.process.wait(DEADLINE)
        assert status == 2 and word in agent.text(), f"it ended with {status}: {agent.text()}"
        return agent.text().strip()[:150]
    finally:
        agent.process.kill()


def agent_keeps_what_it_read(binary, flags, hang):
    """Files that begin to hang while the agent runs: the old content stays in force, and that is shown."""
    agent = Agent(binary, *flags)
    current = lambda found: {found[f"{name}_last_reload_successful"] for name in ("config", "web_config")}
    try:
        agent.wait_for(lambda found: overdue(found) == 2 and current(found) == {1})
        hang()
        agent.process.send_signal(signal.SIGHUP)
        sweeps = agent.wait_for(lambda found: current(found) == {0})["sweeps_total"]
        agent.wait_for(lambda found: overdue(found) == 2 and found["sweeps_total"] >= sweeps + 3)
        assert agent.health() == 200, "it is not healthy"
        agent.end()
        lines = agent.text().splitlines()
        assert sum("does not answer" in line for line in lines) == 2, f"log: {lines}"
        return "both are shown as not current"
    finally:
        agent.process.kill()


def audit(binary, flags, status, word, limit="2s"):
    """One sweep: its exit status, what it prints on stderr, and both ends among what it finds."""
    command = [binary, "audit", f"--idle-timeout={limit}", *FLAGS[1:], "--for=4s", "--format=json", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == status, f"it ended with {done.returncode}: {done.stderr}"
    assert word in done.stderr, f"stderr: {done.stderr}"
    if status in (0, 3) and limit == "2s":
        report = json.loads(done.stdout)
        assert report["verdicts"]["overdue"] == 2, report["verdicts"]
        assert report["sweep"]["incomplete"] == bool(word), report["sweep"]
    return f"exit status {status}; {done.stderr.strip()[:150]}"


def cases(binary, kind, folder):
    """Name, function, arguments."""
    hung = folder_that_hangs(kind, f"{folder}/hung")
    own = "--netns-dir=/run/netns"
    # the kernel says at once that a FIFO is no folder
    reason = "missing" if kind == "fifo" else "timeout"
    inside = f"/run/netns/hung-{kind}"
    folder_that_hangs(kind, inside)
    for name in ("pods", "unified"):
        os.mkdir(f"{folder}/{name}")
        folder_that_hangs(kind, f"{folder}/{name}/{name}")
    places = {
        "a netns directory": ([own, f"--netns-dir={hung}"], reason),
        "an entry of a netns directory": ([own], None),
        "the log folder": ([f"--pod-logs={hung}"], reason),
        "the cgroup root": ([f"--cgroup-root={hung}"], reason),
        "the unified tree in the cgroup root": ([f"--cgroup-root={folder}/unified"], reason),
    }
    for place, (flags, lost) in places.items():
        yield f"agent, {place}", agent_goes_on, (binary, flags, lost)
        yield f"audit, {place}", audit, (binary, flags, 0, "cannot" if lost else "")
        yield f"audit --fail-on, {place}", audit, (binary, [*flags, "--fail-on=overdue"], 3, "cannot" if lost else "")
        nothing = ([binary, [*flags, "--fail-on=overdue"], 1, "incomplete", "1h"], [binary, flags, 0, "", "1h"])[lost is None]
        yield f"audit --fail-on of nothing, {place}", audit, nothing
    config = file_that_hangs(kind, f"{folder}/config")
    word = "not a regular file" if kind == "fifo" else "has not answered"
    yield "agent, the configuration", agent_refuses, (binary, [f"--config={config}"], word)
    yield "audit, the configuration", audit, (binary, [f"--config={config}"], 2, word)
    yield "agent, the web configuration", agent_refuses, (binary, [f"--web.config.file={config}"], word)
    yield "audit, a namespace by its name", audit, (binary, [f"--netns={config}"], 1, "--netns")
    with open(f"{folder}/web.yaml", "w") as file:
        file.write(f"tls_server_config: {{ cert_file: {config}, key_file: {config} }}\n")
    yield "agent, the certificate", agent_refuses, (binary, [f"--web.config.file={folder}/web.yaml"], word)
    if kind == "fifo":
        return
    later = f"{folder}/later"
    os.mkdir(later)
    with open(f"{later}/file", "w") as file:
        file.write("long_lived: 1s\n")
    with open(f"{later}/web.yaml", "w") as file:
        file.write(f"basic_auth_users:\n  {USER}: {HASH}\n")
    flags = [f"--config={later}/file", f"--web.config.file={later}/web.yaml"]
    yield "agent, both configurations later", agent_keeps_what_it_read, (binary, flags, lambda: mount_fuse(later, kind == "deaf"))


def run(case):
    name, check, arguments = case
    begun = time.monotonic()
    try:
        outcome, detail = "ok", check(*arguments)
    except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
        outcome, detail = "FAILED", repr(error)
    print(f"{outcome:6} {time.monotonic() - begun:5.1f} s {name}: {detail}", flush=True)
    return outcome == "ok"


def main(binary):
    ends = faults.connect()
    results = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        everything = []
        for kind in ("fifo", "silent", "deaf"):
            os.mkdir(f"{scratch}/{kind}")
            everything += [(f"{kind}: {name}", *rest) for name, *rest in cases(binary, kind, f"{scratch}/{kind}")]
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            results = list(pool.map(run, everything))
        # whoever still waits is let go, and the folder can be removed
        for server in SERVERS:
            os.close(server)
    [end.close() for end in ends]
    print(f"{sum(results)} of {len(results)} cases go on beside what hangs")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
