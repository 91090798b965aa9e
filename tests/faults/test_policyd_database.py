"""policyd-ratelimit and a database that is killed, hangs, is locked, has no connection free, or tells of
deadlocks (rows 10 to 13): answers stay as fast, overrides stay in force, no row is lost or comes twice."""
import time

from tests.frame import database_faults, sql
from tests.frame.policy_case import DAEMON, PolicyCase
from tests.frame.stalls import Stalls

MAX_S = 2  # for a message of two requests, on a busy machine
MESSAGES = 30


class Database(PolicyCase):
    """An account that may send two messages by an override, whatever becomes of the database."""

    def setUp(self):
        super().setUp()
        self.account = self.new_user()
        self.rows("INSERT INTO rate_limits (scope, rate_key, unit, max_count, window_s, action) "
                  "VALUES ('account', %s, 'messages', 2, 3600, 'REJECT')", self.account)
        self.wait_until(lambda: self.max_of(self.account) == 2, what="the override")

    def tearDown(self):
        self.stack.start("mysql")
        self.rows("DELETE FROM rate_limits WHERE rate_key = %s", self.account)
        super().tearDown()

    def max_of(self, account):
        return self.limits("explain", f"account:{account}")["windows"][0]["max"]

    def events(self, account):
        return [row[0] for row in self.rows("SELECT kind FROM rate_events WHERE rate_key = %s", account)]

    def assert_unmoved(self):
        """The override holds, a stranger is served, and nobody waits."""
        slowest = 0
        with self.client() as client, Stalls(self.stack.at.path("/run")) as stalls:
            answers = []
            for number in range(MESSAGES):
                began = time.monotonic()
                answers.append(self.send_message(client, sasl_username=self.account)[:4])
                stranger = self.send_message(client, client_address=f"10.7.{number}.1", sasl_username=f"s{number}@x.example")
                slowest = max(slowest, time.monotonic() - began)
                self.assertEqual(stranger, "DUNNO")
        self.assertEqual(answers[2:], ["550 "] * (MESSAGES - 2))
        self.assertLess(slowest, MAX_S + stalls.excuse())

    def assert_event_comes_once(self):
        self.wait_until(lambda: self.events(self.account), what="the row that waited")
        self.assertEqual(self.events(self.account), ["limited"])

    def test_killed(self):
        self.stack.kill("mysql")
        self.assert_unmoved()
        self.wait_until(lambda: "database_away" in self.log_text(), what="the event")
        # Also a start without it: the last known overrides are not kept, the limits are.
        self.stack.start("mysql")
        self.assert_event_comes_once()

    def test_stopped(self):
        with database_faults.hangs(self.stack):
            self.assert_unmoved()
        self.assert_event_comes_once()

    def test_locked_tables(self):
        with sql.session(self.stack) as execute:
            execute("LOCK TABLES rate_limits WRITE, rate_events WRITE, change_counters WRITE")
            self.assert_unmoved()
        self.assert_event_comes_once()

    def test_no_connection_free(self):
        """The daemon starts while the server has no connection for it, serves, and takes the overrides later."""
        with database_faults.no_connection_free(self.stack, DAEMON):
            with self.client() as client:
                answers = [self.send_message(client, sasl_username=self.account) for _ in range(4)]
            self.assertEqual(answers, ["DUNNO"] * 4)  # the configured limit
            self.wait_until(lambda: "Too many connections" in self.log_text(), what="the event")
        self.wait_until(lambda: self.max_of(self.account) == 2, what="the override")
        self.assert_unmoved()

    def test_deadlock_is_tried_again(self):
        with database_faults.deadlocks(self.stack, "BEFORE INSERT ON rate_events") as tries:
            self.assert_unmoved()
            self.assert_event_comes_once()
            self.assertGreater(tries(), database_faults.DEADLOCKS)

    def test_restart_in_mid_statement(self):
        """The server dies while it holds the row: it comes once all the same."""
        with database_faults.dies_in_mid_statement(self.stack, "AFTER INSERT ON rate_events"):
            self.assert_unmoved()
        self.assert_event_comes_once()


class Overrides(PolicyCase):
    """Rows of rate_limits take effect in under 5 s, and so do changes and deletions."""

    LIMIT_S = 5

    def explained(self, key):
        return [(w["window_s"], w["max"], w["override"]) for w in self.limits("explain", key)["windows"] if w["override"]]

    def follow(self, scope, row_key, key):
        """A row of SCOPE and ROW_KEY, added, changed and deleted, as KEY sees it."""
        add = ("INSERT INTO rate_limits (scope, rate_key, unit, max_count, window_s, action) "
               "VALUES (%s, %s, 'messages', 7, 3600, 'DEFER')")
        self.rows(add, scope, row_key)
        try:
            self.wait_until(lambda: self.explained(key) == [(3600, 7, True)], self.LIMIT_S, "the row")
            self.rows("UPDATE rate_limits SET max_count = 9 WHERE rate_key = %s", row_key)
            self.wait_until(lambda: self.explained(key) == [(3600, 9, True)], self.LIMIT_S, "the change")
        finally:
            self.rows("DELETE FROM rate_limits WHERE rate_key = %s", row_key)
        self.wait_until(lambda: self.explained(key) == [], self.LIMIT_S, "the deletion")

    def test_account(self):
        account = self.new_user()
        self.follow("account", account, f"account:{account}")

    def test_all_accounts_of_a_domain(self):
        self.follow("account", "@firm.example", "account:anybody@firm.example")

    def test_domain(self):
        self.follow("account_domain", "firm.example", "account_domain:firm.example")

    def test_address(self):
        self.follow("client_ip", "192.0.2.77", "192.0.2.77")

    def test_network(self):
        self.follow("client_ip", "198.51.100.0/24", "198.51.100.9")

    def test_network_of_ipv6(self):
        self.follow("client_ip", "2001:db8:5::/48", "2001:db8:5:6::1")
