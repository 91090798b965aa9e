"""The bounds of `limits list`, at N and at N + 1."""
import re
import unittest

from tests.frame.layout import REPO
from tests.frame.lone_policyd import LonePolicyd
from tests.frame.policy import new_instance

LIST_MAX = int(re.search(r"^#define LIST_MAX (\d+)", (REPO / "policyd-ratelimit/control.c").read_text(), re.M)[1])


class List(unittest.TestCase):
    def test_limited_keys(self):
        """What is remembered are slots by hash, so some of so many keys displace others."""
        with LonePolicyd(limit="account messages 0/1h") as daemon, daemon.client() as client:
            shown, number = 0, 0
            while shown < LIST_MAX:
                for _ in range(LIST_MAX - shown):
                    client.ask(instance=new_instance(), sasl_username=f"u{number}")
                    number += 1
                result = daemon.limits("list")
                self.assertEqual(result["left_out"], 0)
                self.assertGreater(len(result["limited"]), shown)
                shown = len(result["limited"])
            while result["left_out"] == 0:
                client.ask(instance=new_instance(), sasl_username=f"u{number}")
                number += 1
                result = daemon.limits("list")
                self.assertEqual(len(result["limited"]), LIST_MAX)
            self.assertEqual(result["left_out"], 1)

    def test_held_keys(self):
        with LonePolicyd(limit="account messages 1000/1h", abuse="account new_recipients 0/1d WARN") as daemon, \
                daemon.client() as client:
            for more in (0, 1):
                for number in range(LIST_MAX if more == 0 else 1):
                    self.assertEqual(client.ask(instance=new_instance(), sasl_username=f"u{more}-{number}"), "DUNNO")
                result = daemon.limits("list")
                self.assertEqual((len(result["abuse"]), result["left_out"]), (LIST_MAX, more))
