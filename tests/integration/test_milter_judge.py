"""What milter-dkim does with judged mail on the real Postfix: whom it believes,
what it refuses, and what it adds."""
import base64
import json
import pathlib
import re
import subprocess
import tempfile
import unittest
import uuid

from tests.frame import mail
from tests.integration.test_milter import MilterCase, fields, header_of

# Of another implementation: what it makes of a chain of ours.
ARC_VERIFY = """
import json, sys, dkim
names = json.loads(sys.argv[1])
def txt(name, timeout=5):
    return names.get((name.decode() if isinstance(name, bytes) else name).rstrip('.').lower(), '').encode()
cv, results, reason = dkim.arc_verify(sys.stdin.buffer.read(), dnsfunc=txt)
print(cv.decode() if cv else 'none', reason)
"""


def names_of(data):
    return [line.partition(b":")[0].strip().decode() for line in header_of(data).split(b"\r\n")
            if line[:1] not in (b" ", b"\t")]


class JudgeCase(MilterCase):
    def say(self, data, source=None, sender="x@elsewhere.example"):
        """The reply to DATA from outside."""
        with mail.smtp(self.stack, source or self.new_source()) as client:
            client.ehlo_or_helo_if_needed()
            client.mail(sender)
            client.rcpt(self.user)
            code, text = client.data(data)
            return code, text.decode()

    def strict_domain(self):
        domain = f"strict-{uuid.uuid4().hex[:8]}.example"
        self.stack.dns_add_text(f"_dmarc.{domain}", "v=DMARC1; p=reject")
        return domain

    def new_key(self, folder, name, tags):
        """The path of a private key whose record has TAGS and p=."""
        key = pathlib.Path(folder) / "key"
        subprocess.run(["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key],
                       check=True, capture_output=True)
        public = subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-outform", "DER"], check=True,
                                capture_output=True).stdout
        self.stack.dns_add_text(name, f"{tags} p={base64.b64encode(public).decode()}")
        return key

    def last_log(self, needle):
        return [line for line in self.log().splitlines() if needle in line][-1]


class Overrides(JudgeCase):
    def sealed(self, domain, author, results):
        """A message of AUTHOR that a list of DOMAIN has sealed."""
        with tempfile.TemporaryDirectory() as folder:
            key = self.new_key(folder, f"arc._domainkey.{domain}", "v=DKIM1;")
            data = (f"Authentication-Results: lists.{domain}; {results}\r\n").encode() + mail.message(author, self.user)
            done = subprocess.run(
                [self.stack.at.path("/bin/postern"), "arc", "seal", "--domain", domain, "--selector", "arc", "--key", key,
                 "--authserv-id", f"lists.{domain}", "--resolver", self.resolver()], input=data, capture_output=True, check=True)
        return done.stdout

    def resolver(self):
        return f"127.0.0.1:{self.stack.at.port('dns')}"

    def test_trusted_sealer(self):
        domain, lists = self.strict_domain(), f"list-{uuid.uuid4().hex[:8]}.example"
        data = self.sealed(lists, f"ceo@{domain}",
                           f"dmarc=pass header.from={domain}; arc=none smtp.remote-ip=192.0.2.77")
        with self.configured("milter-dkim", dmarc_enforce="reject", arc_trusted_sealers=f"other.example, {lists}"):
            stored = self.receive(data, sender="x@elsewhere.example")
            judged = self.results(stored)
            self.assertIn("arc=pass (i=1)", judged)
            self.assertIn("dmarc=fail (p=reject dis=none)", judged)
            comment = f"arc=pass as[1].d={lists} as[1].s=arc remote-ip[1]=192.0.2.77"
            self.assertIn(f"({comment})", judged)
            self.assertIn("policy.dmarc=reject policy.override=local_policy", judged)
            line = self.last_log("message_judged")
            self.assertIn("override=local_policy", line)
            self.assertIn(comment, line)
            self.assertEqual(self.metric('postern_milter_overridden_total{by="arc"}'), 1)
            # Changed behind the seal, it is vouched for by nobody.
            self.assertEqual(self.say(data.replace(b"Some text", b"Sums text"))[0], 550)
            self.assertEqual(self.say(data.replace(b"From:", b"From: a@b.example\r\nFrom:"))[0], 550)
        with self.configured("milter-dkim", dmarc_enforce="reject", arc_trusted_sealers="other.example"):
            self.assertEqual(self.say(data)[0], 550)
            # What was refused was judged all the same.
            self.assertEqual(self.metric('postern_milter_dmarc_total{result="fail"}'), 1)
            self.assertEqual(self.metric('postern_milter_arc_total{result="pass"}'), 1)

    def test_trusted_forwarder(self):
        data = mail.message(f"ceo@{self.strict_domain()}", self.user)
        source = self.new_source()
        with self.configured("milter-dkim", dmarc_enforce="reject", trusted_forwarders=source):
            self.assertEqual(self.say(data)[0], 550)
            judged = self.results(self.receive(data, source=source, sender="x@elsewhere.example"))
        self.assertIn(f"(client {source})", judged)
        self.assertIn("policy.override=trusted_forwarder", judged)

    def test_bad_options_are_told(self):
        for name, value in (("arc_trusted_sealers", "192.0.2.1"), ("arc_trusted_sealers", "a@b"),
                            ("trusted_forwarders", "a b@c"), ("arc_seal", "yes"), ("arc_domain", "nobody"),
                            ("arc_selector", "a b"), ("arc_key_file", "/x")):
            done = subprocess.run([self.stack.at.path("/bin/milter-dkim"), "-c",
                                   self.stack.at.path("/etc/postern/milter-dkim.conf"), "-o", f"{name}={value}", "-t"],
                                  capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 78)
            self.assertIn(name, done.stderr)


class TestMode(JudgeCase):
    def test_key_in_test_mode(self):
        """t=y: whether the signature counts for DMARC is for dkim_testing_keys to say."""
        domain = self.strict_domain()
        with tempfile.TemporaryDirectory() as folder:
            key = self.new_key(folder, f"try._domainkey.{domain}", "v=DKIM1; t=y;")
            data = subprocess.run(
                [self.stack.at.path("/bin/postern"), "dkim", "sign", "--domain", domain, "--selector", "try", "--key", key],
                input=mail.message(f"ceo@{domain}", self.user), capture_output=True, check=True).stdout
        with self.configured("milter-dkim", dmarc_enforce="reject"):
            judged = self.results(self.receive(data, sender="x@elsewhere.example"))
            self.assertIn('reason="the key is in test mode"', judged)
            self.assertIn("dmarc=pass (p=reject dis=none)", judged)
        with self.configured("milter-dkim", dmarc_enforce="reject", dkim_testing_keys="ignore"):
            self.assertEqual(self.say(data)[0], 550)


class From(JudgeCase):
    """Fields that Postfix passes on, whatever is in them."""
    BAD = (
        b"",
        b"From:\r\n",
        b"From: a@{0}\r\nFrom: x@elsewhere.example\r\n",
        b"From: x@elsewhere.example\r\nFrom : a@{0}\r\n",
        b"from: x@elsewhere.example\r\nFROM:\ta@{0}\r\n",
        b"From: x@elsewhere.example, a@{0}\r\n",
        b"From: x@elsewhere.example,\r\n\t<a@{0}>\r\n",
        b"From: a@{0}>\r\n",
        b"From: <@{0}:x@elsewhere.example>\r\n",
        b"From: Team: a@{0}, x@elsewhere.example;\r\n",
        b"From: \"a@{0}\"@elsewhere.example\r\n",
        b"From: x@elsewhere.example(.{0}\r\n",
        b"From: =?utf-8?q?=3Ca=40{0}=3E=2C?= <x@elsewhere.example>\r\n",
        b"From: <x@elsewhere.example>\\,<a@{0}>\r\n",
        b"From: a@{0}\x00@elsewhere.example\r\n",
        b"From: a@{0}\x01.elsewhere.example\r\n",
    )

    def test_refused(self):
        good = b"To: b@example.net\r\nSubject: x\r\n\r\nhello\r\n"
        with self.configured("milter-dkim", reject_bad_from="yes"):
            for field in self.BAD:
                with self.subTest(field=field):
                    code, text = self.say(field.replace(b"{0}", b"bank.example") + good)
                    self.assertEqual(code, 550)
                    self.assertRegex(text, "5.7.1 .*From field")
            for field in (b"From: a@b.example\r\n", b"From: \"Doe, J\" <a@b.example>\r\n", b"From: (x) a (y) @b.example\r\n",
                          b"From: \"ceo@bank.example\" <a@b.example>\r\n", b"From: V <v+x=y.example@b.example>\r\n"):
                with self.subTest(field=field):
                    self.assertEqual(self.say(field + good)[0], 250)
            self.assertEqual(len(fields(self.submit(), "DKIM-Signature")), 1)

    def test_no_way_around_the_policy(self):
        domain = self.strict_domain().encode()
        rest = b"To: b@example.net\r\nSubject: x\r\n\r\nhello\r\n"
        with self.configured("milter-dkim", dmarc_enforce="reject"):
            for field in self.BAD[2:]:
                with self.subTest(field=field):
                    self.assertEqual(self.say(field.replace(b"{0}", domain) + rest)[0], 550)
            many = b", ".join(b"a@d%d.example" % i for i in range(20))
            self.assertEqual(self.say(b"From: " + many + b", a@" + domain + b"\r\n" + rest)[0], 550)

    def test_one_megabyte(self):
        """More than Postfix takes for a header: an answer comes, whatever it is."""
        data = b"From: " + b"a@b.example,\r\n " * 70000 + b"a@b.example\r\nTo: b@example.net\r\n\r\nhello\r\n"
        self.assertIn(self.say(data)[0], (250, 550, 552))
        self.assertIn("dmarc=", self.results(self.receive(mail.message("a@b.example", self.user))))


class ReceivedSpf(JudgeCase):
    def test_added_and_forged_ones_removed(self):
        forged = (b"Received-SPF: pass (mail.example.com: domain of x) receiver=mail.example.com;\r\n"
                  b"Received-SPF: pass receiver=other.example; client-ip=192.0.2.1\r\n")
        domain = f"spf-{uuid.uuid4().hex[:8]}.example"
        source = self.new_source()
        self.stack.dns_add_text(domain, f"v=spf1 ip4:{source} -all")
        data = forged + mail.message(f"a@{domain}", self.user)
        with self.configured("milter-dkim", received_spf="yes"):
            stored = self.receive(data, source=source, sender=f"a@{domain}")
        ours, other = fields(stored, "Received-SPF")
        self.assertEqual(ours, f"pass (mail.example.com: domain of a@{domain} designates the client as permitted sender) "
                               f"receiver=mail.example.com; identity=mailfrom; client-ip={source}; "
                               f"envelope-from=\"a@{domain}\"; helo=client.example.org; mechanism=\"ip4:{source}\";")
        self.assertTrue(other.startswith("pass receiver=other.example"))
        names = names_of(stored)
        at = names.index("Authentication-Results")
        self.assertEqual(names[at:at + 3], ["Authentication-Results", "Received-SPF", "Received"])
        stored = self.receive(data, source=source, sender=f"a@{domain}")
        self.assertEqual(len(fields(stored, "Received-SPF")), 1)


class Sealing(JudgeCase):
    TOP = ["ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results", "Authentication-Results", "Received"]

    def key_record(self):
        name, public = self.rows("SELECT selector, public_key FROM dkim_keys WHERE domain = 'example.com' "
                                 "AND state = 'active'")[0]
        return {f"{name}._domainkey.example.com": f"v=DKIM1; k=rsa; p={public}"}

    def from_seal(self, stored):
        return stored[stored.index(b"ARC-Seal:"):]

    def check(self, data):
        done = subprocess.run(
            [self.stack.at.path("/bin/postern"), "auth", "check", "--ip", "192.0.2.1", "--helo", "x", "--mail-from", "",
             "--resolver", f"127.0.0.1:{self.stack.at.port('dns')}"], input=data, capture_output=True, check=True)
        return json.loads(done.stdout)

    def peer(self, data):
        done = subprocess.run(["/usr/bin/python3", "-c", ARC_VERIFY, json.dumps(self.key_record())],
                              input=data, capture_output=True, check=True)
        return done.stdout.decode()

    def test_sealed_and_verified_by_others(self):
        with self.configured("milter-dkim", arc_seal="yes", arc_domain="example.com"):
            first = self.receive(mail.message("a@sealed.example", self.user), sender="a@sealed.example")
            names = names_of(first)
            at = names.index("ARC-Seal")
            self.assertEqual(names[at:at + 5], self.TOP)
            self.assertIn("i=1; a=rsa-sha256;", fields(first, "ARC-Seal")[0])
            self.assertIn("i=1; mail.example.com; dkim=none", fields(first, "ARC-Authentication-Results")[0])
            second = self.receive(self.from_seal(first), sender="a@sealed.example")
            self.assertIn("arc=pass (i=1)", fields(second, "Authentication-Results")[0])
            self.assertIn("header.oldest-pass=0", fields(second, "Authentication-Results")[0])
            self.assertIn("cv=pass", fields(second, "ARC-Seal")[0])
            broken = self.receive(self.from_seal(first).replace(b"Some text", b"Sums text"), sender="a@sealed.example")
            self.assertIn("i=2; a=rsa-sha256;", fields(broken, "ARC-Seal")[0])
            self.assertIn("cv=fail", fields(broken, "ARC-Seal")[0])
            ended = self.receive(self.from_seal(broken), sender="a@sealed.example")
            self.assertEqual(len(fields(ended, "ARC-Seal")), 2)
            self.assertEqual(self.metric('postern_milter_arc_seals_total{result="sealed"}'), 3)
            self.assertEqual(self.metric('postern_milter_arc_seals_total{result="left"}'), 1)
        for stored, count in ((first, 1), (second, 2)):
            verdict = self.check(self.from_seal(stored))
            self.assertEqual((verdict["arc"]["result"], verdict["arc"]["instance"]), ("pass", count))
            self.assertTrue(self.peer(self.from_seal(stored)).startswith("pass"), self.peer(self.from_seal(stored)))
        self.assertEqual(self.check(self.from_seal(broken))["arc"]["result"], "fail")
        self.assertFalse(self.peer(self.from_seal(broken)).startswith("pass"))

    def test_our_own_mail_is_not_sealed(self):
        with self.configured("milter-dkim", arc_seal="yes", arc_domain="example.com"):
            self.assertEqual(fields(self.submit(), "ARC-Seal"), [])

    def test_broken_key_lets_mail_pass(self):
        with self.configured("milter-dkim", arc_seal="yes", arc_domain="example.com", arc_selector="s",
                             arc_key_file="/nonexistent/arc.key"):
            stored = self.receive(mail.message("a@sealed.example", self.user), sender="a@sealed.example")
            self.assertEqual(fields(stored, "ARC-Seal"), [])
            self.assertIn("dkim=none", self.results(stored))
            self.assertRegex(self.last_log("arc_unsealed"), "level=error .*reason=")
            self.assertEqual(self.metric('postern_milter_arc_seals_total{result="failed"}'), 1)


class Results(JudgeCase):
    def test_the_tool_writes_the_same_field(self):
        domain = self.strict_domain()
        source = self.new_source()
        stored = self.receive(mail.message(f"a@{domain}", self.user), source=source, sender="b@elsewhere.example")
        judged = self.results(stored)
        message = stored[re.search(rb"^(X-Try|From): ", stored, re.M).start():]
        done = subprocess.run(
            [self.stack.at.path("/bin/postern"), "auth", "check", "--ip", source, "--helo", "client.example.org",
             "--mail-from", "b@elsewhere.example", "--authserv-id", "mail.example.com",
             "--resolver", f"127.0.0.1:{self.stack.at.port('dns')}"], input=message, capture_output=True, check=True)
        # The tool enforces nothing, so it tells what the domain wishes.
        self.assertEqual(json.loads(done.stdout)["authentication_results"].replace("dis=reject", "dis=none"), judged)
        self.assertIn(f"dmarc=fail (p=reject dis=none) reason=\"no authenticated identifier\" header.from={domain} "
                      "policy.dmarc=reject polrec.p=reject", judged)

    def test_submitted_mail_cannot_claim_our_results(self):
        data = (b"Authentication-Results: mail.example.com; dkim=pass header.d=bank.example\r\n"
                b"Received-SPF: pass receiver=mail.example.com\r\nX-Postern-Quarantine: no\r\n"
                + mail.message("sales@example.com", self.user))
        mail.submit(self.stack, "sales@example.com", [self.user], data)
        stored = mail.wait_for_mail(self.stack, self.user, mail.parse(data)["message-id"])
        for name in ("Authentication-Results", "Received-SPF", "X-Postern-Quarantine"):
            self.assertEqual(fields(stored, name), [])


if __name__ == "__main__":
    unittest.main()
