#!/usr/bin/env python3
"""The tools' promises to whoever drives them from outside: names and types in
their JSON, exit codes, forms of the input, options.

    tools_contract.py [--postern PATH]
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
from tests.conformance.arc_maker import Key  # noqa: E402
from tests.conformance.dmarc_rfc9989 import form_problem  # noqa: E402
from tests.dns.dnsd import Server  # noqa: E402

TEXT = (str, type(None))
NUMBER = (int, type(None))
SPF = {"result": str, "domain": str, "explanation": TEXT, "problem": TEXT, "lookups": int, "void_lookups": int}
AUTH_SPF = {"result": str, "domain": str, "identity": str, "explanation": TEXT, "problem": TEXT}
DKIM = {"result": str, "domain": TEXT, "selector": TEXT, "algorithm": TEXT, "key_bits": NUMBER, "reason": TEXT}
ARC = {"result": str, "instance": NUMBER, "reason": TEXT}
RESULTS = {"none", "pass", "fail", "softfail", "neutral", "policy", "temperror", "permerror"}
MESSAGE = b"From: Joe <joe@example.com>\r\nTo: ann@example.net\r\nSubject: hi\r\n\r\nHello\r\n  world \r\n"
CLIENT = {"--ip": "192.0.2.1", "--helo": "mx.example.com", "--mail-from": "joe@example.com"}
EXPLAIN = "%{s} %{l} %{o} %{d} %{i} %{v} %{h} %{c} %{t} %{p} 100%% %{L}%_%-%{d2}"


class Problem(Exception):
    pass


def expect(got, wanted, what):
    if got != wanted:
        raise Problem("%s is %r instead of %r" % (what, got, wanted))


def expect_form(got, form, what):
    expect(list(got), list(form), "the keys of " + what)
    for key, kind in form.items():
        if not isinstance(got[key], kind) or isinstance(got[key], bool):
            raise Problem("%s of %s is %r" % (key, what, got[key]))
    if got["result"] not in RESULTS:
        raise Problem("the result of %s is %r" % (what, got["result"]))


class Driver:
    def __init__(self, postern, folder):
        self.postern, self.folder = postern, folder
        self.keys = {"s": Key(folder, bits=2048), "ed": Key(folder, kind="ed25519")}
        terms = " ".join(["a:here.example.com"] * 10)
        self.server = Server({
            "example.com": [["TXT", "v=spf1 ip4:192.0.2.1 ip6:2001:db8::/32 -all"]],
            "_dmarc.example.com": [["TXT", "v=DMARC1; p=reject"]],
            "mx.example.com": [["TXT", "v=spf1 a -all"], ["A", "192.0.2.1"]],
            "here.example.com": [["A", "198.51.100.1"]],
            "s._domainkey.example.com": [["TXT", self.keys["s"].record()]],
            "ed._domainkey.example.com": [["TXT", self.keys["ed"].record()]],
            "all.example.com": [["TXT", "v=spf1 a mx ptr exists:no.example.com include:here.example.org -all"],
                                ["A", "198.51.100.1"], ["MX", 10, "here.example.com"]],
            "here.example.org": [["TXT", "v=spf1 ip4:198.51.100.9 -all"]],
            "free.example.com": [["TXT", "v=spf1 ip4:198.51.100.1 ip6:2001:db8::1 ?all"]],
            "on.example.com": [["TXT", "v=spf1 redirect=here.example.org"]],
            "ten.example.com": [["TXT", "v=spf1 %s -all" % terms]],
            "eleven.example.com": [["TXT", "v=spf1 %s a:here.example.com -all" % terms]],
            "void2.example.com": [["TXT", "v=spf1 a:n1.example.com a:n2.example.com -all"]],
            "void3.example.com": [["TXT", "v=spf1 a:n1.example.com a:n2.example.com a:n3.example.com -all"]],
            "exp.example.com": [["TXT", "v=spf1 -all exp=why.example.com"]],
            "why.example.com": [["TXT", EXPLAIN]],
            "soft.example.com": [["TXT", "v=spf1 ~all exp=why.example.com"]],
            "badexp.example.com": [["TXT", "v=spf1 -all exp=two.example.com"]],
            "two.example.com": [["TXT", "one"], ["TXT", "two"]],
            "xn--bcher-kva.example": [["TXT", "v=spf1 +all"]],
            "down.example.com": [["SERVFAIL"]],
        })

    def run(self, *words, stdin=b"", resolver=None):
        words = [self.postern, *words]
        if resolver != "":
            words += ["--resolver", resolver or self.server.address]
        return subprocess.run(words, input=stdin, capture_output=True, timeout=100, check=False)

    def spf(self, **change):
        words = []
        for name, value in {**CLIENT, **{"--" + k.replace("_", "-"): v for k, v in change.items()}}.items():
            words += [name, value]
        done = self.run("spf", "check", *words)
        expect((done.returncode, done.stderr), (0, b""), "the end")
        expect(done.stdout.count(b"\n"), 1, "the number of lines")
        verdict = json.loads(done.stdout)
        expect_form(verdict, SPF, "the verdict")
        return verdict

    def auth(self, message, *more, client=None):
        words = [word for pair in {**CLIENT, **(client or {})}.items() for word in pair]
        done = self.run("auth", "check", *words, "--authserv-id", "mx.test", *more, stdin=message)
        expect((done.returncode, done.stderr), (0, b""), "the end")
        verdict = json.loads(done.stdout)
        expect(list(verdict), ["spf", "dkim", "arc", "dmarc", "authentication_results"], "the keys")
        expect_form(verdict["spf"], AUTH_SPF, "spf")
        for signature in verdict["dkim"]:
            expect_form(signature, DKIM, "dkim")
        expect_form(verdict["arc"], ARC, "arc")
        problem = form_problem(verdict["dmarc"])
        if problem:
            raise Problem("dmarc: " + problem)
        field = verdict["authentication_results"]
        if not field.startswith("mx.test; ") or "\n" in field or "\r" in field:
            raise Problem("the field is %r" % field)
        return verdict

    def sign(self, message=MESSAGE, *more, selector="s"):
        done = self.run("dkim", "sign", "--domain", "example.com", "--selector", selector, "--key",
                        self.keys[selector].path, *more, stdin=message, resolver="")
        expect((done.returncode, done.stderr), (0, b""), "the end of dkim sign")
        return done.stdout


def spf_counts(d):
    for name, result, lookups, voids in (
            ("free", "neutral", 0, 0), ("on", "fail", 1, 0), ("all", "fail", 5, 2), ("ten", "fail", 10, 0),
            ("eleven", "permerror", 10, 0), ("void2", "fail", 2, 2), ("void3", "permerror", 3, 3),
            ("none", "none", 0, 0), ("down", "temperror", 0, 0)):
        got = d.spf(mail_from="a@%s.example.com" % name)
        expect((got["result"], got["lookups"], got["void_lookups"]), (result, lookups, voids), "the verdict on " + name)
        expect(got["domain"], name + ".example.com", "the domain")
        expect(got["problem"] is None, result not in ("permerror", "temperror"), "that no problem is told of " + name)


def spf_explanation(d):
    got = d.spf(mail_from="joe+x@exp.example.com", now="1700000000")
    expect(got["explanation"], "joe+x@exp.example.com joe+x exp.example.com exp.example.com 192.0.2.1 in-addr "
           "mx.example.com 192.0.2.1 1700000000 unknown 100% joe%2Bx %20example.com", "the explanation")
    for name in ("soft", "badexp", "ten"):
        expect(d.spf(mail_from="a@%s.example.com" % name)["explanation"], None, "the explanation of " + name)


def spf_sender(d):
    for sender, result, domain in (
            ("joe@example.com", "pass", "example.com"), ("<joe@example.com>", "pass", "example.com"),
            ("", "pass", "mx.example.com"), ("<>", "pass", "mx.example.com"), ("@example.com", "pass", "example.com"),
            ("\"x y\"@example.com", "pass", "example.com"), ("a@b@example.com", "pass", "example.com"),
            ("joe@EXAMPLE.com.", "pass", "example.com"), ("joe@b\u00fccher.example", "pass", "xn--bcher-kva.example"),
            ("joe@[192.0.2.1]", "none", "[192.0.2.1]"), ("joe@localhost", "none", "localhost")):
        got = d.spf(mail_from=sender)
        expect((got["result"], got["domain"]), (result, domain), "the verdict on " + sender)
    for helo, result in (("mx.example.com.", "pass"), ("MX.example.com", "pass"), ("[192.0.2.1]", "none"), ("", "none"),
                         ("localhost", "none"), ("a b", "none"), ("gone.example.com", "none")):
        expect(d.spf(mail_from="", helo=helo)["result"], result, "the verdict on HELO " + helo)


def spf_client(d):
    for ip, result in (("192.0.2.1", "pass"), ("192.0.2.2", "fail"), ("2001:db8::1", "pass"), ("2001:DB8:0::1", "pass"),
                       ("2001:db9::1", "fail"), ("::ffff:192.0.2.1", "pass"), ("::ffff:192.0.2.2", "fail")):
        expect(d.spf(ip=ip)["result"], result, "the verdict on " + ip)


def spf_in_auth(d):
    verdict = d.auth(MESSAGE)
    expect((verdict["spf"]["result"], verdict["spf"]["identity"]), ("pass", "mailfrom"), "spf")
    verdict = d.auth(MESSAGE, client={"--mail-from": ""})
    expect((verdict["spf"]["domain"], verdict["spf"]["identity"]), ("mx.example.com", "helo"), "spf of a bounce")
    # RFC 9989 section 4.4.2 by RFC 7208 section 2.4: then the HELO name is the MAIL FROM identity.
    expect(verdict["dmarc"]["alignment"]["spf"], "mx.example.com", "the aligned identifier of a bounce")
    verdict = d.auth(MESSAGE, client={"--mail-from": "a@exp.example.com"})
    expect(verdict["spf"]["explanation"] is None, False, "that there is no explanation")
    # A HELO name that passes does not make up for a MAIL FROM that does not.
    expect(verdict["dmarc"]["alignment"]["spf"], None, "the aligned identifier")


def signatures_in_order(d):
    """As they stand in the message, good and bad, each with what is known of it."""
    message = d.sign(d.sign(selector="ed"))
    message = b"DKIM-Signature: nonsense\r\n" + message
    message = b"DKIM-Signature: v=1; a=rsa-sha256; d=gone.example; s=x; h=From; bh=AAAA; b=AAAA\r\n" + message
    got = d.auth(message)["dkim"]
    expect([(s["result"] == "pass", s["domain"], s["selector"], s["algorithm"], s["key_bits"]) for s in got],
           [(False, "gone.example", "x", "rsa-sha256", None), (False, None, None, None, None),
            (True, "example.com", "s", "rsa-sha256", 2048), (True, "example.com", "ed", "ed25519-sha256", 256)],
           "the array")
    for signature in got:
        expect(signature["reason"] is None, signature["result"] == "pass", "that no reason is told")
    expect(d.auth(MESSAGE)["dkim"], [], "the array of an unsigned message")
    broken = d.auth(message.replace(b"world", b"World"))["dkim"]
    expect([s["result"] for s in broken[2:]], ["fail", "fail"], "the results with another body")


def line_ends(d):
    for message in (MESSAGE, MESSAGE.replace(b"\r\n", b"\n")):
        for canon in ("simple/simple", "relaxed/relaxed"):
            signed = d.sign(message, "--canonicalization", canon)
            expect(signed.endswith(message), True, "that the message is as it was")
            expect(b"\r\n" in signed, b"\r\n" in message, "that there are CRLFs")
            for form in (signed.replace(b"\r\n", b"\n"), signed.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")):
                expect(d.auth(form)["dkim"][0]["result"], "pass", "the result")


def tags_of_a_signature(d):
    field = d.sign(MESSAGE, "--now", "1700000000", "--headers", "From:To:From").split(b"\r\nFrom:")[0].decode()
    name, _, value = field.partition(":")
    tags = [part.strip().partition("=")[::2] for part in "".join(value.split()).split(";")]
    expect(name, "DKIM-Signature", "the name")
    expect([tag for tag, _ in tags], ["v", "a", "c", "d", "s", "t", "h", "bh", "b"], "the tags")
    expect(tags[:7], [("v", "1"), ("a", "rsa-sha256"), ("c", "relaxed/relaxed"), ("d", "example.com"), ("s", "s"),
                      ("t", "1700000000"), ("h", "From:To:From")], "the values")


def expiry(d):
    """--now is the time for x= and t=."""
    signed = d.sign(MESSAGE, "--now", "1700000000")
    expect(d.auth(signed, "--now", "1700000001")["dkim"][0]["result"], "pass", "the result")
    expect(d.auth(signed, "--now", "1600000000")["dkim"][0]["result"] != "pass", True, "that it is from the future")


def messages(d):
    for message in (b"", b"\n", b"\r\n", b"\nbody\n", b"From: joe@example.com", b"From: joe@example.com\r\n",
                    b"From: joe@example.com\n\n\0\1\xff" + bytes(range(256)), b"X: \xff\xfe\nFrom: joe@example.com\n\n",
                    b"From: joe@example.com\n\n" + b"x" * 3000000, b"Subject: hi\n\nno author\n"):
        d.auth(message)
    expect(d.auth(b"Subject: hi\n\n")["dmarc"]["result"], "permerror", "dmarc without From")
    for message in (b"hello\n", b"From joe\n From joe\n\n", b">From joe\nFrom: joe@example.com\n\n", b" x: y\n\n",
                    b"From: joe@example.com\nno field\n\n", b": y\n\n", b"\x89PNG\r\n\x1a\n\0\0", bytes(range(1, 256)),
                    b"X: " + b"a" * 300000 + b"\n\n", b"X: a\n" * 10001 + b"\n"):
        words = [word for pair in CLIENT.items() for word in pair]
        for command in (["auth", "check", *words],
                        ["arc", "seal", "--domain", "example.com", "--selector", "s", "--key", d.keys["s"].path,
                         "--authserv-id", "mx.test"]):
            done = d.run(*command, stdin=message)
            expect((done.returncode, done.stdout), (65, b""), "the end for %r" % message[:20])
            expect(done.stderr.startswith(b"postern: "), True, "the text on standard error")


def mailbox_line(d):
    """The line in front of a message in a mailbox file is no part of it, and stays where it is."""
    line = b"From joe@example.com Mon Nov  2 10:00:00 2026\r\n"
    expect(d.auth(line + MESSAGE), d.auth(MESSAGE), "the verdict")
    signed = d.sign(line + MESSAGE, "--now", "1700000000")
    expect(signed, line + d.sign(MESSAGE, "--now", "1700000000"), "the signed message")
    expect(d.auth(signed)["dkim"][0]["result"], "pass", "the result")
    words = ["arc", "seal", "--domain", "example.com", "--selector", "s", "--key", d.keys["s"].path, "--authserv-id", "mx.test"]
    sealed = d.run(*words, stdin=signed).stdout
    expect(sealed.startswith(line + b"ARC-Seal:"), True, "that the line comes first")
    expect(d.auth(sealed)["arc"]["result"], "pass", "the chain")


def names_of_signers(d):
    """U-labels become A-labels, and what is no name is refused."""
    for command in (["dkim", "sign"], ["arc", "seal", "--authserv-id", "mx.test"]):
        words = [*command, "--key", d.keys["s"].path]
        out = d.run(*words, "--domain", "b\u00fccher.example", "--selector", "s\u00e9l", stdin=MESSAGE, resolver="").stdout
        expect(b"d=xn--bcher-kva.example;" in out and b"s=xn--sl-bja;" in out, True, "that there are A-labels")
        for domain, selector in (("a..b", "s"), ("a b", "s"), ("", "s"), ("a;b", "s"), ("example.com", ""), ("example.com", "s;"),
                                 ("x" * 64 + ".example", "s"), ("example.com", "s\n")):
            done = d.run(*words, "--domain", domain, "--selector", selector, stdin=MESSAGE, resolver="")
            expect((done.returncode, done.stdout), (64, b""), "the end with %r and %r" % (domain, selector))


def usage(d):
    whole = [word for pair in CLIENT.items() for word in pair]
    lists = [["spf", "check", *whole[:i], *whole[i + 2:]] for i in range(0, 6, 2)]
    lists += [["auth", "check", *whole[:i], *whole[i + 2:]] for i in range(0, 6, 2)]
    for ip in ("", "x", "192.0.2", "192.0.2.256", "192.0.2.01", "192.0.2.1/24", "fe80::1%eth0", "::g", "1::2::3"):
        lists.append(["spf", "check", "--ip", ip, *whole[2:]])
    lists += [["dmarc", "check"], ["dmarc", "check", "--from", "a@b.example", "--from", "c@d.example"],
              ["dmarc", "check", "--from", "a@b.example", "--dmarc-discovery", "list"], ["spf", "check", *whole, "word"],
              ["spf", "check", *whole, "--colour"], ["spf", "check", *whole, "--trace=1"], ["auth", "check", *whole, "--now"],
              ["auth", "check", *whole, "--now", "-1"], ["auth", "check", *whole, "--now", "noon"]]
    for words in lists:
        done = d.run(*words, resolver="" if words[-1] == "--now" else None)
        expect((done.returncode, done.stdout), (64, b""), "the end of %s" % words)
        expect(done.stderr.startswith(b"postern: ") and done.stderr.count(b"\n") == 1, True, "one line on standard error")
    for words in (["--key=/nowhere"], ["--key=" + os.path.join(d.folder, "nothing")]):
        done = d.run("dkim", "sign", "--domain", "example.com", "--selector", "s", *words, stdin=MESSAGE, resolver="")
        expect((done.returncode, done.stdout), (66, b""), "the end without a key")


def resolvers(d):
    port = d.server.port
    words = ["spf", "check", *[word for pair in CLIENT.items() for word in pair]]
    for resolver in ("127.0.0.1:%d" % port, "[127.0.0.1]:%d" % port, "127.0.0.1:%d," % port):
        expect(json.loads(d.run(*words, resolver=resolver).stdout)["result"], "pass", "the result by " + resolver)
    if has_ipv6():
        with Server({"example.com": [["TXT", "v=spf1 +all"]]}, host="::1") as server:
            expect(json.loads(d.run(*words, resolver="[::1]:%d" % server.port).stdout)["result"], "pass", "by IPv6")
    for resolver in ("x y", "127.0.0.1:0", "127.0.0.1:99999", "127.0.0.1:x", "[::1", "256.0.0.1:53"):
        done = d.run(*words, "--resolver", resolver, resolver="")
        expect((done.returncode, done.stdout), (64, b""), "the end with resolver " + resolver)
    # Nobody listens there, so DNS could not be asked at all.
    for command in (words, ["dmarc", "check", "--from", "joe@example.com"], ["auth", *words[1:]]):
        done = d.run(*command, stdin=MESSAGE, resolver="127.0.0.1:1")
        expect(done.returncode, 75, "the end without DNS of " + command[0])
    # One that answers with an error was asked.
    got = d.spf(mail_from="a@down.example.com")
    expect(got["result"], "temperror", "the result of SERVFAIL")


def has_ipv6():
    try:
        Server({}, host="::1").close()
    except OSError:
        return False
    return True


def trace(d):
    changed = d.sign().replace(b"Subject: hi", b"Subject: [l] hi")
    words = [word for pair in CLIENT.items() for word in pair]
    done = d.run("auth", "check", *words, "--authserv-id", "mx.test", "--trace", stdin=changed)
    lines = done.stderr.decode().splitlines()
    for wanted in ("dns s._domainkey.example.com TXT: ok \"", "dns _dmarc.example.com TXT: ok \"v=DMARC1; p=reject\"",
                   "dns example.com TXT: ok \"v=spf1 ", "dkim 1: fail: ", "  canonical header: \"",
                   "                    \"subject:[l] hi\\r\\n\"", "  canonical body: \"", "  bh=", "  likely culprit: ",
                   "spf mailfrom example.com: pass by ip4:192.0.2.1 (lookups: 0 of 10", "arc: none", "dmarc: pass"):
        if not any(line.startswith(wanted) for line in lines):
            raise Problem("the trace does not tell %r: %s" % (wanted, lines))
    hashes = [line.split()[0] for line in lines if line.startswith("  bh=")]
    expect((len(hashes), len(set(hashes))), (2, 1), "the body hashes of a changed header")
    footer = d.run("auth", "check", *words, "--trace", stdin=d.sign() + b"footer\n").stderr.decode()
    hashes = set(re.findall("  bh=\\S+", footer))
    expect(len(hashes), 2, "the body hashes of a changed body")
    plain = d.run("auth", "check", *words, "--authserv-id", "mx.test", stdin=changed)
    expect(done.stdout, plain.stdout, "the verdict with --trace")
    for command in (["spf", "check", *words], ["dmarc", "check", "--from", "joe@example.com"]):
        done = d.run(*command, "--trace")
        expect(done.stderr.startswith(b"dns ") and done.returncode == 0, True, "the trace of " + command[0])


def large(d):
    """100 MB are judged, and not held as text twice."""
    body = (b"0123456789" * 7 + b"\r\n") * 1456356
    signed = d.sign(MESSAGE + body)
    expect(d.auth(signed)["dkim"][0]["result"], "pass", "the result")
    expect(d.auth(signed + b"x")["dkim"][0]["result"], "fail", "the result with a byte more")


CASES = (spf_counts, spf_explanation, spf_sender, spf_client, spf_in_auth, signatures_in_order, line_ends,
         tags_of_a_signature, expiry, messages, mailbox_line, names_of_signers, usage, resolvers, trace, large)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--postern", default=os.path.join(ROOT, "build", "bin", "postern"))
    options = parser.parse_args()
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        driver = Driver(options.postern, folder)
        with open(os.path.join(folder, "nothing"), "w", encoding="ascii") as stream:
            stream.write("no key\n")
        for case in CASES:
            try:
                case(driver)
                passed += 1
            except Problem as error:
                failed += 1
                print("FAIL %s: %s" % (case.__name__, error))
        driver.server.close()
    print("tools_contract: %d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
