"""milter-dkim over very many messages: memory and descriptors stay as they are.

MEMORY_MESSAGES (24000) makes it longer; CONTRIBUTING.md asks for 200000.
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import unittest

from tests.dns.dnsd import Server
from tests.frame.wait import listens, wait_until

REPO = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("POSTERN_BUILD", REPO / "build"))
MESSAGES = int(os.environ.get("MEMORY_MESSAGES", "24000"))
WARM_UP = 6000
LEAK_BYTES = 60  # a message; a leak of 100 must show
NOISE_BYTES = 128 << 10
REST_MAX_MB = 24
BODY_BYTES = 200 << 20
SPF = "v=spf1 ip4:192.0.2.0/24 -all"
HEAD = "From: A <sales@bench.example>\nTo: to@sink.example\nSubject: {subject}\nDate: Mon, 23 Nov 2026 00:00:00 +0000\n"
BODY = "".join(f"Line {n} of the body of a message.\n" for n in range(100))


def run(*argv, **more):
    return subprocess.run([str(a) for a in argv], capture_output=True, check=True, timeout=120, **more).stdout


def openssl_key(path):
    """Makes the RSA key PATH; returns p= of its record."""
    run("openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", path)
    path.chmod(0o600)
    public = run("openssl", "pkey", "-in", path, "-pubout", text=True).splitlines()
    return "".join(line for line in public if not line.startswith("-"))


class Memory(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="postern-load-"))
        self.addCleanup(shutil.rmtree, self.folder)
        key = self.folder / "key.pem"
        zone = {"bench.example": [["TXT", SPF]], "mail.bench.example": [["TXT", SPF]],
                "s._domainkey.bench.example": [["TXT", "v=DKIM1; p=" + openssl_key(key)]],
                "_dmarc.bench.example": [["TXT", "v=DMARC1; p=none"]],
                "_dmarc.broken.example": [["SERVFAIL"]]}
        self.dns = Server(zone)
        self.addCleanup(self.dns.close)
        (self.folder / "KeyTable").write_text(f"k bench.example:s:{key}\n")
        (self.folder / "SigningTable").write_text("*@bench.example k\n")
        self.mails = self.write_mails(key)
        self.milter = self.start()

    def write_mails(self, key):
        plain = HEAD.format(subject="plain") + "\n" + BODY
        signer = (BUILD / "bin/postern", "dkim", "sign", "--domain", "bench.example", "--selector", "s", "--key", key)
        signed = run(*signer, input=plain, text=True)
        texts = {
            "plain": plain,
            "signed": signed,
            "changed": signed.replace("Subject: plain", "Subject: changed"),
            "many": HEAD.format(subject="many fields") + "".join(f"X-Field-{n}: {'v' * 200}\n" for n in range(200)) + "\n" + BODY,
            "forged": "Authentication-Results: bench.example.com; spf=pass\n" * 5 + plain,
            "arc": "ARC-Seal: i=1; a=rsa-sha256; cv=none; d=bench.example; s=s; b=AAAA\n" + plain,
            "broken": HEAD.format(subject="no DNS").replace("bench.example", "broken.example") + "\n" + BODY,
            "garbage": "From: <<>>, @;\nDKIM-Signature: v=1; ;;=\n\n" + BODY,
        }
        paths = []
        for name, text in texts.items():
            paths.append(self.folder / f"{name}.eml")
            paths[-1].write_text(text)
        return paths

    def start(self):
        self.socket = self.folder / "milter.sock"
        config = self.folder / "milter.conf"
        config.write_text("\n".join([
            f"listen = unix:{self.socket}", f"key_table = {self.folder}/KeyTable",
            f"signing_table = refile:{self.folder}/SigningTable", f"resolver = {self.dns.address}",
            f"runtime_dir = {self.folder}", f"state_dir = {self.folder}", "authserv_id = bench.example.com",
            "log_target = stderr", ""]))
        with open(self.folder / "log", "wb") as log:
            milter = subprocess.Popen([BUILD / "bin/milter-dkim", "-c", config], stderr=log)
        self.addCleanup(self.end, milter)
        wait_until(lambda: milter.poll() is not None or listens(self.socket), what="the milter's socket")
        return milter

    @staticmethod
    def end(milter):
        if milter.poll() is None:
            milter.send_signal(signal.SIGTERM)
            milter.wait(20)

    def load(self, count, *options, mails=None):
        argv = (BUILD / "helpers/milter_load", "-p", self.milter.pid, "-n", count, *options, self.socket)
        done = subprocess.run([str(a) for a in (*argv, *(mails or self.mails))], capture_output=True, text=True,
                              timeout=1800, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def mixed(self, count):
        """Half of COUNT judged and half signed, each tenth goes wrong."""
        half = count // 2
        judged = self.load(half, "-x", "-k", "7", "-c", "8")
        signed = self.load(half, "-x", "-k", "7", "-c", "8", "-l", "sales")
        self.assertEqual(judged["accepted"] + judged["broken"], half)
        self.assertEqual(signed["accepted"] + signed["broken"], half)
        self.assertGreater(judged["broken"], half // 20)
        return signed

    def peak_kb(self):
        status = pathlib.Path(f"/proc/{self.milter.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0])

    def files(self):
        return len(os.listdir(f"/proc/{self.milter.pid}/fd"))

    def test_memory_stays_flat(self):
        at_rest = self.files()
        before = self.mixed(WARM_UP)
        self.assertLess(before["memory_kb"], REST_MAX_MB << 10)
        step = before
        for done in range(MESSAGES // 4, MESSAGES + 1, MESSAGES // 4):
            step = self.mixed(MESSAGES // 4)
            print(f"memory after {WARM_UP + done} messages: {step['memory_kb']} KB, {step['files']} files", flush=True)
        grown = (step["memory_kb"] - before["memory_kb"]) * 1024
        self.assertLess(grown, LEAK_BYTES * MESSAGES + NOISE_BYTES)
        # The last connections may still be closing; UDP sockets go when their answers are there.
        wait_until(lambda: self.files() <= at_rest, what=f"no more than {at_rest} descriptors")

    def test_a_body_without_lines_takes_no_memory(self):
        self.load(100)
        before = self.peak_kb()
        done = self.load(1, "-b", BODY_BYTES, mails=self.mails[1:2])
        self.assertEqual(done["accepted"], 1)
        self.assertLess(self.peak_kb() - before, 1024)


if __name__ == "__main__":
    unittest.main()
