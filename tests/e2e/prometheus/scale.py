#!/usr/bin/env python3
"""Measures a scrape: bytes, compressed bytes and series of an agent on a node with many pods, at each level of detail.

    tests/e2e/prometheus/scale.py BINARY PODS

The figures of docs/scaling.md come from here. Every pod is the same: 4 connections to other pods' service, 2 of them with keepalive, and one local pair.
Needs what run.py needs, about 15 MB of memory a pod, and is not part of CI.
"""

import collections
import gzip
import pathlib
import sys
import tempfile
import time

from scene import Scene
from servers import agent, get, wait_for


def describe(name, page):
    samples = [line for line in page.splitlines() if line and not line.startswith("#")]
    families = collections.Counter(line.partition("{")[0].partition(" ")[0] for line in samples)
    print(f"{name}: {len(samples)} series, {len(page)} bytes, {len(gzip.compress(page.encode()))} compressed")
    for family, count in families.most_common(8):
        size = sum(len(line) + 1 for line in samples if line.startswith(family + "{"))
        print(f"    {family}: {count}" + (f", {size / count:.0f} bytes each" if count and size else ""))


def main():
    binary, pods = str(pathlib.Path(sys.argv[1]).resolve()), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        scene, agents = Scene(directory / "log"), []
        try:
            store = scene.pod("data", "store-0", "db")
            store.listen(port=7001)
            for number in range(pods):
                pod = scene.pod(f"team-{number % 25}", f"{number}-service-7d9c5b8f4c-x2x4z", "app")
                pod.connect(name="off", host=store.address, port=7001, count=2)
                pod.connect(name="on", host=store.address, port=7001, count=2, idle=3)
                pod.listen(port=8000, address="127.0.0.1")
                pod.connect(name="local", host="127.0.0.1", port=8000)
            for detail in ("container", "pod", "namespace"):
                agents.append(agent(directory, detail, binary, scene.logs, f"--metrics-detail={detail}").wait())
            time.sleep(15)
            for server in agents:
                page = wait_for("a page", lambda s=server: get(f"http://127.0.0.1:{s.port}/metrics"))
                describe(pathlib.Path(server.log).stem, page)
        finally:
            for thing in agents:
                thing.end()
            scene.end()


if __name__ == "__main__":
    main()
