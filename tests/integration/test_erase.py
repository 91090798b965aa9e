"""Erasure: afterwards no file of the indexer and no row holds a word of the mail."""
import concurrent.futures
import contextlib
import json
import subprocess
import unittest
import uuid

from tests.frame.mail import message, new_message_id
from tests.frame.stack import DATABASE, StackError
from tests.frame.webhook import WebhookReceiver
from tests.integration.test_indexer import Dialogue, IndexCase


class Erase(IndexCase):
    def send(self, users, word, ident=None):
        with Dialogue(self.stack) as d:
            d.envelope(*users)
            data = message("a@example.org", users[0], subject=f"about {word}", text=f"text {word}\n",
                           message_id=ident or new_message_id(), attachments=[(f"{word}.pdf", "application/pdf", b"%PDF")])
            self.assertEqual({code for code, _ in d.data(data, len(users))}, {250})

    def traces(self, word):
        """Where WORD still stands: files of the indexer, and a dump of the database."""
        state = self.stack.at.path("/var/lib/postern/lmtp-indexer")
        found = []
        for path in state.rglob("*"):
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # a segment that nobody needs any more
                if word.encode() in path.read_bytes():
                    found.append(str(path.relative_to(state)))
        dump = subprocess.run(["mariadb-dump", "--no-defaults", "-uroot", "-S", self.stack.mysql_socket, "--skip-extended-insert",
                               DATABASE], capture_output=True, check=True).stdout
        return found + sorted({line.split("`")[1] for line in dump.decode(errors="replace").splitlines()
                               if word in line and line.startswith("INSERT")})

    def expunge(self, user, *query):
        """Takes mail out of the mailbox, and waits until the index has seen it."""
        before = self.live(user)
        self.stack.doveadm("expunge", "-u", user, "mailbox", "INBOX", *query)
        self.wait_until(lambda: self.live(user) < before)

    def live(self, user):
        return int(self.value("SELECT COUNT(*) FROM messages m JOIN virtual_users u ON u.id = m.user_id "
                              "WHERE u.email = %s AND m.deleted_at IS NULL", user))

    def erase(self, *words):
        return json.loads(self.stack.postern("--json", *words))

    def test_user_with_waiting_webhooks(self):
        user, other = self.new_user(), self.new_user()
        word, kept = uuid.uuid4().hex, uuid.uuid4().hex
        with WebhookReceiver() as hook, self.configured("lmtp-indexer", webhook_url=hook.url):
            hook.refuse = True
            self.send([user], word)
            self.send([other], kept)
            self.wait_until(lambda: self.count(user) == 1 and self.count(other) == 1)
            self.wait_until(lambda: hook.received)
            before = self.traces(word)
            self.assertIn("messages", before)
            self.assertTrue([name for name in before if name.startswith("spool/")])
            self.assertTrue([name for name in before if name.startswith("webhook/")])
            gone = self.erase("user", "remove", user)
            self.assertEqual({k: gone[k] for k in ("messages", "message_texts", "attachments", "events", "spool", "outbox")},
                             {"messages": 1, "message_texts": 1, "attachments": 1, "events": 1, "spool": 1, "outbox": 1})
            self.assertEqual(self.traces(word), [])
            hook.refuse = False
            got = len(hook.received)
            # The pauses between two attempts grow up to a minute.
            self.wait_until(lambda: [r for r in hook.received[got:] if kept.encode() in r.body], 90)
            self.assertEqual([r for r in hook.received[got:] if word.encode() in r.body], [])
        self.assertNotEqual(self.traces(kept), [])
        self.assertEqual(self.erase("index", "erase", user)["messages"], 0, "may be asked for again")

    def test_quotad_forgets_a_removed_user(self):
        user, other = self.new_user(), self.new_user()
        state = self.stack.at.path("/var/lib/postern/quotad")

        def named(name):
            return sorted(path.name for path in state.rglob("*") if path.is_file() and name.encode() in path.read_bytes())
        self.send([user, other], uuid.uuid4().hex)
        usage = "SELECT messages FROM mailbox_usage WHERE email = %s"
        self.wait_until(lambda: [self.value(usage, name) for name in (user, other)] == ["1", "1"], what="the usage")
        self.wait_until(lambda: len(named(user)) == 1, what="that only the journal names the user")
        segment = named(other)
        gone = self.erase("user", "remove", user)
        self.assertGreaterEqual(gone["journal"], 1)
        self.assertEqual(named(user), [])
        self.assertEqual(named(other), segment)
        self.stack.restart("quotad")  # blank records are read over
        self.send([other], uuid.uuid4().hex)
        self.wait_until(lambda: self.value(usage, other) == "2", what="the usage after the restart")
        self.stack.stop("quotad")
        self.addCleanup(self.stack.start, "quotad")
        self.assertIn("removed the user", self.stack.postern("user", "remove", other))

    def test_one_message(self):
        user, other = self.new_user(), self.new_user()
        word, kept, ident = uuid.uuid4().hex, uuid.uuid4().hex, new_message_id()
        self.send([user], word, ident)
        self.send([user, other], kept)
        self.wait_until(lambda: self.count(user) == 2 and self.count(other) == 1)
        self.expunge(user, "header", "message-id", ident)
        out = self.erase("index", "erase", "--message", ident, user)
        self.assertEqual((out["messages"], out["spool"], out["message_addresses"]), (1, 1, 2))
        self.assertGreaterEqual(out["events"], 1)
        self.assertEqual(self.traces(word), [])
        self.assertEqual((self.count(user), self.count(other)), (1, 1))
        self.assertEqual(self.stack.postern("search", user, word), "nothing found\n")
        with self.assertRaises(StackError):
            self.erase("index", "erase", "--message", ident, user)
        self.stack.restart("lmtp-indexer")  # blank records are read over
        self.send([user], kept)
        self.wait_until(lambda: self.count(user) == 2)

    def test_several_administrators_at_once(self):
        """Each gets an end of its own, also two that erase the same user; nobody's words stay."""
        users, words = [self.new_user() for _ in range(3)], [uuid.uuid4().hex for _ in range(3)]
        for user, word in zip(users, words):
            for _ in range(20):
                self.send([user], word)
        self.wait_until(lambda: [self.count(user) for user in users] == [20] * 3)
        for user in users:
            self.expunge(user, "all")
            self.wait_until(lambda user=user: self.live(user) == 0)
        asked = [("index", "erase", users[0]), ("index", "erase", users[0]), ("index", "erase", users[1]),
                 ("user", "remove", users[2])]
        with concurrent.futures.ThreadPoolExecutor(len(asked)) as pool:
            ends = list(pool.map(lambda words: self.erase(*words), asked))
        self.assertEqual([sum(end["spool"] for end in ends[at:to]) for at, to in ((0, 2), (2, 3), (3, 4))], [20] * 3)
        self.assertEqual([self.traces(word) for word in words], [[]] * 3)

    def test_all_mail_of_a_user_that_stays(self):
        user, other = self.new_user(), self.new_user()
        word = uuid.uuid4().hex
        self.send([user], word)
        self.send([user, other], uuid.uuid4().hex)
        self.wait_until(lambda: self.count(user) == 2)
        self.expunge(user, "all")
        self.wait_until(lambda: self.live(user) == 0)
        last = int(self.value("SELECT MAX(e.seq) FROM events e JOIN virtual_users u ON u.id = e.user_id WHERE u.email = %s", user))
        self.assertIn("2 messages", self.stack.postern("index", "erase", user))
        self.assertEqual(self.traces(word), [])
        self.assertEqual((self.count(user), self.count(other)), (0, 1))
        self.send([user], "more")
        self.wait_until(lambda: self.count(user) == 1)
        first = int(self.value("SELECT MIN(e.seq) FROM events e JOIN virtual_users u ON u.id = e.user_id WHERE u.email = %s", user))
        self.assertEqual(first, last + 1, "numbers are not given out twice")


if __name__ == "__main__":
    unittest.main()
