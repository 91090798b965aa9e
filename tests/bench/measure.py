"""What the sections of the benchmark share: processes, CPU time, medians, rows."""
import os
import pathlib
import re
import signal
import statistics
import subprocess
import time

from tests.frame.wait import wait_until

TICKS = os.sysconf("SC_CLK_TCK")
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SCALE = float(os.environ.get("BENCH_SCALE", "1"))


def scaled(count):
    """COUNT, made smaller or larger by BENCH_SCALE."""
    return max(50, int(count * SCALE))


def children(pid):
    """PID and all processes below it."""
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        for task in pathlib.Path(f"/proc/{one}/task").glob("*/children"):
            try:
                todo += [int(n) for n in task.read_text().split()]
            except OSError:
                continue
    return found


def cpu_seconds(pid):
    """User and system time of PID, its threads and its children so far."""
    total = 0.0
    for one in children(pid):
        try:
            # The clock of a process (see clock_getcpuclockid): to the nanosecond, not to the tick.
            total += time.clock_gettime((~one << 3) | 2)
            fields = pathlib.Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if one == pid:
            total += (int(fields[13]) + int(fields[14])) / TICKS
    return total


def memory_mb(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def resident_mb(pid):
    """What PID and the processes below it have in memory now; shared pages count in each."""
    total = 0
    for one in children(pid):
        try:
            total += int(pathlib.Path(f"/proc/{one}/statm").read_text().split()[1])
        except OSError:
            continue
    return total * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


class Server:
    """A program of the benchmark's own, ended with it."""

    def __init__(self, argv, ready, log, env=None):
        with open(log, "ab") as out:
            self.process = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                            env=os.environ | (env or {}))
        try:
            wait_until(lambda: self.process.poll() is not None or ready(), 20, f"{argv[0]} ready")
            if self.process.poll() is not None:
                raise RuntimeError(f"{argv[0]} ended with {self.process.returncode}: {pathlib.Path(log).read_text()[-2000:]}")
        except BaseException:
            self.stop()
            raise
        self.pid = self.process.pid

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class BackgroundServer:
    """A program that can only run in the background and writes its pid to a file."""

    def __init__(self, argv, pid_file):
        subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, check=True, timeout=20)
        self.pid = int(wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), 20, f"{argv[0]} ready"))

    def stop(self):
        os.kill(self.pid, signal.SIGTERM)
        wait_until(lambda: not pathlib.Path(f"/proc/{self.pid}").exists(), 20, f"end of {self.pid}")


class Sample:
    """The figures of one variant over all rounds."""

    def __init__(self):
        self.rates, self.cpus = [], []

    def add(self, count, seconds, cpu=None):
        self.rates.append(count / seconds)
        if cpu is not None:
            self.cpus.append(1000 * cpu / count)

    @property
    def rate(self):
        return statistics.median(self.rates)

    @property
    def cpu_ms(self):
        return statistics.median(self.cpus) if self.cpus else None

    def spread(self):
        return f"{min(self.rates):.0f}-{max(self.rates):.0f}"


class Duel:
    """Two ways of doing one thing, in short turns: A B B A, then B A A B, and so on.

    What the machine does meanwhile hits both alike, and a ratio is made of four turns that
    stood side by side; the median of those ratios is steadier than the ratio of two rates.
    """

    def __init__(self, base, other):
        self.base, self.other, self.ratios = base, other, []

    def block(self, turn):
        """TURN(way) does its work once and returns the seconds that it took."""
        first, second = (self.base, self.other) if len(self.ratios) % 2 == 0 else (self.other, self.base)
        seconds = {self.base: 0.0, self.other: 0.0}
        for way in (first, second, second, first):
            seconds[way] += turn(way)
        self.ratios.append(seconds[self.base] / seconds[self.other])

    @property
    def ratio(self):
        return statistics.median(self.ratios)

    def spread(self):
        """The middle half of the ratios."""
        low, _, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return f"{low:.2f}-{high:.2f}"


def buckets(sample, family):
    """{upper bound: how many are not above it} of a histogram in SAMPLE, which scrape() gave."""
    found = re.compile(re.escape(family) + r'_bucket\{le="([^"]+)"\}').fullmatch
    return {float(match[1]): value for name, value in sample.items() if (match := found(name))}


def percentile(before, after, share):
    """The value below which SHARE of what came between two looks at a histogram lies;
    within a bucket values are taken to lie evenly."""
    total, low, seen = max(after.values()) - max(before.values()), 0.0, 0.0
    for bound in sorted(after):
        upto = after[bound] - before[bound]
        if upto >= share * total and upto > seen:
            return bound if bound == float("inf") else low + (bound - low) * (share * total - seen) / (upto - seen)
        low, seen = bound, upto
    return 0.0


def timed(work):
    start = time.monotonic()
    work()
    return time.monotonic() - start


def table(title, heads, rows):
    """Prints a table in Markdown, so that it can be kept as it is."""
    cells = [heads, *[["" if c is None else str(c) for c in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    print(f"\n### {title}\n")
    for index, row in enumerate(cells):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")
        if index == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print(flush=True)


def ratio(sample, base):
    return f"{sample / base:.2f}"
