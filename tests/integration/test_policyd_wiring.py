"""policyd-ratelimit notices where Postfix asks it in the wrong places."""
import contextlib

from tests.frame.mail import message, smtp
from tests.frame.policy_case import DAEMON, SENDER, PolicyCase

SERVICE = "check_policy_service $postern_policy"
RECIPIENTS = "smtpd_recipient_restrictions"
END = "smtpd_end_of_data_restrictions"
SAMPLE = 6


class Wiring(PolicyCase):
    """Each wrong way, with the real Postfix."""

    @contextlib.contextmanager
    def wired(self, **settings):
        """Postfix with other restrictions, and a daemon that knows nothing yet."""
        before = {name: self.stack.postconf_value(name) for name in settings}
        self.stack.configure(DAEMON, wiring_messages=str(SAMPLE))
        if settings:
            self.stack.postconf(*(f"{name}={value}" for name, value in settings.items()))
        try:
            self.stack.restart(DAEMON)
            self.stack.reload("postfix")
            yield
        finally:
            if settings:
                self.stack.postconf(*(f"{name}={value}" for name, value in before.items()))
            self.stack.configure(DAEMON, wiring_messages="50")
            self.stack.reload("postfix")
            self.stack.reload(DAEMON)

    def send(self, count):
        source, user = self.new_source(), self.new_user()
        with smtp(self.stack, source) as client:
            for _ in range(count):
                client.sendmail(SENDER, [user], message(SENDER, user))

    def warnings(self):
        return self.limits("list")["warnings"]

    def expect(self, words, event):
        begin = len(self.log_text())
        self.send(SAMPLE + 1)
        self.wait_until(self.warnings, what="the warning")
        self.assertEqual(len(self.warnings()), 1)
        self.assertIn(words, self.warnings()[0])
        self.assertIn("warning: " + self.warnings()[0], self.stack.postern("limits", "list"))
        self.assertIn(self.warnings()[0], self.stack.postern("status", DAEMON))
        self.wait_until(lambda: event in self.log_text()[begin:], what="the event")
        self.assertEqual(self.metric("postern_policy_wiring", DAEMON), 1)
        self.send(SAMPLE + 1)
        self.assertEqual(self.log_text()[begin:].count(event), 1, "told once")

    def test_no_end(self):
        with self.wired(**{END: ""}):
            self.expect("END-OF-MESSAGE is never asked", "wiring_incomplete level=warning")
        self.send(1)
        self.wait_until(lambda: not self.warnings(), what="the end of the warning")

    def test_only_end(self):
        recipients = self.stack.postconf_value(RECIPIENTS)
        self.assertIn(SERVICE, recipients)
        with self.wired(**{RECIPIENTS: recipients.replace(SERVICE, "")}):
            self.expect("only END-OF-MESSAGE is asked", "wiring_late level=warning")
        self.send(1)
        self.wait_until(lambda: not self.warnings(), what="the end of the warning")

    def test_two_lists(self):
        with self.wired(smtpd_sender_restrictions=SERVICE):
            self.expect("asked about twice", "wiring_repeated level=warning")

    def test_data_too(self):
        with self.wired(smtpd_data_restrictions=SERVICE):
            self.expect("asked about twice", "wiring_repeated level=warning")

    def test_as_shipped(self):
        with self.wired():
            self.send(3 * SAMPLE)
            self.assertEqual(self.warnings(), [])
