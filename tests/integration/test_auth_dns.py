"""The tools that judge mail, against a DNS server of the tests: the resolver's
manners and the public SPF suite."""
import json
import os
import socket
import subprocess
import time
import unittest

from tests.conformance import spf_rfc7208
from tests.dns.dnsd import Server

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
POSTERN = os.path.join(os.environ.get("POSTERN_BUILD", os.path.join(REPO, "build")), "bin", "postern")


def spf(resolver, mail_from="joe@example.com", ip="192.0.2.1"):
    done = subprocess.run([POSTERN, "spf", "check", "--ip", ip, "--helo", "h.example.com",
                           "--mail-from", mail_from, "--resolver", resolver],
                          capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else None


class Resolver(unittest.TestCase):
    def result(self, zone, **kwargs):
        with Server(zone) as server:
            code, verdict = spf(server.address, **kwargs)
            self.assertEqual(code, 0)
            return verdict["result"], server.queries

    def test_truncated_reply_is_asked_again_by_tcp(self):
        result, queries = self.result({"example.com": [["TXT", "v=spf1 +all"], ["TRUNCATE"]]})
        self.assertEqual(result, "pass")
        self.assertEqual([q[2] for q in queries], ["udp", "tcp"])

    def test_64_kb_of_txt(self):
        rows = [["TXT", "x" * 1000] for _ in range(60)] + [["TXT", "v=spf1 +all"]]
        result, queries = self.result({"example.com": rows})
        self.assertEqual(result, "pass")
        self.assertIn("tcp", [q[2] for q in queries])

    def test_too_many_records_fail(self):
        rows = [["TXT", str(i)] for i in range(256)] + [["TXT", "v=spf1 +all"]]
        self.assertEqual(self.result({"example.com": rows})[0], "temperror")
        self.assertEqual(self.result({"example.com": rows[1:]})[0], "pass")

    def test_alias_is_followed_by_another_question(self):
        zone = {"example.com": [["LAZY-CNAME", "a.example.net"]], "a.example.net": [["LAZY-CNAME", "b.example.org"]],
                "b.example.org": [["TXT", "v=spf1 +all"]]}
        result, queries = self.result(zone)
        self.assertEqual(result, "pass")
        self.assertEqual([q[0] for q in queries], ["example.com", "a.example.net", "b.example.org"])

    def test_as_many_aliases_as_are_followed(self):
        for count, wanted in ((8, "pass"), (9, "temperror")):
            zone = {"example.com": [["LAZY-CNAME", "n1.example.net"]], f"n{count}.example.net": [["TXT", "v=spf1 +all"]]}
            zone |= {f"n{i}.example.net": [["LAZY-CNAME", f"n{i + 1}.example.net"]] for i in range(1, count)}
            self.assertEqual(self.result(zone)[0], wanted, count)

    def test_alias_loop_is_an_error(self):
        zone = {"example.com": [["LAZY-CNAME", "a.example.net"]], "a.example.net": [["LAZY-CNAME", "example.com"]]}
        self.assertEqual(self.result(zone)[0], "temperror")

    def test_alias_to_nothing(self):
        self.assertEqual(self.result({"example.com": [["CNAME", "gone.example.net"]]})[0], "none")

    def test_servfail_and_garbage(self):
        self.assertEqual(self.result({"example.com": [["SERVFAIL"]]})[0], "temperror")
        self.assertEqual(self.result({"example.com": [["GARBAGE"]]})[0], "temperror")

    def test_equal_questions_go_out_once(self):
        zone = {"example.com": [["TXT", "v=spf1 a:x.example.com a:x.example.com a:X.example.com -all"]],
                "x.example.com": [["A", "192.0.2.9"]]}
        result, queries = self.result(zone)
        self.assertEqual(result, "fail")
        self.assertEqual(len(queries), 2)

    def test_silent_server_costs_one_timeout(self):
        began = time.monotonic()
        names = " ".join("include:%d.example.com" % i for i in range(9))
        zone = {"example.com": [["TXT", "v=spf1 %s -all" % names]], "com": [["TIMEOUT"]]}
        zone.update({"%d.example.com" % i: [["TIMEOUT"]] for i in range(9)})
        self.assertEqual(self.result(zone)[0], "temperror")
        self.assertLess(time.monotonic() - began, 8)

    def test_nobody_there(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
            closed.bind(("127.0.0.1", 0))
            address = "127.0.0.1:%d" % closed.getsockname()[1]
        began = time.monotonic()
        code, verdict = spf(address)
        self.assertEqual((code, verdict["result"]), (75, "temperror"))
        self.assertLess(time.monotonic() - began, 8)

    def test_bad_resolver(self):
        self.assertEqual(spf("127.0.0.1:99999")[0], 64)


class SpfSuite(unittest.TestCase):
    """RFC 7208's public test suite, one method a test."""

    results: dict

    @classmethod
    def setUpClass(cls):
        cls.results = {(where, name): problem for where, name, problem in spf_rfc7208.run_suite(POSTERN)}

    def test_suite_is_complete(self):
        self.assertEqual(len(self.results), spf_rfc7208.TESTS_EXPECTED)

    def test_all(self):
        for (where, name), problem in self.results.items():
            with self.subTest(scenario=where, test=name):
                self.assertIsNone(problem)
