"""What other programs of this field got wrong, by the number of its report.

Each complaint and advisory that we know of has a test here whose name carries its
id, over the whole milter or the tools that share its core.  The same classes
closer to the code:

    id                                 also in
    CVE-2022-48521 (OpenDKIM)          unit/test_edits, fuzz/fuzz_session
    CVE-2020-35766 (OpenDKIM)          unit/tmpdir.h
    CVE-2019-16378, CVE-2021-34555     unit/test_author, fuzz/fuzz_author
    CVE-2019-20790 (OpenDMARC)         unit/test_inbound, unit/test_spf
    CVE-2020-12272 (OpenDMARC)         unit/test_author, unit/test_addr, unit/test_dmarc
    CVE-2020-12460 (OpenDMARC)         unit/test_reports_feedback, fuzz/fuzz_reports_feedback
    CVE-2021-20314 (libspf2)           unit/test_spf, fuzz/fuzz_spf
    rspamd before 4.1.3                unit/test_taglist, unit/test_verify, conformance/spf_rfc7208
    mail-auth before 0.9.2             unit/test_authres, fuzz/fuzz_authres
    l= (May 2024)                      unit/test_verify
    Composition Kills                  unit/test_addr, unit/test_author
    OpenDKIM 149, 116, relay 495       integration/test_milter_load, faults/test_milter_limits
    OpenDMARC 322                      faults/test_milter_limits (reload every 100 ms)
    OpenDKIM 226                       unit/test_keyring (50,000 keys)

And those of which the test is elsewhere alone:

    rspamd 2872, 2775, 3337            integration/test_dmarc_report.KnownFaults
    OpenDMARC 282                      the same; what the milter writes: integration/test_milter_judge.Overrides
"""
import base64
import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time
import unittest

from tests.dns.dnsd import Server
from tests.frame import mail
from tests.frame.layout import REPO
from tests.frame.milter import MilterClient
from tests.integration.test_auth_tools import run
from tests.integration.test_milter import SENDER, MilterCase, fields

OURS = "mx.example.net"
MESSAGE = b"From: Joe <joe@example.com>\nTo: ann@example.net\nSubject: hi\n\nHello\nworld\n"
KEYS = 50000


def new_key(folder, bits):
    """(path of a private key, its record)"""
    path = os.path.join(folder, f"{bits}.pem")
    subprocess.run(["openssl", "genrsa", "-out", path, str(bits)], check=True, capture_output=True)
    der = subprocess.run(["openssl", "rsa", "-in", path, "-pubout", "-outform", "DER"], check=True,
                         capture_output=True).stdout
    return path, "v=DKIM1; k=rsa; p=" + base64.b64encode(der).decode()


class ToolCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.key, record = new_key(cls.folder.name, 2048)
        cls.large_key, large = new_key(cls.folder.name, 3072)
        cls.zone = {
            "s._domainkey.example.com": [["TXT", record]],
            "large._domainkey.list.example": [["TXT", large]],
            "s._domainkey.list.example": [["TXT", record]],
            "s._domainkey.xn--bcher-kva.example": [["TXT", record]],
            "example.com": [["TXT", "v=spf1 ip4:192.0.2.1 -all"]],
            "mx.example.com": [["TXT", "v=spf1 ip4:192.0.2.1 -all"]],
            "evil.test": [["TXT", "v=spf1 +all"]],
            "_dmarc.example.com": [["TXT", "v=DMARC1; p=reject"]],
            "_dmarc.evil.test": [["TXT", "v=DMARC1; p=none"]],
            "_dmarc.strict.example": [["TXT", "v=DMARC1; p=reject; adkim=s; aspf=s"]],
            # By one alias, by two, and from a whole tree (DNAME gives such aliases).
            "alias._domainkey.example.com": [["CNAME", "k1.keys.example"]],
            "k1.keys.example": [["CNAME", "k2.keys.example"]],
            "k2.keys.example": [["TXT", record]],
            "_dmarc.alias.example": [["CNAME", "_dmarc.example.com"]],
            "lazy._domainkey.example.com": [["LAZY-CNAME", "k1.keys.example"]],
            "down._domainkey.example.com": [["TIMEOUT"]],
        }
        cls.dns = Server(cls.zone)

    @classmethod
    def tearDownClass(cls):
        cls.dns.close()
        cls.folder.cleanup()

    def sign(self, message=MESSAGE, *options, domain="example.com", selector="s"):
        code, out, err = run("dkim", "sign", "--domain", domain, "--selector", selector, "--key", self.key,
                             *options, stdin=message)
        self.assertEqual((code, err), (0, b""))
        return out

    def seal(self, message, key=None, selector="s"):
        code, out, _ = run("arc", "seal", "--domain", "list.example", "--selector", selector, "--key",
                           key or self.key, "--authserv-id", "mx.list.example", "--resolver", self.dns.address,
                           stdin=message)
        self.assertEqual(code, 0)
        return out

    def check(self, message, ip="203.0.113.9", mail_from="x@evil.test", helo="h.evil.test"):
        code, out, _ = run("auth", "check", "--ip", ip, "--helo", helo, "--mail-from", mail_from,
                           "--resolver", self.dns.address, "--authserv-id", OURS, stdin=message)
        self.assertEqual(code, 0)
        return json.loads(out)


class Sources(unittest.TestCase):
    def test_cve_2020_35766_no_name_in_tmp_can_be_foreseen(self):
        """In programs, tests and tools; a statement that the database refuses is none."""
        for folder in ("lib", "milter-dkim", "policyd-ratelimit", "lmtp-indexer", "dovecot-plugin-quota", "postern", "tests", "tools"):
            for path in (path for path in (REPO / folder).rglob("*") if path.suffix in ("", ".c", ".h", ".py", ".mk")):
                if path.is_file() and "corpus" not in path.parts and path != pathlib.Path(__file__):
                    for name in re.findall(r"""["'= ](/(?:var/)?tmp/[\w.-]+)""", path.read_text(errors="replace")):
                        self.assertTrue(name.endswith("XXXXXX") or "INTO OUTFILE '" + name in path.read_text(), (path, name))


class Crashes(ToolCase):
    def test_opendkim_139_utf8_domain(self):
        message = "From: joe@bücher.example\nSubject: x\n\nhello\n".encode()
        signed = self.sign(message, domain="bücher.example")
        verdict = self.check(signed)
        self.assertEqual(verdict["dkim"][0]["result"], "pass")
        self.assertEqual(verdict["dkim"][0]["domain"], "xn--bcher-kva.example")
        self.check("From: joe@\udcff\udcfe.example\n\nx\n".encode("utf-8", "surrogateescape"))

    def test_opendmarc_183_222_arc_seal_without_tags(self):
        for value in (b"x", b"", b";", b"=", b"i=", b"i=1", b"i=0; a=", b"i=99999999999999999999", b"\xff"):
            for name in (b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results"):
                with self.subTest(name=name, value=value):
                    self.assertIn(self.check(name + b": " + value + b"\n" + MESSAGE)["arc"]["result"], ("fail", "none"))

    def test_opendmarc_186_236_arc_key_of_3072_bits(self):
        sealed = self.seal(MESSAGE, key=self.large_key, selector="large")
        self.assertEqual(self.check(sealed)["arc"]["result"], "pass")

    def test_openarc_45_incomplete_set(self):
        sealed = self.seal(MESSAGE).replace(b"\r\n", b"\n")
        for name in ("ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results"):
            with self.subTest(name):
                missing = re.sub(rb"(?m)^" + name.encode() + rb":.*\n([ \t].*\n)*", b"", sealed, count=1)
                self.assertNotEqual(missing, sealed)
                self.assertEqual(self.check(missing)["arc"]["result"], "fail")

    def test_cve_2019_16378_cve_2021_34555_several_from_fields(self):
        for first, second in ((b"joe@example.com", b"x@evil.test"), (b"x@evil.test", b"joe@example.com")):
            verdict = self.check(b"From: " + first + b"\nFrom: " + second + b"\n\nx\n")["dmarc"]
            self.assertEqual((verdict["result"], verdict["disposition"]), ("fail", "reject"))
        self.assertNotEqual(self.check(b"From: x@evil.test\n" * 5000 + b"\nx\n")["dmarc"]["result"], "pass")


class Verdicts(ToolCase):
    def dmarc(self, author, *words):
        code, out, _ = run("dmarc", "check", "--from", author, *words, "--resolver", self.dns.address)
        self.assertEqual(code, 0)
        return json.loads(out)

    def test_opendmarc_268_strict_alignment_through_suffix_list(self):
        for discovery in ("tree", "psl"):
            for kind in ("--dkim-pass", "--spf-pass"):
                verdict = self.dmarc("a@strict.example", kind, "mail.strict.example", "--dmarc-discovery", discovery)
                self.assertEqual(verdict["result"], "fail", (discovery, kind))

    def test_opendmarc_264_no_pass_with_a_failed_signature(self):
        verdict = self.check(self.sign().replace(b"world", b"World"))
        self.assertEqual((verdict["dkim"][0]["result"], verdict["dmarc"]["result"]), ("fail", "fail"))

    def test_opendmarc_206_equals_sign_in_the_address(self):
        verdict = self.check(self.sign(b"From: list-ann=example.net@example.com\n\nx\n"), ip="192.0.2.1",
                             mail_from="list-ann=evil.test@example.com", helo="mx.example.com")
        self.assertEqual((verdict["spf"]["result"], verdict["dmarc"]["result"]), ("pass", "pass"))
        self.assertEqual(verdict["dmarc"]["domain"], "example.com")

    def test_opendmarc_72_comma_in_a_quoted_display_name(self):
        verdict = self.check(self.sign(b'From: "Doe, Joe" <joe@example.com>\n\nx\n'))["dmarc"]
        self.assertEqual((verdict["result"], verdict["domain"]), ("pass", "example.com"))

    def test_opendmarc_113_174_stray_angle_bracket(self):
        for author in (b"Joe <joe@example.com>>", b"Joe > <joe@example.com>", b"joe@example.com>", b"<<joe@example.com>"):
            with self.subTest(author):
                verdict = self.check(b"From: " + author + b"\n\nx\n")["dmarc"]
                self.assertEqual((verdict["result"], verdict["disposition"]), ("fail", "reject"))

    def test_opendmarc_103_opendkim_156_aliases(self):
        for selector in ("alias", "lazy"):
            self.assertEqual(self.check(self.sign(selector=selector))["dkim"][0]["result"], "pass", selector)
        self.assertEqual(self.dmarc("a@alias.example")["policy"], "reject")

    def test_opendkim_176_timeout_is_temporary(self):
        verdict = self.check(self.sign(selector="down"))
        self.assertEqual((verdict["dkim"][0]["result"], verdict["dmarc"]["result"]), ("temperror", "temperror"))
        self.assertEqual(verdict["dmarc"]["disposition"], "none")

    def test_rspamd_4529_broken_chain_is_not_continued(self):
        broken = self.seal(MESSAGE).replace(b"world", b"World")
        once = self.seal(broken)
        self.assertIn(b"cv=fail", once)
        self.assertEqual(self.seal(once), once, "nothing behind cv=fail")
        self.assertEqual(self.check(once)["arc"]["result"], "fail")

    def test_cve_2019_20790_helo_is_not_mail_from(self):
        verdict = self.check(MESSAGE, ip="192.0.2.1", mail_from="x@evil.test", helo="mx.example.com")
        self.assertEqual((verdict["spf"]["domain"], verdict["dmarc"]["result"]), ("evil.test", "fail"))

    def test_cve_2020_12272_injection_into_a_domain(self):
        for author in (b"joe@example.com(.evil.test", b"joe@evil.test(.example.com", b"joe@evil.test)@example.com",
                       b"joe@evil.test,@example.com", b"joe@example.com;.evil.test"):
            with self.subTest(author):
                message = b"From: " + author + b"\n\nx\n"
                self.assertNotEqual(self.check(message)["dmarc"]["result"], "pass")
                self.assertNotEqual(self.check(message, mail_from="x@evil.test(.example.com")["dmarc"]["result"], "pass")

    def test_composition_kills_readers_disagree(self):
        """What any reader may take for the author is held against its policy."""
        self.assertEqual(self.check(b"From: x@evil.test\n\nx\n")["dmarc"]["result"], "pass", "of itself alone")
        for author in (b"x@evil.test, joe@example.com",
                       b"<joe@example.com>, <x@evil.test>", b"joe@example.com, x@evil.test",
                       b"<@evil.test,@x.test:joe@example.com>", b"(c)joe@example.com(x@evil.test)",
                       b'"x@evil.test"@example.com', b"=?utf-8?q?=22x=22?= <joe@example.com>\0<x@evil.test>"):
            with self.subTest(author):
                self.assertNotEqual(self.check(b"From: " + author + b"\n\nx\n")["dmarc"]["result"], "pass")


class Signatures(ToolCase):
    def result(self, message):
        return self.check(message)["dkim"][0]["result"]

    def sign_by_length(self, kind, names):
        """A signature with l= over the whole body, as other programs make them."""
        body = b"Hello\r\nworld\r\n"
        values = {"from": "joe@example.com", "content-type": kind}
        field = (f"v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=s; h={':'.join(names)}; l={len(body)}; "
                 f"bh={base64.b64encode(hashlib.sha256(body).digest()).decode()}; b=")
        signed = "".join(f"{name}:{values[name]}\r\n" for name in names) + "dkim-signature:" + field
        raw = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.key], input=signed.encode(),
                             capture_output=True, check=True).stdout
        return (f"DKIM-Signature: {field}{base64.b64encode(raw).decode()}\r\nFrom: joe@example.com\r\n"
                f"Content-Type: {kind}\r\n\r\n").encode() + body

    def test_l_exploit_2024(self):
        """Content appended, or shown instead by a new boundary, under a valid signature."""
        kind = 'multipart/mixed; boundary="a"'
        whole = self.sign_by_length(kind, ["from", "content-type"])
        self.assertEqual(self.result(whole), "pass")
        self.assertNotEqual(self.result(whole + b"appended\r\n"), "pass")
        loose = self.sign_by_length(kind, ["from"])
        self.assertNotEqual(self.result(loose), "pass")
        self.assertNotEqual(self.result(loose.replace(b'boundary="a"', b'boundary="b"')), "pass")
        ours = re.search(rb"DKIM-Signature:(.*\n([ \t].*\n)*)", self.sign()).group(1)
        self.assertNotRegex(ours, rb"\bl=", "we never write it")

    def test_rfc_8301_short_keys_do_not_pass(self):
        for bits, wanted in ((1024, "pass"), (1016, "policy")):
            key, record = new_key(self.folder.name, bits)
            code, signed, _ = run("dkim", "sign", "--domain", "example.com", "--selector", "s", "--key", key, stdin=MESSAGE)
            self.assertEqual(code == 0, bits == 1024, "nor do we sign with one")
            with Server({"s._domainkey.example.com": [["TXT", record]]}) as server:
                code, out, _ = run("auth", "check", "--ip", "192.0.2.1", "--helo", "h", "--mail-from", "",
                                   "--resolver", server.address, stdin=signed or self.sign())
            verdict = json.loads(out)["dkim"][0]
            self.assertEqual((verdict["result"], verdict["key_bits"]), (wanted, bits))

    def test_rspamd_4_1_3_bh_out_of_bounds(self):
        for bh in (b"", b"=", b"A", b"AA==", b"!" * 50, b"A" * 100000, b"\xff" * 44):
            with self.subTest(bh[:10]):
                broken = re.sub(rb"bh=[^;]*;", b"bh=" + bh + b";", self.sign())
                self.assertIn(self.result(broken), ("permerror", "neutral", "fail"))

    def test_rspamd_4_1_3_unbounded_key_and_names(self):
        names = b":".join(b"X-%d" % i for i in range(5000))
        self.assertNotEqual(self.result(self.sign().replace(b"h=", b"h=" + names + b":", 1)), "pass")
        with Server(self.zone | {"s._domainkey.example.com": [["TXT", "v=DKIM1; p=" + "A" * 60000]]}) as server:
            code, out, _ = run("auth", "check", "--ip", "192.0.2.1", "--helo", "h", "--mail-from", "",
                               "--resolver", server.address, stdin=self.sign())
        self.assertEqual((code, json.loads(out)["dkim"][0]["result"]), (0, "permerror"))

    def test_rspamd_4_1_3_spf_limits_are_permerror(self):
        zone = {"example.com": [["TXT", "v=spf1 " + " ".join(f"include:{i}.example.com" for i in range(11)) + " -all"]]}
        zone |= {f"{i}.example.com": [["TXT", "v=spf1 -all"]] for i in range(11)}
        with Server(zone) as server:
            code, out, _ = run("spf", "check", "--ip", "192.0.2.1", "--helo", "h", "--mail-from", "a@example.com",
                               "--resolver", server.address)
        self.assertEqual((code, json.loads(out)["result"]), (0, "permerror"))

    def test_cve_2021_20314_expansion_overflow(self):
        """Macros that grow, in records and in explanations."""
        for macro in ("%{S}" * 60, "%{s99r.}" * 40, "%{i1r}%{d200}%{L0}", "%{p}%{c}%{r}%{t}" * 20, "%{d1r-+,/_=}"):
            zone = {"example.com": [["TXT", f"v=spf1 exists:{macro}.x.test exp=e.example.com -all"]],
                    "e.example.com": [["TXT", macro * 3]]}
            with self.subTest(macro), Server(zone) as server:
                code, out, _ = run("spf", "check", "--ip", "2001:db8::1", "--helo", "%{s}" * 200, "--mail-from",
                                   "\"" + "é." * 400 + "\"@example.com", "--resolver", server.address)
                self.assertEqual(code, 0)
                self.assertIn(json.loads(out)["result"], ("fail", "permerror", "none", "temperror"))


class Results(MilterCase):
    """Authentication-Results, in the milter."""

    def edits(self, results, author=b" a@b.example"):
        with MilterClient(self.stack) as client:
            header = [(b"Authentication-Results", b" " + value) for value in results] + [(b"From", author)]
            edits, verdict = client.message(header, [b"x\r\n"])
        self.assertEqual(verdict, (b"c", b""))
        removed = [int.from_bytes(data[:4], "big") for command, data in edits if command == b"m"]
        inserted = [(int.from_bytes(data[:4], "big"), data[4:].partition(b"\0")[2]) for command, data in edits
                    if command == b"i"]
        return removed, inserted

    def test_cve_2022_48521_index_shift(self):
        """Deleted from the highest number down: none is passed over."""
        ours, other = b"mail.example.com; dkim=pass", b"other.example; dkim=pass"
        with self.configured("milter-dkim", authserv_id="mail.example.com"):
            self.assertEqual(self.edits([ours] * 5)[0], [5, 4, 3, 2, 1])
            self.assertEqual(self.edits([ours, other, ours, other, ours])[0], [5, 3, 1])

    def test_opendkim_148_185_only_ours_are_deleted(self):
        with self.configured("milter-dkim", authserv_id="mail.example.com"):
            removed, _ = self.edits([b"mail.example.com.evil.test; dkim=pass", b"xmail.example.com; dkim=pass",
                                     b"mail.example.com; dkim=pass", b"example.com; dkim=pass"])
        self.assertEqual(removed, [3])

    def test_opendkim_24_on_top_of_received(self):
        _, inserted = self.edits([])
        self.assertEqual([index for index, _ in inserted], [0])
        stored = self.receive(mail.message("a@b.example", self.user))
        self.assertIn("dkim=none", self.results(stored))  # which checks what is below

    def test_opendkim_73_field_without_authserv_id(self):
        for value in (b"", b";", b"; dkim=pass", b"dkim=pass", b"(only a comment)", b"=pass", b"\"", b"("):
            with self.subTest(value):
                _, inserted = self.edits([value])
                self.assertEqual(len(inserted), 1)

    def test_mail_auth_0_9_2_header_injection(self):
        hostile = b"\"x\\\r\n\r\nEvil: 1\" <a@b.example>\r\n (\r\nEvil: 2)"
        _, inserted = self.edits([], author=hostile)
        value = inserted[0][1]
        self.assertIsNone(re.search(rb"\n[^ \t]", value))
        self.assertNotIn(b"\r", value)
        self.assertNotIn(b"Evil", value)


class Operation(MilterCase):
    def test_opendmarc_322_sighup_does_not_end_it(self):
        pid = self.stack.pid("milter-dkim")
        for _ in range(5):
            self.stack.kill("milter-dkim", signal.SIGHUP)
            self.assertEqual(len(fields(self.submit(), "DKIM-Signature")), 1)
        self.assertEqual(self.stack.pid("milter-dkim"), pid)

    def test_relay_778_796_on_localhost_the_role_is_plain(self):
        """Of a client on 127.0.0.1 mail is signed, not judged; never both."""
        data = mail.message(SENDER, self.user)
        with mail.smtp(self.stack, source="127.0.0.1") as client:
            client.sendmail(SENDER, [self.user], data)
        stored = mail.wait_for_mail(self.stack, self.user, mail.parse(data)["message-id"])
        self.assertEqual((len(fields(stored, "DKIM-Signature")), fields(stored, "Authentication-Results")), (1, []))
        judged = self.receive(mail.message(SENDER, self.user))
        self.assertEqual((fields(judged, "DKIM-Signature"), len(fields(judged, "Authentication-Results"))), ([], 1))

    def test_relay_964_bounces_are_signed(self):
        """No envelope sender, no client: ours all the same."""
        with mail.smtp(self.stack, source="127.0.0.1") as client:
            data = mail.message(f"MAILER-DAEMON@{SENDER.partition('@')[2]}", self.user)
            client.sendmail("", [self.user], data)
        stored = mail.wait_for_mail(self.stack, self.user, mail.parse(data)["message-id"])
        self.assertEqual(len(fields(stored, "DKIM-Signature")), 1)

    def test_opendkim_118_entry_without_value(self):
        """In either table: the line is told of, mail that it is for waits."""
        folder = self.stack.at.path("/etc/postern")
        for name, text in (("KeyTable", "alone\nhalf example.org\nempty :::\n"),
                           ("SigningTable", "*@alone.example alone\n*@nothing.example\n*@half.example half\n")):
            (folder / name).write_text(text)
            os.chmod(folder / name, 0o644)
        with self.configured("milter-dkim", key_table=folder / "KeyTable",
                             signing_table=f"refile:{folder}/SigningTable"):
            for domain in ("alone.example", "half.example"):
                with mail.smtp(self.stack, source="127.0.0.1") as client:
                    client.ehlo_or_helo_if_needed()
                    client.mail(f"a@{domain}")
                    client.rcpt(self.user)
                    self.assertEqual(client.data(mail.message(f"a@{domain}", self.user))[0], 451, domain)
            self.assertIn("table_line_broken", self.log())
            self.assertEqual(len(fields(self.submit(), "DKIM-Signature")), 1)

    def test_opendkim_226_start_with_50000_keys(self):
        folder = self.stack.at.path("/etc/postern")
        private = self.value("SELECT private_key FROM dkim_keys WHERE domain = 'example.com' AND state = 'active'")
        (folder / "t.private").write_text(private)
        (folder / "KeyTable").write_text("".join(f"k{i} d{i}.example:s:{folder}/t.private\n" for i in range(KEYS)))
        (folder / "SigningTable").write_text("".join(f"*@d{i}.example k{i}\n" for i in range(KEYS)))
        for name in ("t.private", "KeyTable", "SigningTable"):
            os.chmod(folder / name, 0o644)
        with self.configured("milter-dkim", key_table=folder / "KeyTable", signing_table=f"refile:{folder}/SigningTable"):
            self.stack.stop("milter-dkim")
            began = time.monotonic()
            self.stack.start("milter-dkim")
            # On a busy machine it has waited for its turn; that is not its work.
            if time.monotonic() - began >= 3:
                self.assertLess(self.stack.cpu_seconds("milter-dkim"), 3)
            data = mail.message(f"a@d{KEYS - 1}.example", self.user)
            with mail.smtp(self.stack, source="127.0.0.1") as client:
                client.sendmail("a@b.example", [self.user], data)
            signed = mail.wait_for_mail(self.stack, self.user, mail.parse(data)["message-id"])
        self.assertIn(f"d=d{KEYS - 1}.example", fields(signed, "DKIM-Signature")[0])

    def test_opendkim_149_116_sockets_do_not_pile_up(self):
        """A question of each message that nobody answers, and one that has an answer."""
        with Server({"sender.example": [["TIMEOUT"]], "good.example": [["TXT", "v=spf1 -all"]]}) as server, \
                self.configured("milter-dkim", resolver=server.address, dns_timeout="100ms"):
            pid = self.stack.pid("milter-dkim")

            def descriptors():
                return len(os.listdir(f"/proc/{pid}/fd"))

            before = None
            for number in range(60):
                with MilterClient(self.stack) as client:
                    client.message([(b"From", b" a@sender.example")], [b"x"], sender=b"<a@good.example>" if number % 2
                                   else b"<a%d@sender.example>" % number)
                before = before or descriptors()
            self.wait_until(lambda: descriptors() <= before + 2, what=f"at most {before} descriptors")


if __name__ == "__main__":
    unittest.main()
