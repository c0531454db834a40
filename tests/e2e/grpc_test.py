"""gRPC in several languages with the options that `remedy grpc` prints for each: clients send PINGs, and servers allow them."""

import json
import os
import pathlib
import re
import shutil
import sys
import time
import unittest

import lab
import yaml

FOLDER = pathlib.Path(__file__).parent / "grpc"
# Where Debian has the classes of grpc-java and what it needs.
CLASSES = "/usr/share/java/*"
# Where Debian has the sources of grpc-go.
GO_PATH = pathlib.Path("/usr/share/gocode")
WITHOUT = {"client": {}, "server": {}}


def remedy(idle, interval="2s"):
    return lab.remedy("grpc", "--idle", idle, "--interval", interval, "--idle-timeout", "30s")


def arguments_of(printed):
    """The channel arguments of the C core and grpc-js."""
    return yaml.safe_load(printed)


def options_of(printed, language):
    """The options of a client and of a server that the comment for this language has, without the object that they are for."""
    comment = re.search(rf"(?m)^# {language}.*\n((?:#   .*\n)+)", printed)[1]
    client, server = re.search(r"client: (.*)server: (.*)", re.sub(r"(?m)^# *", "", comment), re.DOTALL).groups()
    return [re.sub(r"^\w+Builder\s+", "", part).strip() for part in (client, server)]


class Grpc(lab.Lab):
    """Starts clients and servers, and relays between them."""

    def server(self, arguments, port):
        return self.listen(port, sys.executable, FOLDER / "server.py", self.file(arguments), port)

    def client(self, arguments, port, *every, host=lab.BACKEND_IP):
        return self.answered(sys.executable, FOLDER / "client.py", self.file(arguments), host, port, *every)

    def file(self, arguments):
        path = self.dir / f"arguments-{time.monotonic_ns()}.json"
        path.write_text(json.dumps(arguments))
        return path

    def listen(self, port, *command):
        server = self.start(lab.BACKEND, *command)
        self.wait_for_port(lab.BACKEND, port, server)
        return server

    def answered(self, *command):
        client = self.start(lab.CLIENT, *command)
        self.wait_until(lambda: "answered" in client.log.read_text() or client.poll() is not None, "gRPC to be answered")
        self.assertIn("answered", client.log.read_text())
        return client

    def relay(self, port, to):
        relay = self.start(lab.GATEWAY, sys.executable, FOLDER / "relay.py", port, lab.BACKEND_IP, to)
        self.wait_for_port(lab.GATEWAY, port, relay)
        return relay.log


class PingTest(Grpc):
    def test_pings_show_as_traffic_and_not_as_a_timer(self):
        for arguments, least, most in ((WITHOUT, 7, 60), (arguments_of(remedy("2s")), 0, 6)):
            server = self.server(arguments, 9001)
            client = self.client(arguments, 9001)
            time.sleep(8)
            for connection in self.connections(lab.CLIENT, endpoint=f"{lab.BACKEND_IP}:9001"):
                self.assertEqual(connection["keepalive"], "off", connection)
                self.assertTrue(least <= connection["data_idle_seconds"] <= most, connection)
            lab.stop(client)
            lab.stop(server)


class LanguageTest(Grpc):
    """Every client pings, and no server sends it away. Servers with their defaults do."""

    def program(self, language, printed):
        """Builds the program of a language with its printed options. Returns the command that starts it."""
        source = FOLDER / {"Go": "lab.go", "Java": "Lab.java"}[language]
        built = self.dir / f"{language}-{time.monotonic_ns()}"
        built.mkdir()
        client, server = options_of(printed, language)
        (built / source.name).write_text(source.read_text().replace("PRINTED_CLIENT", client).replace("PRINTED_SERVER", server))
        if language == "Java":
            self.run_in(lab.CLIENT, "javac", "-cp", CLASSES, "-d", built, built / source.name)
            return ("java", "-cp", f"{built}:{CLASSES}", "Lab")
        alone = {**os.environ, "GO111MODULE": "off", "CGO_ENABLED": "0", "GOPATH": str(GO_PATH)}
        self.run_in(lab.CLIENT, shutil.which("go"), "build", "-o", built / "lab", built / source.name, env=alone)
        return (built / "lab",)

    def pings(self, log):
        return log.read_text().count("client PING")

    def test_clients_ping(self):
        """10 s is the least that clients of Go and Java take."""
        printed = remedy("10s")
        server = {"server": arguments_of(remedy("2s"))["server"]}
        self.server(server, 9000)
        clients = {
            "Python": (sys.executable, FOLDER / "client.py", self.file(arguments_of(printed))),
            "grpc-js": ("node", FOLDER / "client.js", self.file(arguments_of(printed))),
            "Go": (*self.program("Go", printed), "client"),
            "Java": (*self.program("Java", printed), "client"),
        }
        logs = {}
        for port, (name, command) in enumerate(clients.items(), 9001):
            logs[name] = log = self.relay(port, 9000)
            to = (f"{lab.GATEWAY_FRONT}:{port}",) if name in ("Go", "Java") else (lab.GATEWAY_FRONT, port)
            self.answered(*command, *to)
        # The C core and Go also ping while they measure the bandwidth of a call.
        time.sleep(2)
        before = {name: self.pings(log) for name, log in logs.items()}
        for name, log in logs.items():
            self.wait_until(lambda log=log, seen=before[name]: self.pings(log) >= seen + 2, f"two more PINGs of {name}")
            self.assertNotIn("GOAWAY", log.read_text(), name)

    def test_servers_allow_pings(self):
        printed = remedy("2s")
        logs = {}
        for port, language in ((9000, "Go"), (9100, "Java")):
            program = self.program(language, printed)
            host = "0.0.0.0:" if language == "Go" else ""
            for number, role in enumerate(("server", "default")):
                listens, relayed = port + number, port + 10 + number
                self.listen(listens, *program, role, f"{host}{listens}")
                logs[language, role] = self.relay(relayed, listens)
                self.client(arguments_of(printed), relayed, host=lab.GATEWAY_FRONT)
        # Servers with their defaults count two PINGs before they end a connection.
        for (language, role), log in logs.items():
            self.wait_until(lambda log=log: self.pings(log) > 6 or "GOAWAY" in log.read_text(), f"PINGs to {language}")
            self.assertEqual("GOAWAY" in log.read_text(), role == "default", f"{language}, {role}: {log.read_text()}")


if __name__ == "__main__":
    unittest.main()
