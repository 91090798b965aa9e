#!/usr/bin/env python3
"""What DNS servers do, rightly or not, and what `postern spf check` makes of it:
replies are built here byte by byte.

    dns_manners.py [--postern PATH]
"""
import argparse
import json
import os
import struct
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
from tests.dns.dnsd import Query, Server, pack_name, pack_strings  # noqa: E402

OK, NXDOMAIN, FORMERR, SERVFAIL, NOTIMP, REFUSED = 0x8180, 0x8183, 0x8181, 0x8182, 0x8184, 0x8185
TRUNCATED = 0x8380
NAME = "example.com"
GOOD = "v=spf1 +all"
EVIL = "v=spf1 -all"


class Odd(Server):
    """Answers with what BUILD(query, transport) makes."""

    def __init__(self, build):
        self.build = build
        super().__init__({})

    def answer(self, data, transport):
        query = Query(data)
        query.edns = data[10:12] != b"\0\0"
        self.queries.append((query.name, query.type, transport))
        return self.build(query, transport)


def record(owner, kind, data, ttl=60, klass=1):
    return pack_name(owner) + struct.pack(">HHIH", kind, klass, ttl, len(data)) + data


def txt(owner, text, **more):
    return record(owner, 16, pack_strings(text), **more)


def cname(owner, target):
    return record(owner, 5, pack_name(target))


def message(query, answers=(), authority=(), additional=(), flags=OK, question=None, count=None):
    head = struct.pack(">HHHHHH", query.id, flags, 1, len(answers) if count is None else count, len(authority),
                       len(additional))
    return head + (query.question if question is None else question) + b"".join([*answers, *authority, *additional])


def question(name, kind=16):
    return pack_name(name) + struct.pack(">HH", kind, 1)


def only_tcp(flags, *answers):
    """By UDP truncated with ANSWERS, by TCP whole."""
    def build(query, transport):
        if transport == "udp":
            return message(query, answers, flags=flags)
        return message(query, [txt(NAME, GOOD)])
    return build


def loop(query, _):
    at = 12 + len(query.question)
    return message(query, [b"\xc0" + bytes([at]) + struct.pack(">HHIH", 16, 1, 60, 1) + b"\0"])


def compressed(query, _):
    return message(query, [b"\xc0\x0c" + struct.pack(">HHIH", 16, 1, 60, 12) + pack_strings(GOOD)])


CASES = (
    ("a plain answer", "pass", lambda q, t: message(q, [txt(NAME, GOOD)])),
    ("a compressed owner name", "pass", compressed),
    ("an owner name in other case", "pass", lambda q, t: message(q, [txt("EXAMPLE.cOm", GOOD)])),
    ("a question in other case", "pass", lambda q, t: message(q, [txt(NAME, GOOD)], question=question("eXAMple.COM"))),
    ("records of another name among the answers", "pass",
     lambda q, t: message(q, [txt("evil.example", EVIL), txt(NAME, GOOD), txt("www.example.com", EVIL)])),
    ("records of another type among the answers", "pass",
     lambda q, t: message(q, [record(NAME, 1, b"\1\2\3\4"), txt(NAME, GOOD), record(NAME, 99, pack_strings(EVIL))])),
    ("records of another class", "none", lambda q, t: message(q, [txt(NAME, EVIL, klass=3)])),
    ("records in the other sections", "pass",
     lambda q, t: message(q, [txt(NAME, GOOD)], [txt(NAME, EVIL)], [txt(NAME, EVIL)])),
    ("answers only in the additional section", "none", lambda q, t: message(q, [], [], [txt(NAME, EVIL)])),
    ("a DNAME with its CNAME", "pass",
     lambda q, t: message(q, [record("com", 39, pack_name("net")), cname(NAME, "example.net"), txt("example.net", GOOD)])),
    ("a chain of CNAMEs in any order", "pass",
     lambda q, t: message(q, [txt("c.example", GOOD), cname("b.example", "c.example"), cname(NAME, "b.example")])),
    ("a CNAME to a name that does not exist", "none", lambda q, t: message(q, [cname(NAME, "b.example")], flags=NXDOMAIN)),
    ("a CNAME to itself", "temperror", lambda q, t: message(q, [cname(NAME, NAME)])),
    ("NXDOMAIN", "none", lambda q, t: message(q, flags=NXDOMAIN)),
    ("NODATA without SOA", "none", lambda q, t: message(q)),
    ("SERVFAIL", "temperror", lambda q, t: message(q, flags=SERVFAIL)),
    ("REFUSED", "temperror", lambda q, t: message(q, flags=REFUSED)),
    ("NOTIMP", "temperror", lambda q, t: message(q, flags=NOTIMP)),
    ("FORMERR only because of EDNS", "pass",
     lambda q, t: message(q, flags=FORMERR) if q.edns else message(q, [txt(NAME, GOOD)])),
    ("truncated, empty", "pass", only_tcp(TRUNCATED)),
    ("truncated, with a part of the answer", "pass", only_tcp(TRUNCATED, txt(NAME, EVIL))),
    ("truncated, and TCP hangs up", "temperror", lambda q, t: message(q, flags=TRUNCATED) if t == "udp" else None),
    ("a reply without the response bit", "temperror", lambda q, t: message(q, [txt(NAME, GOOD)], flags=0x0100)),
    ("fewer records than announced", "temperror", lambda q, t: message(q, [txt(NAME, GOOD)], count=9)),
    ("a string longer than its record", "temperror", lambda q, t: message(q, [record(NAME, 16, b"\x20abc")])),
    ("a TXT record without strings", "pass", lambda q, t: message(q, [record(NAME, 16, b""), txt(NAME, GOOD)])),
    ("a TXT record of one empty string", "pass", lambda q, t: message(q, [record(NAME, 16, b"\0"), txt(NAME, GOOD)])),
    ("a compression loop", "temperror", loop),
    ("a pointer past the end", "temperror",
     lambda q, t: message(q, [b"\xcf\xff" + struct.pack(">HHIH", 16, 1, 60, 0)])),
    ("nothing but a header", "temperror", lambda q, t: struct.pack(">HHHHHH", q.id, OK, 1, 1, 0, 0)),
    ("a TTL of 2^32-1", "pass", lambda q, t: message(q, [txt(NAME, GOOD, ttl=0xffffffff)])),
    ("a NUL in the record", "permerror", lambda q, t: message(q, [record(NAME, 16, b"\x0cv=spf1 \0+all")])),
    ("60 KB of TXT records", "pass", lambda q, t: message(q, flags=TRUNCATED) if t == "udp" else message(
        q, [txt(NAME, "x" * 250) for _ in range(230)] + [txt(NAME, GOOD)])),
    # The next two wait for the end of patience, as they must.
    ("a reply with another id", "temperror", lambda q, t: b"\xff\xff" + message(q, [txt(NAME, GOOD)])[2:]),
    ("a reply to another question", "temperror",
     lambda q, t: message(q, [txt(NAME, GOOD)], question=question("example.org"))),
)


def problem_of(postern, wanted, build):
    with Odd(build) as server:
        done = subprocess.run([postern, "spf", "check", "--ip", "192.0.2.1", "--helo", "h.example", "--mail-from",
                               "joe@" + NAME, "--resolver", server.address], capture_output=True, timeout=60, check=False)
    if done.returncode != 0:
        return "exit %d: %s" % (done.returncode, done.stderr.decode())
    got = json.loads(done.stdout)["result"]
    return None if got == wanted else "%s instead of %s" % (got, wanted)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--postern", default=os.path.join(ROOT, "build", "bin", "postern"))
    options = parser.parse_args()
    passed = failed = 0
    for name, wanted, build in CASES:
        problem = problem_of(options.postern, wanted, build)
        passed += problem is None
        failed += problem is not None
        if problem is not None:
            print("FAIL %s: %s" % (name, problem))
    print("dns_manners: %d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
