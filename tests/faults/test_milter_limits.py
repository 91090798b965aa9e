"""milter-dkim without descriptors, beset by slow clients, reloaded all the time,
with a broken configuration and with broken keys."""
import contextlib
import os
import pathlib
import re
import signal
import smtplib
import socket
import threading
import time

from tests.frame import mail
from tests.frame.metrics import metrics_socket
from tests.frame.milter import MilterClient, packet
from tests.integration.test_milter import SENDER, MilterCase, fields

SPARE_DESCRIPTORS = 8
REPLY_S = 0.5
METRICS_CONNECTIONS = 16
CONTROL_CONNECTIONS = 32
RELOADS = 30
RELOAD_EVERY_S = 0.1
CLIENTS = 4
ACCOUNT_LIMIT = 1000  # messages an hour, as shipped


class LimitCase(MilterCase):
    @property
    def pid(self):
        return self.stack.pid("milter-dkim")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def assert_idle(self):
        """Uses next to no CPU for a second: it does not spin."""
        before, began = self.stack.cpu_seconds("milter-dkim"), time.monotonic()
        self.wait_until(lambda: time.monotonic() - began >= 1, 5)
        self.assertLess(self.stack.cpu_seconds("milter-dkim") - before, 0.3)

    @contextlib.contextmanager
    def spare_descriptors(self, number):
        """A block in which the daemon has NUMBER descriptors more than it uses now; the
        process that then runs has as many as before, however the block ends."""
        pid = self.pid
        limits = pathlib.Path(f"/proc/{pid}/limits").read_text()
        soft = re.search(r"Max open files +(\d+)", limits)[1]
        self.stack.limit("milter-dkim", "nofile", self.descriptors() + number)
        try:
            yield
        finally:
            if self.pid == pid:
                self.stack.limit("milter-dkim", "nofile", soft)

    def assert_works(self):
        self.assertEqual(len(fields(self.submit(), "DKIM-Signature")), 1)


class Descriptors(LimitCase):
    def test_shed_and_recover(self):
        with self.spare_descriptors(SPARE_DESCRIPTORS):
            with contextlib.ExitStack() as clients:
                begun = sum(self.begins(clients) for _ in range(SPARE_DESCRIPTORS * 4))
                self.assertGreater(begun, 0)
                self.assertLess(begun, SPARE_DESCRIPTORS * 4)
                self.assert_idle()
            # The next process, or the same one: whoever waited is served.
            self.wait_until(self.accepted, what="a message is accepted again")
        self.assert_works()

    def begins(self, clients):
        """Whether one more client is served; others stay in the backlog, or are cut off."""
        client = clients.enter_context(MilterClient(self.stack, timeout=REPLY_S))
        try:
            return client.begin() is not None
        except (OSError, TypeError):
            return False

    def accepted(self):
        try:
            return self.submit() is not None
        except (smtplib.SMTPException, OSError):
            return False


class SlowClients(LimitCase):
    def test_half_a_packet_on_the_milter_socket(self):
        with self.configured("milter-dkim", packet_timeout="1s"), contextlib.ExitStack() as clients:
            slow = [clients.enter_context(MilterClient(self.stack)) for _ in range(CLIENTS * 5)]
            for client in slow:
                client.negotiate()
                client.send(b"\0\0\0\x20D")
            self.assert_works()
            began = time.monotonic()
            for client in slow:
                self.assertTrue(client.ended())
            self.assertLess(time.monotonic() - began, 10)
            self.assertLess(self.threads(), 30)

    def test_rest_between_packets_is_allowed(self):
        """A slow SMTP client is Postfix's affair: it may take longer than a packet."""
        with self.configured("milter-dkim", packet_timeout="1s"), MilterClient(self.stack) as client:
            self.assertEqual(client.begin(), (b"c", b""))
            began = time.monotonic()
            self.wait_until(lambda: time.monotonic() - began > 2.5, 5)
            client.send(*client.fields([(b"From", b" a@example.org")]))
            self.assertEqual(client.end()[1], (b"c", b""))

    def flood(self, path, count, beginning):
        with contextlib.ExitStack() as clients:
            for _ in range(count):
                sock = clients.enter_context(socket.socket(socket.AF_UNIX))
                sock.connect(path)
                with contextlib.suppress(BrokenPipeError):
                    sock.sendall(beginning)
            sock.settimeout(10)
            try:
                self.assertEqual(sock.recv(1), b"", "one too many is closed at once")
            except ConnectionResetError:
                pass
            self.assert_works()

    def test_metrics_socket(self):
        self.flood(metrics_socket(self.stack, "milter-dkim"), METRICS_CONNECTIONS + 1, b"GET /metr")
        self.wait_until(lambda: self.scraped(), what="metrics")

    def scraped(self):
        try:
            return self.metric("postern_milter_active_messages") >= 0
        except (OSError, AssertionError):
            return False

    def test_control_socket(self):
        path = self.stack.at.path("/run/postern/milter-dkim.control.sock")
        self.flood(str(path), CONTROL_CONNECTIONS + 1, b"sta")


class Reload(LimitCase):
    def test_every_100_ms_under_load(self):
        """Nothing is dropped, no session is lost, and nothing piles up."""
        pid = self.pid
        self.assert_works()
        before = (self.descriptors(), self.threads())
        done, errors, idents = threading.Event(), [], []

        def client():
            try:
                # An account of this test, whose limits are its own.
                with mail.submission(self.stack, self.user, source=self.new_source()) as smtp:
                    for _ in range(ACCOUNT_LIMIT // CLIENTS):  # a fast machine sends no more either
                        if done.is_set():
                            break
                        data = mail.message(self.user, self.user)
                        smtp.sendmail(self.user, [self.user], data)
                        idents.append(mail.parse(data)["message-id"])
            except (smtplib.SMTPException, OSError) as error:
                errors.append(error)

        threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for number in range(RELOADS):
            # Each other one with a new resolver behind it.
            self.stack.configure("milter-dkim", dns_timeout=f"{4 + number % 2}s")
            self.stack.kill("milter-dkim", signal.SIGHUP)
            done.wait(RELOAD_EVERY_S)
        done.set()
        for thread in threads:
            thread.join()
        self.assertEqual(errors, [])
        self.assertGreater(len(idents), CLIENTS)
        self.assertEqual(self.pid, pid)
        self.stack.wait_queue_empty()
        self.assertEqual(set(idents) - set(mail.maildir_ids(self.stack, self.user)), set())
        self.wait_until(lambda: self.descriptors() <= before[0] + CLIENTS and self.threads() <= before[1] + CLIENTS, what=f"descriptors and threads as before: {before}")

    def test_bad_file_leaves_the_old_one_in_force(self):
        path = self.stack.at.path("/etc/postern/milter-dkim.conf")
        before = path.read_text()
        for line in ("role = both", "no_such_key = 1", "dns_timeout = never", "internal_hosts = /nonexistent",
                     "signing_table = /nonexistent\nkey_table = /nonexistent", "sign_headers = To:Date"):
            with self.subTest(line):
                seen = self.log().count("config_rejected")
                path.write_text(f"{before}\n{line}\n")
                try:
                    pid = self.stack.kill("milter-dkim", signal.SIGHUP)
                    self.wait_until(lambda seen=seen: self.log().count("config_rejected") > seen, what="config_rejected")
                finally:
                    path.write_text(before)
                self.assertEqual(self.pid, pid)
        self.assert_works()


class BrokenKeys(LimitCase):
    """A key file that cannot be used: its domain waits, the others do not."""

    def setUp(self):
        super().setUp()
        self.folder = self.stack.at.path("/etc/postern")
        private = self.value("SELECT private_key FROM dkim_keys WHERE domain = 'example.com' AND state = 'active'")
        self.private = private
        self.write("good.private", private)
        self.write("KeyTable", f"good good.example:s:{self.folder}/good.private\n"
                               f"bad bad.example:s:{self.folder}/bad.private\n")
        self.write("SigningTable", "*@good.example good\n*@bad.example bad\n")

    def write(self, name, text, mode=0o644):
        (self.folder / name).write_text(text)
        os.chmod(self.folder / name, mode)

    def code(self, domain):
        """What mail of DOMAIN is answered with."""
        with mail.smtp(self.stack, source="127.0.0.1") as client:
            client.ehlo_or_helo_if_needed()
            client.mail(f"a@{domain}")
            client.rcpt(self.user)
            return client.data(mail.message(f"a@{domain}", self.user))[0]

    def broken_then_mended(self, spoil):
        spoil()
        with self.configured("milter-dkim", key_table=self.folder / "KeyTable",
                             signing_table=f"refile:{self.folder}/SigningTable"):
            pid = self.pid
            broken = self.metric("postern_milter_broken_keys_total")
            self.assertEqual((self.code("good.example"), self.code("bad.example")), (250, 451))
            self.assertGreater(self.metric("postern_milter_broken_keys_total"), broken)
            self.assertRegex(self.log(), "key_unusable level=error .*domain=bad.example")
            self.write("bad.private", self.private)
            self.stack.kill("milter-dkim", signal.SIGHUP)
            self.wait_until(lambda: self.code("bad.example") == 250, what="mended")
            self.assertEqual((self.code("good.example"), self.pid), (250, pid))

    def test_unreadable(self):
        self.broken_then_mended(lambda: self.write("bad.private", self.private, 0o000))

    def test_missing(self):
        self.broken_then_mended(lambda: (self.folder / "bad.private").unlink(missing_ok=True))

    def test_corrupt(self):
        self.broken_then_mended(lambda: self.write("bad.private", self.private[:400]))

    def test_empty(self):
        self.broken_then_mended(lambda: self.write("bad.private", ""))


class Unused(LimitCase):
    """Connections that say nothing, or go away at once."""

    def test_many_that_close(self):
        before = self.threads()
        for _ in range(200):
            with MilterClient(self.stack) as client:
                client.send(packet(b"Q"))
        self.assert_works()
        self.wait_until(lambda: self.threads() <= before + 5, what="threads as before")
