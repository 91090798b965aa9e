"""policyd-ratelimit without descriptors or memory, beset by slow clients and by ten thousand
connections, with a broken configuration, and with a log that nobody reads."""
import contextlib
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import time

from tests.frame.layout import REPO, Layout
from tests.frame.lone_policyd import LonePolicyd
from tests.frame.mail import message, smtp
from tests.frame.metrics import metrics_socket
from tests.frame.policy import new_instance
from tests.frame.policy_case import DAEMON, SENDER, PolicyCase

SPARE_DESCRIPTORS = 8
METRICS_CONNECTIONS = 16
CONTROL_CONNECTIONS = 32
MANY = 10000
MANY_MB = 64
FLOOD = 3000
PATIENCE_S = 2  # for one answer on a busy machine


class LimitCase(PolicyCase):
    @property
    def pid(self):
        return self.stack.pid(DAEMON)

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory_mb(self):
        fields = pathlib.Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * resource.getpagesize() / (1 << 20)

    def cpu_seconds(self):
        values = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")

    def assert_works(self):
        source = self.new_source()
        with self.client() as client:
            self.assertEqual(self.send_message(client, client_address=source), "DUNNO")
        self.assertEqual(self.used(source), 1)


class Descriptors(LimitCase):
    """Row 21."""

    def test_shed_and_recover(self):
        pid, user = self.pid, self.new_user()
        self.stack.limit(DAEMON, "nofile", self.descriptors() + SPARE_DESCRIPTORS)
        try:
            with contextlib.ExitStack() as clients:
                served = 0
                for _ in range(SPARE_DESCRIPTORS * 3):
                    client = clients.enter_context(self.client(timeout=0.2))
                    with contextlib.suppress(TimeoutError):  # in the backlog
                        served += client.ask(instance=new_instance(), client_address=self.new_source()) == "DUNNO"
                self.assertTrue(0 < served <= SPARE_DESCRIPTORS + 1, served)
                before, began = self.cpu_seconds(), time.monotonic()
                self.wait_until(lambda: time.monotonic() - began >= 1, 5)
                self.assertLess(self.cpu_seconds() - before, 0.3, "it spins")
                with smtp(self.stack, self.new_source()) as mail:  # Postfix passes mail meanwhile
                    self.assertEqual(mail.sendmail(SENDER, [user], message(SENDER, user)), {})
            self.wait_until(self.served, what="those who waited are served")
            self.assertEqual(self.pid, pid)
        finally:
            self.stack.limit(DAEMON, "nofile", 16384)
        self.assert_works()

    def served(self):
        try:
            with self.client(timeout=1) as client:
                return client.ask(instance=new_instance(), client_address=self.new_source()) == "DUNNO"
        except OSError:
            return False


class Memory(LimitCase):
    """Row 22."""

    def test_without_memory_it_ends_and_comes_back_with_its_counts(self):
        """Out of memory a daemon ends; Postfix lets mail pass; the next life has all counts."""
        source, user, pid = self.new_source(), self.new_user(), self.pid
        with self.client() as client:
            for _ in range(3):
                self.assertEqual(self.send_message(client, client_address=source), "DUNNO")
        pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[0])
        self.stack.limit(DAEMON, "as", pages * resource.getpagesize() // 2)  # nothing more
        with contextlib.suppress(OSError), self.client() as client:
            for number in range(200000):  # new keys want new memory
                address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
                if client.ask(instance=new_instance(), protocol_state="END-OF-MESSAGE", client_address=address) is None:
                    break
                if number % 1000 == 0 and self.pid != pid:
                    break
        with smtp(self.stack, self.new_source()) as mail:
            self.assertEqual(mail.sendmail(SENDER, [user], message(SENDER, user)), {})
        self.wait_until(lambda: self.pid not in (None, pid), what="the next life")
        self.assertEqual(self.used(source), 3)
        self.assert_works()


class Many(LimitCase):
    """Ten thousand connections, and slow ones on every socket (row 24)."""

    def setUp(self):
        super().setUp()
        self.before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (MANY + 1000, max(self.before[1], MANY + 1000)))

    def tearDown(self):
        resource.setrlimit(resource.RLIMIT_NOFILE, self.before)
        super().tearDown()

    def test_ten_thousand_connections_and_one_more(self):
        before, spare = self.memory_mb(), MANY - int(self.metric("postern_connections", DAEMON))
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(self.client(60)) for _ in range(spare)]
            for begin in range(0, spare, 500):  # all stay open
                for number, client in enumerate(clients[begin:begin + 500], begin):
                    client.send(instance=new_instance(), client_address=f"10.1.{number >> 8}.{number & 255}")
                self.assertEqual({client.receive() for client in clients[begin:begin + 500]}, {"DUNNO"})
            self.wait_until(lambda: self.metric("postern_connections", DAEMON) == MANY, what="all of them")
            self.assertLess(self.memory_mb() - before, MANY_MB)
            with self.client() as more:  # the cap: closed at once, and Postfix goes on without
                with contextlib.suppress(OSError):
                    self.assertIsNone(more.ask(instance=new_instance()))
            self.assertEqual(clients[0].ask(instance=new_instance(), client_address="10.1.0.0"), "DUNNO")
        self.wait_until(lambda: self.metric("postern_connections", DAEMON) < 100, what="their end")
        self.assert_works()

    def test_half_a_request_is_closed_after_the_idle_timeout(self):
        with self.configured(DAEMON, idle_timeout="4s"), contextlib.ExitStack() as stack:
            slow = [stack.enter_context(self.client()) for _ in range(50)]
            for client in slow:
                client.socket.sendall(b"request=smtpd_access_policy\nprotocol_st")
            self.assert_works()
            began = time.monotonic()
            self.assertEqual({client.receive() for client in slow}, {None})
            self.assertLess(time.monotonic() - began, 20)
            # A byte now and then keeps a connection, and nothing grows.
            with self.client() as client:
                began = time.monotonic()
                for number, byte in enumerate(b"request=smtpd_access_policy\n\n"[:20], 1):
                    client.socket.sendall(bytes([byte]))
                    self.assert_works()
                    self.wait_until(lambda n=number: time.monotonic() - began >= n * 0.3)

    def test_one_that_does_not_read_its_answers(self):
        with self.client() as client:
            client.socket.setblocking(False)
            request = f"request=smtpd_access_policy\ninstance={new_instance()}\nprotocol_state=RCPT\n\n".encode() * 100
            with contextlib.suppress(OSError):
                for _ in range(1000):
                    client.socket.sendall(request)
            self.assert_works()
            self.assertLess(self.memory_mb(), 128)

    def flood(self, path, count, beginning):
        with contextlib.ExitStack() as clients:
            for _ in range(count):
                sock = clients.enter_context(socket.socket(socket.AF_UNIX))
                sock.connect(path)
                with contextlib.suppress(BrokenPipeError):
                    sock.sendall(beginning)
            sock.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                self.assertEqual(sock.recv(1), b"", "one too many is closed at once")
            with self.client() as client:
                self.assertEqual(self.send_message(client, client_address=self.new_source()), "DUNNO")

    def test_slow_clients_of_metrics_and_control(self):
        self.flood(metrics_socket(self.stack, DAEMON), METRICS_CONNECTIONS + 1, b"GET /metr")
        self.flood(str(self.stack.at.path(f"/run/postern/{DAEMON}.control.sock")), CONTROL_CONNECTIONS + 1, b"sta")
        self.assert_works()


class Configuration(LimitCase):
    """Row 27; row 26, a reload each 100 ms, is in test_policyd_kill."""

    def test_a_bad_file_leaves_the_old_one_in_force(self):
        path = self.stack.at.path(f"/etc/postern/{DAEMON}.conf")
        before, pid = path.read_text(), self.pid
        source = self.new_source()
        for line in ("limit = client_ip messages 0/1h, five/1h", "limit = client_ip messages 0/1h nonsense", "no_such_key = 1",
                     "limit = client_ip messages 0/1h\nlimit = client_ip messages 1/1h", "max_connections = 0", "allow = 300.1.2.3",
                     "limit = client_ip messages 0/1h\nabuse = account networks 5/1d BAN",
                     "limit = client_ip messages 0/1h\nrequest_log = /nonexistent/log"):
            with self.subTest(line):
                seen = self.log_text().count("config_rejected")
                path.write_text(f"{before}\n{line}\n")
                try:
                    self.stack.reload(DAEMON)
                    self.wait_until(lambda seen=seen: self.log_text().count("config_rejected") > seen, what="config_rejected")
                finally:
                    path.write_text(before)
                with self.client() as client:
                    self.assertEqual(self.send_message(client, client_address=source), "DUNNO")
        self.assertEqual(self.pid, pid)
        self.assertEqual(self.used(source), 8)


def unread_journal():
    """The scene of Journal, in a mount namespace: a journal socket that is there and read by nobody, then gone."""
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    os.makedirs("/run/systemd/journal")
    journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    journal.bind("/run/systemd/journal/socket")
    journal.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slowest = 0
    with LonePolicyd(limit="client_ip messages 0/1h", log_target="auto") as daemon, daemon.client() as client:
        for number in range(FLOOD):
            if number == FLOOD // 2:
                journal.close()
                os.unlink("/run/systemd/journal/socket")
            began = time.monotonic()
            # Each is of another client, so that each is logged.
            answer = client.ask(instance=new_instance(), client_address=f"10.0.{number >> 8}.{number & 255}")
            slowest = max(slowest, time.monotonic() - began)
            if not answer.startswith("450 "):
                raise AssertionError(answer)
    print(slowest)


class Journal(LimitCase):
    """Row 29."""

    def test_a_log_that_nobody_reads_or_that_is_gone_blocks_nothing(self):
        layout = Layout()
        env = os.environ | {"POSTERN_BUILD": str(layout.build), "PYTHONPATH": str(REPO)}
        done = subprocess.run(["unshare", "-m", sys.executable, "-m", "tests.faults.test_policyd_limits"], env=env, cwd=REPO,
                              capture_output=True, text=True, timeout=300, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertLess(float(done.stdout), PATIENCE_S)

    def test_a_full_pipe_as_stderr_blocks_nothing(self):
        reader, writer = os.pipe()
        try:
            with LonePolicyd(limit="client_ip messages 0/1h") as daemon:
                daemon.stop()
                process = subprocess.Popen([daemon.build / "bin/policyd-ratelimit", "-c", daemon.base / "conf"], stderr=writer)
                try:
                    self.wait_until(lambda: self.answers(daemon), what="the daemon")
                    with daemon.client() as client:
                        for number in range(FLOOD):
                            answer = client.ask(instance=new_instance(), client_address=f"10.0.{number >> 8}.{number & 255}")
                            self.assertRegex(answer, "^450 ")
                finally:
                    process.send_signal(signal.SIGTERM)
                    process.wait(20)
        finally:
            os.close(reader)
            os.close(writer)

    @staticmethod
    def answers(daemon):
        try:
            with daemon.client(1) as client:
                return client.ask(instance="") == "DUNNO"
        except OSError:
            return False


if __name__ == "__main__":
    unread_journal()
