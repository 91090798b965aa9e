"""A part dies in the middle of 200 deliveries.

The oracle: each Message-ID that got a 250 is in its Maildir; what is there
twice was sent twice by Postfix or by the client, as their logs show; the index
holds each copy exactly once; the usage equals the mailbox.
"""
import re
import time
import unittest
from collections import Counter

from tests.frame.case import StackCase
from tests.frame.load import Load
from tests.frame.mail import maildir_ids
from tests.frame.wait import wait_until

MESSAGES = 200
CLIENTS = 4
KILLS = 3
DATABASE_AWAY_S = 10


class Kill(StackCase):
    """kill -9 of each daemon, and of the database."""

    QUEUE_S = 60

    def setUp(self):
        super().setUp()
        self.log_start = self.stack.log_file("postfix").stat().st_size
        self.users = [self.new_user() for _ in range(CLIENTS)]
        self.load = Load(self.stack, self.users, [self.new_source() for _ in range(CLIENTS)], MESSAGES)

    def after_messages(self, count):
        wait_until(lambda: self.load.done() >= count, 120, f"{count} accepted messages", interval=0.005)

    def kill_times(self, part, times):
        """kill -9 while mail flows; each time PART comes back by itself."""
        for turn in range(times):
            self.after_messages((turn + 1) * MESSAGES // (times + 1))
            old = self.stack.kill(part)
            wait_until(lambda old=old: self.stack.pid(part) not in (None, old), what=f"{part} is back")

    def kill_daemon(self, part):
        self.load.start()
        self.kill_times(part, KILLS)
        self.load.join()
        self.check_books()

    def test_quotad(self):
        self.kill_daemon("quotad")

    def test_milter_dkim(self):
        self.kill_daemon("milter-dkim")

    def test_policyd_ratelimit(self):
        self.kill_daemon("policyd-ratelimit")

    def test_lmtp_indexer(self):
        self.kill_daemon("lmtp-indexer")

    def test_database(self):
        self.load.start()
        self.after_messages(MESSAGES // 4)
        self.stack.kill("mysql")
        killed = time.monotonic()
        wait_until(lambda: time.monotonic() - killed >= DATABASE_AWAY_S, DATABASE_AWAY_S + 5)
        self.stack.start("mysql")
        self.load.join()
        self.check_books()

    def check_books(self):
        self.assertEqual(self.load.refused, {}, "never accepted")
        self.assertEqual(len(self.load.accepted), MESSAGES)
        self.stack.wait_queue_empty(self.QUEUE_S)
        bounced = self.bounced()
        total, twice = 0, set()
        for user in self.users:
            copies = Counter(maildir_ids(self.stack, user))
            total += copies.total()
            twice |= {ident for ident, count in copies.items() if count > 1}
            wanted = {ident for ident, to in self.load.accepted.items() if to == user}
            for ident in wanted - copies.keys() - bounced:
                self.fail(f"{ident} to {user} got a 250 and is lost:\n{self.way_of(ident)}")
            self.check_index(user, copies)
            self.check_usage(user, copies)
        retried = self.retried_by_postfix() | self.load.uncertain  # which the index may tell
        for ident in twice - retried:
            rows = self.rows("SELECT delivery_id, recipient, mailbox_name, uid, deleted_at, received_at FROM messages "
                             "WHERE message_id_header = %s", ident.strip("<>"))
            self.fail(f"{ident} is there twice without a retry:\n{rows}\n{self.way_of(ident)}")
        print(f"\n    {MESSAGES} accepted after {self.load.retries} refusals, {total} copies, "
              f"{len(retried)} tried again by Postfix or the client, {len(bounced)} bounced", end=" ")

    @staticmethod
    def bounced():
        """Message-IDs that may be in a bounce instead: none."""
        return set()

    def indexed(self, user):
        return Counter(f"<{row[0]}>" for row in self.rows(
            "SELECT m.message_id_header FROM messages m JOIN virtual_users u ON u.id = m.user_id "
            "WHERE u.email = %s AND m.deleted_at IS NULL", user))

    def check_index(self, user, copies):
        try:
            wait_until(lambda: self.indexed(user) == copies, what="index complete", interval=0.2)
        except AssertionError:
            found = self.indexed(user)
            missing, surplus = copies - found, found - copies
            self.fail(f"index of {user}: {missing.total()} missing, {surplus.total()} too many, "
                      f"for example {(missing | surplus).most_common(3)}")

    def check_usage(self, user, copies):
        sizes = self.stack.doveadm("-f", "tab", "fetch", "-u", user, "size.virtual", "ALL").split()[1:]
        wanted = (str(sum(map(int, sizes))), str(sum(copies.values())))
        self.assertEqual(len(sizes), sum(copies.values()))

        def usage():
            return self.rows("SELECT usage_bytes, messages FROM mailbox_usage WHERE email = %s", user)

        try:
            wait_until(lambda: usage() == [wanted], what="usage equals the mailbox", interval=0.2)
        except AssertionError:
            self.fail(f"usage of {user}: {usage()} instead of {wanted}")

    def postfix_log(self):
        """Of this test."""
        with open(self.stack.log_file("postfix"), "rb") as log:
            log.seek(self.log_start)
            return log.read().decode(errors="replace")

    def way_of(self, ident):
        """What Postfix says of a message."""
        text = self.postfix_log()
        queue_ids = re.findall(r"cleanup\[\d+\]: (\w+): message-id=" + re.escape(ident), text)
        return "\n".join(line for line in text.splitlines() if any(q in line for q in queue_ids))

    def retried_by_postfix(self):
        """Message-IDs of which Postfix has tried a delivery more than once."""
        text = self.postfix_log()
        idents = dict(re.findall(r"cleanup\[\d+\]: (\w+): message-id=(<.*>)", text))
        deferred = re.findall(r"lmtp\[\d+\]: (\w+): to=<[^>]*>.* status=deferred", text)
        return {idents[queue_id] for queue_id in deferred if queue_id in idents}


if __name__ == "__main__":
    unittest.main()
