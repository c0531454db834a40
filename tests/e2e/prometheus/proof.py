#!/usr/bin/env python3
"""From a firing alert to the remedy and its proof, for a pod, a unit and a bare network namespace, as the runbook says.

    tests/e2e/prometheus/proof.py BINARY

Real: the agent, Prometheus with the project's rules, Alertmanager, Redis, HAProxy, a Python program, the kernel, the kubectl plugin. Stand-ins: kubectl, which
starts the program with the agent's environment instead of a container's, and cgroups that are shaped as kubelet and systemd do it.
.ci/steps/80-containerd runs the same commands in a container of a real containerd.

Everything that is run comes from the alert's text, from the runbook, or from what the command before it printed.
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import expressions
import runbook
from scene import Scene
from servers import Prometheus, Receiver, Server, alertmanager, free_port, stage, wait_for

ALERT = "TCPKeepaliveMissingOnIdleConnections"
NODE = "node-one"
CLIENTS = 3
KUBECTL = """#!/usr/bin/env bash
set -euo pipefail
case "$*" in
    keepalive-auditor*) exec kubectl-keepalive_auditor "${@:2}" ;;
    *"get pods"*"-o name") echo pod/agent-one ;;
    *"get pods"*) echo "%s agent-one" ;;
    *" exec "*)
        while [[ $1 != /keepalive-auditor ]]; do shift; done
        exec env %s %s "${@:2}" ;;
    *) echo "unexpected: $*" >&2; exit 99 ;;
esac
"""


class Shell:
    """Runs lines as the person on duty does: on a workstation with kubectl, or on the machine."""

    def __init__(self, directory, binary, settings):
        programs = directory / "bin"
        programs.mkdir()
        (programs / "keepalive-auditor").symlink_to(binary)
        variables = " ".join(shlex.quote(f"{name}={value}") for name, value in settings.items())
        (programs / "kubectl").write_text(KUBECTL % (NODE, variables, shlex.quote(binary)))
        (programs / "kubectl").chmod(0o755)
        shutil.copy(expressions.ROOT / "deploy/kubectl-keepalive_auditor", programs)
        self.directory, self.environment = directory, os.environ | settings | {"PATH": f"{programs}:{os.environ['PATH']}"}

    def run(self, line, statuses=(0,)):
        """Runs one line. Returns its exit status and what it wrote to stdout."""
        ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, cwd=self.directory, env=self.environment)
        if ran.returncode not in statuses:
            raise AssertionError(f"$ {line}\nended with {ran.returncode}, not {statuses}:\n{ran.stdout}{ran.stderr}")
        print(f"  $ {line}")
        return ran.returncode, ran.stdout


class Case:
    """One owner: its program, how to start it with a configuration, and how its clients connect."""

    def __init__(self, labels, owner, endpoint, target, host, configure, is_host):
        self.labels, self.owner, self.endpoint, self.target = labels, owner, endpoint, target
        self.host, self.configure, self.is_host = host, configure, is_host


def redis(scene, directory, clients):
    host = scene.host_of_pod("data", "cache-0", "redis")

    def configure(remedy):
        config = directory / "redis.conf"
        config.write_text(f"port 6379\nprotected-mode no\nsave ''\ndir {directory}\ntcp-keepalive 0\n{remedy}\n")
        host.start(directory / "redis.log", "redis-server", config)
        reconnect(clients, "redis", host, 6379)

    return Case({"namespace": "data", "workload": "cache"}, "data/cache*", ":6379", "redis", host, configure, False)


def haproxy(scene, directory, clients, store):
    host = scene.host_of_unit("haproxy.service")

    def configure(remedy):
        config = directory / "haproxy.cfg"
        config.write_text(
            "defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n"
            f"listen gateway\n    bind 0.0.0.0:8080\n    server store {store.address}:7001\n{remedy}\n"
        )
        host.start(directory / "haproxy.log", "haproxy", "-db", "-f", config)
        reconnect(clients, "haproxy", host, 8080)

    return Case({"namespace": None, "workload": "haproxy.service"}, "haproxy.service*", ":8080", "haproxy", host, configure, True)


def python(scene, directory, store):
    host = scene.host_of_namespace("forge")

    def configure(remedy):
        program = directory / "program.py"
        program.write_text(remedy or f"import socket\nsocket.create_connection(('{store.address}', 7001)).recv(1)\n")
        host.start(directory / "python.log", "/usr/bin/python3", program)

    labels = {"namespace": None, "workload": host.netns}
    return Case(labels, f"{host.netns}*", f"{store.address}:7001", "python", host, configure, True)


def reconnect(clients, name, host, port):
    """The clients open new connections as soon as the program listens."""
    listens = ["ip", "netns", "exec", host.netns, "ss", "-Hltn", f"sport = :{port}"]
    wait_for(f"{name} to listen", lambda: subprocess.run(listens, capture_output=True, check=True).stdout)
    clients.connect(name=name, host=host.address, port=port, count=CLIENTS)


def matches(alert, labels):
    return all(alert["labels"].get(name) == value for name, value in labels.items())


def firing(receiver, case):
    return [alert for alert in receiver.find("firing", alertname=ALERT) if matches(alert, case.labels)]


def commands(alert, case):
    """What the alert's text says to run: on a workstation, and on the machine where that is named."""
    text = alert["annotations"]["description"]
    for part in (f"node {NODE}", case.endpoint, "Longest idle time: "):
        if part not in text:
            raise AssertionError(f"the alert's text does not name {part}: {text}")
    on_machine = re.search(r"on a machine without Kubernetes: (.*?--explain)\)", text)
    plugin = re.search(r"kubectl keepalive-auditor audit .*?--explain", text)[0]
    return plugin, on_machine and on_machine[1]


PLUGIN, EXEC, MACHINE = "kubectl keepalive-auditor ", "kubectl -n keepalive-auditor exec ", "keepalive-auditor "


def of_runbook(case, way, flag, before):
    """The line of the alert's entry that begins this way and has this flag, with the alert's owner and node."""
    consoles = re.findall(r"(?ms)^```console\n(.*?)^```", runbook.entry(ALERT))
    lines = [line.removeprefix("$ ") for console in consoles for line in console.splitlines()]
    found = [line for line in lines if line.startswith(way) and flag in line]
    if len(found) != 1:
        raise AssertionError(f"the runbook has {len(found)} lines that begin with {way!r} and have {flag}: {lines}")
    owner = found[0].replace("shop/cart*", case.owner).replace("nginx.service*", case.owner)
    return owner.replace("NODE", NODE).replace("before.jsonl", before)


def follow(case, receiver, shell):
    alert = wait_for(f"{ALERT} of {case.owner} at the receiver", lambda: firing(receiver, case))[0]
    print("ok: it fires:", alert["annotations"]["description"])
    plugin, on_machine = commands(alert, case)
    _, found = shell.run(on_machine if case.is_host else plugin)
    if "overdue" not in found or case.endpoint not in found:
        raise AssertionError(f"the alert's command does not show {case.endpoint}:\n{found}")

    # a pod has two ways: the plugin, and kubectl exec
    ways = [MACHINE] if case.is_host else [PLUGIN, EXEC]
    file = lambda way: f"before-{case.target}-{len(way)}.jsonl"
    for way in ways:
        shell.run(of_runbook(case, way, "--record", file(way)))
    _, explained = shell.run(of_runbook(case, ways[-1], "--explain", ""))
    command = remedy_in(explained, case)
    for way in ways:
        # nothing has changed, and the comparison must not say that it has
        _, unchanged = shell.run(of_runbook(case, way, "--compare", file(way)))
        if "It took effect" in unchanged:
            raise AssertionError(f"nothing was changed yet:\n{unchanged}")

    _, remedy = shell.run(command)
    case.configure(remedy)
    for way in ways:
        line = of_runbook(case, way, "--compare", file(way))
        print("ok: the proof, exit status 0:", wait_for("the proof", lambda line=line: took_effect(shell, line)))
    wait_for(f"the alert of {case.owner} is resolved at the receiver",
             lambda: [a for a in receiver.find("resolved", alertname=ALERT) if matches(a, case.labels)])
    print(f"ok: {case.owner}: the alert is resolved")


def remedy_in(explained, case):
    """The command that `--explain` prints for the target. A program whose name says nothing gets a list of languages, and the person on duty chooses."""
    whole = re.search(rf"keepalive-auditor remedy {case.target}\b [^|\n]*\n", explained)
    if whole:
        return whole[0].strip()
    languages = re.search(r"keepalive-auditor remedy ((?:[a-z]+ \| )+[a-z]+)", explained)
    if not languages or case.target not in languages[1].split(" | "):
        raise AssertionError(f"--explain does not offer {case.target}:\n{explained}")
    host, port = case.endpoint.rsplit(":", 1)
    return f"keepalive-auditor remedy {case.target} --host {host} --port {port}"


def took_effect(shell, line):
    """The sentence of the comparison, once new connections show that the change took effect. A program that has just connected may set its options a moment later."""
    status, said = shell.run(line, statuses=(0, 3))
    sentence = re.search(r"It took effect: every connection opened since the recording is protected\.", said)
    return sentence[0] if status == 0 and sentence else None


def main():
    binary = str(pathlib.Path(sys.argv[1]).resolve())
    with stage() as (directory, ending):
        scene = Scene(directory / "log")
        ending.append(scene)
        receiver = Receiver()
        ending.append(receiver)
        manager = alertmanager(directory, receiver)
        ending.append(manager)
        # as in the DaemonSet, settings are environment variables, so that every audit judges as the agent does
        settings = {
            "NODE_NAME": NODE,
            "KEEPALIVE_AUDITOR_IDLE_TIMEOUT": "10s",
            "KEEPALIVE_AUDITOR_LONG_LIVED": "5s",
            "KEEPALIVE_AUDITOR_LOCAL_SCOPE": "namespace",
            "KEEPALIVE_AUDITOR_POD_LOGS": str(scene.logs),
        }
        port = free_port()
        variables = [f"{name}={value}" for name, value in settings.items()]
        command = ["env", *variables, binary, "agent", f"--web.listen-address=127.0.0.1:{port}", "--interval=500ms"]
        agent = Server(directory, "agent", command, f"http://127.0.0.1:{port}/readyz")
        ending.append(agent)
        own = {"cluster": "one", "node": NODE, "namespace": "keepalive-auditor", "pod": "agent-one", "container": "agent"}
        prometheus = Prometheus(directory, expressions.RULES, [(port, own)], manager.port)
        ending.append(prometheus)

        store, clients = scene.outsider("store"), scene.outsider("clients")
        store.listen(port=7001)
        cases = [redis(scene, directory, clients), haproxy(scene, directory, clients, store), python(scene, directory, store)]
        for case in cases:
            case.configure("")
        for server in (agent, manager, prometheus):
            server.wait()
        shell = Shell(directory, binary, settings)
        for case in cases:
            follow(case, receiver, shell)


if __name__ == "__main__":
    main()
