"""Thousands of idle IMAP sessions: none of them holds a connection to the database."""
import contextlib
import os
import pathlib
import resource
import socket
import time

from tests.frame import metrics
from tests.frame.layout import HOST
from tests.frame.quota import KB, QuotaCase, body

SESSIONS = int(os.environ.get("IDLE_SESSIONS", "300"))
SPARE = 500
USERS = 20
OLD = f"""
mail_max_userip_connections = {SESSIONS + SPARE}
service imap-login {{
  service_count = 0
  process_min_avail = 2
  client_limit = {2 * SESSIONS + SPARE}
}}
service imap {{
  process_limit = {SESSIONS + SPARE}
}}
service anvil {{
  client_limit = {4 * SESSIONS + 4 * SPARE}
}}
service auth {{
  client_limit = {4 * SESSIONS + 4 * SPARE}
}}
"""
NEW = OLD.replace("service_count = 0", "restart_request_count = unlimited")


class Session:
    """One that logs in, selects INBOX and waits."""

    def __init__(self, port):
        self.socket = socket.create_connection((HOST, port), 60)
        self.socket.settimeout(60)
        self.lines = self.socket.makefile("rb")
        self.lines.readline()

    def send(self, line):
        self.socket.sendall(line.encode() + b"\r\n")

    def read_until(self, start):
        while True:
            line = self.lines.readline()
            if line.startswith(start):
                return line
            if not line:
                raise AssertionError(f"closed before {start}")

    def close(self):
        self.lines.close()
        self.socket.close()


class Idle(QuotaCase):
    def setUp(self):
        super().setUp()
        self.before = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = 2 * SESSIONS + 1000
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, max(self.before[1], most)))

    def tearDown(self):
        resource.setrlimit(resource.RLIMIT_NOFILE, self.before)

    def connections(self):
        """Those of the database, by account."""
        return dict(self.rows("SELECT user, COUNT(*) FROM information_schema.processlist "
                              "WHERE command <> 'Daemon' AND user <> 'root' GROUP BY user"))

    def open_all(self, users, stack):
        sessions = []
        for number in range(SESSIONS):
            session = Session(self.stack.at.port("imap"))
            stack.callback(session.close)
            session.send(f"a LOGIN {users[number % USERS]} secret")
            sessions.append(session)
            if number % 50 == 49:  # so many log in at once
                self.idle(sessions[-50:])
        self.idle(sessions[SESSIONS - SESSIONS % 50:])
        return sessions

    @staticmethod
    def idle(sessions):
        for session in sessions:
            session.read_until(b"a OK")
            session.send("b SELECT INBOX")
        for session in sessions:
            session.read_until(b"b OK")
            session.send("c IDLE")
        for session in sessions:
            session.read_until(b"+ ")

    def holders(self):
        """Processes of Dovecot's imap service that have a socket of the database open."""
        wanted = set()
        for line in pathlib.Path("/proc/net/unix").read_text().splitlines():
            if line.endswith(str(self.stack.mysql_socket)):
                wanted.add(f"socket:[{line.split()[6]}]")
        found = []
        for proc in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (proc / "comm").read_text() == "imap\n":
                    found += [proc for fd in (proc / "fd").iterdir() if os.readlink(fd) in wanted]
        return found

    def test_no_session_holds_a_connection_of_the_database(self):
        users = self.users(USERS)
        # bcrypt would take its time for each.
        names = ", ".join(f"'{user}'" for user in users)
        self.stack.mariadb(f"UPDATE virtual_users SET password = '{{PLAIN}}secret' WHERE email IN ({names})")
        with self.dovecot_with(OLD, NEW), contextlib.ExitStack() as stack:
            for user in users:
                self.assertEqual(self.deliver(user, body(KB))[0], 250)
            before = self.connections()
            began = time.monotonic()
            sessions = self.open_all(users, stack)
            took = time.monotonic() - began
            self.wait_until(lambda: metrics.scrape(self.stack, "quotad")["postern_connections"] >= SESSIONS,
                            what="each session is known to quotad")
            after = self.connections()
            print(f"{SESSIONS} idle sessions in {took:.0f} s; connections of the database {before} before, {after} after; "
                  f"quotad {self.memory_mb('quotad'):.1f} MB")
            self.assertEqual(after.get("quotad"), before.get("quotad"))
            # Those of Dovecot are of its auth workers, of which many logins at once make 30, and other lookups.
            self.assertLess(sum(map(int, after.values())), SESSIONS // 4)
            self.assertEqual(self.holders(), [])
            # They are alive, and so are limits and deliveries beside them.
            self.assertEqual(self.deliver(users[0], body(KB))[0], 250)
            sessions[0].read_until(b"* 2 EXISTS")
            for session in (sessions[0], sessions[-1]):
                session.send("DONE")
                session.read_until(b"c OK")
                session.send('d GETQUOTAROOT "INBOX"')
                self.assertIn(b"STORAGE", session.read_until(b"* QUOTA "))

    def memory_mb(self, part):
        fields = pathlib.Path(f"/proc/{self.stack.pid(part)}/statm").read_text().split()
        return int(fields[1]) * resource.getpagesize() / (1 << 20)
