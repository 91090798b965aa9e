"""Steps against abuse, told by webhook and mail."""
import contextlib
import json
import os
import pathlib
import shutil
import socket
import tempfile
import time

from tests.frame.layout import USERS
from tests.frame.policy import new_instance
from tests.frame.webhook import WebhookReceiver, signature_holds
from tests.integration.test_policyd import DAEMON, PolicyCase

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
RULES = "account networks 2/1d WARN, 4/1d HOLD, 6/1d SUSPEND"


class Notify(PolicyCase):
    """Who is told, what, and how often it is tried."""

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory(prefix="postern-notify-", dir=self.stack.at.path("/run"))
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.folder.chmod(0o755)
        self.secret = self.folder / "secret"
        self.secret.write_text(SECRET + "\n")
        os.chown(self.secret, USERS[DAEMON], -1)

    def notifying(self, **values):
        return self.configured(DAEMON, abuse=RULES, **values)

    def hooked(self, hook, **values):
        return self.notifying(notify_webhook_url=hook.url, notify_webhook_secret_file=self.secret, **values)

    def come_from(self, client, account, nets):
        for net in nets:
            client.ask(instance=new_instance(), sasl_username=account, client_address=f"10.7.{net}.1")

    @staticmethod
    def steps(hook, account):
        return [event["data"]["step"] for event in (json.loads(item.body) for item in list(hook.received))
                if event["data"]["key"] == account]

    def test_each_step_is_posted_signed_and_in_order(self):
        account = self.new_user()
        with WebhookReceiver() as hook, self.hooked(hook), self.client() as client:
            self.come_from(client, account, range(7))
            self.stack.postern("limits", "release", account)
            wanted = ["WARN", "HOLD", "SUSPEND", "RELEASE"]
            self.wait_until(lambda: len(self.steps(hook, account)) >= 4, what="the events")
            self.assertEqual(self.steps(hook, account), wanted)
            ids = {item.headers.get("webhook-id") or item.headers["Webhook-Id"] for item in hook.received}
            self.assertEqual(len(ids), 4)
            for item in hook.received:
                self.assertTrue(signature_holds(item, SECRET))
            event = json.loads(hook.received[1].body)
            self.assertEqual(event["type"], "abuse.step")
            self.assertEqual({k: event["data"][k] for k in ("scope", "measure", "threshold", "window_s")},
                             {"scope": "account", "measure": "networks", "threshold": "4", "window_s": "86400"})
            self.assertIn("5 counted; account networks", event["data"]["detail"])

    def test_a_dead_receiver_holds_nothing_up_and_loses_nothing(self):
        account = self.new_user()
        with WebhookReceiver() as hook, self.hooked(hook), self.client() as client:
            hook.refuse = 503
            self.come_from(client, account, range(3))
            self.wait_until(lambda: hook.received, what="an attempt")
            since = time.monotonic()
            self.come_from(client, account, range(3, 5))
            self.assertLess(time.monotonic() - since, 3)
            self.wait_until(lambda: self.on_disk(account) == 2, what="both events on disk")
            self.stack.kill(DAEMON)
            self.wait_until(lambda: self.stack.pid(DAEMON), what="the next life")
            hook.refuse = False
            self.wait_until(lambda: "HOLD" in self.steps(hook, account), what="the event behind the one that failed")
            ids = [item.headers.get("webhook-id") or item.headers["Webhook-Id"] for item in hook.received
                   if json.loads(item.body)["data"]["step"] == "WARN"]
            self.assertGreaterEqual(len(ids), 2)
            self.assertEqual(len(set(ids)), 1)  # the same id in each attempt
            self.assertIn("notify_failing", self.stack.log_file(DAEMON).read_text(errors="replace"))

    def test_a_stop_does_not_wait_for_the_receiver(self):
        account = self.new_user()
        with socket.create_server(("127.0.0.1", 0)) as deaf:  # accepts, by the kernel, and says nothing
            url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
            with self.notifying(notify_webhook_url=url, notify_webhook_timeout="60s"), self.client() as client:
                self.come_from(client, account, range(3))
                self.wait_until(lambda: self.on_disk(account) == 1, what="the record")
                since = time.monotonic()
                self.stack.restart(DAEMON)
                self.assertLess(time.monotonic() - since, 20)
                # What waits would be told to the next test's receiver.
                self.stack.stop(DAEMON)
                shutil.rmtree(self.outbox())
                self.stack.start(DAEMON)

    def on_disk(self, account):
        """Records about ACCOUNT in the webhook's outbox."""
        count = 0
        for path in self.outbox().iterdir():
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # a new one takes the place of an old one
                count += path.read_bytes().count(account.encode())
        return count

    def outbox(self):
        return self.stack.at.path(f"/var/lib/postern/{DAEMON}/notify-webhook")

    def test_no_more_than_notify_max_in_an_hour(self):
        with WebhookReceiver() as hook, self.hooked(hook, notify_max="3"), self.client() as client:
            for _ in range(5):
                self.come_from(client, self.new_user(), range(3))
            self.wait_until(lambda: self.metric("postern_policy_notices_dropped_total", DAEMON) == 2, what="two dropped")
            self.wait_until(lambda: len(hook.received) == 3, what="three told")
            self.assertIn("notify_dropped", self.stack.log_file(DAEMON).read_text(errors="replace"))

    def test_mail_to_the_postmaster(self):
        account = self.new_user()
        script, mail = self.folder / "sendmail", self.folder / "mail"
        script.write_text(f"#!/bin/sh\n(echo \"$*\"; cat) >{mail}.new && mv {mail}.new {mail}\n")
        script.chmod(0o755)
        self.folder.chmod(0o777)
        with self.notifying(notify_mail_to="postmaster@example.net", notify_mail_from="policy@example.net",
                            sendmail_path=script), self.client() as client:
            self.come_from(client, account, range(3))
            self.wait_until(mail.exists, what="the mail")
        argv, _, text = mail.read_text().partition("\n")
        self.assertEqual(argv, "-i -f policy@example.net -- postmaster@example.net")
        self.assertIn(f"Subject: Abuse: WARN account {account}\n", text)
        self.assertIn("Auto-Submitted: auto-generated\n", text)
        self.assertIn("Why:    3 counted; account networks 2/1d WARN", text)

    def test_a_failing_sendmail_is_tried_again(self):
        account = self.new_user()
        log, flag, script = self.folder / "log", self.folder / "works", self.folder / "sendmail"
        log.write_text("")
        os.chmod(log, 0o666)
        script.write_text(f"#!/bin/sh\ncat >>{log}\necho \"to $*\" >>{log}\n[ -e {flag} ] || exit 75\n")
        script.chmod(0o755)
        with self.notifying(notify_mail_to="root@example.net", sendmail_path=script), self.client() as client:
            self.come_from(client, account, range(3))
            self.wait_until(lambda: log.read_text().count("to -i -f postmaster -- root@example.net") >= 2, what="two attempts")
            flag.write_text("")
            self.wait_until(lambda: self.metric("postern_policy_notices_sent_total", DAEMON) == 1, what="a success")
        ids = {line for line in log.read_text().splitlines() if line.startswith("Message-ID:")}
        self.assertEqual(len(ids), 1)

    def test_bad_settings_are_told(self):
        path = self.stack.at.path(f"/etc/postern/{DAEMON}.conf")
        with self.configured(DAEMON):
            for option, value, told in (("notify_mail_to", "a b@c", "not one address"),
                                        ("notify_webhook_url", "ftp://x/", "neither http://, https:// nor unix:/PATH")):
                self.stack.configure(DAEMON, **{option: value})
                self.stack.reload(DAEMON)
                self.wait_until(lambda t=told: [line for line in self.stack.log_file(DAEMON).read_text(errors="replace").splitlines()
                                                if f"{path}:" in line and t in line], what=told)
                self.stack.configure(DAEMON, **{option: ""})
