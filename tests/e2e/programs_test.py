"""Real servers and programs: their connections are flagged with default settings and protected with the output of `remedy`, used as printed."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import unittest

import lab
import proxies
import yaml

IDLE = 300
FLAGS = ("--idle", f"{IDLE}s", "--interval", "20s", "--probes", "4")
POSTGRES = next(iter(sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))), pathlib.Path("/usr/bin"))


class ServerTest(lab.Lab):
    def both_sides(self):
        found = self.audit(lab.GATEWAY)
        sides = {side: [c for c in found if c["direction"] == side] for side in ("inbound", "outbound")}
        self.assertTrue(sides["inbound"] and sides["outbound"], found)
        return sides

    def nginx_config(self, listen):
        return proxies.nginx(self.dir, f"{listen} location / {{ proxy_pass http://{lab.BACKEND_IP}:9000; }}")

    def test_nginx(self):
        """The printed line replaces the one that is there; a reload is enough."""
        self.serve(lab.BACKEND, 9000, "hold")
        before = "listen 8080;"
        process = proxies.start(self, *self.nginx_config(before))
        sides = self.both_sides()
        self.assert_flagged(sides["inbound"] + sides["outbound"], "off")
        self.assertTrue(all("nginx" in c["remedies"] for c in sides["inbound"] + sides["outbound"]), sides)
        old = {c["cookie"] for side in sides.values() for c in side}

        printed = lab.remedy("nginx", "--port", 8080, *FLAGS)
        beside = self.run_in(lab.GATEWAY, "sh", "-c", 'nginx -t "$@" 2>&1 || true', "sh", *self.nginx_config(before + printed)[1:])
        self.assertIn("duplicate", beside, "nginx takes a second listen line, so the remedy need not replace the first")
        self.nginx_config(before.replace("listen 8080;", printed))
        process.send_signal(signal.SIGHUP)
        sides = self.sides_since(old)
        self.assert_protected(sides["inbound"], IDLE)
        # proxy_socket_keepalive uses the system's idle time, as the remedy's caveat says.
        self.assert_flagged(sides["outbound"], "late")
        old |= {c["cookie"] for side in sides.values() for c in side}

        self.set_sysctls(lab.GATEWAY)
        sides = self.sides_since(old)
        self.assert_protected(sides["inbound"] + sides["outbound"], IDLE)

    def sides_since(self, old):
        """Both sides of new requests, once the proxy has its new configuration: the kernel passes it on to accepted sockets."""

        def changed():
            self.dial(lab.CLIENT, lab.GATEWAY_FRONT, 8080, say=proxies.HTTP, until="connected")
            return any(c["keepalive"] == "on" and c["cookie"] not in old for c in self.audit(lab.GATEWAY))

        self.wait_until(changed, "the proxy to reload")
        old = old | {c["cookie"] for c in self.audit(lab.GATEWAY)}
        self.dial(lab.CLIENT, lab.GATEWAY_FRONT, 8080, say=proxies.HTTP, until="connected")
        new = lambda: [c for c in self.audit(lab.GATEWAY) if c["cookie"] not in old]
        self.wait_until(lambda: {c["direction"] for c in new()} == {"inbound", "outbound"}, "both sides of a request")
        return {side: [c for c in new() if c["direction"] == side] for side in ("inbound", "outbound")}

    def set_sysctls(self, host):
        """The sysctls that the pod's sandbox would get."""
        pod = yaml.safe_load(lab.remedy("pod-sysctl", *FLAGS))
        for sysctl in pod["spec"]["securityContext"]["sysctls"]:
            self.run_in(host, "sysctl", "-qw", f"{sysctl['name']}={sysctl['value']}")

    def haproxy(self, options):
        config = self.dir / "haproxy.cfg"
        config.write_text(f"""
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen gateway
    bind 0.0.0.0:8080
    server backend {lab.BACKEND_IP}:9000
{options}
""")
        return proxies.start(self, "haproxy", "-db", "-f", config)

    def test_haproxy(self):
        self.serve(lab.BACKEND, 9000, "hold")
        process = self.haproxy("")
        sides = self.both_sides()
        self.assert_flagged(sides["inbound"] + sides["outbound"], "off")
        lab.stop(process)
        self.haproxy(lab.remedy("haproxy", *FLAGS))
        sides = self.both_sides()
        self.assert_protected(sides["inbound"] + sides["outbound"], IDLE)

    def test_postgresql_and_libpq(self):
        data = self.dir / "data"
        for command in (("chown", "postgres", self.dir), as_postgres("initdb", "-D", data, "-A", "trust", "--no-sync")):
            self.run_in(lab.BACKEND, *command)
        with (data / "pg_hba.conf").open("a") as access:
            access.write("host all all 10.77.0.0/16 trust\n")
        options = ("-c", "listen_addresses=*", "-k", self.dir)
        server = self.start(lab.BACKEND, *as_postgres("postgres", "-D", data, *options))
        self.wait_for_port(lab.BACKEND, 5432, server)
        where = ("--host", lab.BACKEND_IP, "--port", 5432)

        first = self.psql(f"host={lab.BACKEND_IP} port=5432")
        self.assert_flagged(self.connections(lab.CLIENT, endpoint=f"{lab.BACKEND_IP}:5432"), "late")
        self.assert_flagged(self.connections(lab.BACKEND, endpoint=":5432"), "late")
        lab.stop(first)

        client = self.psql(lab.remedy("libpq", *where, *FLAGS).strip())
        self.assert_protected(self.connections(lab.CLIENT, endpoint=f"{lab.BACKEND_IP}:5432"), IDLE, talkative=True)
        lab.stop(client)

        with (data / "postgresql.conf").open("a") as settings:
            settings.write(lab.remedy("postgresql", *FLAGS))
        os.kill(int((data / "postmaster.pid").read_text().split()[0]), signal.SIGHUP)
        self.wait_until(lambda: "reloading configuration" in server.log.read_text(), "the server to reload")
        self.psql(f"host={lab.BACKEND_IP} port=5432")
        self.assert_protected(self.connections(lab.BACKEND, endpoint=":5432"), IDLE, talkative=True)

    def test_a_pods_sysctl_fixes_a_late_client(self):
        """kubernetes#80298: a pod's own sysctl works, the node's does not. Neither helps a socket with keepalive off."""
        self.serve(lab.BACKEND, 9000)
        keepalive = "import socket,sys;s=socket.create_connection((sys.argv[1],9000));s.setsockopt(1,9,1);s.recv(1)"
        for expect_idle in (None, IDLE):
            client = self.start(lab.CLIENT, sys.executable, "-c", keepalive, lab.BACKEND_IP)
            connected = ("ss", "-Htno", "state", "established", "dport = :9000")
            self.wait_until(lambda: "timer:(keepalive" in self.run_in(lab.CLIENT, *connected), "the connection")
            found = self.connections(lab.CLIENT, endpoint=f"{lab.BACKEND_IP}:9000")
            if expect_idle is None:
                self.assert_flagged(found, "late")
                self.set_sysctls(lab.CLIENT)
            else:
                self.assert_protected(found, expect_idle)
            lab.stop(client)
        self.dial(lab.CLIENT, lab.BACKEND_IP, 9000)
        self.assert_flagged(self.connections(lab.CLIENT, endpoint=f"{lab.BACKEND_IP}:9000"), "off")

    def psql(self, conninfo):
        """A session that waits for its next statement."""
        session = self.start(lab.CLIENT, POSTGRES / "psql", f"{conninfo} user=postgres dbname=postgres", "--no-psqlrc")
        session.stdin.write(b"select 'answered';\n")
        session.stdin.flush()
        self.wait_until(lambda: "answered" in session.log.read_text(), "psql to be answered")
        return session

    def redis(self, settings=""):
        config = self.dir / "redis.conf"
        config.write_text(f'port 6379\nprotected-mode no\nsave ""\ndir {self.dir}\n{settings}')
        server = self.start(lab.BACKEND, "redis-server", config)
        self.wait_for_port(lab.BACKEND, 6379, server)
        self.dial(lab.CLIENT, lab.BACKEND_IP, 6379, say="PING\r\n")
        return server

    def test_redis(self):
        """The default is in time for 350 s, and late for the 240 s of an Azure load balancer."""
        server = self.redis()
        self.assert_protected(self.connections(lab.BACKEND, endpoint=":6379"), 300)
        self.assert_flagged(self.connections(lab.BACKEND, "--idle-timeout", "240s", endpoint=":6379"), "late")
        lab.stop(server)
        self.redis(lab.remedy("redis", "--idle-timeout", "240s"))
        self.assert_protected(self.connections(lab.BACKEND, "--idle-timeout", "240s", endpoint=":6379"), 120)


class ProgramTest(lab.Lab):
    def setUp(self):
        super().setUp()
        self.serve(lab.BACKEND, 9000)

    def outbound(self, *flags):
        return self.connections(lab.CLIENT, *flags, direction="outbound", endpoint=f"{lab.BACKEND_IP}:9000")

    def printed(self, target, file, *flags):
        """A file of that name with exactly the printed remedy."""
        path = self.dir / file
        path.write_text(lab.remedy(target, "--host", lab.BACKEND_IP, "--port", 9000, *(flags or FLAGS)))
        return path

    def run_program(self, *command, **options):
        process = self.start(lab.CLIENT, *command, **options)
        connected = lambda: process.poll() is not None or self.established()
        self.wait_until(connected, f"{command[0]} to connect", seconds=180)
        self.assertIsNone(process.poll(), process.log.read_text())
        return process

    def established(self):
        """The program's connections, with their timers."""
        return self.run_in(lab.CLIENT, "ss", "-Htno", "state", "established", "dport = :9000")

    def assert_on(self, idle):
        """It is protected once it has set its options, after it has connected."""
        self.wait_until(lambda: "timer:(keepalive" in self.established(), "the program to set its options")
        self.assert_protected(self.outbound(), idle)

    def assert_off(self, *command):
        """The program is flagged with its default settings."""
        process = self.run_program(*command)
        self.assert_flagged(self.outbound(), "off")
        lab.stop(process)

    def test_python(self):
        plain = "import socket,sys;socket.create_connection((sys.argv[1],9000)).recv(1)"
        self.assert_off(sys.executable, "-c", plain, lab.BACKEND_IP)
        self.run_program(sys.executable, self.printed("python", "keepalive.py"))
        self.assert_on(IDLE)

    def test_node(self):
        plain = f"require('node:net').connect(9000, '{lab.BACKEND_IP}').resume()"
        self.assert_off("node", "-e", plain)
        self.run_program("node", self.printed("node", "keepalive.js"))
        self.assert_on(IDLE)

    @unittest.skipUnless("NEW_NODE" in os.environ, "only an old Node.js is installed")
    def test_interval_and_count_of_a_new_node(self):
        self.run_program(os.environ["NEW_NODE"], self.printed("node", "keepalive.js"))
        self.assert_on(IDLE)
        exact = self.outbound("--exact")[0]["exact"]
        self.assertEqual((exact["tcp_keepintvl_seconds"], exact["tcp_keepcnt"]), (20, 4), exact)

    def test_c(self):
        source = self.printed("c", "keepalive.c")
        self.run_in(lab.CLIENT, "cc", "-Wall", "-Werror", "-o", source.with_suffix(""), source)
        process = self.run_program(source.with_suffix(""))
        self.assert_on(IDLE)
        lab.stop(process)

    def test_static_binaries_are_not_offered_a_preload(self):
        source = self.dir / "waits.c"
        printed = lab.remedy("c", "--host", lab.BACKEND_IP, "--port", 9000, *FLAGS)
        source.write_text(printed.replace("|| protect(fd)", ""))
        for flags, remedies in (([], ["c", "preload"]), (["-static"], ["c"])):
            program = source.with_suffix("".join(flags).replace("-", "."))
            self.run_in(lab.CLIENT, "cc", "-Wno-unused-function", *flags, "-o", program, source)
            process = self.run_program(program)
            found = self.outbound()
            self.assert_flagged(found, "off")
            self.assertEqual([c["remedies"] for c in found], [remedies], found)
            lab.stop(process)

    def test_a_go_client_with_keepalive_off_then_120_s(self):
        off = self.dir / "off.go"
        off.write_text(
            'package main\nimport ("io"; "net")\nfunc main() {\n'
            f'c, err := (&net.Dialer{{KeepAlive: -1}}).Dial("tcp", "{lab.BACKEND_IP}:9000")\n'
            "if err != nil { panic(err) }\nio.Copy(io.Discard, c)\n}\n"
        )
        process = self.run_program(self.go(off))
        found = self.outbound()
        self.assert_flagged(found, "off")
        self.assertEqual([c["remedies"] for c in found], [["go"]], "a static binary of Go takes no preload")
        lab.stop(process)
        self.run_program(self.go(self.printed("go", "keepalive.go", "--idle", "120s")))
        self.assert_on(120)

    def go(self, source):
        """Builds the program from a source file."""
        go = shutil.which("go") or self.fail("the Go toolchain is missing")
        binary = source.with_suffix("")
        alone = {**os.environ, "GO111MODULE": "off", "CGO_ENABLED": "0"}
        self.run_in(lab.CLIENT, go, "build", "-o", binary, source, env=alone)
        return binary

    @unittest.skipUnless(shutil.which("java"), "java is not installed")
    def test_java(self):
        self.run_program("java", self.printed("java", "Keepalive.java"))
        self.assert_on(IDLE)

    def test_rust(self):
        crate = self.dir / "keepalive"
        (crate / "src").mkdir(parents=True)
        dependency = 'socket2 = { version = "0.6", features = ["all"] }'
        manifest = f'[package]\nname = "keepalive-e2e"\nedition = "2024"\n[dependencies]\n{dependency}\n[workspace]\n'
        (crate / "Cargo.toml").write_text(manifest)
        self.printed("rust", "keepalive/src/main.rs")
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target")).absolute() / "e2e"
        build = ("cargo", "build", "--quiet", "--manifest-path", crate / "Cargo.toml", "--target-dir", target)
        subprocess.run(build, check=True)
        self.run_program(target / "debug" / "keepalive-e2e")
        self.assert_on(IDLE)

    def test_preload_fixes_a_program_that_nobody_can_change(self):
        exports = self.printed("preload", "keepalive.env")
        dial = f". {exports}; exec {sys.executable} {lab.__file__} dial {lab.BACKEND_IP} 9000 hello"
        self.run_program("sh", "-c", dial)
        self.assert_on(IDLE)


def as_postgres(program, *arguments):
    """PostgreSQL refuses to run as root."""
    return ("setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", POSTGRES / program, *arguments)


if __name__ == "__main__":
    unittest.main()
