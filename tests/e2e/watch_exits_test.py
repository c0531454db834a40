"""However `audit --watch` ends, and whatever its terminal does, the terminal is restored and nothing is left."""

import os
import pty
import signal
import subprocess
import termios
import unittest

import lab
from watched import Watched

PANIC = os.environ.get("SCREEN_PANIC", "screen_panic")


class WatchExitsTest(Watched):
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
        def stop_by_key():
            terminal.type("C-z")

        def stop_from_outside():
            os.kill(terminal.child(), signal.SIGTSTP)

        # what was stopped and is continued draws itself again
        for stop in (stop_by_key, stop_from_outside):
            self.watch(terminal)
            stop()
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
        self.quit(terminal)

    def test_a_recording_ends_with_a_whole_sweep(self):
        terminal = self.terminal()
        recording = self.dir / "recording"
        self.watch(terminal, "--record", recording)
        self.quit(terminal)
        replayed = lab.auditor("audit", "--replay", recording, *self.scope(lab.CLIENT)[2:], "--owner", lab.name(lab.CLIENT))
        self.assertIn("(5 exposed)", replayed)


if __name__ == "__main__":
    unittest.main()
