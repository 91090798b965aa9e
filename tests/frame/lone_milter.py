"""milter-dkim alone, without a mail server: a daemon of the test's own in a folder
of its own, spoken to with tests/frame/milter.py."""
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

from tests.frame.layout import Layout
from tests.frame.milter import SOCKET, MilterClient
from tests.frame.wait import listens, wait_until

READY_S = 60


class LoneMilter:
    """`with LoneMilter(key_table=..., ...) as milter: milter.sign(b"a@example.com")`"""

    def __init__(self, build=None, **options):
        self.folder = tempfile.TemporaryDirectory(prefix="postern-milter-")
        self.base = pathlib.Path(self.folder.name)
        self.at = self
        self.build = build or Layout().build
        socket = self.path(SOCKET)
        socket.parent.mkdir(parents=True)
        self.state = self.base / "state"
        self.state.mkdir(mode=0o700)
        self.log = self.base / "log"
        self.options = {"listen": f"unix:{socket}", "role": "sign", "log_target": "stderr", "runtime_dir": self.base,
                        "state_dir": self.state, "resolver": "127.0.0.1:9", **options}
        self.process, self.started = None, None

    def path(self, name):
        return self.base / name.lstrip("/")

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()
        self.folder.cleanup()

    def configure(self, **options):
        self.options.update(options)
        (self.base / "conf").write_text("".join(f"{key} = {value}\n" for key, value in self.options.items()))

    def start(self):
        self.configure()
        self.started = time.monotonic()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([self.build / "bin/milter-dkim", "-c", self.base / "conf"], stderr=log,
                                            stdin=subprocess.DEVNULL)
        # Not to poll the socket would be to measure the poll.
        while not listens(self.path(SOCKET)):
            if self.process.poll() is not None:
                raise AssertionError(f"the daemon ended with {self.process.returncode}: {self.text()}")
            if time.monotonic() > self.started + READY_S:
                raise AssertionError("the daemon does not listen")
            time.sleep(0.005)

    def stop(self, number=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(60)

    def reload(self, **options):
        before = self.text()
        self.configure(**options)
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: re.search("reload|configuration", self.text()[len(before):]), what="reload")

    def text(self):
        return self.log.read_text(errors="replace")

    def rss_mb(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def sign(self, author):
        """The tags of each signature for a message of AUTHOR, from the top; None where it
        is deferred."""
        with MilterClient(self) as client:
            edits, verdict = client.message([(b"From", b" " + author), (b"Subject", b" x")], [b"x\r\n"])
        if verdict is None or verdict[0] == b"t" or (verdict[0] == b"y" and verdict[1][:1] == b"4"):
            return None
        signatures = []
        for command, data in edits:
            name, value = data[4:].rstrip(b"\0").split(b"\0", 1) if command == b"i" else (b"", b"")
            if name == b"DKIM-Signature":
                tags = (tag.partition("=") for tag in re.sub(r"\s", "", value.decode()).split(";"))
                signatures.append({key: value for key, _, value in tags})
        return signatures

    def wait_signed(self, author):
        return wait_until(lambda: self.sign(author), what=f"a signature for {author}")


def openssl(*argv, data=None):
    return subprocess.run(["openssl", *argv], input=data, capture_output=True, check=True).stdout


def private_key(path, *kind):
    """Writes a new key to PATH; RSA-2048 unless KIND says other."""
    path.write_bytes(openssl("genpkey", *(kind or ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"))))
    os.chmod(path, 0o600)
    return path
