#!/usr/bin/env python3
"""Runs the public RFC 7208 test suite (Debian's python3-spf ships it) through
`postern spf check`, against a DNS server of ours that serves each scenario.

    spf_rfc7208.py [--postern PATH] [--suite FILE]
"""
import argparse
import concurrent.futures
import gzip
import json
import os
import subprocess
import sys

import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
from tests.dns import dnsd  # noqa: E402

SUITE = "/usr/share/doc/python3-spf/rfc7208-tests.yml.gz"
TESTS_EXPECTED = 203


def zone_rows(rows):
    """The suite's rows as those of dnsd; SPF rows stand for TXT where no TXT
    row is there, and "TXT: NONE" only suppresses that."""
    out = []
    has_txt = any(isinstance(row, dict) and "TXT" in row for row in rows)
    for row in rows:
        if not isinstance(row, dict):
            out.append([row])
            continue
        (kind, value), = row.items()
        if kind == "SPF":
            if has_txt:
                continue
            kind = "TXT"
        if kind == "TXT" and value == "NONE":
            continue
        if kind == "MX":
            out.append([kind, value[0], value[1]])
        elif value == "TIMEOUT":
            out.append([value])
        else:
            out.append([kind, value])
    return out


def zone(data):
    merged = {}
    for name, rows in data.items():
        merged.setdefault(dnsd.normal(name), []).extend(zone_rows(rows))
    return merged


def check(postern, server, test):
    command = [postern, "spf", "check", "--ip", test["host"], "--helo", test["helo"],
               "--mail-from", test["mailfrom"], "--resolver", server.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        return "exit %d: %s" % (done.returncode, done.stderr.strip())
    got = json.loads(done.stdout)
    wanted = test["result"] if isinstance(test["result"], list) else [test["result"]]
    if got["result"] not in wanted:
        return "%s instead of %s (%s)" % (got["result"], "/".join(wanted), got["problem"])
    explanation = test.get("explanation")
    if explanation == "DEFAULT":
        explanation = None
    if "explanation" in test and got["explanation"] != explanation:
        return "explanation %r instead of %r" % (got["explanation"], explanation)
    if got["result"] != "fail" and got["explanation"] is not None:
        return "explanation without a fail"
    return None


def run_suite(postern, path=SUITE):
    """Yields (scenario, test name, problem or None) for each test."""
    with gzip.open(path) as stream:
        scenarios = list(yaml.safe_load_all(stream))
    jobs = []
    # The replies that never come are waited for side by side.
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for scenario in scenarios:
            server = dnsd.Server(zone(scenario["zonedata"]))
            for name, test in scenario["tests"].items():
                jobs.append((scenario["description"], name, pool.submit(check, postern, server, test)))
        for where, name, job in jobs:
            yield where, name, job.result()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--postern", default=os.path.join(ROOT, "build", "bin", "postern"))
    parser.add_argument("--suite", default=SUITE)
    options = parser.parse_args()
    passed, failed = 0, 0
    for where, name, problem in run_suite(options.postern, options.suite):
        if problem is None:
            passed += 1
        else:
            failed += 1
            print("FAIL %s: %s: %s" % (where, name, problem))
    if passed + failed != TESTS_EXPECTED:
        print("FAIL the suite has %d tests, not %d" % (passed + failed, TESTS_EXPECTED))
        failed += 1
    print("spf_rfc7208: %d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
