"""The test case that integration tests build on.

    class Greeting(StackCase):
        def test_hello(self):
            user = self.new_user()
            deliver(self.stack, "a@example.org", [user], message(...))

All classes of a run share one stack (tests/run makes it; STACK_DIR and
STACK_PORT_BASE name it), so a test makes users of its own, sends from a client
address of its own (new_source) and puts back what it reconfigures
(configured).  Parts that a test has stopped are started again before the next
class.
"""
import contextlib
import itertools
import json
import os
import socket
import unittest

from tests.frame import metrics, sql
from tests.frame.stack import PARTS, Stack
from tests.frame.wait import PATIENCE_S, wait_until

NUMBERS = itertools.count(1)


class StackCase(unittest.TestCase):
    """Tests on the shared stack."""

    stack: Stack

    @classmethod
    def setUpClass(cls):
        cls.stack = Stack()
        cls.stack.start()

    def setUp(self):
        self.stack.start(*(part for part in PARTS if not self.stack.pid(part)))

    def new_user(self, domain="example.net", quota_mb=1024):
        """Adds a mailbox with the password "secret"; returns its address."""
        address = f"u{os.getpid()}-{next(NUMBERS)}@{domain}"
        self.stack.add_user(address, quota_mb=quota_mb)
        return address

    @staticmethod
    def new_source():
        """A client address that no other test has used, outside of mynetworks."""
        number = next(NUMBERS)
        return f"127.{10 + os.getpid() % 100}.{number // 250}.{1 + number % 250}"

    @contextlib.contextmanager
    def configured(self, daemon, **values):
        """Runs a block with changed options of a daemon, and puts them back."""
        path = self.stack.at.path(f"/etc/postern/{daemon}.conf")
        before = path.read_text()
        self.stack.configure(daemon, **values)
        self.stack.restart(daemon)
        try:
            yield
        finally:
            path.write_text(before)
            self.stack.restart(daemon)

    def rows(self, statement, *values):
        return sql.rows(self.stack, statement, *values)

    def value(self, statement, *values):
        return sql.value(self.stack, statement, *values)

    def status(self, daemon):
        return self.control(daemon, "status")

    def control(self, daemon, command):
        """What DAEMON tells of COMMAND on its control socket."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(metrics.TIMEOUT_S)
            control.connect(str(self.stack.at.path(f"/run/postern/{daemon}.control.sock")))
            control.sendall(f"{command}\n".encode())
            with control.makefile() as answer:
                return json.load(answer)["result"]

    def metric(self, sample, daemon="milter-dkim"):
        return metrics.scrape(self.stack, daemon)[sample]

    @staticmethod
    def wait_until(condition, timeout=PATIENCE_S, what=None, interval=0.02):
        return wait_until(condition, timeout, what, interval)
