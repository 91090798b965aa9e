"""milter-dkim is told to stop under load: whatever message it has taken gets its verdict, others a 451."""
import collections
import contextlib
import signal
import threading
import unittest

from tests.frame.lone_milter import LoneMilter
from tests.frame.milter import MilterClient, packet, strings
from tests.frame.wait import wait_until

CLIENTS = 12
ROUNDS = 10
FIELDS = [(b"From", b" a@example.com"), (b"Subject", b" x")]


class Stop(unittest.TestCase):
    def setUp(self):
        self.seen = collections.Counter()

    def message(self, client):
        """What became of one more message on a connection."""
        client.send(packet(b"M", strings(b"<a@example.com>")))
        reply = client.read()
        if reply is None or reply[0] != b"c":
            return "refused" if reply == (b"t", b"") else "cut off before"
        with contextlib.suppress(OSError):
            if client.content(FIELDS, [b"x\r\n"])[1] == (b"c", b""):
                return "done"
        return "lost"

    def talk(self, milter):
        """Message after message, until the milter takes no more."""
        with contextlib.suppress(OSError), MilterClient(milter) as client:
            client.negotiate()
            client.send(*client.opening())
            outcome = "done"
            while outcome == "done":
                outcome = self.message(client)
                self.seen[outcome] += 1

    def test_no_message_is_taken_and_then_dropped(self):
        with LoneMilter() as milter:
            for number in range(1, ROUNDS + 1):
                clients = [threading.Thread(target=self.talk, args=(milter,)) for _ in range(CLIENTS)]
                for client in clients:
                    client.start()
                wanted = self.seen["done"] + CLIENTS * number
                wait_until(lambda wanted=wanted: self.seen["done"] > wanted, what="messages")
                milter.stop(signal.SIGTERM)
                self.assertEqual(milter.process.returncode, 0)
                for client in clients:
                    client.join()
                milter.start()
        self.assertEqual(self.seen["lost"], 0, self.seen)
        self.assertGreater(self.seen["refused"], 0, self.seen)
