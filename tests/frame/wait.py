"""Waiting for a condition instead of sleeping."""
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
            raise WaitTimeout(f"after {timeout:g} s still not: {what or condition}")
        time.sleep(interval)
