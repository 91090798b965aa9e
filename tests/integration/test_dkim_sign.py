"""`postern dkim sign`: its output, checked with opendkim, and its exit codes."""
import pathlib
import re
import subprocess
import tempfile
import unittest

from tests.frame.layout import Layout

HEADER = "From: A <a@example.com>\nTo: b@example.net\nSubject: folded\n  twice  \nDate: today\n"
BODIES = ("\nSome  text\twith blanks \n\nand more\n\n\n", "\nno line end", "\n", "")


class Sign(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        base = pathlib.Path(cls.folder.name)
        cls.key, cls.ed25519 = base / "rsa.pem", base / "ed25519.pem"
        subprocess.run(["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", cls.key],
                       check=True, capture_output=True)
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", cls.ed25519], check=True)
        public = subprocess.run(["openssl", "pkey", "-in", cls.key, "-pubout"], check=True, capture_output=True)
        p = "".join(line for line in public.stdout.decode().splitlines() if not line.startswith("-"))
        (base / "records").write_text(f"s._domainkey.example.com v=DKIM1; k=rsa; p={p}\n")
        cls.conf = base / "opendkim.conf"
        cls.conf.write_text(f"TestDNSData {base}/records\n")

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def sign(self, data, *options, key=None):
        argv = [Layout().build / "bin/postern", "dkim", "sign", "--domain", "example.com", "--selector", "s",
                "--key", key or self.key, *options]
        return subprocess.run(argv, input=data, capture_output=True, check=False)

    def test_opendkim_verifies_all_forms(self):
        for eol in ("\n", "\r\n"):
            for body in BODIES:
                for pair in ("relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"):
                    data = (HEADER + body).replace("\n", eol).encode()
                    with self.subTest(eol=eol, body=body, pair=pair):
                        done = self.sign(data, "--canonicalization", pair)
                        self.assertEqual(done.returncode, 0, done.stderr)
                        self.assertTrue(done.stdout.endswith(data), "the message itself is unchanged")
                        if eol == "\r\n":
                            self.assertNotRegex(done.stdout, rb"[^\r]\n")
                        # Sent by SMTP the last line gets its end.
                        sent = done.stdout if done.stdout.endswith(b"\n") else done.stdout + eol.encode()
                        check = subprocess.run(["opendkim", "-x", self.conf, "-v", "-t", "-"], input=sent,
                                               capture_output=True, check=False)
                        self.assertIn(b"succeeded", check.stdout + check.stderr)

    def test_same_input_gives_same_bytes(self):
        for key in (self.key, self.ed25519):
            first, second = (self.sign(HEADER.encode(), "--now", "1700000000", key=key).stdout for _ in range(2))
            self.assertEqual(first, second)
            self.assertIn(b"t=1700000000;", first)

    def test_headers_are_those_asked_for(self):
        text = self.sign(HEADER.encode(), "--headers", "from:subject:subject").stdout.decode()
        self.assertIn("h=from:subject:subject;", re.sub(r"\n\t", "", text))

    def test_exit_codes(self):
        self.assertEqual(self.sign(b"no message\n").returncode, 65)
        self.assertEqual(self.sign(b"").returncode, 65)
        self.assertEqual(self.sign(HEADER.encode(), key="/nonexistent").returncode, 66)
        self.assertEqual(self.sign(HEADER.encode(), key=self.conf).returncode, 66)
        self.assertEqual(self.sign(HEADER.encode(), "--headers", "to:subject").returncode, 64)
        self.assertEqual(self.sign(HEADER.encode(), "--canonicalization", "strict").returncode, 64)
        self.assertEqual(self.sign(HEADER.encode(), "--now", "yesterday").returncode, 64)


if __name__ == "__main__":
    unittest.main()
