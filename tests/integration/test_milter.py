"""milter-dkim on the real Postfix: what is signed, what is judged, and what
stays right while keys, the database and the daemon come and go."""
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import unittest
import uuid

from tests.frame import mail
from tests.frame.case import StackCase

SENDER = "sales@example.com"


def header_of(data):
    return data.partition(b"\r\n\r\n")[0]


def fields(data, name):
    """Values of all fields NAME, unfolded, top to bottom."""
    text = re.sub(rb"\r\n[ \t]+", b" ", header_of(data)).decode("utf-8", "replace")
    return [value.strip() for key, _, value in (line.partition(":") for line in text.split("\r\n"))
            if key.strip().lower() == name.lower()]


def from_signature(data):
    """The message as it left: from our signature on."""
    return data[data.index(b"DKIM-Signature:"):]


class MilterCase(StackCase):
    def setUp(self):
        super().setUp()
        self.user = self.new_user()

    def log(self):
        return self.stack.log_file("milter-dkim").read_text(errors="replace")

    def receive(self, data, source=None, sender=SENDER):
        """Sends DATA to port 25 from outside; returns it as it was stored."""
        tag = f"<{uuid.uuid4().hex}@try>"
        mail.deliver(self.stack, sender, [self.user], f"X-Try: {tag}\r\n".encode() + data,
                     source=source or self.new_source())
        return self.find(f'HEADER X-Try "{tag}"')

    def find(self, criteria):
        with mail.Imap(self.stack, self.user) as imap:
            def look():
                imap.select()
                return imap.uids(criteria)
            return imap.fetch(self.wait_until(look, what=criteria)[-1])

    def submit(self, sender=SENDER, **more):
        """A message that SENDER submits, as it was stored."""
        data = mail.message(sender, self.user, **more)
        mail.submit(self.stack, SENDER, [self.user], data, source=self.new_source())
        return mail.wait_for_mail(self.stack, self.user, mail.parse(data)["message-id"])

    def submission(self):
        """An authenticated connection; its source is new because logins from one are limited."""
        return mail.submission(self.stack, SENDER, source=self.new_source())

    def results(self, data):
        """Our Authentication-Results field, which is the topmost one."""
        names = [line.partition(b":")[0].lower() for line in header_of(data).split(b"\r\n")
                 if line[:1] not in (b" ", b"\t")]
        first = names.index(b"authentication-results")
        self.assertEqual(names[first + 1], b"received", "our field is above that of our Postfix")
        return fields(data, "Authentication-Results")[0]


class Signing(MilterCase):
    def test_submission_is_signed_and_verifies(self):
        data = self.submit(text="Some  text\twith blanks \n\n\n")
        signature, = fields(data, "DKIM-Signature")
        self.assertEqual(re.findall(r"(?:^|; )(\w+)=", signature), list("vacdst") + ["h", "bh", "b"])
        self.assertIn("d=example.com", signature)
        judged = self.results(self.receive(from_signature(data)))
        self.assertIn("mail.example.com; dkim=pass (2048-bit key) header.d=example.com", judged)

    def test_opendkim_agrees(self):
        data = from_signature(self.submit())
        record = self.value("SELECT public_key FROM dkim_keys WHERE domain = 'example.com' AND state = 'active'")
        selector = re.search(r"s=([\w-]+)", fields(data, "DKIM-Signature")[0]).group(1)
        with tempfile.TemporaryDirectory() as folder:
            conf = pathlib.Path(folder) / "opendkim.conf"
            keys = pathlib.Path(folder) / "keys"
            keys.write_text(f"{selector}._domainkey.example.com v=DKIM1; k=rsa; p={record}\n")
            conf.write_text(f"TestDNSData {keys}\n")
            done = subprocess.run(["opendkim", "-x", conf, "-v", "-t", "-"], input=data, capture_output=True, check=False)
            text = (done.stdout + done.stderr).decode()
        self.assertIn("verification (s=", text)
        self.assertIn("succeeded", text)

    def test_sendmail_is_signed(self):
        token = uuid.uuid4().hex
        text = f"From: {SENDER}\nTo: {self.user}\nSubject: {token}\n\nby sendmail\n"
        subprocess.run(
            ["sendmail", "-C", str(self.stack.at.path("/etc/postfix")), "-f", SENDER, self.user],
            input=text.encode(), check=True, env=os.environ | {"MAIL_CONFIG": str(self.stack.at.path("/etc/postfix"))},
        )
        data = self.find(f'SUBJECT "{token}"')
        self.assertEqual(len(fields(data, "DKIM-Signature")), 1)
        self.assertEqual(fields(data, "Authentication-Results"), [])

    def test_bounce_is_signed(self):
        """The notice for a message of ours that cannot be delivered."""
        alias = f"alias-{uuid.uuid4().hex[:8]}@example.net"
        self.stack.postern("alias", "add", alias, f"missing-{alias}")
        mail.submit(self.stack, self.user, [alias], mail.message(self.user, alias))
        notice = self.find('SUBJECT "Undelivered Mail Returned to Sender"')
        author = fields(notice, "From")[0]
        self.assertIn("MAILER-DAEMON", author)
        signatures = fields(notice, "DKIM-Signature")
        self.assertEqual(len(signatures), 1, author)

    def test_both_algorithms(self):
        domain = f"both-{uuid.uuid4().hex[:8]}.example.com"
        self.stack.add_domain(domain)
        key = json.loads(self.stack.postern("--json", "dkim", "keygen", domain, "--algorithm", "ed25519", "--activate"))
        self.stack.dns_add_text(key["record_name"], key["record_value"])

        def signed():
            data = self.local_mail(f"a@{domain}")
            return len(fields(data, "DKIM-Signature")) == 2 and data

        data = self.wait_until(signed, what="both keys in use")
        judged = self.results(self.receive(from_signature(data)))
        self.assertEqual(judged.count("dkim=pass"), 2)
        self.assertIn("header.a=ed25519-sha256", judged)

    def local_mail(self, author):
        """Mail of AUTHOR that enters through sendmail, as it was stored."""
        data = mail.message(author, self.user)
        subprocess.run(["sendmail", "-C", str(self.stack.at.path("/etc/postfix")), "-f", author, self.user],
                       input=data.replace(b"\r\n", b"\n"), check=True,
                       env=os.environ | {"MAIL_CONFIG": str(self.stack.at.path("/etc/postfix"))})
        return mail.wait_for_mail(self.stack, self.user, mail.parse(data)["message-id"])

    def test_new_key_is_used_within_five_seconds(self):
        domain = f"new-{uuid.uuid4().hex[:8]}.example"
        self.stack.postern("domain", "add", domain)
        self.assertEqual(fields(self.local_mail(f"a@{domain}"), "DKIM-Signature"), [])
        self.stack.postern("dkim", "keygen", domain, "--activate")
        self.wait_until(lambda: fields(self.local_mail(f"a@sub.{domain}"), "DKIM-Signature"), 5, "a signature")

    def test_unusable_key_defers(self):
        domain = f"broken-{uuid.uuid4().hex[:8]}.example"
        self.stack.mariadb("INSERT INTO dkim_keys (domain, selector, algorithm, private_key, public_key, key_bits, state) "
                           f"VALUES ('{domain}', 's', 'rsa-sha256', 'no key', '', 2048, 'active')")
        data = mail.message(f"a@{domain}", self.user)

        def refused():
            with mail.smtp(self.stack, source="127.0.0.1") as client:
                client.ehlo_or_helo_if_needed()
                client.mail(f"a@{domain}")
                client.rcpt(self.user)
                return client.data(data)[0] == 451

        self.wait_until(refused, what="451")
        self.assertRegex(self.log(), f"key_unusable level=error .*domain={domain}")
        self.stack.mariadb(f"DELETE FROM dkim_keys WHERE domain = '{domain}'")

    def test_signs_after_a_restart_without_the_database(self):
        """Away for the milter only: Postfix needs it for its mailboxes."""
        seen = self.log().count("keys_from_disk")
        with self.configured("milter-dkim", database_socket="/nonexistent/mysqld.sock"):
            self.wait_until(lambda: self.log().count("keys_from_disk") > seen, what="keys from disk")
            self.wait_until(lambda: "keys_unreachable" in self.log(), what="a log line")
            self.assertEqual(len(fields(self.submit(), "DKIM-Signature")), 1)

    def test_without_any_keys_mail_is_deferred(self):
        saved = self.stack.at.path("/var/lib/postern/milter-dkim/dkim-keys")
        with self.configured("milter-dkim", database_socket="/nonexistent/mysqld.sock"):
            self.stack.stop("milter-dkim")
            saved.unlink()
            self.stack.start("milter-dkim")
            with self.submission() as client:
                client.ehlo_or_helo_if_needed()
                client.mail(SENDER)
                client.rcpt(self.user)
                self.assertEqual(client.data(mail.message(SENDER, self.user))[0], 451)
        self.assertEqual(len(fields(self.submit(), "DKIM-Signature")), 1)


class OpendkimTables(MilterCase):
    def test_tables_are_read_unchanged(self):
        folder = self.stack.at.path("/etc/postern")
        private = self.value("SELECT private_key FROM dkim_keys WHERE domain = 'example.com' AND state = 'active'")
        (folder / "t.private").write_text(private)
        (folder / "KeyTable").write_text(f"# keys\nmain %:t1:{folder}/t.private\nlost\n")
        (folder / "SigningTable").write_text("# who signs with what\n*@tables.example main\n*@lost.example lost\n")
        (folder / "TrustedHosts").write_text("127.0.0.1\n::1\nlocalhost\n*.example.com\n10.0.0.0/255.0.0.0\n")
        for name in ("t.private", "KeyTable", "SigningTable", "TrustedHosts"):
            os.chmod(folder / name, 0o644)
        with self.configured("milter-dkim", internal_hosts=folder / "TrustedHosts", key_table=folder / "KeyTable",
                             signing_table=f"refile:{folder}/SigningTable"):
            data = mail.message("a@tables.example", self.user)
            with mail.smtp(self.stack, source="127.0.0.1") as client:
                client.sendmail("a@tables.example", [self.user], data)
            signed = mail.wait_for_mail(self.stack, self.user, mail.parse(data)["message-id"])
            self.assertIn("d=tables.example; s=t1", fields(signed, "DKIM-Signature")[0])
            with mail.smtp(self.stack, source="127.0.0.1") as client:
                client.ehlo_or_helo_if_needed()
                client.mail("a@lost.example")
                client.rcpt(self.user)
                self.assertEqual(client.data(mail.message("a@lost.example", self.user))[0], 451)


class Judging(MilterCase):
    def test_unsigned(self):
        judged = self.results(self.receive(mail.message("a@unsigned.example", self.user), sender="a@unsigned.example"))
        self.assertIn("dkim=none", judged)
        self.assertIn("spf=none smtp.mailfrom=a@unsigned.example", judged)

    def test_one_byte_changed(self):
        data = from_signature(self.submit(text="hello\n"))
        self.assertIn("dkim=fail", self.results(self.receive(data.replace(b"hello", b"hallo"))))
        self.assertIn("dkim=fail", self.results(self.receive(data.replace(b"a message", b"a Message"))))

    def test_forged_results_are_removed(self):
        forged = [
            b"Authentication-Results: mail.example.com; dkim=pass header.d=bank.example",
            b"authentication-results: MAIL.EXAMPLE.COM 1; spf=pass",
            b"Authentication-Results: (x) \"mail.example.com\" (y); dmarc=pass",
            b"Authentication-Results:\r\n mail.example.com; dkim=pass",
            b"Authentication-Results : mail.example.com; dkim=pass",
            b"Authentication-Results: v=1; mail.example.com; dkim=pass",
            b"Authentication-Results: (an open comment mail.example.com; dkim=pass",
            b"Authentication-Results: =?utf-8?q?mail=2Eexample?=\r\n =?utf-8?q?=2Ecom?=; dkim=pass",
        ]
        kept = b"Authentication-Results: other.example; dkim=pass"
        data = b"\r\n".join([*forged[:2], kept, *forged[2:]]) + b"\r\n" + mail.message("a@b.example", self.user)
        stored = self.receive(data)
        self.assertIn("dkim=none", self.results(stored))
        values = fields(stored, "Authentication-Results")
        self.assertEqual(values[1:], ["other.example; dkim=pass"])

    def test_dns_failure_is_temporary(self):
        data = from_signature(self.submit())
        self.stack.stop("dns")
        try:
            stored = self.receive(data)
        finally:
            self.stack.start("dns")
        self.assertIn("dkim=temperror", self.results(stored))

    def test_too_large_header_is_refused(self):
        data = b"X-Filler: y\r\n" * 10001 + mail.message("a@b.example", self.user)
        with mail.smtp(self.stack, self.new_source()) as client:
            client.ehlo_or_helo_if_needed()
            client.mail("a@b.example")
            client.rcpt(self.user)
            code, text = client.data(data)
        self.assertEqual(code, 552)
        self.assertIn(b"header of the message is too large", text)

    def test_dmarc_reject(self):
        domain = f"strict-{uuid.uuid4().hex[:8]}.example"
        self.stack.dns_add_text(f"_dmarc.{domain}", "v=DMARC1; p=reject")
        with self.configured("milter-dkim", dmarc_enforce="reject"):
            with mail.smtp(self.stack, self.new_source()) as client:
                client.ehlo_or_helo_if_needed()
                client.mail("x@elsewhere.example")
                client.rcpt(self.user)
                code, text = client.data(mail.message(f"ceo@{domain}", self.user))
        self.assertEqual(code, 550)
        self.assertIn(b"5.7.26", text)
        self.assertIn(domain.encode(), text)


class Operation(MilterCase):
    def test_reload_under_load_drops_nothing(self):
        with mail.smtp(self.stack, self.new_source()) as client:
            for number in range(30):
                if number % 3 == 0:
                    self.stack.kill("milter-dkim", signal.SIGHUP)
                client.sendmail("a@b.example", [self.user], mail.message("a@b.example", self.user))
        with mail.Imap(self.stack, self.user) as imap:
            def arrived():
                imap.select()
                return len(imap.uids()) == 30
            self.wait_until(arrived, what="30 messages")
            for uid in imap.uids():
                self.assertIn("dkim=none", self.results(imap.fetch(uid)))

    def test_bad_configuration_on_reload_changes_nothing(self):
        path = self.stack.at.path("/etc/postern/milter-dkim.conf")
        before = path.read_text()
        try:
            seen = self.log().count("config_rejected")
            path.write_text(before + "role = both\n")
            pid = self.stack.kill("milter-dkim", signal.SIGHUP)
            self.wait_until(lambda: self.log().count("config_rejected") > seen, what="config_rejected")
        finally:
            path.write_text(before)
        self.assertEqual(self.stack.pid("milter-dkim"), pid)
        self.assertEqual(len(fields(self.submit(), "DKIM-Signature")), 1)

    def test_killed_milter_defers_and_signs_once(self):
        data = mail.message(SENDER, self.user)
        with self.submission() as client:
            client.ehlo_or_helo_if_needed()
            client.mail(SENDER)
            client.rcpt(self.user)
            self.stack.kill("milter-dkim")
            self.assertEqual(client.data(data)[0], 451)
        self.wait_until(lambda: self.stack.pid("milter-dkim"), what="milter-dkim again")
        self.assertEqual(len(fields(self.submit(), "DKIM-Signature")), 1)

    def test_stop_finishes_the_message_in_hand(self):
        data = mail.message(SENDER, self.user)
        with self.submission() as client:
            client.ehlo_or_helo_if_needed()
            client.mail(SENDER)
            client.rcpt(self.user)
            pid = self.stack.kill("milter-dkim", signal.SIGTERM)
            self.assertEqual(client.data(data)[0], 250)
        self.wait_until(lambda: self.stack.pid("milter-dkim") not in (None, pid), what="the next milter-dkim")
        stored = mail.wait_for_mail(self.stack, self.user, mail.parse(data)["message-id"])
        self.assertEqual(len(fields(stored, "DKIM-Signature")), 1)


if __name__ == "__main__":
    unittest.main()
