"""Bounds of what policyd-ratelimit keeps for other daemons and in Redis, at N and at N + 1, and a
Redis whose clock is set."""
import json
import re
import socket
import unittest

from tests.frame.layout import REPO
from tests.frame.policy import new_instance
from tests.frame.redis import HOST, ClockProxy, RedisServer, free_ports
from tests.frame.wait import wait_until
from tests.integration.test_policyd_redis import Member

DAY_MS = 86400000
PREFIX = "caps/"
ORDERS = f"{PREFIX}commands"


def constant(name):
    """A cap of the daemon, from its headers."""
    for path in (REPO / "policyd-ratelimit").glob("*.[ch]"):
        found = re.search(rf"^#define {name} (\d+)", path.read_text(), re.M)
        if found:
            return int(found[1])
    raise AssertionError(f"{name} is not there")


class RedisAndOne(unittest.TestCase):
    def setUp(self):
        self.redis = RedisServer(free_ports(1)[0])
        self.addCleanup(self.redis.stop)

    def member(self, number, port=None, **options):
        daemon = Member(f"127.0.0.{41 + number}", redis=f"inet:{HOST}:{port or self.redis.port}", redis_prefix=PREFIX,
                        redis_timeout="1s", limit="account messages 100/1h", **options)
        self.addCleanup(daemon.end)
        daemon.start()
        return daemon

    @staticmethod
    def until_shared(daemon, others=1):
        wait_until(lambda: daemon.metric("postern_policy_redis_up") == 1 and
                   daemon.metric("postern_policy_redis_daemons") == others, what="shared limits")

    @staticmethod
    def control(daemon, lines):
        """The answers to command LINES on the control socket."""
        answers = []
        for line in lines:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(30)
                client.connect(f"{daemon.base}/policyd-ratelimit.control.sock")
                client.sendall(line.encode() + b"\n")
                with client.makefile("rb") as stream:
                    answers.append(json.loads(stream.readline()))
        return answers


class Orders(RedisAndOne):
    """What administrators do: while Redis is away, and how much of it Redis keeps."""

    def test_orders_that_wait_for_redis(self):
        most, lost = constant("ORDERS_WAITING_MAX"), "postern_policy_redis_orders_lost_total"
        first = self.member(0)
        blocks = [f"limits block account:{number}@example.com" for number in range(most)]
        self.control(first, blocks)
        self.assertEqual(first.metric(lost), 0)
        self.control(first, ["limits block account:over@example.com"])
        self.assertEqual(first.metric(lost), 1)
        self.redis.start()
        second = self.member(1)
        self.until_shared(first, 2)
        self.until_shared(second, 2)
        blocked = lambda daemon: {item["key"] for item in daemon.limits("list")["blocked"]}
        wait_until(lambda: len(blocked(second)) >= most, what="the orders at the other daemon")
        self.assertEqual(blocked(second), {f"{number}@example.com" for number in range(most)})
        self.assertEqual(len(blocked(first)), most + 1)  # where it was given it holds

    def test_orders_that_redis_keeps(self):
        """Old resets and releases go when there are too many; blocks stay."""
        most = constant("WIRE_ORDERS_MAX")
        self.redis.start()
        # All but two of the fields: one is the version's, one is a block.
        self.redis.ask("EVAL", f"for i = 1, {most - 3} do redis.call('HSET', KEYS[1], 'reset:account:u' .. i, i .. ' reset x') end "
                       f"redis.call('HSET', KEYS[1], 'block:account:old@example.com', '1 block x', 'version', {most - 3})", 1, ORDERS)
        daemon = self.member(0)
        self.until_shared(daemon)
        count = lambda: int(self.redis.ask("HLEN", ORDERS))
        self.assertEqual(count(), most - 1)
        self.control(daemon, ["limits block account:n@example.com"])
        wait_until(lambda: self.redis.ask("HEXISTS", ORDERS, "block:account:n@example.com") == "1", what="the order")
        self.assertEqual(count(), most)
        self.control(daemon, ["limits block account:more@example.com"])
        wait_until(lambda: self.redis.ask("HEXISTS", ORDERS, "block:account:more@example.com") == "1", what="the order")
        self.assertLess(count(), most * 2 // 3)
        kept = self.redis.ask("HKEYS", ORDERS).split()
        self.assertIn(f"reset:account:u{most - 3}", kept)
        self.assertNotIn("reset:account:u1", kept)
        for name in ("old", "n", "more"):
            self.assertIn(f"block:account:{name}@example.com", kept)


class ServerClock(RedisAndOne):
    """The clock of the Redis server is set: windows neither end early nor last longer."""

    @staticmethod
    def send(daemon, count):
        with daemon.client() as client:
            return [client.ask(instance=new_instance(), sasl_username="bob", protocol_state="END-OF-MESSAGE")[:4]
                    for _ in range(count)]

    def test_a_day_forward_and_back(self):
        self.redis.start()
        clock = ClockProxy(self.redis.port)
        self.addCleanup(clock.stop)
        daemons = [self.member(number, port=clock.port) for number in range(2)]
        for daemon in daemons:
            self.until_shared(daemon, 2)
        self.assertEqual(self.send(daemons[0], 30), ["DUNN"] * 30)
        used = lambda daemon: max((w["used"] for w in daemon.limits("show", "account:bob")["windows"]), default=0)
        wait_until(lambda: used(daemons[1]) == 30, what="the other one knows")
        for step, offset_ms in enumerate((DAY_MS, -DAY_MS, -DAY_MS + 500, 0), 1):
            clock.offset_ms = offset_ms
            told = step - (step >= 3)  # half a second is no step
            for daemon in daemons:
                wait_until(lambda d=daemon: d.text().count("redis_clock level=warning") >= told, what="it is told")
                self.until_shared(daemon, 2)
            for daemon in daemons:
                wait_until(lambda d=daemon: used(d) == 30, what="all is counted, and once")
        self.assertEqual([d.text().count("redis_clock level=warning") for d in daemons], [3, 3])
        self.assertEqual(self.send(daemons[1], 75), ["DUNN"] * 70 + ["450 "] * 5)
