"""quotad on a disk that is broken, full or slow (rows 16 and 17), with the real Dovecot: no delivery waits for
it or is refused, the limits hold in memory, and when the disk works again the rows become those of the
mailboxes without anybody's help."""
import contextlib
import subprocess

from tests.frame import mail, metrics
from tests.frame.layout import USERS
from tests.frame.quota import KB, FaultCase, body
from tests.frame.wait import traced

DAEMON = "quotad"
MESSAGES = 30


class Disk(FaultCase):
    CONVERGE_S = 60

    @contextlib.contextmanager
    def injected(self, what):
        """System calls of quotad fail, or take long, as strace's WHAT says."""
        pid = self.stack.pid(DAEMON)
        tracer = subprocess.Popen(["strace", "-f", "-q", "-o", "/dev/null", "-p", str(pid), "-e", f"inject={what}",
                                   "-e", f"trace={what.partition(':')[0]}"])
        try:
            self.wait_until(lambda: traced(pid), what="the tracer")
            yield
        finally:
            tracer.terminate()
            tracer.wait(60)
        self.assertEqual(self.stack.pid(DAEMON), pid)

    def unjournalled(self):
        return metrics.scrape(self.stack, DAEMON)["quotad_unjournalled_total"]

    def assert_broken_and_mended(self, what):
        before = self.unjournalled()
        with self.injected(what):
            self.assert_unmoved(MESSAGES)
            self.wait_until(lambda: self.unjournalled() > before, what="a change that is not in the journal")
            self.assertIn("a change is not in the journal", self.stack.log_tail(DAEMON, 200))
        self.assert_converged()

    def test_fsync_fails_with_eio(self):
        self.assert_broken_and_mended("fdatasync:error=EIO")

    def test_write_fails_with_enospc(self):
        self.assert_broken_and_mended("pwrite64:error=ENOSPC")

    def test_slow_disk_holds_nobody(self):
        with self.injected("fdatasync:delay_enter=1000000"):
            self.assert_unmoved(MESSAGES)
        self.assert_converged()

    def test_full_file_system(self):
        """A real one, which others have filled."""
        state = self.stack.at.path("/var/lib/postern/quotad")
        self.stack.stop(DAEMON)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=16m,mode=0700,uid={USERS[DAEMON]},gid={USERS[DAEMON]}",
                        "none", state], check=True)
        try:
            self.stack.start(DAEMON)
            self.assertEqual(self.deliver_timed(self.names, 6)[0], [250] * 6)
            self.assert_converges(self.names)
            filler, pid, before = state / "filler", self.stack.pid(DAEMON), self.unjournalled()
            with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * 4096)
            self.wait_until(lambda: self.deliver(self.names[0], body(KB))[0] == 250 and self.unjournalled() > before, 60,
                            "a change that is not in the journal")
            self.assert_unmoved(MESSAGES)
            self.assertEqual(self.stack.pid(DAEMON), pid)
            filler.unlink()
            self.assert_converges([*self.names, self.full], 60)
        finally:
            self.stack.stop(DAEMON)
            subprocess.run(["umount", state], check=True)
            self.stack.start(DAEMON)

    def test_started_on_a_full_file_system(self):
        """It says so and comes when there is room; until then the plug-in counts by itself."""
        state = self.stack.at.path("/var/lib/postern/quotad")
        self.stack.stop(DAEMON)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=64k,mode=0700,uid={USERS[DAEMON]},gid={USERS[DAEMON]}",
                        "none", state], check=True)
        try:
            filler = state / "filler"
            with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * 4096)
            conf = self.stack.at.path("/etc/postern/quotad.conf")
            done = subprocess.run([self.stack.at.path("/bin/quotad"), "-c", conf], user=USERS[DAEMON], group=USERS[DAEMON],
                                  extra_groups=[USERS["postern"]], capture_output=True, text=True, check=False, timeout=60)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("No space left on device", done.stderr)
            self.assert_unmoved(MESSAGES)
        finally:
            subprocess.run(["umount", state], check=True)
            self.stack.start(DAEMON)
        for user in [*self.names, self.full]:  # what came while it was away is counted at a contact
            with mail.Imap(self.stack, user):
                pass
        self.assert_converged()
