"""Heartbeats of real programs keep their connections `app_protected`; pools under steady load stay `exposed`, however regular it is."""

import json
import pathlib
import sys
import unittest

import grpc_test
import lab
import programs_test as programs
import proxies

# Scaled: a limit of 20 s for heartbeats every 2 s.
LIMIT = ("--idle-timeout", "20s")
RABBITMQ = pathlib.Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


def rabbitmq(test, home):
    """A broker on the backend, with its settings in a folder."""
    if not home.exists():
        home.mkdir()
        (home / "rabbitmq.conf").write_text("loopback_users = none\n")
        # its own epmd, because the broker would leave one running
        test.start(lab.BACKEND, "epmd")
        test.wait_for_port(lab.BACKEND, 4369)
    test.run_in(lab.BACKEND, "chown", "-R", "rabbitmq", home)
    settings = (
        f"HOME={home}", f"RABBITMQ_MNESIA_BASE={home}", f"RABBITMQ_LOG_BASE={home}", "RABBITMQ_NODENAME=lab@localhost",
        f"RABBITMQ_CONFIG_FILE={home}/rabbitmq", f"RABBITMQ_ADVANCED_CONFIG_FILE={home}/advanced.config",
        f"RABBITMQ_ENABLED_PLUGINS_FILE={home}/plugins", "HOSTNAME=localhost",
    )  # fmt: skip
    user = ("setpriv", "--reuid", "rabbitmq", "--regid", "rabbitmq", "--clear-groups", "env", *settings)
    server = test.start(lab.BACKEND, *user, RABBITMQ)
    test.wait_for_port(lab.BACKEND, 5672, server, seconds=180)
    return server


class HeartbeatTest(grpc_test.Grpc):
    def test_heartbeats_protect_and_pools_do_not(self):
        heartbeats = [self.grpc(), self.amqp(), self.mqtt(), self.ssh(), self.websocket()]
        pools = [self.redis_pool(), self.postgresql_pool(), self.http_pool(), self.grpc_calls()]
        for port in heartbeats + pools:
            self.wait_until(lambda port=port: self.established(port), f"a connection to port {port}")

        once = self.audit(lab.CLIENT, *LIMIT)
        self.assertNotIn("app_protected", {c["verdict"] for c in once}, "one sweep shows no heartbeat")

        recording = self.dir / "heartbeats.jsonl"
        verdicts = by_port(self.audit(lab.CLIENT, *LIMIT, "--for", "60s", "--record", recording))
        for port in heartbeats:
            self.assertEqual([verdict for verdict, _ in verdicts[port]], ["app_protected"], verdicts[port])
        for port in pools:
            self.assertEqual({verdict for verdict, _ in verdicts[port]}, {"exposed"}, verdicts[port])

        self.the_middlebox_decides_what_a_ping_is_worth(recording, heartbeats, pools)

    def the_middlebox_decides_what_a_ping_is_worth(self, recording, heartbeats, pools):
        """The same traffic through other middleboxes: only one that reads HTTP/2 itself makes a difference, and only to gRPC."""
        replayed = ("audit", "--all", "--format", "json", "--replay", recording, "--owner", lab.name(lab.CLIENT))
        grpc = heartbeats[0]
        for profile, of_grpc in (("aws-nlb", "app_protected"), ("nginx-stream", "app_protected"), ("aws-alb", "overdue")):
            text = lab.auditor(*replayed, "--profile", profile, *LIMIT, *self.scope(lab.CLIENT)[2:])
            verdicts = by_port(json.loads(text)["connections"])
            self.assertEqual([verdict for verdict, _ in verdicts[grpc]], [of_grpc], (profile, verdicts[grpc]))
            for port in heartbeats[1:]:
                self.assertEqual([verdict for verdict, _ in verdicts[port]], ["app_protected"], (profile, verdicts[port]))
            for port in pools:
                self.assertEqual({verdict for verdict, _ in verdicts[port]}, {"exposed"}, (profile, verdicts[port]))

    def established(self, port):
        return self.run_in(lab.CLIENT, "ss", "-Htn", "state", "established", f"dport = :{port}")

    def grpc(self):
        """Uses the output of `remedy grpc`."""
        arguments = grpc_test.arguments_of(grpc_test.remedy("2s"))
        self.server(arguments, 9001)
        self.client(arguments, 9001)
        return 9001

    def grpc_calls(self):
        """A call every second, and no keepalive."""
        self.server(grpc_test.WITHOUT, 9002)
        self.client(grpc_test.WITHOUT, 9002, 1)
        return 9002

    def amqp(self):
        rabbitmq(self, self.dir / "rabbitmq")
        self.start(lab.CLIENT, sys.executable, "-c", AMQP_CLIENT, lab.BACKEND_IP)
        return 5672

    def mqtt(self):
        config = self.dir / "mosquitto.conf"
        config.write_text("listener 1883\nallow_anonymous true\nuser root\n")
        server = self.start(lab.BACKEND, "mosquitto", "-c", config)
        self.wait_for_port(lab.BACKEND, 1883, server)
        self.start(lab.CLIENT, sys.executable, "-c", MQTT_CLIENT, lab.BACKEND_IP)
        return 1883

    def ssh(self):
        """Uses the output of `remedy sshd`."""
        for key in ("host", "user"):
            self.run_in(lab.BACKEND, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.dir / key)
        config = self.dir / "sshd_config"
        config.write_text(
            f"Port 2222\nHostKey {self.dir}/host\nAuthorizedKeysFile {self.dir}/user.pub\nPidFile none\nStrictModes no\n"
            f"PermitRootLogin yes\nUsePAM no\n{lab.remedy('sshd', '--idle', '2s', '--interval', '2s', *LIMIT)}"
        )
        pathlib.Path("/run/sshd").mkdir(exist_ok=True)
        server = self.start(lab.BACKEND, "/usr/sbin/sshd", "-D", "-e", "-f", config)
        self.wait_for_port(lab.BACKEND, 2222, server)
        options = [f"-o{o}" for o in ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null")]
        self.start(lab.CLIENT, "ssh", "-N", "-i", self.dir / "user", "-p", "2222", *options, f"root@{lab.BACKEND_IP}")
        return 2222

    def websocket(self):
        server = self.start(lab.BACKEND, sys.executable, "-c", WEBSOCKET_SERVER)
        self.wait_for_port(lab.BACKEND, 9003, server)
        self.start(lab.CLIENT, sys.executable, "-c", WEBSOCKET_CLIENT, lab.BACKEND_IP)
        return 9003

    def redis_pool(self):
        config = self.dir / "redis.conf"
        config.write_text(f'port 6379\nprotected-mode no\ntcp-keepalive 0\nsave ""\ndir {self.dir}\n')
        server = self.start(lab.BACKEND, "redis-server", config)
        self.wait_for_port(lab.BACKEND, 6379, server)
        self.poll(6379, "PING\r\n", "*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n", "*1\r\n$4\r\nPING\r\n")
        return 6379

    def http_pool(self):
        server = self.start(lab.BACKEND, *proxies.nginx(self.dir, "listen 8080; location / { return 204; }"))
        self.wait_for_port(lab.BACKEND, 8080, server)
        self.poll(8080, "GET /health HTTP/1.1\r\nHost: lab\r\n\r\n", "HEAD / HTTP/1.1\r\nHost: lab\r\n\r\n")
        return 8080

    def poll(self, port, *requests):
        """Connections that ask the same every 0.5, 1 and 2 s."""
        self.start(lab.CLIENT, sys.executable, "-c", POLLS, lab.BACKEND_IP, port, *requests)

    def postgresql_pool(self):
        data = self.dir / "data"
        initdb = programs.as_postgres("initdb", "-D", data, "-A", "trust", "--no-sync")
        for command in (("chown", "postgres", self.dir), initdb):
            self.run_in(lab.BACKEND, *command)
        with (data / "pg_hba.conf").open("a") as access:
            access.write("host all all 10.77.0.0/16 trust\n")
        options = ("-c", "listen_addresses=*", "-k", self.dir)
        server = self.start(lab.BACKEND, *programs.as_postgres("postgres", "-D", data, *options))
        self.wait_for_port(lab.BACKEND, 5432, server)
        script = self.dir / "select.sql"
        script.write_text("SELECT 1;\n")
        where = ("-h", lab.BACKEND_IP, "-d", "postgres")
        pgbench = programs.as_postgres("pgbench", *where, "-n", "-f", script, "-c", "2", "-R", "2", "-T", "600")
        self.start(lab.CLIENT, *pgbench)
        return 5432


def by_port(connections):
    """The verdict of each connection and its reason, by the port of the server."""
    verdicts = {}
    for connection in connections:
        port = int(connection["endpoint"].rsplit(":", 1)[1])
        verdicts.setdefault(port, []).append((connection["verdict"], connection["why"]))
    return verdicts


AMQP_CLIENT = """
import pika, sys
connection = pika.BlockingConnection(pika.ConnectionParameters(sys.argv[1], heartbeat=4))
while True:
    connection.process_data_events(time_limit=0.5)
"""
MQTT_CLIENT = """
import paho.mqtt.client, sys
client = paho.mqtt.client.Client(paho.mqtt.client.CallbackAPIVersion.VERSION2)
client.connect(sys.argv[1], keepalive=4)
client.loop_forever()
"""
WEBSOCKET_SERVER = """
import asyncio, websockets
async def main():
    async with websockets.serve(lambda socket: socket.wait_closed(), "0.0.0.0", 9003, ping_interval=None):
        await asyncio.Future()
asyncio.run(main())
"""
WEBSOCKET_CLIENT = """
import asyncio, sys, websockets
async def main():
    async with websockets.connect(f"ws://{sys.argv[1]}:9003", ping_interval=2) as socket:
        await socket.wait_closed()
asyncio.run(main())
"""
POLLS = """
import socket, sys, threading, time
def poll(connection, request, period):
    while True:
        connection.sendall(request)
        connection.recv(65536)
        time.sleep(period)
for request in sys.argv[3:]:
    for period in (0.5, 1, 2):
        arguments = (socket.create_connection((sys.argv[1], int(sys.argv[2]))), request.encode(), period)
        threading.Thread(target=poll, args=arguments).start()
"""


if __name__ == "__main__":
    unittest.main()
