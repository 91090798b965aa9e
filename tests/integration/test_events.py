"""The feed of events and its webhooks, as `postern events` shows them."""
import base64
import json
import subprocess
import unittest

from tests.frame.mail import message, new_message_id
from tests.frame.stack import StackError
from tests.frame.webhook import WebhookReceiver, signature_holds
from tests.integration.test_indexer import Dialogue, IndexCase

SECRETS = ["whsec_" + base64.b64encode(letter * 24).decode() for letter in (b"a", b"b")]


class EventsCase(IndexCase):
    def send(self, user, subject):
        with Dialogue(self.stack) as d:
            d.envelope(user)
            self.assertEqual(d.data(message("a@example.org", user, subject=subject, message_id=new_message_id()), 1)[0][0],
                             250)

    def events(self, *words):
        return json.loads(self.stack.postern("--json", "events", *words))


class Feed(EventsCase):
    def follow(self, *words):
        """Lines as they come."""
        argv = [self.stack.at.path("/bin/postern"), "-c", self.stack.at.path("/etc/postern/postern.conf"), "--json",
                "events", "follow", *words]
        process = subprocess.Popen([str(a) for a in argv], stdout=subprocess.PIPE, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_list_and_resume(self):
        user, subjects = self.new_user(), ["one", "zwei ü", "three"]
        for number, subject in enumerate(subjects):
            self.send(user, subject)
            self.wait_until(lambda number=number: self.count(user) == number + 1)
        rows = self.events("list", user)
        self.assertEqual([(row["seq"], row["subject"], row["type"], row["user"]) for row in rows],
                         [(n + 1, s, "message.received", user) for n, s in enumerate(subjects)])
        self.assertEqual(rows[0]["payload"]["data"]["sequence"], 1)
        self.assertEqual([row["seq"] for row in self.events("list", "--after", "1", "--limit", "1", user)], [2])
        self.assertIn("zwei ü", self.stack.postern("events", "list", user))
        process = self.follow("--after", "1", "--limit", "3", user)
        self.assertEqual([json.loads(process.stdout.readline())["seq"] for _ in range(2)], [2, 3])
        self.send(user, "live")
        self.assertEqual(json.loads(process.stdout.readline())["subject"], "live")
        self.assertEqual(process.wait(10), 0)

    def test_search_names_the_thread_alike(self):
        user = self.new_user()
        self.send(user, "threaded")
        self.wait_until(lambda: self.count(user) == 1)
        data = self.events("list", user)[0]["payload"]["data"]
        found = json.loads(self.stack.postern("--json", "search", user, "threaded"))
        self.assertEqual([row["thread_id"] for row in found], [data["thread"]])
        self.assertEqual(data["thread"], self.value("SELECT m.thread_id FROM messages m JOIN virtual_users u ON u.id = m.user_id "
                                                    "WHERE u.email = %s", user), "a string: it has 63 bits")

    def test_follow_all_begins_with_what_comes(self):
        old, new = self.new_user(), self.new_user()
        self.send(old, "before")
        self.wait_until(lambda: self.count(old) == 1)
        process = self.follow("--limit", "2")
        # It has looked at the feeds when it sleeps for the first time.
        self.wait_until(lambda: "nanosleep" in open(f"/proc/{process.pid}/wchan").read())
        self.send(new, "first of its user")
        self.assertEqual(json.loads(process.stdout.readline())["subject"], "first of its user")
        self.send(old, "later")
        self.assertEqual(json.loads(process.stdout.readline())["subject"], "later")

    def test_wrong_use(self):
        user = self.new_user()
        for words in (("follow", "--after", "3"), ("retry",), ("list", "--after", "1"), ("list", "--limit", "0", user)):
            with self.assertRaises(StackError) as caught:
                self.events(*words)
            self.assertIn("ended with 64", str(caught.exception), words)


class DeadLetters(EventsCase):
    def test_dead_listed_and_retried_with_both_secrets(self):
        user, other = self.new_user(), self.new_user()
        secrets = self.stack.at.path("/etc/postern/passwords/webhook-two")
        secrets.write_text("\n".join(SECRETS) + "\n")
        secrets.chmod(0o644)
        with WebhookReceiver() as hook, self.configured(
                "lmtp-indexer", webhook_url=hook.url, webhook_secret_file=str(secrets), webhook_refused_max="2"):
            hook.refuse = 400
            self.send(user, "unwanted")
            self.send(other, "unwanted, too")
            dead = self.wait_until(lambda: self.events("list", "--dead", other) and self.events("list", "--dead", user))
            self.assertEqual([(d["user"], d["state"], d["attempts"], d["status_code"], d["seq"]) for d in dead],
                             [(user, "dead", 2, 400, 1)])
            self.assertLessEqual({user, other}, {d["user"] for d in self.events("list")})
            self.assertEqual(self.events("list", user)[0]["webhook"], "dead")
            self.check_retry(hook, user, dead[0]["webhook_id"])
            hook.refuse = False
            self.assertEqual(self.events("retry", other), {"retried": 1})
            self.wait_until(lambda: self.events("list", "--dead", other) == [])

    def check_retry(self, hook, user, ident):
        def posts():
            return [got for got in list(hook.received)
                    if {k.lower(): v for k, v in got.headers.items()}["webhook-id"] == ident]

        before = len(posts())
        self.assertEqual(self.events("retry", "--id", ident), {"retried": 1})
        # Still refused: dead again after as many attempts.
        self.wait_until(lambda: self.events("list", "--dead", user)[0]["state"] == "dead")
        self.assertEqual(len(posts()), before + 2)
        hook.refuse = False
        self.assertEqual(self.events("retry", user), {"retried": 1})
        got = self.wait_until(lambda: len(posts()) == before + 3 and posts()[-1])
        for secret in SECRETS:
            self.assertTrue(signature_holds(got, secret))
        self.wait_until(lambda: self.events("list", user)[0]["webhook"] == "delivered")
        with self.assertRaises(StackError):
            self.events("retry", "--id", ident)


if __name__ == "__main__":
    unittest.main()
