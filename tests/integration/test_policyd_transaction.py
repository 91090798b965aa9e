"""All keys of a message or none, and what ends, breaks or repeats a transaction: by the real Postfix."""
import contextlib
import pathlib
import signal
import threading

from tests.frame.mail import message, smtp
from tests.frame.policy_case import DAEMON, SENDER, PolicyCase

LARGE = f"SIZE={5 << 20}"
PATIENT = "{{ unix:postern/policyd-ratelimit.sock, timeout={timeout}s, try_limit=2, retry_delay=1s, default_action=DUNNO }}"


class TransactionCase(PolicyCase):
    def setUp(self):
        super().setUp()
        self.source, self.user = self.new_source(), self.new_user()
        self.one, self.two = (f"{name}-{self.source.replace('.', '-')}@example.org" for name in ("one", "two"))

    def begin(self, client, *recipients, sender=SENDER):
        client.ehlo_or_helo_if_needed()
        self.assertEqual(client.mail(sender)[0], 250)
        return [client.rcpt(recipient)[0] for recipient in recipients or [self.user]]

    def send(self, client, sender, *recipients, size=0):
        """The reply that ended the message of SIZE bytes more: to a recipient or to its end."""
        codes = self.begin(client, *recipients, sender=sender)
        if 250 not in codes:
            client.rset()
            return codes[0]
        body = message(sender, self.user) + b"".join(b"x" * 70 + b"\r\n" for _ in range(size // 72))
        code = client.data(body)[0]
        if code != 250:
            client.rset()  # Postfix would take DATA again
        return code


class AllOrNone(TransactionCase):
    """A message that two limits touch, of which one is full."""

    def test_a_full_limit_of_the_sender_charges_no_other(self):
        with self.configured(DAEMON, limit=["client_ip messages 100/1h", "sender messages 2/1h", "recipient messages 100/1h"]), \
                smtp(self.stack, self.source) as client:
            codes = [self.send(client, self.one) for _ in range(5)]
            self.assertEqual(codes, [250, 250, 450, 450, 450])
            keys = (self.source, f"sender:{self.one}", f"recipient:{self.user}")
            self.assertEqual([self.used(key) for key in keys], [2, 2, 2])
            # The refused ones took nothing of what others may use.
            self.assertEqual(self.send(client, self.two), 250)
            self.assertEqual([self.used(key) for key in keys], [3, 2, 3])

    def test_a_limit_that_is_found_full_at_the_end(self):
        """Without SIZE= how large a message is shows when it is there: its other keys are given back."""
        with self.configured(DAEMON, limit=["client_ip messages 100/1h", "sender bytes 5K/1h"]), \
                smtp(self.stack, self.source) as client:
            self.assertEqual(self.send(client, self.one), 250)
            self.assertEqual(self.send(client, self.one, size=20000), 450)
            self.assertEqual(self.used(self.source), 1)
            self.assertLess(self.used(f"sender:{self.one}", "bytes"), 5 * 1024)
            self.assertEqual(self.send(client, self.two), 250)
            self.assertEqual(self.used(self.source), 2)

    def test_a_full_limit_of_one_recipient_leaves_the_others(self):
        users = [self.user, self.new_user(), self.new_user()]
        keys = [f"recipient:{user}" for user in users]
        with self.configured(DAEMON, limit=["client_ip recipients 100/1h", "recipient messages 1/1h"]), \
                smtp(self.stack, self.source) as client:
            self.assertEqual(self.send(client, SENDER, users[1]), 250)
            self.assertEqual(self.begin(client, *users), [250, 450, 250])
            self.assertEqual(client.data(message(SENDER, users[0]))[0], 250)
            self.assertEqual([self.used(key) for key in keys], [1, 1, 1])
            self.assertEqual(self.used(self.source, "recipients"), 3)

    def test_a_full_limit_of_the_client_charges_no_other(self):
        """The client's address is full: the sender's limit is not touched, whichever is listed first."""
        for limits in (["client_ip messages 1/1h", "sender messages 100/1h"], ["sender messages 100/1h", "client_ip messages 1/1h"]):
            source = self.new_source()
            sender = f"{source.replace('.', '-')}@example.org"
            with self.subTest(limits=limits), self.configured(DAEMON, limit=limits), smtp(self.stack, source) as client:
                self.assertEqual([self.send(client, sender) for _ in range(3)], [250, 450, 450])
                self.assertEqual((self.used(source), self.used(f"sender:{sender}")), (1, 1))


class Data(TransactionCase):
    def test_data_refused_by_a_restriction(self):
        with self.postfix_with(smtpd_data_restrictions="reject_multi_recipient_bounce"), smtp(self.stack, self.source) as client:
            self.assertEqual(self.begin(client, self.user, self.new_user(), sender=""), [250, 250])
            self.assertEqual(client.docmd("DATA")[0], 550)
            client.rset()
            self.assertEqual(self.send(client, SENDER), 250)
            self.assertEqual(self.used(self.source), 1)

    def test_bdat_in_chunks_and_one_that_is_broken_off(self):
        data = message(SENDER, self.user)
        with smtp(self.stack, self.source) as client:
            self.begin(client)
            for chunk, last in ((data[:50], ""), (data[50:], ""), (b"", " LAST")):
                client.send(f"BDAT {len(chunk)}{last}\r\n".encode() + chunk)
                self.assertEqual(client.getreply()[0], 250)
            self.assertEqual(self.used(self.source), 1)
            self.begin(client)
            client.send(b"BDAT 50\r\n" + data[:50])
            self.assertEqual(client.getreply()[0], 250)
            client.rset()
            self.assertEqual(self.send(client, SENDER), 250)
            self.assertEqual(self.used(self.source), 2)


class NewConnection(TransactionCase):
    """Postfix asks on another connection than before: counted once."""

    @contextlib.contextmanager
    def patient(self, timeout):
        with self.postfix_with(postern_policy=PATIENT.format(timeout=timeout)):
            yield

    def sockets(self):
        """How many sockets of the daemon there are, with those it has not accepted yet."""
        return sum(line.rstrip().endswith(str(self.socket_path)) for line in pathlib.Path("/proc/net/unix").read_text().splitlines())

    def test_the_connection_ends_between_rcpt_and_data(self):
        with self.recorded(limit=["client_ip messages 100/1h", "client_ip recipients 100/1h"], idle_timeout="3s") as requests:
            with self.patient(3), smtp(self.stack, self.source) as client:
                before = self.sockets()
                self.assertEqual(self.begin(client), [250])
                self.assertGreater(self.sockets(), before)
                self.wait_until(lambda: self.sockets() <= before, what="the idle connection is closed")
                self.assertEqual(self.used(self.source), 0)  # refunded, for what is known
                self.assertEqual(client.data(message(SENDER, self.user))[0], 250)
            seen = requests(1)
            self.assertEqual((self.used(self.source), self.used(self.source, "recipients")), (1, 1))
        self.assertEqual(len({request["connection"] for request in seen}), 2)
        self.assertEqual(len({request["instance"] for request in seen}), 1)

    def retried(self, act):
        """Does ACT in a thread while the daemon hangs, until Postfix has asked a second time."""
        replies = []
        thread = threading.Thread(target=lambda: replies.append(act()))
        before = self.sockets()
        self.stack.kill(DAEMON, signal.SIGSTOP)
        try:
            thread.start()
            self.wait_until(lambda: self.sockets() > before, what="Postfix asks again")
        finally:
            self.stack.kill(DAEMON, signal.SIGCONT)
        thread.join(60)
        return replies[0]

    def test_the_same_question_twice_is_counted_once(self):
        with self.recorded(limit=["client_ip messages 100/1h", "client_ip recipients 100/1h"]) as requests:
            with self.patient(2), smtp(self.stack, self.source) as client:
                client.ehlo_or_helo_if_needed()
                self.assertEqual(self.send(client, SENDER), 250)  # so that its connection is there
                client.mail(SENDER)
                self.assertEqual(self.retried(lambda: client.rcpt(self.user))[0], 250)
                self.assertEqual(self.retried(lambda: client.data(message(SENDER, self.user)))[0], 250)
            seen = requests(3)
            self.assertEqual((self.used(self.source), self.used(self.source, "recipients")), (2, 2))
        last = seen[-1]["instance"]
        asked = [request["protocol_state"] for request in seen if request["instance"] == last]
        self.assertEqual((asked.count("RCPT"), asked.count("END-OF-MESSAGE")), (2, 2))


class Refused(TransactionCase):
    def large_rcpt(self, recipient):
        with smtp(self.stack, self.new_source()) as client:
            client.ehlo_or_helo_if_needed()
            client.mail(SENDER, [LARGE])
            return client.rcpt(recipient)[0]

    def test_a_message_that_is_refused_before_the_limits_ends_the_one_before(self):
        """552 for a full mailbox on the same connection: what was reserved for an abandoned message is free."""
        full = self.new_user(quota_mb=1)
        with smtp(self.stack, self.new_source()) as client:  # its usage is known then
            self.assertEqual(self.send(client, SENDER, full), 250)
        self.wait_until(lambda: self.large_rcpt(full) == 552, what="quotad knows the mailbox")
        with self.configured(DAEMON, limit="client_ip messages 1/1h", quota_timeout="2s"), smtp(self.stack, self.source) as client:
            self.assertEqual(self.begin(client), [250])
            client.rset()
            client.mail(SENDER, [LARGE])
            self.assertEqual(client.rcpt(full)[0], 552)
            self.assertEqual(self.used(self.source), 0)
            with smtp(self.stack, self.source) as other:
                self.assertEqual(self.send(other, SENDER), 250)


class Spelling(TransactionCase):
    def test_no_spelling_of_a_recipient_passes_its_limit(self):
        local, _, domain = self.user.partition("@")
        spellings = [self.user.upper(), f"{self.user}.", f'"{local}"@{domain}', f"{local}@{domain.upper()}.",
                     f"@relay.example:{self.user}"]
        with self.configured(DAEMON, limit=["recipient messages 1/1h", "recipient_domain messages 1000/1h"]), \
                smtp(self.stack, self.source) as client:
            self.assertEqual(self.send(client, SENDER), 250)
            for spelling in spellings:
                with self.subTest(spelling=spelling):
                    client.rset()
                    client.mail(SENDER)
                    code, text = client.docmd("RCPT", f"TO:<{spelling}>")
                    self.assertNotEqual(code, 250)
                    self.assertRegex(text.decode(), "Limit of 1 messages")
            self.assertEqual(self.used(f"recipient:{self.user}"), 1)
