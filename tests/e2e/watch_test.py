"""`audit --watch` in a real terminal: its keys, sizes and colours, and that the terminal is restored however it ends."""

import os
import pty
import re
import shlex
import signal
import subprocess
import termios

import lab
import tmux

PANIC = os.environ.get("SCREEN_PANIC", "screen_panic")
HOLD = """
import socket, sys
held = [socket.create_connection((sys.argv[1], int(sys.argv[2]))) for _ in range(int(sys.argv[3]))]
print("held", flush=True)
for line in sys.stdin:
    for connection in held:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, line == "on\\n")
"""
# The same, with one connection to each of many ports.
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


class WatchTest(lab.Lab):
    def setUp(self):
        super().setUp()
        for port, count in ((9000, 3), (9001, 2)):
            self.serve(lab.BACKEND, port)
            self.hold(port, count)

    def hold(self, port, count):
        """A process with so many connections to this port."""
        client = self.start(lab.CLIENT, lab.sys.executable, "-c", HOLD, lab.BACKEND_IP, port, count)
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

        terminal.type("q")
        self.assertEqual(terminal.status(), 0)

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
        terminal.type("q")
        self.assertEqual(terminal.status(), 0)
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
        terminal.type("q")
        self.assertEqual(terminal.status(), 0)

    def test_every_exit_restores_the_terminal(self):
        terminal = self.terminal()
        before = terminal.state()
        self.assertEqual(before[:2], ("0", "1"))

        def restored(status):
            self.assertEqual(terminal.status(), status)
            self.assertEqual(terminal.state(), before)

        for key in ("q", "C-c"):
            self.watch(terminal)
            self.assertEqual(terminal.fact("alternate_on"), "1")
            terminal.type(key)
            restored(0)
        # one more, while a filter is typed and the cursor shows
        self.watch(terminal)
        terminal.write("/dport")
        terminal.wait_for("filter: dport")
        terminal.type("C-c")
        restored(0)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
            self.watch(terminal)
            os.kill(terminal.child(), number)
            restored(128 + number)
        self.watch(terminal)
        terminal.type("C-z")
        terminal.wait_for("Stopped")
        self.assertEqual(terminal.state(), before)
        terminal.run("fg")
        terminal.wait_for("5 exposed")
        terminal.type("q")
        restored(0)
        # stopped from outside, and continued: drawn again
        self.watch(terminal)
        child = terminal.child()
        os.kill(child, signal.SIGTSTP)
        terminal.wait_for("Stopped")
        self.assertEqual(terminal.state(), before)
        terminal.run("fg")
        terminal.wait_for("5 exposed")
        terminal.type("q")
        restored(0)

        terminal.run(*self.audit_of_client("--watch", "500ms", "--idle-timeout", "10s", "--fail-on", "overdue", "--allow-incomplete"))
        restored(3)
        self.assertIn("overdue", terminal.screen())
        terminal.run(*self.audit_of_client("--watch", "500ms", "--pod", "nobody"))
        restored(1)
        self.assertIn("nobody", terminal.screen())

        # a sweep that fails after others: the recording may not grow any more
        command = " ".join(map(str, self.audit_of_client("--watch", "20ms", "--record", self.dir / "recording")))
        terminal.run_line(f"(trap '' XFSZ; ulimit -f 64; {command})")
        restored(1)
        self.assertIn("error: cannot sweep: ", terminal.screen())

        for where, status in (("main", 101), ("thread", 0)):
            terminal.run(PANIC, where)
            terminal.wait_for("drawn")
            self.assertEqual(terminal.fact("alternate_on"), "1")
            terminal.write("x")
            restored(status)
            screen = terminal.screen()
            self.assertIn("on purpose", screen)
            self.assertNotIn("drawn", screen)

    def test_a_terminal_that_goes_away_ends_the_watch(self):
        terminal = self.terminal()
        self.watch(terminal)
        child = terminal.child()
        terminal.end()
        self.wait_until(lambda: not os.path.exists(f"/proc/{child}"), "the watch to end with its terminal")

    def test_a_terminal_that_takes_no_output_keeps_nothing_alive(self):
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        self.addCleanup(os.close, theirs)
        termios.tcsetwinsize(theirs, (30, 100))
        before = termios.tcgetattr(theirs)
        environment = {**os.environ, "TERM": "xterm"}
        command = [str(word) for word in self.audit_of_client("--watch", "500ms")]
        streams = {"stdin": theirs, "stdout": theirs, "stderr": subprocess.DEVNULL}
        watch = subprocess.Popen(command, **streams, env=environment, start_new_session=True)
        self.addCleanup(lab.stop, watch)
        drawn = b""
        while b"exposed" not in drawn:
            drawn += os.read(ours, 65536)
        termios.tcflow(theirs, termios.TCOOFF)
        watch.send_signal(signal.SIGTERM)
        self.assertEqual(watch.wait(lab.TIMEOUT), -signal.SIGTERM)
        self.assertEqual(termios.tcgetattr(theirs), before)

    def test_keys_are_answered_while_a_sweep_takes_seconds(self):
        terminal = self.terminal()
        slow = ("strace", "-f", "-o", "/dev/null", "-e", "trace=setns", "-e", "inject=setns:delay_enter=20000000")
        terminal.run(*slow, *self.audit_of_client("--watch", "1s"))
        terminal.wait_for("sweeping for 1s")
        terminal.type("?")
        screen = terminal.wait_for("select a group")
        self.assertIn("The first sweep is under way", screen)
        terminal.type("q")
        self.assertEqual(terminal.status(), 0)

    def test_a_recording_ends_with_a_whole_sweep(self):
        terminal = self.terminal()
        recording = self.dir / "recording"
        self.watch(terminal, "--record", recording)
        terminal.type("q")
        self.assertEqual(terminal.status(), 0)
        replayed = lab.auditor("audit", "--replay", recording, *self.scope(lab.CLIENT)[2:], "--owner", lab.name(lab.CLIENT))
        self.assertIn("(5 exposed)", replayed)

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
            terminal.type("q")
            self.assertEqual(terminal.status(), 0)

            terminal.run_line(shlex.join(["env", *environment, *map(str, self.audit_of_client(*flags))]) + " 2>/dev/null")
            self.assertEqual(terminal.status(), 0)
            self.assertEqual(bool(coloured.search(terminal.screen("-e"))), expected, (environment, flags))

    def test_the_table_fits_the_terminal(self):
        for host, what in ((lab.BACKEND, "listen"), (lab.CLIENT, lab.BACKEND_IP)):
            many = self.start(host, lab.sys.executable, "-c", MANY, what, 9100, 60)
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
    lab.unittest.main()
