"""Waiting for a condition instead of sleeping, and the time that does not depend on others."""
import os
import time


class WaitTimeout(AssertionError):
    """The condition did not come true in time."""


def wait_until(condition, timeout=10.0, what=None, interval=0.02):
    """Polls CONDITION until it is true and returns its value."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise WaitTimeout(f"after {timeout:g} s still not: {what() if callable(what) else what or condition}")
        time.sleep(interval)


def cpu_seconds(pid):
    """The CPU time that a running process has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        values = stat.read().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")
