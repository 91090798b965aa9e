"""policyd-ratelimit while the wall clock is set a day forward and back (row 23)."""
import calendar
import re
import time
import unittest

from tests.frame.clock import DAY_S, WallClock
from tests.frame.lone_policyd import LonePolicyd
from tests.frame.policy import new_instance

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
            clock = WallClock(daemon.base / "offset")
            daemon.environment = clock.environment
            daemon.configure(limit=LIMIT)
            daemon.start()
            self.assertEqual(self.ask(daemon, 3), ["DUNNO"] * 3)
            for days in (1, -1, 0, 3, -400):
                with self.subTest(days=days):
                    clock.set_days(days)
                    limited = self.ask(daemon, 4)
                    self.assertEqual([answer[:4] for answer in limited[-2:]], ["450 "] * 2)
                    # The time in the text is that of the wall clock; it is looked up each second.
                    end = time.monotonic() + 10
                    while abs(self.told(self.ask(daemon, 1)[0]) - time.time() - days * DAY_S - 3600) > 90:
                        self.assertLess(time.monotonic(), end, "the text's time")
                    self.assertEqual(daemon.used("account:bob"), 5)
            # In the same boot the counts do not move either, with whatever wall clock it starts.
            for days in (2, -2):
                clock.set_days(days)
                daemon.kill()
                daemon.start()
                self.assertEqual(daemon.used("account:bob"), 5)
                self.assertEqual(self.ask(daemon, 1)[0][:4], "450 ")
