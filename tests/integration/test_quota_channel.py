"""What mail processes tell quotad without waking it, on the real quotad and Dovecot: it counts as if it had been read
at once."""
import contextlib
import itertools
import os
import socket
import unittest

from tests.frame import mail
from tests.frame.quota import KB, QuotaCase, body

IS_STALE, TAKES_CHANNEL = 1, 16
INSTANCES = itertools.count(1)


class Process:
    """A mail process with its connection to quotad and its channel."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(path)
        self.send("HELLO", 2, os.getpid() << 24 | next(INSTANCES))
        self.channel, self.op = None, 0

    def send(self, *words):
        self.socket.sendall(line(words))

    def ask(self, *words):
        """The word of the reply, and its numbers."""
        self.send(*words)
        reply = self.socket.recv(1024).decode()
        word, *numbers = reply.rstrip("\n").split("\t")
        return word, dict(zip(("id", "limit", "message_limit", "used", "messages", "room", "message_room", "seq", "flags",
                               "acked"), map(int, numbers)))

    def reserve(self, user, size):
        return self.ask("RESERVE", user, 0, size, 0, 0, 0, 0, 0, 0, "")

    def open_channel(self, kind=socket.SOCK_SEQPACKET):
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, kind)
        with theirs:
            socket.send_fds(self.socket, [b"CHANNEL\n"], [theirs.fileno()])

    def commit(self, user, number, size):
        """Through the channel."""
        self.op += 1
        self.channel.send(line(("COMMIT", user, number, self.op, size, 1)))

    def close(self):
        self.socket.close()
        if self.channel is not None:
            self.channel.close()

    def is_ended(self):
        try:
            return self.socket.recv(1024) == b""
        except ConnectionError:
            return True


def line(words):
    return ("\t".join(map(str, words)) + "\n").encode()


class ChannelCase(QuotaCase):
    def setUp(self):
        super().setUp()
        self.user = self.counted_user()

    def counted_user(self):
        """Whose usage is certain."""
        user = self.new_user(quota_mb=1)
        self.assertEqual(self.deliver(user, body(KB))[0], 250)
        self.assert_exact(user)
        return user

    def process(self):
        process = Process(str(self.stack.at.path("/run/postern/quotad.sock")))
        self.addCleanup(process.close)
        return process

    def process_with_channel(self):
        process = self.process()
        process.open_channel()
        self.assertTrue(process.ask("LOOKUP", self.user)[1]["flags"] & TAKES_CHANNEL)
        return process

    def used(self, process=None, user=None):
        word, reply = (process or self.process()).ask("LOOKUP", user or self.user)
        self.assertEqual((word, reply["flags"] & IS_STALE), ("OK", 0))
        return reply["used"]


class Order(ChannelCase):
    def test_before_the_next_request_of_the_same_process(self):
        process = self.process_with_channel()
        used = self.used(process)
        for _ in range(20):
            word, grant = process.reserve(self.user, 100)
            self.assertEqual((word, grant["used"]), ("OK", used))
            process.commit(self.user, grant["id"], 100)
            used += 100

    def test_before_any_question_about_the_user(self):
        one, other = self.process_with_channel(), self.process()
        used = self.used(other)
        checker = socket.socket(socket.AF_UNIX)
        self.addCleanup(checker.close)
        for _ in range(20):
            grant = one.reserve(self.user, 100)[1]
            one.commit(self.user, grant["id"], 100)
            used += 100
            self.assertEqual(self.used(other), used)
        grant = one.reserve(self.user, 100)[1]
        one.commit(self.user, grant["id"], 100)
        shown = self.control("quotad", f"quota show {self.user}")
        self.assertEqual((shown["used_bytes"], shown["open"]), (used + 100, 0))

    def test_a_count_waits_for_nobody_who_is_done(self):
        one, other = self.process_with_channel(), self.process()
        for _ in range(20):
            one.commit(self.user, one.reserve(self.user, 100)[1]["id"], 100)
            self.assertEqual(other.ask("COUNT", self.user)[0], "OK")

    def test_what_was_expunged_after_it_came(self):
        """A FREE of another process is of what it has seen in the mailbox."""
        one, other = self.process_with_channel(), self.process()
        used = self.used(other)
        for op in range(1, 20):
            one.commit(self.user, one.reserve(self.user, 100 * KB)[1]["id"], 100 * KB)
            other.send("FREE", self.user, op, used + 100 * KB, 1)
            self.assertEqual(self.used(other), 0)
            used = 0

    def test_when_nobody_asks(self):
        process = self.process_with_channel()
        there = self.row(self.user)
        process.commit(self.user, process.reserve(self.user, 100)[1]["id"], 100)
        self.wait_until(lambda: self.row(self.user) == (there[0] + 100, there[1] + 1), what="the row")

    def test_before_the_end_of_a_process(self):
        lost = self.metric("quotad_connections_lost_total", "quotad")
        used = self.used()
        for _ in range(20):
            process = self.process_with_channel()
            process.commit(self.user, process.reserve(self.user, 100)[1]["id"], 100)
            process.close()
            used += 100
        self.assertEqual(self.used(), used)
        self.assertEqual(self.metric("quotad_connections_lost_total", "quotad"), lost)

    def test_it_is_acknowledged(self):
        process = self.process_with_channel()
        for number in range(1, 5):
            process.commit(self.user, process.reserve(self.user, 100)[1]["id"], 100)
            self.assertEqual(process.ask("SYNC")[0], "OK")
            self.assertEqual(process.ask("LOOKUP", self.user)[1]["acked"], number)


class Protocol(ChannelCase):
    def test_a_channel_without_a_descriptor_is_none(self):
        process = self.process()
        process.send("CHANNEL")
        self.used(process)

    def test_a_descriptor_that_no_channel_takes_is_closed(self):
        process = self.process()
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                socket.send_fds(process.socket, [line(("LOOKUP", self.user))], [theirs.fileno()])
            self.assertTrue(process.socket.recv(1024))
            ours.settimeout(10)
            self.assertEqual(ours.recv(1), b"")
        self.used(process)

    def test_nonsense_ends_the_connection(self):
        def twice(process):
            with process.channel:  # it stays open until then
                process.open_channel()
                self.assertTrue(process.is_ended())

        def another_kind(process):
            process.channel.close()
            process.close()
            process.__init__(str(self.stack.at.path("/run/postern/quotad.sock")))
            process.open_channel(socket.SOCK_STREAM)

        def say(text):
            return lambda process: process.channel.send(text)

        for nonsense in (twice, another_kind, say(b"\n"), say(b"SYNC\n"), say(b"LOOKUP\tu@d\n"), say(b"COMMIT"),
                         say(b"x" * 5000 + b"\n")):
            process = self.process_with_channel()
            grant = process.reserve(self.user, 100)[1]
            nonsense(process)
            self.assertTrue(process.is_ended(), grant)
        self.used_again()

    def used_again(self):
        """They ended with something open, so the mailbox is counted."""
        self.wait_until(lambda: self.process().ask("LOOKUP", self.user)[1]["flags"] & IS_STALE == 0, what="the count")
        self.assert_exact(self.user)


class Delivery(ChannelCase):
    def sockets_of_packets(self):
        """Those that quotad has."""
        kinds = {}
        for text in open("/proc/net/unix", encoding="ascii").readlines()[1:]:
            fields = text.split()
            kinds[fields[6]] = fields[4]
        folder = f"/proc/{self.stack.pid('quotad')}/fd"
        found = 0
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                link = os.readlink(f"{folder}/{name}")
                found += link.startswith("socket:[") and kinds.get(link[8:-1]) == "0005"
        return found

    def test_getquota_has_what_was_taken(self):
        user = self.new_user()
        self.stack.mariadb(f"UPDATE virtual_users SET quota_messages = 1000 WHERE email = '{user}'")
        with self.lmtp() as client, mail.Imap(self.stack, user) as imap:
            for number in range(1, 30):
                client.sendmail("sender@example.org", [user], body(3 * KB))
                shown = str(imap.quota_root()[1])
                self.assertIn(f"MESSAGE {number} 1000)", shown)
            self.assertGreaterEqual(self.sockets_of_packets(), 1)
        self.assert_exact(user)


if __name__ == "__main__":
    unittest.main()
