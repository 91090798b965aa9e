"""policyd-ratelimit on a disk that is full, broken or slow (rows 16 and 17): no mail waits for it, limits
go on in memory, and what memory knows is on the disk again as soon as that works."""
import signal
import subprocess
import tempfile
import time
import unittest

from tests.frame.lone_policyd import LonePolicyd
from tests.frame.policy import new_instance
from tests.frame.stack import run
from tests.frame.wait import traced, wait_until

LIMIT = "account messages 50/1h"
SYNC_S = 0.1
ANSWER_S = 3  # Postfix goes on without an answer then


class Disk(unittest.TestCase):
    def setUp(self):
        self.accounts = (f"a{number}" for number in range(1000000))

    @staticmethod
    def message(client, account):
        return client.ask(instance=new_instance(), sasl_username=account, protocol_state="END-OF-MESSAGE")

    def timed(self, daemon, account, count):
        """COUNT messages of ACCOUNT: the answers, and the slowest one's seconds."""
        answers, slowest = [], 0
        with daemon.client() as client:
            for _ in range(count):
                began = time.monotonic()
                answers.append(self.message(client, account)[:4])
                slowest = max(slowest, time.monotonic() - began)
        return answers, slowest

    def inject(self, daemon, what):
        """Fails system calls of the daemon's journal while the returned process runs."""
        tracer = subprocess.Popen(["strace", "-f", "-q", "-o", str(daemon.base / "trace"), "-p", str(daemon.pid),
                                   "-e", f"inject={what}", "-e", f"trace={what.partition(':')[0]}"])
        self.addCleanup(tracer.wait)
        self.addCleanup(tracer.kill)
        wait_until(lambda: traced(daemon.pid), what="the tracer")
        return tracer

    def broken_and_mended(self, what):
        """What must hold while WHAT fails, and after it."""
        with LonePolicyd(limit=LIMIT, journal_sync=f"{int(SYNC_S * 1000)}ms") as daemon:
            self.assertEqual(self.timed(daemon, "before", 20)[0], ["DUNN"] * 20)
            tracer = self.inject(daemon, what)
            wait_until(lambda: self.timed(daemon, next(self.accounts), 1) and "journal_failed" in daemon.text(),
                       what="the failure is told", interval=0.05)
            answers, slowest = self.timed(daemon, "during", 60)
            self.assertEqual(answers, ["DUNN"] * 50 + ["450 "] * 10)
            self.assertLess(slowest, ANSWER_S)
            self.assertGreater(daemon.metric("postern_policy_journal_failures_total"), 0)
            snapshots = daemon.metric("postern_policy_snapshots_total")
            tracer.send_signal(signal.SIGTERM)
            tracer.wait(60)
            wait_until(lambda: daemon.metric("postern_policy_snapshots_total") > snapshots, what="a snapshot")
            daemon.kill()
            daemon.start()
            # What was counted while the disk was broken is in it.
            self.assertEqual((daemon.used("account:before"), daemon.used("account:during")), (20, 50))
            self.assertEqual(self.timed(daemon, "during", 1)[0], ["450 "])

    def test_write_fails_with_enospc(self):
        self.broken_and_mended("pwrite64:error=ENOSPC")

    def test_fsync_fails_with_eio(self):
        self.broken_and_mended("fdatasync:error=EIO")

    def hanging(self, what):
        """No reply waits for a disk that hangs in WHAT for longer than Postfix would wait, and what was
        answered meanwhile is there after kill -9."""
        with LonePolicyd(limit=LIMIT, journal_sync=f"{int(SYNC_S * 1000)}ms") as daemon:
            self.inject(daemon, f"{what}:delay_enter={4 * ANSWER_S}000000")
            began = time.monotonic()
            self.assertEqual(self.timed(daemon, "slow", 20)[0], ["DUNN"] * 20)
            self.wait_for_call(daemon, what)
            answers, slowest = self.timed(daemon, "slow", 20)
            self.assertEqual(answers, ["DUNN"] * 20)
            self.assertLess(slowest, ANSWER_S)
            self.assertLess(time.monotonic() - began, 4 * ANSWER_S, "the disk still hangs")
            daemon.kill()
            daemon.start()
            self.assertEqual(daemon.used("account:slow"), 40)

    @staticmethod
    def wait_for_call(daemon, name):
        """Until the tracer has seen the daemon call NAME."""
        wait_until(lambda: name in (daemon.base / "trace").read_text(), what=f"{name} is called", interval=0.01)

    def test_sync_hangs(self):
        self.hanging("fdatasync")

    def test_write_hangs(self):
        self.hanging("pwrite64")

    def test_no_room_for_the_charges(self):
        """A file system in memory that is too small for them: said, and limits hold."""
        with tempfile.TemporaryDirectory(prefix="postern-run-") as folder:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0755", "none", folder], check=True)
            try:
                with LonePolicyd(limit=LIMIT, runtime_dir=folder) as daemon:
                    self.assertIn("journal_volatile", daemon.text())
                    answers, _ = self.timed(daemon, "small", 60)
                    self.assertEqual(answers, ["DUNN"] * 50 + ["450 "] * 10)
            finally:
                subprocess.run(["umount", folder], check=True)

    def test_no_room_for_a_snapshot(self):
        """A max_journal that holds no two snapshots: the log grows for one, says so, and nothing is lost."""
        windows = ", ".join(f"1000000/{days}d" for days in range(1, 9))  # of much to write for each message
        with LonePolicyd(limit=f"account messages {windows}", max_journal="64M") as daemon:
            run([daemon.build / "helpers/policy_load", f"unix:{daemon.socket}", 20, 250000, "keys"], timeout=300)
            wait_until(lambda: daemon.metric("postern_policy_snapshots_total") > 0, 60, "a snapshot")
            self.assertIn("journal_grown", daemon.text())
            failures = daemon.metric("postern_policy_journal_failures_total")
            self.assertEqual(self.timed(daemon, "late", 5)[0], ["DUNN"] * 5)
            self.assertEqual(daemon.metric("postern_policy_journal_failures_total"), failures)
            daemon.kill()
            daemon.start()
            self.assertEqual((daemon.used("account:late"), daemon.used("account:user7@example.test"),
                              daemon.used("account:user249999@example.test")), (5, 1, 1))

    def test_log_is_larger_than_it_may_be(self):
        """One that has grown, or a smaller max_journal: what is charged after a start is kept from the first on."""
        windows = ", ".join(f"1000000/{days}d" for days in range(1, 9))  # of much to write for each message
        with LonePolicyd(limit=f"account messages {windows}", max_journal="512M") as daemon:
            run([daemon.build / "helpers/policy_load", f"unix:{daemon.socket}", 20, 350000, "keys"], timeout=300)
            daemon.kill()
            self.assertGreater(sum(path.stat().st_size for path in daemon.state.rglob("*") if path.is_file()), 64 << 20)
            daemon.configure(max_journal="64M")
            daemon.start()
            self.assertIn("journal_grown", daemon.text())
            self.assertEqual(self.timed(daemon, "late", 500)[0], ["DUNN"] * 500)
            failures = daemon.metric("postern_policy_journal_failures_total")
            daemon.kill()
            daemon.start()
            self.assertEqual((daemon.used("account:late"), daemon.used("account:user7@example.test"), failures), (500, 1, 0))

    def test_full_file_system(self):
        """A real one, of 2 MB: filled by others, the daemon goes on, and writes when there is room."""
        with LonePolicyd() as daemon:
            daemon.stop()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "none", daemon.state], check=True)
            try:
                daemon.configure(limit=LIMIT, journal_sync="100ms")
                daemon.start()
                self.assertEqual(self.timed(daemon, "before", 20)[0], ["DUNN"] * 20)
                filler = daemon.state / "filler"
                with open(filler, "wb", buffering=0) as file, self.assertRaises(OSError):
                    while True:
                        file.write(b"x" * 4096)
                wait_until(lambda: self.timed(daemon, next(self.accounts), 20) and "journal_failed" in daemon.text(),
                           what="the failure is told", interval=0.01)
                answers, slowest = self.timed(daemon, "during", 60)
                self.assertEqual(answers, ["DUNN"] * 50 + ["450 "] * 10)
                self.assertLess(slowest, ANSWER_S)
                snapshots = daemon.metric("postern_policy_snapshots_total")
                filler.unlink()
                wait_until(lambda: daemon.metric("postern_policy_snapshots_total") > snapshots, what="a snapshot")
                daemon.kill()
                daemon.start()
                self.assertEqual((daemon.used("account:before"), daemon.used("account:during")), (20, 50))
                daemon.stop()
            finally:
                daemon.stop()
                subprocess.run(["umount", daemon.state], check=True)
