"""The traps of Postfix's policy protocol, and what users of other policy servers suffered from.

Each trap has a test here whose name bears its number, each complaint one that bears the number
of its report; most ask the real Postfix.  The same closer to the code:

    trap                                            also in
     1 a bare code is "permit", OK ends the list    unit/test_policyd_proto (replies)
     2 surplus bytes, closing after a reply         test_policyd.Protocol, unit/test_policyd_proto
     3 wiring by one text, one request outstanding  test_policyd_wiring
     4 lists run for each RCPT; retries             replay/retries.txt, stages.txt
     5 an empty instance; a rejected DATA           test_policyd.Transaction, replay/stages.txt
     6 postmaster, VRFY, BDAT, several recipients   test_policyd.Transaction, replay/recipients.txt
     7 END-OF-MESSAGE precedes milters              README of deploy/
     8 unknown, ::ffff:, no account, <>             replay/stages.txt, unit/test_policyd_rules
     9 actions that go on evaluating                unit/test_policyd_proto (replies)
    10 steps of the clock                           unit/test_policyd_promise, faults/test_policyd_clock
    11 few servers, many connections                faults/test_policyd_limits
    12 the socket below the queue directory         faults/test_policyd_kill (restart under load)
    13 attributes of later releases                 fuzz/fuzz_policyd_proto

    complaint                                       also in
    iRedAPD 24                                      replay/transaction.txt
    policyd-rate-limit 20                           test_policyd.Transaction, replay/transaction.txt
    policyd-rate-limit 37                           test_policyd_wiring, unit/test_policyd_wiring
    policyd-rate-limit 3                            (the shipped limits)
    rspamd 2733, 6059, 4467, 4637                   unit/test_policyd_promise, unit/test_policyd_table
    rspamd 4187                                     replay/recipients.txt
    mailcow 7295, 2439                              test_policyd.Administration
    agentj 147                                      test_policyd_abuse
    vexim2 261                                      test_policyd_events
    modoboa 2200, docker-mailserver 1478            faults/test_policyd_kill
"""
import calendar
import grp
import os
import re
import select
import smtplib
import stat
import subprocess
import threading
import time

from tests.frame.mail import message, smtp, submission, wait_for_mail
from tests.frame.policy import new_instance
from tests.frame.policy_case import DAEMON, RECIPIENT, SENDER, SERVICE, PolicyCase
from tests.frame.stack import run

REPLY = r"(DUNNO|450 4\.7\.1 \S.*|550 5\.7\.1 \S.*|HOLD \S.*)"
NOT_UTF8 = b"\xff\xfe\xe4".decode(errors="surrogateescape")


class TrapCase(PolicyCase):
    def setUp(self):
        super().setUp()
        self.source, self.user = self.new_source(), self.new_user()

    def send(self, client, *recipients):
        recipients = recipients or (self.user,)
        return client.sendmail(SENDER, list(recipients), message(SENDER, recipients[0]))


class Traps(TrapCase):
    def test_trap_01_each_code_has_a_text_and_nobody_gets_ok(self):
        limits = ["account messages 0/1h DEFER", "client_ip messages 0/1h REJECT when sasl_username=\"\"",
                  "client_net messages 0/1h HOLD when server_port=26",
                  "sender messages 0/1h DEFER when server_port=27 text=\"{key}: {limit}, {wait}, {until}\""]
        with self.configured(DAEMON, limit=limits), self.client() as client:
            answers = [client.ask(instance=new_instance(), **attributes) for attributes in (
                {"sasl_username": "a"}, {}, {"server_port": "26", "sasl_username": "a"},
                {"server_port": "27", "sasl_username": "a"}, {"protocol_state": "CONNECT"})]
            for answer in answers:
                self.assertRegex(answer, f"^{REPLY}$")
            self.assertEqual([answer[:4] for answer in answers], ["450 ", "550 ", "450 ", "450 ", "DUNN"])
            with smtp(self.stack, self.source) as mail, self.assertRaises(smtplib.SMTPRecipientsRefused) as caught:
                self.send(mail)
            self.assertEqual(caught.exception.recipients[self.user][0], 550)
        wrong = subprocess.run([self.stack.at.path("/bin/policyd-ratelimit"), "-c",
                                self.stack.at.path(f"/etc/postern/{DAEMON}.conf"), "-t", "-o",
                                'limit=account messages 1/1h text=""'], capture_output=True, text=True, check=False)
        self.assertEqual(wrong.returncode, 78, wrong.stderr)

    def test_trap_02_no_surplus_byte_and_no_close_after_a_reply(self):
        with self.client() as client:
            for _ in range(3):
                client.send(instance=new_instance(), client_address=self.source)
                self.assertEqual(client.socket.recv(4096), b"action=DUNNO\n\n")
                self.assertEqual(select.select([client.socket], [], [], 0.3)[0], [], "readable: a disconnect for Postfix")
        defaults = run([self.stack.at.path("/bin/policyd-ratelimit"), "-d"])
        self.assertIn("\nidle_timeout = 1h\n", defaults)  # over max_idle 300 s and max_ttl 1000 s
        begin, began = len(self.log_text("postfix")), time.monotonic()
        with smtp(self.stack, self.source) as client:
            for _ in range(20):
                self.send(client)
        self.assertLess(time.monotonic() - began, 20, "retry_delay makes it a second a request")
        self.assertNotRegex(self.log_text("postfix")[begin:], "warning: .*policyd-ratelimit.sock")

    def test_trap_03_one_connection_an_smtpd_for_both_places(self):
        for name in ("smtpd_recipient_restrictions", "smtpd_end_of_data_restrictions"):
            self.assertIn(SERVICE, self.stack.postconf_value(name))
        for words in ("timeout=3s", "try_limit=1", "default_action=DUNNO"):
            self.assertIn(words, self.stack.postconf_value("postern_policy"))
        with self.recorded() as requests:
            with smtp(self.stack, self.source) as client, smtp(self.stack, self.new_source()) as other:
                for one in (client, other, client):
                    self.send(one)
            by_instance = {}
            for request in requests(3):
                by_instance.setdefault(request["instance"], set()).add(request["connection"])
        self.assertEqual([len(connections) for connections in by_instance.values()], [1, 1, 1])
        self.assertEqual(len(set.union(*by_instance.values())), 2)

    def test_trap_04_lists_that_run_at_each_rcpt_and_retries_count_once(self):
        lists = {f"smtpd_{name}_restrictions": SERVICE for name in ("client", "helo", "sender")}
        with self.postfix_with(**lists), self.recorded(limit=["client_ip messages 100/1h, 100/1d",
                                                              "client_ip recipients 100/1h"]) as requests:
            users = [self.new_user() for _ in range(3)]
            with smtp(self.stack, self.source) as client:
                self.send(client, *users)
            seen = [request for request in requests(1) if request["protocol_state"] == "RCPT"]
            self.assertEqual(len(seen), 4 * len(users))
            self.assertEqual(len({request["instance"] for request in seen}), 1)
            self.assertEqual((self.used(self.source), self.used(self.source, "recipients")), (1, 3))
        source, instance = self.new_source(), new_instance()
        with self.client() as first, self.client() as second:
            for client in (first, second):  # while the first is there
                self.assertEqual(client.ask(instance=instance, client_address=source), "DUNNO")
            self.assertEqual(self.used(source), 1)
            second.close()
            first.close()
            with self.client() as third:  # and after both
                self.assertEqual(third.ask(instance=instance, client_address=source), "DUNNO")
                for _ in range(2):
                    self.assertEqual(third.ask(instance=instance, client_address=source, recipient_count="1",
                                               protocol_state="END-OF-MESSAGE"), "DUNNO")
            self.assertEqual(self.used(source), 1)

    def test_trap_05_an_empty_instance_is_no_message(self):
        lists = {f"smtpd_{name}_restrictions": SERVICE for name in ("client", "helo", "sender")}
        with self.postfix_with(smtpd_delay_reject="no", **lists), self.recorded() as requests:
            with smtp(self.stack, self.source) as client:
                for _ in range(2):
                    self.send(client)
            seen = requests(2)
        early = [r for r in seen if r["protocol_state"] in ("CONNECT", "HELO", "EHLO", "MAIL")]
        self.assertLessEqual({"CONNECT", "EHLO", "MAIL"}, {r["protocol_state"] for r in early})
        self.assertEqual({r["instance"] for r in early if r["protocol_state"] != "MAIL"}, {""})
        self.assertEqual(self.used(self.source), 2)
        with self.client() as client:
            for state in ("CONNECT", "EHLO", "HELO", "VRFY", "ETRN", "MAIL", "DATA", "END-OF-MESSAGE", "NEW-STATE"):
                self.assertEqual(client.ask(protocol_state=state, instance="", client_address=self.source), "DUNNO")
        self.assertEqual(self.used(self.source), 2)

    def test_trap_06_stages_that_name_no_recipient(self):
        limits = ["client_ip messages 100/1h", "client_ip bytes 1M/1h", "recipient recipients 100/1h"]
        other = self.new_user()
        with self.postfix_with(disable_vrfy_command="no"), self.recorded(limit=limits) as requests:
            with smtp(self.stack, self.source) as client:
                client.ehlo_or_helo_if_needed()
                self.assertEqual(client.verify(self.user)[0], 252)
                # What is declared is not what is counted, and BDAT is shown as DATA.
                data = message(SENDER, self.user)
                client.mail(SENDER, ["SIZE=900000"])
                self.assertEqual([client.rcpt(self.user)[0], client.rcpt(other)[0]], [250, 250])
                client.send(f"BDAT {len(data)} LAST\r\n".encode() + data)
                self.assertEqual(client.getreply()[0], 250)
            seen = requests(1)
            self.assertIn("VRFY", {request["protocol_state"] for request in seen})
            end = [request for request in seen if request["protocol_state"] == "END-OF-MESSAGE"][0]
            self.assertEqual((end["recipient"], end["recipient_count"]), ("", "2"))
            self.assertEqual(self.used(self.source), 1)
            self.assertEqual(self.used(self.source, "bytes"), int(end["size"]))
            self.assertLess(int(end["size"]), 10000)
            for recipient in (self.user, other):
                self.assertEqual(self.used(f"recipient:{recipient}", "recipients"), 1)

    def test_trap_06_a_bare_postmaster_skips_rcpt_and_counts_at_the_end(self):
        with self.recorded() as requests:
            with smtp(self.stack, self.source) as client:
                client.ehlo_or_helo_if_needed()
                client.mail(SENDER)
                self.assertEqual(client.rcpt("postmaster")[0], 250)
                self.assertEqual(client.data(message(SENDER, "postmaster"))[0], 250)
            self.assertEqual([request["protocol_state"] for request in requests(1)], ["END-OF-MESSAGE"])
        self.assertEqual(self.used(self.source), 1)

    def test_trap_07_sendmail_is_not_asked_about_and_reinjection_may_be_exempt(self):
        with self.recorded(limit="sender_domain messages 100/1h", allow="127.0.0.1") as requests:
            ident = f"<{new_instance()}@example.com>"
            run(["sendmail", "-C", self.stack.at.path("/etc/postfix"), "-f", "sales@example.com", self.user],
                input_text=message("sales@example.com", self.user, message_id=ident).decode().replace("\r\n", "\n"))
            wait_for_mail(self.stack, self.user, ident)
            for source in (self.source, "127.0.0.1"):  # from outside, and back from a content filter
                with smtp(self.stack, source) as client:
                    self.send(client)
            self.assertEqual([request["client_address"] for request in requests(2)][::2], [self.source, "127.0.0.1"])
            self.assertEqual(self.used("sender_domain:example.org"), 1)
            self.assertEqual(self.used("sender_domain:example.com"), 0)

    def test_trap_08_who_has_no_name_is_not_pooled(self):
        limits = ["client_ip messages 1/1h when sasl_username=\"\"", "account messages 1/1h", "sender messages 1/1h"]
        with self.configured(DAEMON, limit=limits), self.client() as client:
            def ask(address, account="", sender="x@example.com"):
                return self.send_message(client, client_address=address, sasl_username=account, sender=sender)[:4]

            self.assertEqual([ask("unknown", sender="a@example.com"), ask("unknown", sender="b@example.com")], ["DUNN", "450 "])
            self.assertEqual([ask("::ffff:192.0.2.1", sender="c@example.com"), ask("192.0.2.1", sender="d@example.com"),
                              ask("::FFFF:C000:0201", sender="e@example.com")], ["DUNN", "450 ", "450 "])
            # Two strangers without an account are two; bounces are counted by client.
            self.assertEqual([ask("192.0.2.10", sender="f@example.com"), ask("192.0.2.11", sender="g@example.com")], ["DUNN"] * 2)
            self.assertEqual([ask("192.0.2.20", sender=""), ask("192.0.2.21", sender="")], ["DUNN"] * 2)
            self.assertEqual([ask("192.0.2.22", "bob", ""), ask("192.0.2.22", "joe", "")], ["DUNN", "450 "])
            self.assertEqual([ask("192.0.2.23", "amy", "h@example.com"), ask("192.0.2.24", "AMY", "i@example.com")],
                             ["DUNN", "450 "])

    def test_trap_09_a_refusal_ends_the_list_and_is_always_utf8(self):
        limits = ["sender messages 0/1h when sasl_username=\"\"", "account messages 0/1h HOLD"]
        behind = "reject_non_fqdn_recipient, reject_unlisted_recipient, " + SERVICE + ", check_policy_service inet:127.0.0.1:9"
        with self.configured(DAEMON, limit=limits), self.client() as client:
            answer = client.ask(instance=new_instance(), sender=f"{NOT_UTF8}@example.com", recipient=NOT_UTF8,
                                client_name=NOT_UTF8, helo_name=NOT_UTF8)
            self.assertRegex(answer, r"^450 4\.7\.1 .*sender \?\?\?@example\.com")
            # Nothing behind it is asked; that one would say 451.
            with self.postfix_with(smtpd_recipient_restrictions=behind), smtp(self.stack, self.source) as mail:
                with self.assertRaises(smtplib.SMTPRecipientsRefused) as caught:
                    self.send(mail)
                self.assertEqual(caught.exception.recipients[self.user][0], 450)
                self.assertEqual(mail.noop()[0], 250, "421 and 521 would disconnect")
            with submission(self.stack, self.user, source=self.source) as mail:
                mail.sendmail(self.user, [RECIPIENT], message(self.user, RECIPIENT))
            self.wait_until(lambda: self.stack.remove_held(self.user) == 1, what="the message on hold")

    def test_trap_10_the_wall_clock_is_nobodys_business(self):
        """Of two boot clocks and a wall clock only the first counts: see the table above.  Here: what
        is told of the future is told by the wall clock, and lies within the window."""
        with self.configured(DAEMON, limit="client_ip messages 1/1h"), self.client() as client:
            self.send_message(client, client_address=self.source)
            answer = self.send_message(client, client_address=self.source)
        told = re.search(r", at (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", answer)[1]
        seconds = calendar.timegm(time.strptime(told, "%Y-%m-%d %H:%M:%S")) - time.time()
        self.assertTrue(3500 < seconds < 3720, told)

    def test_trap_11_a_hundred_smtpds_are_served_at_once(self):
        clients = [self.client() for _ in range(100)]
        try:
            for client in clients:  # all connected before the first asks, and they stay
                client.send(instance=new_instance(), client_address=self.source)
                self.assertEqual(client.receive()[:5], "DUNNO")
        finally:
            for client in clients:
                client.close()

    def test_trap_12_the_socket_lies_below_the_queue_and_outlives_the_daemon(self):
        mode = os.stat(self.socket_path)
        self.assertTrue(stat.S_ISSOCK(mode.st_mode))
        self.assertEqual(stat.S_IMODE(mode.st_mode), 0o660)
        self.assertEqual(grp.getgrgid(mode.st_gid).gr_name, "postfix")
        self.stack.kill(DAEMON)
        with self.client() as client:  # nobody is there: it waits in the backlog
            self.assertEqual(client.ask(instance=new_instance(), client_address=self.source), "DUNNO")
        self.assertEqual(os.stat(self.socket_path).st_ino, mode.st_ino)

    def test_trap_13_attributes_of_other_releases(self):
        with self.recorded() as requests:
            with smtp(self.stack, self.source) as client:
                self.send(client)
            real = requests(1)[0]
        older = dict.fromkeys(("server_address", "server_port", "client_port", "policy_context", "compatibility_level",
                               "mail_version"))
        newer = {"compatibility_level": "3.12", "mail_version": "3.12.0", "smtputf8": "yes", "tls_version": "TLSv1.3",
                 "a_later_attribute": "=a=b=", "another": "", "sni": "mail.example.net"}
        with self.client() as client:
            frame = {"time", "connection"} | set(real)
            client.send(instance=new_instance(), client_address=self.source)
            self.assertEqual(client.receive(), "DUNNO")
            for attributes in (older, newer, newer | older):
                source = self.new_source()
                self.assertEqual(self.send_message(client, client_address=source, **attributes), "DUNNO")
                self.assertEqual(self.used(source), 1)
        self.assertLessEqual({"etrn_domain", "stress", "ccert_pubkey_fingerprint", "reverse_client_name"}, frame)


class Complaints(TrapCase):
    def test_iredapd_24_a_list_of_thirty_is_one_message(self):
        members = [self.user.replace("@", f"-{n}@") for n in range(30)]
        for member in members:
            self.rows("INSERT INTO virtual_aliases (domain_id, source, destination) "
                      "SELECT id, %s, %s FROM virtual_domains WHERE name = 'example.net'", member, self.user)
        with smtp(self.stack, self.source) as client:
            self.assertEqual(self.send(client, *members), {})
        self.assertEqual(self.used(self.source), 1)

    def test_policyd_rate_limit_20_rejected_mail_is_not_charged(self):
        with smtp(self.stack, self.source) as client:
            for _ in range(5):
                with self.assertRaises(smtplib.SMTPRecipientsRefused):
                    self.send(client, "nobody-at-all@example.net")
            self.assertEqual(self.used(self.source), 0)
        with self.postfix_with(message_size_limit="100"), smtp(self.stack, self.source) as client:
            with self.assertRaises(smtplib.SMTPException):
                self.send(client)
        with smtp(self.stack, self.source) as client:
            self.send(client)
        self.wait_until(lambda: self.used(self.source) == 1, what="only the accepted one counted")

    def test_rspamd_2733_no_more_than_the_limit_whoever_races(self):
        with self.configured(DAEMON, limit="client_ip messages 20/1h"):
            answers = []

            def race():
                with self.client() as client:
                    answers.extend(self.send_message(client, client_address=self.source) for _ in range(13))

            threads = [threading.Thread(target=race) for _ in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            self.assertEqual(len(answers), 208)
            self.assertEqual(answers.count("DUNNO"), 20)
            self.assertEqual(self.used(self.source), 20)

    def test_rspamd_4187_plus_addresses_are_one(self):
        with self.configured(DAEMON, limit=["recipient messages 2/1h", "sender messages 2/1h"]), self.client() as client:
            local, _, domain = self.user.partition("@")
            answers = [self.send_message(client, sender=f"{n}@example.com", recipient=f"{local}+{n}@{domain}")[:4]
                       for n in range(3)]
            self.assertEqual(answers, ["DUNN", "DUNN", "450 "])
            answers = [self.send_message(client, sender=f"bob+{n}@example.com", recipient=f"r{n}@example.net")[:4]
                       for n in range(3)]
            self.assertEqual(answers, ["DUNN", "DUNN", "450 "])

    def test_rspamd_6059_each_window_is_enforced(self):
        limit = "client_ip messages 2/1h, 3/1d, 5/2d"
        with self.configured(DAEMON, limit=[limit, "account messages 4/1h, 3/1d"]), self.client() as client:
            answers = [self.send_message(client, client_address=self.source) for _ in range(3)]
            self.assertRegex(answers[2], "Limit of 2 messages in 1h")
            # The second window, where the first has more room; whatever their order.
            answers = [self.send_message(client, sasl_username=self.user, client_address=self.new_source()) for _ in range(4)]
            self.assertRegex(answers[3], "Limit of 3 messages in 1d")

    def test_rspamd_4467_4637_a_limit_lets_go_again(self):
        with self.configured(DAEMON, limit="client_ip messages 2/5s"), self.client() as client:
            answers = [self.send_message(client, client_address=self.source)[:4] for _ in range(3)]
            self.assertEqual(answers, ["DUNN", "DUNN", "450 "])
            # Though it is asked all the time; and what was refused was not counted.
            self.wait_until(lambda: self.send_message(client, client_address=self.source) == "DUNNO", 10, "room")
            self.assertLessEqual(self.used(self.source), 2)

    def test_policyd_rate_limit_37_the_wrong_stage_is_told_of(self):
        with self.configured(DAEMON, wiring_messages="5"), self.client() as client:
            for _ in range(6):
                client.ask(instance=new_instance(), client_address=self.source)
            self.assertIn("END-OF-MESSAGE is never asked", self.limits("list")["warnings"][0])

    def test_policyd_rate_limit_3_spoofed_senders_use_up_nobodys_limit(self):
        with self.client() as client:
            answers = {self.send_message(client, sender=self.user, client_address=self.source)[:4] for _ in range(102)}
            self.assertEqual(answers, {"DUNN", "450 "})
            self.assertEqual(self.send_message(client, sender=self.user, sasl_username=self.user), "DUNNO")
        self.assertEqual(self.used(f"account:{self.user}"), 1)

    def test_mailcow_7295_hour_day_and_recipients_at_once(self):
        limits = ["account messages 3/1h, 4/1d", "account recipients 5/1d"]
        with self.configured(DAEMON, limit=limits):
            with submission(self.stack, self.user, source=self.source) as client:
                for recipients in ((RECIPIENT,), (RECIPIENT, "sales@example.com")):
                    self.assertEqual(client.sendmail(self.user, list(recipients), message(self.user, RECIPIENT)), {})
                refused = client.sendmail(self.user, [RECIPIENT, "sales@example.com", self.new_user()],
                                          message(self.user, RECIPIENT))
                self.assertEqual(len(refused), 1)  # the sixth recipient
                with self.assertRaises(smtplib.SMTPRecipientsRefused) as caught:
                    client.sendmail(self.user, [RECIPIENT], message(self.user, RECIPIENT))
                self.assertEqual(caught.exception.recipients[RECIPIENT][0], 450)
            rows = {(w["unit"], w["window_s"]): w["used"] for w in self.limits("explain", self.user)["windows"]}
            self.assertEqual(rows, {("messages", 3600): 3, ("messages", 86400): 3, ("recipients", 86400): 5})

    def test_mailcow_2439_a_key_can_be_cleared(self):
        with self.configured(DAEMON, limit="client_ip messages 1/1h"), self.client() as client:
            answers = [self.send_message(client, client_address=self.source)[:4] for _ in range(2)]
            self.assertEqual(answers, ["DUNN", "450 "])
            self.stack.postern("limits", "reset", self.source)
            self.assertEqual(self.send_message(client, client_address=self.source), "DUNNO")

    def test_agentj_147_hold_in_the_place_of_4xx(self):
        with self.configured(DAEMON, limit="account messages 1/1h HOLD"):
            with submission(self.stack, self.user, source=self.source) as client:
                for _ in range(3):  # nobody is told
                    client.sendmail(self.user, [RECIPIENT], message(self.user, RECIPIENT))
            held = []
            self.wait_until(lambda: held.append(self.stack.remove_held(self.user)) or sum(held) == 2, what="two on hold")
            self.assertEqual(self.used(self.user), 1)

    def test_vexim2_261_user_and_administrator_are_told(self):
        with self.configured(DAEMON, limit='account messages 0/1h text="{key}: {limit}; write to help@example.net"'):
            with submission(self.stack, self.user, source=self.source) as client, \
                    self.assertRaises(smtplib.SMTPRecipientsRefused) as caught:
                client.sendmail(self.user, [RECIPIENT], message(self.user, RECIPIENT))
            self.assertIn(f"{self.user}: 0 messages in 1h; write to help@example.net",
                          caught.exception.recipients[RECIPIENT][1].decode())
            self.assertIn(self.user, [row["key"] for row in self.limits("list")["limited"]])
            self.wait_until(lambda: self.rows("SELECT kind FROM rate_events WHERE rate_key = %s", self.user), what="the row")
            self.assertRegex(self.log_text(), f"limited .*key={re.escape(self.user)}")

    def test_modoboa_2200_docker_mailserver_1478_a_dead_server_is_no_451(self):
        self.stack.stop(DAEMON)
        try:
            with smtp(self.stack, self.source) as client:
                self.assertEqual(self.send(client), {})
        finally:
            self.stack.start(DAEMON)
