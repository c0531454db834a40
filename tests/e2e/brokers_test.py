"""Redis clients, RabbitMQ and Kafka clients: flagged with default settings or without keepalive, protected with the output of `remedy`."""

import json
import os
import sys
import unittest

import heartbeats_test as heartbeats
import lab
from remedied import FLAGS, RemedyTest

REDIS_PY = "import redis, sys, time; c = redis.Redis(host=sys.argv[1], socket_keepalive_options={}); c.ping(); time.sleep(600)"
IOREDIS = 'new (require("ioredis"))({host: process.argv[1], keepAlive: 0}).ping().then(console.log)'
KAFKA = """
import confluent_kafka, json, sys, time
client = confluent_kafka.Producer(json.loads(sys.argv[1]))
client.poll(600)
"""


class RedisClientTest(RemedyTest):
    def setUp(self):
        super().setUp()
        config = self.dir / "redis.conf"
        config.write_text(f'port 6379\nprotected-mode no\nsave ""\ntcp-keepalive 0\ndir {self.dir}\n')
        server = self.start(lab.BACKEND, "redis-server", config)
        self.wait_for_port(lab.BACKEND, 6379, server)

    def client(self, *command):
        client = self.start(lab.CLIENT, *command)
        connected = ("ss", "-Htn", "state", "established", "dport = :6379")
        self.wait_until(lambda: self.run_in(lab.CLIENT, *connected), f"{command[0]} to connect")
        return client

    def printed(self, target, file):
        path = self.dir / file
        path.write_text(lab.remedy(target, "--host", lab.BACKEND_IP, *FLAGS))
        return path

    def remedied(self, target, plain, printed, **options):
        endpoint = f"{lab.BACKEND_IP}:6379"
        client = self.client(*plain, lab.BACKEND_IP)
        self.before(lab.CLIENT, "late", endpoint=endpoint)
        lab.stop(client)
        self.client(*printed)
        self.after(lab.CLIENT, target=target, program=target, before="late", endpoint=endpoint, **options)

    def test_redis_py(self):
        """With keepalive on and no times, as before release 7."""
        self.remedied("redis-py", (sys.executable, "-c", REDIS_PY), (sys.executable, self.printed("redis-py", "keepalive.py")))

    @unittest.skipUnless("NODE_PATH" in os.environ, "ioredis is not installed")
    def test_ioredis(self):
        """With keepAlive: 0, the default before release 6."""
        self.remedied("ioredis", ("node", "-e", IOREDIS), ("node", self.printed("ioredis", "keepalive.js")), interval=1, probes=10)


class BrokerTest(RemedyTest):
    def test_rabbitmq_with_heartbeats_turned_off(self):
        home = self.dir / "rabbitmq"
        server = heartbeats.rabbitmq(self, home)
        client = self.amqp()
        self.before(lab.BACKEND, "off", endpoint=":5672")
        lab.stop(client)
        lab.stop(server)
        (home / "advanced.config").write_text(lab.remedy("rabbitmq", *FLAGS))
        heartbeats.rabbitmq(self, home)
        self.amqp()
        self.after(lab.BACKEND, target="rabbitmq", program="RabbitMQ server", before="off", endpoint=":5672")

    def amqp(self):
        client = self.start(lab.CLIENT, sys.executable, "-c", AMQP, lab.BACKEND_IP)
        self.wait_for_word(client, "connected")
        return client

    def test_librdkafka(self):
        """The peer accepts and never answers, as a broker behind a path that has dropped the connection."""
        self.serve(lab.BACKEND, 9092, "hold")
        endpoint = f"{lab.BACKEND_IP}:9092"
        plain = {"bootstrap.servers": endpoint, "api.version.request": False, "broker.version.fallback": "0.9.0"}
        client = self.kafka(plain)
        self.before(lab.CLIENT, "off", endpoint=endpoint)
        lab.stop(client)
        self.set_sysctls(lab.CLIENT)
        self.kafka({**plain, **properties(lab.remedy("kafka", *FLAGS))})
        self.after(lab.CLIENT, target="kafka", program="librdkafka, with sysctl", before="off", endpoint=endpoint)

    def kafka(self, settings):
        client = self.start(lab.CLIENT, sys.executable, "-c", KAFKA, json.dumps(settings))
        connected = ("ss", "-Htn", "state", "established", "dport = :9092")
        self.wait_until(lambda: self.run_in(lab.CLIENT, *connected), "librdkafka to connect")
        return client

    def test_an_idle_kafka_client_closes_its_connections(self):
        """librdkafka with the broker of its own test mode, which listens on loopback."""
        idle = properties(lab.remedy("kafka", "--idle", "10s"))["connections.max.idle.ms"]
        self.assertEqual(idle, "10000")
        client = self.start(lab.CLIENT, sys.executable, "-c", KAFKA_TEST_MODE, "3000")
        self.wait_for_word(client, "all closed")


def properties(text):
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


KAFKA_TEST_MODE = """
import confluent_kafka, os, subprocess, sys
settings = {"test.mock.num.brokers": 1, "bootstrap.servers": "unused", "connections.max.idle.ms": sys.argv[1]}
client = confluent_kafka.Producer(settings)

def connections():
    shown = subprocess.run(("ss", "-Htn", "state", "established"), capture_output=True, text=True)
    return {tuple(line.split()[2:4]) for line in shown.stdout.splitlines()}

client.list_topics(timeout=30)
first = set()
while not first:
    client.poll(0.1)
    first = connections()
# the client may open others, which it closes in their turn
while first & connections():
    client.poll(0.2)
print("all closed", flush=True)
"""
AMQP = """
import pika, sys, time
connection = pika.BlockingConnection(pika.ConnectionParameters(sys.argv[1], heartbeat=0))
print("connected", flush=True)
time.sleep(600)
"""

if __name__ == "__main__":
    unittest.main()
