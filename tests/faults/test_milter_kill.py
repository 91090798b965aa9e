"""milter-dkim dies, stops or runs out of memory in the middle of a message.

The oracle: the client sees a 4xx, the same message sent again is accepted, is
delivered once, and bears one signature (or one verdict) of ours.
"""
import re
import signal
import smtplib
import threading
import time

from tests.frame import mail
from tests.frame.milter import relay
from tests.integration.test_milter import SENDER, MilterCase, fields, from_signature

# Where the milter is killed: (whether its own packet counts, which).
POINTS = {
    "connect": (False, b"C"),
    "mail": (False, b"M"),
    "header": (False, b"L"),
    "body": (False, b"B"),
    "end of message": (False, b"E"),
    "header edit": (True, b"i"),
}
TRIES = 40


class FaultCase(MilterCase):
    def refusal(self, send):
        """The code that SEND is refused with; 250 where it is not."""
        try:
            send()
            return 250
        except smtplib.SMTPRecipientsRefused as error:
            return next(iter(error.recipients.values()))[0]
        except smtplib.SMTPResponseException as error:
            return error.smtp_code
        except smtplib.SMTPServerDisconnected:
            return 421

    def send_until_accepted(self, send):
        def accepted():
            code = self.refusal(send)
            self.assertIn(code // 100, (2, 4))
            return code == 250

        self.wait_until(accepted, TRIES, "accepted")

    def the_copy(self, data):
        """The message as stored; fails unless there is exactly one copy."""
        ident = mail.parse(data)["message-id"]
        stored = mail.wait_for_mail(self.stack, self.user, ident)
        self.stack.wait_queue_empty()
        self.assertEqual(mail.maildir_ids(self.stack, self.user).count(ident), 1)
        return stored


class Killed(FaultCase):
    """kill -9 behind a packet of the milter protocol."""

    def die_at(self, point, send):
        died = threading.Event()

        def on_packet(from_milter, command):
            if died.is_set() or (from_milter, command) != POINTS[point]:
                return False
            died.set()
            self.stack.kill("milter-dkim")
            return True

        with relay(self.stack, on_packet):
            code = self.refusal(send)
            self.assertTrue(died.is_set())
            self.assertEqual(code, 451)
            self.send_until_accepted(send)

    def signing(self, point):
        data = mail.message(SENDER, self.user)
        self.die_at(point, lambda: mail.submit(self.stack, SENDER, [self.user], data, source=self.new_source()))
        self.assertEqual(len(fields(self.the_copy(data), "DKIM-Signature")), 1)

    def test_at_connect(self):
        self.signing("connect")

    def test_at_mail(self):
        self.signing("mail")

    def test_in_the_header(self):
        self.signing("header")

    def test_in_the_body(self):
        self.signing("body")

    def test_at_end_of_message(self):
        self.signing("end of message")

    def test_after_a_header_edit(self):
        self.signing("header edit")

    def test_after_a_verdict_was_written(self):
        data = from_signature(self.submit())
        ident = mail.new_message_id()
        data = b"Message-ID: " + ident.encode() + b"\r\n" + re.sub(rb"Message-ID:.*\r\n", b"", data, flags=re.I)
        source = self.new_source()
        self.die_at("header edit", lambda: mail.deliver(self.stack, "a@b.example", [self.user], data, source))
        self.assertEqual(len(fields(self.the_copy(data), "Authentication-Results")), 1)

    def test_at_rcpt(self):
        data = mail.message(SENDER, self.user)
        with self.submission() as client:
            client.ehlo_or_helo_if_needed()
            client.mail(SENDER)
            client.rcpt(self.user)
            self.stack.kill("milter-dkim")
            self.assertEqual(client.data(data)[0], 451)
        self.send_until_accepted(lambda: mail.submit(self.stack, SENDER, [self.user], data, source=self.new_source()))
        self.assertEqual(len(fields(self.the_copy(data), "DKIM-Signature")), 1)


class Stopped(FaultCase):
    """SIGSTOP: a milter that neither answers nor ends."""

    def test_wiring_has_the_times_of_the_design(self):
        wiring = self.stack.postconf_value("postern_milter")
        for setting in ("connect_timeout=5s", "content_timeout=60s", "default_action=tempfail"):
            self.assertIn(setting, wiring)

    def test_mail_server_gives_up_and_defers(self):
        """With shorter times, because nobody wants to wait for those of the design."""
        wiring = self.stack.postconf_value("postern_milter")
        short = wiring.replace("content_timeout=60s", "content_timeout=1s, command_timeout=1s")
        self.assertNotEqual(short, wiring)
        data = mail.message(SENDER, self.user)

        def send():
            mail.submit(self.stack, SENDER, [self.user], data, source=self.new_source())

        self.stack.postconf(f"postern_milter={short}")
        self.stack.reload("postfix")
        try:
            with self.submission() as client:
                client.ehlo_or_helo_if_needed()
                client.mail(SENDER)
                client.rcpt(self.user)
                pid = self.stack.kill("milter-dkim", signal.SIGSTOP)
                began = time.monotonic()
                self.assertEqual(client.data(data)[0], 451)
            self.assertEqual(self.refusal(send) // 100, 4)
            self.assertLess(time.monotonic() - began, 30, "those of the design would take 60 s")
        finally:
            self.stack.kill("milter-dkim", signal.SIGCONT)
            self.stack.postconf(f"postern_milter={wiring}")
            self.stack.reload("postfix")
        self.send_until_accepted(send)
        self.assertEqual(self.stack.pid("milter-dkim"), pid)
        self.assertEqual(len(fields(self.the_copy(data), "DKIM-Signature")), 1)

    def test_watchdog_ends_it(self):
        unit = self.stack.at.path("/etc/systemd/milter-dkim.service")
        before = unit.read_text()
        data = mail.message(SENDER, self.user)
        self.assertRegex(before, r"\nWatchdogSec=30s\n")
        try:
            unit.write_text(before.replace("WatchdogSec=30s", "WatchdogSec=5s"))
            self.stack.restart("milter-dkim")
            with self.submission() as client:
                client.ehlo_or_helo_if_needed()
                client.mail(SENDER)
                client.rcpt(self.user)
                pid = self.stack.kill("milter-dkim", signal.SIGSTOP)
                self.assertEqual(client.data(data)[0], 451)
            self.wait_until(lambda: self.stack.pid("milter-dkim") not in (None, pid), what="the next milter-dkim")
            self.assertIn("supervise: milter-dkim: watchdog", self.log())
            self.send_until_accepted(lambda: mail.submit(self.stack, SENDER, [self.user], data, source=self.new_source()))
        finally:
            unit.write_text(before)
            self.stack.restart("milter-dkim")
        self.assertEqual(len(fields(self.the_copy(data), "DKIM-Signature")), 1)


class OutOfMemory(FaultCase):
    """No more memory than it has now: it ends itself, and nothing is lost."""

    CLIENTS = 6

    def test_data_limit(self):
        self.stack.restart("milter-dkim")  # what it had for earlier messages, and kept, would do for these
        pid = self.stack.pid("milter-dkim")
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            size = int(re.search(r"VmData:\s+(\d+) kB", status.read()).group(1)) << 10
        filler = b"".join(b"X-%d: %s\r\n" % (i, b"y" * 900) for i in range(900))
        messages = [filler + mail.message(SENDER, self.user) for _ in range(self.CLIENTS)]
        self.stack.limit("milter-dkim", "data", size)

        def client(data):
            self.send_until_accepted(lambda: mail.submit(self.stack, SENDER, [self.user], data, source=self.new_source()))

        threads = [threading.Thread(target=client, args=(data,)) for data in messages]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertNotEqual(self.stack.pid("milter-dkim"), pid, "it had to end")
        for data in messages:
            self.assertEqual(len(fields(self.the_copy(data), "DKIM-Signature")), 1)
