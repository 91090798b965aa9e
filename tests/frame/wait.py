"""Waiting for a condition instead of sleeping, and the time that does not depend on others."""
import contextlib
import os
import pathlib
import socket
import time

# Of whoever waits for what is no promise of a time: only a fault lets it run out.
PATIENCE_S = 60


class WaitTimeout(AssertionError):
    """The condition did not come true in time."""


def wait_until(condition, timeout=PATIENCE_S, what=None, interval=0.02):
    """Polls CONDITION until it is true and returns its value.

    It fails where a look that began TIMEOUT from now or later found it false: a look that takes its
    time on a busy machine makes nobody late.  So a TIMEOUT that is a promise means just that.
    """
    deadline = time.monotonic() + timeout
    while True:
        begun = time.monotonic()
        value = condition()
        if value:
            return value
        if begun >= deadline:
            raise WaitTimeout(f"after {timeout:g} s still not: {what() if callable(what) else what or condition}")
        time.sleep(interval)


def listens(path):
    """Whether somebody takes connections at the unix socket PATH, which is there a moment earlier."""
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.connect(str(path))
        return True
    return False


def traced(pid):
    """Whether a tracer has the process PID with all its threads: it takes one after the other."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ends is none of them
        return all("TracerPid:\t0\n" not in status.read_text() for status in pathlib.Path(f"/proc/{pid}/task").glob("*/status"))
    return False


def cpu_seconds(pid):
    """The CPU time that a running process has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        values = stat.read().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")
