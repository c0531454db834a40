"""Runs `audit --fail-on` where little or nothing can be read, and checks that its exit status is not an all-clear.

Usage: exit_status.py BINARY, as root. It needs strace, setpriv and iproute2, and makes its connections in namespaces of its own.
"""

import os
import subprocess
import sys
import time

from faults import connect

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
RULES = ["--fail-on=overdue", "--idle-timeout=1s", "--long-lived=100ms", "--local-scope=namespace"]


def injecting(fault):
    return ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={fault.split(':')[0]}", "-e", f"inject={fault}"]


def proc(directory, option):
    """Another procfs."""
    os.mkdir(directory)
    subprocess.run(["mount", "-t", "proc", "-o", option, "proc", directory], check=True)
    return f"--path.procfs={directory}"


def cases():
    """(what, the command before the binary, more flags): in each an audit finds nothing, because it cannot read."""
    hidden, processes = proc("/run/hidden", "hidepid=2"), proc("/run/processes", "subset=pid")
    os.mkdir("/run/empty")
    return [
        # what a kernel without tcp_diag, or without inet_diag, answers
        ("no tcp_diag: the request is refused", injecting("sendto:error=ENOENT"), []),
        ("no tcp_diag: no such protocol", injecting("socket:error=EPROTONOSUPPORT"), []),
        ("no CAP_SYS_ADMIN", ["setpriv", "--bounding-set=-sys_admin"], []),
        ("no capability", ["setpriv", "--bounding-set=-all"], []),
        ("nobody", NOBODY, []),
        ("nobody, hidden processes", NOBODY, [hidden]),
        ("nobody, hidden processes, no bind mounts", NOBODY, [hidden, "--netns-dir=/run/empty"]),
        ("nobody, a procfs of processes only", NOBODY, [processes]),
        ("nobody, one namespace", NOBODY, ["--netns=client"]),
        ("nobody, one process", NOBODY, [f"--pid={os.getpid()}"]),
        ("no procfs", [], ["--path.procfs=/nope", "--netns-dir=/run/empty"]),
        ("an empty procfs", [], ["--path.procfs=/run/empty", "--netns-dir=/run/empty"]),
        ("a pod that is not there", [], ["--pod=no-such"]),
        ("a namespace of pods that is not there", [], ["--namespace=no-such"]),
        ("a network namespace that is not there", [], ["--netns=no-such"]),
        ("a process that is not there", [], ["--pid=4194303"]),
    ]


# These name something, or somebody, that is not there or cannot be entered: no flag accepts that.
NAMED = ("--pod", "--namespace", "--netns=", "--pid", "--path.procfs=/nope")


def main(binary):
    ends = connect()
    # what the others cannot read is there to be found
    end = time.monotonic() + 60
    while subprocess.run([binary, "audit", *RULES], check=False, stdout=subprocess.DEVNULL).returncode != 3:
        assert time.monotonic() < end, "the idle connection is not overdue"
    wrong = 0
    for what, before, flags in cases():
        for more, expected in [([], 1), (["--allow-incomplete"], 1 if any(flag.startswith(NAMED) for flag in flags) else 0)]:
            command = [*before, binary, "audit", *RULES, *flags, *more]
            ran = subprocess.run(command, check=False, capture_output=True, text=True)
            good = ran.returncode == expected and (ran.stderr.strip() or not expected)
            wrong += not good
            print(f"{'ok' if good else 'FAILED':6} {what}{' '.join(['', *more])}: exit status {ran.returncode}", flush=True)
            if not good:
                print(ran.stdout, ran.stderr, sep="\n")
    [end.close() for end in ends]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
