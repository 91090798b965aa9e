"""The whole way of a mail: SMTP, milter, policy server, LMTP proxy, Dovecot,
index, quota, on a stack with nothing left out."""
import re
import smtplib
import unittest

from tests.frame.case import StackCase
from tests.frame.mail import (
    Imap, deliver, message, new_message_id, parse, smtp, submission, submit, wait_for_mail,
)

AUTHSERV_ID = "mail.example.com"


def results(data):
    """The Authentication-Results of a message, each on one line."""
    return [re.sub(r"\s+", " ", value) for value in parse(data).get_all("Authentication-Results", [])]


class Signing(StackCase):
    """Mail of our users goes out signed and is verified where it comes in."""

    def signed_copy(self, **more):
        """A mail of sales as office got it from submission."""
        user, ident = self.new_user(), new_message_id()
        data = message("sales@example.com", user, message_id=ident, **more)
        submit(self.stack, "sales@example.com", [user], data)
        return user, ident, wait_for_mail(self.stack, user, ident)

    def receive_again(self, user, data, source="127.0.0.60"):
        """Sends DATA as from outside under a new recipient; returns what came."""
        ident = re.search(rb"^Message-ID: *(<.*>)\r?$", data, re.I | re.M)[1].decode()
        deliver(self.stack, "sales@example.com", [user], data, source)
        return wait_for_mail(self.stack, user, ident)

    def test_signed_then_verified(self):
        _, _, signed = self.signed_copy()
        self.assertRegex(str(parse(signed)["DKIM-Signature"]), r"d=example\.com\b")
        got = self.receive_again(self.new_user(), signed)
        ours = [line for line in results(got) if line.startswith(AUTHSERV_ID)]
        self.assertEqual(len(ours), 1)
        self.assertRegex(ours[0], r"\bdkim=pass\b.*header\.d=example\.com")

    def test_one_byte_changed_fails(self):
        _, _, signed = self.signed_copy(text="The price is 100 euros.\n")
        self.assertIn(b"100 euros", signed)
        got = self.receive_again(self.new_user(), signed.replace(b"100 euros", b"900 euros"))
        ours = [line for line in results(got) if line.startswith(AUTHSERV_ID)]
        self.assertEqual(len(ours), 1)
        self.assertRegex(ours[0], r"\bdkim=fail\b")
        self.assertNotIn("dkim=pass", ours[0])

    def test_unsigned_is_none(self):
        user, ident = self.new_user(), new_message_id()
        deliver(self.stack, "a@example.org", [user], message("a@example.org", user, message_id=ident), self.new_source())
        ours = results(wait_for_mail(self.stack, user, ident))
        self.assertEqual(len(ours), 1)
        self.assertIn("dkim=none", ours[0])

    def test_forged_results_are_removed(self):
        user, ident = self.new_user(), new_message_id()
        forged = b"".join(
            b"Authentication-Results: " + name + b"; dkim=pass header.d=example.com; forged=%d\r\n" % number
            for number, name in enumerate((b"mail.example.com", b"MAIL.example.com", b" mail.example.com 1",
                                           b"(x) mail.example.com", b"other.example.org"))
        )
        data = forged + message("a@example.org", user, message_id=ident)
        deliver(self.stack, "a@example.org", [user], data, self.new_source())
        got = results(wait_for_mail(self.stack, user, ident))
        kept = [line for line in got if "forged" in line]
        self.assertEqual(len(kept), 1, got)
        self.assertTrue(kept[0].startswith("other.example.org"))
        self.assertTrue(got[0].startswith(AUTHSERV_ID))

    def test_dead_milter_defers_and_mail_goes_after(self):
        user, source = self.new_user(), self.new_source()
        self.stack.stop("milter-dkim")
        with self.assertRaises(smtplib.SMTPResponseException) as caught:
            deliver(self.stack, "a@example.org", [user], message("a@example.org", user), source)
        self.assertEqual(caught.exception.smtp_code // 100, 4)
        self.stack.start("milter-dkim")
        self.assertEqual(deliver(self.stack, "a@example.org", [user], message("a@example.org", user), source), {})


class Limits(StackCase):
    """100 messages an hour from a stranger's address."""

    def test_hundred_and_first_is_deferred(self):
        user, source = self.new_user(), self.new_source()
        data = message("a@example.org", user)
        with smtp(self.stack, source) as client:
            for number in range(100):
                self.assertEqual(client.sendmail("a@example.org", [user], data), {}, number)
            with self.assertRaises(smtplib.SMTPRecipientsRefused) as caught:
                client.sendmail("a@example.org", [user], data)
        code, text = caught.exception.recipients[user]
        self.assertEqual(code, 450)
        self.assertTrue(text.startswith(b"4.7.1"), text)
        with smtp(self.stack, self.new_source()) as other:
            self.assertEqual(other.sendmail("a@example.org", [user], data), {})

    def test_dead_policy_server_lets_mail_pass(self):
        user = self.new_user()
        self.stack.stop("policyd-ratelimit")
        self.assertEqual(deliver(self.stack, "a@example.org", [user], message("a@example.org", user),
                                 self.new_source()), {})


class Quota(StackCase):
    """A mailbox takes what fits into it."""

    def test_full_mailbox_bounces_and_takes_again_after_expunge(self):
        user = self.new_user(quota_mb=1)
        idents = [new_message_id() for _ in range(4)]
        big = "x" * 70 + "\n"
        mails = [message("sales@example.com", user, text=big * 5600, message_id=ident) for ident in idents]
        with submission(self.stack, "sales@example.com") as client:
            for ident, mail in zip(idents[:2], mails):
                client.sendmail("sales@example.com", [user], mail)
                wait_for_mail(self.stack, user, ident)
            usage = self.wait_until(lambda: int(self.value(
                "SELECT usage_bytes FROM mailbox_usage WHERE email = %s", user) or 0) > 700000 or None)
            self.assertTrue(usage)
            self.assertEqual(self.outcome(client, user, mails[2]), "refused")
            with Imap(self.stack, user) as imap:
                imap.select()
                self.assertEqual(len(imap.uids()), 2)
                imap.expunge(imap.uids()[:1])
            self.wait_until(lambda: int(self.value(
                "SELECT usage_bytes FROM mailbox_usage WHERE email = %s", user)) < 700000)
            client.sendmail("sales@example.com", [user], mails[3])
        wait_for_mail(self.stack, user, idents[3])

    def outcome(self, client, user, mail):
        """Refused at RCPT, or by a bounce with 5.2.2 to the sender."""
        try:
            client.sendmail("sales@example.com", [user], mail)
        except smtplib.SMTPRecipientsRefused as refusal:
            code, text = refusal.recipients[user]
            return "refused" if code == 552 and b"5.2.2" in text else f"{code} {text}"
        ident = parse(mail)["Message-ID"]
        bounce = self.wait_until(lambda: self.bounce_of(ident), what="bounce")
        return "refused" if "5.2.2" in bounce else bounce

    def bounce_of(self, ident):
        for path in self.stack.mail_dir("sales@example.com").glob("new/*"):
            text = path.read_text(errors="replace")
            if ident in text and "multipart/report" in text:
                return text
        return None


class Index(StackCase):
    """Each delivery is a row, found by its words."""

    def test_found_by_subject_and_attachment_name(self):
        user, ident = self.new_user(), new_message_id()
        word = "w" + ident[1:9]
        data = message("a@example.org", user, subject=f"Über {word} Grüße", message_id=ident,
                       attachments=[(f"rechnung-{word}x.pdf", "application/pdf", b"%PDF-1.4 nothing")])
        deliver(self.stack, "a@example.org", [user], data, self.new_source())
        row = self.wait_until(lambda: self.rows(
            "SELECT m.subject, m.attachment_count FROM messages m JOIN virtual_users u ON u.id = m.user_id "
            "WHERE u.email = %s AND m.message_id_header = %s", user, ident.strip("<>")))
        self.assertEqual(row, [(f"Über {word} Grüße", "1")])
        for query in (word, f"{word}x"):
            self.assertIn(word, self.stack.postern("search", user, query))


if __name__ == "__main__":
    unittest.main()
