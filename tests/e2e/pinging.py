"""gRPC channels that ping through proxies, and an auditor that watches them until the awaited verdict comes."""

import datetime
import json
import os
import re
import subprocess
import sys

import grpc_test
import lab

# Seconds. A channel pings every second, and a proxy closes what it takes for idle after the limit.
LIMIT = 30
# A limit that passes between two requests while the connection lives, and never between two PINGs of a channel that runs.
SHORT_LIMIT = 3
# Seconds to wait for an expected event while the machine is busy with other work.
DEADLINE = 240
# The C core logs each PING and its answer.
LOGS_PINGS = {"GRPC_VERBOSITY": "debug", "GRPC_TRACE": "http_keepalive", "TZ": "UTC"}
# Other work should not delay the channels and proxies. Where this is not permitted, `nice` runs the program all the same.
FIRST = ("nice", "-n", "-10")
UTC = datetime.timezone.utc


def pings():
    """The arguments of channels and servers. An answer may take a minute, so a busy peer loses no connection."""
    return grpc_test.arguments_of(grpc_test.remedy("1s", interval="60s"))


class Watch:
    """`audit --watch` of the client host. It starts before the connections, so that it sees all that they do."""

    def __init__(self, test, paths):
        self.output = test.dir / f"watch-{len(test.started)}.jsonl"
        config = self.output.with_suffix(".yaml")
        config.write_text(json.dumps({"paths": paths}))
        command = (lab.AUDITOR, "audit", "--all", "--format", "jsonl", "--watch", "1s", "--config", config)
        self.log = self.output.with_suffix(".log")
        with self.output.open("wb") as out, self.log.open("wb") as errors:
            words = [str(word) for word in (*command, *test.scope(lab.CLIENT))]
            self.process = subprocess.Popen(words, stdout=out, stderr=errors, start_new_session=True)
        test.addCleanup(lab.stop, self.process)
        test.started.append(self.process)

    def records(self, path):
        """What each sweep showed of the connection on a path."""
        whole = self.output.read_text().rpartition("\n")[0]
        return [record for record in map(json.loads, whole.splitlines()) if record["path"] == path]


class Pinging(grpc_test.Grpc):
    """Scenes with one channel per port."""

    def setUp(self):
        super().setUp()
        self.started, self.channels = [], {}

    def play(self, scene):
        """Plays a scene, and once more if it fails and a channel logged that its PINGs stalled for more than half the limit."""
        try:
            scene()
        except AssertionError as error:
            stalled = max(map(longest_stall, self.channels.values()), default=0)
            if stalled <= LIMIT / 2:
                raise
            print(f"\nonce more, because PINGs stalled for {stalled:.0f} s: {error}", file=sys.stderr, flush=True)
            for process in self.started:
                lab.stop(process)
            self.started, self.channels = [], {}
            scene()

    def open_channels(self, *ports):
        for port in ports:
            client = (*FIRST, sys.executable, grpc_test.FOLDER / "client.py", self.file(pings()), lab.GATEWAY_FRONT, port)
            self.channels[port] = self.start(lab.CLIENT, *client, env={**os.environ, **LOGS_PINGS})
            self.started.append(self.channels[port])
        for port, client in self.channels.items():
            self.wait_until(lambda log=client.log: "answered" in log.read_text(), f"an answer through port {port}", DEADLINE)

    def is_open(self, port):
        return bool(self.run_in(lab.CLIENT, "ss", "-Htn", "state", "established", f"dport = :{port}"))

    def wait_for_close(self, port):
        """Waits until the proxy closes the connection. From then on its channel cannot stall."""
        self.wait_until(lambda: not self.is_open(port), f"the proxy on port {port} to close what only pings", DEADLINE)
        lab.stop(self.channels.pop(port))

    def wait_for(self, watch, path, port, is_wanted, what):
        """The first record of a path that is wanted. Fails as soon as its connection is gone without one."""
        first = lambda: next(filter(is_wanted, watch.records(path)), None)
        self.wait_until(lambda: first() or not self.is_open(port) or watch.process.poll() is not None, what, DEADLINE)
        found = first()
        self.assertIsNotNone(found, f"{what} did not come: {watch.records(path)[-1:]} {watch.log.read_text()[-1000:]}")
        return found

    def wait_until_not_counted(self, watch, path, port):
        """The audit says, while the connection lives, that the path counts no PING."""
        is_wanted = lambda c: (c["verdict"], c["cause"]) == ("exposed", "pings_not_counted") and only_pings(c)
        return self.wait_for(watch, path, port, is_wanted, f"{path} to count no PING")

    def wait_until_overdue(self, watch, path, port):
        """The audit says that the limit has passed although PINGs came: `watch` has the short limit for this path."""
        by_pings = lambda c: only_pings(c) and c["data_idle_seconds"] < SHORT_LIMIT
        self.wait_for(watch, path, port, lambda c: c["verdict"] == "overdue" and by_pings(c), f"{path} to be overdue")

    def wait_until_kept(self, watch, path, port):
        """The path counts PINGs: its connection is exposed until they were watched for the limit, and outlives the limit."""
        protected = lambda c: c["verdict"] == "app_protected"
        kept = self.wait_for(watch, path, port, lambda c: protected(c) and c["age_seconds"] > 1.5 * LIMIT, f"{path} to be kept")
        records = watch.records(path)
        self.assertEqual({c["local"] for c in records}, {kept["local"]}, "one connection all the time")
        self.assertGreaterEqual(next(filter(protected, records))["age_seconds"], LIMIT, f"{path} is protected before the limit")
        self.assertEqual({c["cause"] for c in records if c["verdict"] == "exposed"}, {"payload_only"}, path)

    def assert_never_protected(self, watch, path):
        verdicts = {c["verdict"] for c in watch.records(path)}
        self.assertLessEqual(verdicts, {"young", "exposed", "overdue"}, path)


def only_pings(connection):
    return connection["request_idle_seconds"] > connection["data_idle_seconds"] + 1


def longest_stall(channel):
    """The longest time, seconds, that a channel logged between two answered PINGs, or that has passed since its last line."""
    log, now = channel.log.read_text(), datetime.datetime.now(UTC)
    # severity, month and day, time
    stamps = re.findall(r"(?m)^[IWE](\d{4} [\d:]{8}\.\d+) .*(?:gRPC Tracers|Finish keepalive ping)", log)
    times = [datetime.datetime.strptime(f"{now.year} {stamp}", "%Y %m%d %H:%M:%S.%f").replace(tzinfo=UTC) for stamp in stamps]
    return max(((after - before).total_seconds() for before, after in zip(times, [*times[1:], now])), default=0)
