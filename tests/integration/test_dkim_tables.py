"""OpenDKIM's tables: the same ones give the same signatures here and there."""
import base64
import pathlib
import re
import subprocess
import tempfile
import unittest

from tests.frame.layout import Layout
from tests.frame.lone_milter import LoneMilter, openssl, private_key
from tests.frame.milter import MilterClient

KEYS = """
# names
One   example.com:s1.with.dots:{base}/k.pem

two\ttwo.example:s2:{base}/k.pem # comment
three three.example:s3:{base}/k.pem
pct   %:pct:{base}/%.pem
example.net example.net:net:{base}/k.pem
same  %:same:{base}/k.pem
"""
EXACT = """
user@example.com One
USER2@Example.COM two
example.com three
joe@.example.edu two
.example.edu One
.sub.example.edu three
root@* two
net.example %
a@host.example two:a@two.example
a@example.net %:me@sub.example.net
example.net %:x@%
"""
PATTERNS = """
news@example.com One:@sub.example.com
*@example.com two
*@example.com One
*@*.example.com three:%@three.example
b@* One:joe@%
*@example.net %
*@pct.example pct
x*y@q.example One
*@same.example same:u@%
*@*.deep.example same:@%
"""
SENDERS = [f"{local}@{domain}" for local in ("user", "user2", "joe", "root", "a", "b", "news", "xy", "xAAy", "x.y")
           for domain in ("example.com", "EXAMPLE.com", "sub.example.com", "example.edu", "a.example.edu", "b.a.example.edu",
                          "x.sub.example.edu", "sub.example.edu", "example.net", "pct.example", "q.example", "host.example",
                          "same.example", "one.deep.example", "deep.example", "elsewhere.example")]


class Tables(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.base = pathlib.Path(cls.folder.name)
        key = private_key(cls.base / "k.pem")
        (cls.base / "pct.example.pem").write_bytes(key.read_bytes())
        (cls.base / "keys").write_text(KEYS.format(base=cls.base))
        (cls.base / "exact").write_text(EXACT)
        (cls.base / "patterns").write_text(PATTERNS)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def opendkim(self, key_table, signing_table, multiple, sender):
        """(d, s, i) of each signature, or None where it defers."""
        (self.base / "conf").write_text(
            f"Mode s\nKeyTable {key_table}\nSigningTable {signing_table}\nInternalHosts 127.0.0.1\nRequireSafeKeys no\n"
            f"MultipleSignatures {multiple}\n")
        (self.base / "mail").write_text(f"From: {sender}\r\nTo: b@c.example\r\nSubject: x\r\n\r\nx\r\n")
        done = subprocess.run(["opendkim", "-x", self.base / "conf", "-vv", "-t", self.base / "mail"],
                              capture_output=True, timeout=120, check=False)
        text = re.sub(r"\s", "", (done.stdout + done.stderr).decode())
        if "SMFIS_TEMPFAIL" in text:
            return None
        found = set()
        for value in re.findall(r"v=1;a=rsa-sha256;[^']*", text):
            tags = dict(tag.partition("=")[::2] for tag in value.split(";"))
            found.add((tags["d"], tags["s"], tags.get("i", "")))
        return found

    def compare(self, key_table, signing_table, multiple="no"):
        count = 0
        with LoneMilter(key_table=key_table, signing_table=signing_table, multiple_signatures=multiple) as milter:
            for sender in SENDERS:
                made = milter.sign(sender.encode())
                ours = None if made is None else {(t["d"], t["s"], t.get("i", "")) for t in made}
                theirs = self.opendkim(key_table, signing_table, multiple, sender)
                if ours and theirs and multiple == "yes":
                    # Of three matches and more opendkim makes the first and the last signature only.
                    self.assertLessEqual(len(theirs), 2)
                    ours &= theirs if len(ours) > 2 else ours
                with self.subTest(sender=sender, signing_table=signing_table, multiple=multiple):
                    self.assertEqual(ours, theirs)
                count += bool(ours)
        self.assertGreater(count, len(SENDERS) // 4)

    def test_exact_table(self):
        self.compare(f"file:{self.base}/keys", f"file:{self.base}/exact")

    def test_exact_table_with_all_signatures(self):
        self.compare(f"{self.base}/keys", f"{self.base}/exact", "yes")

    def test_patterns(self):
        self.compare(f"{self.base}/keys", f"refile:{self.base}/patterns")

    def test_patterns_with_all_signatures(self):
        self.compare(f"{self.base}/keys", f"refile:{self.base}/patterns", "yes")

    def test_key_table_of_patterns(self):
        self.compare(f"refile:{self.base}/keys", f"refile:{self.base}/patterns")

    def test_lists(self):
        self.compare(f"csl:a=example.com:s1:{self.base}/k.pem,b=%:s2:{self.base}/k.pem", "csl:example.com=a,user@*=b,*=b:u@%")

    def test_both_kinds_of_key_sign(self):
        private_key(self.base / "ed.pem", "-algorithm", "ed25519")
        (self.base / "both").write_text(f"r example.com:r:{self.base}/k.pem\ne example.com:e:{self.base}/ed.pem\n")
        (self.base / "sign").write_text("*@example.com r\n*@example.com e\n")
        with LoneMilter(key_table=f"{self.base}/both", signing_table=f"refile:{self.base}/sign") as milter:
            self.assertEqual({(t["a"], t["s"]) for t in milter.sign(b"a@example.com")},
                             {("rsa-sha256", "r"), ("ed25519-sha256", "e")})

    def test_keys_in_the_table_itself(self):
        """Documented, but opendkim of Debian 12 cannot read them."""
        for form in ([], ["-traditional"]):
            der = base64.b64encode(openssl("rsa", "-in", self.base / "k.pem", "-outform", "DER", *form)).decode()
            with LoneMilter(key_table=f"csl:in=example.com:in:{der}", signing_table="csl:*=in") as milter:
                self.assertEqual(milter.sign(b"a@example.net")[0]["s"], "in")

    def test_signer_that_is_no_address(self):
        """opendkim sends such mail unsigned."""
        with LoneMilter(key_table=f"csl:a=example.com:s:{self.base}/k.pem", signing_table="csl:example.com=a:%") as milter:
            self.assertNotIn("i", milter.sign(b"a@example.com")[0])

    def test_domains_that_are_no_names(self):
        """Below a % nothing could ever sign for them: refused, not deferred for ever."""
        (self.base / "pct").write_text(f"p %:p:{self.base}/%.pem\na %:a:{self.base}/k.pem\n")
        (self.base / "sign").write_text("*@*.pct.example p\n*@*.any.example a\n")
        with LoneMilter(key_table=f"{self.base}/pct", signing_table=f"refile:{self.base}/sign") as milter:
            for domain in (b"x/y.pct.example", b"x\xff.pct.example", b"x" * 64 + b".pct.example", b"x\xff.any.example"):
                with MilterClient(milter) as client:
                    _, verdict = client.message([(b"From", b" a@" + domain)], [b"x\r\n"])
                self.assertEqual(verdict[:1] + (verdict[1][:9],), (b"y", b"550 5.1.7"), domain)
            for domain in (b"x.pct.example", b"x_y.pct.example"):
                self.assertIsNone(milter.sign(b"a@" + domain), "its file may come yet")
            (self.base / "x.pct.example.pem").write_bytes((self.base / "k.pem").read_bytes())
            self.assertEqual(milter.sign(b"a@x.pct.example")[0]["d"], "x.pct.example")

    def test_a_mended_key_file_is_found_without_a_reload(self):
        path = self.base / "mended.pem"
        with LoneMilter(key_table=f"csl:a=example.com:s:{path}", signing_table="csl:example.com=a") as milter:
            for text in (None, "garbage", (self.base / "k.pem").read_text()[:900]):
                if text:
                    path.write_text(text)
                self.assertIsNone(milter.sign(b"a@example.com"))
            path.write_bytes((self.base / "k.pem").read_bytes())
            self.assertEqual(milter.sign(b"a@example.com")[0]["s"], "s")

    def test_bad_lines_are_told_with_file_and_line(self):
        (self.base / "bad").write_text(f"none\n# x\nmissing example.com:s:{self.base}/absent.pem\n"
                                       f"short example.org:s:{private_key(self.base / 's.pem', '-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:512')}\n")
        (self.base / "sign").write_text("*@example.com missing\n*@example.net\n*@example.org short\n")
        with LoneMilter(key_table=f"{self.base}/bad", signing_table=f"refile:{self.base}/sign") as milter:
            for sender in (b"a@example.com", b"a@example.net", b"a@example.org"):
                self.assertIsNone(milter.sign(sender))
            text = milter.text()
            for table, line in (("bad", 1), ("bad", 3), ("sign", 2)):
                self.assertRegex(text, f"{self.base}/{table}\\W.*LINE={line}\\b|table={self.base}/{table} line={line}\\b")
            self.assertIn("RSA of less than 1024", text)

    def test_other_databases_are_refused(self):
        for value in ("db:/etc/t", "/etc/t.db", "dsn:mysql://u@h/d", "ldap://h/b", "lua:/x", "mdb:/x"):
            done = subprocess.run([Layout().build / "bin/milter-dkim", "-t", "-o", f"key_table={value}", "-o", "signing_table=/x"],
                                  capture_output=True, text=True, timeout=120, check=False)
            self.assertEqual(done.returncode, 78, value)
            self.assertIn("key_table: tables of the type", done.stderr)


if __name__ == "__main__":
    unittest.main()
