"""lmtp-indexer under faults: the mail goes on at its own speed, and the index comes true by itself.

KILL_DELIVERIES (200) sets how many mails the random kills go over; KILL_SEED repeats a run.
"""
import contextlib
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import threading
import time
import unittest

from tests.faults.test_kill import Kill
from tests.frame import sql
from tests.frame.follow import event_types, index_view
from tests.frame.load import Load
from tests.frame.mail import Imap, lmtp, message, new_message_id
from tests.frame.stack import StackError
from tests.frame.wait import wait_until
from tests.integration.test_indexer import Dialogue, IndexCase

DELIVERIES = int(os.environ.get("KILL_DELIVERIES", "200"))
SEED = int(os.environ.get("KILL_SEED", str(random.randrange(1 << 30))))
ROUND = 200
CLIENTS = 4
KILLS_A_ROUND = 8
PATIENCE_S = 5  # a reply that waits for a lock would take until it is released


class FaultCase(IndexCase):
    def send(self, user, data=None):
        with Dialogue(self.stack) as d:
            d.envelope(user)
            began = time.monotonic()
            self.assertEqual(d.data(data or message("a@example.org", user, message_id=new_message_id()), 1)[0][0], 250)
            return time.monotonic() - began

    def types(self, user):
        return [kind for kind, _ in event_types(self.stack, user)]

    def locked(self, table):
        return sql.locked(self.stack, table)

    @contextlib.contextmanager
    def stopped_parsers(self):
        """Nothing is parsed meanwhile, so no delivery gets its row."""
        _, parsers = self.parsers()
        for pid in parsers:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in parsers:
                os.kill(pid, signal.SIGCONT)

    def filled(self, user):
        """The gaps are filled from the mailbox."""
        self.wait_until(lambda: self.states(user) == [("parsed",)], 60)

    def states(self, user):
        return self.rows("SELECT DISTINCT m.parse_state FROM messages m JOIN virtual_users u ON u.id = m.user_id "
                         "WHERE u.email = %s", user)

    def waits_for_lock(self):
        return self.rows("SELECT id FROM information_schema.processlist WHERE user = 'lmtp-indexer' AND state LIKE 'Waiting%%'")


class Database(FaultCase):
    def test_locked_table_holds_up_no_mail(self):
        user = self.new_user()
        self.send(user)
        with self.locked("messages"):
            times = [self.send(user) for _ in range(5)]
            self.assertLess(max(times), PATIENCE_S)
            self.wait_until(self.waits_for_lock)
        self.wait_until(lambda: self.count(user) == 6)

    def test_killed_before_commit(self):
        """The batch is in the statement's hands: one row in the end."""
        user = self.new_user()
        with self.locked("message_texts"):
            self.send(user)
            self.wait_until(self.waits_for_lock)
            self.stack.kill("lmtp-indexer")
            self.wait_until(lambda: self.stack.pid("lmtp-indexer"))
        self.wait_until(lambda: self.count(user) == 1)

    def test_connection_killed_in_mid_statement(self):
        user = self.new_user()
        with self.locked("message_texts"):
            self.send(user)
            self.wait_until(self.waits_for_lock)
            self.stack.mariadb("KILL CONNECTION USER 'lmtp-indexer'@localhost")
        self.wait_until(lambda: self.count(user) == 1)

    def test_deadlock(self):
        """The server ends the writer's transaction, since the other has changed more: it is done again."""
        user, scratch = self.new_user(), "deadlock_scratch"
        self.send(user)
        self.wait_until(lambda: self.count(user) == 1)
        user_id = self.value("SELECT id FROM virtual_users WHERE email = %s", user)
        self.stack.mariadb(f"CREATE TABLE {scratch} (n INT) ENGINE=InnoDB")
        self.addCleanup(self.stack.mariadb, f"DROP TABLE {scratch}")
        with sql.session(self.stack) as execute:
            execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            execute("BEGIN")
            execute(f"INSERT INTO {scratch} SELECT seq FROM seq_1_to_5000")
            execute(f"SELECT last_seq FROM event_sequences WHERE user_id = {user_id} FOR UPDATE")
            self.send(user)
            # The writer, and not a pass of the follower that has changed nothing yet. The server makes this
            # table anew only if nobody has read it for 100 ms.
            self.wait_until(lambda: self.rows("SELECT 1 FROM information_schema.innodb_trx "
                                              "WHERE trx_state = 'LOCK WAIT' AND trx_rows_modified > 0"), interval=0.2)
            # What it has inserted and not committed.
            execute(f"SELECT id FROM messages WHERE user_id = {user_id} FOR UPDATE")
            self.assertIn("LATEST DETECTED DEADLOCK", self.stack.mariadb("SHOW ENGINE INNODB STATUS"))
            execute("ROLLBACK")
        self.wait_until(lambda: self.count(user) == 2)
        self.assertEqual(self.types(user), ["message.received"] * 2)

    def test_text_that_no_packet_holds(self):
        """It is cut and marked, and the mail behind it comes into the index, too."""
        user, packet = self.new_user(), self.value("SELECT @@GLOBAL.max_allowed_packet")
        self.stack.configure("lmtp-indexer", text_max="4M")
        self.addCleanup(self.stack.restart, "lmtp-indexer")
        self.addCleanup(self.stack.configure, "lmtp-indexer", text_max="64K")
        self.addCleanup(self.stack.mariadb, f"SET GLOBAL max_allowed_packet = {packet}")
        self.stack.mariadb(f"SET GLOBAL max_allowed_packet = {1 << 20}")
        self.stack.restart("lmtp-indexer")
        words = " ".join(f"wort{n}" + "\n" * (n % 8 == 0) for n in range(150_000))
        self.send(user, message("a@example.org", user, text=words, message_id=new_message_id()))
        self.send(user)
        self.wait_until(lambda: self.count(user) == 2)
        (truncated, text, both), = self.rows(
            "SELECT t.truncated, LENGTH(t.body), LENGTH(t.body) + LENGTH(t.terms) FROM message_texts t JOIN virtual_users u "
            "ON u.id = t.user_id WHERE u.email = %s ORDER BY t.message_id LIMIT 1", user)
        self.assertEqual((truncated, text), ("1", str(1 << 18)))
        self.assertGreater(int(both), (1 << 19) - 20)
        self.assertLessEqual(int(both), 1 << 19)
        self.assertIn("a@example.org", self.stack.postern("search", user, "wort1"))

    def test_no_connection_free(self):
        user, pid = self.new_user(), self.stack.pid("lmtp-indexer")
        self.send(user)
        self.wait_until(lambda: self.count(user) == 1)
        self.stack.mariadb("ALTER USER 'lmtp-indexer'@localhost WITH MAX_USER_CONNECTIONS 1")
        try:
            self.stack.mariadb("KILL CONNECTION USER 'lmtp-indexer'@localhost")
            self.assertLess(self.send(user), PATIENCE_S)
        finally:
            self.stack.mariadb("ALTER USER 'lmtp-indexer'@localhost WITH MAX_USER_CONNECTIONS 0")
        self.wait_until(lambda: self.count(user) == 2, 60)
        self.assertEqual(self.stack.pid("lmtp-indexer"), pid)


class Spool(FaultCase):
    def send_more_than_is_kept(self, user, count):
        """2 MB of mail while nothing is parsed: some is neither in the spool nor in memory."""
        big = (b"y" * 76 + b"\r\n") * 1700
        with self.stopped_parsers():
            for _ in range(count):
                self.assertLess(self.send(user, message("a@example.org", user, message_id=new_message_id()) + big), PATIENCE_S)
        self.assertGreater(self.metric("postern_index_gaps_total", "lmtp-indexer"), 0)

    def test_full_while_the_database_is_away(self):
        """What neither the spool nor the memory has room for becomes a row of its envelope."""
        user, count = self.new_user(), 16
        with self.configured("lmtp-indexer", spool_max="1M", index_memory="1M"):
            with self.locked("message_texts"):
                self.send_more_than_is_kept(user, count)
            self.wait_until(lambda: self.count(user) == count, 60)
            self.filled(user)


    def test_gap_stays_until_the_mailbox_can_be_asked(self):
        user, count = self.new_user(), 16
        verify = [self.stack.at.path("/bin/postern"), "-c", self.stack.at.path("/etc/postern/postern.conf"), "--json", "index", "verify", user]
        with self.configured("lmtp-indexer", spool_max="1M", index_memory="1M", mailbox_server=""):
            with self.locked("message_texts"):  # a parser that starts with this mail cannot be stopped before it
                self.send_more_than_is_kept(user, count)
            self.wait_until(lambda: self.count(user) == count, 60)
            self.assertIn(("pending",), self.states(user))
            log = self.stack.log_file("lmtp-indexer")
            self.wait_until(lambda: "mailbox_server is not set" in log.read_text(errors="replace"))
        self.filled(user)
        self.wait_until(lambda: subprocess.run(verify, capture_output=True, check=False).returncode == 0)
        self.stack.mariadb(f"UPDATE messages m JOIN virtual_users u ON u.id = m.user_id SET m.parse_state = 'pending' "
                           f"WHERE u.email = '{user}' AND m.uid = 7")
        found = json.loads(subprocess.run(verify, capture_output=True, check=False).stdout)["differences"]
        self.assertEqual([(one["kind"], one["uid"]) for one in found], [("pending", 7)])
        self.stack.postern("index", "rebuild", user)
        self.assertEqual(self.states(user), [("parsed",)])


class Resources(FaultCase):
    @contextlib.contextmanager
    def small_disk(self):
        """The spool lies on a disk of 1 MB."""
        spool = self.stack.at.path("/var/lib/postern/lmtp-indexer/spool")
        self.stack.stop("lmtp-indexer")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M,mode=0777", "tmpfs", spool], check=True)
        try:
            self.stack.start("lmtp-indexer")
            yield spool
        finally:
            self.stack.stop("lmtp-indexer")
            subprocess.run(["umount", spool], check=True)
            self.stack.start("lmtp-indexer")

    def test_disk_full(self):
        user = self.new_user()
        big = message("a@example.org", user, message_id=new_message_id()) + (b"y" * 76 + b"\r\n") * 20000
        with self.small_disk():
            self.send(user, big)
            self.assertGreaterEqual(self.metric("postern_index_gaps_total", "lmtp-indexer"), 1)
            self.send(user)
            self.wait_until(lambda: self.count(user) == 2)
            self.filled(user)

    def test_mailbox_is_looked_at_before_the_row_is_there(self):
        """The spool has no room for a delivery, and the follower sees its mail before the writer is through: one row."""
        user = self.new_user()
        name, _, domain = user.partition("@")
        with self.small_disk() as spool:
            with contextlib.suppress(OSError), open(spool / "filler", "wb") as filler:
                filler.write(bytes(1 << 20))
            more_than_a_page = message("a@example.org", user, message_id=new_message_id(), text="words\n" * 2000)
            self.send(user)
            self.wait_until(lambda: set(index_view(self.stack, user)) == {("INBOX", "1")})
            self.follower_rests()
            with self.stopped_parsers():
                self.send(f"{name}+lists@{domain}", more_than_a_page)
                with Imap(self.stack, user) as imap:  # a hint makes it look
                    imap.select()
                    imap.ok(imap.client.uid("STORE", "1", "+FLAGS", r"(\Seen)"))
                self.wait_until(lambda: index_view(self.stack, user)["INBOX", "1"][1] == r"\Seen")
            self.wait_until(lambda: set(index_view(self.stack, user)) == {("INBOX", "1"), ("INBOX", "2")}, 60)
            self.assertEqual(self.rows("SELECT m.recipient, m.envelope_sender FROM messages m JOIN virtual_users u ON u.id = m.user_id "
                                       "WHERE u.email = %s AND m.uid = 2", user), [(f"{name}+lists@{domain}", "a@example.org")])
            self.assertEqual(self.count(user), 2)
            self.assertEqual(self.metric("postern_index_gaps_total", "lmtp-indexer"), 1)
            self.assertEqual(sorted(self.types(user)), ["message.flags", "message.received", "message.received"])

    def test_descriptors_exhausted(self):
        user, pid = self.new_user(), self.stack.pid("lmtp-indexer")
        self.send(user)
        used = len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))
        self.stack.limit("lmtp-indexer", "nofile", used + 2)
        clients = []
        try:
            for _ in range(10):
                with contextlib.suppress(OSError):
                    client = socket.socket(socket.AF_UNIX)
                    client.settimeout(2)
                    clients.append(client)
                    client.connect(str(self.stack.at.path("/var/spool/postfix/postern/lmtp-indexer.sock")))
        finally:
            for client in clients:
                client.close()
            self.stack.limit("lmtp-indexer", "nofile", 16384)
        self.wait_until(lambda: self.send(user) < PATIENCE_S)
        self.assertEqual(self.stack.pid("lmtp-indexer"), pid)

    def test_slow_clients_are_sent_away(self):
        user = self.new_user()
        with self.configured("lmtp-indexer", client_timeout="3s", max_connections="3"):
            slow = [lmtp(self.stack) for _ in range(3)]
            for client in slow:
                client.docmd("LHLO", "slow.example.org")
                client.send(b"MAIL FROM:<a@")
            wait_until(lambda: self.closed(slow), what="slow clients are closed", interval=0.2)
            self.send(user)

    @staticmethod
    def closed(clients):
        for client in clients:
            client.sock.settimeout(0.05)
            try:
                if client.sock.recv(1000):
                    continue
            except TimeoutError:
                return False
            except OSError:
                continue
        return True


class Hostile(FaultCase):
    def test_malformed_mail(self):
        user, pid = self.new_user(), self.stack.pid("lmtp-indexer")
        mails = [b"", b"\r\n", b"\0\0\0\r\n", b"Subject: a\0b\r\n\r\nx\0y\r\n", b"Subject: x\n\nbare\nfeeds\n\r\n", b"no header\r\n",
                 b"From: a@b\r\nFrom: c@d\r\nFrom: e@f\r\nSubject: many\r\n\r\nx\r\n", b"Subject: none\r\n\r\nx\r\n",
                 b"x: y\r\n" * 100_000 + b"\r\nx\r\n", b"To: " + b"a:" * 50_000 + b"\r\n\r\nx\r\n",
                 b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n" * 50_000,
                 b"Subject: =?x-none?B?////?= =?utf-8?Q?=FF=FE?=\r\nContent-Type: text/plain; charset=nonsense\r\n\r\n\xff\xfe\r\n"]
        for data in mails:
            self.send(user, data)
        self.wait_until(lambda: self.count(user) == len(mails), 60)
        self.assertEqual(self.stack.pid("lmtp-indexer"), pid)

    def test_reload_all_the_time(self):
        user, stop = self.new_user(), threading.Event()
        pid = self.stack.pid("lmtp-indexer")

        def reload():
            while not stop.wait(0.1):
                os.kill(pid, signal.SIGHUP)

        thread = threading.Thread(target=reload)
        thread.start()
        try:
            for _ in range(30):
                self.send(user)
        finally:
            stop.set()
            thread.join()
        self.wait_until(lambda: self.count(user) == 30)
        self.assertEqual(self.stack.pid("lmtp-indexer"), pid)

    def test_bad_configuration_on_reload(self):
        user, path = self.new_user(), self.stack.at.path("/etc/postern/lmtp-indexer.conf")
        good = path.read_text()
        try:
            path.write_text(good + "max_connections = many\n")
            with contextlib.suppress(StackError):
                self.stack.reload("lmtp-indexer")
            self.send(user)
        finally:
            path.write_text(good)
            self.stack.reload("lmtp-indexer")
        self.wait_until(lambda: self.count(user) == 1)


class RandomKills(Kill):
    """kill -9 of the indexer, of Dovecot's lmtp, of MariaDB and of Postfix at random moments."""

    QUEUE_S = 200  # Postfix starts a service anew only after a minute when it died twice

    # The methods of Kill stay there.
    test_quotad = test_milter_dkim = test_policyd_ratelimit = test_lmtp_indexer = test_database = None

    def kill_children(self, part, name):
        for pid in self.stack.children(part, name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def kill_something(self, rng):
        what = rng.choice(("indexer", "indexer", "dovecot", "dovecot", "mysql", "postfix", "master"))
        if what == "indexer" and self.stack.pid("lmtp-indexer"):
            self.stack.kill("lmtp-indexer")
        elif what == "dovecot":
            self.kill_children("dovecot", "lmtp")
        elif what == "mysql":
            self.stack.kill("mysql")
            self.stack.start("mysql")
        elif what == "postfix":
            for name in ("lmtp", "qmgr", "smtpd", "cleanup"):
                self.kill_children("postfix", name)
        elif what == "master":
            self.stack.kill("postfix")
            self.stack.start("postfix")
        return what

    def test_at_random_moments(self):
        rng = random.Random(SEED)
        counts = {}
        for number in range(max(1, DELIVERIES // ROUND)):
            if number > 0:
                self.log_start = self.stack.log_file("postfix").stat().st_size
                self.users = [self.new_user() for _ in range(CLIENTS)]
                self.load = Load(self.stack, self.users, [self.new_source() for _ in range(CLIENTS)], ROUND)
            self.load.start()
            for _ in range(KILLS_A_ROUND):
                at = rng.randrange(1, ROUND)
                wait_until(lambda at=at: self.load.done() >= min(at, ROUND - 1) or not self.running(), 120, "progress", 0.01)
                time.sleep(rng.random() / 5)  # the moment is what is random
                what = self.kill_something(rng)
                counts[what] = counts.get(what, 0) + 1
            self.load.join(300)
            self.stack.reload("postfix")  # it leaves a database alone for a minute after a failure
            self.check_books()
        print(f"\n    seed {SEED}: {max(1, DELIVERIES // ROUND) * ROUND} deliveries, killed {counts}", end=" ")

    def retried_by_postfix(self):
        """Postfix that is killed logs no retry; it is one where a mail came in two transactions of its own."""
        again = {f"<{row[0]}>" for row in self.rows(
            "SELECT message_id_header FROM messages WHERE message_id_header IS NOT NULL "
            "GROUP BY message_id_header HAVING COUNT(DISTINCT delivery_id) > 1")}
        return super().retried_by_postfix() | again

    def bounced(self):
        """Where MariaDB comes back between two steps of a lookup, Dovecot 2.3 asks it for an empty name ("Could not
        escape string: Not connected to database") and says that a user does not exist.  The sender is told."""
        text = self.postfix_log()
        idents = dict(re.findall(r"cleanup\[\d+\]: (\w+): message-id=(<.*>)", text))
        return {idents[queue_id] for queue_id in re.findall(r"lmtp\[\d+\]: (\w+): .* status=bounced .* User doesn't exist", text)
                if queue_id in idents}

    def running(self):
        return any(thread.is_alive() for thread in self.load.threads)


del Kill  # its tests are run where they stand

if __name__ == "__main__":
    unittest.main()
