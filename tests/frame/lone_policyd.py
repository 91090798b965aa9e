"""policyd-ratelimit alone, without a mail server: a daemon of the test's own in a folder of its own."""
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import tempfile

from tests.frame.layout import Layout
from tests.frame.metrics import scrape_socket
from tests.frame.policy import PATIENCE_S, PolicyClient
from tests.frame.stack import run
from tests.frame.wait import wait_until

READY_S = 120


class LonePolicyd:
    """`with LonePolicyd(limit="account messages 5/1h") as daemon: daemon.client().ask(...)`

    PREFIX is put before the command (strace), ENVIRONMENT added to ours; an option that is a list
    is repeated.
    """

    def __init__(self, prefix=(), environment=None, state=None, **options):
        self.folder = tempfile.TemporaryDirectory(prefix="postern-policyd-")
        self.base = pathlib.Path(self.folder.name)
        self.build = Layout().build
        self.prefix, self.environment = list(prefix), environment or {}
        self.state = state or self.base / "state"
        self.state.mkdir(mode=0o700, exist_ok=True)
        self.socket = self.base / "policyd.sock"
        self.log = self.base / "log"
        self.options = {"listen": f"unix:{self.socket}", "log_target": "stderr", "runtime_dir": self.base, "state_dir": self.state, **options}
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()
        self.folder.cleanup()

    def configure(self, **options):
        self.options.update(options)
        lines = [f"{key} = {one}\n" for key, value in self.options.items()
                 for one in (value if isinstance(value, list) else [value])]
        (self.base / "conf").write_text("".join(lines))

    def start(self):
        self.configure()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([*self.prefix, self.build / "bin/policyd-ratelimit", "-c", self.base / "conf"],
                                            stderr=log, stdout=log, stdin=subprocess.DEVNULL,
                                            env=os.environ | self.environment)

        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"the daemon ended with {self.process.returncode}: {self.text()}")
            with contextlib.suppress(OSError), self.client():
                return True

        wait_until(ready, READY_S, "the daemon listens", interval=0.01)

    @property
    def pid(self):
        """Of the daemon itself, also where it runs under another program."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0]) if self.prefix and children else self.process.pid

    def client(self, timeout=PATIENCE_S):
        return PolicyClient(self.socket, timeout)

    def text(self):
        return self.log.read_text(errors="replace")

    def metric(self, name):
        return scrape_socket(f"{self.base}/policyd-ratelimit.metrics.sock")[name]

    def limits(self, *words):
        path = self.base / "postern.conf"
        path.write_text(f"runtime_dir = {self.base}\n")
        return json.loads(run([self.build / "bin/postern", "-c", path, "limits", *words, "--json"]))

    def used(self, key):
        return max((window["used"] for window in self.limits("show", key)["windows"]), default=0)

    def kill(self, number=signal.SIGKILL):
        os.kill(self.pid, number)
        if number == signal.SIGKILL:
            self.process.wait(60)

    def reload(self, **options):
        self.configure(**options)
        os.kill(self.pid, signal.SIGHUP)

    def stop(self):
        if self.process and self.process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
            self.process.wait(60)
