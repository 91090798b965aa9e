"""`postern dkim test` and `dkim rotate`: what is published against what is kept, and
the life of a key from pending to retired."""
import json
import os
import pathlib
import subprocess
import tempfile
import threading
import unittest
import uuid

from tests.dns.dnsd import Server
from tests.frame.clock import clear_of_midnight
from tests.frame.lone_milter import LoneMilter, private_key
from tests.frame.stack import Stack


class KeysCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = Stack()
        cls.stack.start("mysql")
        cls.folder = tempfile.TemporaryDirectory()
        cls.base = pathlib.Path(cls.folder.name)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def setUp(self):
        self.domain = f"r{uuid.uuid4().hex[:12]}.example"
        self.dns = Server({self.domain: []})
        self.addCleanup(self.dns.close)
        self.sql(f"INSERT INTO virtual_domains (name) VALUES ('{self.domain}')")
        self.addCleanup(self.sql, f"DELETE FROM virtual_domains WHERE name = '{self.domain}'")
        self.addCleanup(self.sql, f"DELETE FROM dkim_keys WHERE domain = '{self.domain}'")

    def postern(self, *words, status=0, conf=(), resolver=True):
        argv = [self.stack.at.build / "bin/postern", "--json", "-c", self.stack.at.path("/etc/postern/postern.conf")]
        argv += [word for option in conf for word in ("-o", option)] + list(words)
        if resolver:
            argv += ["--resolver", self.dns.address]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return json.loads(done.stdout)

    def keygen(self, selector, *more):
        return self.postern("dkim", "keygen", self.domain, selector, *more, resolver=False)

    def publish(self, made, **changes):
        value = changes.pop("value", made["record_value"])
        self.dns.zone.rows[made["record_name"].lower()] = changes.pop("rows", [["TXT", value]])
        self.dns.zone.nodes.update([made["record_name"].lower(), "_domainkey." + self.domain])

    def sql(self, script):
        return self.stack.mariadb(script)

    def states(self):
        rows = self.sql(f"SELECT selector, state FROM dkim_keys WHERE domain = '{self.domain}' ORDER BY id")
        return [tuple(line.split("\t")) for line in rows.splitlines()]


class Authority(KeysCase):
    """Without --resolver: the system's resolver, and each server of the zone by its NS records."""

    def setUp(self):
        super().setUp()
        # Port 53 of addresses of our own, since NS records know no other port.
        net = f"127.{130 + os.getpid() % 100}.{os.getpid() // 100 % 250}"
        self.servers = [Server({self.domain: [["NS", f"ns{n}.{self.domain}"] for n in (1, 2)],
                                **{f"ns{n}.{self.domain}": [["A", f"{net}.{n}"]] for n in (1, 2)}}, f"{net}.{i}", 53)
                        for i in (9, 1, 2)]
        for server in self.servers:
            self.addCleanup(server.close)
        self.resolv = self.base / "resolv.conf"
        self.resolv.write_text(f"nameserver {net}.9\n")

    def run_here(self, *words, status=0, conf=()):
        argv = ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', self.resolv,
                self.stack.at.build / "bin/postern", "--json", "-c", self.stack.at.path("/etc/postern/postern.conf"),
                *(word for option in (*SOON, *conf) for word in ("-o", option)), "dkim", *words]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return json.loads(done.stdout)

    def rotate(self):
        """One run, with nothing left that resolvers could remember."""
        self.sql(f"UPDATE dkim_keys SET absent_until = NULL WHERE domain = '{self.domain}'")
        return self.run_here("rotate", self.domain)[0]

    def show(self, made, *servers, rows=None):
        for server in servers:
            server.zone.rows[made["record_name"].lower()] = rows or [["TXT", made["record_value"]]]

    def test_each_server_of_the_zone_must_show_it(self):
        made = self.rotate()
        self.show(made, *self.servers[:2])
        self.assertRegex(self.rotate()["waits_for"], rf"^its record in DNS \(ns2.{self.domain}: the name does not exist\)$")
        row, = self.run_here("test", self.domain, status=1)
        self.assertEqual((row["result"], row["problem"]), ("missing", f"ns2.{self.domain}: the name does not exist"))
        self.show(made, self.servers[2], rows=[["TXT", "v=DKIM1; p="]])
        self.assertRegex(self.rotate()["waits_for"], "^its record in DNS .ns2.*revoked")
        self.show(made, self.servers[2], rows=[["SERVFAIL"]])
        self.assertRegex(self.rotate()["waits_for"], "^its record in DNS .ns2.*does not answer")
        self.assertEqual(self.run_here("test", self.domain, status=75)[0]["result"], "temperror")
        self.show(made, self.servers[2])
        self.assertEqual(self.run_here("test", self.domain)[0]["result"], "ok")
        self.assertEqual(self.rotate()["action"], "activated")
        self.assertTrue(all(server.queries for server in self.servers))

    def test_an_alias_is_held_elsewhere(self):
        made = self.rotate()
        self.show(made, self.servers[0], rows=[["CNAME", "keys.host.example"]])
        self.servers[0].zone.rows["keys.host.example"] = [["TXT", made["record_value"]]]
        self.assertEqual(self.run_here("test", self.domain)[0]["result"], "ok")
        self.assertEqual(self.rotate()["action"], "activated")

    def test_servers_that_cannot_be_found(self):
        made = self.rotate()
        self.show(made, *self.servers)
        self.servers[0].zone.rows[self.domain] = [["SERVFAIL"]]
        self.assertIn("cannot be found", self.rotate()["waits_for"])
        self.servers[0].zone.rows[self.domain] = []
        self.assertIn("cannot be found", self.rotate()["waits_for"])

    def test_named_resolvers_are_asked_alone(self):
        made = self.rotate()
        self.dns.zone.rows[made["record_name"].lower()] = [["TXT", made["record_value"]]]
        self.sql(f"UPDATE dkim_keys SET absent_until = NULL WHERE domain = '{self.domain}'")
        done = self.run_here("rotate", self.domain, conf=(f"dkim_resolvers={self.dns.address}",))
        self.assertEqual(done[0]["action"], "activated")


class Test(KeysCase):
    def check(self, *words, status=0, **more):
        return self.postern("dkim", "test", self.domain, *words, status=status, **more)

    def test_states(self):
        made = self.keygen("a", "--activate")
        row = self.check(status=1)[0]
        self.assertEqual((row["selector"], row["key_state"], row["result"], row["record"]), ("a", "active", "missing", None))
        self.publish(made)
        row = self.check()[0]
        self.assertEqual((row["result"], row["problem"], row["record"], row["ttl"]), ("ok", None, made["record_value"], 60))
        value = made["record_value"]
        for record, result in (("v=DKIM1; p=", "revoked"), (value.replace("p=MI", "p=*MI"), "malformed"),
                               (value + "; t=y", "useless"), (value.replace("k=rsa", "k=rsa; h=sha1"), "useless"),
                               (self.keygen("b" + uuid.uuid4().hex[:6])["record_value"], "different"),
                               (value.replace("; k", " k"), "malformed")):
            self.publish(made, value=record)
            self.assertEqual(self.check("a", status=1)[0]["result"], result, record)
        self.publish(made, rows=[["TXT", value], ["TXT", value]])
        self.assertEqual(self.check("a", status=1)[0]["result"], "several")
        self.publish(made, rows=[["SERVFAIL"]])
        self.assertEqual(self.check("a", status=75)[0]["result"], "temperror")

    def test_alias_and_strings(self):
        made = self.keygen("a")
        value = made["record_value"]
        self.publish(made, rows=[["CNAME", "keys.example.org"]])
        self.dns.zone.rows["keys.example.org"] = [["TXT", [value[:50], value[50:]]]]
        row = self.check()[0]
        self.assertEqual((row["result"], row["aliases"]), ("ok", 1))
        self.assertIn("it is joined of", " ".join(row["notes"]))
        self.dns.zone.rows["keys.example.org"] = [["CNAME", "more.example.org"]]
        self.dns.zone.rows["more.example.org"] = [["LAZY-CNAME", "end.example.org"]]
        self.dns.zone.rows["end.example.org"] = [["TXT", value]]
        self.assertEqual(self.check()[0]["aliases"], 3)

    def test_no_such_key(self):
        self.assertIn("error", self.check(status=66))
        self.assertIn("error", self.check("x", status=66))
        self.assertIn("error", self.postern("dkim", "test", "not a domain", status=64))

    def test_key_table(self):
        made = self.keygen("t", "--algorithm", "ed25519")
        key = private_key(self.base / f"{self.domain}.pem", "-algorithm", "ed25519")
        (self.base / "table").write_text(f"a {self.domain}:t:{key}\nb %:u:{self.base}/%.pem\nc other.example:t:{key}\nd {self.domain}:v:/absent\n")
        self.publish(made)
        rows = self.check("--key-table", f"file:{self.base}/table", status=1)
        self.assertEqual([(r["selector"], r["result"]) for r in rows], [("t", "different"), ("u", "missing"), ("v", "malformed")])
        self.assertIn("cannot be read", rows[2]["problem"])
        self.postern("dkim", "test", self.domain, "--key-table", "db:/x", status=64)


SOON = ("dkim_visible_for=0", "dkim_retire_after=0")


class Rotate(KeysCase):
    def rotate(self, *words, status=0, conf=("dkim_visible_for=0",)):
        return self.postern("dkim", "rotate", self.domain, *words, status=status, conf=conf)

    def back(self, column, seconds):
        """As if so much time had gone by since."""
        self.sql(f"UPDATE dkim_keys SET {column} = {column} - INTERVAL {seconds} SECOND WHERE domain = '{self.domain}'")

    def test_whole_life(self):
        clear_of_midnight()  # the names of selectors have the day in them
        self.publish(self.keygen("old", "--activate"))
        step = self.rotate()[0]
        self.assertEqual((step["action"], step["state"]), ("made", "pending"))
        self.assertRegex(step["selector"], r"^mail-\d{8}$")
        new = step["selector"]
        waits = self.rotate()
        self.assertEqual([(s["selector"], s["action"]) for s in waits], [(new, "none")])
        self.assertEqual(waits[0]["record_value"], step["record_value"])
        self.assertIn("does not exist", waits[0]["waits_for"])
        self.assertEqual(self.states(), [("old", "active"), (new, "pending")])
        # The servers may remember for the zone's negative TTL that it was not there.
        self.publish(step)
        seen = self.rotate()[0]
        self.assertEqual((seen["action"], seen["state"]), ("seen in DNS", "pending"))
        self.assertGreater(seen["until"], 0)
        self.assertEqual(self.rotate()[0]["action"], "none")
        self.back("absent_until", 60)
        done = self.rotate()
        self.assertEqual([(s["selector"], s["action"], s["state"]) for s in done][0], (new, "activated", "active"))
        self.assertEqual(self.states(), [("old", "retiring"), (new, "active")])
        waits = self.rotate()
        self.assertEqual([(s["selector"], s["action"]) for s in waits], [(new, "none"), ("old", "none")])
        self.assertEqual((waits[0]["until"], waits[1]["until"] > 0), (None, True))
        self.back("retiring_at", 7 * 86400 + 1)
        last = self.rotate()
        self.assertEqual([(s["selector"], s["action"]) for s in last], [(new, "none"), ("old", "retired")])
        self.assertRegex(last[1]["record_value"], "p=$")
        self.assertEqual(self.states(), [("old", "retired"), (new, "active")])
        # Asked for again, on the same day.
        self.assertEqual(self.rotate()[0]["selector"], new + "-2")

    def test_every_server_must_show_it(self):
        other = Server({self.domain: []})
        self.addCleanup(other.close)
        made = self.rotate()[0]
        self.assertEqual(made["action"], "made")
        self.publish(made)
        both = ("dkim", "rotate", self.domain, "--resolver", f"{self.dns.address},{other.address}")
        step = self.postern(*both, conf=SOON, resolver=False)[0]
        self.assertIn(other.address, step["waits_for"])
        other.zone.rows[made["record_name"].lower()] = [["TXT", made["record_value"]]]
        self.sql(f"UPDATE dkim_keys SET absent_until = NULL WHERE domain = '{self.domain}'")
        self.assertEqual(self.postern(*both, conf=SOON, resolver=False)[0]["action"], "activated")

    def test_record_must_stay_and_be_right(self):
        made = self.rotate(conf=("dkim_visible_for=1h",))[0]
        self.publish(made)
        self.assertEqual(self.rotate(conf=("dkim_visible_for=1h",))[0]["action"], "seen in DNS")
        self.publish(made, value="v=DKIM1; p=")
        self.assertIn("revoked", self.rotate()[0]["waits_for"])
        self.publish(made)
        self.assertEqual(self.rotate(conf=("dkim_visible_for=1h",))[0]["action"], "seen in DNS")
        # A server that fails for a moment takes nothing back.
        self.publish(made, rows=[["SERVFAIL"]])
        self.assertIn("DNS", self.rotate()[0]["waits_for"])
        self.publish(made)
        self.back("visible_at", 3601)
        # Resolvers remember the wrong record for its time to live.
        self.assertEqual(self.rotate(conf=("dkim_visible_for=1h",))[0]["action"], "none")
        self.back("absent_until", 61)
        self.assertEqual(self.rotate(conf=("dkim_visible_for=1h",))[0]["action"], "activated")

    def test_a_server_that_says_nothing_hides_none_that_says_no(self):
        other = Server({self.domain: []})
        self.addCleanup(other.close)
        made = self.rotate(conf=())[0]
        both = ("dkim", "rotate", self.domain, "--resolver", f"{self.dns.address},{other.address}")
        for server in (self.dns, other):
            server.zone.rows[made["record_name"].lower()] = [["TXT", made["record_value"]]]
        self.assertEqual(self.postern(*both, resolver=False)[0]["action"], "seen in DNS")
        self.publish(made, rows=[["SERVFAIL"]])
        del other.zone.rows[made["record_name"].lower()]
        self.assertIn(other.address, self.postern(*both, resolver=False)[0]["waits_for"])
        self.assertEqual(self.sql(f"SELECT visible_at FROM dkim_keys WHERE domain = '{self.domain}'").strip(), "NULL")

    def test_times_of_a_clock_that_was_wrong(self):
        made = self.rotate()[0]
        self.publish(made)
        self.rotate(conf=("dkim_visible_for=1h",))
        self.back("visible_at", -400 * 86400)
        self.back("absent_until", -400 * 86400)
        step = self.rotate(conf=("dkim_visible_for=1h",))[0]
        self.assertEqual(step["action"], "seen in DNS")
        self.sql(f"UPDATE dkim_keys SET absent_until = NULL WHERE domain = '{self.domain}'")
        self.assertEqual(self.rotate(conf=("dkim_visible_for=1h",))[0]["action"], "none")
        self.back("visible_at", 3601)
        self.assertEqual(self.rotate(conf=("dkim_visible_for=1h",))[0]["action"], "activated")

    def while_dns_is_asked(self, script):
        """Runs SCRIPT once, before the next answer about our domain."""
        reply = self.dns.zone.reply

        def late(query, tcp):
            if self.domain in query.name.lower():
                self.dns.zone.reply = reply
                self.sql(script)
            return reply(query, tcp)
        self.dns.zone.reply = late

    def test_a_key_changed_by_hand_in_the_middle(self):
        name = f"WHERE domain = '{self.domain}'"
        for script, want in ((f"UPDATE dkim_keys SET state = 'retiring', retiring_at = NOW() {name}", ("p", "retiring")),
                             (f"UPDATE dkim_keys SET state = 'active', activated_at = NOW() {name}", ("p", "active")),
                             (f"DELETE FROM dkim_keys {name}", None)):
            for seen in (False, True):
                self.sql(f"DELETE FROM dkim_keys {name}")
                self.publish(self.keygen("p"))
                if seen:
                    self.rotate("--dry-run")
                    self.rotate(conf=("dkim_visible_for=1h",))
                self.while_dns_is_asked(script)
                steps = [s for s in self.postern("dkim", "rotate", "--all", conf=SOON) if s["domain"] == self.domain]
                self.assertEqual([s["action"] for s in steps], ["none"], steps)
                self.assertIn("changed meanwhile", steps[0]["waits_for"])
                self.assertEqual(self.states(), [want] if want else [])

    def test_a_key_taken_back_while_it_would_be_retired(self):
        self.publish(self.keygen("old", "--activate"))
        self.publish(self.keygen("new", "--activate"))
        self.keygen("next")
        self.back("retiring_at", 7 * 86400 + 1)
        self.while_dns_is_asked(f"UPDATE dkim_keys SET state = 'active' WHERE domain = '{self.domain}' AND selector = 'old'")
        steps = {s["selector"]: s for s in self.rotate()}
        self.assertEqual((steps["old"]["action"], steps["old"].get("record_value")), ("none", None))
        self.assertIn(("old", "active"), self.states())

    def test_a_domain_deleted_while_its_key_is_made(self):
        self.publish(self.keygen("old", "--activate"))
        holder = subprocess.Popen(["mariadb", "--no-defaults", "-uroot", "-S", self.stack.mysql_socket, "postern", "-N", "-B", "-n"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(holder.wait)
        self.addCleanup(holder.stdout.close)
        holder.stdin.write(f"BEGIN; DELETE FROM dkim_keys WHERE domain = '{self.domain}'; SELECT 1;\n")
        holder.stdin.flush()
        holder.stdout.readline()
        done = []
        run = threading.Thread(target=lambda: done.append(self.rotate()))
        run.start()
        self.stack_wait(lambda: "FOR UPDATE" in self.sql("SELECT info FROM information_schema.processlist WHERE info LIKE '%FOR UPDATE' AND id <> CONNECTION_ID()"))
        holder.stdin.write("COMMIT;\n")
        holder.stdin.close()
        run.join()
        self.assertIn("changed meanwhile", done[0][0]["waits_for"])
        self.assertEqual(self.states(), [])

    def test_a_successor_is_no_smaller(self):
        self.publish(self.keygen("old", "--activate", "--bits", "3072"))
        new = self.rotate()[0]["selector"]
        rows = self.postern("dkim", "list", self.domain, resolver=False)
        self.assertEqual({r["selector"]: r["key_bits"] for r in rows}[new], 3072)

    def test_a_domain_that_is_not_hosted(self):
        """Mistyped, it gets no key; with keys, or --unhosted, it is rotated like others."""
        self.sql(f"DELETE FROM virtual_domains WHERE name = '{self.domain}'")
        for words in ((), ("--dry-run",), ("--algorithm", "ed25519")):
            self.assertIn(f"there is no domain {self.domain}", self.rotate(*words, status=68)["error"])
        self.assertEqual(self.states(), [])
        made = self.rotate("--unhosted")[0]
        self.assertEqual(made["action"], "made")
        self.publish(made)
        self.sql(f"UPDATE dkim_keys SET absent_until = NULL WHERE domain = '{self.domain}'")
        self.assertEqual(self.rotate()[0]["action"], "activated")
        # One that was given up is not taken up again by mistake.
        self.sql(f"UPDATE dkim_keys SET state = 'retired' WHERE domain = '{self.domain}'")
        self.rotate(status=68)
        self.assertIn("error", self.postern("dkim", "rotate", "--all", "--unhosted", status=64))

    def test_dry_run_changes_nothing(self):
        before = self.sql("SELECT * FROM dkim_keys; SELECT value FROM change_counters")
        self.assertEqual(self.rotate("--dry-run")[0]["action"], "would be made")
        self.assertEqual(self.sql("SELECT * FROM dkim_keys; SELECT value FROM change_counters"), before)
        made = self.rotate()[0]
        self.publish(made)
        before = self.sql("SELECT * FROM dkim_keys")
        self.assertEqual(self.rotate("--dry-run")[0]["action"], "would be activated")
        self.assertEqual(self.sql("SELECT * FROM dkim_keys"), before)

    def test_all_makes_new_keys_only_when_due(self):
        self.publish(self.keygen("old", "--activate"))
        def mine(**more):
            return [s for s in self.postern("dkim", "rotate", "--all", **more) if s["domain"] == self.domain]
        step = mine()[0]
        self.assertEqual((step["action"], step["waits_for"]), ("none", "its age"))
        self.assertEqual(mine(conf=("dkim_rotate_after=0",))[0]["until"], None)
        self.back("activated_at", 181 * 86400)
        self.assertEqual(mine()[0]["action"], "made")
        self.assertEqual(mine()[0]["action"], "none")

    def test_algorithms(self):
        self.publish(self.keygen("r", "--activate"))
        self.publish(self.keygen("e", "--activate", "--algorithm", "ed25519"))
        only = self.rotate("--algorithm", "ed25519")
        self.assertEqual([s["algorithm"] for s in only], ["ed25519-sha256"])
        self.assertRegex(only[0]["selector"], r"^mail-ed25519-\d{8}$")
        self.assertEqual([(s["algorithm"], s["action"]) for s in self.rotate()],
                         [("rsa-sha256", "made"), ("ed25519-sha256", "none")])
        self.rotate("--algorithm", "dsa", status=64)
        self.postern("dkim", "rotate", status=64)

    def test_one_run_at_a_time(self):
        holder = subprocess.Popen(["mariadb", "--no-defaults", "-uroot", "-S", self.stack.mysql_socket, "postern", "-N", "-B", "-n"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(holder.wait)
        self.addCleanup(holder.stdin.close)
        self.addCleanup(holder.stdout.close)
        holder.stdin.write("SELECT GET_LOCK(CONCAT('postern-rotate-', LEFT(MD5(DATABASE()), 16)), 9);\n")
        holder.stdin.flush()
        self.assertEqual(holder.stdout.readline().strip(), "1")
        self.assertIn("under way", self.rotate(status=75)["error"])
        self.assertEqual(self.states(), [])

    def test_never_a_moment_without_an_active_key(self):
        """A daemon signs all the time while keys are rotated."""
        self.publish(self.keygen("first", "--activate"))
        query = (f"SELECT domain, selector, algorithm, private_key FROM dkim_keys WHERE state = 'active' "
                 f"AND domain = '{self.domain}' ORDER BY activated_at DESC, id DESC")
        used, stop, errors = set(), threading.Event(), []
        with LoneMilter(database_user="root", database_socket=self.stack.mysql_socket, database_name="postern",
                        dkim_keys_poll="100ms", dkim_keys_query=query) as milter:
            milter.wait_signed(b"a@" + self.domain.encode())

            def sign():
                while not stop.is_set():
                    made = milter.sign(b"a@" + self.domain.encode())
                    if not made:
                        errors.append(made)
                    else:
                        used.add(made[0]["s"])
            thread = threading.Thread(target=sign)
            thread.start()
            try:
                for _ in range(3):
                    new = self.rotate(conf=SOON)[0]
                    self.publish(new)
                    self.assertEqual(self.rotate(conf=SOON)[0]["action"], "activated")
                    milter_uses = new["selector"]
                    self.stack_wait(lambda: milter_uses in used)
                    self.rotate(conf=SOON)
            finally:
                stop.set()
                thread.join()
        self.assertEqual(errors, [])
        self.assertGreaterEqual(len(used), 4)

    @staticmethod
    def stack_wait(condition):
        from tests.frame.wait import wait_until
        wait_until(condition, what="the new key signs")


if __name__ == "__main__":
    unittest.main()
