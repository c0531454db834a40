#!/usr/bin/env python3
"""Attacks the agent's port in five ways, one after the other and all at once, and measures who is still answered.

Two agents run, each with 256 MiB of memory where a memory cgroup can be made: one in plain text, one with TLS and passwords of bcrypt
cost 14. While attackers are at work, a client opens a connection every 100 ms and asks for /healthz or /metrics.

usage: run.py BINARY [--seconds N] [--short] [--limit SECONDS]
"""

import argparse
import base64
import multiprocessing
import os
import random
import re
import select
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

MEMORY = 256 << 20
# of the password `secret`, cost 14
HASH = "$2b$14$Efjj06FqRvwMH2n22WzSiuwsCXcWP2colEg1kY9rgemOtWUajrtpi"
RIGHT = "Basic " + base64.b64encode(b"prometheus:secret").decode()
FULL = {"idle": 2000, "slow": 100, "half": 1000, "tls": 300, "guess": 60, "crowd": 4000}
SHORT = {"idle": 1200, "slow": 100, "half": 600, "tls": 150, "guess": 60, "crowd": 1000}


class Cgroup:
    """A memory limit for one process, by cgroup v2 or v1."""

    def __init__(self, name):
        self.folder = None
        for root, limit, used in [
            ("/sys/fs/cgroup", "memory.max", "memory.peak"),
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
        ]:
            folder = f"{root}/keepalive-auditor-attack-{name}-{os.getpid()}"
            try:
                os.mkdir(folder)
            except OSError:
                continue
            # the folder of mounts, where cgroup v1 is used, is none itself
            if not os.path.exists(f"{folder}/cgroup.procs"):
                os.rmdir(folder)
                continue
            try:
                with open(f"{folder}/{limit}", "w") as file:
                    file.write(str(MEMORY))
                self.folder, self.used = folder, used
                return
            except OSError:
                os.rmdir(folder)
        print("no memory cgroup can be made here: memory is measured, not limited")

    def add(self, pid):
        if self.folder:
            with open(f"{self.folder}/cgroup.procs", "w") as file:
                file.write(str(pid))

    def peak(self):
        try:
            with open(f"{self.folder}/{self.used}") as file:
                return int(file.read())
        except (OSError, TypeError):
            return None

    def remove(self):
        if self.folder:
            os.rmdir(self.folder)
            self.folder = None


class Agent:
    def __init__(self, binary, name, folder, flags):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.at = probe.getsockname()
        self.name, self.tls = name, "--web.config.file" in flags
        self.cgroup = Cgroup(name)
        self.log = open(f"{folder}/{name}.log", "w+")
        address = f"{self.at[0]}:{self.at[1]}"
        command = [binary, "agent", "--web.listen-address", address, "--interval", "1s", *flags]
        self.process = subprocess.Popen(command, stderr=self.log, stdin=subprocess.DEVNULL)
        self.cgroup.add(self.process.pid)
        end = time.monotonic() + 60
        while True:
            try:
                if self.get("/readyz")[0] == 200:
                    break
            except OSError:
                pass
            if time.monotonic() > end or self.process.poll() is not None:
                sys.exit(f"the agent {name} does not start")
            time.sleep(0.05)

    def connect(self, timeout=15.0):
        stream = socket.create_connection(self.at, timeout)
        return context().wrap_socket(stream) if self.tls else stream

    def get(self, path, timeout=15.0, authorization=RIGHT):
        with self.connect(timeout) as stream:
            stream.sendall(f"GET {path} HTTP/1.0\r\nAuthorization: {authorization}\r\n\r\n".encode())
            answer = b""
            while part := stream.recv(65536):
                answer += part
        return (int(answer.split(b" ", 2)[1]), answer) if answer else (0, answer)

    def status(self, name):
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(rf"{name}:\s+(\d+)", file.read())[1])

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def metric(self, name):
        text = self.get("/metrics")[1].decode()
        return float(re.search(rf"^{name} (\S+)$", text, re.M)[1])


def web_config(folder):
    """A web configuration with a certificate and a password of cost 14."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
        + ["-subj", "/CN=attack", "-keyout", f"{folder}/tls.key", "-out", f"{folder}/tls.crt"],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    with open(f"{folder}/web.yaml", "w") as file:
        file.write("tls_server_config: { cert_file: tls.crt, key_file: tls.key }\n")
        file.write(f"basic_auth_users:\n  prometheus: {HASH}\n")
    return f"{folder}/web.yaml"


CONTEXT = None


def context():
    global CONTEXT
    if CONTEXT is None:
        CONTEXT = ssl.create_default_context()
        CONTEXT.check_hostname = False
        CONTEXT.verify_mode = ssl.CERT_NONE
    return CONTEXT


# -- attackers: each runs in a process of its own until it is terminated


def hold(at, count, first, pause, buffer=None, read=0):
    """Keeps `count` connections open that send `first`; opens them again when they are closed."""
    held = {}
    poll = select.poll()
    last_read = time.monotonic()
    while True:
        opened = 0
        while len(held) < count and opened < 200:
            stream = socket.socket()
            if buffer:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            stream.settimeout(5)
            try:
                stream.connect(at)
                stream.sendall(first)
            except OSError:
                stream.close()
                break
            stream.setblocking(False)
            held[stream.fileno()] = stream
            poll.register(stream, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
            opened += 1
        for number, _ in poll.poll(pause * 1000):
            poll.unregister(number)
            held.pop(number).close()
        if read and time.monotonic() - last_read > 1:
            last_read = time.monotonic()
            for stream in held.values():
                try:
                    stream.recv(read)
                except OSError:
                    pass


def idle(at, count):
    hold(at, count, b"", 0.1)


def half(at, count):
    hold(at, count, b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: ", 0.1)


def slow(at, count):
    hold(at, count, b"GET /api/v1/report HTTP/1.1\r\nHost: a\r\n\r\n", 0.1, buffer=2048, read=100)


def handshakes(at, rate):
    """TLS handshakes at `rate` a second, by four threads."""

    def one():
        start, done = time.monotonic(), 0
        while True:
            try:
                with socket.create_connection(at, 5) as stream, context().wrap_socket(stream):
                    pass
            except OSError:
                pass
            done += 1
            time.sleep(max(0, start + done / (rate / 4) - time.monotonic()))

    for _ in range(3):
        threading.Thread(target=one, daemon=True).start()
    one()


def guess(at, count):
    """Wrong passwords, each a new one, by `count` threads that wait for their answers."""

    def one():
        while True:
            wrong = base64.b64encode(f"prometheus:{random.random()}".encode()).decode()
            request = f"GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {wrong}\r\n\r\n".encode()
            try:
                with socket.create_connection(at, 5) as stream, context().wrap_socket(stream) as secure:
                    for _ in range(20):
                        secure.sendall(request)
                        secure.recv(4096)
                        time.sleep(0.05)
            except OSError:
                time.sleep(0.05)

    for _ in range(count - 1):
        threading.Thread(target=one, daemon=True).start()
    one()


def crowd(count, ready):
    """Connections that fill the report."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    held = []
    for _ in range(count):
        client = socket.create_connection(listener.getsockname())
        held += [client, listener.accept()[0]]
    ready.set()
    time.sleep(3600)


# -- measurement


def measure(agents, attackers, seconds):
    """Latencies by agent and path while the attackers are at work."""
    processes = [multiprocessing.Process(target=work, args=arguments, daemon=True) for work, *arguments in attackers]
    for process in processes:
        process.start()
    latencies = {}
    lock = threading.Lock()
    stop = threading.Event()

    def ask(agent):
        turn = 0
        while not stop.is_set():
            path = ["/healthz", "/metrics"][turn % 2]
            turn += 1
            start = time.monotonic()
            try:
                status = agent.get(path)[0]
            except OSError:
                status = 0
            took = time.monotonic() - start
            with lock:
                latencies.setdefault((agent.name, path), []).append((took, status))
            time.sleep(0.1)

    askers = [threading.Thread(target=ask, args=(agent,)) for agent in agents]
    for asker in askers:
        asker.start()
    time.sleep(seconds)
    stop.set()
    for asker in askers:
        asker.join()
    for process in processes:
        process.kill()
        process.join()
    return latencies


def attack(name, agents, attackers, seconds, limit, is_short):
    before = {agent.name: agent.metric("keepalive_auditor_sweeps_total") for agent in agents}
    latencies = measure(agents, attackers, seconds)
    failures = []
    for (agent, path), answers in sorted(latencies.items()):
        times = sorted(took for took, _ in answers)
        bad = sum(status != 200 for _, status in answers)
        line = f"{name:12} {agent:8} {path:9} {len(times):4} asked, {bad} failed, "
        line += f"median {times[len(times) // 2] * 1000:6.1f} ms, longest {times[-1] * 1000:7.1f} ms"
        print(line)
        # in the short form others may use the processor, too
        if bad or times[len(times) // 2 if is_short else -1] > limit:
            failures.append(line)
    for agent in agents:
        swept = agent.metric("keepalive_auditor_sweeps_total") - before[agent.name]
        evicted = agent.metric("keepalive_auditor_web_connections_evicted_total")
        peak = agent.cgroup.peak()
        print(
            f"{name:12} {agent.name:8} {swept:.0f} sweeps in {seconds} s, resident {agent.status('VmRSS') / 1024:.1f} MiB, "
            f"highest {agent.status('VmHWM') / 1024:.1f} MiB"
            + (f" (cgroup {peak / 2**20:.1f} MiB)" if peak else "")
            + f", {agent.descriptors()} descriptors, {evicted:.0f} evicted"
        )
        if agent.status("VmHWM") * 1024 > MEMORY * 3 // 4:
            failures.append(f"{name}: {agent.name} used {agent.status('VmHWM') / 1024:.1f} of {MEMORY >> 20} MiB")
        if swept < seconds / 5:
            failures.append(f"{name}: only {swept:.0f} sweeps of {agent.name} in {seconds} s")
    return failures


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--seconds", type=int, help="how long each attack lasts")
    parser.add_argument("--short", action="store_true", help="fewer attackers for a shorter time, on a machine that others use")
    parser.add_argument("--limit", type=float, default=1.0, help="an answer (--short: half of them) must come within this many seconds")
    options = parser.parse_args()
    sizes = SHORT if options.short else FULL
    seconds = options.seconds or (5 if options.short else 20)
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        ready = multiprocessing.Event()
        crowded = multiprocessing.Process(target=crowd, args=(sizes["crowd"], ready), daemon=True)
        crowded.start()
        ready.wait(60)
        plain = Agent(options.binary, "plain", folder, [])
        guarded = Agent(options.binary, "guarded", folder, ["--web.config.file", web_config(folder)])
        agents = [plain, guarded]
        # the right password is checked once, and the report made once
        for agent in agents:
            report = agent.get("/api/v1/report", 30)[1]
            print(f"{agent.name}: a report of {len(report) / 2**20:.1f} MiB")
        time.sleep(2)
        resident = {agent.name: agent.status("VmRSS") for agent in agents}
        for agent in agents:
            print(f"before       {agent.name:8} resident {resident[agent.name] / 1024:.1f} MiB, {agent.descriptors()} descriptors")
        attacks = {
            "idle": [plain, [idle, plain.at, sizes["idle"]]],
            "half": [plain, [half, plain.at, sizes["half"]]],
            "slow": [plain, [slow, plain.at, sizes["slow"]]],
            "handshakes": [guarded, [handshakes, guarded.at, sizes["tls"]]],
            "guesses": [guarded, [guess, guarded.at, sizes["guess"]]],
        }
        failures += attack("nobody", agents, [], 3, options.limit, options.short)
        for name, (agent, attacker) in attacks.items():
            failures += attack(name, [agent], [attacker], seconds, options.limit, options.short)
        everything = [attacker for _, attacker in attacks.values()]
        failures += attack("all at once", agents, everything, seconds, options.limit, options.short)
        end = time.monotonic() + 30
        for agent in agents:
            while time.monotonic() < end and agent.status("VmRSS") > resident[agent.name] + 16 * 1024:
                time.sleep(0.5)
            after = agent.status("VmRSS")
            print(f"after        {agent.name:8} resident {after / 1024:.1f} MiB, {agent.descriptors()} descriptors")
            if after > resident[agent.name] + 16 * 1024:
                failures.append(f"{agent.name} keeps {after / 1024:.1f} MiB")
        for agent in agents:
            if agent.process.poll() is not None:
                failures.append(f"{agent.name} has died")
            agent.process.terminate()
            if agent.process.wait(10) != 0:
                failures.append(f"{agent.name} ended with {agent.process.returncode}")
            agent.cgroup.remove()
            agent.log.seek(0)
            for line in agent.log:
                if "ERROR" in line or "panic" in line:
                    failures.append(f"{agent.name} logged: {line.strip()}")
        crowded.kill()
    for failure in failures:
        print("FAILED", failure, file=sys.stderr)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
