#!/usr/bin/env python3
"""Measures Postern side by side with what it stands beside, in one run.

usage: bench.py [SECTION...]      milters, lmtp, search, quota, policy; default all

Ratios are what counts: everything in one table ran in turn on the same machine.
BENCH_ROUNDS (3) and BENCH_SCALE (1) make it longer or shorter.  Prints Markdown.
"""
import os
import pathlib
import platform
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
os.environ.setdefault("STACK_DIR", "/srv/postern-bench")
os.environ.setdefault("STACK_PORT_BASE", "41000")

from tests.bench.indexer import Indexer  # noqa: E402
from tests.bench.milters import Milters  # noqa: E402
from tests.bench.policy import Policy  # noqa: E402
from tests.bench.quota import Quota  # noqa: E402
from tests.bench.search import Search  # noqa: E402
from tests.frame import assemble  # noqa: E402
from tests.frame.stack import Stack  # noqa: E402

SECTIONS = {"milters": Milters, "lmtp": Indexer, "search": Search, "quota": Quota, "policy": Policy}


def main(names):
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        print(f"bench: no section {unknown[0]}: one of {' '.join(SECTIONS)}", file=sys.stderr)
        return 64
    stack = Stack()
    stack.sql_settings = assemble.DEPLOY / "mariadb/60-postern.cnf"
    print(f"# Benchmark\n\n{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}", flush=True)
    stack.destroy()
    stack.init()
    stack.start()
    try:
        for name in names or SECTIONS:
            SECTIONS[name](stack, stack.at.path("/bench")).measure()
    finally:
        stack.destroy()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
