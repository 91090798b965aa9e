"""The wall clock that a daemon sees, set by a test; its monotonic clock goes on."""
import os
import time

from tests.frame.wait import wait_until

LIBRARY = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
DAY_S = 86400


class WallClock:
    """Off by what PATH says; `environment` makes a daemon look there at each call."""

    def __init__(self, path):
        self.path = path
        self.environment = {"LD_PRELOAD": LIBRARY, "FAKETIME_TIMESTAMP_FILE": str(path), "FAKETIME_NO_CACHE": "1",
                            "DONT_FAKE_MONOTONIC": "1"}
        self.set_days(0)

    def set_days(self, days):
        # Never empty: newer libraries end the daemon over what they cannot read.
        new = self.path.with_suffix(".new")
        new.write_text(f"{days * DAY_S:+d}\n")
        os.replace(new, self.path)


def clear_of_midnight(seconds=60):
    """Waits until the day (UTC) has SECONDS left at least, for what says "today" more than once."""
    wait_until(lambda: time.time() % DAY_S < DAY_S - seconds, seconds + 60, "the next day", interval=0.2)
