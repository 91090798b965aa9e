"""policyd-ratelimit with the real Postfix, and its own socket."""
import contextlib
import json
import re
import signal
import smtplib
import socket
import subprocess

from tests.frame.mail import message, smtp, submission
from tests.frame.policy import new_instance
from tests.frame.policy_case import DAEMON, RECIPIENT, SENDER, PolicyCase


class Promise(PolicyCase):
    """The two limits that the users asked for, as shipped."""

    def test_the_101st_message_of_an_ip_is_deferred(self):
        source, user = self.new_source(), self.new_user()
        accepted = 0
        with smtp(self.stack, source) as client:
            client.ehlo_or_helo_if_needed()
            for _ in range(60):  # cost nothing, and anvil is not in the way either
                client.mail(SENDER)
                self.assertEqual(client.rcpt(user)[0], 250)
                client.rset()
            for _ in range(100):
                accepted += client.sendmail(SENDER, [user], message(SENDER, user)) == {}
            with self.assertRaises(smtplib.SMTPRecipientsRefused) as caught:
                client.sendmail(SENDER, [user], message(SENDER, user))
        self.assertEqual(accepted, 100)
        code, text = caught.exception.recipients[user]
        self.assertEqual(code, 450)
        self.assertRegex(text.decode(), r"4\.7\.1 .*Limit of 100 messages in 1h reached for client_ip "
                         + re.escape(source) + r"; it is free again in .*, at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC")
        self.assertEqual(self.used(source), 100)

    def test_the_1001st_message_of_an_account_is_deferred(self):
        account = self.new_user()
        with self.client() as client:
            answers = [self.send_message(client, sasl_username=account) for _ in range(1001)]
        self.assertEqual(answers[:1000], ["DUNNO"] * 1000)
        self.assertRegex(answers[1000], r"^450 4\.7\.1 Limit of 1000 messages in 1h reached for account ")

    def test_ipv6_is_limited_by_64(self):
        with self.client() as client:
            for host in range(100):
                self.assertEqual(self.send_message(client, client_address=f"2001:db8:77::{host + 1:x}"), "DUNNO")
            self.assertRegex(self.send_message(client, client_address="2001:db8:77::ffff:1"),
                             r"^450 4\.7\.1 .* client_ip 2001:db8:77::/64")
            self.assertEqual(self.send_message(client, client_address="2001:db8:77:1::1"), "DUNNO")


class Transaction(PolicyCase):
    """What is counted of what a client does, by the real Postfix."""

    def setUp(self):
        super().setUp()
        self.source, self.user = self.new_source(), self.new_user()

    def begin(self, client, *recipients):
        client.ehlo_or_helo_if_needed()
        self.assertEqual(client.mail(SENDER)[0], 250)
        return [client.rcpt(recipient)[0] for recipient in recipients or [self.user]]

    def test_rset_costs_nothing(self):
        with smtp(self.stack, self.source) as client:
            for _ in range(5):
                self.assertEqual(self.begin(client), [250])
                client.rset()
            client.sendmail(SENDER, [self.user], message(SENDER, self.user))
            self.assertEqual(self.used(self.source), 1)

    def test_refused_recipients_cost_nothing(self):
        with smtp(self.stack, self.source) as client:
            self.assertEqual(self.begin(client, "nobody-at-all@example.net", "x@relay.example.edu"), [550, 554])
            self.assertEqual(self.used(self.source), 0)
            client.rset()
            self.assertEqual(self.begin(client, "nobody-at-all@example.net", self.user), [550, 250])
            self.assertEqual(client.data(message(SENDER, self.user))[0], 250)
            self.assertEqual(self.used(self.source), 1)

    def test_several_recipients_are_one_message(self):
        users = [self.new_user() for _ in range(5)]
        with smtp(self.stack, self.source) as client:
            client.sendmail(SENDER, users, message(SENDER, users[0]))
        self.assertEqual(self.used(self.source), 1)

    def test_bdat_is_counted_like_data(self):
        with smtp(self.stack, self.source) as client:
            data = message(SENDER, self.user)
            self.begin(client)
            client.send(f"BDAT {len(data)} LAST\r\n".encode() + data)
            self.assertEqual(client.getreply()[0], 250)
            self.assertEqual(self.used(self.source), 1)

    def test_rejected_data_does_not_end_the_transaction(self):
        with smtp(self.stack, self.source) as client:
            client.ehlo_or_helo_if_needed()
            client.mail(SENDER)
            self.assertEqual(client.rcpt("nobody-at-all@example.net")[0], 550)
            self.assertEqual(client.docmd("DATA")[0], 554)
            self.assertEqual(client.rcpt(self.user)[0], 250)
            self.assertEqual(client.data(message(SENDER, self.user))[0], 250)
        self.assertEqual(self.used(self.source), 1)

    def test_lost_connection_in_data_is_refunded(self):
        client = smtp(self.stack, self.source)
        self.assertEqual(self.begin(client), [250])
        self.assertEqual(client.docmd("DATA")[0], 354)
        self.assertEqual(self.used(self.source), 1)
        client.sock.shutdown(socket.SHUT_RDWR)
        client.close()
        # The smtpd that served it tells by its next message, or by its end.
        self.stack.reload("postfix")
        self.wait_until(lambda: self.used(self.source) == 0, what="the refund")

    def test_submission_counts_the_account_and_not_the_ip(self):
        with submission(self.stack, self.user, source=self.source) as client:
            for _ in range(3):
                client.sendmail(self.user, [RECIPIENT], message(self.user, RECIPIENT))
        self.assertEqual(self.used(f"account:{self.user}"), 3)
        self.assertEqual(self.used(self.source), 0)


class Restart(PolicyCase):
    """Counts over restarts, and mail without the daemon."""

    def test_restart_and_kill_keep_the_counts(self):
        source = self.new_source()
        with self.client() as client:
            for _ in range(60):
                self.assertEqual(self.send_message(client, client_address=source), "DUNNO")
        self.stack.restart(DAEMON)
        with self.client() as client:
            for _ in range(40):
                self.assertEqual(self.send_message(client, client_address=source), "DUNNO")
            open_instance = new_instance()
            other = self.new_source()
            client.ask(instance=open_instance, client_address=other)
            self.stack.kill(DAEMON)
        self.wait_until(lambda: self.stack.pid(DAEMON), what="the next life")
        with self.client() as client:
            self.assertRegex(self.send_message(client, client_address=source), "^450 4.7.1 ")
            # The open transaction goes on: charged once, at its end.
            self.assertEqual(client.ask(instance=open_instance, client_address=other, recipient_count="1",
                                        protocol_state="END-OF-MESSAGE"), "DUNNO")
        self.assertEqual(self.used(other), 1)

    def test_mail_passes_without_the_daemon(self):
        source, user = self.new_source(), self.new_user()
        pid = self.stack.kill(DAEMON, signal.SIGSTOP)
        try:
            with smtp(self.stack, source) as client:
                self.assertEqual(client.sendmail(SENDER, [user], message(SENDER, user)), {})
        finally:
            self.stack.kill(DAEMON, signal.SIGCONT)
        self.assertEqual(self.stack.pid(DAEMON), pid)

    def test_reload_changes_the_cap_of_connections(self):
        def answers():
            with contextlib.ExitStack() as stack:
                clients = [stack.enter_context(self.client()) for _ in range(3)]
                return [self.asked(client) for client in clients]

        with self.configured(DAEMON, idle_timeout="1h"):
            self.assertEqual(answers(), ["DUNNO"] * 3)
            self.stack.configure(DAEMON, max_connections="2")
            self.stack.reload(DAEMON)
            self.wait_until(lambda: answers() == ["DUNNO", "DUNNO", None], what="the cap of two")

    @staticmethod
    def asked(client):
        try:
            return client.ask(instance="cap.1")
        except ConnectionError:
            return None

    def test_reload_keeps_counts_and_a_bad_file_changes_nothing(self):
        source = self.new_source()
        with self.configured(DAEMON, limit="client_ip messages 3/1h"), self.client() as client:
            answers = [self.send_message(client, client_address=source) for _ in range(4)]
            self.assertRegex(answers[3], "Limit of 3 messages")
            self.stack.configure(DAEMON, limit="client_ip messages five/1h")
            self.stack.reload(DAEMON)
            self.wait_until(lambda: "five/1h" in self.stack.log_file(DAEMON).read_text(errors="replace"),
                            what="the refused reload")
            self.assertRegex(self.send_message(client, client_address=source), "Limit of 3 messages")
            self.stack.configure(DAEMON, limit="client_ip messages 5/1h")
            self.stack.reload(DAEMON)
            self.wait_until(lambda: self.limits("explain", source)["windows"][0]["max"] == 5, what="the reload")
            self.assertEqual(self.send_message(client, client_address=source), "DUNNO")
            self.assertEqual(self.used(source), 4)


class Protocol(PolicyCase):
    """The socket itself."""

    def test_request_split_at_every_byte(self):
        request = (f"request=smtpd_access_policy\nprotocol_state=RCPT\ninstance={new_instance()}\n"
                   f"client_address={self.new_source()}\nsender=\nrecipient=a@example.net\n\n").encode()
        with self.client() as client:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            for cut in range(1, len(request)):
                client.socket.sendall(request[:cut])
                client.socket.sendall(request[cut:])
                self.assertEqual(client.receive(), "DUNNO")
            for byte in request:
                client.socket.sendall(bytes([byte]))
            self.assertEqual(client.receive(), "DUNNO")

    def test_malformed_request_closes_that_connection_only(self):
        with self.client() as good, self.client() as bad:
            bad.socket.sendall(b"GET / HTTP/1.0\r\n\r\n")
            self.assertIsNone(bad.receive())
            self.assertEqual(good.ask(instance=new_instance(), client_address=self.new_source()), "DUNNO")


class Administration(PolicyCase):
    """Overrides in SQL and the command."""

    def test_override_in_sql_takes_effect_and_goes(self):
        account = self.new_user()
        ask = lambda: self.limits("explain", f"account:{account}")["windows"][0]
        self.assertEqual(ask()["max"], 1000)
        self.rows("INSERT INTO rate_limits (scope, rate_key, unit, max_count, window_s, action) "
                  "VALUES ('account', %s, 'messages', 2, 3600, 'REJECT')", account)
        self.wait_until(lambda: ask()["max"] == 2, 5, "the override")
        with self.client() as client:
            answers = [self.send_message(client, sasl_username=account) for _ in range(3)]
        self.assertEqual(answers[:2], ["DUNNO", "DUNNO"])
        self.assertRegex(answers[2], r"^550 5\.7\.1 Limit of 2 messages in 1h")
        # The database away changes nothing.
        self.stack.stop("mysql")
        with self.client() as client:
            self.assertRegex(self.send_message(client, sasl_username=account), r"^550 5\.7\.1 ")
        self.stack.start("mysql")
        self.rows("DELETE FROM rate_limits WHERE rate_key = %s", account)
        self.wait_until(lambda: ask()["max"] == 1000, what="the end of the override")

    def test_override_of_a_window_without_limit(self):
        account, other = self.new_user(), self.new_user()
        windows = lambda who: [(w["window_s"], w["max"]) for w in self.limits("explain", f"account:{who}")["windows"]]
        self.rows("INSERT INTO rate_limits (scope, rate_key, unit, max_count, window_s, action) "
                  "VALUES ('account', %s, 'messages', 2, 86400, 'REJECT')", account)
        self.wait_until(lambda: windows(account) == [(3600, 1000), (86400, 2)], 5, "the override")
        self.assertEqual(windows(other), [(3600, 1000)])
        with self.client() as client:
            answers = [self.send_message(client, sasl_username=account) for _ in range(3)]
            self.assertEqual(answers[:2], ["DUNNO", "DUNNO"])
            self.assertRegex(answers[2], r"^550 5\.7\.1 Limit of 2 messages in 1d")
            self.assertEqual([self.send_message(client, sasl_username=other) for _ in range(3)], ["DUNNO"] * 3)
            # Deleted rows are gone in less than 5 s, too.
            self.rows("DELETE FROM rate_limits WHERE rate_key = %s", account)
            self.wait_until(lambda: windows(account) == [(3600, 1000)], 5, "the end of the override")
            self.assertEqual(self.send_message(client, sasl_username=account), "DUNNO")

    def test_rows_without_effect_are_named_once(self):
        """Each with its number and why; a later change of other rows does not tell of them again."""
        local, _, domain = self.new_user().partition("@")
        rows = [("sender", f"{local}+news@{domain}", "address extension"), ("account_domain", f"{local}@{domain}", "key is none"),
                ("client_ip", "192.0.2.0/40", "key is none")]
        # In one statement: a look between two of them would tell of the first ones twice.
        self.rows("INSERT INTO rate_limits (scope, rate_key, unit, max_count, window_s, action) VALUES "
                  + ", ".join(["(%s, %s, 'messages', 2, 3600, 'REJECT')"] * len(rows)), *(part for row in rows for part in row[:2]))
        numbers = {key: self.rows("SELECT id FROM rate_limits WHERE rate_key = %s", key)[0][0] for _, key, _ in rows}
        told = lambda key, why: len(re.findall(rf"override_ignored .*row={numbers[key]} .*key=\"?{re.escape(key)}\"? .*{why}",
                                               self.log_text()))
        try:
            for _, key, why in rows:
                self.wait_until(lambda key=key, why=why: told(key, why) == 1, what=f"{key} is told")
            self.rows("INSERT INTO rate_limits (scope, rate_key, unit, max_count, window_s, action) "
                      "VALUES ('account_domain', %s, 'messages', 2, 3600, 'REJECT')", f"@{local}.{domain}")
            account = f"a@{local}.{domain}"
            self.wait_until(lambda: self.limits("explain", f"account_domain:{account}")["windows"], what="a domain with its @")
            self.assertEqual([told(key, why) for _, key, why in rows], [1, 1, 1])
        finally:
            self.rows("DELETE FROM rate_limits WHERE rate_key LIKE %s", f"%{local}%")
            self.rows("DELETE FROM rate_limits WHERE rate_key = '192.0.2.0/40'")

    def test_block_release_reset(self):
        source = self.new_source()
        with self.client() as client:
            self.send_message(client, client_address=source)
            self.stack.postern("limits", "block", source)
            self.assertRegex(self.send_message(client, client_address=source), "^450 4.7.1 .*blocked")
            self.assertIn({"scope": "client_ip", "key": source}, self.limits("list")["blocked"])
            self.stack.postern("limits", "release", source)
            self.assertEqual(self.send_message(client, client_address=source), "DUNNO")
            self.assertEqual(self.used(source), 2)
            self.stack.postern("limits", "reset", source)
            self.assertEqual(self.used(source), 0)

    def test_block_in_any_spelling(self):
        name, domain = self.new_user().partition("@")[0], f"{new_instance().partition('.')[0]}.block.example"
        for key, listed, attributes in (
                (f"sender:{name.upper()}+list@{domain}", f"{name}@{domain}", {"sender": f"{name}+other@{domain}"}),
                (f"sender_domain:someone@{domain}", domain, {"sender": f"x@{domain.upper()}"}),
                (f"recipient_domain:{domain}.", domain, {"recipient": f"x@{domain}"})):
            with self.subTest(key=key), self.client() as client:
                scope = key.partition(":")[0]
                self.stack.postern("limits", "block", key)
                self.assertRegex(self.send_message(client, **attributes), "^450 4.7.1 .*blocked")
                self.assertIn({"scope": scope, "key": listed}, self.limits("list")["blocked"])
                self.stack.postern("limits", "release", key)
                self.assertEqual(self.send_message(client, **attributes), "DUNNO")

    def test_accounts_that_are_no_ascii(self):
        account = f"jürgen {new_instance().partition('.')[0]}@example.net"
        with self.configured(DAEMON, limit=["account messages 1/1h"]), self.client() as client:
            ask = lambda: self.send_message(client, sasl_username=account)
            self.assertEqual(ask(), "DUNNO")
            # The reply goes to whoever may not speak SMTPUTF8; what administrators see can be given back.
            self.assertRegex(ask(), r"^450 4\.7\.1 .* reached for account j\?\?rgen ")
            (listed,) = [row["key"] for row in self.limits("list")["limited"] if "rgen" in row["key"]]
            self.assertEqual(listed, account)
            self.stack.postern("limits", "reset", listed)
            self.assertEqual(ask(), "DUNNO")

    def test_all_options_of_a_limit_at_once(self):
        limits = ["client_net messages 2/1h, 3/1d REJECT when server_port=25 text=\"{key} is over {limit}\"",
                  "sender_domain bytes 10K/1h HOLD", "global recipients 1/10m shadow = yes"]
        with self.configured(DAEMON, limit=limits, allow="127.99.0.0/16, account:@example.net"), \
                self.client() as client:
            source = self.new_source()
            net = source.rpartition(".")[0]
            ask = lambda **more: self.send_message(client, client_address=source, **more)
            self.assertEqual([ask(), ask()], ["DUNNO", "DUNNO"])
            self.assertEqual(ask(), f"550 5.7.1 client_net {net}.0/24 is over 2 messages in 1h")
            self.assertEqual(ask(sasl_username="x@example.net"), "DUNNO")
            self.assertRegex(ask(server_port="587", size="20000"), "^HOLD Limit of 10240 bytes in 1h")
            self.assertEqual(self.used("global", unit="recipients"), 1)
            # Explained, an address is also part of its network and of all mail.
            rows = [(w["scope"], w["unit"], w["window_s"], w["used"], w["left"], w["shadow"])
                    for w in self.limits("explain", source)["windows"]]
            self.assertEqual(rows, [("client_net", "messages", 3600, 2, 0, False),
                                    ("client_net", "messages", 86400, 2, 1, False),
                                    ("global", "recipients", 600, 1, 0, True)])
            self.assertEqual(self.limits("show", source)["windows"], [])


class Replay(PolicyCase):
    """Recorded requests against other limits."""

    def replay(self, log, *limits, status=0):
        conf = self.stack.at.path("/etc/postern/replay.conf")
        conf.write_text("".join(f"limit = {limit}\n" for limit in limits))
        done = subprocess.run([self.stack.at.path("/bin/postern"), "limits", "replay", str(log), "--json", "-c",
                               str(conf)], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, status, done.stderr)
        return json.loads(done.stdout), done.stderr

    def test_real_mail_is_recorded_and_replayed(self):
        log = self.stack.at.path("/var/lib/postern/policyd-ratelimit/requests.log")
        log.unlink(missing_ok=True)
        source, user = self.new_source(), self.new_user()
        with self.configured(DAEMON, request_log=str(log)):
            self.wait_until(log.exists, what="the reload")
            self.assertEqual(log.stat().st_mode & 0o777, 0o600)
            with smtp(self.stack, source) as client:
                for _ in range(8):
                    client.sendmail(SENDER, [user], message(SENDER, user))
            self.wait_until(lambda: log.read_text().count("END-OF-MESSAGE") == 8, what="the log")
            moved = log.with_suffix(".1")
            log.rename(moved)
            self.stack.reload(DAEMON)
            self.wait_until(log.exists, what="the reopened log")
        self.assertNotIn("instance=", log.read_text())
        result, _ = self.replay(moved, "client_ip messages 5/1h", "account messages 1/1h")
        self.assertEqual([(row["key"], row["limit"], row["messages"]) for row in result["limited"]],
                         [(source, "5 messages in 1h", 3)])
        self.assertEqual(result["totals"]["messages"], 5)
        self.assertEqual(result["totals"]["limited"], 3)
        self.assertEqual(self.replay(moved, "client_ip messages 8/1h")[0]["limited"], [])

    def test_bound_of_the_log(self):
        log = self.stack.at.path("/var/lib/postern/policyd-ratelimit/bounded.log")
        log.unlink(missing_ok=True)
        with self.configured(DAEMON, request_log=str(log), request_log_max="64K"), self.client() as client:
            self.wait_until(log.exists, what="the reload")
            for _ in range(200):
                client.ask(instance=new_instance(), client_address=self.new_source())
            self.wait_until(lambda: "request_log_full" in self.stack.log_file(DAEMON).read_text(errors="replace"),
                            what="the event")
            self.assertLessEqual(log.stat().st_size, 65536)
            self.assertGreater(log.stat().st_size, 64000)
            self.assertTrue(log.read_text().endswith("\n\n"))
        self.assertEqual(self.replay(log, "client_ip messages 1/1h")[0]["totals"]["broken"], 0)

    def test_broken_records_have_line_numbers(self):
        log = self.stack.at.path("/var/lib/postern/policyd-ratelimit/broken.log")
        log.write_text("time=1\nrequest=smtpd_access_policy\ninstance=1.1\n\n\n"
                       "time=x\nrequest=smtpd_access_policy\n\n"
                       "time=3\nconnection=-\nrequest=smtpd_access_policy\n\n"
                       "time=4\n" + "x=" + "y" * 17000 + "\n\n"
                       "time=5\nrequest=smtpd_access_policy\ninstance=1.2\n\n")
        result, error = self.replay(log, "client_ip messages 1/1h", status=65)
        self.assertEqual(result["totals"]["broken"], 3)
        self.assertEqual(result["totals"]["requests"], 2)
        for line, words in ((6, "the time is"), (10, "the connection is"), (13, "too long")):
            self.assertIn(f"{log}:{line}: {words}" if line != 13 else f"{log}:13: the record is too long", error)
