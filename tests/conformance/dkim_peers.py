#!/usr/bin/python3
"""Thousands of generated signatures, judged by `postern auth check` and by
three other verifiers: dkimpy, Mail::DKIM and OpenDKIM.

    dkim_peers.py POSTERN [--count N] [--seed N] [--verbose]

Each message is signed here by a small signer of its own (nothing of ours), with
variations that RFC 6376 allows; one in two is then spoilt.  What must come out
is known from how it was made.  Prints one JSON object: "wrong" lists our wrong
verdicts, and "peers" says for each other verifier, change by change, how often
it disagrees.

It needs python3-dkim of the system's own Python, hence the first line.
"""
import argparse
import base64
import collections
import hashlib
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time

import dkim
import dkim.crypto
import nacl.signing

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from tests.dns.dnsd import Server  # noqa: E402

NOW = int(time.time())  # the others know no other time
DOMAIN = "example.com"
PERL = pathlib.Path(__file__).with_name("dkim_peers.pl")


# Keys

def der(pem_or_key, *argv):
    return subprocess.run(["openssl", *argv], input=pem_or_key, capture_output=True, check=True).stdout


class Rsa:
    def __init__(self, bits=1024):
        pem = der(b"", "genpkey", "-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{bits}")
        self.private = dkim.crypto.parse_pem_private_key(der(pem, "rsa", "-traditional"))
        self.spki = der(pem, "pkey", "-pubout", "-outform", "DER")
        self.plain = der(pem, "rsa", "-RSAPublicKey_out", "-outform", "DER")
        self.algorithm, self.kind = "rsa-sha256", "rsa"

    def sign(self, data):
        return dkim.crypto.RSASSA_PKCS1_v1_5_sign(hashlib.sha256(data), self.private)


class Ed25519:
    algorithm, kind = "ed25519-sha256", "ed25519"

    def __init__(self):
        self.private = nacl.signing.SigningKey(bytes(range(32)))
        self.spki = self.plain = bytes(self.private.verify_key)

    def sign(self, data):
        return self.private.sign(hashlib.sha256(data).digest()).signature


# RFC 6376 section 3.4, once more and plainly

def relaxed_header(name, value):
    value = re.sub(rb"[ \t]+", b" ", value.replace(b"\r\n", b"")).strip(b" ")
    return name.lower().rstrip(b" \t") + b":" + value


def simple_header(name, value):
    return name + b":" + value


def relaxed_body(body):
    lines = [re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in body.split(b"\r\n")]
    while lines and not lines[-1]:
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines)


def simple_body(body):
    while body.endswith(b"\r\n"):
        body = body[:-2]
    return body + b"\r\n"


HEADERS = {"simple": simple_header, "relaxed": relaxed_header}
BODY_FORMS = {"simple": simple_body, "relaxed": relaxed_body}


class Message:
    """A message, its signature field to be, and the key record."""

    def __init__(self, rng, number, key):
        self.rng, self.key, self.selector = rng, key, f"s{number}"
        self.fields = [(b"From", b" A <a@example.com>"), (b"To", b" b@example.net"),
                       (b"Subject", b" Some  text"), (b"Date", b" Mon, 1 Jan 2024 00:00:00 +0000")]
        self.body = b"Hello\r\n\r\nworld  of \t blanks \r\n"
        self.header_form, self.body_form = rng.choice(["simple", "relaxed"]), rng.choice(["simple", "relaxed"])
        self.names = ["From", "To", "Subject", "Date"]
        self.tags = {"v": "1", "a": key.algorithm, "c": f"{self.header_form}/{self.body_form}", "d": DOMAIN,
                     "s": self.selector, "h": None, "bh": None, "b": ""}
        self.record = [f"v=DKIM1; k={key.kind}; p={base64.b64encode(key.spki).decode()}"]
        self.own_name = b"DKIM-Signature"
        self.join, self.equals, self.end, self.colon = "; ", "=", "", ":"
        self.limit = None
        self.fold_b = rng.choice([0, 20, 60])
        self.raw_rows = None
        self.notes = []

    def pick(self):
        """The fields that are signed, bottom up for each name."""
        left, out = list(self.fields), []
        for name in self.names:
            for i in range(len(left) - 1, -1, -1):
                if left[i][0].strip().lower() == name.strip().lower().encode():
                    out.append(left.pop(i))
                    break
        return out

    def fold(self, text):
        return "\r\n\t".join(text[i:i + self.fold_b] for i in range(0, len(text), self.fold_b)) if self.fold_b else text

    def sign(self):
        body = BODY_FORMS[self.body_form](self.body)
        if self.limit == "whole":
            self.tags["l"] = str(len(body))
        elif self.limit is not None:
            self.tags["l"] = str(self.limit)
            body = body[:self.limit]
        if self.tags["bh"] is None:
            self.tags["bh"] = base64.b64encode(hashlib.sha256(body).digest()).decode()
        if self.tags["h"] is None:
            self.tags["h"] = self.colon.join(self.names)
        unsigned = self.field("")
        form = HEADERS[self.header_form]
        data = b"".join(form(*f) + b"\r\n" for f in self.pick()) + form(self.own_name, unsigned)
        self.signature = self.key.sign(data)
        self.value = self.field(self.fold(base64.b64encode(self.signature).decode()))

    def field(self, b):
        """The value; white space next to b= is a part of it (section 3.7)."""
        tags = [f"{name}{self.equals}{'{b}' if name == 'b' else value}" for name, value in self.tags.items()]
        text = " " + self.join.join(tags) + self.end
        return (text.replace("{b}", b) if b else re.sub(r"\s*\{b\}\s*", "", text)).encode()

    def text(self):
        fields = [(self.own_name, self.value)] + self.fields
        return b"".join(n + b":" + v + b"\r\n" for n, v in fields) + b"\r\n" + self.body

    def rows(self):
        return self.raw_rows if self.raw_rows is not None else [["TXT", r] for r in self.record]


# What may be done before signing without harm

def tag_moves(m):
    items = list(m.tags.items())
    m.rng.shuffle(items)
    m.tags = dict(items)


def tag_folding(m):
    m.join, m.equals = m.rng.choice([(";\r\n\t", "="), (" ;  ", " = "), (";", "\r\n ="), (";\r\n \t", "=\r\n "), (";", "=")])


def tag_end(m):
    m.end = m.rng.choice([";", " ;", ""])


def unknown_tags(m):
    m.tags["x_y2"] = "any thing=:/"
    m.tags["z"] = "From:a@example.com|To:b=20c"


def query_tag(m):
    m.tags["q"] = m.rng.choice(["dns/txt", "other/x:dns/txt", "dns/txt : xyz"])


def identity(m):
    m.tags["i"] = m.rng.choice(["@example.com", "joe@example.com", "joe@sub.example.com", "a=20b@example.com"])


def times(m):
    m.tags["t"] = str(NOW - 10)
    m.tags["x"] = str(NOW + 1000)


def name_list(m):
    m.names = m.rng.choice([["from", "TO", "sUbject"], ["From", "From", "To"], ["From", "X-Absent", "To", "to", "Subject"],
                            ["Date", "From"], ["From"]])
    m.colon = m.rng.choice([":", " : ", ":\r\n\t"])


def several_fields(m):
    m.fields += [(b"Received", b" one"), (b"X-T", b" 1"), (b"X-T", b" 2"), (b"X-T", b" 3")]
    m.names = ["From", "X-T", "X-T", "Subject"]


def odd_fields(m):
    m.fields += m.rng.choice([[(b"X-Empty", b"")], [(b"X-Blank", b"  ")], [(b"X-Fold", b" a\r\n  b\r\n\t\tc")],
                              [(b"X-Late", b"\r\n late")], [(b"X-8bit", b" \xc3\xa4\xff")], [(b"X-Tabs", b"\ta\t\t b \t")],
                              [(b"SUBJECT", b"x")]])
    m.names = m.names + [m.fields[-1][0].decode()]


def own_signature_named(m):
    m.names = m.names + ["DKIM-Signature"]


def odd_bodies(m):
    m.body = m.rng.choice([b"", b"\r\n", b"\r\n\r\n\r\n", b"x", b"x\r\n\r\n\r\n", b" \t\r\n", b" \r\n\t\r\n\r\n", b"\tx\t \ty  \r\n",
                           b"a\r\n \r\n", b"\r\n\r\nx\r\n", b"a  \t", b"\xff\xfe 8bit\r\n", b"." * 3000 + b"\r\n",
                           b"a b\r\n" * 2000, b"From me\r\n.\r\n..\r\n"])


def one_canon(m):
    m.body_form = "simple"
    m.tags["c"] = m.header_form
    if m.header_form == "simple" and m.rng.random() < 0.5:
        del m.tags["c"]


def body_limit(m):
    m.limit = "whole"


def record_forms(m):
    p, kind = base64.b64encode(m.key.spki).decode(), m.key.kind
    default = [f"p={p}", f"v=DKIM1; p={p}"] if kind == "rsa" else []
    m.record = [m.rng.choice(default + [
        f"v=DKIM1;k={kind};p={p};", f" v = DKIM1 ; k = {kind} ; p = {p} ", f"v=DKIM1; p={p}; k={kind}; n=a=20note",
        f"k={kind}; t=y; p={p}", f"v=DKIM1; k={kind}; h=sha256; p={p}", f"v=DKIM1; k={kind}; h=sha1:sha256; s=email; p={p}",
        f"v=DKIM1; k={kind}; s=*; t=; p={p[:20]} {p[20:40]}  {p[40:]}", f"v=DKIM1; k={kind}; s=tlsrpt:email; x=1; p={p}",
        f"v=DKIM1; k={kind}; t=y{':s' if 'i' not in m.tags else ''}:zz; p={p}"])]


def record_strings(m):
    text = m.record[0]
    cut = sorted(m.rng.randrange(len(text)) for _ in range(3))
    m.raw_rows = [["TXT", [text[:cut[0]], text[cut[0]:cut[1]], text[cut[1]:cut[2]], text[cut[2]:]]]]


def record_plain(m):
    if m.key.kind == "rsa":
        m.record = [f"v=DKIM1; p={base64.b64encode(m.key.plain).decode()}"]


def record_alias(m):
    m.raw_rows = [["CNAME", f"{m.selector}.keys.example.net"]]
    m.notes.append(("alias", f"{m.selector}.keys.example.net"))


# Those that touch tags stand in front of those that look at them.
ALLOWED = [tag_moves, tag_folding, tag_end, unknown_tags, query_tag, identity, times, name_list, several_fields, odd_fields,
           own_signature_named, odd_bodies, one_canon, body_limit, record_forms, record_strings, record_plain, record_alias]


# What must not pass, done before signing

def bad_tag(m):
    name, value = m.rng.choice([("v", "2"), ("v", "1.0"), ("a", "rsa-md5"), ("c", "nowsp"), ("c", "relaxed/other"), ("q", "http"),
                                ("i", "joe@example.net"), ("i", "@xexample.com"), ("i", "example.com"), ("i", "joe@com"),
                                ("l", "-1"), ("l", "1x"), ("t", "soon"), ("t", "-5"), ("x", "1.5"), ("d", "exa mple.com"), ("s", "a b"), ("d", "")])
    m.tags[name] = value


def expired(m):
    m.tags["t"], m.tags["x"] = str(NOW - 100), str(NOW - 50)


def expiry_before_time(m):
    m.tags["t"], m.tags["x"] = str(NOW - 10), str(NOW - 20 + m.rng.choice([0, 10]))
    m.tags["t"] = str(NOW + 100)
    m.tags["x"] = str(NOW + 100 - m.rng.choice([0, 1, 50]))


def missing_tag(m):
    del m.tags[m.rng.choice(["v", "a", "d", "s"])]


def repeated_tag(m):
    m.end = m.rng.choice(["; v=1", "; h=From", "; x_y=1; x_y=1", "; s=" + m.selector])


def empty_tag(m):
    m.join = ";;"


def from_unsigned(m):
    m.names = ["To", "Subject"]


def short_limit(m):
    m.body, m.limit = b"0123456789\r\n", 5


def zero_limit(m):
    m.body, m.limit = b"text\r\n", 0


def long_limit(m):
    m.limit = 100000


def limit_and_open_type(m):
    m.limit = "whole"
    m.fields.append((b"Content-Type", b" text/html"))


SPOILT_BEFORE = [bad_tag, expired, expiry_before_time, missing_tag, repeated_tag, empty_tag, from_unsigned, short_limit, zero_limit,
                 long_limit, limit_and_open_type]


# ... and after

def other_body(m):
    m.body += m.rng.choice([b"x", b"x\r\n", b" x\r\n", b"\r\n\r\nx"])


def other_field(m):
    n, v = m.fields[0]
    m.fields[0] = (n, v.replace(b"a@", b"e@"))


def second_from(m):
    m.fields.append((b"From", b" e@example.net"))


def other_signature(m):
    raw = bytearray(m.signature)
    raw[m.rng.randrange(len(raw))] ^= 1 << m.rng.randrange(8)
    m.signature = bytes(raw)
    m.value = m.field(base64.b64encode(m.signature).decode())


def bad_base64(m):
    m.value = m.field(m.rng.choice(["", "*", "A", "====", "A-_A"]))


def changed_tag(m):
    m.tags["x_new"] = "1"
    m.value = m.field(base64.b64encode(m.signature).decode())


def record_gone(m):
    m.raw_rows = []


def record_bad(m):
    p, kind = base64.b64encode(m.key.spki).decode(), m.key.kind
    m.record = [m.rng.choice([
        f"v=DKIM1; k={kind}; p=", f"v=DKIM2; k={kind}; p={p}", f"k={kind}; p={p}; v=DKIM1", f"v=DKIM1; k=other; p={p}",
        f"v=DKIM1; k={kind}; h=sha1; p={p}", f"v=DKIM1; k={kind}; s=tlsrpt; p={p}", f"v=DKIM1; k={kind}",
        f"v=DKIM1; k={kind}; p={p}; p={p}", f"v=DKIM1; k={kind}; p=A", f"v=DKIM1; k={kind}; p={p[:-12]}", f"v=DKIM1;; p={p}",
        "v=spf1 -all", "", "p", f"v=dkim1; k={kind}; p={p}", f"v=DKIM1; k={'rsa' if kind != 'rsa' else 'ed25519'}; p={p}"])]


def strict_below(m):
    m.record = [m.record[0].replace("p=", "t=s; p=")]
    m.tags["i"] = "@sub.example.com"


SPOILT_AFTER = [other_body, other_field, second_from, other_signature, bad_base64, changed_tag, record_gone, record_bad]
SPOILT_BEFORE.append(strict_below)
# Rows of the table that these two cannot both use.
RECORD_CHANGES = {"record_forms", "record_strings", "record_plain", "record_alias", "record_gone", "record_bad", "strict_below"}
TAG_CHANGES = {"bad_tag", "missing_tag", "repeated_tag", "identity", "times", "one_canon", "query_tag", "strict_below",
               "expired", "expiry_before_time"}


def make(rng, number, keys):
    """A message and whether its signature passes; None where the mixture says nothing."""
    m = Message(rng, number, rng.choice(keys))
    spoil = rng.random() < 0.5
    bad = rng.choice(SPOILT_BEFORE + SPOILT_AFTER) if spoil else None
    good = rng.sample(ALLOWED, rng.randrange(4))
    taken = {bad.__name__} if bad else set()
    chosen = []
    for change in good:
        name = change.__name__
        clash = any(name in group and taken & group for group in (RECORD_CHANGES, TAG_CHANGES))
        if clash or (name in ("odd_bodies", "body_limit", "name_list", "several_fields") and bad) or \
                (name == "body_limit" and "odd_bodies" in taken) or name in taken:
            continue
        taken.add(name)
        chosen.append(change)
    for change in sorted(chosen, key=ALLOWED.index):
        change(m)
    if bad in SPOILT_BEFORE:
        bad(m)
    m.sign()
    if bad in SPOILT_AFTER:
        bad(m)
    return m, sorted(taken), bad is None


# The verifiers: each says whether the signature passes

def ours(postern, m, server):
    done = subprocess.run([postern, "auth", "check", "--ip", "192.0.2.1", "--helo", "h.example.net", "--mail-from", "", "--now",
                           str(NOW), "--resolver", server.address], input=m.text(), capture_output=True, timeout=60, check=False)
    if done.returncode != 0:
        return None, f"exit {done.returncode}: {done.stderr.decode()}"
    verdict = json.loads(done.stdout)["dkim"][0]
    return verdict["result"] == "pass", f"{verdict['result']}: {verdict['reason']}"


def by_dkimpy(m, zone):
    def txt(name, **_):
        found, _ = zone.resolve(name.decode().rstrip(".").lower(), 16)
        texts = ["".join([r[1]] if isinstance(r[1], str) else r[1]) for _, r in found if r[0] == "TXT"]
        return texts[0].encode() if texts else None
    try:
        return dkim.verify(m.text(), dnsfunc=txt)
    except Exception:  # it is not always its own kind of exception
        return False


class ByPerl:
    """Mail::DKIM::Verifier in one process."""

    def __init__(self, server, folder):
        self.path = folder / "message"
        self.child = subprocess.Popen([str(PERL), str(server.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def judge(self, m):
        self.path.write_bytes(m.text())
        self.child.stdin.write(f"{self.path}\n")
        self.child.stdin.flush()
        return self.child.stdout.readline().strip() == "pass"

    def close(self):
        self.child.stdin.close()
        self.child.wait()


def by_opendkim(m, zone, folder):
    found, _ = zone.resolve(f"{m.selector}._domainkey.{DOMAIN}", 16)
    texts = ["".join([r[1]] if isinstance(r[1], str) else r[1]) for _, r in found if r[0] == "TXT"]
    (folder / "records").write_text("".join(f"{m.selector}._domainkey.{DOMAIN} {t}\n" for t in texts))
    (folder / "conf").write_text(f"Mode v\nTestDNSData {folder}/records\n")
    (folder / "mail").write_bytes(m.text())
    done = subprocess.run(["opendkim", "-x", folder / "conf", "-v", "-t", folder / "mail"], capture_output=True, timeout=60, check=False)
    return b"succeeded" in done.stdout + done.stderr


def run(postern, count, seed, verbose=False):
    rng = random.Random(seed)
    keys = [Rsa(), Ed25519()]
    wrong, peers = [], {name: collections.Counter() for name in ("dkimpy", "Mail::DKIM", "opendkim")}
    judged = collections.Counter()
    with tempfile.TemporaryDirectory() as name, Server({"example.com": []}) as server:
        folder = pathlib.Path(name)
        perl = ByPerl(server, folder)
        for number in range(count):
            m, changes, passes = make(rng, number, keys)
            key_name = f"{m.selector}._domainkey.{DOMAIN}"
            rows = {key_name: m.rows()}
            for _, alias in m.notes:
                rows[alias] = [["TXT", r] for r in m.record]
            server.zone.rows.update(rows)
            got, why = ours(postern, m, server)
            judged["pass" if passes else "spoilt"] += 1
            if got is not passes:
                wrong.append({"number": number, "changes": changes, "wanted": passes, "got": why, "record": m.rows(),
                              "message": m.text().decode("latin-1")[:1500]})
            others = {"dkimpy": by_dkimpy(m, server.zone)}
            if m.key.kind == "rsa":  # Debian's others know no Ed25519
                others["Mail::DKIM"] = perl.judge(m)
                others["opendkim"] = by_opendkim(m, server.zone, folder)
            for peer, verdict in others.items():
                judged[peer] += 1
                if verdict is not passes:
                    peers[peer]["+".join(changes) + (" is refused" if passes else " passes")] += 1
                    if verbose:
                        print(peer, verdict, changes, m.value, m.fields, m.body[:60], m.rows(), file=sys.stderr)
        perl.close()
    return {"judged": judged, "wrong": wrong, "peers": {k: dict(v.most_common()) for k, v in peers.items()}}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("postern")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    result = run(options.postern, options.count, options.seed, options.verbose)
    print(json.dumps(result, indent=1))
    return 1 if result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
