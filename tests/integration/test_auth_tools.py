"""`postern auth check`, `dmarc check`, `dkim sign` and `arc seal` as other tools
drive them: JSON on standard output, exit codes, LF and CRLF."""
import base64
import json
import os
import re
import subprocess
import tempfile
import unittest

from tests.conformance.arc_maker import Key, Maker, join, split
from tests.dns.dnsd import Server

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
POSTERN = os.path.join(os.environ.get("POSTERN_BUILD", os.path.join(REPO, "build")), "bin", "postern")
MESSAGE = b"From: Joe <joe@example.com>\nTo: ann@example.net\nSubject: hi\n\nHello\nworld\n"


def run(*words, stdin=b""):
    done = subprocess.run([POSTERN, *words], input=stdin, capture_output=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


class Swapping(Maker):
    """Takes the first two sets in the wrong order."""

    def seal(self, sets, number, cv, options):
        return super().seal([sets[1], sets[0], *sets[2:]], number, cv, options)


class Tools(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.key = os.path.join(cls.folder.name, "key.pem")
        subprocess.run(["openssl", "genrsa", "-out", cls.key, "2048"], check=True, capture_output=True)
        der = subprocess.run(["openssl", "rsa", "-in", cls.key, "-pubout", "-outform", "DER"],
                             check=True, capture_output=True).stdout
        record = "v=DKIM1; k=rsa; p=" + base64.b64encode(der).decode()
        cls.other = Key(cls.folder.name)
        cls.dns = Server({
            "s._domainkey.other.example": [["TXT", cls.other.record()]],
            "s._domainkey.example.com": [["CNAME", "keys.example.org"]],
            "keys.example.org": [["TXT", [record[:100], record[100:]]]],
            "s._domainkey.list.example": [["TXT", record]],
            "test._domainkey.example.com": [["TXT", record + "; t=y"]],
            "example.com": [["TXT", "v=spf1 ip4:192.0.2.1 -all"]],
            "_dmarc.example.com": [["TXT", "v=DMARC1; p=reject"]],
            "down._domainkey.example.com": [["SERVFAIL"]],
            "_dmarc.down.example": [["SERVFAIL"]],
        })

    @classmethod
    def tearDownClass(cls):
        cls.dns.close()
        cls.folder.cleanup()

    def sign(self, message=MESSAGE, *options):
        code, out, err = run("dkim", "sign", "--domain", "example.com", "--selector", "s", "--key", self.key,
                             *options, stdin=message)
        self.assertEqual((code, err), (0, b""))
        return out

    def seal(self, message):
        return run("arc", "seal", "--domain", "list.example", "--selector", "s", "--key", self.key,
                   "--authserv-id", "mx.list.example", "--resolver", self.dns.address, stdin=message)

    def check(self, message, *options, ip="192.0.2.1", mail_from="joe@example.com"):
        code, out, _ = run("auth", "check", "--ip", ip, "--helo", "h.example.com", "--mail-from", mail_from,
                           "--resolver", self.dns.address, "--authserv-id", "mx.example.net", *options,
                           stdin=message)
        self.assertEqual(code, 0)
        return json.loads(out)

    def test_pass_by_all_methods(self):
        verdict = self.check(self.sign())
        self.assertEqual(list(verdict), ["spf", "dkim", "arc", "dmarc", "authentication_results"])
        self.assertEqual(verdict["spf"], {"result": "pass", "domain": "example.com", "identity": "mailfrom",
                                          "explanation": None, "problem": None})
        self.assertEqual(verdict["dkim"], [{"result": "pass", "domain": "example.com", "selector": "s",
                                            "algorithm": "rsa-sha256", "key_bits": 2048, "reason": None}])
        self.assertEqual(verdict["arc"], {"result": "none", "instance": None, "reason": None})
        self.assertEqual(verdict["dmarc"]["result"], "pass")
        self.assertEqual(verdict["dmarc"]["alignment"], {"spf": "example.com", "dkim": "example.com"})
        self.assertRegex(verdict["authentication_results"], r"^mx\.example\.net; dkim=pass .*; spf=pass .*; dmarc=pass ")

    def test_line_ends_do_not_matter(self):
        for message in (MESSAGE, MESSAGE.replace(b"\n", b"\r\n")):
            signed = self.sign(message)
            for variant in (signed.replace(b"\r\n", b"\n"), signed.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")):
                self.assertEqual(self.check(variant)["dkim"][0]["result"], "pass")

    def test_changed_body(self):
        verdict = self.check(self.sign().replace(b"world", b"World"), ip="192.0.2.2")
        self.assertEqual(verdict["dkim"][0]["result"], "fail")
        self.assertEqual(verdict["dmarc"]["result"], "fail")
        self.assertEqual(verdict["dmarc"]["disposition"], "reject")

    def test_key_in_test_mode(self):
        """t=y: told with the result, and counted as RFC 9989 section 4.4.1 has it, or not as RFC 6376 section 3.6.1."""
        signed = run("dkim", "sign", "--domain", "example.com", "--selector", "test", "--key", self.key, stdin=MESSAGE)[1]
        unsigned = self.check(MESSAGE, ip="192.0.2.2")["dmarc"]
        for words, passes in (((), True), (("--dkim-testing-keys", "count"), True),
                              (("--dkim-testing-keys=ignore",), False)):
            verdict = self.check(signed, *words, ip="192.0.2.2")
            self.assertEqual(verdict["dkim"][0]["result"], "pass")
            self.assertEqual(verdict["dkim"][0]["reason"], "the key is in test mode")
            self.assertIn('reason="the key is in test mode"', verdict["authentication_results"])
            if passes:
                self.assertEqual((verdict["dmarc"]["result"], verdict["dmarc"]["disposition"]), ("pass", "none"))
                self.assertEqual(verdict["dmarc"]["alignment"], {"spf": None, "dkim": "example.com"})
            else:
                self.assertEqual(verdict["dmarc"], unsigned)
                self.assertEqual(verdict["dmarc"]["disposition"], "reject")
            # One that does not fit counts for nothing, test mode or not.
            broken = self.check(signed.replace(b"world", b"World"), *words, ip="192.0.2.2")
            self.assertEqual((broken["dkim"][0]["result"], broken["dmarc"]), ("fail", unsigned))
        # Beside a key that tests no more, as during a change of keys, nothing is lost.
        both = run("dkim", "sign", "--domain", "example.com", "--selector", "s", "--key", self.key, stdin=signed)[1]
        verdict = self.check(both, "--dkim-testing-keys", "ignore", ip="192.0.2.2")
        self.assertEqual([one["result"] for one in verdict["dkim"]], ["pass", "pass"])
        self.assertEqual(verdict["dmarc"]["alignment"], {"spf": None, "dkim": "example.com"})

    def test_dead_dns_is_never_a_fail(self):
        signed = self.sign(MESSAGE, "--headers", "From").replace(b"s=s;", b"s=down;")
        self.assertEqual(self.check(signed, ip="192.0.2.2")["dkim"][0]["result"], "temperror")
        message = MESSAGE.replace(b"joe@example.com", b"joe@down.example")
        verdict = self.check(message)["dmarc"]
        self.assertEqual((verdict["result"], verdict["disposition"]), ("temperror", "none"))

    def test_hostile_values_stay_quoted(self):
        verdict = self.check(MESSAGE, mail_from='x"; dkim=pass header.d=bank.example (\r\nX: y@example.com')
        field = verdict["authentication_results"]
        self.assertNotIn("\n", field)
        self.assertNotIn("\r", field)
        self.assertIn('"x\\"; dkim=pass', field)

    def test_trace_tells_the_culprit(self):
        code, _, trace = run("auth", "check", "--ip", "192.0.2.1", "--helo", "h.example.com", "--mail-from", "",
                             "--resolver", self.dns.address, "--trace", stdin=self.sign() + b"-- \nfooter\n")
        self.assertEqual(code, 0)
        self.assertIn(b"2 lines were added below the signed body", trace)
        self.assertIn(b"dns _dmarc.example.com TXT: ok", trace)

    def trace(self, message):
        code, _, trace = run("auth", "check", "--ip", "192.0.2.1", "--helo", "h.example.com", "--mail-from", "",
                             "--resolver", self.dns.address, "--trace", stdin=message)
        self.assertEqual(code, 0)
        return trace.decode()

    def test_trace_tells_what_was_put_around_a_part(self):
        """l=: what came behind that part is not what broke the hash."""
        message = MESSAGE.decode().replace("\n", "\r\n")
        sealed = Maker(self.other, "other.example").add(message, ams_more=[f"l={len('Hello world') + 3}"])
        self.assertIn("\narc: pass\n", self.trace(sealed.encode()))
        changed = sealed.replace("Hello", "External!\r\nHello") + "-- \r\nfooter\r\n"
        self.assertIn("likely culprit: 1 line was added above the signed body (a banner)\n", self.trace(changed.encode()))
        self.assertIn("arc: fail at set 1 of 1: l= does not cover the whole body\n", self.trace((sealed + "footer\r\n").encode()))

    def test_trace_tells_a_key_that_is_another(self):
        other = os.path.join(self.folder.name, "other.pem")
        subprocess.run(["openssl", "genrsa", "-out", other, "2048"], check=True, capture_output=True)
        foreign = run("dkim", "sign", "--domain", "example.com", "--selector", "s", "--key", other, stdin=MESSAGE)[1]
        signed = self.sign()
        at = signed.index(b"; b=") + 20 if b"; b=" in signed else signed.index(b"\tb=") + 20
        damaged = signed[:at] + (b"A" if signed[at:at + 1] != b"A" else b"B") + signed[at + 1:]
        for message, told in ((foreign, True), (damaged, True), (signed.replace(b"Subject: hi", b"Subject: ho"), False)):
            trace = self.trace(message)
            self.assertIn("dkim 1: fail: the signature does not fit the header\n", trace)
            self.assertEqual("  likely culprit: b= was not made with the key in DNS, or was damaged on the way\n" in trace, told)

    def test_trace_ends_its_search(self):
        """Twenty signatures of 256 names, and thousands of fields: the work is bounded, and the trace says so."""
        names = ":".join(["From", "Subject"] + ["X-A"] * 254)
        signed = self.sign(b"".join(b"X-A: %d\n" % i for i in range(4000)) + MESSAGE, "--headers", names)
        field = signed[:re.search(rb"\n[^ \t]", signed).end() - 1]
        trace = self.trace(field * 19 + signed.replace(b"Subject: hi", b"Subject: ho"))
        told = re.findall("\n  likely culprit: (.*)", trace)
        self.assertEqual(len(told), 20)
        self.assertEqual(told[-1], "none that was found with as much work as is done for one message")

    def test_trace_tells_the_culprit_of_a_chain(self):
        """The newest signature of ARC, as a signature of DKIM: its canonical bytes, its hashes, and what was done to it."""
        sealed = self.seal(MESSAGE)[1]
        for changed, wanted in (
                (sealed + b"-- \nfooter\n", "2 lines were added below the signed body (a footer)"),
                (sealed.replace(b"Subject: hi", b"Subject: [l] hi"), "the tag [l] was added to Subject"),
                (sealed.replace(b"Subject: hi", b"Reply-To: x@y.example\nSubject: hi"), "the field Reply-To was added after"),
                (sealed.replace(b"To: ann@example.net\n", b""), "the field To was probably removed after"),
                (sealed.replace(b"world", b"World"), "none that is known, in the body"),
                (sealed.replace(b"Subject: hi", b"Subject: ho"), "none that is known, in the header: the body is as it was signed")):
            trace = self.trace(changed)
            told = trace[trace.index("\narc: fail at set 1 of 1: "):]
            self.assertIn("\n  likely culprit: " + wanted, told)
            self.assertIn('\n  canonical header: "from:Joe <joe@example.com>\\r\\n"', told)
            self.assertIn('\n  canonical body: "Hello\\r\\n"', told)
            self.assertEqual(told.count("\n  bh="), 2)
        held = self.trace(sealed)
        self.assertIn("\narc: pass\n  canonical header: ", held)
        self.assertNotIn("likely culprit", held)
        # A chain that is none has nothing canonical.
        torn = self.trace(sealed.replace(b"ARC-Seal:", b"X-Seal:"))
        self.assertNotIn("canonical", torn[torn.index("\narc: fail"):])

    def test_trace_tells_the_culprit_of_a_seal(self):
        """What changed in a chain, and in which set, as far as the seals can tell."""
        maker, text = Maker(self.other, "other.example"), MESSAGE.decode().replace("\n", "\r\n")
        chain = [text]
        for _ in range(3):
            chain.append(maker.add(chain[-1]))
        foreign = Maker(Key(self.folder.name, bits=1536), "other.example")
        fields, body = split(chain[3])

        def without(number):
            """The chain of three as if that set were not there; its fields."""
            taken = [field for field in fields if field[1].startswith(f" i={number};")]
            return join([field for field in fields if field not in taken], body), taken

        def sealed_without(number, **options):
            made, made_body = split(maker.add(without(number)[0], number=4, **options))
            return join(without(number)[1] + made, made_body)

        def numbers_changed(message, to):
            """Set 1 gets the first number of TO, and so on."""
            return re.sub(r"(?m)^(ARC-[A-Za-z-]+: i=)([0-9])", lambda m: m[1] + to[int(m[2]) - 1], message)

        def changed(number):
            return re.sub(r"(ARC-Authentication-Results: i=%d; mx.list.example; spf=)pass" % number, r"\1fail", chain[3])

        newest = "ARC-Authentication-Results or ARC-Seal of set 3 was changed: its ARC-Message-Signature fits\n"
        for message, wanted in (
                (changed(1), "ARC-Seal of set 3: something in set 1 was changed\n"),
                (changed(2), "ARC-Seal of set 3: set 1 holds; something in set 2 was changed\n"),
                (changed(3), "ARC-Seal of set 3: sets 1 to 2 hold; " + newest),
                (maker.add(foreign.add(chain[1])), "ARC-Seal of set 2: b= was not made with the key in DNS, or was damaged on the way\n"),
                (maker.add(changed(2)), "ARC-Seal of set 3: nothing was changed since set 4, whose seal fits: it was wrong "
                                        "before, or its key is another now\n"),
                (maker.add(chain[2], whole=False), "ARC-Seal of set 3: it covers no set below 3: they were added later, or its "
                                                   "sealer left them out\n"),
                (sealed_without(1), "ARC-Seal of set 4: it covers no set below 2: they were added later, or its sealer left them out\n"),
                (sealed_without(2), "ARC-Seal of set 4: it does not cover set 2: that one was added later, or its sealer left it out\n"),
                (without(2)[0], "the whole set 2 of 3 was removed, or numbers were changed\n"),
                (without(1)[0], "the whole set 1 of 3 was removed, or numbers were changed\n"),
                (chain[3].replace("ARC-Seal: i=2", "X-Seal: i=2"), "of set 2, ARC-Seal removed, or the number was changed\n"),
                (re.sub("ARC-(Seal|Message-Signature): i=1", r"X-\1: i=1", chain[3]),
                 "of set 1, ARC-Seal and ARC-Message-Signature removed, or the number was changed\n"),
                (numbers_changed(without(1)[0], "-12"), "set 1 was not the first one when it was sealed: sets below were removed, "
                                                        "or numbers were changed\n"),
                (numbers_changed(chain[3], "213"), "set 2 was the first one when it was sealed: "),
                (numbers_changed(maker.add(chain[3]), "1324"), "ARC-Seal of set 4: set 1 holds; something in set 2 was changed\n"),
                (maker.add(foreign.add(chain[1])).replace("i=2; mx.list", "i=2; mx.other"),
                 "ARC-Seal of set 3: set 1 holds; something in sets 2 to 3 was changed\n"),
                (Swapping(self.other, "other.example").add(chain[2]), "ARC-Seal of set 3: it covers set 2 before set 1\n"),
                (maker.add(chain[2], cv="none"), "set 3 was the first one when it was sealed: the sets below were put there later, or "
                                                 "numbers were changed\n"),
                (maker.add(maker.add(chain[1], cv="fail"), cv="pass"), "the chain was broken already when set 2 was sealed\n")):
            trace = self.trace(message.encode())
            told = trace[trace.index("\narc: "):]
            self.assertIn("\n  likely culprit: " + wanted, told)
            self.assertEqual(told.count("likely culprit"), 1)
        for held in (chain[3], text):
            self.assertNotIn("likely culprit", self.trace(held.encode()))

    def test_unreadable_message(self):
        code, out, _ = run("auth", "check", "--ip", "192.0.2.1", "--helo", "h", "--mail-from", "",
                           "--resolver", self.dns.address, stdin=b"this is no field\nFrom: a@b.example\n\n")
        self.assertEqual((code, out), (65, b""))

    def test_usage(self):
        self.assertEqual(run("auth", "check", "--ip", "x", "--helo", "h", "--mail-from", "")[0], 64)
        self.assertEqual(run("spf", "check", "--helo", "h", "--mail-from", "")[0], 64)
        for words in (("auth", "check", "--ip", "192.0.2.1", "--helo", "h", "--mail-from", ""),
                      ("arc", "seal", "--domain", "list.example", "--selector", "s", "--key", self.key)):
            code, out, err = run(*words, "--authserv-id", "", stdin=MESSAGE)
            self.assertEqual((code, out), (64, b""))
            self.assertIn(b"--authserv-id is empty", err)
        for word in ("", "Count", "y"):
            code, out, err = run("auth", "check", "--ip", "192.0.2.1", "--helo", "h", "--mail-from", "",
                                 "--dkim-testing-keys", word, stdin=MESSAGE)
            self.assertEqual((code, out), (64, b""))
            self.assertIn(b"--dkim-testing-keys is count or ignore", err)

    def test_arc_chain(self):
        field = self.check(self.sign())["authentication_results"].replace("mx.example.net", "mx.list.example", 1)
        message = b"Authentication-Results: " + field.encode() + b"\n" + self.sign()
        for instance in (1, 2, 3):
            code, message, _ = self.seal(message)
            self.assertEqual(code, 0)
            verdict = self.check(message)["arc"]
            self.assertEqual(verdict, {"result": "pass", "instance": instance, "reason": None})
        self.assertIn(b"ARC-Authentication-Results: i=3; mx.list.example;\n\tdkim=pass", message)
        broken = message.replace(b"world", b"World")
        self.assertEqual(self.check(broken)["arc"]["result"], "fail")
        code, sealed, _ = self.seal(broken)
        self.assertIn(b"cv=fail", sealed[:200])
        # RFC 8617 section 5.1: what says cv=fail is left as it is.
        code, unchanged, err = self.seal(sealed)
        self.assertEqual((code, unchanged), (0, sealed))
        self.assertIn(b"nothing was added", err)

    def test_arc_seal_believes_what_names_it_well(self):
        """What a strict remover lets through as somebody else's says nothing, least of all arc=pass."""
        for name, believed in ((b"mx.list.example", True), (b'(c) "mx.list.example" 1', True),
                               (b"mx.list.example x", False), (b"mx.list.example/x", False), (b"./mx.list.example", False)):
            code, first, _ = self.seal(self.sign())
            self.assertEqual(code, 0)
            broken = first.replace(b"world", b"World")
            code, sealed, _ = self.seal(b"Authentication-Results: " + name + b"; arc=pass\n" + broken)
            self.assertEqual((code, b"cv=pass" in sealed[:200]), (0, believed), name)

    def test_arc_seal_takes_so_many_results(self):
        """32 KB of them; a set with less than there are would hide some."""
        def results(size):
            head = b"spf=fail smtp.mailfrom="
            return b"Authentication-Results: mx.list.example; " + head.ljust(size, b"a") + b"\n" + self.sign()
        self.assertEqual(self.seal(results(32 << 10))[0], 0)
        code, out, err = self.seal(results((32 << 10) + 1))
        self.assertEqual((code, out), (65, b""))
        self.assertIn(b"longer than 32768 bytes", err)

    def test_dmarc_check(self):
        code, out, _ = run("dmarc", "check", "--from", "joe@mail.example.com", "--dkim-pass", "evil.example",
                           "--spf-pass", "EXAMPLE.com", "--resolver", self.dns.address)
        verdict = json.loads(out)
        self.assertEqual(code, 0)
        self.assertEqual(list(verdict), ["result", "domain", "organizational_domain", "published_policy", "policy",
                                         "disposition", "alignment", "queries", "reason"])
        self.assertEqual(verdict["alignment"], {"spf": "example.com", "dkim": None})
        self.assertEqual(verdict["queries"][:3], ["_dmarc.mail.example.com", "_dmarc.example.com", "_dmarc.com"])
