#!/usr/bin/python3
"""`postern arc seal` case by case: what RFC 8617 section 5.1 has a sealer do, seen
in the bytes it prints and judged by `postern auth check` and by dkimpy.

    arc_sealing.py [--postern PATH]

It needs python3-dkim of the system's own Python, hence the first line.
"""
import argparse
import os
import re
import sys
import tempfile

import dkim

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
from tests.conformance.arc_maker import NAMES, split  # noqa: E402
from tests.conformance.arc_rfc8617 import MESSAGE, Runner, chain, edit, remove, value  # noqa: E402

ID = "mx.list.example"
RESULTS = "Authentication-Results: "
SEAL_TAGS = ["i", "a", "t", "cv", "d", "s", "b"]
SIGNATURE_TAGS = ["i", "a", "c", "d", "s", "t", "h", "bh", "b"]


class Problem(Exception):
    pass


def expect(got, wanted, what):
    if got != wanted:
        raise Problem("%s is %r instead of %r" % (what, got, wanted))


def squeezed(text):
    return "".join(text.split())


def tags(text):
    return [tuple(part.split("=", 1)) for part in squeezed(text).split(";") if part]


class Sealer(Runner):
    def seal(self, message, *more, selector="s", key=1024, domain="list.example"):
        return self.run("arc", "seal", "--domain", domain, "--selector", selector, "--key", self.world.keys[key].path,
                        "--authserv-id", ID, *more, message=message)

    def sealed(self, message, *more, **options):
        """The three new fields as texts, after all that holds for each set was checked."""
        done = self.seal(message, *more, **options)
        expect((done.returncode, done.stderr), (0, b""), "the end")
        out = done.stdout.decode()
        if not out.endswith(message):
            raise Problem("the message was changed")
        lf = "\r\n" not in message and "\n" in message
        new = out[:len(out) - len(message)]
        expect("\r\n" in new, not lf, "a line end")
        expect(re.search(r"(?<!\r)\n", new) is not None, lf, "an LF alone")
        fields = split(new.replace("\r\n", "\n").replace("\n", "\r\n"))[0]
        expect([name for name, _ in fields], list(reversed(NAMES)), "the new fields")
        for line in new.splitlines():
            if len(line) > 80 and " " in line.strip():
                raise Problem("a long line: %r" % line)
        seal, signature, results = (text for _, text in fields)
        expect([name for name, _ in tags(seal)], SEAL_TAGS, "the tags of the seal")
        expect([name for name, _ in tags(signature)], SIGNATURE_TAGS, "the tags of the signature")
        expect(dict(tags(signature))["c"], "relaxed/relaxed", "c=")
        return seal, signature, results, out

    def verdict(self, out, wanted="pass"):
        expect(self.validate(out)["result"], wanted, "auth check")

    def peer(self, out, wanted=b"pass"):
        """What dkimpy says, which knows only RSA."""
        def lookup(name, timeout=5):
            rows = self.world.zone.get(name.decode().rstrip("."), [["TXT", ""]])
            return "".join(rows[0][1]).encode()
        lines = out.replace("\r\n", "\n").replace("\n", "\r\n").encode()
        expect(dkim.arc_verify(lines, dnsfunc=lookup)[0], wanted, "dkimpy's verdict")


def results_of(message_results, wanted):
    def case(s):
        _, _, results, out = s.sealed(message_results + MESSAGE)
        expect(squeezed(results), squeezed("i=1; " + wanted), "the results")
        s.verdict(out)
        s.peer(out)
    return case


def a_first_set(s):
    seal, signature, _, out = s.sealed(MESSAGE, "--now", "1700000000")
    expect(tags(seal)[:-1], [("i", "1"), ("a", "rsa-sha256"), ("t", "1700000000"), ("cv", "none"),
                             ("d", "list.example"), ("s", "s")], "the seal")
    expect(tags(signature)[:6], [("i", "1"), ("a", "rsa-sha256"), ("c", "relaxed/relaxed"), ("d", "list.example"),
                                 ("s", "s"), ("t", "1700000000")], "the signature")
    s.verdict(out)
    s.peer(out)


def chosen_names(s):
    for names in ("from:to:date:subject", "From:Subject:From:X-None", "mime-version:date:from:arc-authentication-results"):
        _, signature, _, out = s.sealed(MESSAGE, "--headers", names)
        expect(dict(tags(signature))["h"], names, "h=")
        s.verdict(out)
        s.peer(out)


def default_names(s):
    _, signature, _, out = s.sealed("DKIM-Signature: v=1; a=x\r\nReceived: by x\r\n" + MESSAGE)
    names = dict(tags(signature))["h"].lower().split(":")
    for wanted in ("from", "subject", "dkim-signature"):
        expect(wanted in names, True, wanted + " in h=")
    for unwanted in ("received", "authentication-results", "arc-seal", "arc-message-signature"):
        expect(unwanted in names, False, unwanted + " in h=")
    s.verdict(out)


def refused_names(s):
    for names in ("From:ARC-Seal", "from:arc-seal", "To:Subject", "From;To", "From:To\nX"):
        done = s.seal(MESSAGE, "--headers", names)
        expect((done.returncode, done.stdout), (64, b""), "the end for h=%s" % names)


def keys(s):
    for selector, key, domain in (("two", 2048, "list.example"), ("alias", 3072, "list.example"),
                                  ("ed", "ed", "other.example")):
        seal, _, _, out = s.sealed(MESSAGE, selector=selector, key=key, domain=domain)
        expect(dict(tags(seal))["a"], "ed25519-sha256" if key == "ed" else "rsa-sha256", "a=")
        s.verdict(out)


def forms(s):
    for message in (MESSAGE.replace("\r\n", "\n"), MESSAGE.partition("\r\n\r\n")[0] + "\r\n", MESSAGE[:-2],
                    MESSAGE.partition("\r\n\r\n")[0] + "\r\n\r\n", MESSAGE + "\r\n\r\n", MESSAGE + ".\r\nFrom x\r\n"):
        s.verdict(s.sealed(message)[3])


def long_chain(s):
    message = MESSAGE
    for number in range(1, 7):
        border = RESULTS + ID + "; arc=%s; spf=pass\r\n" % ("pass" if number > 1 else "none")
        seal, _, results, message = s.sealed(border + message)
        expect(dict(tags(seal))["i"], str(number), "i=")
        expect(dict(tags(seal))["cv"], "none" if number == 1 else "pass", "cv=")
        # The borders before are fields of ours, too: all of them are told.
        expect(squeezed(results).startswith("i=%d;%s;arc=" % (number, ID)), True, "the results")
        s.verdict(message)
        s.peer(message)


def state(message, border, wanted, peer=None):
    """cv= of the set that goes on MESSAGE with the results BORDER."""
    def case(s):
        text = message(s) if callable(message) else message
        if border is not None:
            text = RESULTS + ID + "; " + border + "\r\n" + text
        seal, _, _, out = s.sealed(text)
        expect(dict(tags(seal))["cv"], wanted, "cv=")
        if peer is not None:
            s.peer(out, peer)
    return case


def two(s):
    return chain(s.world, 2)


def with_footer(s):
    return chain(s.world, 2) + "a footer of the list\r\n"


def footer_then_pass(s):
    """A list that changed the message: the chain holds for whoever comes next."""
    _, _, _, out = s.sealed(RESULTS + ID + "; arc=pass\r\n" + with_footer(s))
    s.verdict(out)


def without_a_seal(s):
    return edit(chain(s.world, 2), NAMES[2], 1, remove)


def broken_seal(s):
    return edit(chain(s.world, 2), NAMES[2], 1, value(r"t=\d+", "t=1"))


def left_alone(message):
    def case(s):
        text = message(s)
        done = s.seal(RESULTS + ID + "; arc=pass\r\n" + text)
        expect((done.returncode, done.stdout.decode()), (0, RESULTS + ID + "; arc=pass\r\n" + text), "the end")
        expect(b"nothing was added" in done.stderr, True, "the note")
    return case


def fifty(s):
    message = MESSAGE
    for _ in range(50):
        message = s.world.ed.add(message)
    return message


def fail_is_sealed_alone(s):
    """Section 5.1.2: such a seal covers its own set only, and ends the chain."""
    _, _, _, out = s.sealed(with_footer(s))
    s.verdict(out, "fail")
    left_alone(lambda _: out)(s)


def usage(s):
    world = s.world.keys[1024].path
    whole = ["--domain", "list.example", "--selector", "s", "--key", world, "--authserv-id", ID]
    for i in range(0, len(whole), 2):
        done = s.run("arc", "seal", *whole[:i], *whole[i + 2:], message=MESSAGE)
        expect((done.returncode, done.stdout), (64, b""), "the end without " + whole[i])
        expect(whole[i] in done.stderr.decode(), True, "the option in the text")
    expect(s.run("arc", "seal", *whole, message="no field\r\n").returncode, 65, "the end of no message")
    for wrong in ("a;b", "a b", ""):
        expect(s.seal(MESSAGE, selector=wrong).returncode, 64, "the end with selector %r" % wrong)


CASES = (
    ("5.1 the first set", a_first_set), ("5.1 names that were asked for", chosen_names),
    ("4.1.2 names by default", default_names), ("4.1.2 names that are refused", refused_names),
    ("3.3 kinds of keys", keys), ("message forms", forms), ("5.1-3 six sets", long_chain), ("usage", usage),
    ("4.1.1 no results", results_of("", ID + "; none")),
    ("4.1.1 results none", results_of(RESULTS + ID + "; none\r\n", ID + "; none")),
    ("4.1.1 one field", results_of(RESULTS + ID + "; spf=pass smtp.mailfrom=a@b.example; dkim=none\r\n",
                                   ID + "; spf=pass smtp.mailfrom=a@b.example; dkim=none")),
    ("4.1.1 comments and folding", results_of(RESULTS + ID + " 1;\r\n\tspf=pass (a; b)\r\n reason=\"x; y\";\r\n dkim=pass\r\n",
                                              ID + "; spf=pass (a; b) reason=\"x; y\"; dkim=pass")),
    ("4.1.1 several fields", results_of(
        RESULTS + ID + "; arc=none\r\n" + RESULTS + "MX.list.EXAMPLE; spf=fail\r\n" + RESULTS + "other.example; dkim=pass\r\n" +
        RESULTS + ID + "; none\r\n" + RESULTS + ID + "; dmarc=pass header.from=a.example;\r\n",
        ID + "; arc=none; spf=fail; dmarc=pass header.from=a.example")),
    ("4.1.1 the same twice", results_of(
        RESULTS + ID + "; spf=pass (a)\r\n" + RESULTS + ID + "; dkim=pass\r\n" + RESULTS + ID + ";\r\n\tspf=pass  (a)\r\n",
        ID + "; spf=pass (a); dkim=pass")),
    ("4.1.1 nearly the same", results_of(
        RESULTS + ID + "; spf=pass\r\n" + RESULTS + ID + "; spf=pass (a)\r\n" + RESULTS + ID + "; f=pass\r\n",
        ID + "; spf=pass; spf=pass (a); f=pass")),
    ("4.1.1 of others only", results_of(RESULTS + "x" + ID + "; spf=pass\r\n" + RESULTS + ID + ".evil.example; dkim=pass\r\n",
                                        ID + "; none")),
    ("4.4 no chain, whatever the border says", state(MESSAGE, "arc=pass", "none")),
    ("4.4 chain that holds, nothing said", state(two, None, "pass")),
    ("4.4 chain that holds, results without arc", state(two, "spf=pass", "pass")),
    ("4.4 chain that holds, stale arc=none", state(two, "arc=none", "pass")),
    ("4.4 chain that holds, border says fail", state(two, "spf=pass; arc=fail", "fail")),
    ("4.4 changed message, nothing said", state(with_footer, None, "fail")),
    ("4.4 changed message, border says pass", state(with_footer, "arc=pass", "pass")),
    ("4.4 arc=pass in a comment does not count", state(with_footer, "spf=pass (; arc=pass)", "fail")),
    ("4.4 the list's footer, seen from the next", footer_then_pass),
    ("5.2-3.1 incomplete set, border says pass", state(without_a_seal, "arc=pass", "fail")),
    ("5.2-6 broken seal, nothing said", state(broken_seal, None, "fail")),
    ("5.1-2 newest seal says fail", left_alone(lambda s: chain(s.world, 2, cv="fail"))),
    ("5.2-1 fifty sets", left_alone(fifty)),
    ("5.1.2 a broken chain", fail_is_sealed_alone),
)


def run_suite(postern):
    """Yields (group, case, problem or None)."""
    with tempfile.TemporaryDirectory() as folder:
        sealer = Sealer(postern, folder)
        for name, case in CASES:
            problem = None
            try:
                case(sealer)
            except Problem as error:
                problem = str(error)
            yield "sealing", name, problem
        sealer.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--postern", default=os.path.join(ROOT, "build", "bin", "postern"))
    options = parser.parse_args()
    passed = failed = 0
    for _, name, problem in run_suite(options.postern):
        passed += problem is None
        failed += problem is not None
        if problem is not None:
            print("FAIL %s: %s" % (name, problem))
    print("arc_sealing: %d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
