#!/usr/bin/python3
"""RFC 8617 case by case through `postern auth check` and `postern arc seal`: each
step of the validator (section 5.2) and of the sealer (section 5.1) by name.

    arc_rfc8617.py [--postern PATH]

The public suite of ARC was written for a draft.  Of its 189 messages five are wanted
otherwise than the RFC has it, and here as the RFC has it: rsa-sha1 in either signature
and a key of 512 bits never pass (RFC 8301, twice and once), a seal without t= does
(section 4.1.3 takes t= from RFC 6376, where it is only recommended), and a set that is
there twice does not (section 5.2 step 3).
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
from tests.conformance.arc_maker import NAMES, Key, Maker, join, split  # noqa: E402
from tests.dns.dnsd import Server  # noqa: E402

MESSAGE = ("From: Joe Writer <joe@author.example>\r\nTo: members@list.example\r\nSubject: minutes\r\n"
           "Date: Mon, 02 Nov 2026 10:00:00 +0000\r\n\r\nHello,\r\n\r\nthe minutes \tare below.  \r\n-- \r\nJoe\r\n")


class World:
    """Keys, makers and the DNS of all cases."""

    def __init__(self, folder):
        self.keys = {bits: Key(folder, bits=bits) for bits in (768, 1024, 2048, 3072)}
        self.keys["ed"] = Key(folder, kind="ed25519")
        first, ed = self.keys[1024], self.keys["ed"]
        long_record = self.keys[2048].record()
        self.zone = {
            "s._domainkey.list.example": [["TXT", first.record()]],
            "ed._domainkey.other.example": [["TXT", ed.record()]],
            "two._domainkey.list.example": [["TXT", [long_record[:100], long_record[100:]]]],
            "alias._domainkey.list.example": [["CNAME", "keys.host.example"]],
            "keys.host.example": [["TXT", self.keys[3072].record()]],
            "short._domainkey.list.example": [["TXT", self.keys[768].record()]],
            "test._domainkey.list.example": [["TXT", first.record(" t=y;")]],
            "strict._domainkey.list.example": [["TXT", first.record(" t=s;")]],
            "xn--sl-bja._domainkey.xn--bcher-kva.example": [["TXT", first.record()]],
            "revoked._domainkey.list.example": [["TXT", "v=DKIM1; p="]],
            "wrong._domainkey.list.example": [["TXT", self.keys[2048].record()]],
            "kind._domainkey.list.example": [["TXT", ed.record()]],
            "blanks._domainkey.list.example": [["TXT", re.sub(r"p=(.)(.{70})", r"p= \1 \2 ", first.record())]],
            "web._domainkey.list.example": [["TXT", first.record(" s=web;")]],
            "sha1._domainkey.list.example": [["TXT", first.record(" h=sha1;")]],
            "garbage._domainkey.list.example": [["TXT", "no key at all"]],
            "down._domainkey.list.example": [["SERVFAIL"]],
        }
        self.maker = Maker(first)
        self.ed = Maker(ed, "other.example", "ed")

    def by(self, selector, key=1024):
        return Maker(self.keys[key], "list.example", selector)


def chain(world, count, **options):
    """COUNT sets by turns of both makers; OPTIONS go to the last one."""
    message = MESSAGE
    for i in range(count):
        maker = world.maker if i % 2 == 0 else world.ed
        message = maker.add(message, **(options if i == count - 1 else {}))
    return message


def edit(message, name, number, change):
    """CHANGE(fields, index) on the ARC field NAME of instance NUMBER."""
    fields, body = split(message)
    for at, (field, value) in enumerate(fields):
        if field == name and re.search(r"(?:^|;)\s*i=%d(?:;|\s|$)" % number, value):
            change(fields, at)
            return join(fields, body)
    raise AssertionError("no %s i=%d" % (name, number))


def remove(fields, at):
    del fields[at]


def double(fields, at):
    fields.insert(at, list(fields[at]))


def rename(fields, at):
    fields[at][0] = "X-" + fields[at][0]


def value(old, new):
    def change(fields, at):
        assert re.search(old, fields[at][1]), fields[at]
        fields[at][1] = re.sub(old, new, fields[at][1], count=1)
    return change


def upper_name(fields, at):
    fields[at][0] = fields[at][0].upper()


def to_bottom(fields, at):
    fields.append(fields.pop(at))


def whole_chains(w):
    yield "5.2-1 no set", "none", MESSAGE
    for count in (1, 2, 3, 5):
        yield "5.2-7 %d sets" % count, "pass", chain(w, count)
    message = MESSAGE
    for _ in range(50):
        message = w.ed.add(message)
    yield "5.2-1 fifty sets", "pass", message
    yield "5.2-1 fifty-one sets", "fail", w.ed.add(message)
    yield "5.2-1 empty message", "none", ""
    yield "5.2-1 body alone", "none", "\r\nbody\r\n"
    yield "5.2-4 changed between two sets", "pass", w.ed.add(chain(w, 1).replace("minutes\r\nDate", "[list] m\r\nDate"))
    yield "5.2-4 body changed between two sets", "pass", w.ed.add(chain(w, 1) + "footer\r\n")
    yield "5.2-4 body changed after the last", "fail", chain(w, 2) + "footer\r\n"
    yield "5.2-4 empty lines added at the end", "pass", chain(w, 2) + "\r\n\r\n"
    yield "5.2-4 signed field changed after the last", "fail", chain(w, 2).replace(": minutes", ": hours")
    yield "5.2-4 unsigned field added", "pass", "X-New: 1\r\n" + chain(w, 2)
    yield "5.2-4 second Subject below the signed one", "fail", chain(w, 1).replace("Date:", "Subject: x\r\nDate:")
    yield "4.1.1 other results added", "pass", "Authentication-Results: mx.next.example; spf=fail\r\n" + chain(w, 2)
    yield "4.1.2 no body", "pass", w.maker.add(MESSAGE.partition("\r\n\r\n")[0] + "\r\n\r\n")


def sets(w):
    for number in (1, 2):
        for name in NAMES:
            short = "%s of i=%d" % (name, number)
            yield "5.2-3.1 without " + short, "fail", edit(chain(w, 2), name, number, remove)
            yield "5.2-3.1 renamed " + short, "fail", edit(chain(w, 2), name, number, rename)
            yield "5.2-3.1 twice " + short, "fail", edit(chain(w, 2), name, number, double)
            yield "4 upper case name of " + short, "pass", edit(chain(w, 2), name, number, upper_name)
            yield "4 at another place " + short, "pass", edit(chain(w, 2), name, number, to_bottom)
            for wrong in ("0", "51", "", "x", "-1", "1.0", "001", "99999999999999999999", "2147483648"):
                yield "4.2.1 i=%s in %s" % (wrong, short), "fail", edit(
                    chain(w, 2), name, number, value(r"i=\d+", "i=" + wrong))
            yield "4.2.1 no i= in " + short, "fail", edit(chain(w, 2), name, number, value(r"i=\d+; ", ""))
            yield "4.2.1 the other's number in " + short, "fail", edit(
                chain(w, 2), name, number, value(r"i=\d+", "i=%d" % (3 - number)))
    for name in NAMES:
        yield "5.2-3.1 a lone %s" % name, "fail", name + ": i=1; x=y\r\n" + MESSAGE
        yield "OpenDMARC 183 %s: x" % name, "fail", name + ": x\r\n" + MESSAGE
        yield "OpenDMARC 183 empty %s" % name, "fail", name + ":\r\n" + MESSAGE
    yield "5.2-3.2 begins with i=2", "fail", w.maker.add(MESSAGE, number=2, cv="none")
    yield "5.2-3.2 begins with i=2, cv=pass", "fail", w.maker.add(MESSAGE, number=2, cv="pass")
    yield "5.2-3.2 a gap", "fail", w.ed.add(chain(w, 1), number=3)
    yield "5.2-3.1 two whole sets i=1", "fail", w.ed.add(chain(w, 1), number=1)
    yield "4.2.1 i=01", "pass", w.maker.add(MESSAGE, ams={"i": "01"}, seal={"i": "01"}, aar=" i=01; mx; none")


def seals(w):
    for first, wanted in (("pass", "fail"), ("fail", "fail"), ("", "fail"), ("good", "fail"), (None, "fail"),
                          ("NONE", "pass"), ("none", "pass")):
        yield "5.2-3.3 cv=%s in i=1" % first, wanted, chain(w, 1, seal={"cv": first})
    for second, wanted in (("none", "fail"), ("fail", "fail"), ("temperror", "fail"), (None, "fail"), ("PASS", "pass")):
        yield "5.2-3.3 cv=%s in i=2" % second, wanted, chain(w, 2, seal={"cv": second})
    yield "5.2-2 newest says fail, rightly sealed", "fail", chain(w, 2, cv="fail")
    yield "5.2-3.3 pass on top of fail", "fail", w.maker.add(chain(w, 2, cv="fail"), cv="pass")
    yield "4.1.3 h= in a seal", "fail", chain(w, 1, seal_more=["h=From"])
    yield "4.1.3 unknown tag in a seal", "pass", chain(w, 1, seal_more=["zz=1"])
    yield "4.1.3 bh= in a seal", "pass", chain(w, 1, seal_more=["bh=x"])
    yield "4.1.3 seal without t=", "pass", chain(w, 2, seal={"t": None})
    yield "5.1.1 signature before results", "fail", chain(w, 2, order=(1, 0))
    yield "5.1.1 results not sealed", "fail", chain(w, 1, order=(1,))
    yield "5.1.1 only its own set sealed", "fail", chain(w, 2, whole=False)
    for name in NAMES:
        yield "5.2-6 %s of i=1 folded anew" % name, "pass", edit(chain(w, 2), name, 1, value(r"; ", ";\r\n \t "))
    yield "5.2-6 results of i=1 changed", "fail", edit(chain(w, 2), NAMES[0], 1, value("spf=pass", "spf=fail"))
    yield "5.2-6 signature of i=1 changed", "fail", edit(chain(w, 2), NAMES[1], 1, value(r"t=\d+", "t=1"))
    yield "5.2-6 b= of the signature of i=1 changed", "fail", edit(chain(w, 2), NAMES[1], 1, value(r" b=..", " b=AA"))
    yield "5.2-6 b= of the seal of i=1 changed", "fail", edit(chain(w, 2), NAMES[2], 1, value(r" b=..", " b=AA"))
    yield "5.2-6 seal of i=2 changed", "fail", edit(chain(w, 2), NAMES[2], 2, value(r"t=\d+", "t=1"))
    yield "5.2-6 newest set taken off", "fail", w.ed.add(chain(w, 2)).replace("i=2", "i=9")


def tags(w):
    """Section 4.1.2 and 4.1.3 with RFC 6376 section 3.2, for both signatures."""
    for part, name in (("ams", NAMES[1]), ("seal", NAMES[2])):
        for tag in ("a", "d", "s", "b"):
            yield "%s without %s=" % (name, tag), "fail", chain(w, 1, **{part: {tag: None}})
            yield "%s with empty %s=" % (name, tag), "fail", chain(w, 1, **{part: {tag: ""}})
        for tag, wrong in (("a", "rsa-sha1"), ("a", "rsa-md5"), ("a", "ed25519-sha256"), ("a", "rsa"), ("b", "?"),
                           ("b", "AAAA"), ("d", "list..example"), ("d", "-"), ("d", "gone.example"), ("s", "gone"),
                           ("t", ""), ("t", "today"), ("t", "-1")):
            yield "%s with %s=%s" % (name, tag, wrong), "fail", chain(w, 1, **{part: {tag: wrong}})
        texts = (
            ("white space around ; and =", "pass", lambda t: t.replace("; ", " ;\r\n\t ").replace("a=", "a \t=\r\n ")),
            ("no white space", "pass", lambda t: t.replace("; ", ";")),
            ("; at the end", "pass", lambda t: t + ";"),
            ("unknown tag", "pass", lambda t: t.replace(" a=", " x_1=any thing; a=")),
            ("v=1", "pass", lambda t: t.replace(" a=", " v=1; a=")),
            ("i= not the first tag", "pass", lambda t: re.sub(r"^ (i=\d+); (a=[^;]*);", r" \2; \1;", t)),
            ("domain in upper case", "pass", lambda t: t.replace("d=list.example", "d=LIST.example")),
            ("algorithm in upper case", "pass", lambda t: t.replace("rsa-sha256", "RSA-SHA256")),
            ("tag twice", "fail", lambda t: t.replace(" d=", " d=list.example; d=")),
            ("i= twice", "fail", lambda t: t.replace(" a=", " i=1; a=")),
            ("tag in upper case", "fail", lambda t: t.replace(" d=", " D=")),
            ("; twice", "fail", lambda t: t.replace("; d=", ";; d=")),
            ("tag without =", "fail", lambda t: t.replace(" d=", " flag; d=")),
            ("tag that begins with a digit", "fail", lambda t: t.replace(" d=", " 1x=1; d=")),
        )
        for what, wanted, change in texts:
            yield "%s: %s" % (name, what), wanted, chain(w, 1, **{part + "_form": change})


def signatures(w):
    for canon in ("relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"):
        yield "4.1.2 c=%s" % canon, "pass", chain(w, 2, canon=canon)
    yield "4.1.2 without c=", "pass", chain(w, 1, canon="simple/simple", ams={"c": None})
    yield "4.1.2 c=relaxed alone", "pass", chain(w, 1, canon="relaxed")
    for wrong in ("strict/relaxed", "relaxed/", ""):
        yield "4.1.2 c=%s" % wrong, "fail", chain(w, 1, ams={"c": wrong})
    yield "4.1.2 without bh=", "fail", chain(w, 1, ams={"bh": None})
    yield "4.1.2 empty bh=", "fail", chain(w, 1, ams={"bh": ""})
    yield "4.1.2 bh= that is no hash", "fail", chain(w, 1, ams={"bh": "AAAA"})
    yield "4.1.2 without h=", "fail", chain(w, 1, ams={"h": None})
    yield "4.1.2 h= without From", "fail", chain(w, 1, names="To:Subject")
    yield "4.1.2 h= in any case", "pass", chain(w, 1, names="fROM:tO:SUBJECT")
    yield "4.1.2 h= with white space", "pass", chain(w, 1, names="From : To :\r\n\tSubject")
    yield "4.1.2 h= names a field that is not there", "pass", chain(w, 1, names="From:From:Cc:To")
    yield "4.1.2 a field added that h= names once more", "fail", chain(w, 1, names="From:From:To").replace(
        "From: Joe", "From: <evil@evil.example>\r\nFrom: Joe")
    yield "4.1.2 h= with the results of its set", "pass", chain(w, 2, names="From:" + NAMES[0])
    yield "4.1.2 h= with the signature of the set before", "pass", chain(w, 2, names="From:" + NAMES[1])
    yield "4.1.2 h= with an empty name", "pass", chain(w, 1, names="From:To::Subject")
    yield "4.1.2 empty h=", "pass", chain(w, 1, names="")
    yield "4.1.2 white space in b=", "pass", edit(chain(w, 1), NAMES[2], 1, value(r" b=(...)(..)", r" b=\1 \2  "))
    yield "4.1.2 white space in bh=", "pass", chain(w, 1, ams_form=lambda t: re.sub(r"bh=(.)(..)", r"bh=\1 \2\r\n ", t))
    yield "5.2-3.1 results that are a line of the signature", "fail", re.sub(
        "\r\n(%s)" % NAMES[0], r"\r\n \1", chain(w, 1))
    yield "4.1.2 h= with ARC-Seal", "fail", chain(w, 2, names="From:" + NAMES[2])
    yield "4.1.2 h= with arc-seal", "fail", chain(w, 2, names="From:arc-seal")
    yield "4.1.2 without t=", "pass", chain(w, 1, ams={"t": None})
    size = len("Hello,\r\n\r\nthe minutes are below.\r\n--\r\nJoe\r\n")
    yield "l= of the whole body", "pass", chain(w, 1, ams_more=["l=%d" % size])
    yield "l= and more body", "fail", chain(w, 1, ams_more=["l=%d" % size]) + "more\r\n"
    yield "x= that is to come", "pass", chain(w, 1, ams_more=["x=9999999999"])
    yield "x= that is over", "fail", chain(w, 1, ams_more=["x=1700000002"])
    yield "x= in front of t=", "fail", chain(w, 1, ams_more=["x=1600000000"])
    yield "4.1.4 U-labels", "pass", Maker(w.keys[1024], "b\u00fccher.example", "s\u00e9l").add(MESSAGE)
    yield "4.1.1 comments around the instance", "pass", w.maker.add(MESSAGE, aar=" (a) i (b) =\r\n\t(c;) 1 (d) ; mx; none")
    yield "4.1.1 instance not first", "fail", w.maker.add(MESSAGE, aar=" mx.list.example; i=1; spf=pass")
    yield "4.1.1 no semicolon behind the instance", "fail", w.maker.add(MESSAGE, aar=" i=1")
    yield "3.4 results that are none", "pass", w.maker.add(MESSAGE, aar=" i=1; ((;;\"")
    yield "3.4 UTF-8 in the results", "pass", w.maker.add(MESSAGE, aar=" i=1; m\u00fc.example; spf=pass")


def key_records(w):
    for selector, key, wanted in (("two", 2048, "pass"), ("alias", 3072, "pass"), ("test", 1024, "pass"),
                                  ("strict", 1024, "pass"), ("short", 768, "fail"), ("revoked", 1024, "fail"),
                                  ("wrong", 1024, "fail"), ("kind", 1024, "fail"), ("web", 1024, "fail"),
                                  ("sha1", 1024, "fail"), ("garbage", 1024, "fail"), ("blanks", 1024, "pass"), ("gone", 1024, "fail"),
                                  ("down", 1024, "fail")):
        yield "5.2.1 key %s" % selector, wanted, w.by(selector, key).add(MESSAGE)
        yield "5.2-6 key %s of the older set" % selector, wanted, w.ed.add(w.by(selector, key).add(MESSAGE))
    yield "4.1.2 the signature by another than the seal", "pass", mixed(w)


def mixed(w):
    """Sections 4.1.2 and 4.1.3: selectors and domains are free, each for itself."""
    fields, body = split(w.ed.add(MESSAGE))
    seal = w.maker.seal([[fields[2], fields[1]]], 1, "none", {})
    return join([[NAMES[2], seal]] + fields[1:], body)


def how_far_back(w):
    """Section 5.2 step 5: header.oldest-pass; 0 where all signatures still fit."""
    yield "5.2-5 nothing was changed", "pass header.oldest-pass=0", chain(w, 3)
    yield "5.2-5 a single set", "pass header.oldest-pass=0", chain(w, 1)
    yield "5.2-5 changed behind the first", "pass header.oldest-pass=2", w.ed.add(chain(w, 1).replace(": minutes", ": hours"))
    changed = chain(w, 2) + "footer\r\n"
    yield "5.2-5 changed behind the second", "pass header.oldest-pass=3", w.maker.add(changed)
    yield "5.2-5 and not since", "pass header.oldest-pass=3", w.ed.add(w.maker.add(changed))


GROUPS = (whole_chains, sets, seals, tags, signatures, key_records, how_far_back)


class Runner:
    def __init__(self, postern, folder):
        self.postern, self.world = postern, World(folder)
        self.server = Server(self.world.zone)

    def run(self, *words, message):
        return subprocess.run([self.postern, *words, "--resolver", self.server.address],
                              input=message.encode(), capture_output=True, timeout=60, check=False)

    def validate(self, message):
        """The "arc" of the verdict, or the error."""
        done = self.run("auth", "check", "--ip", "192.0.2.1", "--helo", "mx.example", "--mail-from", "",
                        "--authserv-id", "mx.test", message=message)
        if done.returncode != 0:
            return {"result": "exit %d" % done.returncode}
        verdict = json.loads(done.stdout)
        arc = verdict["arc"]
        arc["field"] = verdict["authentication_results"]
        if "arc=%s" % arc["result"] not in verdict["authentication_results"]:
            arc["result"] += ", but another word in Authentication-Results"
        if (arc["reason"] is None) != (arc["result"] != "fail"):
            arc["result"] += " with reason %s" % arc["reason"]
        return arc

    def problem(self, wanted, message):
        wanted, _, told = wanted.partition(" ")
        for text in (message, message.replace("\r\n", "\n")):
            got = self.validate(text)
            if got["result"] != wanted:
                return "%s instead of %s (%s)" % (got["result"], wanted, got.get("reason"))
            if wanted == "pass" and got["instance"] != text.count("Seal:") + text.count("SEAL:"):
                return "instance %s" % got["instance"]
            if told not in got.get("field", ""):
                return "no %s in %s" % (told, got["field"])
        return None

    def close(self):
        self.server.close()


def run_suite(postern):
    """Yields (group, case, problem or None)."""
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(postern, folder)
        for group in GROUPS:
            for name, wanted, message in group(runner.world):
                yield group.__name__, name, runner.problem(wanted, message)
        runner.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--postern", default=os.path.join(ROOT, "build", "bin", "postern"))
    options = parser.parse_args()
    passed = failed = 0
    for group, name, problem in run_suite(options.postern):
        passed += problem is None
        failed += problem is not None
        if problem is not None:
            print("FAIL %s: %s: %s" % (group, name, problem))
    print("arc_rfc8617: %d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
