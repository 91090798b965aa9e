#!/usr/bin/env python3
"""RFC 9989 case by case through `postern dmarc check`, against a DNS server of
ours: policy discovery, the tree walk, alignment, records with faults.

    dmarc_rfc9989.py [--postern PATH]
"""
import argparse
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
from tests.dns.dnsd import Server  # noqa: E402

KEYS = {"result": str, "domain": (str, type(None)), "organizational_domain": (str, type(None)),
        "published_policy": (str, type(None)), "policy": (str, type(None)), "disposition": str,
        "alignment": dict, "queries": list, "reason": (str, type(None))}
WORDS = {"result": {"pass", "fail", "none", "temperror", "permerror"}, "disposition": {"none", "quarantine", "reject"},
         "published_policy": {"none", "quarantine", "reject", None}, "policy": {"none", "quarantine", "reject", None}}


def txt(*texts):
    return [["TXT", text] for text in texts]


ZONE = {
    "_dmarc.example.com": txt("v=DMARC1; p=reject; sp=quarantine; np=reject; rua=mailto:d@example.com"),
    "mail.example.com": [["A", "192.0.2.1"]],
    "mx.example.com": [["MX", 10, "mail.example.com"]],
    "six.example.com": [["AAAA", "2001:db8::1"]],
    "alias.example.com": [["CNAME", "nowhere.example.net"]],
    "below.deep.example.com": [["A", "192.0.2.1"]],
    "_dmarc.own.example.com": txt("v=DMARC1; p=none; sp=reject"),
    "_dmarc.sub.own.example.com": txt("v=DMARC1; p=quarantine"),
    "_dmarc.island.example.com": txt("v=DMARC1; p=quarantine; psd=n"),
    "_dmarc.bank.example": txt("v=DMARC1; p=quarantine; sp=none; np=reject; psd=y"),
    "_dmarc.giant.bank.example": txt("v=DMARC1; p=reject"),
    "big.bank.example": [["A", "192.0.2.1"]],
    "_dmarc.top": txt("v=DMARC1; p=none; np=quarantine; psd=y"),
    "_dmarc.shop.top": txt("v=DMARC1; p=reject"),
    "_dmarc.strict.example": txt("v=DMARC1; p=reject; adkim=s; aspf=s"),
    "_dmarc.a.strict.example.com": txt("v=DMARC1; p=reject; adkim=s; aspf=s"),
    "_dmarc.half.example": txt("v=DMARC1; p=reject; adkim=s"),
    "_dmarc.test.example": txt("v=DMARC1; p=reject; sp=quarantine; np=none; t=y"),
    "a.test.example": [["A", "192.0.2.1"]],
    "_dmarc.nop.example": txt("v=DMARC1"),
    "_dmarc.nopsp.example": txt("v=DMARC1; sp=reject"),
    "a.nopsp.example": [["A", "192.0.2.1"]],
    "_dmarc.badp.example": txt("v=DMARC1; p=block"),
    "_dmarc.badprua.example": txt("v=DMARC1; p=block; rua=mailto:a@b.example!10m"),
    "_dmarc.badpbadrua.example": txt("v=DMARC1; p=block; rua=a@b.example"),
    "_dmarc.badsp.example": txt("v=DMARC1; p=reject; sp=; rua=mailto:a@b.example"),
    "_dmarc.badnp.example": txt("v=DMARC1; p=reject; np=all"),
    "_dmarc.badtags.example": txt("v=DMARC1; p=reject; adkim=x; aspf=; t=maybe; psd=z; fo=9; x=1; pct=0; rf=a; ri=-1; ;;"),
    "_dmarc.loose.example": txt("v = DMARC1\t;\tP = Reject ; ADKIM=S"),
    "_dmarc.lower.example": txt("v=dmarc1; p=reject"),
    "_dmarc.space.example": txt(" v=DMARC1; p=reject"),
    "_dmarc.second.example": txt("p=reject; v=DMARC1"),
    "_dmarc.version.example": txt("v=DMARC2; p=reject"),
    "_dmarc.glued.example": txt("v=DMARC10; p=reject"),
    "_dmarc.bare.example": txt("v=DMARC1;p=reject"),
    "_dmarc.twice.example": txt("v=DMARC1; p=reject", "v=DMARC1; p=none"),
    "_dmarc.twice.example.com": txt("v=DMARC1; p=reject", "v=DMARC1; p=none"),
    "_dmarc.mixed.example": txt("v=spf1 -all", "v=DMARC1; p=reject", "google-site-verification=x"),
    "_dmarc.pieces.example": [["TXT", ["v=DMA", "RC1; p=rej", "ect"]]],
    "_dmarc.moved.example": [["CNAME", "_dmarc.hosted.example.net"]],
    "_dmarc.hosted.example.net": txt("v=DMARC1; p=reject"),
    "_dmarc.big.example": txt("v=DMARC1; p=reject; rua=" + ",".join("mailto:a%d@b.example" % i for i in range(100))),
    "_dmarc.xn--bcher-kva.example": txt("v=DMARC1; p=reject"),
    "_dmarc.down.example": [["SERVFAIL"]],
    "_dmarc.unsure.example.com": [["SERVFAIL"]],
    "_dmarc.refused.example": [["REFUSED"]],
    "_dmarc.half.down.example": txt("v=DMARC1; p=reject"),
    "down2.example.com": [["SERVFAIL"]],
}


def names(text):
    return ["_dmarc." + name for name in text.split()]


# name, --from, identifiers ("spf:..." or "dkim:..."), what must be in the verdict
CASES = (
    ("4.10 the example with thirteen labels", "u@a.b.c.d.e.f.g.h.i.j.mail.example.com", "",
     {"result": "fail", "domain": "example.com", "organizational_domain": "example.com", "policy": "reject",
      "queries": names("a.b.c.d.e.f.g.h.i.j.mail.example.com g.h.i.j.mail.example.com h.i.j.mail.example.com "
                       "i.j.mail.example.com j.mail.example.com mail.example.com example.com com")}),
    ("4.10 nine labels", "u@a.b.c.d.e.f.g.h.nothing", "",
     {"result": "none", "queries": names("a.b.c.d.e.f.g.h.nothing c.d.e.f.g.h.nothing d.e.f.g.h.nothing e.f.g.h.nothing "
                                         "f.g.h.nothing g.h.nothing h.nothing nothing")}),
    ("4.10 eight labels", "u@a.b.c.d.e.f.g.nothing", "",
     {"result": "none", "queries": names("a.b.c.d.e.f.g.nothing b.c.d.e.f.g.nothing c.d.e.f.g.nothing d.e.f.g.nothing "
                                         "e.f.g.nothing f.g.nothing g.nothing nothing")}),
    ("4.10 one label", "root@localhost", "", {"result": "none", "queries": names("localhost")}),
    ("4.10.1 own record", "u@example.com", "dkim:example.com",
     {"result": "pass", "domain": "example.com", "published_policy": "reject", "disposition": "none",
      "alignment": {"spf": None, "dkim": "example.com"}, "queries": names("example.com"),
      "organizational_domain": "example.com", "reason": None}),
    ("4.10.1 own record fails", "u@example.com", "", {"result": "fail", "policy": "reject", "disposition": "reject"}),
    ("4.10.1 own record of a subdomain: p, not sp", "u@own.example.com", "",
     {"result": "fail", "domain": "own.example.com", "published_policy": "none", "disposition": "none",
      "organizational_domain": "example.com"}),
    ("4.10.1 below a subdomain with a record: the Organizational Domain's sp", "u@below.deep.example.com", "",
     {"domain": "example.com", "published_policy": "quarantine"}),
    ("4.10.1 below own.example.com: example.com governs", "u@x.own.example.com", "",
     {"domain": "example.com", "published_policy": "reject", "organizational_domain": "example.com"}),
    ("4.7 sp for one that exists", "u@mail.example.com", "", {"published_policy": "quarantine"}),
    ("4.7 sp for one with only an MX", "u@mx.example.com", "", {"published_policy": "quarantine"}),
    ("4.7 sp for one with only an AAAA", "u@six.example.com", "", {"published_policy": "quarantine"}),
    ("4.7 sp for one with names below it", "u@deep.example.com", "", {"published_policy": "quarantine"}),
    ("4.7 np for one that does not exist", "u@gone.example.com", "", {"published_policy": "reject"}),
    ("3.2.13 an alias to nothing: NXDOMAIN", "u@alias.example.com", "", {"published_policy": "reject"}),
    ("4.7 np falls back on sp", "u@gone.test.example", "", {"published_policy": "none", "policy": "none"}),
    ("4.10.1 PSD: its sp", "u@big.bank.example", "",
     {"result": "fail", "domain": "bank.example", "published_policy": "none", "organizational_domain": "big.bank.example"}),
    ("4.10.1 PSD: its np", "u@gone.bank.example", "",
     {"domain": "bank.example", "published_policy": "reject", "organizational_domain": "gone.bank.example"}),
    ("4.10.1 PSD: an Organizational Domain with a record", "u@www.giant.bank.example", "",
     {"domain": "giant.bank.example", "published_policy": "reject", "organizational_domain": "giant.bank.example",
      "queries": names("www.giant.bank.example giant.bank.example bank.example")}),
    ("4.10.1 the PSD itself", "u@bank.example", "",
     {"domain": "bank.example", "published_policy": "quarantine", "organizational_domain": "bank.example",
      "queries": names("bank.example")}),
    ("4.10.1 PSD of one label", "u@gone.top", "",
     {"domain": "top", "published_policy": "quarantine", "organizational_domain": "gone.top"}),
    ("4.10.1 below a PSD of one label", "u@www.shop.top", "",
     {"domain": "shop.top", "published_policy": "reject", "organizational_domain": "shop.top"}),
    ("4.10.1 no record anywhere", "u@www.none.example", "dkim:www.none.example",
     {"result": "none", "domain": None, "policy": None, "published_policy": None, "disposition": "none",
      "reason": "no DMARC record",
      "queries": names("www.none.example none.example example")}),
    ("4.10.2 relaxed, identifier below", "u@example.com", "spf:bounce.example.com",
     {"result": "pass", "alignment": {"spf": "bounce.example.com", "dkim": None},
      "queries": names("example.com com bounce.example.com")}),
    ("4.10.2 relaxed, identifier above", "u@mail.example.com", "dkim:example.com",
     {"result": "pass", "alignment": {"spf": None, "dkim": "example.com"}, "policy": "quarantine"}),
    ("4.10.2 relaxed, siblings", "u@mail.example.com", "dkim:mx.example.com", {"result": "pass"}),
    ("4.10.2 another organisation", "u@mail.example.com", "dkim:example.net", {"result": "fail"}),
    ("4.10.2 a name that only ends alike", "u@example.com", "dkim:badexample.com", {"result": "fail"}),
    ("4.10.2 a name that only begins alike", "u@example.com", "dkim:example.com.evil.example", {"result": "fail"}),
    ("4.10.2 letter case", "u@EXAMPLE.com", "dkim:Example.COM", {"result": "pass", "domain": "example.com"}),
    ("4.10.2 final dots", "u@example.com.", "dkim:example.com.", {"result": "pass"}),
    ("4.10.2 psd=n is an island", "u@example.com", "dkim:a.island.example.com",
     {"result": "fail", "queries": names("example.com com a.island.example.com island.example.com")}),
    ("4.10.2 within the island", "u@a.island.example.com", "dkim:b.island.example.com",
     {"result": "pass", "domain": "island.example.com", "organizational_domain": "island.example.com"}),
    ("4.10.2 from the island outwards", "u@a.island.example.com", "dkim:example.com", {"result": "fail"}),
    ("4.10.2 two customers of a PSD", "u@giant.bank.example", "spf:mail.giant.bank.example dkim:mail.mega.bank.example",
     {"result": "pass", "alignment": {"spf": "mail.giant.bank.example", "dkim": None}}),
    ("4.10.2 a customer of a PSD by another", "u@giant.bank.example", "dkim:mail.mega.bank.example", {"result": "fail"}),
    ("4.10.2 a customer of a PSD by the PSD", "u@giant.bank.example", "dkim:bank.example", {"result": "fail"}),
    ("4.10.2 the common domain is the Organizational Domain", "u@own.example.com", "spf:own.example.com dkim:own.example.com",
     {"result": "pass", "organizational_domain": "own.example.com", "queries": names("own.example.com")}),
    ("4.10.2 records at several levels", "u@sub.own.example.com", "dkim:example.com",
     {"result": "pass", "domain": "sub.own.example.com", "organizational_domain": "example.com"}),
    ("4.4 strict needs no walk but to tell of the organization", "u@strict.example", "dkim:a.strict.example",
     {"result": "fail", "organizational_domain": "strict.example", "queries": names("strict.example example")}),
    ("4.4 strict below an organization", "u@a.strict.example.com", "dkim:b.a.strict.example.com",
     {"result": "fail", "domain": "a.strict.example.com", "organizational_domain": "example.com",
      "queries": names("a.strict.example.com strict.example.com example.com com")}),
    ("4.4 strict and identical", "u@strict.example", "spf:STRICT.example",
     {"result": "pass", "organizational_domain": "strict.example", "queries": names("strict.example")}),
    ("4.4 strict, and nobody can tell the organization", "u@half.down.example", "dkim:strict.half.down.example",
     {"result": "temperror", "organizational_domain": None}),
    ("4.4 strict for DKIM alone", "u@half.example", "dkim:a.half.example spf:b.half.example",
     {"result": "pass", "alignment": {"spf": "b.half.example", "dkim": None}}),
    ("4.4.1 any of several signatures", "u@example.com", "dkim:a.example dkim:b.example dkim:s.example.com",
     {"result": "pass", "alignment": {"spf": None, "dkim": "s.example.com"}}),
    ("4.7 t=y lowers reject", "u@test.example", "",
     {"result": "fail", "published_policy": "reject", "policy": "quarantine", "disposition": "quarantine"}),
    ("4.7 t=y lowers quarantine", "u@a.test.example", "",
     {"published_policy": "quarantine", "policy": "none", "disposition": "none"}),
    ("4.7 t=y and a pass", "u@test.example", "dkim:test.example", {"result": "pass", "disposition": "none"}),
    ("4.7 no p at all", "u@nop.example", "", {"result": "fail", "published_policy": "none", "disposition": "none"}),
    ("4.7 no p, but sp", "u@a.nopsp.example", "", {"published_policy": "reject", "disposition": "reject"}),
    ("4.10.1 wrong p without rua", "u@badp.example", "dkim:badp.example",
     {"result": "permerror", "policy": None, "disposition": "none", "organizational_domain": None,
      "queries": names("badp.example")}),
    ("4.10.1 wrong p with rua", "u@badprua.example", "", {"result": "fail", "published_policy": "none"}),
    ("4.10.1 wrong p, wrong rua", "u@badpbadrua.example", "", {"result": "permerror"}),
    ("4.10.1 wrong sp with rua", "u@badsp.example", "", {"result": "fail", "published_policy": "none"}),
    ("4.10.1 wrong np without rua", "u@badnp.example", "", {"result": "permerror"}),
    ("4.8 wrong and unknown tags are ignored", "u@badtags.example", "dkim:x.badtags.example",
     {"result": "pass", "published_policy": "reject", "policy": "reject"}),
    ("4.8 white space and letter case of tags", "u@loose.example", "dkim:x.loose.example",
     {"result": "fail", "policy": "reject"}),
    ("4.8 no blank behind the version", "u@bare.example", "", {"policy": "reject"}),
    ("4.7 version in lower case", "u@lower.example", "", {"result": "none"}),
    ("4.7 white space in front of the version", "u@space.example", "", {"result": "none"}),
    ("4.7 version not first", "u@second.example", "", {"result": "none"}),
    ("4.7 another version", "u@version.example", "", {"result": "none"}),
    ("4.7 a version that only begins so", "u@glued.example", "", {"result": "none"}),
    ("4.10 two records", "u@twice.example", "dkim:twice.example",
     {"result": "none", "reason": "more than one DMARC record at one name: none counts"}),
    ("4.10 two records below one that counts", "u@twice.example.com", "",
     {"result": "fail", "domain": "example.com", "reason": "no authenticated identifier"}),
    ("4.10 other TXT records beside it", "u@mixed.example", "", {"result": "fail", "policy": "reject"}),
    ("4.5 several strings", "u@pieces.example", "", {"policy": "reject"}),
    ("a record behind a CNAME", "u@moved.example", "", {"domain": "moved.example", "policy": "reject"}),
    ("a record that needs TCP", "u@big.example", "", {"policy": "reject"}),
    ("U-labels", "u@b\u00fccher.example", "dkim:B\u00dcCHER.example",
     {"result": "pass", "domain": "xn--bcher-kva.example", "queries": names("xn--bcher-kva.example")}),
    ("SERVFAIL of the author's record", "u@down.example", "dkim:down.example",
     {"result": "temperror", "policy": None, "disposition": "none", "queries": names("down.example")}),
    ("REFUSED of the author's record", "u@refused.example", "", {"result": "temperror"}),
    ("SERVFAIL on the walk", "u@x.down.example", "", {"result": "temperror"}),
    ("SERVFAIL of an identifier that could be aligned", "u@example.com", "dkim:a.unsure.example.com",
     {"result": "temperror", "disposition": "none"}),
    ("SERVFAIL of one that could not", "u@example.com", "dkim:down.example", {"result": "fail", "disposition": "reject"}),
    ("SERVFAIL of one identifier, the other aligned", "u@example.com", "dkim:a.unsure.example.com spf:a.example.com",
     {"result": "pass"}),
    ("SERVFAIL above where nothing above matters", "u@half.down.example", "dkim:half.down.example", {"result": "pass"}),
    ("existence that cannot be asked", "u@down2.example.com", "", {"result": "temperror", "disposition": "none"}),
    ("11.5 two authors, one domain", "a@example.com, b@example.com", "dkim:example.com", {"result": "pass"}),
    ("11.5 two domains never pass", "a@example.com, b@test.example", "dkim:example.com dkim:test.example",
     {"result": "permerror", "disposition": "none"}),
    ("11.5 the strictest that is failed", "a@nop.example, b@example.com", "dkim:nop.example",
     {"result": "fail", "disposition": "reject"}),
    ("a display name", "\"Doe, Joe\" <joe@example.com>", "dkim:example.com", {"result": "pass"}),
    ("a comment", "joe@example.com (joe@evil.example)", "dkim:example.com", {"result": "pass"}),
    ("a bare domain", "example.com", "dkim:example.com", {"result": "pass"}),
    ("no address", "<>", "dkim:example.com", {"result": "permerror", "disposition": "none"}),
    ("an address literal", "u@[192.0.2.1]", "", {"result": "permerror"}),
    ("an empty label", "u@a..example.com", "dkim:example.com", {"result": "permerror", "disposition": "none"}),
    ("an empty label, unsigned", "u@a..example.com", "", {"result": "fail", "disposition": "reject"}),
    ("an empty label between two", "u@example..com", "dkim:example.com", {"result": "permerror"}),
    ("an empty label between two, unsigned", "u@example..com", "spf:evil.example",
     {"result": "fail", "domain": "example.com", "disposition": "reject"}),
    ("an empty label in front", "Joe <u@.example.com>", "", {"result": "fail", "disposition": "reject"}),
    ("an empty label where nobody has a policy", "u@a..none.example", "", {"result": "permerror", "domain": None}),
    ("a label of 64 bytes", "u@" + "a" * 64 + ".example.com", "dkim:example.com", {"result": "permerror"}),
    ("a label of 64 bytes, unsigned", "u@" + "a" * 64 + ".example.com", "",
     {"result": "fail", "domain": "example.com", "disposition": "reject"}),
    ("a label that no host has", "u@x-.mail.example.com", "", {"result": "fail", "published_policy": "quarantine"}),
)
PSL_CASES = (
    ("psl: the registered domain", "u@mail.example.com", "dkim:x.example.com",
     {"result": "pass", "domain": "example.com", "organizational_domain": "example.com",
      "queries": names("mail.example.com example.com")}),
    ("psl: two labels of suffix", "u@a.b.shop.co.uk", "",
     {"result": "none", "organizational_domain": "shop.co.uk", "queries": names("a.b.shop.co.uk shop.co.uk")}),
    ("psl: psd= does not matter", "u@a.island.example.com", "dkim:example.com", {"result": "pass"}),
    ("psl: own record", "u@own.example.com", "", {"domain": "own.example.com", "organizational_domain": "example.com"}),
)


def form_problem(verdict):
    """What is wrong with the form of a verdict, whatever it says."""
    if list(verdict) != list(KEYS):
        return "the keys are %s" % list(verdict)
    for key, kind in KEYS.items():
        if not isinstance(verdict[key], kind):
            return "%s is %r" % (key, verdict[key])
        if key in WORDS and verdict[key] not in WORDS[key]:
            return "%s is %r" % (key, verdict[key])
    if list(verdict["alignment"]) != ["spf", "dkim"]:
        return "the alignment is %r" % verdict["alignment"]
    if len(set(verdict["queries"])) != len(verdict["queries"]):
        return "a name is in queries twice"
    if (verdict["result"] == "pass") != any(verdict["alignment"].values()) or \
            (verdict["result"] != "fail" and verdict["disposition"] != "none"):
        return "the parts contradict each other"
    return None


def problem_of(postern, server, case, discovery):
    _, author, identifiers, wanted = case
    words = [postern, "dmarc", "check", "--from", author, "--resolver", server.address, "--dmarc-discovery", discovery]
    for identifier in identifiers.split():
        kind, _, domain = identifier.partition(":")
        words += ["--%s-pass" % kind, domain]
    server.queries.clear()
    done = subprocess.run(words, capture_output=True, timeout=60, check=False)
    if done.returncode != 0:
        return "exit %d: %s" % (done.returncode, done.stderr.decode())
    verdict = json.loads(done.stdout)
    for key, value in wanted.items():
        if verdict[key] != value:
            return "%s is %r instead of %r" % (key, verdict[key], value)
    asked = [name for name, _, _ in server.queries if name.startswith("_dmarc.")]
    # A name may be asked more than once on the wire (TCP, a server that fails).
    if sorted(set(asked) - {"_dmarc.hosted.example.net"}) != sorted(verdict["queries"]):
        return "asked for %s, but says %s" % (asked, verdict["queries"])
    return form_problem(verdict)


def run_suite(postern):
    """Yields (group, case, problem or None)."""
    with Server(ZONE) as server:
        for discovery, cases in (("tree", CASES), ("psl", PSL_CASES)):
            for case in cases:
                yield discovery, case[0], problem_of(postern, server, case, discovery)


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
    print("dmarc_rfc9989: %d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
