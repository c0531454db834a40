"""`audit --watch` in a real terminal: its keys, sizes and colours, and what comes where nothing can be drawn."""

import re
import shlex
import subprocess
import sys
import unittest

import lab
from watched import Watched

# Many listeners, or one connection to each of many ports.
MANY = """
import socket, sys
first, count = int(sys.argv[2]), int(sys.argv[3])
ports = range(first, first + count)
if sys.argv[1] == "listen":
    held = [socket.create_server(("", port)) for port in ports]
else:
    held = [socket.create_connection((sys.argv[1], port)) for port in ports]
print("held", flush=True)
sys.stdin.read()
"""
# What a terminal acts on.
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z$", re.MULTILINE)


class WatchTest(Watched):
    def row(self, screen):
        """The selected row."""
        return next((line for line in screen.splitlines() if line.startswith("> ")), "")

    def test_keys(self):
        terminal = self.terminal()
        self.watch(terminal)
        terminal.wait(lambda screen: "9000" in self.row(screen), "the largest group first, and selected")
        terminal.type("Down")
        terminal.wait(lambda screen: "9001" in self.row(screen), "the second group to be selected")
        terminal.type("Enter")
        screen = terminal.wait_for("Keepalive is off")
        self.assertIn("keepalive-auditor remedy", screen)
        self.assertRegex(screen, rf"{lab.CLIENT_IP}:\d+ → {lab.BACKEND_IP}:9001 +idle ")
        terminal.type("Enter")
        terminal.wait_without("Keepalive is off")

        terminal.type("r")
        screen = terminal.wait_for("sorted by worst, reversed")
        self.assertLess(screen.index("9001"), screen.index("9000"))
        self.assertIn("9001", self.row(screen), "the selected group stays selected")
        terminal.type("s")
        terminal.wait_for("sorted by connections")

        terminal.write("/dprt = :9001")
        terminal.type("Enter")
        terminal.wait_for("did you mean `dport`?")
        terminal.type("C-u")
        terminal.write("dport = :9001")
        terminal.type("Enter")
        screen = terminal.wait_for("filter: dport = :9001 (of 5 connections)")
        self.assertIn("2 of 2 connections are at risk", screen)
        self.assertNotIn(":9000 ", screen)
        terminal.type("Escape")
        terminal.wait_for("5 of 5 connections")

        terminal.type("?")
        terminal.wait_for("select a group")
        terminal.type("?")
        terminal.wait_without("select a group")

        terminal.type("p")
        terminal.wait_for("newer sweeps")
        client = self.hold(9001, 1)
        before = terminal.wait_for("5 of 5 connections")
        self.assertIn("PAUSED", before)
        terminal.type("p")
        screen = terminal.wait_for("1 new (+)")
        self.assertIn("of 6 connections", screen)
        terminal.wait(lambda screen: re.search(r"9001 .*\+1$", screen, re.MULTILINE), "a row with the new connection")
        lab.stop(client)
        terminal.wait_without("1 new (+)")

        self.quit(terminal)

    def test_changes(self):
        terminal = self.terminal()
        client = self.hold(9000, 1)

        def turn(keepalive):
            client.stdin.write(keepalive + b"\n")
            client.stdin.flush()

        self.wait_until_judged()
        self.watch(terminal, count=6)
        turn(b"on")
        terminal.wait_for("1 better (↑)")
        self.quit(terminal)
        self.watch(terminal, count=5)
        terminal.wait_for("1 protected")
        turn(b"off")
        terminal.wait_for("1 worse (↓)")
        lab.stop(client)
        terminal.wait_for("1 gone")

    def test_sizes(self):
        terminal = self.terminal()
        self.watch(terminal)
        for columns, rows in ((60, 16), (160, 50), (40, 8), (20, 4), (100, 30)):
            terminal.tmux("resize-window", "-x", columns, "-y", rows)
            lines = lambda screen: screen.split("\n")[:-1]
            is_drawn = lambda screen, rows=rows: len(lines(screen)) == rows and lines(screen)[-1].startswith("q quit")
            screen = terminal.wait(lambda screen: is_drawn(screen) and "> exposed" in screen, f"{columns}x{rows}")
            self.assertLessEqual(max(map(len, lines(screen))), columns)
        self.quit(terminal)

    def test_colours(self):
        terminal = self.terminal()
        # SGR 3x to 9x of capture-pane, without the reset of a colour
        coloured = re.compile(r"\x1b\[[\d;]*(?:3[0-8]|9\d)[\d;]*m")
        for environment, flags, expected in (
            ((), (), True),
            (("NO_COLOR=1",), (), False),
            ((), ("--color", "never"), False),
            (("NO_COLOR=1",), ("--color", "always"), True),
        ):
            terminal.run("env", *environment, *self.audit_of_client("--watch", "500ms", *flags))
            terminal.wait_for("5 exposed")
            terminal.wait_for("> exposed")
            self.assertEqual(bool(coloured.search(terminal.screen("-e"))), expected, (environment, flags))
            self.quit(terminal)

            terminal.run_line(shlex.join(["env", *environment, *map(str, self.audit_of_client(*flags))]) + " 2>/dev/null")
            self.assertEqual(terminal.status(), 0)
            self.assertEqual(bool(coloured.search(terminal.screen("-e"))), expected, (environment, flags))

    def test_the_table_fits_the_terminal(self):
        for host, what in ((lab.BACKEND, "listen"), (lab.CLIENT, lab.BACKEND_IP)):
            many = self.start(host, sys.executable, "-c", MANY, what, 9100, 60)
            self.wait_until(lambda many=many: "held" in many.log.read_text(), "60 ports")
        self.wait_until_judged()
        terminal = self.terminal()
        for columns, rows in ((60, 16), (80, 24), (100, 30), (200, 60)):
            terminal.tmux("resize-window", "-x", columns, "-y", rows)
            terminal.run_line(shlex.join(map(str, self.audit_of_client())) + " 2>/dev/null")
            status, screen = terminal.end_of_command()
            self.assertEqual(status, 0)
            # nothing was scrolled away, and no line is broken by the terminal
            self.assertRegex(screen, r"^\d+ of 65 connections? (is|are) at risk", f"{columns}x{rows}")
            lines = lambda text: [line.rstrip() for line in text.splitlines()]
            self.assertEqual(lines(screen), lines(terminal.screen("-J")), "a line is wider than the terminal")
            self.assertRegex(screen, r"\n… \d+ more groups, \d+ connections: --all-groups\n")

    def test_plain_where_nothing_can_be_drawn(self):
        terminal = self.terminal()
        terminal.run("env", "TERM=dumb", *self.audit_of_client("--watch", "500ms"))
        terminal.wait(lambda screen: len(TIME.findall(screen)) > 1, "two blocks of text")
        self.assertEqual(terminal.fact("alternate_on"), "0")
        terminal.type("C-c")
        for form in ("groups", "table", "wide"):
            command = self.audit_of_client("--watch", "100ms", "--format", form)
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as watch:
                text, summary = "", "  5 exposed\n" if form == "groups" else "(5 exposed)"
                while len(TIME.findall(text.partition(summary)[2])) < 2:
                    line = watch.stdout.readline()
                    self.assertTrue(line, text)
                    text += line
                watch.kill()
            self.assertNotRegex(text, CONTROL)
            for block in TIME.split(text)[1:-1]:
                self.assertTrue(block.startswith("\n") and block.endswith("\n\n"), repr(block))

    def test_progress(self):
        terminal = self.terminal()
        terminal.run_line(" ".join(map(str, self.audit_of_client("--for", "3s", "--color", "never"))) + " | cat")
        terminal.wait_for("watching: 1s of 3s")
        terminal.wait_for("5 exposed")
        self.assertNotIn("watching", terminal.screen())
        done = subprocess.run(self.audit_of_client("--for", "2s"), capture_output=True, text=True, check=True)
        self.assertIn("watching: 0s of 2s\n", done.stderr)
        self.assertNotRegex(done.stdout + done.stderr, CONTROL)
        self.assertNotIn("watching", done.stdout)


if __name__ == "__main__":
    unittest.main()
