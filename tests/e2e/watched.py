"""Connections of two sizes to watch, and `audit --watch` in a real terminal."""

import sys

import lab
import tmux

HOLD = """
import socket, sys
held = [socket.create_connection((sys.argv[1], int(sys.argv[2]))) for _ in range(int(sys.argv[3]))]
print("held", flush=True)
for line in sys.stdin:
    for connection in held:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, line == "on\\n")
"""


class Watched(lab.Lab):
    def setUp(self):
        super().setUp()
        for port, count in ((9000, 3), (9001, 2)):
            self.serve(lab.BACKEND, port)
            self.hold(port, count)

    def hold(self, port, count):
        """A process with so many connections to this port."""
        client = self.start(lab.CLIENT, sys.executable, "-c", HOLD, lab.BACKEND_IP, port, count)
        self.wait_until(lambda: "held" in client.log.read_text(), f"{count} connections to port {port}")
        return client

    def wait_until_judged(self):
        is_judged = lambda: {c["verdict"] for c in self.audit(lab.CLIENT)} == {"exposed"}
        self.wait_until(is_judged, "every connection to be judged")

    def terminal(self, columns=100, rows=30):
        return tmux.Tmux(self, self.dir, columns, rows)

    def audit_of_client(self, *flags):
        return (lab.AUDITOR, "audit", *self.scope(lab.CLIENT), *flags)

    def watch(self, terminal, *flags, count=5):
        terminal.run(*self.audit_of_client("--watch", "500ms", *flags))
        terminal.wait_for(f"{count} exposed")

    def quit(self, terminal):
        terminal.type("q")
        self.assertEqual(terminal.status(), 0)
