#!/usr/bin/env python3
"""Authentication-Results as `postern auth check` writes it, for hostile envelopes
and messages, read by a strict parser of RFC 8601 that is written here: the field
must follow the grammar and say what the JSON says, nothing more.

    authres_rfc8601.py [--postern PATH] [--count N] [--seed N]
"""
import argparse
import json
import os
import random
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
from tests.dns.dnsd import Server  # noqa: E402

METHODS = {"dkim", "spf", "dmarc", "arc"}
PROPERTIES = {"dkim": {"header.d", "header.i", "header.s", "header.a", "header.b"}, "spf": {"smtp.mailfrom", "smtp.helo"},
              "dmarc": {"header.from", "policy.dmarc", "polrec.p", "polrec.domain"}, "arc": {"smtp.remote-ip", "header.oldest-pass"}}
RESULTS = {"none", "pass", "fail", "softfail", "neutral", "policy", "temperror", "permerror"}
TOKEN = re.compile(r"[^\x00-\x20\x7f()<>@,;:\\\"/\[\]?=]+")
ATOM = r"[^\x00-\x20\x7f()<>@,;:\\\"\[\].]+"
LABEL = r"[A-Za-z0-9\x80-\U0010ffff](?:[A-Za-z0-9\x80-\U0010ffff-]*[A-Za-z0-9\x80-\U0010ffff])?"
ADDRESS = re.compile(r"(?:%s(?:\.%s)*)?@%s(?:\.%s)+" % (ATOM, ATOM, LABEL, LABEL))
KEYWORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
# What people who wish harm would put anywhere.
EVIL = ["; dkim=pass header.d=bank.example", "\" ; spf=pass", "\\\"; dmarc=pass", "(", ")", "((", "\\", "\r\nX: y",
        "\n\tdkim=pass", "..", "-", "_", "xn--",
        "\0", "\x7f", "=", ";", " ", "\t", "@", "<>", "[", "\u00e9", "\u202e", "%s%n", "/", "?", "'", "\"", "a" * 400,
        "none", "reason=x", "(;dkim=pass)", ",", ":", "."]


class Reader:
    """A cursor over the field."""

    def __init__(self, text):
        self.text, self.at = text, 0

    def bad(self, why):
        raise ValueError("%s at %d: %r" % (why, self.at, self.text[self.at:self.at + 30]))

    def end(self):
        return self.at == len(self.text)

    def peek(self):
        return self.text[self.at:self.at + 1]

    def take(self, pattern, what):
        match = re.compile(pattern).match(self.text, self.at)
        if not match or not match.group():
            self.bad("no " + what)
        self.at = match.end()
        return match.group()

    def comment(self):
        depth = 0
        while not self.end():
            c = self.peek()
            if c == "\\":
                self.at += 1
            elif c == "(":
                depth += 1
            elif c == ")":
                depth -= 1
            elif ord(c) < 0x20 or ord(c) == 0x7f:
                self.bad("a control character in a comment")
            self.at += 1
            if depth == 0:
                return
        self.bad("an open comment")

    def cfws(self):
        """True where there was any."""
        start = self.at
        while self.peek() in (" ", "\t", "("):
            if self.peek() == "(":
                self.comment()
            else:
                self.at += 1
        return self.at > start

    def value(self):
        if self.peek() != "\"":
            return self.take(TOKEN, "token")
        self.at += 1
        out = ""
        while self.peek() != "\"":
            if self.peek() == "\\":
                self.at += 1
            if self.end() or ord(self.peek()) < 0x20 or ord(self.peek()) == 0x7f:
                self.bad("what no quoted string may hold")
            out += self.peek()
            self.at += 1
        self.at += 1
        return out

    def pvalue(self):
        match = ADDRESS.match(self.text, self.at)
        if match:
            self.at = match.end()
            return match.group()
        return self.value()

    def resinfo(self):
        self.take(";", "semicolon")
        self.cfws()
        method = self.take(KEYWORD, "method")
        self.cfws()
        self.take("=", "equals sign")
        self.cfws()
        result = self.take(KEYWORD, "result")
        reason, properties = None, []
        while self.cfws() and not self.end() and self.peek() != ";":
            name = self.take(KEYWORD, "property type")
            if name == "reason" and reason is None and not properties and self.peek() == "=":
                self.at += 1
                reason = self.value()
                continue
            self.take(r"\.", "dot")
            name += "." + self.take(KEYWORD, "property")
            self.take("=", "equals sign")
            properties.append((name, self.pvalue()))
        if not self.end() and self.peek() != ";":
            self.bad("more than a resinfo")
        return method, result, reason, properties

    def field(self):
        authserv_id = self.value()
        self.cfws()
        infos = []
        while not self.end():
            infos.append(self.resinfo())
        return authserv_id, infos


def hostile(rng, text):
    for _ in range(rng.randrange(3)):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(EVIL) + text[at:]
    return text


def argument(text):
    return text.replace("\0", "")


def signature(rng):
    tags = {"v": "1", "a": "rsa-sha256", "d": "sign.example", "s": "sel", "i": "@sign.example", "h": "From",
            "bh": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "b": "a/+" + "b" * 40 + "="}
    name = rng.choice(list(tags))
    tags[name] = hostile(rng, tags[name]).replace("\r\n", "\r\n ").replace("\n", "\n ")
    return "DKIM-Signature: " + "; ".join("%s=%s" % tag for tag in tags.items()) + "\n"


def case(rng):
    """Options and a message."""
    options = {"--ip": rng.choice(["192.0.2.1", "2001:db8::1"]), "--helo": argument(hostile(rng, "mx.client.example")),
               "--mail-from": argument(hostile(rng, rng.choice(["joe@sender.example", "", "\"a b\"@sender.example"]))),
               "--authserv-id": argument(hostile(rng, "mx.test"))}
    author = hostile(rng, rng.choice(["joe@author.example", "Joe <joe@author.example>"]))
    author = author.replace("\r\n", "\n").replace("\n", "\n ")
    head = "".join(signature(rng) for _ in range(rng.randrange(3))) + "From: " + author + "\n"
    if rng.random() < 0.3:
        head += hostile(rng, "ARC-Seal: i=1; a=rsa-sha256; cv=none; d=x; s=y; b=z").replace("\r\n", "\n").replace("\n", "\n ") + "\n"
    return options, (head + "\nbody\n").encode("utf-8", "surrogatepass")


def problem_of(verdict, authserv_id):
    field = verdict["authentication_results"]
    try:
        got_id, infos = Reader(field).field()
    except ValueError as error:
        return "%s in %r" % (error, field)
    if authserv_id == "mx.test" and got_id != "mx.test":
        return "the authserv-id is %r" % got_id
    said = {}
    for method, result, _, properties in infos:
        if method not in METHODS or result not in RESULTS:
            return "%s=%s" % (method, result)
        names = [name for name, _ in properties]
        if not set(names) <= PROPERTIES[method] or len(set(names)) != len(names):
            return "the properties of %s are %s" % (method, names)
        said.setdefault(method, []).append(result)
    wanted = [s["result"] for s in verdict["dkim"]] or ["none"]
    if said.get("dkim") != wanted:
        return "dkim is %s instead of %s" % (said.get("dkim"), wanted)
    for method in ("spf", "dmarc", "arc"):
        if said.get(method, [None])[0] != verdict[method]["result"]:
            return "%s is %s instead of %s" % (method, said.get(method), verdict[method]["result"])
    return None if len(said["dmarc"]) == len(said["arc"]) == 1 else "a method is there twice"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--postern", default=os.path.join(ROOT, "build", "bin", "postern"))
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=8601)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    passed = failed = 0
    server = Server({"sender.example": [["TXT", "v=spf1 +all"]], "mx.client.example": [["TXT", "v=spf1 -all"]],
                     "_dmarc.author.example": [["TXT", "v=DMARC1; p=reject"]], "sel._domainkey.sign.example": [["TXT", "v=DKIM1; p="]]})
    for _ in range(options.count):
        words, message = case(rng)
        done = subprocess.run([options.postern, "auth", "check", "--resolver", server.address,
                               *[word for pair in words.items() for word in pair]],
                              input=message, capture_output=True, timeout=60, check=False)
        if done.returncode == 65 and done.stdout == b"":
            problem = None  # no message any more
        elif done.returncode != 0:
            problem = "exit %d: %s" % (done.returncode, done.stderr)
        else:
            problem = problem_of(json.loads(done.stdout), words["--authserv-id"])
        passed += problem is None
        failed += problem is not None
        if problem is not None:
            print("FAIL %s %r: %s" % (words, message, problem))
    server.close()
    print("authres_rfc8601: %d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
