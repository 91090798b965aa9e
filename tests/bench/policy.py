"""Policy servers: one that always says DUNNO, policyd-ratelimit, postfwd.

policyd-ratelimit runs with three rules that match each request, on counters and
a journal as in production, in short turns against the server that says DUNNO; postfwd
with its one rate rule that comes closest, for which some long turns do.
Then ten million accounts through the daemon's socket, while snapshots are written
and the journal is synced, and more until the cap of memory; and the counters alone
under a flood of fifty million keys.
"""
import json
import pathlib
import re
import statistics
import tempfile

from tests.bench.measure import ROUNDS, SCALE, BackgroundServer, Duel, Sample, Server, cpu_seconds, memory_mb, ratio, scaled, table
from tests.frame.layout import HOST
from tests.frame.metrics import scrape_socket
from tests.frame.policy import PolicyClient, new_instance
from tests.frame.stack import run
from tests.frame.wait import wait_until

TURN = 20000  # requests: in one much shorter the beginning counts most
BLOCKS = {1: 8, 20: 24}  # of four turns, for each round
SLOW_REQUESTS = {1: 3000, 20: 6000}
POSTFWD_PORT = 800
ECHO_KEYS = 1000000
KEYS, KEYS_FLOOD = 10000000, 3000000
TABLE_KEYS, TABLE_FLOOD, TABLE_MB = 10000000, 50000000, 512
HOT, HOT_MESSAGES = 50, 40

RULES = """\
limit = client_ip messages 1000000/1h
limit = account messages 1000000/1h, 5000000/1d
limit = sender_domain recipients 10000000/1d
"""


def figures(output):
    """{name: number} of a line name=number ..."""
    return {name: float(value) for name, value in re.findall(r"([\w.]+)=([\d.]+)", output)}


class Variant:
    """A server, and what the load measured of it: {(connections, mode): figures of each turn}."""

    def __init__(self, name, spec):
        self.name, self.spec, self.server = name, spec, None
        self.turns, self.samples = {}, {}

    def add(self, kind, row, cpu):
        seconds = row["requests"] / row["per_second"]
        self.turns.setdefault(kind, []).append(row)
        self.samples.setdefault(kind, Sample()).add(row["requests"], seconds, cpu)
        return seconds

    def median(self, kind, name):
        return statistics.median(row[name] for row in self.turns[kind])

    def cells(self, kind):
        """Of each turn the median, of the longest the longest."""
        return [f"{self.samples[kind].rate:.0f}", *(f"{self.median(kind, name):.0f}" for name in ("p50_us", "p99_us", "p99.9_us")),
                f"{max(row['max_us'] for row in self.turns[kind]):.0f}", f"{1000 * self.samples[kind].cpu_ms:.1f}"]


class Policy:
    def __init__(self, stack, folder):
        self.stack, self.folder = stack, folder
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        # In memory, as /run/postern is where systemd runs.
        self.runtime = tempfile.TemporaryDirectory(prefix="postern-bench-", dir="/dev/shm")
        self.messages = 0  # that were sent, so that none comes twice

    def load(self, spec, connections, count, *mode):
        return run([self.stack.at.build / "helpers/policy_load", spec, connections, count, *mode], timeout=1800)

    def answers(self, spec):
        try:
            self.load(spec, 1, 1)
            return True
        except Exception:  # not yet
            return False

    def runtime_of(self, name):
        return pathlib.Path(self.runtime.name) / name

    def config(self, name, socket, rules):
        state, runtime = self.folder / name, self.runtime_of(name)
        for folder in (state, runtime):
            folder.mkdir(exist_ok=True)
        path = self.folder / f"{name}.conf"
        path.write_text(f"listen = unix:{socket}\nruntime_dir = {runtime}\nstate_dir = {state}\nlog_level = error\n{rules}")
        return path

    def start(self):
        echo, own = self.folder / "echo.sock", self.folder / "policyd.sock"
        config = self.config("policyd", own, RULES)
        port = self.stack.at.base + POSTFWD_PORT
        rules = self.folder / "postfwd.cf"
        rules.write_text("id=R1; sasl_username=~/./; action=rate(sasl_username/1000000/3600/450 4.7.1 limit)\n")
        variants = [
            Variant("always DUNNO (epoll)", f"unix:{echo}"),
            Variant("policyd-ratelimit, 3 rules", f"unix:{own}"),
            Variant("postfwd, 1 rule", f"inet:{HOST}:{port}"),
        ]
        commands = [
            [self.stack.at.build / "helpers/policy_echo", f"unix:{echo}"],
            [self.stack.at.path("/bin/policyd-ratelimit"), "-c", config],
        ]
        for number, (variant, argv) in enumerate(zip(variants, commands)):
            variant.server = Server(argv, lambda: True, self.folder / f"policy-{number}.log")
        pid_file = self.folder / "postfwd.pid"
        variants[2].server = BackgroundServer(
            ["postfwd1", "-d", "-f", rules, "-i", HOST, "-p", port, "-u", "root", "-g", "root", "-S", "0",
             "--pidfile", pid_file], pid_file)
        for variant in variants:
            wait_until(lambda v=variant: self.answers(v.spec), 20, f"{variant.name} answers", 0.2)
        return variants

    def turn(self, variant, kind, count):
        """COUNT requests; returns the seconds that they took."""
        connections, mode = kind
        before = cpu_seconds(variant.server.pid)
        row = figures(self.load(variant.spec, connections, count, mode, self.messages))
        self.messages += count
        return variant.add(kind, row, cpu_seconds(variant.server.pid) - before)

    def duel(self, variants, kind):
        duel = Duel(*variants)
        for variant in variants:
            self.load(variant.spec, kind[0], TURN, kind[1], self.messages)
            self.messages += TURN
        for _ in range(max(2, round(ROUNDS * SCALE * BLOCKS[kind[0]]))):
            duel.block(lambda way: self.turn(way, kind, TURN))
        return duel

    def measure(self):
        variants = []
        kinds = [(1, "rcpt"), (20, "rcpt"), (20, "message")]
        try:
            variants = self.start()
            duels = {kind: self.duel(variants[:2], kind) for kind in kinds}
            for _ in range(ROUNDS):
                for connections, count in SLOW_REQUESTS.items():
                    self.turn(variants[2], (connections, "rcpt"), scaled(count))
            memory = [memory_mb(v.server.pid) for v in variants]
        finally:
            for variant in variants:
                if variant.server:
                    variant.server.stop()
        self.report(variants, duels, memory)
        keys, counters = self.many_keys(), self.counters()
        self.report_bars(variants, duels, keys, counters)

    def report(self, variants, duels, memory):
        heads = ["variant", "requests/s", "p50 us", "p99 us", "p99.9 us", "longest us", "CPU us/request"]
        for kind, duel in duels.items():
            connections, mode = kind
            shown = [v for v in variants if kind in v.samples]
            title = (f"Policy servers, {connections} connection{'s' if connections > 1 else ''}" if mode == "rcpt" else
                     f"Whole messages (RCPT, END-OF-MESSAGE), {connections} connections: each is in the journal before its answer")
            against = [("1.00", ""), (f"{duel.ratio:.2f}", duel.spread())]
            rates = [v.samples[kind].rate for v in shown]
            against += [(ratio(rate, rates[0]), "") for rate in rates[2:]]
            table(f"{title}, {4 * len(duel.ratios)} turns", heads + ["x always DUNNO", "middle half", "peak MB"],
                  [[v.name, *v.cells(kind), *against[n], f"{memory[n]:.0f}"] for n, v in enumerate(shown)])

    def hot(self, socket, accounts):
        """HOT_MESSAGES messages of each of ACCOUNTS."""
        with PolicyClient(socket) as client:
            for account in accounts:
                for _ in range(HOT_MESSAGES):
                    client.ask(instance=new_instance(), protocol_state="END-OF-MESSAGE", sasl_username=account)

    def used(self, account):
        path = self.folder / "postern.conf"
        path.write_text(f"runtime_dir = {self.runtime_of('keys')}\n")
        shown = json.loads(run([self.stack.at.path("/bin/postern"), "-c", path, "limits", "show", account, "--json"]))
        return max((window["used"] for window in shown["windows"]), default=0)

    def echo(self):
        """What the machine allows right now: the same load on a server that always says DUNNO."""
        socket = self.folder / "keys-echo.sock"
        socket.unlink(missing_ok=True)  # of the one before: to be there means to be ready
        server = Server([self.stack.at.build / "helpers/policy_echo", f"unix:{socket}"], socket.exists, self.folder / "keys-echo.log")
        try:
            row = figures(self.load(f"unix:{socket}", 20, scaled(ECHO_KEYS), "keys", 1))
            row["peak_mb"] = memory_mb(server.pid)
            return row
        finally:
            server.stop()

    def many_keys(self):
        """Ten million accounts of one message each, then more until memory is at its cap."""
        before = self.echo()
        socket = self.folder / "keys.sock"
        config = self.config("keys", socket, "limit = account messages 1000/1h\n")
        server = Server([self.stack.at.path("/bin/policyd-ratelimit"), "-c", config], socket.exists, self.folder / "keys.log")
        try:
            accounts = [f"hot{number}@example.com" for number in range(HOT)]
            self.hot(socket, accounts)
            grown = figures(self.load(f"unix:{socket}", 20, scaled(KEYS), "keys", 1))
            grown["peak_mb"] = memory_mb(server.pid)
            flood = figures(self.load(f"unix:{socket}", 20, scaled(KEYS_FLOOD), "keys", KEYS + 1))
            flood["peak_mb"] = memory_mb(server.pid)
            metrics = scrape_socket(f"{self.runtime_of('keys')}/policyd-ratelimit.metrics.sock")
            unharmed = sum(self.used(account) == HOT_MESSAGES for account in accounts)
        finally:
            server.stop()
        after = self.echo()
        table("policyd-ratelimit, one message each of new accounts, 20 connections, snapshots and syncs running",
              ["phase", "requests/s", "p50 us", "p99 us", "p99.9 us", "longest us", "peak MB"],
              [[name, *(f"{m[key]:.0f}" for key in ("per_second", "p50_us", "p99_us", "p99.9_us", "max_us", "peak_mb"))]
               for name, m in (("always DUNNO, right before", before), (f"{scaled(KEYS)} accounts", grown),
                               (f"{scaled(KEYS_FLOOD)} more", flood), ("always DUNNO, right after", after))])
        count, total = (metrics[f"postern_policy_latency_seconds_{part}"] for part in ("count", "sum"))
        fast = max((value for name, value in metrics.items() if re.search(r'latency_seconds_bucket.*le="0\.001"', name)), default=0)
        print(f"{metrics['postern_policy_counters']:.0f} counters, {metrics['postern_policy_evicted_total']:.0f} displaced, "
              f"{metrics['postern_policy_snapshots_total']:.0f} snapshots; in the daemon a request took {1e6 * total / count:.1f} us, "
              f"{100 * fast / count:.3f} % under 1 ms; busy accounts unharmed: {unharmed} of {HOT}\n")
        return {"p99_us": grown["p99_us"], "fast": fast / count, "peak_mb": grown["peak_mb"], "unharmed": unharmed / HOT}

    def counters(self):
        """The counters alone, without sockets and journal."""
        output = run([self.stack.at.build / "helpers/policy_table", scaled(TABLE_KEYS), scaled(TABLE_FLOOD), TABLE_MB], timeout=1800)
        growth, flood, busy = output.splitlines()
        rows = [("growth", figures(growth)), ("flood", figures(flood))]
        table(f"The counters alone: {scaled(TABLE_KEYS)} keys, a flood of {scaled(TABLE_FLOOD)} one-time keys, cap {TABLE_MB} MB",
              ["phase", "counters", "MB", "bytes a key", "p50 us", "p99 us", "p99.999 us", "longest us", "displaced"],
              [[name, f"{m['keys']:.0f}", f"{m['memory_mb']:.0f}", f"{m['bytes_a_key']:.1f}", f"{m['p50_us']:.2f}", f"{m['p99_us']:.2f}",
                f"{m['p99.999_us']:.1f}", f"{m['max_us']:.0f}", f"{m['evicted']:.0f}"] for name, m in rows])
        print(busy)
        whole, all_keys = (int(number) for number in re.findall(r"\d+", busy))
        return {"growth": rows[0][1], "flood": rows[1][1], "unharmed": whole / all_keys}

    def report_bars(self, variants, duels, keys, counters):
        ours, postfwd = (v.samples[20, "rcpt"].rate for v in variants[1:])
        rows = [
            ["20 connections: requests / an epoll server that says DUNNO", "at least 0.85", duels[20, "rcpt"].ratio],
            ["the same, whole messages", "", duels[20, "message"].ratio],
            ["20 connections: requests / postfwd1", "at least 30", ours / postfwd],
            [f"{scaled(TABLE_KEYS)} keys: MB of the counters", "at most 500", counters["growth"]["memory_mb"]],
            [f"{scaled(KEYS)} accounts: MB of the whole daemon at its peak", "", keys["peak_mb"]],
            ["counters, while they grow: p99 in ms", "under 1", counters["growth"]["p99_us"] / 1000],
            ["daemon, while they grow: requests that took under 1 ms in it", "over 0.99", keys["fast"]],
            ["client's side of that, sockets and waiting: p99 in ms", "under 1", keys["p99_us"] / 1000],
            [f"flood of {scaled(TABLE_FLOOD)} keys: MB of the counters", f"at most {TABLE_MB * 1.048576:.0f}",
             counters["flood"]["memory_mb"]],
            ["busy keys unharmed by it", "1.00", counters["unharmed"]],
            ["busy accounts of the daemon unharmed", "1.00", keys["unharmed"]],
        ]
        table("Bars of the policy server", ["what", "bar", "measured"], [[what, bar, f"{value:.2f}"] for what, bar, value in rows])
