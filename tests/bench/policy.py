"""Policy servers: one that always says DUNNO, policyd-ratelimit, postfwd.

policyd-ratelimit runs with three rules that match each request, on counters and
a journal as in production; postfwd with its one rate rule that comes closest.
"""
import re

from tests.bench.measure import ROUNDS, BackgroundServer, Sample, Server, cpu_seconds, memory_mb, ratio, scaled, table, timed
from tests.frame.layout import HOST
from tests.frame.stack import run
from tests.frame.wait import wait_until

REQUESTS = {1: 20000, 20: 200000}
SLOW_REQUESTS = {1: 3000, 20: 6000}
POSTFWD_PORT = 800

RULES = """\
limit = client_ip messages 1000000/1h
limit = account messages 1000000/1h, 5000000/1d
limit = sender_domain recipients 10000000/1d
"""


class Variant:
    def __init__(self, name, spec, requests):
        self.name, self.spec, self.requests = name, spec, requests
        self.server = None
        self.samples = {n: Sample() for n in requests}
        self.p99 = {n: [] for n in requests}


class Policy:
    def __init__(self, stack, folder):
        self.stack, self.folder = stack, folder
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)

    def load(self, spec, connections, count):
        return run([self.stack.at.build / "helpers/policy_load", spec, connections, count])

    def answers(self, spec):
        try:
            self.load(spec, 1, 1)
            return True
        except Exception:  # not yet
            return False

    def start(self):
        echo, own = self.folder / "echo.sock", self.folder / "policyd.sock"
        state = self.folder / "policyd"
        state.mkdir(exist_ok=True)
        config = self.folder / "policyd.conf"
        config.write_text(f"listen = unix:{own}\nruntime_dir = {state}\nstate_dir = {state}\nlog_level = warning\n{RULES}")
        port = self.stack.at.base + POSTFWD_PORT
        rules = self.folder / "postfwd.cf"
        rules.write_text("id=R1; sasl_username=~/./; action=rate(sasl_username/1000000/3600/450 4.7.1 limit)\n")
        variants = [
            Variant("always DUNNO (epoll)", f"unix:{echo}", REQUESTS),
            Variant("policyd-ratelimit, 3 rules", f"unix:{own}", REQUESTS),
            Variant("postfwd, 1 rule", f"inet:{HOST}:{port}", SLOW_REQUESTS),
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

    def round(self, variant, connections):
        count = scaled(variant.requests[connections])
        before = cpu_seconds(variant.server.pid)
        output = ""

        def work():
            nonlocal output
            output = self.load(variant.spec, connections, count)

        timed(work)
        rate = float(re.search(r"per_second=([\d.]+)", output)[1])
        variant.samples[connections].add(count, count / rate, cpu_seconds(variant.server.pid) - before)
        variant.p99[connections].append(float(re.search(r"p99_us=([\d.]+)", output)[1]))

    def measure(self):
        variants = []
        try:
            variants = self.start()
            for _ in range(ROUNDS):
                for connections in REQUESTS:
                    for variant in variants:
                        self.round(variant, connections)
            memory = [memory_mb(v.server.pid) for v in variants]
        finally:
            for variant in variants:
                if variant.server:
                    variant.server.stop()
        for connections in REQUESTS:
            rates = [v.samples[connections].rate for v in variants]
            table(f"Policy servers, {connections} connection{'s' if connections > 1 else ''}, median of {ROUNDS}",
                  ["variant", "requests/s", "spread", "x always DUNNO", "x postfwd", "p99 us", "CPU us/request", "peak MB"],
                  [[v.name, f"{v.samples[connections].rate:.0f}", v.samples[connections].spread(),
                    ratio(v.samples[connections].rate, rates[0]), ratio(v.samples[connections].rate, rates[2]),
                    f"{sorted(v.p99[connections])[len(v.p99[connections]) // 2]:.0f}",
                    f"{1000 * v.samples[connections].cpu_ms:.1f}", f"{memory[n]:.0f}"] for n, v in enumerate(variants)])
