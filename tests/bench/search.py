"""`postern search` in a mailbox of 100,000 messages, beside another as large."""
import time

from tests.bench.measure import scaled, table
from tests.frame import mailbox
from tests.frame.wait import wait_until

MESSAGES = 100_000
BLOCK = 1024  # fewer of a user wait for more
TURNS = 15
USER, OTHER = "large@example.net", "other@example.net"
WORD = mailbox.word
QUERIES = (
    ("a word of most messages", WORD(0)), ("a word of some", WORD(60)), ("a word of few", WORD(9000)), ("no such word", "nothing"),
    ("three words", f"{WORD(0)} {WORD(3)} {WORD(20)}"), ("a prefix", "w12*"), ("a phrase", f'"{WORD(200)} {WORD(300)}"'),
    ("negation", f"{WORD(30)} -{WORD(2)}"), ("an author", "from:p3@peer.example"), ("in the subject", f"subject:{WORD(5)}"),
    ("in a small folder", f"in:Rare {WORD(4)}"), ("days", f"after:2024-01 before:2024-02 {WORD(9)}"),
    ("all at once", f"from:p1 subject:{WORD(2)} has:attachment after:2024"),
)


class Search:
    """The whole command: its start, the connection, the query, the rows."""

    def __init__(self, stack, folder):
        self.stack = stack

    def measure(self):
        for number, user in enumerate((USER, OTHER)):
            self.stack.add_user(user)
            mailbox.fill(self.stack, user, scaled(MESSAGES), seed=number)
        start = time.monotonic()
        self.stack.restart("lmtp-indexer")
        wait_until(lambda: self.pending() < 2 * BLOCK, 600, "blocks are made")
        built = time.monotonic() - start
        rows, all_times = [], []
        for name, query in QUERIES:
            times = sorted(self.timed(query) for _ in range(TURNS))
            all_times += times
            rows.append([name, query, f"{times[TURNS // 2]:.0f}", f"{times[-1]:.0f}"])
        all_times.sort()
        table(f"postern search, {scaled(MESSAGES):,} messages a mailbox, {TURNS} turns",
              ["what", "query", "median ms", "worst ms"], rows)
        size = int(self.stack.mariadb("SELECT SUM(LENGTH(words)) FROM search_pages"))
        print(f"All queries: p95 {all_times[len(all_times) * 95 // 100]:.0f} ms; blocks of {2 * scaled(MESSAGES):,} messages "
              f"made in {built:.1f} s, {size / 2 / scaled(MESSAGES):.0f} bytes a message\n", flush=True)

    def pending(self):
        return int(self.stack.mariadb("SELECT COUNT(*) FROM search_pending p JOIN virtual_users u ON u.id = p.user_id "
                                      f"WHERE u.email IN ('{USER}', '{OTHER}')"))

    def timed(self, query):
        start = time.monotonic()
        self.stack.postern("--json", "search", USER, query, timeout=None)  # a limit has its end asked for in steps of 50 ms
        return (time.monotonic() - start) * 1000
