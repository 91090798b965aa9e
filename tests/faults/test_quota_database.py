"""quotad and the plug-in with a database that is killed, hangs, is locked, has no connection free, tells of
deadlocks, or has an older schema (rows 10 to 13, 30): no delivery waits or is refused, limits hold, and the
rows are those of the mailboxes in the end."""
import contextlib
import pathlib
import shutil
import signal
import tempfile

from tests.frame import sql
from tests.frame.layout import REPO
from tests.frame.quota import KB, QuotaCase, body

DAEMON = "quotad"
MAX_S = 2  # for one delivery, on a busy machine
MESSAGES = 40


class Database(QuotaCase):
    """Five mailboxes, and one of 1 MB that is nearly full."""

    def setUp(self):
        super().setUp()
        self.names = self.users(5)
        self.full = self.new_user(quota_mb=1)
        for user in self.names:  # so that Dovecot's own lookups are cached
            self.assertEqual(self.deliver(user, body(KB))[0], 250)
        self.assertEqual(self.deliver(self.full, body(900 * KB))[0], 250)
        self.wait_until(lambda: self.row(self.full) and all(map(self.row, self.names)), 20, "the first rows")

    def tearDown(self):
        self.stack.start("mysql", DAEMON, "dovecot")

    def log_text(self):
        return self.stack.log_file(DAEMON).read_text(errors="replace")

    def assert_unmoved(self):
        """All mail that fits is taken at once, and no other."""
        codes, slowest = self.deliver_timed(self.names, MESSAGES)
        self.assertEqual(codes, [250] * MESSAGES)
        self.assertLess(slowest, MAX_S)
        codes, slowest = self.deliver_timed([self.full], 3, 200 * KB)
        self.assertEqual(codes, [552] * 3)
        self.assertLess(slowest, MAX_S)

    def assert_converged(self):
        self.assert_converges([*self.names, self.full])
        self.assertEqual(sum(self.files(user)[1] for user in self.names), MESSAGES + len(self.names))

    def test_killed(self):
        self.stack.kill("mysql")
        self.assert_unmoved()
        self.stack.start("mysql")
        self.assert_converged()

    def test_stopped(self):
        self.stack.kill("mysql", signal.SIGSTOP)
        try:
            self.assert_unmoved()
        finally:
            self.stack.kill("mysql", signal.SIGCONT)
        self.assert_converged()

    def test_started_beside_a_database_that_hangs(self):
        """quotad knows of nobody but by its journal, and cannot ask: the limit that Dovecot knows holds."""
        self.stack.stop(DAEMON)
        self.stack.kill("mysql", signal.SIGSTOP)
        try:
            self.stack.start(DAEMON)
            self.assert_unmoved()
        finally:
            self.stack.kill("mysql", signal.SIGCONT)
        self.assert_converged()

    def test_locked_tables(self):
        with sql.session(self.stack) as execute:
            execute("LOCK TABLES mailbox_usage WRITE, virtual_users WRITE, domain_limits WRITE, change_counters WRITE")
            self.assert_unmoved()
        self.assert_converged()

    def test_no_connection_free(self):
        most = int(self.value("SELECT @@max_connections"))
        self.rows("SET GLOBAL max_connections = 10")
        with contextlib.ExitStack() as held:
            held.callback(lambda: self.rows(f"SET GLOBAL max_connections = {most}"))
            self.stack.stop(DAEMON)
            with contextlib.suppress(AssertionError, BrokenPipeError):  # one in use is not ours
                for _ in range(11):
                    held.enter_context(sql.session(self.stack))
            self.stack.start(DAEMON)
            self.assert_unmoved()
            self.wait_until(lambda: "Too many connections" in self.log_text(), 20, "the event")
        self.assert_converged()

    def test_deadlock_is_tried_again(self):
        """Error 1213 at the first three tries of a row."""
        self.stack.mariadb(
            "CREATE TABLE test_tries (n INT) ENGINE=MyISAM; INSERT INTO test_tries VALUES (0);\n"
            "DELIMITER //\nCREATE TRIGGER test_deadlock BEFORE UPDATE ON mailbox_usage FOR EACH ROW BEGIN "
            "UPDATE test_tries SET n = n + 1; IF (SELECT n FROM test_tries) <= 3 THEN "
            "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock found'; END IF; END//\n")
        try:
            self.assert_unmoved()
            self.assert_converged()
            self.assertGreater(int(self.value("SELECT n FROM test_tries")), 3)
        finally:
            self.stack.mariadb("DROP TRIGGER test_deadlock; DROP TABLE test_tries")

    def test_restart_in_mid_statement(self):
        self.stack.mariadb("DELIMITER //\nCREATE TRIGGER test_slow AFTER UPDATE ON mailbox_usage FOR EACH ROW "
                           "BEGIN DO SLEEP(20); END//\n")
        try:
            self.assert_unmoved()
            self.wait_until(lambda: self.value("SELECT COUNT(*) FROM information_schema.processlist "
                                               "WHERE state = 'User sleep'") != "0", 20, "the statement under way")
            self.stack.kill("mysql")
            self.stack.start("mysql")
        finally:
            self.stack.mariadb("DROP TRIGGER IF EXISTS test_slow")
        self.assert_converged()


class OlderSchema(QuotaCase):
    """Row 30: quotad beside a database that has not been migrated."""

    def behind(self, last):
        """A database of its own with the migrations up to LAST and the users of this test."""
        self.addCleanup(self.stack.mariadb, "DROP DATABASE IF EXISTS behind", None)
        self.stack.mariadb("DROP DATABASE IF EXISTS behind; CREATE DATABASE behind CHARACTER SET utf8mb4", None)
        folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        for path in sorted((REPO / "sql").glob("[0-9]*.sql")):
            if path.name[:3] <= last:
                shutil.copy(path, folder)
        self.stack.postern("-o", "database_name=behind", "-o", f"sql_dir={folder}", "sql", "migrate")
        self.stack.mariadb("GRANT SELECT, INSERT, UPDATE, DELETE ON behind.* TO quotad@localhost", None)
        self.addCleanup(self.stack.mariadb, "REVOKE ALL ON behind.* FROM quotad@localhost", None)

    def assert_works_beside(self, last):
        self.behind(last)
        user = self.new_user(quota_mb=1)
        self.stack.mariadb("INSERT INTO behind.virtual_domains (id, name) SELECT id, name FROM virtual_domains; "
                           "INSERT INTO behind.virtual_users (domain_id, email, password, quota_mb) "
                           f"SELECT domain_id, email, password, 1 FROM virtual_users WHERE email = '{user}'")
        row = f"SELECT usage_bytes, messages FROM behind.mailbox_usage WHERE email = '{user}'"
        with self.configured(DAEMON, database_name="behind"):
            codes = [self.deliver(user, body(100 * KB))[0] for _ in range(12)]
            self.assertEqual(codes, [250] * 10 + [552] * 2)
            self.wait_until(lambda: [tuple(map(int, found)) for found in self.rows(row)] == [self.files(user)], 20,
                            "the row in the older schema")

    def test_one_behind(self):
        self.assert_works_beside(sorted(path.name[:3] for path in (REPO / "sql").glob("[0-9]*.sql"))[-2])

    def test_before_there_were_limits_of_messages(self):
        self.assert_works_beside("015")
