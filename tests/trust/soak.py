"""Runs two agents while namespaces come and go, system calls fail, and clients attack, then compares `/metrics` with the truth.

Usage: soak.py BINARY MINUTES, as root, in network, mount and process namespaces of its own: `tests/trust/soak` makes them.
It needs strace, iproute2 and openssl.

One agent serves plain text, one TLS with passwords. Each has 256 MiB where a memory cgroup can be made. Every cycle ends in a calm
moment, in which resident memory, descriptors and threads are sampled. The slopes of these samples are printed.
"""

import multiprocessing
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path += [f"{HERE}/../attack", f"{HERE}/../faults"]
import faults  # noqa: E402
import run as attack  # noqa: E402

CYCLE = 75
CALM = 12
PAIRS = 24
# what is shown is settled this long after the last change: two sweeps, and the limit of 2 s
SETTLE = 60
FLAGS = ["--idle-timeout=2s", "--long-lived=1s", "--local-scope=namespace", "--log.level=warn"]
SIZES = {"idle": 2000, "half": 1000, "slow": 100, "tls": 300, "guess": 60}
# its effect is a sweep that takes longer, which the fault "a directory that hangs" has too
FAULTS = [fault for fault in faults.INJECTED if "delay" not in fault[2]]


def ip(*words):
    subprocess.run(["ip", *words], check=True)


class Home:
    """The namespace to return to."""

    descriptor = None


def inside(name, work):
    """Runs `work` in a named namespace."""
    there = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        faults.enter(there)
        return work()
    finally:
        os.close(there)
        faults.enter(Home.descriptor)


class Pair:
    """Two namespaces with a link, and idle connections between them."""

    number = 0

    def __init__(self):
        Pair.number += 1
        self.names = [f"soak{Pair.number}{end}" for end in "ab"]
        self.held = []
        for name in self.names:
            ip("netns", "add", name)
        ip("link", "add", "v", "netns", self.names[0], "type", "veth", "peer", "name", "v", "netns", self.names[1])
        for number, name in enumerate(self.names):
            ip("-n", name, "address", "add", f"10.99.0.{number + 1}/24", "dev", "v")
            ip("-n", name, "link", "set", "v", "up")
        self.listener = inside(self.names[0], lambda: socket.create_server(("10.99.0.1", 8080)))

    def connect(self, keepalive):
        client = inside(self.names[1], lambda: socket.create_connection(("10.99.0.1", 8080), 10))
        server = self.listener.accept()[0]
        if keepalive:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.held.append((keepalive, client, server))

    def close_one(self):
        if self.held:
            _, *ends = self.held.pop(random.randrange(len(self.held)))
            [end.close() for end in ends]

    def end(self):
        while self.held:
            self.close_one()
        self.listener.close()
        for name in self.names:
            ip("netns", "del", name)

    def truth(self):
        """What `/metrics` must show: connections by namespace, keepalive and verdict."""
        shown = {}
        for name in self.names:
            for keepalive, *_ in self.held:
                key = (name, "on", "protected") if keepalive else (name, "off", "overdue")
                shown[key] = shown.get(key, 0) + 1
        return shown


def churn(pairs):
    """One change: a namespace or a connection comes or goes. The first pairs stay."""
    what = random.random()
    if what < 0.15 and len(pairs) < PAIRS:
        pair = Pair()
        for number in range(random.randrange(1, 12)):
            pair.connect(number % 2 == 0)
        pairs.append(pair)
    elif what < 0.3 and len(pairs) > 6:
        pairs.pop(random.randrange(4, len(pairs))).end()
    elif what < 0.7:
        random.choice(pairs).connect(random.random() < 0.5)
    else:
        random.choice(pairs[1:]).close_one()


def shown(agent):
    """Connections of the soak's namespaces by namespace, keepalive and verdict; and the rest of `/metrics`."""
    text = agent.get("/metrics", 30)[1].decode()
    found = {}
    for labels, value in re.findall(r"^keepalive_auditor_connections\{([^}]*)\} (\S+)$", text, re.M):
        label = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if label["container"].startswith("soak"):
            key = (label["container"], label["keepalive"], label["verdict"])
            found[key] = found.get(key, 0) + int(float(value))
    return {key: count for key, count in found.items() if count}, text


class Health(threading.Thread):
    """Asks for /healthz and /metrics every second."""

    def __init__(self, agent):
        super().__init__(daemon=True)
        self.agent, self.slow, self.failed, self.times = agent, [], [], []
        # set while strace stops every system call of the agent: then only an answer is expected
        self.is_traced = False

    def run(self):
        turn = 0
        while True:
            path = ["/healthz", "/metrics"][turn % 2]
            turn += 1
            was_traced, start = self.is_traced, time.monotonic()
            try:
                status = self.agent.get(path, 20)[0]
            except OSError as error:
                status = repr(error)
            took = time.monotonic() - start
            traced = was_traced or self.is_traced
            if status != 200 and not traced:
                self.failed.append((path, status, round(took, 2)))
            elif not traced:
                self.times.append(took)
                if took > 1:
                    self.slow.append((path, round(took, 2)))
            time.sleep(1)


def trace(agent, inject, path):
    """strace with a fault for every thread of the agent; None where the agent's threads change too fast to attach in time."""
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={inject.split(':')[0]}", "-e", f"inject={inject}"]
    return subprocess.Popen([*command, *(["-P", path] if path else []), "-p", str(agent.process.pid)], stderr=subprocess.DEVNULL)


def slope(samples):
    """Least squares, in units an hour."""
    mean = [sum(part) / len(samples) for part in zip(*samples)]
    above = sum((at - mean[0]) * (value - mean[1]) for at, value in samples)
    below = sum((at - mean[0]) ** 2 for at, _ in samples)
    return above / below * 3600 if below else 0.0


def attackers(plain, guarded):
    return {
        "idle": (attack.idle, plain.at, SIZES["idle"]),
        "half": (attack.half, plain.at, SIZES["half"]),
        "slow": (attack.slow, plain.at, SIZES["slow"]),
        "handshakes": (attack.handshakes, guarded.at, SIZES["tls"]),
        "guesses": (attack.guess, guarded.at, SIZES["guess"]),
    }


def cycle(agents, pairs, healths, number):
    """Churn, with two attackers and one fault after the other; then a calm moment."""
    all_attackers = attackers(*agents)
    chosen = random.sample(sorted(all_attackers), 2)
    processes = []
    for name in chosen:
        work, *arguments = all_attackers[name]
        processes.append(multiprocessing.Process(target=work, args=arguments, daemon=True))
        processes[-1].start()
    injected = []
    end = time.monotonic() + CYCLE - CALM
    tracer, tracer_end, target = None, 0, None
    while time.monotonic() < end:
        churn(pairs)
        now = time.monotonic()
        if tracer and (now > tracer_end or tracer.poll() is not None):
            tracer.send_signal(signal.SIGINT)
            tracer.wait()
            tracer, tracer_end = None, now + 4
            healths[target].is_traced = False
        elif not tracer and now > tracer_end and now < end - 15:
            fault = FAULTS[(number * 5 + len(injected)) % len(FAULTS)]
            target = (number + len(injected)) % 2
            healths[target].is_traced = True
            tracer, tracer_end = trace(agents[target], fault[2], fault[3]), now + 8
            injected.append(fault[0])
        time.sleep(random.uniform(0.02, 0.4))
    if tracer:
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
        healths[target].is_traced = False
    for process in processes:
        process.kill()
        process.join()
    print(f"cycle {number}: {len(pairs)} pairs; attackers {', '.join(chosen)}; faults: {'; '.join(injected)}", flush=True)
    time.sleep(CALM)


def compare(agent, pairs):
    """Waits until `/metrics` shows the truth."""
    truth = {}
    for pair in pairs:
        truth.update(pair.truth())
    end = time.monotonic() + SETTLE
    while True:
        found, text = shown(agent)
        incomplete = re.search(r"^keepalive_auditor_sweep_incomplete (\S+)$", text, re.M)[1]
        if found == truth and float(incomplete) == 0:
            print(f"{agent.name}: /metrics equals the truth: {sum(truth.values())} connections in {2 * len(pairs)} namespaces")
            return []
        if time.monotonic() > end:
            wrong = {key: (found.get(key), truth.get(key)) for key in found.keys() | truth.keys() if found.get(key) != truth.get(key)}
            return [f"{agent.name}: /metrics differs from the truth (shown, true): {wrong}, incomplete {incomplete}"]
        time.sleep(0.5)


def main(binary, minutes):
    Home.descriptor = os.open("/proc/self/ns/net", os.O_RDONLY)
    random.seed(4711)
    os.makedirs("/run/netns", exist_ok=True)
    ip("link", "set", "lo", "up")
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--web.config.file", attack.web_config(folder)]
        plain = attack.Agent(binary, "plain", folder, FLAGS)
        guarded = attack.Agent(binary, "guarded", folder, [*FLAGS, *flags])
        agents = [plain, guarded]
        pairs = [Pair() for _ in range(8)]
        for pair in pairs:
            [pair.connect(number % 2 == 0) for number in range(10)]
        healths = [Health(agent) for agent in agents]
        [health.start() for health in healths]
        samples = {agent.name: [] for agent in agents}
        start = time.monotonic()
        number = 0
        while time.monotonic() - start < minutes * 60 - CYCLE:
            number += 1
            cycle(agents, pairs, healths, number)
            for agent in agents:
                assert agent.process.poll() is None, f"{agent.name} has died: {agent.process.returncode}"
                sample = (time.monotonic() - start, agent.status("VmRSS") / 1024, agent.descriptors(), agent.status("Threads"))
                samples[agent.name].append(sample)
                print(f"  {agent.name:8} {sample[0]:5.0f} s: {sample[1]:6.1f} MiB, {sample[2]} descriptors, {sample[3]} threads", flush=True)
        for agent, health in zip(agents, healths):
            failures += compare(agent, pairs)
            # the first cycles fill what is kept
            later = samples[agent.name][len(samples[agent.name]) // 3 :]
            for column, (what, most) in enumerate([("MiB resident", 8.0), ("descriptors", 4), ("threads", 2)], 1):
                values = [sample[column] for sample in later]
                gained = slope([(sample[0], sample[column]) for sample in later])
                print(f"{agent.name}: {what}: {gained:+.2f} an hour, between {min(values):.1f} and {max(values):.1f}")
                half = len(values) // 2
                if half and min(values[half:]) > max(values[:half]) + most:
                    failures.append(f"{agent.name}: {what} grew: {values}")
            times = sorted(health.times) or [0]
            print(
                f"{agent.name}: /healthz and /metrics: {len(times)} answers without a fault, median {times[len(times) // 2] * 1000:.1f} ms, "
                f"99 % within {times[len(times) * 99 // 100] * 1000:.0f} ms, {len(health.slow)} later than 1 s {health.slow[:5]}, "
                f"{len(health.failed)} failed {health.failed[:5]}; highest memory {agent.status('VmHWM') / 1024:.1f} MiB"
            )
            if len(health.failed) > len(times) / 100:
                failures.append(f"{agent.name}: {len(health.failed)} requests failed: {health.failed[:20]}")
            agent.process.terminate()
            if agent.process.wait(10) != 0:
                failures.append(f"{agent.name} ended with {agent.process.returncode}")
            agent.cgroup.remove()
            agent.log.seek(0)
            panics = [line.strip() for line in agent.log if "panick" in line]
            failures += [f"{agent.name} logged: {line}" for line in panics[:5]]
        [pair.end() for pair in pairs]
    for failure in failures:
        print("FAILED", failure, file=sys.stderr)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
