"""What a test of a remedy shows: flagged before, protected after, and the options that getsockopt reads then."""

import sys

import lab
import yaml

IDLE, INTERVAL, PROBES = 300, 20, 4
FLAGS = ("--idle", f"{IDLE}s", "--interval", f"{INTERVAL}s", "--probes", PROBES)


class RemedyTest(lab.Lab):
    def before(self, host, keepalive, *flags, **wanted):
        """The connections are flagged, with this keepalive."""
        self.assert_flagged(self.connections(host, *flags, **wanted), keepalive)

    def after(self, host, *flags, target, program, before, idle=IDLE, interval=INTERVAL, probes=PROBES, **wanted):
        """The connections are protected, and have exactly these options."""
        for connection in self.connections(host, "--exact", *flags, **wanted):
            options = connection["exact"]
            self.assertEqual((connection["verdict"], connection["keepalive"]), ("protected", "on"), connection)
            seen = [options[name] for name in ("tcp_keepidle_seconds", "tcp_keepintvl_seconds", "tcp_keepcnt")]
            self.assertEqual(seen, [idle, interval, probes], connection)
        print(f"\n| {target} | {program} | {before} | protected | {idle} s |", file=sys.stderr, flush=True)

    def set_sysctls(self, host, target="sysctl"):
        """Gives the printed file to the real sysctl."""
        self.run_in(host, "sysctl", "-q", "-p", "-", input=lab.remedy(target, *FLAGS))

    def unset_sysctls(self, host):
        for name, value in (("time", 7200), ("intvl", 75), ("probes", 9)):
            self.run_in(host, "sysctl", "-qw", f"net.ipv4.tcp_keepalive_{name}={value}")

    def wait_for_word(self, process, word):
        self.wait_until(lambda: word in process.log.read_text(), f"{word} in {process.log}: {process.log.read_text()}")


def yaml_of(target, *flags):
    return yaml.safe_load(lab.remedy(target, *FLAGS, *flags))
