"""Steps against accounts that look abused, with the real Postfix and SQL."""
from tests.frame.mail import message, submission
from tests.frame.policy import new_instance
from tests.frame.policy_case import DAEMON, RECIPIENT, PolicyCase


class Abuse(PolicyCase):
    """Networks, first-time recipients, refusals; what is done, and its end."""

    def ask_from(self, client, account, net):
        return client.ask(instance=new_instance(), sasl_username=account, client_address=f"10.9.{net}.1")

    def events(self, key):
        return [tuple(row) for row in self.rows("SELECT kind, scope, unit, max_count, window_s, action FROM rate_events "
                                                "WHERE rate_key = %s ORDER BY id", key)]

    def step(self, account):
        return self.limits("explain", f"account:{account}")["abuse"][0]["step"]

    def test_networks_warn_hold_suspend_and_release(self):
        account = self.new_user()
        with self.configured(DAEMON, abuse="account networks 2/1d WARN, 4/1d HOLD, 6/1d SUSPEND"):
            with self.client() as client:
                answers = [self.ask_from(client, account, net) for net in range(7)]
                self.assertEqual(answers[:4], ["DUNNO"] * 4)
                self.assertRegex(answers[4], f"^HOLD account {account}: held")
                self.assertRegex(answers[5], "^HOLD ")
                self.assertRegex(answers[6], f"^550 5.7.1 account {account}: suspended")
                self.assertEqual(self.ask_from(client, self.new_user(), 1), "DUNNO")
            self.stack.kill(DAEMON)
            self.wait_until(lambda: self.stack.pid(DAEMON), what="the next life")
            with self.client() as client:
                self.assertRegex(self.ask_from(client, account, 1), "^550 ")
                held = [h for h in self.limits("list")["abuse"] if h["key"] == account]
                self.assertEqual([(h["action"], h["count"], h["until"]) for h in held], [("SUSPEND", 7, None)])
                self.stack.postern("limits", "release", account)
                self.assertEqual(self.ask_from(client, account, 1), "DUNNO")
                self.assertEqual(self.step(account), "NONE")
            rule = ("abuse", "account", "networks")
            want = [rule + (count, "86400", step) for count, step in
                    (("2", "WARN"), ("4", "HOLD"), ("6", "SUSPEND"), ("6", "RELEASE"))]
            self.wait_until(lambda: len(self.events(account)) == len(want), what="the rows")
            self.assertEqual(self.events(account), want)

    def test_hold_puts_real_mail_on_hold(self):
        user = self.new_user()
        with self.configured(DAEMON, abuse="account new_recipients 0/1d HOLD"):
            with submission(self.stack, user, source=self.new_source()) as client:
                client.sendmail(user, [RECIPIENT], message(user, RECIPIENT))
            log = self.stack.log_file("postfix")
            self.wait_until(lambda: f"account {user}: held" in log.read_text(errors="replace"), what="the hold")
            self.assertEqual(self.step(user), "HOLD")
            self.wait_until(lambda: self.stack.remove_held(user) == 1, what="the message on hold")

    def test_refused_recipients_throttle(self):
        account = self.new_user()
        with self.configured(DAEMON, abuse="account rejects 50%/1h THROTTLE minimum=10 throttle=2/1h"), \
                self.client() as client:
            for n in range(11):
                client.ask(instance=new_instance(), sasl_username=account, recipient=f"x{n}@example.org")
            self.assertEqual([self.send_message(client, sasl_username=account) for _ in range(2)], ["DUNNO"] * 2)
            self.assertRegex(self.send_message(client, sasl_username=account), "^450 4.7.1 .*slowed down")
            self.assertEqual(self.step(account), "THROTTLE")

    def test_a_wrong_rule_names_file_and_line(self):
        path = self.stack.at.path(f"/etc/postern/{DAEMON}.conf")
        with self.configured(DAEMON), self.client() as client:
            self.stack.configure(DAEMON, abuse="account networks 5/1d BAN")
            self.stack.reload(DAEMON)
            self.wait_until(lambda: "BAN" in self.stack.log_file(DAEMON).read_text(errors="replace"), what="the error")
            self.assertRegex(self.stack.log_file(DAEMON).read_text(errors="replace"), f"{path}:[0-9]+: wanted COUNT/WINDOW")
            self.assertEqual(self.ask_from(client, self.new_user(), 1), "DUNNO")
