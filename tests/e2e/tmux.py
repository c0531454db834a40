"""A real terminal for tests: a shell in tmux, what is on its screen, and what it is left with."""

import pathlib
import re
import shlex
import subprocess
import time

# Seconds to wait for an expected event on a loaded machine.
TIMEOUT = 60
# Number of the next command, and the exit status of the last one.
PROMPT = r"<\#> $? "


class Tmux:
    """One shell in one window, on a server of its own."""

    def __init__(self, test, folder, columns=100, rows=30):
        self.test, self.socket = test, pathlib.Path(folder) / f"tmux-{time.monotonic_ns()}"
        test.addCleanup(self.end)
        self.commands = 0
        shell = f"env PS1='{PROMPT}' TERM=tmux-256color bash --norc --noprofile"
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", columns, "-y", rows, shell)
        self.wait_for("<1> 0")

    def tmux(self, *arguments):
        command = ["tmux", "-S", self.socket, *arguments]
        return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout

    def end(self):
        subprocess.run(["tmux", "-S", str(self.socket), "kill-server"], capture_output=True, check=False)

    def type(self, *keys):
        """Types keys by their tmux names."""
        self.tmux("send-keys", "--", *keys)

    def write(self, text):
        """Types text as it is."""
        self.tmux("send-keys", "-l", "--", text)

    def run(self, *command):
        """Starts a command."""
        self.run_line(shlex.join(map(str, command)))

    def run_line(self, line):
        """Starts a line of the shell."""
        self.commands += 1
        self.write(f"clear; {line}")
        self.type("Enter")

    def screen(self, *options):
        return self.tmux("capture-pane", "-p", *options)

    def wait(self, condition, what):
        """Waits until the condition holds of the screen, and returns the screen."""
        deadline = time.monotonic() + TIMEOUT
        while not condition(screen := self.screen()):
            self.test.assertLess(time.monotonic(), deadline, f"waited {TIMEOUT} s for {what}; the screen is\n{screen}")
            time.sleep(0.05)
        return screen

    def wait_for(self, text):
        return self.wait(lambda screen: text in screen, repr(text))

    def wait_without(self, text):
        return self.wait(lambda screen: text not in screen, f"{text!r} to disappear")

    def end_of_command(self):
        """The exit status of the command when it has ended, and the screen that it left."""
        prompt = re.compile(rf"<{self.commands + 1}> (\d+)")
        screen = self.wait(prompt.search, "the command to end")
        return int(prompt.search(screen)[1]), screen

    def status(self):
        return self.end_of_command()[0]

    def fact(self, name):
        return self.tmux("display-message", "-p", f"#{{{name}}}").strip()

    def state(self):
        """What a program must leave as it was: alternate screen, visible cursor, modes of the terminal."""
        modes = subprocess.run(["stty", "-a", "-F", self.fact("pane_tty")], check=True, capture_output=True, text=True)
        return self.fact("alternate_on"), self.fact("cursor_flag"), modes.stdout

    def child(self):
        """The process that runs in the shell."""
        shell = self.fact("pane_pid")
        deadline = time.monotonic() + TIMEOUT
        while True:
            children = pathlib.Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
            if len(children) == 1:
                return int(children[0])
            self.test.assertLess(time.monotonic(), deadline, f"the shell has the children {children}")
            time.sleep(0.02)
