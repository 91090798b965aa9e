"""An account of the database that sees one domain's rows, and nothing else."""
import json
import os
import unittest

from tests.frame.stack import DATABASE
from tests.integration.test_sql import SqlCase

TABLES = ("virtual_users", "mailbox_usage", "messages", "message_texts", "message_addresses", "attachments", "events",
          "event_sequences", "webhook_deliveries")


class Tenant(SqlCase):
    def setUp(self):
        super().setUp()
        self.domain = f"tenant{os.getpid()}.example"
        self.stack.postern("domain", "add", self.domain)
        self.addCleanup(self.stack.mariadb, f"DELETE FROM virtual_domains WHERE name = '{self.domain}'")
        self.user, self.other = self.new_user(self.domain), self.new_user()
        self.fill(self.user)
        self.fill(self.other)
        passwords = self.stack.at.path("/etc/postern/passwords")
        code, out, err = self.run_postern("--json", "sql", "tenant", "--password-dir", passwords, self.domain)
        self.assertEqual(code, 0, err)
        self.made = json.loads(out)
        self.addCleanup(self.run_postern, "sql", "tenant", "--remove", self.domain)

    def fill(self, user):
        ident = self.value("SELECT id FROM virtual_users WHERE email = %s", user)
        self.stack.mariadb(f"""
            INSERT INTO mailbox_usage (email, usage_bytes, messages) VALUES ('{user}', 1000, 1);
            INSERT INTO messages (user_id, delivery_id, recipient, received_at, size_bytes)
                VALUES ({ident}, 'T{ident}', '{user}', NOW(), 1000);
            SET @m = LAST_INSERT_ID();
            INSERT INTO message_addresses (message_id, position, kind, address) VALUES (@m, 0, 'from', 'a@b.example');
            INSERT INTO message_texts (message_id, user_id, body, terms) VALUES (@m, {ident}, 'x', 'x');
            INSERT INTO attachments (message_id, position, name, media_type, size_bytes)
                VALUES (@m, 0, 'x.pdf', 'application/pdf', 5);
            INSERT INTO event_sequences VALUES ({ident}, 1);
            INSERT INTO events (user_id, seq, event_key, type, message_id, payload)
                VALUES ({ident}, 1, 'k', 'message.received', @m, '{{}}');
            INSERT INTO webhook_deliveries (user_id, webhook_id, event_key, state)
                VALUES ({ident}, 't{ident}', 'k', 'delivered');
        """)

    def ask(self, statement, database=None):
        return self.query(self.made["account"], statement, database or self.made["database"])

    def test_sees_its_rows_and_nothing_else(self):
        self.assertEqual(tuple(self.made["views"]), TABLES)
        for table in TABLES:
            code, out, err = self.ask(f"SELECT COUNT(*) FROM {table}")
            self.assertEqual((code, out), (0, "1\n"), f"{table}: {err}")
        self.assertEqual(self.ask("SELECT email FROM virtual_users")[1], f"{self.user}\n")
        self.assertEqual(self.ask("SELECT recipient FROM messages")[1], f"{self.user}\n")
        for statement in ("SELECT password FROM virtual_users", "UPDATE messages SET subject = 'x'", "DELETE FROM events",
                          f"SELECT COUNT(*) FROM {DATABASE}.messages", f"SELECT COUNT(*) FROM {DATABASE}.virtual_users",
                          "SHOW CREATE VIEW messages", "CREATE TABLE t (a INT)", "SELECT * FROM mysql.global_priv"):
            code, _, err = self.ask(statement)
            self.assertEqual(code, 1, statement)
            self.assertRegex(err, r"denied|ERROR (1044|1054|1142|1143|1227) ", statement)
        self.assertEqual(self.ask("SELECT 1", DATABASE)[0], 1)

    def test_again_and_away(self):
        code, out, _ = self.run_postern("--json", "sql", "tenant", "--password-dir",
                                        self.stack.at.path("/etc/postern/passwords"), self.domain)
        self.assertEqual((code, json.loads(out)["done"]), (0, "kept"))
        self.assertEqual(self.ask("SELECT COUNT(*) FROM messages")[1], "1\n")
        self.assertEqual(self.run_postern("sql", "tenant", "--remove", self.domain)[0], 0)
        self.assertEqual(self.ask("SELECT 1")[0], 1)
        self.assertEqual(self.value("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = %s",
                                    self.made["database"]), "0")
        self.assertEqual(self.run_postern("sql", "tenant", "nowhere.example")[0], 68)
        self.assertEqual(self.run_postern("sql", "tenant", "--account", "x'y", self.domain)[0], 64)


if __name__ == "__main__":
    unittest.main()
