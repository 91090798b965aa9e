"""What policyd-ratelimit puts into rate_events."""
from tests.frame.policy_case import DAEMON, PolicyCase

LIMIT = "client_ip messages 2/1h"


class Events(PolicyCase):
    """Rows of limits that were reached."""

    def events(self, key):
        return self.rows("SELECT kind, scope, unit, max_count, window_s, action, shadow, client_ip, sender, detail "
                         "FROM rate_events WHERE rate_key = %s ORDER BY id", key)

    def refuse(self, client, source, times):
        for _ in range(2):
            self.assertEqual(self.send_message(client, client_address=source), "DUNNO")
        for _ in range(times):
            self.assertRegex(self.send_message(client, client_address=source), "^450 ")

    def test_many_refusals_make_one_row_and_one_at_the_end(self):
        source = self.new_source()
        with self.configured(DAEMON, limit=LIMIT):
            with self.client() as client:
                self.refuse(client, source, 50)
            self.wait_until(lambda: self.events(source), what="the row")
            begin = ("limited", "client_ip", "messages", "2", "3600", "DEFER", "0", source, "stranger@example.org",
                     "NULL")
            self.assertEqual([tuple(row) for row in self.events(source)], [begin])
            self.stack.restart(DAEMON)
            self.wait_until(lambda: len(self.events(source)) == 2, what="the end")
            end = self.events(source)[1]
            self.assertEqual(end[0], "limited_end")
            self.assertRegex(end[-1], r"^50 refused in \d+ s$")

    def test_rows_wait_while_the_database_is_away_and_come_once(self):
        source = self.new_source()
        with self.configured(DAEMON, limit=LIMIT):
            self.stack.stop("mysql")
            try:
                with self.client() as client:
                    self.refuse(client, source, 3)
                    self.wait_until(lambda: self.metric("postern_outbox_records", DAEMON) == 1, what="the record")
                    self.stack.kill(DAEMON)
                self.wait_until(lambda: self.stack.pid(DAEMON), what="the next life")
            finally:
                self.stack.start("mysql")
            self.wait_until(lambda: self.events(source), what="the row")
            self.assertEqual([row[0] for row in self.events(source)], ["limited"])

    def test_no_rows_where_none_are_wanted(self):
        source = self.new_source()
        with self.configured(DAEMON, limit=LIMIT, rate_events="no"), self.client() as client:
            self.refuse(client, source, 1)
            self.stack.restart(DAEMON)
        self.assertEqual(self.events(source), [])
