"""quotad stopped, without descriptors or memory, under a clock that jumps, reloaded again and again, and with
a broken configuration (rows 7, 21 to 23, 26, 27), with the real Dovecot: mail is taken, limits hold, and the
rows are those of the mailboxes in the end."""
import contextlib
import os
import pathlib
import re
import resource
import signal
import socket
import threading
import time

from tests.frame import mail
from tests.frame.clock import WallClock
from tests.frame.quota import KB, FaultCase, body

DAEMON = "quotad"
SPARE_DESCRIPTORS = 6
# The plug-in's 500 ms and what a busy machine needs for the delivery itself.
MAX_S = 0.5 + 0.7
STOP_S = 15  # half of the unit's TimeoutStopSec


class TightCase(FaultCase):
    MAX_S = MAX_S

    @contextlib.contextmanager
    def unit(self, *lines):
        """quotad runs with LINES more in the section [Service] of its unit."""
        path = self.stack.at.path(f"/etc/systemd/{DAEMON}.service")
        before = path.read_text()
        path.write_text(before.replace("[Service]\n", "[Service]\n" + "".join(f"{line}\n" for line in lines), 1))
        self.stack.restart(DAEMON)
        try:
            yield
        finally:
            path.write_text(before)
            self.stack.restart(DAEMON)

    def client(self):
        """A mail process that has greeted."""
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        client.settimeout(10)
        client.connect(str(self.stack.at.path("/run/postern/quotad.sock")))
        client.sendall(b"HELLO\t2\t%d\n" % (os.getpid() << 20 | id(client) & 0xfffff))
        return client

    @staticmethod
    def ask(client, user):
        """quotad's answer to LOOKUP: "" where it closed the connection, None without one in time."""
        try:
            client.sendall(f"LOOKUP\t{user}\n".encode())
            return client.recv(1024).decode()
        except TimeoutError:
            return None
        except ConnectionError:
            return ""


class Stopped(TightCase):
    """Row 7."""

    def test_stopped_and_killed_by_the_watchdog(self):
        path = self.stack.at.path(f"/etc/systemd/{DAEMON}.service")
        self.assertRegex(path.read_text(), r"(?m)^WatchdogSec=\d+s$")
        with self.unit():
            path.write_text(re.sub(r"(?m)^WatchdogSec=.*$", "WatchdogSec=3s", path.read_text()))
            self.stack.restart(DAEMON)
            pid = self.stack.kill(DAEMON, signal.SIGSTOP)
            self.assert_unmoved()
            self.wait_until(lambda: self.pid not in (None, pid), what="the next life")
            self.assert_converged()

    def test_what_a_session_expunged_meanwhile(self):
        """It is told to one that hangs, the session ends, and the one that was told ends before it reads it."""
        with mail.Imap(self.stack, self.names[0]) as imap:
            imap.select()
            uids = imap.uids()
            pid = self.stack.kill(DAEMON, signal.SIGSTOP)
            imap.expunge(uids)
        self.taken -= len(uids)
        self.stack.kill(DAEMON)
        self.wait_until(lambda: self.pid not in (None, pid), what="the next life")
        self.assertEqual(self.files(self.names[0]), (0, 0))
        self.assert_converged()

    def test_it_goes_on_after_a_pause(self):
        pid = self.stack.kill(DAEMON, signal.SIGSTOP)
        try:
            self.assert_unmoved()
        finally:
            os.kill(pid, signal.SIGCONT)
        self.assert_converged()
        self.assertEqual(self.pid, pid)


class Counting(TightCase):
    """Dovecot hangs while it counts for quotad."""

    def test_it_holds_up_no_stop(self):
        path = self.stack.at.path("/run/dovecot/postern-recount")
        with socket.socket(socket.AF_UNIX) as dovecot:
            self.stack.stop("dovecot")
            path.unlink(missing_ok=True)
            dovecot.bind(str(path))
            path.chmod(0o666)
            dovecot.listen()
            dovecot.settimeout(60)
            self.client().sendall(f"STALE\t{self.names[0]}\n".encode())
            with dovecot.accept()[0]:
                began = time.monotonic()
                self.stack.stop(DAEMON)
                self.assertLess(time.monotonic() - began, STOP_S)
        path.unlink()
        self.stack.start(DAEMON, "dovecot")
        self.assert_converged()


class Descriptors(TightCase):
    """Row 21."""

    def cpu_seconds(self):
        values = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")

    def test_shed_and_recover(self):
        pid = self.pid
        self.stack.restart("dovecot")  # its processes have to connect anew
        self.wait_until(lambda: self.metric("postern_connections", DAEMON) == 0)
        self.stack.limit(DAEMON, "nofile", len(os.listdir(f"/proc/{pid}/fd")) + SPARE_DESCRIPTORS)
        try:
            with contextlib.ExitStack() as held:
                served = 0
                for _ in range(SPARE_DESCRIPTORS * 3):
                    client = held.enter_context(self.client())
                    client.settimeout(0.3)
                    served += bool(self.ask(client, self.names[0]))
                # One that was closing when they were counted, of the metrics, may be free by now.
                self.assertIn(served, range(1, SPARE_DESCRIPTORS + 3))
                before, began = self.cpu_seconds(), time.monotonic()
                self.wait_until(lambda: time.monotonic() - began >= 1, 5)
                self.assertLess(self.cpu_seconds() - before, 0.3, "it spins")
                self.assert_unmoved()
            self.wait_until(lambda: self.ask(self.client(), self.names[0]), what="those who waited are served")
        finally:
            self.stack.limit(DAEMON, "nofile", 16384)
        self.assert_unmoved()
        self.assert_converged()
        self.assertEqual(self.pid, pid)


class Memory(TightCase):
    """Row 22."""

    def test_without_memory_it_ends_and_comes_back_with_all_usage(self):
        pid = self.pid
        pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[0])
        self.stack.limit(DAEMON, "as", pages * resource.getpagesize() // 2)  # nothing more
        client = self.client()
        for number in range(400000):  # new users want new memory
            if not self.ask(client, f"nobody{number}@nowhere.example"):
                break
        self.assert_unmoved()
        self.wait_until(lambda: self.pid not in (None, pid), what="the next life")
        self.assert_unmoved()
        self.assert_converged()


class Clock(TightCase):
    """Row 23."""

    def test_a_day_forward_and_back(self):
        clock = WallClock(self.stack.at.path("/run/offset"))
        self.addCleanup(clock.path.unlink)
        with self.unit(*(f"Environment={name}={value}" for name, value in clock.environment.items())):
            for days in (1, -1, 0, 3, -400):
                with self.subTest(days=days):
                    clock.set_days(days)
                    self.assert_unmoved(6)
                    self.assert_converged()  # an older stamp would not replace the row
            for days in (2, -2):  # and where it starts under another clock
                with self.subTest(start=days):
                    clock.set_days(days)
                    pid = self.stack.kill(DAEMON)
                    self.wait_until(lambda pid=pid: self.pid not in (None, pid), what="the next life")
                    self.assert_unmoved(6)
                    self.assert_converged()
        self.assert_unmoved(6)
        self.assert_converged()


class Reload(TightCase):
    """Rows 26 and 27."""

    def test_each_100_ms_under_load(self):
        pid, done, client = self.pid, threading.Event(), self.client()

        def reload():
            while not done.wait(0.1):
                self.stack.reload(DAEMON)

        worker = threading.Thread(target=reload)
        worker.start()
        try:
            codes = self.deliver_all([(self.names[i % 3], body(3 * KB)) for i in range(150)])
            self.assertTrue(self.ask(client, self.full).startswith("OK\t"))
            self.assertEqual(self.deliver_timed([self.full], 2, 200 * KB)[0], [552] * 2)
        finally:
            done.set()
            worker.join()
        self.taken += 150
        self.assertEqual(codes, [250] * 150)
        self.assertTrue(self.ask(client, self.full).startswith("OK\t"))  # no connection was dropped
        self.assert_converged()
        self.assertEqual(self.pid, pid)

    def test_a_bad_file_leaves_the_old_one_in_force(self):
        path = self.stack.at.path(f"/etc/postern/{DAEMON}.conf")
        before, pid, log = path.read_text(), self.pid, self.stack.log_file(DAEMON)
        for line in ("max_users = 0", "no_such_key = 1", "poll_interval = soon", "max_users = 100\nmax_users = 200",
                     "listen = nowhere", "database_password_file = /nonexistent"):
            with self.subTest(line):
                seen = log.read_text(errors="replace").count("config_rejected")
                path.write_text(f"{before}\n{line}\n")
                try:
                    self.stack.reload(DAEMON)
                    self.wait_until(lambda seen=seen: log.read_text(errors="replace").count("config_rejected") > seen,
                                    what="config_rejected")
                    self.assert_unmoved(3)
                finally:
                    path.write_text(before)
        self.assertEqual(self.pid, pid)
        self.assert_converged()
