"""The stock parts of the stack: ports, TLS, SASL, aliases, refusals."""
import base64
import smtplib
import ssl
import unittest

from tests.frame.case import StackCase
from tests.frame.layout import HOST
from tests.frame.mail import (
    Imap, deliver, message, new_message_id, smtp, submission, submit, tls_context, wait_for_mail,
)


class Submission(StackCase):
    """Ports 587 and 465."""

    def test_both_ports_deliver(self):
        for wrapped in (False, True):
            with self.subTest(wrapped=wrapped):
                ident = new_message_id()
                data = message("sales@example.com", "office@example.net", message_id=ident)
                submit(self.stack, "sales@example.com", ["office@example.net"], data, wrapped=wrapped)
                wait_for_mail(self.stack, "office@example.net", ident)

    def test_sender_of_another_is_refused(self):
        with submission(self.stack, "sales@example.com") as client:
            with self.assertRaises(smtplib.SMTPRecipientsRefused) as caught:
                client.sendmail("office@example.net", ["office@example.net"], b"Subject: x\r\n\r\nx\r\n")
        code, text = caught.exception.recipients["office@example.net"]
        self.assertEqual(code, 553)
        self.assertIn(b"not owned by user", text)

    def test_alias_may_be_used_as_sender(self):
        self.stack.postern("alias", "add", "team@example.com", "sales@example.com")
        with submission(self.stack, "sales@example.com") as client:
            data = message("team@example.com", "office@example.net")
            self.assertEqual(client.sendmail("team@example.com", ["office@example.net"], data), {})

    def test_wrong_password_is_refused(self):
        with smtplib.SMTP(HOST, self.stack.at.port("submission"), "client.example.org") as client:
            client.starttls(context=tls_context(self.stack))
            client.ehlo()
            wrong = base64.b64encode(b"\0sales@example.com\0wrong").decode()
            self.assertEqual(client.docmd("AUTH", f"PLAIN {wrong}")[0], 535)

    def test_no_auth_without_tls(self):
        with smtplib.SMTP(HOST, self.stack.at.port("submission")) as client:
            client.ehlo()
            self.assertNotIn("auth", client.esmtp_features)

    def test_old_tls_is_refused(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with smtplib.SMTP(HOST, self.stack.at.port("submission")) as client:
            with self.assertRaises((ssl.SSLError, OSError)):
                client.starttls(context=context)


class Inbound(StackCase):
    """Port 25, as from outside."""

    def refusal(self, sender, recipient):
        with self.assertRaises(smtplib.SMTPRecipientsRefused) as caught:
            deliver(self.stack, sender, [recipient], b"Subject: x\r\n\r\nx\r\n", self.new_source())
        return caught.exception.recipients[recipient]

    def test_no_relay(self):
        self.assertEqual(self.refusal("a@example.org", "b@example.org")[0], 554)

    def test_unknown_user(self):
        self.assertEqual(self.refusal("a@example.org", "nobody@example.net")[0], 550)

    def test_no_auth_offered(self):
        with smtp(self.stack, self.new_source()) as client:
            client.ehlo()
            self.assertNotIn("auth", client.esmtp_features)

    def test_alias_delivers_to_all(self):
        first, second = self.new_user(), self.new_user("example.com")
        alias = first.replace("@", "-alias@")
        for destination in (first, second):
            self.stack.postern("alias", "add", alias, destination)
        ident = new_message_id()
        deliver(self.stack, "a@example.org", [alias], message("a@example.org", alias, message_id=ident), self.new_source())
        for user in (first, second):
            wait_for_mail(self.stack, user, ident)

    def test_bare_newline_ends_no_message(self):
        user, source = self.new_user(), self.new_source()
        ident = new_message_id()
        data = (f"Message-ID: {ident}\r\n\r\none\n.\nMAIL FROM:<evil@example.org>\r\nRCPT TO:<{user}>\r\n"
                "DATA\r\nSubject: smuggled\r\n\r\ntwo").encode()
        with smtp(self.stack, source) as client:
            client.ehlo()
            client.mail("a@example.org")
            client.rcpt(user)
            self.assertEqual(client.docmd("DATA")[0], 354)
            client.send(data + b"\r\n.\r\n")
            client.getreply()
        wait_for_mail(self.stack, user, ident)
        with Imap(self.stack, user) as imap:
            imap.select()
            self.assertEqual(len(imap.uids()), 1)


class Folders(StackCase):
    """What a mailbox has from its beginning."""

    def test_special_use(self):
        with Imap(self.stack, self.new_user()) as imap:
            listing = b"\n".join(imap.ok(imap.client.list()))
        for name in (b"\\Drafts", b"\\Sent", b"\\Junk", b"\\Trash"):
            self.assertIn(name, listing)


if __name__ == "__main__":
    unittest.main()
