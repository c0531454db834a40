"""Injects faults into the running agent, and into audits, while a connection is overdue: each is reported, and no verdict is lost.

Usage: faults.py BINARY, as root. It needs strace and iproute2, and makes network, mount and process namespaces of its own.
"""

import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

LISTEN = "127.0.0.1:9986"
METRIC = "keepalive_auditor_"
DEADLINE = 60

# The name, the accepted failure reasons, the fault that strace injects, and the path that it concerns.
INJECTED = [
    ("EMFILE when opening /proc", {"too_many_files"}, "openat:error=EMFILE", "/proc"),
    ("ENOMEM when opening /proc", {"no_memory"}, "openat:error=ENOMEM", "/proc"),
    ("EIO when listing /proc", {"io"}, "getdents64:error=EIO", "/proc"),
    ("EIO in the middle of listing /proc", {"io"}, "getdents64:error=EIO:when=2+2", "/proc"),
    ("ENFILE when opening /run/netns", {"too_many_files"}, "openat:error=ENFILE", "/run/netns"),
    ("EACCES when opening /run/netns", {"permission"}, "openat:error=EACCES", "/run/netns"),
    ("EIO when listing /run/netns", {"io"}, "getdents64:error=EIO", "/run/netns"),
    ("EMFILE when opening a bind mount", {"too_many_files"}, "openat:error=EMFILE", "/run/netns/client"),
    ("EIO when opening a bind mount", {"io"}, "openat:error=EIO", "/run/netns/client"),
    ("EACCES when opening a bind mount", {"permission"}, "openat:error=EACCES", "/run/netns/client"),
    ("EIO from statx of a bind mount", {"io"}, "statx:error=EIO", "/run/netns/client"),
    ("ENOMEM from readlink", {"no_memory"}, "readlink:error=ENOMEM", None),
    ("EPERM from setns", {"permission"}, "setns:error=EPERM", None),
    ("ENOMEM from setns", {"no_memory"}, "setns:error=ENOMEM", None),
    ("EMFILE from socket", {"too_many_files"}, "socket:error=EMFILE", None),
    ("ENFILE from socket", {"too_many_files"}, "socket:error=ENFILE", None),
    ("ENOBUFS from socket", {"no_memory"}, "socket:error=ENOBUFS", None),
    ("EPROTONOSUPPORT from socket", {"no_tcp_diag"}, "socket:error=EPROTONOSUPPORT", None),
    ("EACCES from socket", {"permission"}, "socket:error=EACCES", None),
    ("ENOMEM from connect", {"no_memory"}, "connect:error=ENOMEM", None),
    ("EAGAIN from clone", {"thread"}, "clone3:error=EAGAIN", None),
    ("EIO when reading counters", {"io"}, "openat:error=EIO", "/proc/thread-self/net/snmp"),
    ("a directory that hangs", {"timeout"}, "openat:delay_enter=8000000", "/run/netns"),
]


def metrics():
    with urllib.request.urlopen(f"http://{LISTEN}/metrics", timeout=30) as answer:
        return parse(answer.read().decode())


def parse(text):
    found = {}
    for line in text.splitlines():
        if line.startswith(METRIC):
            name, value = line[len(METRIC):].rsplit(" ", 1)
            found[name] = float(value)
    return found


def total(found, name, **labels):
    """The sum of a family's series with these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    series = (key for key in found if re.split("[{]", key)[0] == name and all(text in key for text in wanted))
    return sum(found[key] for key in series)


def reasons(found):
    return {re.search('reason="([^"]*)"', key)[1]: value for key, value in found.items() if "failures_total{reason" in key}


def wait_for(what, condition):
    end = time.monotonic() + DEADLINE
    while True:
        found = metrics()
        if condition(found):
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not after {DEADLINE} s")
        time.sleep(0.1)


class Agent:
    def __init__(self, binary, *more):
        command = [*([binary] if isinstance(binary, str) else binary), "agent", f"--web.listen-address={LISTEN}", "--idle-timeout=2s", "--long-lived=1s", "--local-scope=namespace"]
        self.process = subprocess.Popen([*command, "--interval=500ms", "--log.level=warn", *more])
        end = time.monotonic() + DEADLINE
        while True:
            try:
                return metrics() and None
            except OSError:
                assert time.monotonic() < end and self.process.poll() is None, "the agent does not serve"
                time.sleep(0.1)

    def strace(self, inject, path):
        """Attaches strace and waits until it has every thread."""
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={inject.split(':')[0]}", "-e", f"inject={inject}"]
        if path:
            command += ["-P", path]
        tracer = subprocess.Popen([*command, "-p", str(self.process.pid)])
        tasks = f"/proc/{self.process.pid}/task"

        def traced(thread):
            try:
                with open(f"{tasks}/{thread}/status") as status:
                    return f"TracerPid:\t{tracer.pid}\n" in status.read()
            except FileNotFoundError:
                return True

        while not all(traced(thread) for thread in os.listdir(tasks)):
            assert tracer.poll() is None, f"strace cannot attach: {command}"
            time.sleep(0.05)
        return tracer


def enter(namespace):
    if ctypes.CDLL(None, use_errno=True).setns(namespace, 0) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def connect():
    """An idle connection between two named namespaces; returns what keeps it open."""
    run = lambda *words: subprocess.run(words, check=True)
    os.makedirs("/run/netns", exist_ok=True)
    run("ip", "link", "set", "lo", "up")
    for name in ("client", "server"):
        run("ip", "netns", "add", name)
    run("ip", "link", "add", "v0", "netns", "client", "type", "veth", "peer", "name", "v1", "netns", "server")
    ends = []
    for name, link, address in (("server", "v1", "10.99.1.2"), ("client", "v0", "10.99.1.1")):
        run("ip", "-n", name, "address", "add", f"{address}/24", "dev", link)
        run("ip", "-n", name, "link", "set", link, "up")
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    for name in ("server", "client"):
        there = os.open(f"/run/netns/{name}", os.O_RDONLY)
        enter(there)
        os.close(there)
        if name == "server":
            listener = socket.create_server(("10.99.1.2", 8080))
            ends.append(listener)
        else:
            ends.append(socket.create_connection(("10.99.1.2", 8080)))
    enter(home)
    ends.append(ends[0].accept()[0])
    return ends


def check(name, before, found, expected):
    """Whether a sweep reports this fault and loses no verdict."""
    wrong = []
    counted = {reason for reason, count in reasons(found).items() if count > reasons(before).get(reason, 0)}
    if not counted & expected:
        wrong.append(f"counted {counted or 'nothing'}, expected {expected}")
    if total(found, "connections", verdict="overdue") != total(before, "connections", verdict="overdue"):
        wrong.append(f"overdue: {total(found, 'connections', verdict='overdue'):g}")
    if total(found, "silence_seconds_count") != total(before, "silence_seconds_count"):
        wrong.append("an idle time counted as ended")
    if found.get("sweep_incomplete") != 1:
        wrong.append("the sweep is not incomplete")
    try:
        urllib.request.urlopen(f"http://{LISTEN}/", timeout=30).close()
    except OSError as error:
        wrong.append(f"the page: {error}")
    print(f"{'FAILED' if wrong else 'ok':6} {name}: {'; '.join(wrong) or ', '.join(sorted(counted))}", flush=True)
    return not wrong


def under(agent, name, expected, begin, end):
    """Checks several sweeps under a fault, and that they recover from it."""
    before = wait_for("two overdue ends, whole sweeps", is_good)
    begin()
    try:
        broken = lambda found: set(reasons(found)) & expected and total(found, "namespace_failures_total") > total(
            before, "namespace_failures_total"
        )
        try:
            found = wait_for(name, broken)
            seen = found["sweeps_total"]
            found = wait_for(name, lambda found: found["sweeps_total"] >= seen + 2)
        except AssertionError:
            found = metrics()
        good = check(name, before, found, expected)
    finally:
        end()
    wait_for(f"{name}: recovery", is_good)
    assert agent.process.poll() is None, f"{name}: the agent ended"
    return good


def audit_under(binary, name, expected, inject, path):
    """One audit under a fault: it warns, knows that it is incomplete, and ends with 3 where it found something, else with 1."""
    tracer = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={inject.split(':')[0]}", "-e", f"inject={inject}"]
    command = [*tracer, *(["-P", path] if path else []), binary, "audit", "--idle-timeout=2s", "--long-lived=1s"]
    command += ["--local-scope=namespace", "--format=json", "--fail-on=overdue"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    report = json.loads(done.stdout) if done.stdout else None
    found = report["verdicts"]["overdue"] if report else 0
    wrong = []
    if done.returncode != (3 if found else 1):
        wrong.append(f"it ended with {done.returncode}, found {found} overdue")
    if report and not report["sweep"]["incomplete"]:
        wrong.append("the sweep is not incomplete")
    if not ("WARN" in done.stderr or "error:" in done.stderr):
        wrong.append(f"stderr says nothing: {done.stderr}")
    outcome = "; ".join(wrong) or f"{found} overdue, exit status {done.returncode}, {done.stderr.splitlines()[0][:120]}"
    print(f"{'FAILED' if wrong else 'ok':6} audit, {name}: {outcome}", flush=True)
    return not wrong


def hidden(binary):
    """An ordinary user before a procfs with hidepid=2: `audit` and the agent say that processes are hidden."""
    # the user must be able to execute it
    copy = "/run/keepalive-auditor"
    shutil.copy(binary, copy)
    script = 'mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all -- "$0" "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, copy]
    audit = subprocess.run([*command, "audit", "--fail-on=overdue", "--format=json"], capture_output=True, text=True, timeout=DEADLINE)
    wrong = []
    if audit.returncode != 1 or "hidepid" not in audit.stderr or not json.loads(audit.stdout)["sweep"]["incomplete"]:
        wrong.append(f"audit ended with {audit.returncode}: {audit.stderr}")
    agent = Agent(command)
    try:
        found = wait_for("what is hidden is counted", lambda found: "hidden" in reasons(found))
        if found["sweep_incomplete"] != 1:
            wrong.append("the agent's sweep is not incomplete")
    finally:
        agent.process.terminate()
        agent.process.wait()
    print(f"{'FAILED' if wrong else 'ok':6} hidepid=2, as nobody: {'; '.join(wrong) or audit.stderr.splitlines()[0]}", flush=True)
    return not wrong


def is_good(found):
    return found.get("sweep_incomplete") == 0 and total(found, "connections", verdict="overdue") == 2


def main(binary):
    ends = connect()
    agent = Agent(binary)
    wait_for("two overdue ends, whole sweeps", is_good)
    results = [audit_under(binary, *fault) for fault in INJECTED]
    try:
        for name, expected, inject, path in INJECTED:
            tracer = []
            results.append(
                under(
                    agent, name, expected,
                    lambda: tracer.append(agent.strace(inject, path)),
                    lambda: (tracer[0].send_signal(signal.SIGINT), tracer[0].wait()),
                )
            )
        # something that blocks whoever opens it is not a namespace, and nothing else
        os.mkfifo("/run/netns/fifo")
        before = metrics()
        found = wait_for("sweeps beside a FIFO", lambda found: found["sweeps_total"] >= before["sweeps_total"] + 3)
        results.append(is_good(found))
        print(f"{'ok' if is_good(found) else 'FAILED':6} a FIFO beside the bind mounts", flush=True)
    finally:
        agent.process.terminate()
        agent.process.wait()
        [end.close() for end in ends]
    results.append(hidden(binary))
    print(f"{sum(results)} of {len(results)} faults are reported and lose no state")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
