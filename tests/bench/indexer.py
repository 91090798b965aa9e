"""lmtp-indexer beside Dovecot alone: rate, CPU, how late rows and webhooks are,
memory, what it drains and what it rebuilds.

Mail that goes to Dovecot directly is in mailboxes of its own, which the index
has not seen, or it would be found there and indexed after all; they are what is
rebuilt at the end.
"""
import json
import threading
import time

from tests.bench.lmtp import CONNECTIONS, DOMAIN, MESSAGES, USER_COUNT, Lmtp, Variant
from tests.bench.measure import (ROUNDS, Sample, Server, buckets, cpu_seconds, memory_mb, percentile, ratio, resident_mb,
                                 scaled, table)
from tests.frame import sql
from tests.frame.layout import HOST
from tests.frame.metrics import scrape
from tests.frame.wait import wait_until

DIRECT_DOMAIN = "example.com"
DRAINED = 100_000
MEMORY_MESSAGES = 100_000
MEMORY_PARTS = 10
SINK_PORT = 690
PATIENCE_S = 600
ROW_LAG, HOOK_LAG = "postern_index_lag_seconds", "postern_webhook_lag_seconds"


class Through(Variant):
    """Through the indexer; its time and the database's are told, and how late the rows were."""

    def __init__(self, name, users, bench):
        super().__init__(name, bench.through, users, bench.pid)
        self.bench, self.sql, self.after, self.lags = bench, Sample(), Sample(), []

    def run(self, section, count, keep=True):
        bench = self.bench
        before, lag, cpu, sql_cpu = time.monotonic(), bench.lag(ROW_LAG), cpu_seconds(self.pid), cpu_seconds(bench.sql_pid)
        result = section.load(self.target, self.users, count)
        bench.wait_for_rows()
        spent = cpu_seconds(self.pid) - cpu, cpu_seconds(bench.sql_pid) - sql_cpu
        lags = bench.lag(ROW_LAG)
        bench.wait_for_places()
        if keep:
            self.sample.add(count, result["seconds"], spent[0])
            self.sql.add(count, result["seconds"], spent[1])
            self.p99.append(result["p99_ms"])
            self.lags.append([1000 * percentile(lag, lags, share) for share in (0.5, 0.99)])
            placing = cpu_seconds(self.pid) - cpu + cpu_seconds(bench.sql_pid) - sql_cpu - sum(spent)
            self.after.add(count, time.monotonic() - before, placing)

    def lag_ms(self, which):
        return sorted(lag[which] for lag in self.lags)[len(self.lags) // 2]


class Indexer(Lmtp):
    """What the issue of lmtp-indexer asks for, each with its figure."""

    def measure(self):
        self.direct = f"{HOST}:{self.stack.at.port('lmtp')}"
        self.through = self.stack.at.path("/var/spool/postfix/postern/lmtp-indexer.sock")
        self.sql_pid, self.pid = self.stack.pid("mysql"), self.stack.pid("lmtp-indexer")
        for domain in (DOMAIN, DIRECT_DOMAIN):
            self.add_users(domain)
        self.rates()
        self.rebuild()
        self.memory()
        self.webhooks()
        self.drain()

    # ---- rate, CPU, lag ----

    def rates(self):
        pairs = [(Variant(f"Dovecot alone, {name}", self.direct, users, domain=DIRECT_DOMAIN),
                  Through(f"through lmtp-indexer, {name}", users, self))
                 for users, name in ((1, "1 user"), (USER_COUNT, f"{USER_COUNT} users"))]
        for variant in sum(pairs, ()):
            variant.run(self, 100, keep=False)
        for _ in range(ROUNDS):
            for variant in sum(pairs, ()):
                variant.run(self, scaled(MESSAGES))
        table(f"LMTP, 10 KB, {CONNECTIONS} sessions, indexing on, median of {ROUNDS}",
              ["variant", "messages/s", "spread", "x alone", "p99 ms"],
              [[v.name, f"{v.sample.rate:.0f}", v.sample.spread(), ratio(v.sample.rate, pair[0].sample.rate), f"{v.p99_ms:.1f}"]
               for pair in pairs for v in pair])
        table("What the index costs: CPU ms a message, and milliseconds from Dovecot's 250 to the row",
              ["variant", "indexer", "SQL", "together", "places, afterwards", "lag p50 ms", "lag p99 ms"],
              [[v.name, f"{v.sample.cpu_ms:.3f}", f"{v.sql.cpu_ms:.3f}", f"{v.sample.cpu_ms + v.sql.cpu_ms:.3f}",
                f"{v.after.cpu_ms:.3f}", f"{v.lag_ms(0):.0f}", f"{v.lag_ms(1):.0f}"] for _, v in pairs])

    def webhooks(self):
        """The same load with a receiver that takes each event."""
        at = self.stack.at
        url = f"{HOST}:{at.base + SINK_PORT}"
        count = scaled(MESSAGES)
        sink = Server([at.build / "helpers/webhook_sink", f"inet:{url}"], lambda: True, self.folder / "sink.log")
        try:
            self.reconfigure(webhook_url=f"http://{url}/", webhook_secret_file=at.path("/etc/postern/passwords/webhook"))
            rows, hooks = self.lag(ROW_LAG), self.lag(HOOK_LAG)
            result = self.load(self.through, USER_COUNT, count)
            wait_until(lambda: max(self.lag(HOOK_LAG).values()) >= count, PATIENCE_S, "all webhooks were taken")
            cells = [[what, *(f"{1000 * percentile(before, self.lag(family), share):.0f}" for share in (0.5, 0.99))]
                     for what, before, family in (("row", rows, ROW_LAG), ("webhook", hooks, HOOK_LAG))]
        finally:
            sink.stop()
            self.reconfigure(webhook_url="")
        table(f"With webhooks, at {count / result['seconds']:.0f} messages/s: from Dovecot's 250",
              ["to the", "p50 ms", "p99 ms"], cells)

    # ---- memory, a queue ----

    def memory(self):
        """Of the daemon and its parsers, while much mail goes through."""
        sizes = []
        for _ in range(MEMORY_PARTS):
            self.load(self.through, USER_COUNT, scaled(MEMORY_MESSAGES // MEMORY_PARTS))
            sizes.append(resident_mb(self.pid))
        self.wait_for_rows()
        print(f"Memory over {scaled(MEMORY_MESSAGES):,} messages, each tenth: {', '.join(f'{size:.0f}' for size in sizes)} MB; "
              f"the daemon's peak {memory_mb(self.pid):.0f} MB\n", flush=True)

    def drain(self):
        """What has gathered in the spool while the database took nothing."""
        count = scaled(DRAINED)
        self.reconfigure(spool_max="8G")
        with sql.locked(self.stack, "message_texts"):
            self.load(self.through, USER_COUNT, count)
        # The daemon tries again now and then; from the first row on it has the database.
        wait_until(lambda: self.spooled() < count, PATIENCE_S, "the database is back", 0.002)
        left, start = self.spooled(), time.monotonic()
        seconds = self.wait_for_rows()
        print(f"{count:,} spooled messages drained at {left / seconds:.0f}/s ({time.monotonic() - start:.1f} s)\n", flush=True)

    # ---- rebuild ----

    def rebuild(self):
        """The mailboxes that Dovecot was given directly; half of them beside live mail."""
        users = [f"u{n}@{DIRECT_DOMAIN}" for n in range(2, USER_COUNT + 1)]
        self.load(self.direct, USER_COUNT, scaled(20 * MESSAGES), DIRECT_DOMAIN)
        quiet = self.rebuild_users(users[::2])
        count = scaled(MESSAGES)
        alone = self.load(self.through, USER_COUNT, count)
        self.wait_for_rows()
        self.wait_for_places()
        beside = []
        thread = threading.Thread(target=lambda: beside.append(self.rebuild_users(users[1::2])))
        thread.start()
        both = self.load(self.through, USER_COUNT, count)
        thread.join()
        print(f"Rebuild: {quiet:.0f} messages/s; beside live mail, which goes as fast as it can, {beside[0]:.0f}/s over all; live "
              f"mail then has {ratio(alone['seconds'], both['seconds'])} of its rate, and p99 of {both['p99_ms']:.1f} ms instead of "
              f"{alone['p99_ms']:.1f} ms\n", flush=True)

    def rebuild_users(self, users):
        added, start = 0, time.monotonic()
        for user in users:
            added += json.loads(self.stack.postern("--json", "index", "rebuild", user, timeout=PATIENCE_S))["added"]
        return added / (time.monotonic() - start)

    # ---- how far the index is ----

    def reconfigure(self, **values):
        self.stack.configure("lmtp-indexer", **values)
        self.stack.restart("lmtp-indexer")
        self.pid = self.stack.pid("lmtp-indexer")

    def lag(self, family):
        return buckets(scrape(self.stack, "lmtp-indexer"), family)

    def spooled(self):
        return scrape(self.stack, "lmtp-indexer")["postern_outbox_records"]

    def wait_for_rows(self):
        """Seconds until the index holds what the mailboxes hold."""
        start = time.monotonic()
        # Each look takes half a millisecond or more of both processors: 200 a second are a tenth of what there is.
        wait_until(lambda: self.spooled() == 0, PATIENCE_S, "index complete", 0.05)
        return time.monotonic() - start

    def wait_for_places(self):
        """Until the index knows of each mail where it lies."""
        query = ("SELECT EXISTS (SELECT 1 FROM virtual_users u JOIN messages m FORCE INDEX (messages_place) "
                 "ON m.user_id = u.id AND m.mailbox_guid IS NULL WHERE m.deleted_at IS NULL)")
        wait_until(lambda: self.stack.mariadb(query).strip() == "0", PATIENCE_S, "all places known", 0.2)
