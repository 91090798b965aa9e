#!/usr/bin/env python3
"""Random trees of DMARC records, judged by `postern dmarc check` and by sections
4.7 to 4.10 of RFC 9989 once more, written down here as plainly as possible; or, as
in RFC 7489, by the public suffix list, read here by its own algorithm.

    dmarc_walk.py [--postern PATH] [--count N] [--seed N] [--discovery tree|psl]
"""
import argparse
import json
import os
import random
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
from tests.dns import dnsd  # noqa: E402

POLICIES = ["none", "quarantine", "reject"]
TAILS = ["com", "example.com", "bank.example"]
FAULTS = ("SERVFAIL", "REFUSED")
SUFFIXES = "/usr/share/publicsuffix/public_suffix_list.dat"
# Plain rules, rules with a wildcard and exceptions from them, a private one, and none.
PSL_TAILS = ["com", "example.com", "co.uk", "bbc.co.uk", "ck", "www.ck", "kawasaki.jp", "city.kawasaki.jp", "github.io", "test"]


class DnsFailed(Exception):
    pass


def parse(text):
    """The record, or None where it is not one of DMARC."""
    version, *rest = text.split(";")
    name, _, value = version.partition("=")
    if name[:1] in " \t" or name.strip(" \t").lower() != "v" or value.strip(" \t") != "DMARC1":
        return None
    tags = {}
    for item in rest:
        name, _, value = item.partition("=")
        tags.setdefault(name.strip(" \t").lower(), value.strip(" \t"))
    record = {"psd": "u", "t": "n", "adkim": "r", "aspf": "r"}
    for name, words in (("psd", "ynu"), ("t", "yn"), ("adkim", "rs"), ("aspf", "rs")):
        if tags.get(name, "").lower() in list(words):
            record[name] = tags[name].lower()
    wishes = {name: tags[name].lower() for name in ("p", "sp", "np") if name in tags}
    # The URIs of the generator are valid where they have a colon.
    record["invalid"] = not set(wishes.values()) <= set(POLICIES) and ":" not in tags.get("rua", "")
    if not set(wishes.values()) <= set(POLICIES):
        wishes = {}
    record["p"] = wishes.get("p", "none")
    record["sp"] = wishes.get("sp", record["p"])
    record["np"] = wishes.get("np", record["sp"])
    return record


class Judge:
    """One evaluation; `asked` lists the names in order."""

    def __init__(self, zone, author):
        self.zone, self.author, self.asked, self.found = zone, author, [], None

    def resolve(self, name, kind):
        answers, status = self.zone.resolve(name, dnsd.TYPES[kind])
        if status in FAULTS:
            raise DnsFailed
        return [row for _, row in answers if row[0] == kind], status

    def record(self, domain):
        name = "_dmarc." + domain
        if name not in self.asked:
            self.asked.append(name)
        rows, _ = self.resolve(name, "TXT")
        records = [r for r in (parse("".join(row[1])) for row in rows) if r]
        return records[0] if len(records) == 1 else None

    def walk(self, start):
        labels = start.split(".")
        names = [labels] + [labels[i:] for i in range(max(1, len(labels) - 7), len(labels))]
        found = []
        for name in (".".join(n) for n in names):
            record = self.record(name)
            if record:
                found.append((name, record))
                if record["psd"] != "u":
                    break
        return found

    def author_walk(self):
        if self.found is None:
            self.found = self.walk(self.author)
        return organizational(self.author, self.found)

    def discover(self):
        """(where, record) or (None, None)."""
        record = self.record(self.author)
        if record:
            return self.author, record
        home = self.author_walk()
        for name, record in self.found:
            if name == home or (record["psd"] == "y" and home not in dict(self.found)):
                return name, record
        return None, None

    def exists(self):
        return self.resolve(self.author, "A")[1] != dnsd.NXDOMAIN

    def align(self, record, identifiers):
        """({kind: domain}, whether DNS kept an answer from us)"""
        aligned, unsure = {"spf": None, "dkim": None}, False
        for kind, domain in sorted(identifiers, key=lambda i: i[1] != self.author):
            if aligned[kind]:
                continue
            if domain == self.author:
                aligned[kind] = domain
            if domain == self.author or record["a" + kind] == "s":
                continue
            try:
                home = self.author_walk()
            except DnsFailed:
                unsure = True
                continue
            try:
                if organizational(domain, self.walk(domain)) == home:
                    aligned[kind] = domain
            except DnsFailed:
                # What lies elsewhere cannot be aligned, whatever its walk would find.
                unsure = unsure or domain == home or domain.endswith("." + home)
        return aligned, unsure

    def verdict(self, identifiers):
        out = {"result": "temperror", "domain": None, "published_policy": None, "policy": None, "disposition": "none",
               "alignment": {"spf": None, "dkim": None}}
        try:
            out["domain"], record = self.discover()
        except DnsFailed:
            return out
        if record is None or record["invalid"]:
            out["result"] = "none" if record is None else "permerror"
            return out
        out["alignment"], unsure = self.align(record, identifiers)
        published = record["p"] if out["domain"] == self.author else record["sp"]
        if out["domain"] != self.author and record["sp"] != record["np"]:
            try:
                published = record["sp"] if self.exists() else record["np"]
            except DnsFailed:
                unsure = True
        level = POLICIES.index(published)
        out["published_policy"] = published
        out["policy"] = POLICIES[max(0, level - 1)] if record["t"] == "y" else published
        if any(out["alignment"].values()):
            out["result"] = "pass"
        elif not unsure:
            out["result"], out["disposition"] = "fail", out["policy"]
        self.complete(any(out["alignment"].values()), out)
        return out

    def complete(self, passed, out):
        """The Organizational Domain for whoever reads the verdict."""
        if out["result"] == "temperror":
            return
        try:
            out["organizational_domain"] = self.author if self.found is None and passed else self.author_walk()
        except DnsFailed:
            pass


class Suffixes:
    """https://publicsuffix.org/list/: of the rules that match the longest counts, an exception before all."""

    def __init__(self):
        with open(SUFFIXES, encoding="utf-8") as lines:
            words = [line.split()[0] for line in lines if line.split() and not line.startswith("//")]
        self.rules = {word for word in words if word.isascii()}

    def suffix(self, domain):
        labels = domain.split(".")
        longest = 1  # the rule "*"
        for i in range(len(labels)):
            name = ".".join(labels[i:])
            if "!" + name in self.rules:
                return ".".join(labels[i + 1:])
            if name in self.rules or ".".join(["*"] + labels[i + 1:]) in self.rules:
                longest = max(longest, len(labels) - i)
        return ".".join(labels[-longest:])

    def registered(self, domain):
        """The suffix and one label more; the domain itself where it is a suffix."""
        count = len(self.suffix(domain).split(".")) + 1
        return ".".join(domain.split(".")[-count:])


class OldJudge(Judge):
    """RFC 7489 sections 3.2 and 6.6.3, with the records of RFC 9989."""

    suffixes = None

    def registered(self, domain):
        OldJudge.suffixes = OldJudge.suffixes or Suffixes()
        return OldJudge.suffixes.registered(domain)

    def discover(self):
        record, home = self.record(self.author), self.registered(self.author)
        if record or home == self.author:
            return (self.author, record) if record else (None, None)
        record = self.record(home)
        return (home, record) if record else (None, None)

    def align(self, record, identifiers):
        aligned = {"spf": None, "dkim": None}
        for kind, domain in sorted(identifiers, key=lambda i: i[1] != self.author):
            same = self.registered(domain) == self.registered(self.author) and record["a" + kind] == "r"
            if not aligned[kind] and (same or domain == self.author):
                aligned[kind] = domain
        return aligned, False

    def complete(self, passed, out):
        out["organizational_domain"] = self.registered(self.author)


def organizational(start, found):
    for name, record in found:
        if record["psd"] == "n":
            return name
        if record["psd"] == "y" and name != start:
            return ".".join(start.split(".")[-len(name.split(".")) - 1:])
    return found[-1][0] if found else start


def random_record(rng):
    tags = []
    for name, chance in (("p", 0.93), ("sp", 0.4), ("np", 0.4)):
        if rng.random() < chance:
            tags.append("%s=%s" % (name, rng.choice(POLICIES * 8 + ["block", "", "Reject"])))
    for name, chance, words in (("psd", 0.3, "ynuYz"), ("t", 0.2, "ynYx"), ("adkim", 0.15, "rsSx"), ("aspf", 0.15, "rsSx")):
        if rng.random() < chance:
            tags.append("%s=%s" % (name, rng.choice(words)))
    if rng.random() < 0.2:
        tags.append("rua=" + rng.choice(["mailto:a@b.example", "mailto:a@b.example!10m", ",mailto:a@b.example", "x", ","]))
    if rng.random() < 0.1:
        tags.append(rng.choice(["pct=0", "foo", "=", "P=reject", "rf=afrf"]))
    if rng.random() < 0.3:
        rng.shuffle(tags)
    version = rng.choice(["v=DMARC1"] * 20 + ["v=dmarc1", " v=DMARC1", "v = DMARC1", "V=DMARC1", "v=DMARC1x", "v"])
    text = rng.choice([";", "; ", " ; ", ";\t"]).join([version] + tags) + rng.choice(["", ";", ";;"])
    cut = rng.randrange(len(text))
    return ["TXT", [text[:cut], text[cut:]] if rng.random() < 0.1 else text]


def near(rng, author):
    labels = author.split(".")
    below = [rng.choice("abc") for _ in range(rng.choice([0, 0, 1, 1, 2, 3]))]
    return ".".join(below + labels[rng.randrange(len(labels)):])


def random_case(rng, tails):
    """The author, the identifiers and the zone."""
    letters = "abc"[:rng.randrange(1, 4)]
    author = ".".join([rng.choice(letters) for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 4, 5, 6, 7, 9]))] + [rng.choice(tails)])
    identifiers = [("spf", near(rng, author))] if rng.random() < 0.5 else []
    identifiers += [("dkim", near(rng, author)) for _ in range(rng.choice([0, 1, 1, 2, 3, 5]))]
    names = set()
    for domain in [author] + [i[1] for i in identifiers]:
        labels = domain.split(".")
        names.update(".".join(labels[i:]) for i in range(len(labels)))
    zone, density = {}, rng.choice([0.1, 0.3, 0.6, 1])
    for name in sorted(names):
        if rng.random() < density:
            fault = rng.random() < 0.05
            count = rng.choice([1] * 12 + [2])
            zone["_dmarc." + name] = [[rng.choice(FAULTS)] if fault else random_record(rng) for _ in range(count)]
        host = rng.choice([None] * 8 + [["A", "192.0.2.1"], ["MX", 1, "mx.test"], ["SERVFAIL"], ["CNAME", "nothing.test"]])
        if host:
            zone[name] = [host]
    return author, identifiers, zone


def problem_of(postern, server, case, old):
    author, identifiers, zone = case
    server.zone = dnsd.Zone(zone)
    judge = (OldJudge if old else Judge)(server.zone, author)
    wanted = judge.verdict(identifiers)
    words = [postern, "dmarc", "check", "--from", "u@" + author, "--resolver", server.address,
             "--dmarc-discovery", "psl" if old else "tree"]
    for kind, domain in identifiers:
        words += ["--%s-pass" % kind, domain]
    done = subprocess.run(words, capture_output=True, timeout=60, check=False)
    if done.returncode != 0:
        return "exit %d: %s" % (done.returncode, done.stderr.decode())
    got = json.loads(done.stdout)
    if got["queries"] != judge.asked:
        return "asked %s instead of %s" % (got["queries"], judge.asked)
    # Without a verdict only that counts.
    keys = wanted if wanted["result"] in ("pass", "fail", "none") else ["result", "disposition"]
    for key in keys:
        if got[key] != wanted[key]:
            return "%s is %r instead of %r" % (key, got[key], wanted[key])
    return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--postern", default=os.path.join(ROOT, "build", "bin", "postern"))
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--seed", type=int, default=9989)
    parser.add_argument("--discovery", choices=("tree", "psl"), default="tree")
    options = parser.parse_args()
    old = options.discovery == "psl"
    rng = random.Random(options.seed)
    passed = failed = 0
    with dnsd.Server({}) as server:
        for _ in range(options.count):
            case = random_case(rng, PSL_TAILS if old else TAILS)
            problem = problem_of(options.postern, server, case, old)
            passed += problem is None
            failed += problem is not None
            if problem is not None:
                print("FAIL %s: %s" % (case, problem))
    print("dmarc_walk: %d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
