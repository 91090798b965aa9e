"""`postern dkim sign`: its output, checked with opendkim, and its exit codes."""
import base64
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
        names = {"--domain": "example.com", "--selector": "s"}
        argv = [Layout().build / "bin/postern", "dkim", "sign", "--key", key or self.key, *options,
                *(word for name, value in names.items() if name not in options for word in (name, value))]
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

    def test_what_cannot_be_written_is_no_success(self):
        for size in (0, 1, 4096, 1000000):
            argv = [Layout().build / "bin/postern", "dkim", "sign", "--key", self.ed25519, "--domain", "example.com",
                    "--selector", "s"]
            with self.subTest(size=size), open("/dev/full", "wb") as full:
                done = subprocess.run(argv, input=HEADER.encode() + b"\n" + b"x" * size, stdout=full,
                                      stderr=subprocess.PIPE, check=False)
                self.assertEqual((done.returncode, done.stderr), (74, b"postern: cannot write the output\n"))

    def test_same_input_gives_same_bytes(self):
        for key in (self.key, self.ed25519):
            first, second = (self.sign(HEADER.encode(), "--now", "1700000000", key=key).stdout for _ in range(2))
            self.assertEqual(first, second)
            self.assertIn(b"t=1700000000;", first)

    def test_headers_are_those_asked_for(self):
        text = self.sign(HEADER.encode(), "--headers", "from:subject:subject").stdout.decode()
        self.assertIn("h=from:subject:subject;", re.sub(r"\n\t", "", text))

    def test_order_of_headers_is_kept(self):
        text = self.sign(HEADER.encode(), "--headers", "To : x-absent:FROM:to").stdout.decode()
        self.assertIn("h=To:x-absent:FROM:to;", re.sub(r"\n\t", "", text))

    def test_names_in_unicode_become_a_labels(self):
        for options, tag in ((("--domain", "b\u00fccher.example"), "d=xn--bcher-kva.example;"),
                             (("--selector", "s\u00fc"), "s=xn--s-eha;")):
            text = self.sign(HEADER.encode(), *options).stdout.decode()
            self.assertIn(tag, text)

    def test_just_these_tags(self):
        for key in (self.key, self.ed25519):
            value = self.sign(HEADER.encode(), key=key).stdout.decode().partition("\nFrom:")[0]
            tags = [tag.strip().partition("=")[0] for tag in value.partition(":")[2].split(";")]
            self.assertEqual(tags, ["v", "a", "c", "d", "s", "t", "h", "bh", "b"])

    def test_forms_of_keys(self):
        base = pathlib.Path(self.folder.name)
        plain = self.sign(HEADER.encode(), "--now", "1").stdout
        for form in (["-traditional"], ["-traditional", "-outform", "DER"]):
            data = subprocess.run(["openssl", "rsa", "-in", self.key, *form], check=True, capture_output=True).stdout
            (base / "form").write_bytes(base64.b64encode(data) if "DER" in form else data)
            self.assertEqual(self.sign(HEADER.encode(), "--now", "1", key=base / "form").stdout, plain)
        # The key of RFC 8463 as it stands there.
        (base / "seed").write_text("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=\n")
        self.assertIn(b"a=ed25519-sha256;", self.sign(HEADER.encode(), key=base / "seed").stdout)

    def test_keys_that_cannot_sign(self):
        base = pathlib.Path(self.folder.name)
        for argv, why in ((["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:512"], b"RSA of less than 1024"),
                          (["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], b"neither an RSA nor"),
                          (["-algorithm", "ed25519", "-aes256", "-pass", "pass:x"], b"without a passphrase")):
            subprocess.run(["openssl", "genpkey", *argv, "-out", base / "bad"], check=True, capture_output=True)
            done = self.sign(HEADER.encode(), key=base / "bad")
            self.assertEqual(done.returncode, 66)
            self.assertIn(str(base / "bad").encode(), done.stderr)
            self.assertIn(why, done.stderr)
        (base / "bad").write_text(self.key.read_text()[:500])
        self.assertEqual(self.sign(HEADER.encode(), key=base / "bad").returncode, 66)

    def test_what_is_the_line_of_a_mailbox_and_what_a_field(self):
        for first, signed in ((b"From a@b.example Mon Nov 23 04:00:00 2026\nFrom: a@example.com\n", 1),
                              (b"From : a@example.com\n", 0), (b"From \t: a@example.com\n", 0)):
            done = self.sign(first + b"Subject: x\n\nx\n")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertTrue(done.stdout.split(b"\n")[signed].startswith(b"DKIM-Signature:"), done.stdout)

    def test_exit_codes(self):
        self.assertEqual(self.sign(b"Subject: x\n\nx\n").returncode, 65)
        self.assertEqual(self.sign(HEADER.encode(), "--headers", "").returncode, 64)
        self.assertEqual(self.sign(HEADER.encode(), "--headers", "from::to").returncode, 64)
        self.assertEqual(self.sign(HEADER.encode(), "--domain", "a;b").returncode, 64)
        self.assertEqual(self.sign(HEADER.encode(), "--domain", "a b.example").returncode, 64)
        self.assertEqual(self.sign(HEADER.encode(), "--selector", "").returncode, 64)
        self.assertEqual(self.sign(b"no message\n").returncode, 65)
        self.assertEqual(self.sign(b"").returncode, 65)
        self.assertEqual(self.sign(HEADER.encode(), key="/nonexistent").returncode, 66)
        self.assertEqual(self.sign(HEADER.encode(), key=self.conf).returncode, 66)
        self.assertEqual(self.sign(HEADER.encode(), "--headers", "to:subject").returncode, 64)
        self.assertEqual(self.sign(HEADER.encode(), "--canonicalization", "strict").returncode, 64)
        self.assertEqual(self.sign(HEADER.encode(), "--now", "yesterday").returncode, 64)


if __name__ == "__main__":
    unittest.main()
