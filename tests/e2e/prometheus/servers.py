"""The real programs around the scene: the agent, Prometheus, Alertmanager, and a receiver of its notifications."""

import contextlib
import http.server
import json
import pathlib
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

# Seconds to wait for an expected event on a loaded machine.
TIMEOUT = 90
# The rules wait for minutes, which a test cannot. Nothing else in them is changed.
FASTER = [
    (r"(?m)^(\s+for:) \d+[mh]$", r"\1 2s"),
    (r"(?m)^(\s+interval:) \d+m$", r"\1 1s"),
    (r"offset 10m", "offset 10s"),
    (r"\[30m\]", "[60s]"),
    (r"\[10m\]", "[10s]"),
]


@contextlib.contextmanager
def stage():
    """A directory, and the list of what ends with the test, the last one first. If the test fails, the logs in the directory are printed."""
    directory, ending = pathlib.Path(tempfile.mkdtemp(prefix="keepalive-auditor-e2e-")), []
    directory.chmod(0o755)
    try:
        yield directory, ending
    except BaseException:
        for log in directory.glob("*.log"):
            print(f"--- {log.name}\n{log.read_text()[-3000:]}", file=sys.stderr)
        raise
    finally:
        for thing in reversed(ending):
            thing.end()
        shutil.rmtree(directory, ignore_errors=True)


def free_port():
    """A free port that the kernel does not give to a connection before our server listens on it."""
    lowest = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(min(10000, lowest - 1), lowest)
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            return port


def wait_for(what, check):
    """The first true answer of `check`, or a failure that names the expected event."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        answer = check()
        if answer:
            return answer
        time.sleep(0.5)
    raise TimeoutError(f"{what}: not within {TIMEOUT} s")


def get(url):
    """The body, or None if nobody answers yet."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


class Server:
    """A process with a port, its log in a file."""

    def __init__(self, directory, name, command, ready):
        self.log = directory / f"{name}.log"
        self.process = subprocess.Popen(command, stdout=open(self.log, "w"), stderr=subprocess.STDOUT)
        self.name, self.ready = name, ready

    def wait(self):
        def check():
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} has ended:\n{self.log.read_text()[-2000:]}")
            return get(self.ready) is not None

        wait_for(f"{self.name} is ready", check)
        return self

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def agent(directory, name, binary, logs, *flags, wrapper=()):
    """Starts an agent that sweeps more often than Prometheus scrapes."""
    port = free_port()
    command = [*wrapper, binary, "agent", f"--web.listen-address=127.0.0.1:{port}", f"--pod-logs={logs}", "--interval=500ms",
               "--idle-timeout=10s", "--long-lived=5s", "--local-scope=namespace", *flags]
    server = Server(directory, name, command, f"http://127.0.0.1:{port}/readyz")
    server.port = port
    return server


class Receiver:
    """Receives Alertmanager's notifications, and stores all of them and the last one of each alert."""

    def __init__(self):
        alerts, words = self.alerts, self.notifications = {}, []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for alert in body["alerts"]:
                    alerts[tuple(sorted(alert["labels"].items()))] = alert
                    words.append(alert)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def find(self, status, **labels):
        """The alerts that have that status now, with at least these labels."""
        return select(list(self.alerts.values()), status, labels)

    def received(self, status, **labels):
        """The notifications so far with that status and at least these labels. Some alerts end within seconds."""
        return select(list(self.notifications), status, labels)

    def end(self):
        self.server.shutdown()


def select(alerts, status, labels):
    return [a for a in alerts if a["status"] == status and labels.items() <= a["labels"].items()]


def alertmanager(directory, receiver):
    port = free_port()
    config = {
        "route": {"receiver": "test", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s", "repeat_interval": "1h"},
        "receivers": [{"name": "test", "webhook_configs": [{"url": receiver.url, "send_resolved": True}]}],
    }
    (directory / "alertmanager.yml").write_text(yaml.safe_dump(config))
    command = ["prometheus-alertmanager", f"--config.file={directory}/alertmanager.yml", f"--storage.path={directory}/alertmanager",
               f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
    server = Server(directory, "alertmanager", command, f"http://127.0.0.1:{port}/-/ready")
    server.port = port
    return server


def faster(text):
    """The rules with shorter times."""
    for pattern, replacement in FASTER:
        text = re.sub(pattern, replacement, text)
    return text


class Prometheus(Server):
    """Scrapes the agents as the PodMonitor has them scraped, with the project's rules."""

    def __init__(self, directory, rules, targets, alertmanager_port):
        self.port = free_port()
        (directory / "rules").mkdir()
        for path in rules:
            (directory / "rules" / path.name).write_text(faster(path.read_text()))
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [f"{directory}/rules/*.yaml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager_port}"]}]}]},
            "scrape_configs": [{
                "job_name": "keepalive-auditor", "honor_labels": True,
                "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": labels} for port, labels in targets],
            }],
        }
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = ["prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/tsdb",
                   f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"]
        super().__init__(directory, "prometheus", command, f"http://127.0.0.1:{self.port}/-/ready")

    def api(self, path, **parameters):
        """The data of an API call. A refused query is a ValueError with the text of Prometheus."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error).get("error")) from None

    def query(self, expr):
        """The instant vector, as [(labels, value)]."""
        return [(sample["metric"], float(sample["value"][1])) for sample in self.api("query", query=expr)["result"]]

    def over(self, expr, start):
        """Every series that the expression had at some moment since `start`."""
        return self.api("query_range", query=expr, start=start, end=time.time(), step=1)["result"]
