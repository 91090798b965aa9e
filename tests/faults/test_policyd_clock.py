"""policyd-ratelimit while the wall clock is set a day forward and back (row 23)."""
import calendar
import pathlib
import re
import time
import unittest

from tests.frame.lone_policyd import LonePolicyd
from tests.frame.policy import new_instance

LIBRARY = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
DAY_S = 86400
LIMIT = "account messages 5/1h, 8/1d"


class Clock(unittest.TestCase):
    @staticmethod
    def ask(daemon, count):
        with daemon.client() as client:
            return [client.ask(instance=new_instance(), sasl_username="bob", protocol_state="END-OF-MESSAGE")
                    for _ in range(count)]

    def told(self, answer):
        """The time that the reply tells, in seconds."""
        return calendar.timegm(time.strptime(re.search(r", at (.*) UTC$", answer)[1], "%Y-%m-%d %H:%M:%S"))

    def test_windows_hold_a_day_forward_and_back(self):
        with LonePolicyd() as daemon:
            daemon.stop()
            offset = pathlib.Path(daemon.base / "offset")
            offset.write_text("+0\n")
            daemon.environment = {"LD_PRELOAD": LIBRARY, "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1",
                                  "DONT_FAKE_MONOTONIC": "1"}
            daemon.configure(limit=LIMIT)
            daemon.start()
            self.assertEqual(self.ask(daemon, 3), ["DUNNO"] * 3)
            for days in (1, -1, 0, 3, -400):
                with self.subTest(days=days):
                    offset.write_text(f"{days * DAY_S:+d}\n")
                    limited = self.ask(daemon, 4)
                    self.assertEqual([answer[:4] for answer in limited[-2:]], ["450 "] * 2)
                    # The time in the text is that of the wall clock; it is looked up each second.
                    end = time.monotonic() + 10
                    while abs(self.told(self.ask(daemon, 1)[0]) - time.time() - days * DAY_S - 3600) > 90:
                        self.assertLess(time.monotonic(), end, "the text's time")
                    self.assertEqual(daemon.used("account:bob"), 5)
            # In the same boot the counts do not move either, with whatever wall clock it starts.
            for days in (2, -2):
                offset.write_text(f"{days * DAY_S:+d}\n")
                daemon.kill()
                daemon.start()
                self.assertEqual(daemon.used("account:bob"), 5)
                self.assertEqual(self.ask(daemon, 1)[0][:4], "450 ")
