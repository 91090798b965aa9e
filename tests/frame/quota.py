"""What the tests of quotas share.

The oracle is never the quota plug-in itself: it is the sum of the sizes that
Dovecot gives for each message of the mailbox.
"""
import contextlib
import os
import smtplib
import threading
import time

from tests.frame import assemble, mail
from tests.frame.case import NUMBERS, StackCase
from tests.frame.stalls import Stalls

KB = 1024
MB = 1024 * KB
SENDER = "sender@example.org"


def body(size, seed="x"):
    """A message of exactly SIZE bytes."""
    text = f"From: <{SENDER}>\r\nSubject: {seed}\r\nMessage-ID: {mail.new_message_id()}\r\n\r\n"
    line = "0123456789" * 7 + "\r\n"
    while len(text) + len(line) <= size - 2:
        text += line
    text += "e" * (size - 2 - len(text)) + "\r\n"
    return text.encode()


class QuotaCase(StackCase):
    """What the tests below share."""

    def setUp(self):
        self.stack.start("mysql", "quotad", "dovecot")

    def users(self, count, quota_mb=1024, domain="example.net"):
        """Adds COUNT users at once; they have the password of the frame's."""
        stem = f"m{os.getpid()}-{next(NUMBERS)}"
        names = [f"{stem}-{i}@{domain}" for i in range(count)]
        values = ", ".join(f"('{name}')" for name in names)
        self.stack.mariadb(
            f"CREATE TEMPORARY TABLE fresh (email VARCHAR(255)); INSERT INTO fresh VALUES {values}; "
            "INSERT INTO virtual_users (domain_id, email, password, quota_mb) "
            f"SELECT d.id, f.email, u.password, {quota_mb} FROM fresh f "
            f"JOIN virtual_domains d ON d.name = '{domain}' JOIN virtual_users u ON u.email = 'office@example.net'")
        return names

    def new_user(self, domain="example.net", quota_mb=1024):
        return self.users(1, quota_mb, domain)[0]

    def lmtp(self):
        return mail.lmtp(self.stack, self.stack.at.port("lmtp"))

    def deliver(self, user, data):
        """Delivers straight to Dovecot; returns the reply's code and text.  Comes
        again, as Postfix would, where Dovecot 2.4 has ten for this user in hand."""
        while True:
            code, text = self.try_to_deliver(user, data)
            if "Too many concurrent deliveries" not in text:
                return code, text

    def try_to_deliver(self, user, data):
        with self.lmtp() as client:
            try:
                client.sendmail(SENDER, [user], data)
            except smtplib.SMTPDataError as error:
                return error.smtp_code, error.smtp_error.decode()
            except smtplib.SMTPRecipientsRefused as error:
                code, text = error.recipients[user]
                return code, text.decode()
        return 250, ""

    def deliver_all(self, jobs, threads=8, fault=None, after=0):
        """Delivers the (user, data) of JOBS in parallel; returns the codes.
        FAULT is called once when AFTER of them are done."""
        codes, queue, lock = [], list(jobs), threading.Lock()

        def work():
            while True:
                with lock:
                    if not queue:
                        return
                    user, data = queue.pop()
                try:
                    code = self.deliver(user, data)[0]
                except (OSError, smtplib.SMTPException) as error:
                    code = str(error)
                with lock:
                    codes.append(code)
                    strike = fault is not None and len(codes) == after
                if strike:
                    fault()

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return codes

    def deliver_timed(self, users, count, size=3 * KB):
        """COUNT messages one after the other: the codes, and the slowest one's seconds, without what the machine
        itself stood still for."""
        codes, slowest = [], 0
        for number in range(count):
            with Stalls(self.stack.at.path("/var/mail")) as stalls:
                began = time.monotonic()
                codes.append(self.deliver(users[number % len(users)], body(size))[0])
                took = time.monotonic() - began
            slowest = max(slowest, took - stalls.excuse())
        return codes, slowest

    def in_mailbox(self, user):
        """Bytes and messages that are there."""
        text = self.stack.doveadm("-f", "flow", "fetch", "-u", user, "size.virtual", "mailbox", "*", "all")
        sizes = [int(line.partition("=")[2]) for line in text.splitlines() if line]
        return sum(sizes), len(sizes)

    def row(self, user):
        rows = self.stack.mariadb(
            f"SELECT usage_bytes, messages FROM mailbox_usage WHERE email = '{user}'").split()
        return tuple(map(int, rows)) if rows else None

    def files(self, user):
        """Bytes and messages by the names of the files: nobody is asked, so nobody counts."""
        sizes = [int(path.name.partition(",W=")[2].partition(":")[0])
                 for path in self.stack.mail_dir(user).glob("**/*,W=*") if path.parent.name in ("cur", "new")]
        return sum(sizes), len(sizes)

    def assert_converges(self, users, timeout=60):
        for user in users:
            self.wait_until(lambda user=user: self.row(user) == self.files(user), timeout,
                            lambda user=user: f"{user}: {self.row(user)} like {self.files(user)}")

    def quota_get(self, user):
        """Kilobytes and messages as `doveadm quota get` shows them."""
        lines = self.stack.doveadm("-f", "tab", "quota", "get", "-u", user).splitlines()[1:]
        return tuple(int(line.split("\t")[2]) for line in lines)

    def assert_exact(self, user, what=""):
        """Row, mailbox and doveadm agree, before and after a recount."""
        there = self.in_mailbox(user)
        self.wait_until(lambda: self.row(user) == there, what=f"{what}: row like mailbox {there}")
        shown = self.quota_get(user)
        self.assertEqual(shown, (-(-there[0] // KB), there[1]), what)
        self.stack.doveadm("quota", "recalc", "-u", user)
        self.assertEqual(self.quota_get(user), shown, f"{what}: recalc found something else")
        self.assertEqual(self.in_mailbox(user), there, what)

    @contextlib.contextmanager
    def dovecot_with(self, old, new, replace=()):
        """Runs a block with more settings of Dovecot, in the words of 2.3 and of
        2.4, and with the pairs of REPLACE exchanged in all its files."""
        folder = self.stack.at.path("/etc/dovecot")
        files = {path: path.read_text() for path in [*folder.glob("*.conf"), *folder.glob("conf.d/*.conf")]}
        extra = folder / "conf.d/zz-test.conf"
        extra.write_text(new if assemble.dovecot_is_24() else old)
        for path, text in files.items():
            for one, other in replace:
                text = text.replace(one, other)
            path.write_text(text)
        self.stack.restart("dovecot")
        try:
            yield
        finally:
            extra.unlink()
            for path, text in files.items():
                path.write_text(text)
            self.stack.restart("dovecot")


class FaultCase(QuotaCase):
    """Mailboxes with room, and one of 1 MB that is nearly full, while something is broken."""

    MAILBOXES = 3
    MAX_S = 2  # for one delivery, on a busy machine
    CONVERGE_S = 60

    def setUp(self):
        super().setUp()
        self.names = self.users(self.MAILBOXES)
        self.full = self.new_user(quota_mb=1)
        for user in self.names:  # so that Dovecot's own lookups are cached, too
            self.assertEqual(self.deliver(user, body(KB))[0], 250)
        self.assertEqual(self.deliver(self.full, body(900 * KB))[0], 250)
        self.taken = self.MAILBOXES
        self.assert_converges([*self.names, self.full])

    def tearDown(self):
        self.stack.start("mysql", "quotad", "dovecot")

    @property
    def pid(self):
        return self.stack.pid("quotad")

    def assert_unmoved(self, count=12):
        """All mail that fits is taken at once, and no other."""
        codes, slowest = self.deliver_timed(self.names, count)
        self.taken += count
        self.assertEqual(codes, [250] * count)
        self.assertLess(slowest, self.MAX_S)
        codes, slowest = self.deliver_timed([self.full], 3, 200 * KB)
        self.assertEqual(codes, [552] * 3)
        self.assertLess(slowest, self.MAX_S)

    def assert_converged(self):
        """The rows are those of the mailboxes, which have what was taken."""
        self.assert_converges([*self.names, self.full], self.CONVERGE_S)
        self.assertEqual(sum(self.files(user)[1] for user in self.names), self.taken)
        self.assertEqual(self.files(self.full)[1], 1)
