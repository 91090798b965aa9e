"""Migrations, accounts, the second schema and erasure, on the stack's MariaDB."""
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from tests.frame import assemble
from tests.frame.case import StackCase
from tests.frame.layout import REPO
from tests.frame.stack import DATABASE, run

SQL = REPO / "sql"
FILES = sorted(path.name for path in SQL.glob("[0-9]*.sql"))
NUMBERS = itertools.count(1)


class SqlCase(StackCase):
    """Runs postern with its exit status and both outputs."""

    def postern_argv(self, *words):
        return [str(self.stack.at.path("/bin/postern")), "-c",
                str(self.stack.at.path("/etc/postern/postern.conf")), *map(str, words)]

    def run_postern(self, *words, text=""):
        done = subprocess.run(self.postern_argv(*words), input=text, capture_output=True, text=True, timeout=120,
                              check=False)
        return done.returncode, done.stdout, done.stderr

    def query(self, account, statement, database=DATABASE):
        """Runs a statement as ACCOUNT; returns (exit status, stdout, stderr)."""
        password = self.stack.at.path(f"/etc/postern/passwords/{account}").read_text().strip()
        done = subprocess.run(
            ["mariadb", "--no-defaults", "-S", str(self.stack.mysql_socket), "-u", account, f"-p{password}",
             "--batch", "--skip-column-names", "-D", database, "-e", statement],
            capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr


class Migrations(SqlCase):
    """Each test has a schema of its own."""

    def setUp(self):
        super().setUp()
        self.schema = f"check_{os.getpid()}_{next(NUMBERS)}"
        self.folder = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))
        for name in FILES:
            shutil.copy(SQL / name, self.folder)
        self.addCleanup(shutil.rmtree, self.folder)
        self.addCleanup(self.stack.mariadb, f"DROP DATABASE IF EXISTS {self.schema}", None)

    def words(self, *words):
        return ("-o", f"database_name={self.schema}", "-o", f"sql_dir={self.folder}", "--json", *words)

    def migrate(self, *words):
        return self.run_postern(*self.words("sql", "migrate", *words))

    def applied(self):
        return [row[0] for row in self.rows(f"SELECT name FROM {self.schema}.schema_migrations ORDER BY name")]

    def test_again_changes_nothing(self):
        code, out, err = self.migrate()
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(json.loads(out), {"applied": FILES, "dry_run": False})
        self.assertEqual(self.applied(), FILES)
        before = self.rows(f"SELECT * FROM {self.schema}.schema_migrations ORDER BY name")
        code, out, _ = self.migrate()
        self.assertEqual((code, json.loads(out)["applied"]), (0, []))
        self.assertEqual(self.rows(f"SELECT * FROM {self.schema}.schema_migrations ORDER BY name"), before)

    def test_every_statement_may_run_again(self):
        self.migrate()
        self.stack.mariadb(f"DELETE FROM {self.schema}.schema_migrations")
        code, out, err = self.migrate()
        self.assertEqual((code, json.loads(out)["applied"]), (0, FILES), err)

    def test_several_at_once_apply_each_once(self):
        runs = [subprocess.Popen(self.postern_argv(*self.words("sql", "migrate")), stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True) for _ in range(4)]
        results = [run.communicate(timeout=120) + (run.returncode,) for run in runs]
        self.assertEqual([code for _, _, code in results], [0] * 4, results)
        applied = sorted(json.loads(out)["applied"] for out, _, _ in results)
        self.assertEqual(applied, [[], [], [], FILES])

    def test_changed_migration_is_refused(self):
        self.migrate()
        with open(self.folder / FILES[2], "a", encoding="utf-8") as file:
            file.write("\n-- changed\n")
        (self.folder / "900-more.sql").write_text("CREATE TABLE more (a INT);\n")
        code, out, err = self.migrate()
        self.assertEqual(code, 65)
        self.assertIn(FILES[2], err)
        self.assertIn("changed", json.loads(out)["error"])
        self.assertEqual(self.applied(), FILES)

    def test_new_one_before_an_applied_one_is_refused(self):
        self.migrate()
        (self.folder / "000-early.sql").write_text("CREATE TABLE early (a INT);\n")
        self.assertEqual(self.migrate()[0], 65)
        self.assertEqual(self.applied(), FILES)

    def test_older_program_is_refused(self):
        self.migrate()
        (self.folder / FILES[-1]).unlink()
        code, _, err = self.migrate()
        self.assertEqual(code, 65)
        self.assertIn("older", err)

    def test_broken_one_is_not_recorded_and_runs_when_mended(self):
        broken = self.folder / "900-more.sql"
        broken.write_text("CREATE TABLE IF NOT EXISTS more (a INT);\nINSERT INTO nowhere VALUES (1);\n")
        code, _, err = self.migrate()
        self.assertEqual(code, 69)
        self.assertIn("900-more.sql", err)
        self.assertEqual(self.applied(), FILES)
        broken.write_text("CREATE TABLE IF NOT EXISTS more (a INT);\nINSERT INTO more VALUES (1);\n")
        code, out, _ = self.migrate()
        self.assertEqual((code, json.loads(out)["applied"]), (0, ["900-more.sql"]))

    def test_dry_run_and_status(self):
        code, _, err = self.migrate("--dry-run")
        self.assertEqual(code, 69)
        self.assertIn("does not exist", err)
        self.stack.mariadb(f"CREATE DATABASE {self.schema}", None)
        code, out, _ = self.migrate("--dry-run")
        self.assertEqual((code, json.loads(out)), (0, {"pending": FILES, "dry_run": True}))
        self.assertEqual(self.rows("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = %s",
                                   self.schema), [("0",)])
        code, out, _ = self.run_postern(*self.words("sql", "status"))
        self.assertEqual((code, {row["applied"] for row in json.loads(out)}), (1, {False}))
        self.migrate()
        code, out, _ = self.run_postern(*self.words("sql", "status"))
        self.assertEqual((code, {row["applied"] for row in json.loads(out)}), (0, {True}))


class Schema(StackCase):
    """The promised names and columns."""

    def columns(self, table):
        return [row[0] for row in self.rows("SELECT column_name FROM information_schema.columns "
                                            "WHERE table_schema = %s AND table_name = %s "
                                            "AND extra NOT LIKE '%%INVISIBLE%%' ORDER BY ordinal_position",
                                            DATABASE, table)]

    def test_dashboards_columns(self):
        self.assertEqual(self.columns("virtual_domains"), ["id", "name", "created_at"])
        self.assertEqual(self.columns("virtual_users"),
                         ["id", "domain_id", "email", "password", "quota_mb", "enabled", "created_at"])
        self.assertEqual(self.columns("virtual_aliases"), ["id", "domain_id", "source", "destination", "created_at"])
        self.assertEqual(set(self.columns("mailbox_usage")),
                         {"email", "usage_mb", "last_updated", "usage_bytes", "messages"})

    def test_engine_and_charset(self):
        wrong = self.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = %s AND table_type = "
                          "'BASE TABLE' AND (engine <> 'InnoDB' OR table_collation NOT LIKE 'utf8mb4%%')", DATABASE)
        self.assertEqual(wrong, [])

    def test_usage_in_megabytes_follows_the_bytes(self):
        user = self.new_user()
        for size, shown in ((0, "0.00"), (5242, "0.00"), (5243, "0.01"), (15728640, "15.00"), (15739126, "15.01")):
            self.stack.mariadb(f"REPLACE INTO mailbox_usage (email, usage_bytes) VALUES ('{user}', {size})")
            self.assertEqual(self.value("SELECT usage_mb FROM mailbox_usage WHERE email = %s", user), shown)


class Accounts(SqlCase):
    """Each account can do what its part needs, and no more."""

    ALLOWED = {
        "milter-dkim": [
            "SELECT domain, selector, private_key FROM dkim_keys",
            "SELECT value FROM change_counters WHERE name = 'dkim_keys'",
            "INSERT INTO auth_results (outbox_instance, outbox_seq, received_at, direction) "
            "VALUES (1, 1, NOW(), 'signed')",
            "INSERT INTO applied_batches (consumer, instance, seq) VALUES ('milter-dkim', 1, 1) "
            "ON DUPLICATE KEY UPDATE seq = 1",
        ],
        "policyd-ratelimit": [
            "SELECT scope, rate_key, max_count FROM rate_limits",
            "SELECT value FROM change_counters",
            "INSERT INTO rate_events (outbox_instance, outbox_seq, happened_at, scope, action) "
            "VALUES (1, 1, NOW(), 'account', 'DEFER')",
        ],
        "lmtp-indexer": [
            "SELECT id, email, enabled FROM virtual_users",
            "DELETE FROM messages WHERE id = 0",
            "UPDATE events SET type = 'x' WHERE seq = 0",
            "UPDATE event_sequences SET last_seq = last_seq + 1 WHERE user_id = 0",
            "SELECT COUNT(*) FROM message_texts",
            "INSERT INTO search_blocks (user_id, first_id, last_id, meta) SELECT 0, 0, 0, '' FROM DUAL WHERE FALSE",
            "DELETE FROM search_pending WHERE user_id = 0",
        ],
        "quotad": [
            "SELECT email, quota_mb FROM virtual_users",
            "UPDATE virtual_users SET quota_mb = 5 WHERE id = 0",
            "DELETE FROM mailbox_usage WHERE email = ''",
            "SELECT quota_mb FROM domain_limits",
        ],
        "dmarc-import": [
            "SELECT id FROM virtual_domains WHERE name = 'x'",
            "INSERT INTO dmarc_reports_received (domain, begin_at, end_at, org_name, report_id, ours) "
            "VALUES ('x', NOW(), NOW(), 'o', 'i', 1); UPDATE dmarc_reports_received SET records = 1 WHERE id = 0",
            "INSERT INTO tlsrpt_reports_received (begin_at, end_at, org_name, report_id, ours) "
            "VALUES (NOW(), NOW(), 'o', 'i', 1)",
        ],
        "dkim-rotate": [
            "SELECT private_key FROM dkim_keys WHERE id = 0",
            "UPDATE dkim_keys SET visible_at = NULL, absent_until = NULL WHERE id = 0",
            "SELECT id FROM virtual_domains WHERE name = 'x'",
        ],
        "mailuser": [
            "SELECT password FROM virtual_users",
            "SELECT destination FROM virtual_aliases",
            "SELECT password_hash FROM mail_mailboxes",
            "SELECT 1 FROM mail_domains",
            "SELECT destination_email FROM mail_aliases",
        ],
        "mailreader": [
            "SELECT email, quota_mb, enabled FROM virtual_users",
            "SELECT usage_mb, last_updated FROM mailbox_usage",
            "SELECT domain, selector, public_key, state FROM dkim_keys",
            "SELECT record_name, record_value FROM mail_dns_records",
            "SELECT email, storage_quota, is_active FROM mail_mailboxes",
            "SELECT COUNT(*) FROM auth_results",
            "SELECT COUNT(*) FROM dmarc_reports_received r JOIN dmarc_reports_received_rows w ON w.report = r.id",
            "SELECT COUNT(*) FROM tlsrpt_reports_received r JOIN tlsrpt_reports_received_policies p "
            "ON p.report = r.id JOIN tlsrpt_reports_received_failures f ON f.report = r.id",
            "SELECT received_at, size_bytes, dkim_result FROM messages",
        ],
    }
    DENIED = {
        "milter-dkim": ["SELECT email FROM virtual_users", "UPDATE dkim_keys SET state = 'active'",
                        "DELETE FROM auth_results", "SELECT id FROM messages"],
        "policyd-ratelimit": ["SELECT private_key FROM dkim_keys", "INSERT INTO rate_limits (scope) VALUES ('global')",
                              "SELECT email FROM virtual_users"],
        "lmtp-indexer": ["SELECT password FROM virtual_users", "UPDATE virtual_users SET enabled = 1",
                         "DELETE FROM virtual_users", "SELECT domain FROM dkim_keys",
                         "UPDATE mailbox_usage SET messages = 0"],
        "quotad": ["SELECT password FROM virtual_users", "UPDATE virtual_users SET enabled = 1",
                   "INSERT INTO virtual_domains (name) VALUES ('x.example')", "SELECT id FROM messages"],
        "dmarc-import": ["SELECT email FROM virtual_users", "DELETE FROM dmarc_reports_received",
                         "SELECT COUNT(*) FROM auth_results", "SELECT domain FROM dkim_keys"],
        "dkim-rotate": ["DELETE FROM dkim_keys WHERE id = 0", "SELECT email FROM virtual_users", "SELECT id FROM messages"],
        "mailuser": ["UPDATE virtual_users SET enabled = 1", "INSERT INTO virtual_aliases (domain_id) VALUES (1)",
                     "SELECT private_key FROM dkim_keys", "SELECT id FROM messages", "DELETE FROM mail_mailboxes"],
        "mailreader": ["SELECT password FROM virtual_users", "SELECT * FROM virtual_users",
                       "SELECT password_hash FROM mail_mailboxes", "SELECT private_key FROM dkim_keys",
                       "SELECT subject FROM messages", "SELECT terms FROM message_texts",
                       "SELECT payload FROM events", "UPDATE mailbox_usage SET messages = 0"],
    }

    def test_needs_are_met(self):
        for account, statements in self.ALLOWED.items():
            for statement in statements:
                with self.subTest(account=account, statement=statement):
                    code, _, err = self.query(account, f"START TRANSACTION; {statement}; ROLLBACK")
                    self.assertEqual(code, 0, err)

    def test_nothing_more(self):
        common = ["CREATE TABLE t (a INT)", "DROP TABLE events", "DROP TRIGGER virtual_users_updated",
                  "SELECT * FROM mysql.global_priv", "SET GLOBAL max_connections = 1",
                  "INSERT INTO schema_migrations (name, checksum) VALUES ('x', 'x')",
                  "UPDATE change_counters SET value = 0", "SELECT LOAD_FILE('/etc/passwd') INTO OUTFILE '/tmp/x'"]
        for account, statements in self.DENIED.items():
            for statement in statements + common:
                with self.subTest(account=account, statement=statement):
                    code, _, err = self.query(account, f"START TRANSACTION; {statement}; ROLLBACK")
                    self.assertEqual(code, 1)
                    self.assertRegex(err, r"denied|ERROR (1044|1142|1143|1227|1370) ")

    def test_rotation_and_idempotence(self):
        folder = tempfile.mkdtemp(dir="/tmp")
        self.addCleanup(shutil.rmtree, folder)
        real = self.stack.at.path("/etc/postern/passwords/mailreader")
        before = real.read_text()
        code, out, err = self.run_postern("--json", "sql", "accounts", "--password-dir", folder, "mailreader")
        self.assertEqual((code, json.loads(out)[0]["done"]), (0, "kept"), err)
        self.assertEqual(os.listdir(folder), [])
        code, out, _ = self.run_postern("--json", "sql", "accounts", "--rotate", "--password-dir", folder,
                                        "mailreader")
        self.assertEqual((code, json.loads(out)[0]["done"]), (0, "rotated"))
        fresh = pathlib.Path(folder, "mailreader")
        self.assertEqual(os.listdir(folder), ["mailreader"])
        self.assertEqual(fresh.stat().st_mode & 0o777, 0o600)
        self.assertNotEqual(fresh.read_text(), before)
        self.assertEqual(self.query("mailreader", "SELECT 1")[0], 1)
        real.write_text(fresh.read_text())
        self.assertEqual(self.query("mailreader", "SELECT 1")[0], 0)
        self.assertEqual(self.run_postern("sql", "accounts", "root")[0], 64)
        self.assertEqual(self.run_postern("sql", "accounts", "--host", "x' OR '1")[0], 64)


class Erasure(StackCase):
    """Deleting a user erases all; watched tables show every change."""

    TABLES = ("messages", "message_texts", "thread_refs", "events", "event_sequences", "webhook_deliveries",
              "search_pending")

    def counter(self, name):
        return int(self.value("SELECT value FROM change_counters WHERE name = %s", name))

    def fill(self, user):
        """A row in each table that hangs on a user; returns the ids of user and message."""
        ident = self.value("SELECT id FROM virtual_users WHERE email = %s", user)
        self.stack.mariadb(f"""
            INSERT INTO mailbox_usage (email, usage_bytes, messages) VALUES ('{user}', 1000, 1);
            INSERT INTO messages (user_id, delivery_id, recipient, received_at, size_bytes)
                VALUES ({ident}, 'D{ident}', '{user}', NOW(), 1000);
            SET @m = LAST_INSERT_ID();
            INSERT INTO message_addresses (message_id, position, kind, address) VALUES (@m, 0, 'from', 'a@b.example');
            INSERT INTO message_texts (message_id, user_id, body, terms) VALUES (@m, {ident}, 'x', 'findme{ident}');
            INSERT INTO attachments (message_id, position, name, media_type, size_bytes)
                VALUES (@m, 0, 'x.pdf', 'application/pdf', 5);
            INSERT INTO thread_refs VALUES ({ident}, 'x', @m);
            INSERT INTO event_sequences VALUES ({ident}, 1);
            INSERT INTO events (user_id, seq, event_key, type, message_id, payload)
                VALUES ({ident}, 1, 'k', 'message.received', @m, '{{}}');
            INSERT INTO webhook_deliveries (user_id, webhook_id, event_key, state)
                VALUES ({ident}, 'w{ident}', 'k', 'pending');
        """)
        return ident, self.value("SELECT id FROM messages WHERE user_id = %s", ident)

    def left(self, user, ident, message):
        counts = {table: self.value(f"SELECT COUNT(*) FROM {table} WHERE user_id = %s", ident)
                  for table in self.TABLES}
        for table in ("message_addresses", "attachments"):
            counts[table] = self.value(f"SELECT COUNT(*) FROM {table} WHERE message_id = %s", message)
        counts["mailbox_usage"] = self.value("SELECT COUNT(*) FROM mailbox_usage WHERE email = %s", user)
        counts["found"] = self.value(f"SELECT COUNT(*) FROM message_texts WHERE terms LIKE '%findme{ident}%'")
        return counts

    def test_user(self):
        user, other = self.new_user(), self.new_user()
        mine, his = self.fill(user), self.fill(other)
        self.assertEqual(set(self.left(user, *mine).values()), {"1"})
        out = json.loads(self.stack.postern("--json", "user", "remove", user))
        self.assertEqual((out["messages"], out["events"]), (1, 1))
        self.assertEqual(set(self.left(user, *mine).values()), {"0"})
        self.assertEqual(set(self.left(other, *his).values()), {"1"})

    def test_domain(self):
        domain = f"erase{os.getpid()}.example"
        self.stack.postern("domain", "add", domain)
        user = self.new_user(domain)
        mine = self.fill(user)
        self.stack.postern("alias", "add", f"info@{domain}", user)
        self.stack.postern("dkim", "keygen", domain, "--bits", "1024", "--activate")
        self.stack.postern("domain", "remove", domain, "--force")
        self.assertEqual(set(self.left(user, *mine).values()), {"0"})
        self.assertEqual(self.rows("SELECT id FROM dkim_keys WHERE domain = %s", domain), [])
        self.assertEqual(self.rows("SELECT id FROM virtual_aliases WHERE source LIKE %s", f"%@{domain}"), [])

    def test_counters_grow_with_each_change(self):
        domain = f"count{os.getpid()}.example"
        self.stack.postern("domain", "add", domain)
        steps = [
            ("virtual_users", 1, lambda: self.stack.mariadb(
                f"INSERT INTO virtual_users (domain_id, email, password) SELECT id, 'a@{domain}', 'x' "
                f"FROM virtual_domains WHERE name = '{domain}'")),
            ("virtual_users", 1, lambda: self.stack.postern("user", "quota", f"a@{domain}", "7")),
            ("virtual_users", 1, lambda: self.stack.postern("user", "disable", f"a@{domain}")),
            ("virtual_users", 0, lambda: self.stack.postern("user", "passwd", f"a@{domain}", input_text="new\n")),
            ("dkim_keys", 1, lambda: self.stack.postern("dkim", "keygen", domain, "--algorithm", "ed25519")),
            ("dkim_keys", 1, lambda: self.stack.postern("dkim", "activate", domain, "mail-ed25519")),
            ("rate_limits", 1, lambda: self.stack.mariadb(
                f"INSERT INTO rate_limits (scope, rate_key, max_count) VALUES ('account', 'a@{domain}', 5)")),
            ("rate_limits", 1, lambda: self.stack.mariadb(
                f"DELETE FROM rate_limits WHERE rate_key = 'a@{domain}'")),
            ("virtual_users", 1, lambda: self.stack.postern("domain", "remove", "--force", domain)),
        ]
        for number, (name, grows, step) in enumerate(steps):
            with self.subTest(step=number):
                before = self.counter(name)
                step()
                self.assertEqual(self.counter(name) > before, bool(grows))
        before = self.counter("dkim_keys")
        self.stack.postern("domain", "add", domain)
        self.stack.postern("dkim", "keygen", domain, "--algorithm", "ed25519")
        self.stack.postern("domain", "remove", domain)
        self.assertEqual(self.counter("dkim_keys"), before + 2)


class SecondSchema(SqlCase):
    """The other panel's own Postfix and Dovecot queries, against the views."""

    QUERIES = {
        "domains": "SELECT domain_name FROM mail_domains WHERE domain_name = '%s' AND is_verified = 1 "
                   "AND deleted_at IS NULL",
        "mailboxes": "SELECT email FROM mail_mailboxes WHERE email = '%s' AND is_active = 1 AND deleted_at IS NULL",
        "aliases": "SELECT destination_email FROM mail_aliases WHERE alias_email = '%s' AND is_active = 1",
    }

    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.password = self.stack.at.path("/etc/postern/passwords/mailuser").read_text().strip()
        for name, query in self.QUERIES.items():
            (self.folder / f"{name}.cf").write_text(
                f"hosts = unix:{self.stack.mysql_socket}\nuser = mailuser\npassword = {self.password}\n"
                f"dbname = {DATABASE}\nquery = {query}\n")

    def postmap(self, name, key):
        """What Postfix finds, None where it finds nothing."""
        done = subprocess.run(["postmap", "-c", str(self.stack.at.path("/etc/postfix")), "-q", key,
                               f"mysql:{self.folder}/{name}.cf"], capture_output=True, text=True, check=False)
        self.assertEqual(done.stderr, "")
        return done.stdout.strip() if done.returncode == 0 else None

    def test_postfix(self):
        user = self.new_user()
        alias = user.replace("@", "-a@")
        self.stack.postern("alias", "add", alias, user, "other@example.org")
        self.assertEqual(self.postmap("domains", "example.net"), "example.net")
        self.assertIsNone(self.postmap("domains", "example.invalid"))
        self.assertEqual(self.postmap("mailboxes", user), user)
        self.assertEqual(self.postmap("aliases", alias), f"{user},other@example.org")
        self.assertIsNone(self.postmap("mailboxes", "x' OR '1' = '1@example.net"))
        self.stack.postern("user", "disable", user)
        self.assertIsNone(self.postmap("mailboxes", user))
        self.assertEqual(self.postmap("aliases", alias), "other@example.org")
        self.stack.postern("user", "enable", user)
        self.assertEqual(self.postmap("mailboxes", user), user)
        self.stack.postern("user", "remove", user)
        self.assertIsNone(self.postmap("mailboxes", user))

    def test_domain_that_is_gone(self):
        domain = f"gone{os.getpid()}.example"
        self.stack.postern("domain", "add", domain)
        self.assertEqual(self.postmap("domains", domain), domain)
        self.stack.postern("domain", "remove", domain)
        self.assertIsNone(self.postmap("domains", domain))

    @staticmethod
    def sql_of_dovecot(user, names):
        """The panel's queries, with the name for the user that Dovecot has."""
        return (
            f"{names[0]} = SELECT email AS user, password_hash AS password FROM mail_mailboxes "
            f"WHERE email = '{user}' AND is_active = 1 AND deleted_at IS NULL\n{names[1]}"
            " = SELECT 5000 AS uid, 5000 AS gid, CONCAT('*:storage=', storage_quota, 'M') AS quota_rule "
            f"FROM mail_mailboxes WHERE email = '{user}' AND is_active = 1 AND deleted_at IS NULL\n"
            "iterate_query = SELECT email AS user FROM mail_mailboxes WHERE is_active = 1\n")

    @staticmethod
    def shipped_queries(name):
        """Those of deploy/, as sql_of_dovecot() has them, with what Dovecot puts in the place of the name."""
        if assemble.dovecot_is_24():
            text = (assemble.DEPLOY / "dovecot/2.4/99-postern.conf").read_text().replace("%{user}", name)
            passwords, *users = re.findall(r"^  ((?:iterate_)?query = .*)$", text, re.M)
            return "\n}\nuserdb sql {\n".join([passwords, "\n".join(users) + "\n"])
        text = (assemble.DEPLOY / "dovecot/postern-sql.conf").read_text().replace("%u", name)
        return "\n".join(re.findall(r"^\w+_query = .*$", text, re.M)) + "\n"

    def dovecot_23(self, queries):
        (self.folder / "sql.conf").write_text(
            f"driver = mysql\nconnect = host={self.stack.mysql_socket} dbname={DATABASE} user=mailuser "
            f"password={self.password}\ndefault_pass_scheme = BLF-CRYPT\n"
            + (queries or self.sql_of_dovecot("%u", ("password_query", "user_query"))))
        return ("", "mail_home = /nonexistent/%d/%n\n"
                f"passdb {{\n  driver = sql\n  args = {self.folder}/sql.conf\n}}\n"
                f"userdb {{\n  driver = sql\n  args = {self.folder}/sql.conf\n}}\n")

    def dovecot_24(self, queries):
        queries = queries or self.sql_of_dovecot("%{user}", ("query", "}\nuserdb sql {\nquery"))
        return ("dovecot_config_version = 2.4.0\ndovecot_storage_version = 2.4.0\n",
                "mail_home = /nonexistent/%{user}\nsql_driver = mysql\n"
                f"mysql panel {{\nhost = {self.stack.mysql_socket}\ndbname = {DATABASE}\nuser = mailuser\n"
                f"password = {self.password}\n}}\n"
                f"passdb sql {{\ndefault_password_scheme = BLF-CRYPT\n{queries}}}\n")

    def start_dovecot(self, queries=None):
        """A Dovecot with nothing but password and user queries, by default the panel's."""
        first, last = (self.dovecot_24 if assemble.dovecot_is_24() else self.dovecot_23)(queries)
        conf = self.folder / "dovecot.conf"
        conf.write_text(
            f"{first}base_dir = {self.folder}/run\nstate_dir = {self.folder}/state\nlog_path = {self.folder}/log\n"
            f"protocols =\nssl = no\nauth_failure_delay = 0\n{last}")
        os.chmod(self.folder, 0o755)
        run(["dovecot", "-c", conf])
        self.addCleanup(run, ["doveadm", "-c", conf, "stop"])
        return conf

    def doveadm(self, conf, *words):
        return subprocess.run(["doveadm", "-c", str(conf), *words], capture_output=True, text=True, check=False,
                              timeout=120)

    def test_dovecot(self):
        user, gone = self.new_user(quota_mb=77), self.new_user()
        conf = self.start_dovecot()
        self.assertEqual(self.doveadm(conf, "auth", "test", user, "secret").returncode, 0)
        self.assertNotEqual(self.doveadm(conf, "auth", "test", user, "wrong").returncode, 0)
        self.assertEqual(self.doveadm(conf, "user", "-f", "quota_rule", user).stdout.strip(), "*:storage=77M")
        self.assertIn(gone, self.doveadm(conf, "user", "*").stdout.split())
        self.stack.postern("user", "disable", user)
        self.stack.postern("user", "remove", gone)
        for address in (user, gone):
            self.assertNotEqual(self.doveadm(conf, "auth", "test", address, "secret").returncode, 0)
            self.assertNotEqual(self.doveadm(conf, "user", address).returncode, 0)
            self.assertNotIn(address, self.doveadm(conf, "user", "*").stdout.split())

    def test_name_that_dovecot_has_lost(self):
        """While its connection comes back Dovecot may ask for an empty name: that is no user who does not exist."""
        user, temporary = self.new_user(), 75
        conf = self.start_dovecot(self.shipped_queries(""))
        self.assertIn("temp_fail", self.doveadm(conf, "auth", "test", user, "secret").stdout)
        self.assertEqual(self.doveadm(conf, "user", user).returncode, temporary)

    def test_dns_records(self):
        domain = f"dns{os.getpid()}.example"
        self.stack.postern("domain", "add", domain)
        self.addCleanup(self.stack.postern, "domain", "remove", domain)
        for algorithm in ("rsa", "ed25519"):
            made = json.loads(self.stack.postern("--json", "dkim", "keygen", domain, "--algorithm", algorithm))
            found = self.rows("SELECT record_type, record_value, is_active FROM mail_dns_records "
                              "WHERE domain_name = %s AND record_name = %s", domain, made["record_name"])
            self.assertEqual(found, [("TXT", made["record_value"], "0")])
        self.stack.postern("dkim", "retire", "--now", domain, "mail")
        self.assertEqual(self.value("SELECT COUNT(*) FROM mail_dns_records WHERE domain_name = %s", domain), "1")
