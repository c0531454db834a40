"""systemd's units, OpenSSH, curl and the sysctls of a host: flagged before, protected with the output of `remedy` as printed."""

import os
import pathlib
import signal
import subprocess
import unittest

import lab
from remedied import FLAGS, IDLE, RemedyTest

# systemd as process 1 of its own namespaces, which sees only the units of the test and can write nothing of the machine.
SYSTEMD = """
set -eu
mount --make-rprivate /
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys
mount --bind /proc/sys/net /proc/sys/net && mount -o remount,bind,rw /proc/sys/net
mount --bind /etc /etc && mount -o remount,bind,ro /etc
mount -t tmpfs run /run && mkdir /run/lab && mount --bind "$1" /run/lab
for path in /tmp /var; do mount -t tmpfs lab "$path"; done
mount -t tmpfs lab /sys/fs/cgroup && mkdir /sys/fs/cgroup/all && mount -t cgroup2 lab /sys/fs/cgroup/all
mkdir "/sys/fs/cgroup/all/$2" && echo 0 >"/sys/fs/cgroup/all/$2/cgroup.procs"
exec unshare --cgroup sh -c '
    umount -R /sys/fs/cgroup && mount -t cgroup2 lab /sys/fs/cgroup
    exec env -i PATH=/usr/sbin:/usr/bin container=lab SYSTEMD_UNIT_PATH=/run/lab/units SYSTEMD_GENERATOR_PATH=/run/lab/none \
        /lib/systemd/systemd --system --unit=lab.target --log-target=console --show-status=no'
"""
NO_DEFAULTS = "[Unit]\nDefaultDependencies=no\n"
KEEPALIVE_SERVER = (
    "import socket,sys,time; l = socket.create_server((sys.argv[1], 9001)); c = l.accept()[0];"
    "c.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1); time.sleep(600)"
)


class SystemdTest(RemedyTest):
    def test_a_socket_unit_and_a_service_unit(self):
        units = self.dir / "units"
        units.mkdir()
        server = self.dir / "server.py"
        server.write_text(KEEPALIVE_SERVER)
        (units / "lab.target").write_text(f"{NO_DEFAULTS}Wants=echo.socket late.service\n")
        (units / "echo.socket").write_text(f"{NO_DEFAULTS}[Socket]\nListenStream={lab.BACKEND_IP}:9000\nAccept=yes\n")
        (units / "echo@.service").write_text(f"{NO_DEFAULTS}[Service]\nExecStart=/usr/bin/cat\nStandardInput=socket\n")
        late = f"{NO_DEFAULTS}[Service]\nExecStart=/usr/bin/python3 /run/lab/server.py {lab.BACKEND_IP}\n"
        (units / "late.service").write_text(late)

        manager = self.systemd()
        self.before(lab.BACKEND, "off", endpoint=":9000")
        self.before(lab.BACKEND, "late", endpoint=":9001")
        self.end(manager)

        for unit, target in (("echo.socket", "systemd-socket"), ("late.service", "systemd-unit")):
            (units / f"{unit}.d").mkdir()
            (units / f"{unit}.d" / "override.conf").write_text(lab.remedy(target, *FLAGS))
        self.systemd()
        socket = "a socket unit of systemd"
        self.after(lab.BACKEND, target="systemd-socket", program=socket, before="off", endpoint=":9000")
        service = "a service unit of systemd"
        self.after(lab.BACKEND, target="systemd-unit", program=service, before="late", endpoint=":9001")

    def systemd(self):
        group = f"kae-{os.getpid()}-{len(os.listdir(self.dir))}"
        space = ("unshare", "--fork", "--kill-child", "--pid", "--mount", "--uts", "--ipc")
        manager = self.start(lab.BACKEND, *space, "sh", "-c", SYSTEMD, "systemd", self.dir, group)
        self.addCleanup(self.remove_cgroups, group)
        self.addCleanup(self.end, manager)
        for port in (9000, 9001):
            self.wait_for_port(lab.BACKEND, port, manager)
            self.dial(lab.CLIENT, lab.BACKEND_IP, port, until="connected")
        return manager

    def end(self, manager):
        """Process 1 ignores SIGTERM."""
        if manager.poll() is None:
            os.killpg(manager.pid, signal.SIGKILL)
            manager.wait()

    def remove_cgroups(self, group):
        script = 'mount -t cgroup2 lab /mnt && find "/mnt/$1" -depth -type d -exec rmdir {} +'
        remove = ("unshare", "--mount", "sh", "-c", script, "sh", group)
        self.wait_until(lambda: subprocess.run(remove, capture_output=True).returncode == 0, f"the cgroup {group} to be empty")


class HostTest(RemedyTest):
    def test_curl(self):
        self.serve(lab.BACKEND, 9000, "hold")
        settings = self.dir / "curlrc"
        settings.write_text(lab.remedy("curl", *FLAGS))
        for before, options in (("off", ("--no-keepalive",)), (None, ("--config", settings))):
            client = self.start(lab.CLIENT, "curl", "--silent", *options, f"http://{lab.BACKEND_IP}:9000/")
            established = ("ss", "-Htn", "state", "established", "dport = :9000")
            self.wait_until(lambda: self.run_in(lab.CLIENT, *established), "curl to connect")
            if before:
                self.before(lab.CLIENT, before)
            else:
                self.after(lab.CLIENT, target="curl", program="curl", before="off", interval=IDLE, probes=9)
            lab.stop(client)

    def test_ssh_takes_the_hosts_sysctls(self):
        """TCPKeepAlive is on by default on both ends, with the system's times."""
        for key in ("host", "user"):
            self.run_in(lab.BACKEND, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.dir / key)
        config = self.dir / "sshd_config"
        config.write_text(
            f"Port 2222\nHostKey {self.dir}/host\nAuthorizedKeysFile {self.dir}/user.pub\nPidFile none\nStrictModes no\n"
            "PermitRootLogin yes\nUsePAM no\n"
        )
        pathlib.Path("/run/sshd").mkdir(exist_ok=True)
        server = self.start(lab.BACKEND, "/usr/sbin/sshd", "-D", "-e", "-f", config)
        self.wait_for_port(lab.BACKEND, 2222, server)
        client = self.ssh()
        self.before(lab.CLIENT, "late")
        self.before(lab.BACKEND, "late")
        lab.stop(client)
        self.set_sysctls(lab.CLIENT)
        self.ssh()
        self.after(lab.CLIENT, target="sysctl", program="ssh", before="late")

    def ssh(self):
        options = [f"-o{option}" for option in ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null")]
        user = ("-i", self.dir / "user", "-p", "2222", *options, f"root@{lab.BACKEND_IP}")
        client = self.start(lab.CLIENT, "ssh", *user, "echo connected; exec sleep 600")
        self.wait_for_word(client, "connected")
        return client


if __name__ == "__main__":
    unittest.main()
