"""quotad and the plug-in with a database that is killed, hangs, is locked, has no connection free, tells of
deadlocks, or has an older schema (rows 10 to 13, 30): no delivery waits or is refused, limits hold, and the
rows are those of the mailboxes in the end."""
import pathlib
import shutil
import tempfile

from tests.frame import database_faults, sql
from tests.frame.layout import REPO
from tests.frame.quota import KB, FaultCase, QuotaCase, body

DAEMON = "quotad"
PLACE = "UPDATE ON mailbox_usage"
MESSAGES = 40


class Database(FaultCase):
    MAILBOXES = 5

    def log_text(self):
        return self.stack.log_file(DAEMON).read_text(errors="replace")

    def test_killed(self):
        self.stack.kill("mysql")
        self.assert_unmoved(MESSAGES)
        self.stack.start("mysql")
        self.assert_converged()

    def test_stopped(self):
        with database_faults.hangs(self.stack):
            self.assert_unmoved(MESSAGES)
        self.assert_converged()

    def test_started_beside_a_database_that_hangs(self):
        """quotad knows of nobody but by its journal, and cannot ask: the limit that Dovecot knows holds."""
        self.stack.stop(DAEMON)
        with database_faults.hangs(self.stack):
            self.stack.start(DAEMON)
            self.assert_unmoved(MESSAGES)
        self.assert_converged()

    def test_locked_tables(self):
        with sql.session(self.stack) as execute:
            execute("LOCK TABLES mailbox_usage WRITE, virtual_users WRITE, domain_limits WRITE, change_counters WRITE")
            self.assert_unmoved(MESSAGES)
        self.assert_converged()

    def test_no_connection_free(self):
        with database_faults.no_connection_free(self.stack, DAEMON):
            self.assert_unmoved(MESSAGES)
            self.wait_until(lambda: "Too many connections" in self.log_text(), what="the event")
        self.assert_converged()

    def test_deadlock_is_tried_again(self):
        with database_faults.deadlocks(self.stack, f"BEFORE {PLACE}") as tries:
            self.assert_unmoved(MESSAGES)
            self.assert_converged()
            self.assertGreater(tries(), database_faults.DEADLOCKS)

    def test_restart_in_mid_statement(self):
        with database_faults.dies_in_mid_statement(self.stack, f"AFTER {PLACE}"):
            self.assert_unmoved(MESSAGES)
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
            self.wait_until(lambda: [tuple(map(int, found)) for found in self.rows(row)] == [self.files(user)],
                            what="the row in the older schema")

    def test_one_behind(self):
        self.assert_works_beside(sorted(path.name[:3] for path in (REPO / "sql").glob("[0-9]*.sql"))[-2])

    def test_before_there_were_limits_of_messages(self):
        self.assert_works_beside("015")
