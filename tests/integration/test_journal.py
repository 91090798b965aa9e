"""milter-dkim and a real journald: structured fields, a MESSAGE_ID for each kind of
event, and an entry of the catalog that explains it; and metrics that move.

As a program (`test_journal.py scene`) it lets the milter meet what it logs.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import types
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from tests.dns.dnsd import Server  # noqa: E402
from tests.frame.layout import REPO, Layout  # noqa: E402
from tests.frame.lone_milter import LoneMilter  # noqa: E402
from tests.frame.metrics import scrape  # noqa: E402
from tests.frame.milter import SOCKET, MilterClient, packet, strings  # noqa: E402
from tests.frame.wait import listens, wait_until  # noqa: E402

EVENT = re.compile(r'^EVENT\((\w+), "([0-9a-f]{32})", "(.*?)",', re.M)
KEY = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
BODY_HASH = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
OTHER_HASH = "A" * 43 + "="
NO_DATABASE = {"database_user": "nobody", "database_socket": "/nonexistent/mysqld.sock"}
ZONE = {
    "pass.example": [["TXT", "v=spf1 +all"]], "fail.example": [["TXT", "v=spf1 -all"]],
    "softfail.example": [["TXT", "v=spf1 ~all"]], "neutral.example": [["TXT", "v=spf1 ?all"]],
    "permerror.example": [["TXT", "v=spf1 nonsense"]], "temperror.example": [["SERVFAIL"]],
    "_dmarc.pass.example": [["TXT", "v=DMARC1; p=quarantine"]], "_dmarc.reject.example": [["TXT", "v=DMARC1; p=reject"]],
    "_dmarc.temperror.example": [["SERVFAIL"]],
    "_dmarc.permerror.example": [["TXT", "v=DMARC1; p=nonsense"]],
    "s._domainkey.pass.example": [["TXT", "v=DKIM1; p="]], "s._domainkey.temperror.example": [["SERVFAIL"]],
}
MOVED = {
    "postern_milter_messages_total": ("signed", "unsigned", "judged", "deferred", "rejected", "aborted"),
    "postern_milter_dkim_total": ("none", "fail", "permerror", "temperror"),
    "postern_milter_spf_total": ("none", "pass", "fail", "softfail", "neutral", "permerror", "temperror"),
    "postern_milter_dmarc_total": ("none", "pass", "fail", "permerror", "temperror"),
    "postern_milter_arc_total": ("none", "fail"),
}
ALSO_MOVED = ("postern_milter_signatures_total{algorithm=\"ed25519-sha256\"}", "postern_milter_quarantined_total",
              "postern_milter_forged_removed_total", "postern_milter_broken_keys_total",
              "postern_milter_dns_failures_total", "postern_milter_end_of_message_seconds_count",
              "postern_milter_dns_seconds_count", "postern_milter_dns_cache_entries")


def signature(domain, body_hash=BODY_HASH):
    return ("DKIM-Signature", f"v=1; a=rsa-sha256; c=relaxed/relaxed; d={domain}; s=s; h=From; bh={body_hash}; b=AAAA")


class Scene:
    """A milter below FOLDER, and what it is told."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.at = types.SimpleNamespace(path=lambda name: self.folder / {
            SOCKET: "milter.sock"}.get(name, pathlib.Path(name).name))

    def write(self, name, text):
        (self.folder / name).write_text(text)
        return self.folder / name

    def options(self, resolver):
        keys = self.write("KeyTable", f"good good.example:s:{KEY}\nbad bad.example:s:/nonexistent\nlost\n")
        table = self.write("SigningTable", "*@good.example good\n*@bad.example bad\n")
        hosts = self.write("hosts", "192.0.2.7\n10.0.0.0/99\n")
        return {"listen": f"unix:{self.folder}/milter.sock", "runtime_dir": self.folder, "state_dir": self.folder,
                "metrics_listen": f"unix:{self.folder}/milter-dkim.metrics.sock", "internal_hosts": hosts,
                "key_table": keys, "signing_table": f"refile:{table}", "resolver": resolver,
                "dmarc_enforce": "quarantine"}

    def message(self, author, fields=(), address=b"192.0.2.1", sender=None):
        header = [*fields, ("From", author)] if author else list(fields)
        with MilterClient(self) as client:
            return client.message([(name.encode(), b" " + value.encode()) for name, value in header],
                                  sender=f"<{sender or author}>".encode(), address=address)

    def play(self):
        for word in ("pass", "fail", "softfail", "neutral", "permerror", "temperror", "none"):
            self.message(f"a@{word}.example")
        self.message("a@pass.example", sender="a@fail.example")
        self.message("a@pass.example", [signature("pass.example", OTHER_HASH)])
        self.message("a@pass.example", [signature("pass.example")])
        self.message("a@temperror.example", [signature("temperror.example")])
        self.message("a@none.example", [("DKIM-Signature", "v=1; nonsense"), ("ARC-Seal", "i=1; x")])
        self.message("a@none.example", [("Authentication-Results", "mail.example.com; dkim=pass")])
        self.message("a@none.example", [("X", "y")] * 10001)
        for domain in ("good", "bad", "other"):
            self.message(f"a@{domain}.example", address=b"192.0.2.7")
        with MilterClient(self) as client:
            client.begin()
            client.send(packet(b"A"), packet(b"Q"))
            client.ended()
        with MilterClient(self) as client:
            client.send(packet(b"O", b"\0\0\0\2" + b"\0" * 8))
            client.ended()


def scene(**more):
    """The metrics after everything was played."""
    with tempfile.TemporaryDirectory() as folder, Server(ZONE) as dns:
        played = Scene(folder)
        options = played.options(dns.address) | more
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        with subprocess.Popen([Layout().build / "bin/milter-dkim", "-c", "/dev/null", *words],
                              stderr=subprocess.DEVNULL) as daemon:
            try:
                wait_until(lambda: listens(played.folder / "milter.sock"), what="milter-dkim")
                played.play()
                return scrape(played, "milter-dkim")
            finally:
                daemon.terminate()


class Lines(unittest.TestCase):
    """A message is found by whom and what the administrator knows of it, whatever became of it."""

    KNOWN = ("account=bob@good.example", "message_id_hdr=<1@good.example>")

    @staticmethod
    def say(milter, author, login=b"bob@good.example"):
        with MilterClient(milter) as client:
            client.negotiate()
            client.send(*client.opening(), packet(b"D", b"M" + strings(b"{auth_authen}", login)),
                        packet(b"M", strings(b"<bob@fail.example>")))
            client.read()
            return client.content([(b"From", b" " + author), (b"Message-ID", b"\n <1@good.example>")], [b"x"])[1]

    def test_what_a_line_tells(self):
        with tempfile.TemporaryDirectory() as folder, Server(ZONE) as dns:
            options = Scene(folder).options(dns.address)
            tables = {name: options[name] for name in ("key_table", "signing_table", "resolver")}
            with LoneMilter(**tables, role="auto", dmarc_enforce="reject") as milter:
                for author, event in (("good", "message_signed"), ("bad", "message_deferred"), ("other", "message_unsigned")):
                    self.say(milter, f"a@{author}.example".encode())
                    self.assertTell(milter, event, *self.KNOWN)
                milter.reload(role="verify")
                self.say(milter, b"a@none.example")
                self.assertTell(milter, "message_judged", *self.KNOWN)
                self.assertEqual(self.say(milter, b"a@reject.example", b"")[0], b"y")
                self.assertTell(milter, "message_rejected", self.KNOWN[1], 'result="dkim=none spf=fail arc=none dmarc=fail"')
                self.assertNotIn("account=", milter.text().splitlines()[-1])

    def assertTell(self, milter, event, *texts):
        line = wait_until(lambda: [line for line in milter.text().splitlines() if line.startswith(event)], what=event)[-1]
        for text in texts:
            self.assertIn(f" {text} ", f"{line} ")


class Journal(unittest.TestCase):
    """Fields and catalog."""

    @classmethod
    def setUpClass(cls):
        subprocess.run(["make", "-s", "docs", f"BUILD={Layout().build}"], cwd=REPO, check=True,
                       stdout=subprocess.DEVNULL)
        cls.catalog = Layout().build / "postern.catalog"
        done = subprocess.run(
            ["unshare", "-m", sys.executable, "-m", "tests.frame.journal", cls.catalog, "--", sys.executable, __file__,
             "scene"], cwd=REPO, check=True, stdout=subprocess.PIPE, timeout=300,
            env=os.environ | {"PYTHONPATH": str(REPO)})
        journal = json.loads(done.stdout)
        # The first of each kind.
        cls.entries = {entry.get("EVENT"): entry for entry in reversed(journal["entries"])}
        cls.explained = journal["explained"]
        cls.events = {name: (ident, subject) for table in ("milter-dkim/events.def", "lib/run/events.def")
                      for name, ident, subject in EVENT.findall((REPO / table).read_text())}

    def test_each_event_has_its_id(self):
        for name, entry in self.entries.items():
            with self.subTest(name):
                self.assertEqual(entry["MESSAGE_ID"], self.events[name][0])
                self.assertEqual(entry["SYSLOG_IDENTIFIER"], "milter-dkim")

    def test_fields(self):
        wanted = {
            "message_signed": {"DOMAIN": "good.example", "SIGNATURES": "1", "CLIENT_IP": "192.0.2.7", "PRIORITY": "6"},
            "message_unsigned": {"DOMAIN": "other.example"},
            "message_judged": {"CLIENT_IP": "192.0.2.1"},
            "message_deferred": None, "message_rejected": None,
            "forged_results": {"COUNT": "1", "PRIORITY": "5"},
            "key_unusable": {"DOMAIN": "bad.example", "PRIORITY": "3"},
            "table_line_broken": {"PRIORITY": "3"},
            "host_entry_ignored": {"ENTRY": "10.0.0.0/99", "PRIORITY": "4"},
            "keys_unreachable": {"PRIORITY": "3"}, "milter_protocol": {"PRIORITY": "3"},
            "daemon_started": {"PRIORITY": "5"},
        }
        for name, fields in wanted.items():
            with self.subTest(name):
                self.assertIn(name, list(self.entries))
                self.assertLessEqual((fields or {}).items(), self.entries[name].items())
        for name in ("key_unusable", "keys_unreachable", "milter_protocol", "table_line_broken", "message_deferred",
                     "message_rejected"):
            self.assertTrue(self.entries[name]["REASON"], name)

    def test_each_is_explained(self):
        for name in self.entries:
            with self.subTest(name):
                self.assertIn(f"Subject: {self.events[name][1]}", self.explained)
        self.assertIn("DOMAIN: bad.example", self.explained)

    def test_catalog_has_every_event(self):
        text = self.catalog.read_text()
        for name, (ident, subject) in self.events.items():
            with self.subTest(name):
                self.assertRegex(text, f"-- {ident}\nSubject: {re.escape(subject)}\nDefined-By: Postern\n\n\\S")


class Metrics(unittest.TestCase):
    """Every verdict, and the times of DNS and of the end of a message, are counted."""

    @classmethod
    def setUpClass(cls):
        cls.metrics = scene(log_target="stderr")

    def test_verdicts_move(self):
        for family, results in MOVED.items():
            for result in results:
                with self.subTest(family=family, result=result):
                    self.assertGreater(self.metrics[f'{family}{{result="{result}"}}'], 0)

    def test_the_others_move(self):
        for sample in ALSO_MOVED:
            with self.subTest(sample):
                self.assertGreater(self.metrics[sample], 0)

    def test_times_are_sums(self):
        for family in ("postern_milter_end_of_message_seconds", "postern_milter_dns_seconds"):
            self.assertGreater(self.metrics[f"{family}_sum"], 0)
            self.assertEqual(self.metrics[f'{family}_bucket{{le="+Inf"}}'], self.metrics[f"{family}_count"])


if __name__ == "__main__":
    if sys.argv[1:] == ["scene"]:
        scene(log_target="journal")
        scene(log_target="journal", **NO_DATABASE)
    else:
        unittest.main()
