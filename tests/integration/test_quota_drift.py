"""Usage that is in doubt, or wrong: found, told and mended without anybody's help."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import unittest

from tests.frame import mail
from tests.frame.clock import clear_of_midnight
from tests.frame.quota import KB, QuotaCase, body
from tests.frame.stack import StackError


class ByItself(QuotaCase):
    """Nobody looks at the mailbox afterwards but the test, past Dovecot."""

    def tearDown(self):
        self.stack.start("mysql", "quotad", "dovecot")

    def kill_processes(self, service):
        pids = subprocess.run(["pgrep", "-f", f"dovecot-{self.stack.at.root}/{service}"],
                              capture_output=True, text=True, check=False).stdout.split()
        for pid in pids:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass

    def test_quotad_is_killed(self):
        users = self.users(5)
        for _ in range(3):
            jobs = [(users[i % 5], body(3 * KB)) for i in range(60)]
            codes = self.deliver_all(jobs, fault=lambda: self.stack.kill("quotad"), after=20)
            self.assertEqual(codes.count(250), 60, codes)
        self.assert_converges(users)

    def test_lmtp_is_killed(self):
        users = self.users(5)
        for _ in range(3):
            jobs = [(users[i % 5], body(3 * KB)) for i in range(60)]
            self.deliver_all(jobs, fault=lambda: self.kill_processes("lmtp"), after=20)
        self.assert_converges(users)

    def test_imap_is_killed(self):
        user = self.new_user()
        for _ in range(4):
            with mail.Imap(self.stack, user) as imap:
                for number in range(8):
                    if number == 4:
                        self.kill_processes("imap")
                    try:
                        imap.client.append("INBOX", None, None, body(20 * KB))
                    except (OSError, imap.client.error):
                        break
        self.assert_converges([user])

    def test_the_database_is_killed(self):
        users = self.users(5)
        for user in users:  # so that Dovecot's own lookups are cached
            self.deliver(user, body(KB))
        jobs = [(users[i % 5], body(3 * KB)) for i in range(60)]
        codes = self.deliver_all(jobs, fault=lambda: self.stack.kill("mysql"), after=20)
        self.assertEqual(codes.count(250), 60, codes)
        self.stack.start("mysql")
        self.assert_converges(users)

    def test_what_was_in_the_air_when_quotad_died(self):
        user = self.new_user()
        self.assertEqual(self.deliver(user, body(5 * KB))[0], 250)
        self.wait_until(lambda: self.row(user) == self.files(user))
        with socket.socket(socket.AF_UNIX) as client:  # a mail process that saves
            client.connect(str(self.stack.at.path("/run/postern/quotad.sock")))
            client.sendall(f"HELLO\t2\t77\nRESERVE\t{user}\t0\t1000\t0\t0\t0\t0\t0\t0\t\n".encode())
            self.assertTrue(client.recv(1024).startswith(b"OK\t"))
            self.put_there(user)  # its mail is there, but nobody has told
            self.stack.kill("quotad")
        self.wait_until(lambda: self.row(user) == self.files(user))
        self.assertEqual(self.row(user)[1], 2)

    def put_there(self, user):
        """One more file of a mail that the user has."""
        victim = next(self.stack.mail_dir(user).glob("new/*"))
        copy = victim.with_name(victim.name.replace(".M", ".M1", 1))
        shutil.copy2(victim, copy)
        shutil.chown(copy, victim.stat().st_uid, victim.stat().st_gid)

    def test_while_dovecot_counts_nobody(self):
        """It is told, tried again and again, and done when Dovecot answers."""
        users = self.users(3)
        for user in users:
            self.assertEqual(self.deliver(user, body(5 * KB))[0], 250)
        self.assert_converges(users)
        there = self.stack.at.path("/run/dovecot/postern-recount")
        away = there.with_name("away")
        failed = self.metric('quotad_own_recounts_total{result="failed"}', "quotad")
        there.rename(away)
        try:
            for user in users:
                self.put_there(user)
                with socket.socket(socket.AF_UNIX) as client:  # a mail process that dies
                    client.connect(str(self.stack.at.path("/run/postern/quotad.sock")))
                    client.sendall(f"HELLO\t2\t78\nINTENT\t{user}\nLOOKUP\t{user}\n".encode())
                    self.assertTrue(client.recv(1024).startswith(b"OK\t"))
            self.wait_until(lambda: self.metric('quotad_own_recounts_total{result="failed"}', "quotad") >= failed + 3,
                            what="the third try")
            self.assertIn("Dovecot counts no mailbox for us", self.stack.log_tail("quotad", 50))
            self.assertGreaterEqual(self.metric("quotad_recounts_waiting", "quotad"), 3)
            for user in users:
                self.assertEqual(self.row(user)[1], 1)
        finally:
            away.rename(there)
        self.assert_converges(users)
        self.wait_until(lambda: self.metric("quotad_recounts_waiting", "quotad") == 0, what="an empty queue")

    def test_every_change_without_quotad(self):
        delivered, appended, expunged, moved = self.users(4)
        for user in (expunged, moved):
            self.assertEqual(self.deliver(user, body(5 * KB))[0], 250)
            self.wait_until(lambda user=user: self.row(user))
        self.stack.stop("quotad")
        self.assertEqual(self.deliver(delivered, body(3 * KB))[0], 250)
        with mail.Imap(self.stack, appended) as imap:
            self.assertEqual(imap.client.append("INBOX", None, None, body(4 * KB))[0], "OK")
        with mail.Imap(self.stack, expunged) as imap:
            imap.select("INBOX")
            imap.client.store("1", "+FLAGS", "\\Deleted")
            self.assertEqual(imap.client.expunge()[0], "OK")
        with mail.Imap(self.stack, moved) as imap:
            imap.select("INBOX")
            imap.client.create("Kept")
            self.assertEqual(imap.client.copy("1", "Kept")[0], "OK")
        self.stack.start("quotad")
        self.assert_converges((delivered, appended, expunged, moved))
        self.assertEqual(self.row(expunged), (0, 0))
        self.assertEqual(self.row(moved)[1], 2)
        markers = self.stack.at.path("/run/postern/quota-dirty")
        self.wait_until(lambda: not list(markers.iterdir()), what="no marker")

    def test_a_folder_of_markers_that_is_not_there_is_told(self):
        for daemon, option in (("quotad", "marker_dir"), ("lmtp-indexer", "hints_marker_dir")):
            with self.subTest(daemon), self.configured(daemon, **{option: "/nonexistent"}):
                self.wait_until(lambda: re.search("markers_unread .*/nonexistent", self.stack.log_tail(daemon)), what="the event")
            self.assertNotIn("markers_unread", self.stack.log_tail(daemon, 1))


class Login(QuotaCase):
    """Who was never counted, or may be wrong, is counted at a login."""

    def fill(self, user, count):
        """COUNT files that came past Dovecot, whose names give no sizes."""
        box = self.stack.mail_dir(user)
        for folder in (box, box / "cur", box / "new", box / "tmp"):
            folder.mkdir(exist_ok=True)
            os.chown(folder, 5000, 5000)
        for number in range(count):
            path = box / "cur" / f"1234567{number}.restored:2,S"
            path.write_bytes(b"Subject: restored\n\ntext\n")
            os.chown(path, 5000, 5000)
        return count * len(b"Subject: restored\r\n\r\ntext\r\n"), count

    def test_a_mailbox_that_was_there_before(self):
        user = self.new_user()
        there = self.fill(user, 30)
        self.assertIsNone(self.row(user))
        with mail.Imap(self.stack, user):  # no command but the login
            self.wait_until(lambda: self.row(user) == there, what=lambda: f"{self.row(user)} like {there}")

    def test_drift_before_a_restart(self):
        user = self.new_user()
        self.assertEqual(self.deliver(user, body(5 * KB))[0], 250)
        self.wait_until(lambda: self.row(user) == self.files(user))
        self.stack.stop("quotad")
        size, number = self.files(user)
        there = self.fill(user, 3)
        self.stack.start("quotad")
        with mail.Imap(self.stack, user):
            wanted = (size + there[0], number + there[1])
            self.wait_until(lambda: self.row(user) == wanted, what=lambda: f"{self.row(user)} like {wanted}")

    def test_no_login_waits_for_quotad(self):
        user = self.new_user()
        pid = self.stack.kill("quotad", signal.SIGSTOP)
        try:
            for _ in range(3):
                with mail.Imap(self.stack, user) as imap:
                    imap.ok(imap.client.noop())
        finally:
            os.kill(pid, signal.SIGCONT)


class Verify(QuotaCase):
    """Without the indexer, which would look at the mailboxes, too, and so find what is done to their files."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.stack.stop("lmtp-indexer")
        cls.addClassCleanup(cls.stack.start, "lmtp-indexer")

    def verify(self, *words):
        """Exit status and result."""
        done = subprocess.run(
            [self.stack.at.path("/bin/postern"), "-c", self.stack.at.path("/etc/postern/postern.conf"), "--json",
             "quota", "verify", *words], capture_output=True, text=True, check=False)
        return done.returncode, json.loads(done.stdout)

    def mailbox(self):
        user = self.new_user()
        for _ in range(3):
            self.assertEqual(self.deliver(user, body(10 * KB))[0], 250)
        with mail.Imap(self.stack, user) as imap:
            imap.client.create("Box")
            imap.ok(imap.client.append("Box", None, None, body(7 * KB)))
        self.assert_exact(user)
        return user, self.row(user)

    def owner_like(self, path, other):
        shutil.chown(path, other.stat().st_uid, other.stat().st_gid)

    def test_all_is_well(self):
        user, row = self.mailbox()
        code, found = self.verify(user)
        self.assertEqual(code, 0, found)
        self.assertEqual((found["cause"], found["folders"]), (None, []))
        self.assertEqual((found["usage_bytes"], found["messages"]), row)
        self.assertEqual((found["found_bytes"], found["found_messages"]), row)

    def test_a_file_that_was_removed(self):
        user, row = self.mailbox()
        victim = next(self.stack.mail_dir(user).glob(".Box/*/*,W=*"))
        size = int(victim.name.partition(",W=")[2].partition(":")[0])
        victim.unlink()
        for _ in range(2):  # to look changes nothing
            code, found = self.verify(user)
            self.assertEqual((code, found["cause"], found["fixed"]), (1, "files_removed", False), found)
            self.assertEqual((found["usage_bytes"], found["messages"]), row)
            self.assertEqual((found["found_bytes"], found["found_messages"]), (row[0] - size, row[1] - 1))
            self.assertEqual(found["folders"], [
                {"folder": "Box", "cause": "files_removed", "indexed_messages": 1, "found_messages": 0,
                 "indexed_bytes": size, "found_bytes": 0}])
        self.assertEqual(self.row(user), row)
        code, found = self.verify(user, "--fix")
        self.assertEqual((code, found["cause"], found["fixed"]), (0, "files_removed", True), found)
        self.assertEqual(found["folders"][0]["folder"], "Box")
        self.wait_until(lambda: self.row(user) == (row[0] - size, row[1] - 1))
        self.assertEqual(self.verify(user)[0], 0)
        self.assertIn("a folder changed behind Dovecot's back", self.stack.log_tail("quotad", 60))
        self.assert_exact(user)

    def test_files_that_were_put_there(self):
        user, row = self.mailbox()
        folder = self.stack.mail_dir(user)
        like = next(folder.glob("new/*"))
        stray = folder / "new/1234567890.restored"
        stray.write_bytes(b"Subject: restored\n\nbare\r\nmixed\n")
        self.owner_like(stray, like)
        code, found = self.verify(user)
        self.assertEqual((code, found["cause"]), (1, "files_added"), found)
        size = len(b"Subject: restored\r\n\r\nbare\r\nmixed\r\n")
        self.assertEqual((found["found_bytes"], found["found_messages"]), (row[0] + size, row[1] + 1))
        self.assertEqual(found["folders"][0]["folder"], "INBOX")
        self.assertEqual(self.verify(user, "--fix")[0], 0)
        self.wait_until(lambda: self.row(user) == (row[0] + size, row[1] + 1))
        self.assert_exact(user)

    def test_a_counter_that_is_wrong(self):
        user, row = self.mailbox()
        path = str(self.stack.at.path("/run/postern/quotad.sock"))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(f"HELLO\t2\t78\nFREE\t{user}\t1\t1000\t1\nSYNC\n".encode())
            self.assertTrue(client.recv(1024).startswith(b"OK"))
        code, found = self.verify(user)
        self.assertEqual((code, found["cause"], found["folders"]), (1, "counter", []), found)
        self.assertEqual(found["usage_bytes"], row[0] - 1000)
        self.assertEqual(self.verify(user, "--fix")[0], 0)
        self.wait_until(lambda: self.row(user) == row)

    def test_all_users(self):
        user, _ = self.mailbox()
        off = self.new_user()
        self.stack.postern("user", "disable", off)
        self.assertNotIn(self.verify(off)[0], (0, 1))
        next(self.stack.mail_dir(user).glob("new/*")).unlink()
        # Those of other tests, nearly a thousand in a whole run: to count each would take minutes.
        self.stack.mariadb(f"DELETE FROM virtual_users WHERE email LIKE 'm%-%' AND email NOT IN ('{user}', '{off}'); "
                           "UPDATE virtual_users SET enabled = 0 WHERE email LIKE 'u%-%'")
        code, found = self.verify("--all")
        self.assertEqual(code, 1)
        self.assertEqual([(f["user"], f["cause"]) for f in found if f["cause"]], [(user, "files_removed")])
        self.assertGreaterEqual(len(found), 3)
        self.assertEqual(self.verify("--all", "--fix")[0], 0)
        self.assertEqual(self.verify("--all")[0], 0)

    def test_usage(self):
        for words in ((), ("--all", "office@example.net"), ("nobody",), ("nobody@example.net",)):
            self.assertNotIn(self.verify(*words)[0], (0, 1), words)


class Command(QuotaCase):
    def quota(self, *words):
        return json.loads(self.stack.postern("--json", "quota", *words))

    def test_set_show_list_top(self):
        user = self.new_user(quota_mb=10)
        shown = self.quota("set", user, "--storage", "4", "--messages", "30")
        self.assertEqual((shown["quota_mb"], shown["quota_messages"]), (4, 30))
        self.assertEqual(self.deliver(user, body(1100 * KB))[0], 250)
        self.wait_until(lambda: self.row(user))
        used = self.row(user)[0]
        shown = self.quota("show", user)
        self.assertEqual((shown["email"], shown["domain"]), (user, "example.net"))
        self.assertEqual((shown["usage_bytes"], shown["messages"]), (used, 1))
        self.assertAlmostEqual(shown["percent"], used / (4 * 1024 * KB) * 100, delta=0.1)
        self.assertAlmostEqual(shown["usage_mb"], used / (1024 * KB), delta=0.01)
        self.assertEqual((shown["live"]["used_bytes"], shown["live"]["limit_messages"]), (used, 30))
        decimals = re.findall(r'"(?:usage_mb|percent)":[0-9]+\.([0-9]+)', self.stack.postern("--json", "quota", "list"))
        self.assertLessEqual(max(map(len, decimals)), 2, decimals)  # as the database has them
        self.assertIn(shown["email"], [row["email"] for row in self.quota("list", "example.net")])
        self.assertEqual(self.quota("list", "example.com")[0]["domain"], "example.com")
        top = self.quota("top", "3", "--by", "percent")
        self.assertEqual(len(top), 3)
        self.assertEqual(sorted(top, key=lambda row: -(row["percent"] or 0)), top)
        self.assertEqual(self.quota("set", user, "--messages", "0")["quota_mb"], 4)

    def test_domain(self):
        domain = f"t{os.getpid()}-totals.example"
        self.stack.mariadb(f"INSERT INTO virtual_domains (name) VALUES ('{domain}')")
        users = self.users(2, domain=domain, quota_mb=5)
        shown = self.quota("set", domain, "--storage", "1")
        self.assertEqual((shown["domain"], shown["users"], shown["quota_mb"], shown["promised_mb"]), (domain, 2, 1, 10))
        codes = [self.deliver(users[i % 2], body(300 * KB))[0] for i in range(4)]
        self.assertEqual(codes, [250] * 3 + [552])
        self.wait_until(lambda: self.quota("show", domain)["messages"] == 3)
        shown = [row for row in self.quota("list", "--domains") if row["domain"] == domain][0]
        self.assertEqual(shown["usage_bytes"], sum(self.row(user)[0] for user in users))
        self.assertAlmostEqual(shown["percent"], shown["usage_bytes"] / 10485.76, delta=0.1)

    def test_forecast(self):
        clear_of_midnight()
        user, other = self.users(2, quota_mb=100)
        self.stack.mariadb(
            "INSERT INTO mailbox_usage_history (email, day, usage_bytes, messages) SELECT "
            f"'{user}', CURRENT_DATE - INTERVAL seq DAY, (50 - seq) * 1048576, 1 FROM seq_1_to_20; "
            f"REPLACE INTO mailbox_usage (email, usage_bytes) VALUES ('{user}', 50 * 1048576)")
        shown = self.quota("show", user)
        self.assertEqual((shown["growth_bytes_day"], shown["days_until_full"]), (1048576, 50))
        self.assertEqual(self.quota("show", other)["days_until_full"], None)
        self.assertEqual(self.quota("top", "1", "--by", "full")[0]["email"], user)

    def test_history_is_written(self):
        clear_of_midnight()
        user = self.new_user()
        self.deliver(user, body(5 * KB))
        self.wait_until(lambda: self.row(user))
        with self.configured("quotad", history_interval="1s"):
            day = "SELECT usage_bytes, messages FROM mailbox_usage_history WHERE email = %s AND day = CURRENT_DATE"
            self.wait_until(lambda: self.rows(day, user))
            self.assertEqual(tuple(map(int, self.rows(day, user)[0])), self.row(user))

    def test_mistakes(self):
        for words in (("set", "office@example.net"), ("set", "office@example.net", "--storage", "-1"),
                      ("set", "nobody@example.net", "--storage", "1"), ("show", "nobody.example"),
                      ("top", "0"), ("top", "--by", "x"), ("set", "example.net", "--messages", "2147483648")):
            with self.assertRaises(StackError, msg=words):
                self.stack.postern("quota", *words)


if __name__ == "__main__":
    unittest.main()
