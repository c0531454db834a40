"""Each line of `remedy user-timeout` sets TCP_USER_TIMEOUT in its program, as getsockopt reads it."""

import os
import pathlib
import shutil
import subprocess
import sys
import unittest

import databases_test as databases
import lab
from remedied import IDLE, INTERVAL, PROBES, RemedyTest, yaml_of

SECONDS = IDLE + INTERVAL * PROBES
PYTHON = f"""
import socket
sock = socket.create_connection(("{lab.BACKEND_IP}", 9000))
LINE
sock.recv(1)
"""
GO = f"""
package main

import (
	"io"
	"net"
	"syscall"
)

func main() {{
	conn, err := net.Dial("tcp", "{lab.BACKEND_IP}:9000")
	if err != nil {{
		panic(err)
	}}
	raw, _ := conn.(*net.TCPConn).SyscallConn()
	raw.Control(func(descriptor uintptr) {{
		fd := int(descriptor)
		LINE
	}})
	io.Copy(io.Discard, conn)
}}
"""
RUST = f"""
use std::io::Read;
use std::time::Duration;

fn main() {{
    let mut stream = std::net::TcpStream::connect("{lab.BACKEND_IP}:9000").unwrap();
    LINE.unwrap();
    let _ = stream.read(&mut [0]);
}}
"""


class UserTimeoutTest(RemedyTest):
    def setUp(self):
        super().setUp()
        self.lines = yaml_of("user-timeout", "--host", lab.BACKEND_IP, "--port", 8080)

    def seen(self, name, host, **wanted):
        seen = lambda: {c["exact"]["tcp_user_timeout_seconds"] for c in self.connections(host, "--exact", **wanted)}
        self.wait_until(lambda: seen() == {SECONDS}, f"TCP_USER_TIMEOUT of {name}")
        print(f"\n| user-timeout | {name} | | TCP_USER_TIMEOUT {SECONDS} s | |", file=sys.stderr, flush=True)

    def test_postgresql_and_pgbouncer(self):
        databases.postgresql(self, self.lines["postgresql.conf"] + "\n")
        databases.pgbouncer(self, self.lines["pgbouncer.ini"] + "\n")
        databases.psql(self, f"{databases.conninfo('postgres')} {self.lines['libpq']}")
        self.seen("libpq", lab.CLIENT)
        self.seen("postgresql.conf", lab.BACKEND, endpoint=":5432")
        self.seen("pgbouncer.ini", lab.GATEWAY, direction="outbound")

    def test_haproxy(self):
        self.serve(lab.BACKEND, 8080)
        config = self.dir / "haproxy.cfg"
        config.write_text(
            f"defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\nlisten gateway\n"
            f"    {self.lines['haproxy-bind']}\n    {self.lines['haproxy-server']}\n"
        )
        process = self.start(lab.GATEWAY, "haproxy", "-db", "-f", config)
        self.wait_for_port(lab.GATEWAY, 8080, process)
        self.dial(lab.CLIENT, lab.GATEWAY_FRONT, 8080)
        for line, direction in (("haproxy-bind", "inbound"), ("haproxy-server", "outbound")):
            self.seen(line, lab.GATEWAY, direction=direction)

    def program(self, name, *command):
        self.serve(lab.BACKEND, 9000, "hold")
        client = self.start(lab.CLIENT, *command)
        connected = ("ss", "-Htn", "state", "established", "dport = :9000")
        self.wait_until(lambda: self.run_in(lab.CLIENT, *connected), f"{name} to connect")
        self.seen(name, lab.CLIENT)
        lab.stop(client)

    def source(self, file, text, language):
        path = self.dir / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("LINE", self.lines[language]))
        return path

    def test_python(self):
        self.program("python", sys.executable, self.source("client.py", PYTHON, "python"))

    def test_go(self):
        source = self.source("client.go", GO, "go")
        alone = {**os.environ, "GO111MODULE": "off", "CGO_ENABLED": "0"}
        self.run_in(lab.CLIENT, shutil.which("go"), "build", "-o", self.dir / "client", source, env=alone)
        self.program("go", self.dir / "client")

    def test_rust(self):
        self.source("keepalive/src/main.rs", RUST, "rust")
        manifest = self.dir / "keepalive" / "Cargo.toml"
        dependency = 'socket2 = { version = "0.6", features = ["all"] }'
        package = '[package]\nname = "user-timeout-e2e"\nedition = "2024"\n'
        manifest.write_text(f"{package}[dependencies]\n{dependency}\n[workspace]\n")
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target")).absolute() / "e2e"
        subprocess.run(("cargo", "build", "--quiet", "--manifest-path", manifest, "--target-dir", target), check=True)
        self.program("rust", target / "debug" / "user-timeout-e2e")


if __name__ == "__main__":
    unittest.main()
