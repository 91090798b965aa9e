"""The bounds of `limits list`, at N and at N + 1."""
import re
import unittest

from tests.frame.layout import REPO
from tests.frame.lone_policyd import LonePolicyd
from tests.frame.policy import new_instance
from tests.frame.stack import StackError

LIST_MAX = int(re.search(r"^#define LIST_MAX (\d+)", (REPO / "policyd-ratelimit/control.c").read_text(), re.M)[1])


class Keys(unittest.TestCase):
    def test_what_a_key_stands_for(self):
        with LonePolicyd(limit="account messages 5/1h") as daemon:
            for key, scope, text in (("192.0.2.1", "client_ip", "192.0.2.1"), ("dead:beef::1", "client_ip", "dead:beef::1"),
                                     ("joe@example.com", "account", "joe@example.com"), ("account:joe:x", "account", "joe:x"),
                                     ("joe@x:y", "account", "joe@x:y"), (":joe", "account", ":joe"),
                                     ("Sender_Domain:example.com", "sender_domain", "example.com"), ("global", "global", "")):
                shown = daemon.limits("show", key)
                self.assertEqual((shown["scope"], shown["key"]), (scope, text))

    def test_a_wrong_scope_is_no_account(self):
        with LonePolicyd(limit="account messages 5/1h") as daemon:
            for key, told in (("acount:joe", 'there is no scope "acount"; an account of that name is account:acount:joe'),
                              ("dead:beef", 'there is no scope "dead"'), ("global:joe", '"joe" is no key of global')):
                with self.assertRaises(StackError) as refused:
                    daemon.limits("block", key)
                self.assertIn(told, str(refused.exception))
            self.assertEqual(daemon.limits("list")["blocked"], [])


class List(unittest.TestCase):
    def test_limited_keys(self):
        """What is remembered are slots by hash, so of so many keys a few displace others: the list then stays as long as it was."""
        with LonePolicyd(limit="account messages 0/1h") as daemon, daemon.client() as client:
            shown, number = 0, 0
            while shown < LIST_MAX:
                for _ in range(LIST_MAX - shown):
                    client.ask(instance=new_instance(), sasl_username=f"u{number}")
                    number += 1
                result = daemon.limits("list")
                self.assertEqual(result["left_out"], 0)
                self.assertGreaterEqual(len(result["limited"]), shown)
                self.assertLess(number, 2 * LIST_MAX)
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
