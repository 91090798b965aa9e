"""DNS is dead, slow, broken or huge: a temporary error, never a refusal, and no
message waits longer than dns_timeout in total."""
import base64
import hashlib
import time

from tests.dns.dnsd import Server
from tests.frame import mail
from tests.frame.milter import MilterClient
from tests.integration.test_milter import MilterCase, fields

SIGNATURES = 20
DNS_TIMEOUT_S = 3
# Once dns_timeout, and what a busy machine adds to it; twice would be a fault.
ONE_TIMEOUT_S = DNS_TIMEOUT_S * 1.75
# Where the answers come, however slowly.
PATIENCE_S = 20
BODY = b"text\r\n"
BODY_HASH = base64.b64encode(hashlib.sha256(BODY).digest())
AUTHOR = "author.example"
SENDER_DOMAIN = "sender.example"


def signature(domain):
    """A signature whose body hash fits, so that its key is asked for."""
    return (f"v=1; a=rsa-sha256; d={domain}; s=s; h=From; bh={BODY_HASH.decode()}; "
            f"b={base64.b64encode(b'x' * 256).decode()}")


def header(*signers):
    """A message that asks as many questions as one can."""
    fields_ = [("DKIM-Signature", signature(domain)) for domain in signers]
    return fields_ + [("From", f"a@{AUTHOR}"), ("Message-ID", mail.new_message_id())]


def as_bytes(fields_):
    return b"".join(f"{name}: {value}\r\n".encode() for name, value in fields_) + b"\r\n" + BODY


class DnsCase(MilterCase):
    signers = [f"d{i}.signer.example" for i in range(SIGNATURES)]

    def judge(self, zone, fields_, sender=f"a@{SENDER_DOMAIN}"):
        """On the milter's socket: (our field, verdict, seconds at the end, server)."""
        with Server(zone) as server, \
                self.configured("milter-dkim", resolver=server.address, dns_timeout=f"{DNS_TIMEOUT_S}s",
                                dmarc_enforce="reject"), MilterClient(self.stack) as client:
            client.begin(f"<{sender}>".encode())
            client.send(*client.fields((n.encode(), b" " + v.encode()) for n, v in fields_), client.body(BODY))
            began = time.monotonic()
            edits, verdict = client.end()
            seconds = time.monotonic() - began
            self.assertEqual(verdict, (b"c", b""))
            text, = (data for command, data in edits if command == b"i")
            return text[4:].decode(), seconds, server

    def over_smtp(self, zone, fields_, timeout_s=DNS_TIMEOUT_S):
        """Through Postfix; the message must be accepted under the strictest setting."""
        with Server(zone) as server, \
                self.configured("milter-dkim", resolver=server.address, dns_timeout=f"{timeout_s}s",
                                dmarc_enforce="reject"):
            return self.results(self.receive(as_bytes(fields_), sender=f"a@{SENDER_DOMAIN}"))


def slow(ms, zone):
    return {name: [["SLOW", ms], *rows] for name, rows in zone.items()}


class DnsFaults(DnsCase):
    def test_dead_resolver_costs_one_timeout(self):
        zone = {"example": [["TIMEOUT"]], f"_dmarc.{AUTHOR}": [["TIMEOUT"]], SENDER_DOMAIN: [["TIMEOUT"]]}
        zone |= {f"s._domainkey.{domain}": [["TIMEOUT"]] for domain in self.signers}
        text, seconds, _ = self.judge(zone, header(*self.signers))
        self.assertEqual(text.count("dkim=temperror"), SIGNATURES)
        self.assertIn("spf=temperror", text)
        self.assertIn("dmarc=temperror", text)
        self.assertLess(seconds, ONE_TIMEOUT_S)

    def test_slow_chain_costs_one_timeout(self):
        """Each answer comes, but each asks for another."""
        zone = {SENDER_DOMAIN: [["TXT", "v=spf1 include:0.spf.example -all"]]}
        zone |= {f"{i}.spf.example": [["TXT", f"v=spf1 include:{i + 1}.spf.example -all"]] for i in range(9)}
        zone |= {f"_dmarc.{AUTHOR}": [["TXT", "v=DMARC1; p=reject"]]}
        zone |= {f"s._domainkey.{domain}": [["TXT", "v=DKIM1; p="]] for domain in self.signers}
        text, seconds, server = self.judge(slow(450, zone), header(*self.signers))
        self.assertIn("spf=temperror", text)
        self.assertNotIn("spf=fail", text)
        self.assertGreater(len([q for q in server.queries if q[0].endswith("spf.example")]), 2)
        self.assertLess(seconds, ONE_TIMEOUT_S)

    def test_policy_with_dead_keys_is_no_refusal(self):
        """p=reject, and whether the signature would pass cannot be known."""
        zone = {f"_dmarc.{AUTHOR}": [["TXT", "v=DMARC1; p=reject"]], f"s._domainkey.{AUTHOR}": [["TIMEOUT"]],
                SENDER_DOMAIN: [["TXT", "v=spf1 -all"]]}
        text, _, _ = self.judge(zone, header(AUTHOR))
        self.assertIn("dkim=temperror", text)
        self.assertIn("dmarc=temperror", text)

    def test_servfail_and_refused(self):
        for word in ("SERVFAIL", "REFUSED", "GARBAGE"):
            with self.subTest(word):
                zone = {"example": [[word]], f"_dmarc.{AUTHOR}": [[word]], SENDER_DOMAIN: [[word]],
                        f"s._domainkey.{AUTHOR}": [[word]]}
                text = self.over_smtp(zone, header(AUTHOR))
                for method in ("dkim", "spf", "dmarc"):
                    self.assertIn(f"{method}=temperror", text)

    def test_huge_txt(self):
        """64 KB, by TCP, wherever a record is wanted."""
        junk = [["TXT", "x" * 1000] for _ in range(62)]
        one = [["TXT", "v=DKIM1; p=" + "A" * 60000]]
        zone = {f"_dmarc.{AUTHOR}": junk + [["TXT", "v=DMARC1; p=none"]], SENDER_DOMAIN: junk,
                f"s._domainkey.{AUTHOR}": one}
        text = self.over_smtp(zone, header(AUTHOR), PATIENCE_S)
        self.assertRegex(text, "dkim=(permerror|neutral|fail)")
        self.assertIn("spf=none", text)
        self.assertIn("dmarc=fail", text)

    def test_too_many_records_are_temporary(self):
        """More than a message may be made to read: no answer is no refusal."""
        junk = [["TXT", str(i)] for i in range(300)]
        zone = {f"_dmarc.{AUTHOR}": junk, SENDER_DOMAIN: junk, f"s._domainkey.{AUTHOR}": junk}
        text = self.over_smtp(zone, header(AUTHOR))
        for method in ("dkim", "spf", "dmarc"):
            self.assertIn(f"{method}=temperror", text)

    def test_resolver_that_comes_back_is_used(self):
        """A failure is not remembered, and needs no restart."""
        zone = {SENDER_DOMAIN: [["TIMEOUT"]]}
        with Server(zone) as server, \
                self.configured("milter-dkim", resolver=server.address, dns_timeout="300ms"):
            data = as_bytes(header())
            self.assertIn("spf=temperror", self.results(self.receive(data, sender=f"a@{SENDER_DOMAIN}")))
            server.zone.rows[SENDER_DOMAIN] = [["TXT", "v=spf1 +all"]]
            self.wait_until(lambda: "spf=pass" in self.results(
                self.receive(as_bytes(header()), sender=f"a@{SENDER_DOMAIN}")), what="spf=pass")


class DnsMetrics(DnsCase):
    def test_failures_are_counted(self):
        with self.configured("milter-dkim", resolver="127.0.0.1:9"):
            stored = self.receive(as_bytes(header(AUTHOR)), sender=f"a@{SENDER_DOMAIN}")
            self.assertEqual(len(fields(stored, "Authentication-Results")), 1)
            self.assertGreater(self.metric("postern_milter_dns_failures_total"), 0)
