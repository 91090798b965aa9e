"""lmtp-indexer and what must be on the disk before it says anything, seen and disturbed by strace."""
import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import unittest

from tests.frame.layout import REPO
from tests.frame.mail import Imap, deliver, maildir_ids, message, new_message_id
from tests.frame.wait import traced, wait_until
from tests.faults.test_indexer_faults import FaultCase
from tests.integration.test_indexer import Dialogue

BEHIND = "postern_behind"
CALL = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(?:\(| resumed>)(.*)$")


@contextlib.contextmanager
def tracing(pids, *options, output="/dev/null"):
    """strace on the processes PIDS."""
    argv = ["strace", "-f", "-q", "-o", str(output), *options]
    for pid in pids:
        argv += ["-p", str(pid)]
    with subprocess.Popen(argv) as tracer:
        try:
            wait_until(lambda: all(map(traced, pids)), what="the tracer")
            yield tracer
        finally:
            tracer.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                tracer.wait(5)
            tracer.kill()  # it does not notice the end of who was held up


SENDS = ("write", "writev", "sendto", "sendmsg")


def calls(text):
    """[(system call, arguments and result)]: what is sent when it begins, all else when it has ended."""
    for line in text[:text.rfind("\n") + 1].splitlines():
        found = CALL.match(line)
        if not found:
            continue
        begins, ends = "resumed>" not in line, "<unfinished ...>" not in line
        if begins if found.group(2) in SENDS else ends:
            yield found.group(2), found.group(3)


class Order(FaultCase):
    """A power cut can take only what nobody was told of."""

    def test_synced_before_the_last_chunk_and_before_the_reply(self):
        user, ident = self.new_user(), new_message_id()
        pid = self.stack.pid("lmtp-indexer")
        self.wait_until(lambda: self.open_deliveries() == 0, what="no other delivery that is synced")
        output = self.stack.at.path("/run/postern/lmtp-indexer.trace")
        with Dialogue(self.stack) as d:
            d.envelope(user)
            d.client.docmd("DATA")
            with tracing([pid], "-s", "300", "-e", "trace=fdatasync,read,recvfrom,recvmsg,write,writev,sendto,sendmsg", output=output):
                d.client.send(message("a@example.org", user, message_id=ident) + b".\r\n")
                self.assertEqual(d.client.getreply()[0], 250)
                self.wait_until(lambda: "reply" in self.order(output.read_text(errors="replace")))
        self.assertEqual(self.order(output.read_text(errors="replace")), ["sync", "chunk", "saved", "sync", "reply"])

    @staticmethod
    def order(text):
        seen = []
        for name, rest in calls(text):
            if name == "fdatasync" and rest.endswith("= 0"):
                seen.append("sync")
            elif name in SENDS and " LAST\\r\\n" in rest:
                seen.append("chunk")
            elif '"250 2.0.0 ' in rest:  # a line of the log has the text, too, but not at its begin
                seen.append("saved" if name in ("read", "recvfrom", "recvmsg") else "reply")
        seen = [kind for kind, _ in itertools.groupby(seen)]
        return seen[:seen.index("reply") + 1] if "reply" in seen else seen


class Broken(FaultCase):
    """The disk refuses; the mail passes, nothing is said to be kept that is not."""

    def gaps(self):
        return self.metric("postern_index_gaps_total", "lmtp-indexer")

    def disturbed(self, what):
        user = self.new_user()
        self.send(user)
        before = self.gaps()
        with tracing([self.stack.pid("lmtp-indexer")], "-e", f"trace={what.partition(':')[0]}", "-e", f"inject={what}"):
            self.send(user)
            self.send(user)
        self.assertEqual(self.gaps() - before, 2)
        self.wait_until(lambda: self.count(user) == 3)
        self.filled(user)
        self.assertEqual(len(maildir_ids(self.stack, user)), 3)
        return user

    def test_sync_fails(self):
        self.kept_again(self.disturbed("fdatasync:error=EIO"))

    def test_no_space(self):
        self.kept_again(self.disturbed("pwrite64:error=ENOSPC"))

    def kept_again(self, user):
        """As soon as the disk takes it, in the same life of the daemon."""
        before = self.gaps()
        self.send(user)
        self.wait_until(lambda: self.count(user) == 4)
        self.assertEqual(self.gaps(), before)


class Committed(FaultCase):
    def test_killed_after_the_commit(self):
        """The rows are there, and the spool does not know: one row, one event."""
        user = self.new_user()
        self.send(user)
        self.wait_until(lambda: self.count(user) == 1 and self.open_deliveries() == 0)
        pid = self.stack.pid("lmtp-indexer")
        with contextlib.ExitStack() as stack:
            # The note and the result are on the disk; that it is done takes longer than anybody waits.
            with self.stopped_parsers():
                self.send(user)
                stack.enter_context(tracing([pid], "-e", "trace=pwrite64", "-e", "inject=pwrite64:delay_enter=300000000"))
            self.wait_until(lambda: self.count(user) == 2)
            self.stack.kill("lmtp-indexer")
        self.wait_until(lambda: self.stack.pid("lmtp-indexer") not in (None, pid))
        repeated = 'postern_index_messages_total{result="repeated"}'
        self.wait_until(lambda: self.metric(repeated, "lmtp-indexer") == 1,
                        what=lambda: f"repeated: {self.metric(repeated, 'lmtp-indexer')}, open: {self.open_deliveries()}")
        self.assertEqual(self.count(user), 2)
        self.assertEqual(self.types(user), ["message.received"] * 2)


class Backend(FaultCase):
    """Dovecot's lmtp dies after the save and before its 250."""

    SAVED = "link,linkat,rename,renameat,renameat2"

    def copies(self, user, ident):
        return maildir_ids(self.stack, user).count(ident)

    def test_killed_after_the_save(self):
        user, ident = self.new_user(), new_message_id()
        self.send(user)  # a connection that is kept
        processes = self.stack.children("dovecot", "lmtp")
        self.assertTrue(processes)
        with tracing(processes, "-e", f"trace={self.SAVED}", "-e", f"inject={self.SAVED}:delay_exit=20000000"):
            deliver(self.stack, "a@example.org", [user], message("a@example.org", user, message_id=ident), self.new_source())
            self.wait_until(lambda: self.copies(user, ident) == 1)
            for pid in processes:
                os.kill(int(pid), signal.SIGKILL)
        self.stack.wait_queue_empty()
        self.assertIn(self.copies(user, ident), (1, 2), "at most one duplicate")
        self.wait_until(lambda: self.live(user, ident) == self.copies(user, ident), 60)
        print(f"{self.copies(user, ident)} copies", end=" ")

    def live(self, user, ident):
        return int(self.value("SELECT COUNT(*) FROM messages m JOIN virtual_users u ON u.id = m.user_id WHERE u.email = %s "
                              "AND m.message_id_header = %s AND m.deleted_at IS NULL", user, ident.strip("<>")))


class SchemaBehind(FaultCase):
    """The daemon is newer than the schema by one migration."""

    def setUp(self):
        super().setUp()
        folder = self.stack.at.path("/run/postern/migrations-behind")
        folder.mkdir()
        self.addCleanup(shutil.rmtree, folder)
        for path in sorted((REPO / "sql").glob("[0-9]*.sql"))[:-1]:
            shutil.copy(path, folder)
        self.stack.mariadb(f"CREATE DATABASE {BEHIND} CHARACTER SET utf8mb4", database=None)
        self.addCleanup(self.stack.mariadb, f"DROP DATABASE {BEHIND}", database=None)
        self.stack.postern("-o", f"database_name={BEHIND}", "sql", "migrate", "--dir", str(folder))
        self.stack.mariadb(f"GRANT ALL ON {BEHIND}.* TO 'lmtp-indexer'@localhost", database=None)
        self.addCleanup(self.stack.mariadb, f"REVOKE ALL ON {BEHIND}.* FROM 'lmtp-indexer'@localhost", database=None)

    def behind(self, statement):
        return self.stack.mariadb(statement, database=BEHIND)

    def test_mail_is_indexed_and_followed(self):
        user = self.new_user()
        self.behind(f"INSERT INTO virtual_domains (name) VALUES ('{user.partition('@')[2]}'); INSERT INTO virtual_users "
                    f"(domain_id, email, password) SELECT id, '{user}', '' FROM virtual_domains")
        with self.configured("lmtp-indexer", database_name=BEHIND):
            self.send(user)
            self.wait_until(lambda: self.behind("SELECT parse_state, mailbox_name FROM messages") == "parsed\tINBOX\n")
            self.follower_rests()
            with Imap(self.stack, user) as imap:
                imap.select()
                imap.ok(imap.client.uid("STORE", "1", "+FLAGS", r"(\Seen)"))
            self.wait_until(lambda: self.behind("SELECT flags FROM messages") == "\\\\Seen\n")
            told = self.behind("SELECT type, JSON_EXTRACT(payload, '$.data.flags') FROM events ORDER BY seq").splitlines()
            told = [line.split("\t") for line in told]
            types = [kind for kind, _ in told]
            self.assertEqual((types[0], types.count("message.received")), ("message.received", 1), told)
            self.assertIn("Seen", told[-1][1], told)
            # Only where Dovecot lost sight of the mail and gave it another UID is it a move that tells the flags.
            if types[-1] != "message.moved" or self.behind("SELECT uid FROM messages") == "1\n":
                self.assertEqual(types[-1], "message.flags", told)
            self.assertIn("a message", self.stack.postern("-o", f"database_name={BEHIND}", "search", user, "message"))


if __name__ == "__main__":
    unittest.main()
