"""The scene: pods with one program each, in network namespaces and cgroups that this test makes and removes."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time
import uuid

HERE = pathlib.Path(__file__).parent
TAG = f"ka{os.getpid() % 100000}"


def run(*command):
    subprocess.run(command, check=True, capture_output=True, text=True)


def cgroup2():
    """Where cgroup v2 is mounted: /sys/fs/cgroup, or a folder of it on hybrid hosts."""
    for line in open("/proc/self/mounts"):
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return pathlib.Path(where)
    sys.exit("no cgroup v2 is mounted here, so no pod can be made")


def start_in(netns, cgroup, *command, **options):
    """A program in a namespace and, for a pod or a unit, in its cgroup."""

    def enter():
        if cgroup:
            (cgroup / "cgroup.procs").write_text(str(os.getpid()))

    return subprocess.Popen(["ip", "netns", "exec", netns, *map(str, command)], preexec_fn=enter, **options)


class Program:
    """actor.py, running in a namespace and, for a pod, in its cgroup."""

    def __init__(self, netns, cgroup=None):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = start_in(netns, cgroup, sys.executable, HERE / "actor.py", **pipes)

    def __getattr__(self, command):
        def send(**arguments):
            self.process.stdin.write(json.dumps([command, arguments]) + "\n")
            self.process.stdin.flush()
            if self.process.stdout.readline() != "ok\n":
                raise RuntimeError(f"a program of the scene failed at {command} {arguments}")

        return send

    def end(self):
        self.process.kill()
        self.process.wait()


class Host:
    """A namespace, and perhaps a cgroup, in which a test starts and stops a real program."""

    def __init__(self, netns, cgroup):
        self.netns, self.cgroup, self.process = netns, cgroup, None

    def start(self, log, *command):
        """Ends the program that runs, and starts this one."""
        self.end()
        with open(log, "ab") as out:
            self.process = start_in(self.netns, self.cgroup, *command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def end(self):
        if self.process:
            self.process.kill()
            self.process.wait()


class Scene:
    """A switch (a bridge in its own namespace) and the namespaces connected to it."""

    def __init__(self, logs):
        self.logs = logs
        self.programs, self.namespaces, self.cgroups = [], [], []
        self.host = 0
        self.switch = self._namespace("lan")
        run("ip", "-n", self.switch, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.switch, "link", "set", "br0", "up")

    def _namespace(self, name):
        netns = f"{TAG}-{name}"
        run("ip", "netns", "add", netns)
        self.namespaces.append(netns)
        run("ip", "-n", netns, "link", "set", "lo", "up")
        return netns

    def _plug(self, netns):
        self.host += 1
        address, port = f"10.77.{self.host // 250}.{self.host % 250 + 1}", f"p{self.host}"
        run("ip", "-n", netns, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", self.switch)
        run("ip", "-n", netns, "address", "add", f"{address}/16", "dev", "eth0")
        run("ip", "-n", netns, "link", "set", "eth0", "up")
        run("ip", "-n", self.switch, "link", "set", port, "master", "br0", "up")
        return address, port

    def pod(self, namespace, name, container):
        """A pod with one program, with address and port."""
        return self._program(*self._place_of_pod(namespace, name, container))

    def _place_of_pod(self, namespace, name, container):
        """Makes the cgroup and log folders of a pod as kubelet and containerd do."""
        uid, short = str(uuid.uuid4()), name.split("-")[0]
        identifier = hashlib.sha256(uid.encode()).hexdigest()
        top = cgroup2() / "kubepods.slice"
        cgroup = top / f"kubepods-pod{uid.replace('-', '_')}.slice" / f"cri-containerd-{identifier}.scope"
        if not top.exists():
            self.cgroups.insert(0, top)
        cgroup.mkdir(parents=True)
        self.cgroups += [cgroup.parent, cgroup]
        (self.logs / "pods" / f"{namespace}_{name}_{uid}" / container).mkdir(parents=True)
        (self.logs / "containers").mkdir(exist_ok=True)
        (self.logs / "containers" / f"{name}_{namespace}_{container}-{identifier}.log").touch()
        return self._namespace(short), cgroup

    def host_of_pod(self, namespace, name, container):
        """A pod in which a test starts real programs."""
        return self._host(*self._place_of_pod(namespace, name, container))

    def host_of_unit(self, unit):
        """The cgroup of a systemd unit, shaped as systemd does it, with a network namespace of its own (PrivateNetwork=)."""
        top = cgroup2() / "system.slice"
        cgroup = top / unit
        if not top.exists():
            self.cgroups.insert(0, top)
        cgroup.mkdir(parents=True)
        self.cgroups.append(cgroup)
        return self._host(self._namespace(unit.split(".")[0]), cgroup)

    def host_of_namespace(self, name):
        """A network namespace without a pod or a unit."""
        return self._host(self._namespace(name), None)

    def _host(self, netns, cgroup):
        host = Host(netns, cgroup)
        host.address, host.port = self._plug(netns)
        self.programs.append(host)
        return host

    def outsider(self, name):
        """A program outside pods, in its own namespace."""
        return self._program(self._namespace(name), None)

    def _program(self, netns, cgroup):
        program = Program(netns, cgroup)
        program.address, program.port = self._plug(netns)
        self.programs.append(program)
        return program

    def unplug(self, program):
        """From now on the path drops everything that the program sends."""
        run("ip", "-n", self.switch, "link", "set", program.port, "nomaster")

    def remove(self, program):
        """Deletes the pod: its program ends and its namespace is removed."""
        index = self.programs.index(program)
        program.end()
        del self.programs[index]
        netns = self.namespaces.pop(index + 1)
        run("ip", "netns", "del", netns)

    def end(self):
        for program in self.programs:
            program.end()
        for netns in self.namespaces:
            subprocess.run(["ip", "netns", "del", netns], check=False)
        for cgroup in reversed(self.cgroups):
            for _ in range(50):
                try:
                    cgroup.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.1)  # the kernel has not yet released its processes
