"""Conditions, texts, HOLD and the administrator's commands, with the real Postfix."""
import contextlib
import smtplib

from tests.frame.mail import message, smtp, submission
from tests.integration.test_policyd import DAEMON, RECIPIENT, SENDER, PolicyCase


class RealPostfix(PolicyCase):
    """What Postfix says of itself decides; what we say reaches the client."""

    def send(self, client, sender, recipient=RECIPIENT):
        """The answer to the recipient: (250, "") or what refused it."""
        try:
            client.sendmail(sender, [recipient], message(sender, recipient))
        except smtplib.SMTPRecipientsRefused as refused:
            code, text = refused.recipients[recipient]
            return code, text.decode()
        return 250, ""

    def test_server_port_and_own_texts(self):
        user, source = self.new_user(), self.new_source()
        ports = {name: self.stack.at.port(name) for name in ("smtp", "submission")}
        limits = [f"client_ip messages 1/1h when server_port={ports['smtp']} text=\"Slow down: {{limit}} for {{key}}\"",
                  f"account messages 2/1d REJECT when server_port={ports['submission']} when sasl_username!=\"\" "
                  "text=\"Too much, {key}\""]
        with self.configured(DAEMON, limit=limits):
            with smtp(self.stack, source) as client:
                self.assertEqual(self.send(client, SENDER)[0], 250)
                code, text = self.send(client, SENDER)
                self.assertEqual(code, 450)
                self.assertRegex(text, rf"4\.7\.1 .*Slow down: 1 messages in 1h for client_ip {source}")
            with submission(self.stack, user, source=source) as client:
                self.assertEqual([self.send(client, user)[0] for _ in range(2)], [250, 250])
                code, text = self.send(client, user)
                self.assertEqual(code, 550)
                self.assertRegex(text, rf"5\.7\.1 .*Too much, account {user}")

    @contextlib.contextmanager
    def policy_context(self, value):
        before = self.stack.postconf_value("postern_policy")
        self.stack.postconf(f"postern_policy={before.rstrip().removesuffix('}')}, policy_context={value} }}")
        self.stack.reload("postfix")
        try:
            yield
        finally:
            self.stack.postconf(f"postern_policy={before}")
            self.stack.reload("postfix")

    def test_policy_context(self):
        limits = ["client_ip messages 0/1h when policy_context=inbound", "client_ip messages 1/1h when policy_context!=inbound"]
        with self.configured(DAEMON, limit=limits):
            with smtp(self.stack, self.new_source()) as client:
                self.assertEqual([self.send(client, SENDER)[0] for _ in range(2)], [250, 450])
            with self.policy_context("inbound"):
                self.wait_until(self.context_arrives, what="the new smtpd processes")
                with smtp(self.stack, self.new_source()) as client:
                    self.assertEqual(self.send(client, SENDER)[0], 450)

    def context_arrives(self):
        with smtp(self.stack, self.new_source()) as client:
            return self.send(client, SENDER)[0] == 450

    def test_hold(self):
        sender = f"held-{self.new_source()}@example.org"
        with self.configured(DAEMON, limit="sender messages 1/1h HOLD text=\"Held back: {key}\""):
            with smtp(self.stack, self.new_source()) as client:
                self.assertEqual([self.send(client, sender)[0] for _ in range(2)], [250, 250])
            log = self.stack.log_file("postfix")
            self.wait_until(lambda: f"Held back: sender {sender}" in log.read_text(errors="replace"), what="the hold")
            self.wait_until(lambda: self.stack.remove_held(sender) == 1, what="the message on hold")

    def test_block_release_reset_show_explain(self):
        source = self.new_source()
        with self.configured(DAEMON, limit="client_ip messages 2/1h"), smtp(self.stack, source) as client:
            self.assertEqual([self.send(client, SENDER)[0] for _ in range(3)], [250, 250, 450])
            shown = self.limits("show", source)["windows"][0]
            self.assertEqual((shown["used"], shown["max"], shown["left"]), (2, 2, 0))
            explained = self.limits("explain", source)["windows"][0]
            self.assertEqual((explained["limit"], explained["action"], explained["smooth"]),
                             ("client_ip messages 2/1h", "DEFER", False))
            self.assertLess(explained["next_at"], explained["empty_at"] + "x")
            self.stack.postern("limits", "reset", source)
            self.assertEqual(self.used(source), 0)
            self.assertEqual(self.send(client, SENDER)[0], 250)
            self.stack.postern("limits", "block", source)
            self.assertTrue(self.limits("show", source)["blocked"])
            self.assertEqual(self.send(client, SENDER)[0], 450)
            self.stack.postern("limits", "release", source)
            self.assertEqual([self.send(client, SENDER)[0] for _ in range(2)], [250, 450])

    def test_smooth(self):
        source = self.new_source()
        with self.configured(DAEMON, limit="client_ip messages 100/1h smooth = yes burst = 3"), \
                smtp(self.stack, source) as client:
            self.assertEqual([self.send(client, SENDER)[0] for _ in range(4)], [250, 250, 250, 450])
            windows = self.limits("explain", source)["windows"]
            self.assertEqual([(w["max"], w["window_s"], w["smooth"]) for w in windows], [(100, 3600, False), (3, 108, True)])
