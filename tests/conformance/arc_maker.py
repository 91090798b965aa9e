"""Makes ARC sets as RFC 8617 has them, or as it forbids them, with code of its
own: nothing here is shared with milter-dkim."""
import base64
import hashlib
import os
import re
import subprocess

NAMES = ("ARC-Authentication-Results", "ARC-Message-Signature", "ARC-Seal")


def openssl(*argv, data=b""):
    return subprocess.run(["openssl", *argv], input=data, capture_output=True, check=True).stdout


class Key:
    """A private key in a file of FOLDER and the record of its public half."""

    def __init__(self, folder, kind="rsa", bits=1024):
        self.kind, self.algorithm = kind, kind + "-sha256"
        self.path = os.path.join(folder, "%s%d.pem" % (kind, bits))
        if kind == "rsa":
            openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:%d" % bits, "-out", self.path)
        else:
            openssl("genpkey", "-algorithm", "ed25519", "-out", self.path)
        public = openssl("pkey", "-in", self.path, "-pubout", "-outform", "DER")
        self.public = base64.b64encode(public if kind == "rsa" else public[-32:]).decode()

    def record(self, more=""):
        return "v=DKIM1; k=%s;%s p=%s" % (self.kind, more, self.public)

    def sign(self, data):
        if self.kind == "rsa":
            return openssl("dgst", "-sha256", "-sign", self.path, data=data)
        digest = os.path.join(os.path.dirname(self.path), "digest")
        with open(digest, "wb") as stream:
            stream.write(hashlib.sha256(data).digest())
        return openssl("pkeyutl", "-sign", "-inkey", self.path, "-rawin", "-in", digest)


def relaxed_field(name, value):
    return (name.lower() + ":" + re.sub(r"[ \t]+", " ", re.sub(r"\r\n", "", value)).strip() + "\r\n").encode()


def simple_field(name, value):
    return (name + ":" + value + "\r\n").encode()


def canonical_body(body, how):
    lines = body.split("\r\n")
    if lines[-1] == "":
        lines.pop()
    if how == "relaxed":
        lines = [re.sub(r"[ \t]+", " ", line).rstrip(" ") for line in lines]
    while lines and lines[-1] == "":
        lines.pop()
    text = "".join(line + "\r\n" for line in lines)
    return (text if text or how == "relaxed" else "\r\n").encode()


def split(message):
    """(fields, body); a field is a [name, value] with its folding."""
    head, _, body = message.partition("\r\n\r\n")
    fields = [re.split(":", field, maxsplit=1) for field in re.split(r"\r\n(?![ \t])", head) if field]
    return fields, body


def join(fields, body):
    return "".join(name + ":" + value + "\r\n" for name, value in fields) + "\r\n" + body


def without_b(value):
    return re.sub(r"((?:^|;)[ \t\r\n]*b[ \t\r\n]*=)[^;]*", r"\1", value, count=1)


def form(tags, change, more):
    """Tags as text: CHANGE maps a tag to another value, or to None to leave it
    out; MORE is put in front of b=."""
    parts = []
    for name, value in tags:
        value = change.get(name, value)
        if name == "b":
            parts += more
        if value is not None:
            parts.append("%s=%s" % (name, value))
    return " " + "; ".join(parts)


def put_b(text, raw):
    coded = base64.b64encode(raw).decode()
    coded = "\r\n\t".join(coded[i:i + 64] for i in range(0, len(coded), 64))
    return re.sub(r"((?:^|;)[ \t\r\n]*b[ \t\r\n]*=)", lambda m: m.group(1) + coded, text, count=1)


class Maker:
    """Adds sets to messages.  A change is made before it is signed, so that
    nothing but the change itself is wrong."""

    def __init__(self, key, domain="list.example", selector="s"):
        self.key, self.domain, self.selector = key, domain, selector

    def sign(self, text, data, change):
        if "b" in change or not re.search(r"(?:^|;)\s*b\s*=", text):
            return text
        return put_b(text, self.key.sign(data))

    def signature(self, fields, body, number, options):
        canon = options.get("canon", "relaxed/relaxed")
        names = options.get("names", "From:To:Subject:Date")
        header_canon, body_canon = (canon.split("/") + ["simple"])[:2]
        body_hash = base64.b64encode(hashlib.sha256(canonical_body(body, body_canon)).digest()).decode()
        change = options.get("ams", {})
        text = form([("i", number), ("a", self.key.algorithm), ("c", canon), ("d", self.domain), ("s", self.selector),
                     ("t", 1700000000 + number), ("h", names), ("bh", body_hash), ("b", "")],
                    change, options.get("ams_more", []))
        text = options.get("ams_form", lambda t: t)(text)
        canonical = relaxed_field if header_canon == "relaxed" else simple_field
        left, data = list(fields), b""
        for name in names.split(":"):
            for at in range(len(left) - 1, -1, -1):
                if left[at][0].strip().lower() == name.strip().lower():
                    data += canonical(*left.pop(at))
                    break
        data += canonical(NAMES[1], without_b(text))[:-2]
        return self.sign(text, data, change)

    def seal(self, sets, number, cv, options):
        change = options.get("seal", {})
        text = form([("i", number), ("a", self.key.algorithm), ("t", 1700000000 + number), ("cv", cv),
                     ("d", self.domain), ("s", self.selector), ("b", "")], change, options.get("seal_more", []))
        text = options.get("seal_form", lambda t: t)(text)
        data = b""
        for three in sets[:-1] if options.get("whole", cv != "fail") else []:
            data += b"".join(relaxed_field(*field) for field in three)
        order = options.get("order", (0, 1))
        data += b"".join(relaxed_field(*sets[-1][i]) for i in order)
        data += relaxed_field(NAMES[2], without_b(text))[:-2]
        return self.sign(text, data, change)

    def add(self, message, **options):
        """The message with one set more: the keywords number, cv, results (the
        text behind the instance), aar (the whole value), names, canon, ams,
        ams_more, ams_form, seal, seal_more, seal_form, whole, order."""
        fields, body = split(message)
        sets = {}
        for name, value in fields:
            if name.strip().lower() in [n.lower() for n in NAMES]:
                found = re.search(r"(?:^|;)\s*i\s*=\s*(\d+)", value)
                index = [n.lower() for n in NAMES].index(name.strip().lower())
                sets.setdefault(int(found.group(1)), [None] * 3)[index] = (name, value)
        number = options.get("number", max(sets, default=0) + 1)
        aar = options.get("aar", " i=%s; %s" % (number, options.get("results", "mx.list.example; spf=pass")))
        new = [NAMES[0], aar]
        signed = self.signature([new] + fields, body, number, options)
        chain = [sets[i] for i in sorted(sets)] + [[new, [NAMES[1], signed]]]
        cv = options.get("cv", "none" if number == 1 else "pass")
        seal = self.seal(chain, number, cv, options)
        return join([[NAMES[2], seal], [NAMES[1], signed], new] + fields, body)
