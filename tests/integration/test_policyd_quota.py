"""Quota at RCPT: policyd-ratelimit asks quotad, with the real Postfix and Dovecot, and
with a quotad that misbehaves."""
import contextlib
import os
import signal
import smtplib
import socket
import stat
import threading
import time

from tests.frame.layout import REPO, USERS
from tests.frame.mail import smtp, submission
from tests.frame.policy import new_instance
from tests.integration.test_policyd import DAEMON, SENDER, PolicyCase
from tests.integration.test_quota import KB, QuotaCase, body

FULL = r"552 5\.2\.2 .*The mailbox of this recipient is full"
TIMEOUT_S = 0.1
# Where an answer is wanted: a busy machine may need longer for it than the 100 ms that mail waits.
PATIENT = {"quota_timeout": "2s"}


class QuotaAtRcpt(PolicyCase, QuotaCase):
    """What the tests below share."""

    def setUp(self):
        PolicyCase.setUp(self)

    def full_user(self):
        """A mailbox of 1 MB with some 60 KB left."""
        user = self.new_user(quota_mb=1)
        for _ in range(2):
            self.assertEqual(self.deliver(user, body(480 * KB))[0], 250)
        return user

    def rcpt(self, recipient, size=None, sender=SENDER):
        """Postfix's answer to RCPT for a message of SIZE."""
        with smtp(self.stack, self.new_source()) as client:
            client.ehlo_or_helo_if_needed()
            client.mail(sender, [f"SIZE={size}"] if size else [])
            code, text = client.rcpt(recipient)
            return f"{code} {text.decode()}"

    def count(self, result):
        return self.metric(f'postern_policy_quota_total{{result="{result}"}}', DAEMON)

    def ask(self, client, recipient, **attributes):
        return client.ask(instance=new_instance(), recipient=recipient, **attributes)


class RealQuotad(QuotaAtRcpt):
    """The daemons as they are shipped."""

    def test_full_mailbox_is_refused_at_rcpt(self):
        with self.configured(DAEMON, **PATIENT):
            self.check_full_mailbox(self.full_user(), self.new_user())

    def check_full_mailbox(self, user, other):
        self.assertRegex(self.rcpt(user, size=100 * KB), FULL)
        self.assertRegex(self.rcpt(user, size=30 * KB), "^250 ")
        self.assertRegex(self.rcpt(user), "^250 ")  # no size named: there is some room
        self.assertRegex(self.rcpt(user.upper(), size=100 * KB), FULL)
        self.assertRegex(self.rcpt(other, size=2000 * KB), "^250 ")
        sizes = self.quota_sizes(user)
        added = sizes[0] - 480 * KB  # fields that the delivery adds
        self.assertEqual(self.deliver(user, body(1024 * KB - sum(sizes) - added))[0], 250)
        self.assertRegex(self.rcpt(user), FULL)  # nothing left at all
        # Room again: at once.
        self.stack.doveadm("expunge", "-u", user, "mailbox", "INBOX", "all")
        self.assertRegex(self.rcpt(user, size=900 * KB), "^250 ")
        self.assertRegex(self.rcpt(user, size=1100 * KB), FULL)

    def quota_sizes(self, user):
        text = self.stack.doveadm("-f", "flow", "fetch", "-u", user, "size.virtual", "mailbox", "*", "all")
        return [int(line.partition("=")[2]) for line in text.splitlines() if line]

    def test_one_of_two_recipients_and_nothing_is_reserved_for_it(self):
        user, other, source = self.full_user(), self.new_user(), self.new_source()
        with self.configured(DAEMON, **PATIENT), smtp(self.stack, source) as client:
            refused = client.sendmail(SENDER, [user, other], body(200 * KB), [f"SIZE={200 * KB}"])
            self.assertEqual([(name, code) for name, (code, _) in refused.items()], [(user, 552)])
            with self.assertRaises(smtplib.SMTPRecipientsRefused):
                client.sendmail(SENDER, [user], body(200 * KB), [f"SIZE={200 * KB}"])
        self.assertEqual(self.used(source), 1)
        log = self.stack.log_file(DAEMON).read_text(errors="replace")
        self.assertRegex(log, f"mailbox_full .*recipient={user} size={200 * KB} sender={SENDER} client_ip={source}")

    def test_submission_and_remote_recipients(self):
        user, account = self.full_user(), self.new_user()
        with self.configured(DAEMON, **PATIENT), submission(self.stack, account, source=self.new_source()) as client:
            client.mail(account, [f"SIZE={100 * KB}"])
            self.assertEqual(client.rcpt(user)[0], 552)
            self.assertEqual(client.rcpt("someone@elsewhere.example")[0], 250)

    def test_changed_limit(self):
        user = self.full_user()
        self.wait_until(lambda: self.rcpt(user, size=100 * KB)[:3] == "552", what="the old limit")
        self.stack.mariadb(f"UPDATE virtual_users SET quota_mb = 5 WHERE email = '{user}'")
        self.wait_until(lambda: self.rcpt(user, size=100 * KB).startswith("250"), 5, "the new limit")

    def test_quotad_away_or_hanging_passes(self):
        user = self.full_user()
        with self.client() as client:
            self.wait_until(lambda: self.ask(client, user, size=str(100 * KB))[:3] == "552", what="an answer")
            self.stack.stop("quotad")  # its sockets are gone, too: nobody listens
            self.assertEqual(self.ask(client, user, size=str(100 * KB)), "DUNNO")
            self.stack.start("quotad")
            pid = self.stack.pid("quotad")
            self.wait_until(lambda: self.asked_well(client), what="an answer of the next quotad")
            os.kill(pid, signal.SIGSTOP)
            try:
                slowest, unknown = 0.0, self.count("unknown")
                for _ in range(20):
                    since = time.monotonic()
                    self.assertEqual(self.ask(client, user, size=str(100 * KB)), "DUNNO")
                    slowest = max(slowest, time.monotonic() - since)
                self.assertLess(slowest, 2.0)  # Postfix waits 3 s
                self.assertEqual(self.count("unknown") - unknown, 20)
            finally:
                os.kill(pid, signal.SIGCONT)
            self.wait_until(lambda: self.asked_well(client), what="an answer after the pause")
        self.assertIn("quota_away", self.stack.log_file(DAEMON).read_text(errors="replace"))

    def asked_well(self, client):
        before = self.count("room")
        self.ask(client, "office@example.net")
        return self.count("room") > before

    def test_the_socket_is_for_questions_only(self):
        path = self.stack.at.path("/run/postern/quotad-check.sock")
        status = path.stat()
        self.assertEqual((stat.S_IMODE(status.st_mode), status.st_gid), (0o660, USERS[DAEMON]))
        user = self.new_user(quota_mb=1)
        for line, answered in ((f"CHECK\t{user}\t1\t0", True), (f"LOOKUP\t{user}", False),
                               (f"FREE\t{user}\t1\t1\t1", False), (f"RESERVE\t{user}\t0\t1\t0\t0\t0\tk", False),
                               ("SYNC", False)):
            with self.subTest(line), socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(10)
                sock.connect(str(path))
                sock.sendall(self.hello() + line.encode() + b"\n")
                self.assertEqual(bool(sock.recv(1024)), answered)

    @staticmethod
    def hello():
        return b"HELLO\t%d\t1\n" % protocol_version()


def protocol_version():
    """As lib/quota/proto.h has it."""
    text = (REPO / "lib/quota/proto.h").read_text()
    return int(text.partition("#define QUOTA_VERSION ")[2].split()[0])


class FakeQuotad:
    """Answers each CHECK by FUNCTION(user, bytes, grace): a word, None (no answer), or bytes."""

    def __init__(self, path, function):
        self.function, self.path, self.asked, self.open = function, str(path), [], []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        os.chmod(self.path, 0o666)
        self.listener.listen(64)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.open.append(sock)
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        with contextlib.suppress(ConnectionError), sock.makefile("rb") as lines:
            for line in lines:
                verb, *fields = line.decode().rstrip("\n").split("\t")
                if verb != "CHECK":
                    continue
                self.asked.append((fields[0], int(fields[1]), int(fields[2])))
                word = self.function(*self.asked[-1])
                numbers = "\t".join(["0"] * reply_numbers())
                if word is not None:
                    sock.sendall(word if isinstance(word, bytes) else f"{word}\t{numbers}\n".encode())

    def close(self):
        self.listener.close()
        for sock in self.open:
            sock.close()
        os.unlink(self.path)


def reply_numbers():
    """Fields of a reply behind its word."""
    text = (REPO / "lib/quota/proto.c").read_text()
    return int(text.partition("#define REPLY_NUMBERS ")[2].split()[0])


class OddQuotad(QuotaAtRcpt):
    """Answers that come late, never, or as nonsense."""

    def fake(self, function, **values):
        path = self.stack.at.path(f"/run/fake-quotad-{new_instance()}.sock")
        quotad = FakeQuotad(path, function)
        self.addCleanup(quotad.close)
        context = self.configured(DAEMON, quota_socket=f"unix:{path}", **values)
        context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return quotad

    def test_words_and_fields(self):
        words = {"full@example.net": "OVER", "big@example.net": "BIG", "temp@example.net": "TEMP",
                 "recount@example.net": "RECOUNT", "ok@example.net": "OK"}
        quotad = self.fake(lambda user, *_: words[user], quota_grace="10K", **PATIENT)
        with self.client() as client:
            for user, word in words.items():
                self.assertRegex(self.ask(client, user, size="12345"), FULL if word in ("OVER", "BIG") else "^DUNNO$", user)
            self.assertEqual(quotad.asked, [(user, 12345, 10240) for user in words])
            self.ask(client, "OK+tag@Example.NET", size="0")
            self.assertEqual(quotad.asked[-1], ("ok@example.net", 1, 10240))
            # Not asked about: other stages, and what is no address.
            before = len(quotad.asked)
            client.ask(instance=new_instance(), recipient="postmaster")
            client.ask(instance=new_instance(), recipient="ok@example.net", protocol_state="DATA")
            client.ask(instance=new_instance(), recipient="ok@example.net", protocol_state="END-OF-MESSAGE")
            self.assertEqual(len(quotad.asked), before)

    def test_late_answers_are_not_taken_for_others(self):
        gate = threading.Event()

        def answer(user, *_):
            if user.startswith("slow"):
                gate.wait(10)
                return "OVER"
            return "OK"
        quotad = self.fake(answer)
        with self.client() as one, self.client() as two:
            since = time.monotonic()
            one.send(instance=new_instance(), recipient="slow@example.net")
            self.wait_until(lambda: quotad.asked, what="the slow question")
            self.assertEqual(self.ask(two, "ok@example.net"), "DUNNO")  # on another connection
            self.assertEqual(one.receive(), "DUNNO")
            self.assertGreaterEqual(time.monotonic() - since, TIMEOUT_S)
            gate.set()
            self.wait_until(lambda: self.asked_again(two, quotad), what="questions after the rest")
            for _ in range(20):
                self.assertEqual(self.ask(two, "ok@example.net"), "DUNNO")
        self.assertEqual(self.count("full"), 0)

    def asked_again(self, client, quotad):
        before = len(quotad.asked)
        self.ask(client, "ok@example.net")
        return len(quotad.asked) > before

    def test_clients_that_leave_meanwhile(self):
        gate = threading.Event()
        quotad = self.fake(lambda *_: "OVER" if gate.wait(10) else None, quota_timeout="2s")
        clients = [self.client() for _ in range(8)]
        for client in clients:
            client.send(instance=new_instance(), recipient="a@example.net")
        self.wait_until(lambda: len(quotad.asked) >= 4, what="questions on all connections")
        for client in clients[:6]:
            client.close()
        gate.set()
        for client in clients[6:]:
            self.assertRegex(client.receive(), FULL)
            client.close()
        with self.client() as client:
            self.assertRegex(self.ask(client, "a@example.net"), FULL)

    def test_nonsense_closes_and_passes(self):
        answers = [b"what?\n", b"OK\tnot\ta\tnumber\n", b"x" * 5000, b"OVER\n"]
        quotad = self.fake(lambda *_: answers.pop(0) if answers else "OVER")
        with self.client() as client:
            for left in range(len(answers) - 1, -1, -1):
                self.wait_until(lambda n=left: self.passes_until(client, answers, n), what="the next nonsense")
            self.wait_until(lambda: self.ask(client, "a@example.net").startswith("552"), what="sense")
        self.assertGreaterEqual(len(quotad.open), 4)

    def passes_until(self, client, answers, left):
        if len(answers) > left:
            self.assertEqual(self.ask(client, "a@example.net"), "DUNNO")
        return len(answers) == left

    def test_answers_in_pieces_and_many_at_once(self):
        quotad = self.fake(lambda user, *_: "OVER" if int(user.partition("@")[0][1:]) % 2 else "OK", quota_timeout="2s")
        clients = [self.client() for _ in range(60)]
        for number, client in enumerate(clients):
            client.send(instance=new_instance(), recipient=f"u{number}@example.net")
        for number, client in enumerate(clients):
            self.assertRegex(client.receive(), FULL if number % 2 else "^DUNNO$", number)
            client.close()
        self.assertLessEqual(len(quotad.open), 4)

    def test_a_bad_socket_is_told(self):
        with self.configured(DAEMON):
            self.stack.configure(DAEMON, quota_socket="nowhere")
            self.stack.reload(DAEMON)
            told = f"{self.stack.at.path('/etc/postern')}/{DAEMON}.conf:"
            self.wait_until(lambda: [line for line in self.stack.log_file(DAEMON).read_text(errors="replace").splitlines()
                                     if told in line and "nowhere: expected" in line], what="the error")
            with self.client() as client:
                self.assertEqual(self.ask(client, "office@example.net"), "DUNNO")
