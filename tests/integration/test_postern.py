"""The administrator's command against the stack's database and daemons."""
import base64
import contextlib
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import tempfile

from tests.frame.layout import HOST, REPO
from tests.frame.stack import run
from tests.integration.test_sql import NUMBERS, SqlCase

USAGE, DATAERR, NOINPUT, NOUSER, NOHOST, UNAVAILABLE, CANTCREAT, TEMPFAIL, CONFIG = 64, 65, 66, 67, 68, 69, 73, 75, 78


class PosternCase(SqlCase):
    """Each test may use a domain of its own."""

    def domain(self):
        name = f"p{os.getpid()}-{next(NUMBERS)}.example"
        self.stack.postern("domain", "add", name)
        self.addCleanup(self.run_postern, "domain", "remove", "--force", name)
        return name

    def json(self, *words, text="", code=0):
        status, out, err = self.run_postern("--json", *words, text=text)
        self.assertEqual(status, code, err)
        return json.loads(out)

    def refused(self, code, pattern, *words, text=""):
        """The command ends with CODE, says why on stderr and, with --json, on stdout."""
        status, out, err = self.run_postern(*words, text=text)
        self.assertEqual(status, code, err)
        self.assertRegex(err, pattern)
        self.assertEqual(out, "")
        status, out, _ = self.run_postern("--json", *words, text=text)
        self.assertEqual(status, code)
        self.assertRegex(json.loads(out)["error"], pattern)


class Frame(PosternCase):
    """Help, usage errors, configuration."""

    def commands(self):
        out = self.run_postern("help")[1]
        return re.findall(r"^  ((?:[a-z-]+ )*[a-z-]+)(?= +(?:[A-Z\[]| ))", out, re.M)

    def test_each_command_has_help(self):
        commands = self.commands()
        self.assertGreater(len(commands), 20)
        for command in commands:
            for words in ((*command.split(), "--help"), ("help", *command.split())):
                with self.subTest(words=words):
                    code, out, err = self.run_postern(*words)
                    self.assertEqual((code, err), (0, ""))
                    self.assertTrue(out.startswith(f"usage: postern {command}"), out)

    def test_groups_have_help(self):
        code, out, _ = self.run_postern("user", "--help")
        self.assertEqual(code, 0)
        self.assertIn("user passwd ADDRESS", out)
        self.assertNotIn("domain add", out)
        self.assertEqual(self.run_postern("user")[0], USAGE)
        self.assertEqual(self.run_postern()[0], USAGE)

    def test_version(self):
        code, out, _ = self.run_postern("-V")
        self.assertEqual(code, 0)
        self.assertRegex(out, r"^postern \d+\.\d+")

    def test_configuration_is_shown(self):
        code, out, err = self.run_postern("-o", "bcrypt_cost=11", "-n")
        self.assertEqual((code, err), (0, ""))
        self.assertIn("bcrypt_cost = 11", out)
        self.assertNotIn("quota_default", out)
        self.assertIn("bcrypt_cost = 12\n", self.run_postern("-d")[1])
        self.assertEqual(self.run_postern("-t"), (0, "", ""))
        code, out, err = self.run_postern("-o", "bcrypt_cost=9", "-t")
        self.assertEqual((code, out), (CONFIG, ""))
        self.assertIn("bcrypt_cost", err)

    def test_each_command_and_option_is_in_the_manual(self):
        page = (REPO / "docs/man/postern.8.in").read_text()
        for command in self.commands():
            with self.subTest(command=command):
                line = re.search(rf"^\.It Cm {command}(?: .*)?$", page, re.M)
                self.assertTrue(line)
                options = re.findall(r"^  --([a-z-]+)", self.run_postern("help", *command.split())[1], re.M)
                for option in options:
                    if option != "json":
                        self.assertIn(f"Fl -{option}", line.group())

    def test_wrong_use(self):
        for words in (("frob",), ("domain", "add"), ("domain", "add", "a.example", "b.example"),
                      ("domain", "list", "--frob"), ("user", "add", "--quota"), ("user", "add", "x@y.example", "-z"),
                      ("domain", "add", "--catchall=a@b.example", "--catchall=a@b.example", "x.example")):
            with self.subTest(words=words):
                code, out, err = self.run_postern(*words)
                self.assertEqual((code, out), (USAGE, ""))
                self.assertTrue(err)
                code, out, err = self.run_postern("--json", *words)
                self.assertEqual(code, USAGE)
                self.assertTrue(json.loads(out)["error"])

    def test_unknown_command_is_named_whole(self):
        self.refused(USAGE, "no such command: domain frob;", "domain", "frob", "x.example")
        code, out, _ = self.run_postern("domain", "frob", "--json")
        self.assertEqual((code, list(json.loads(out))), (USAGE, ["error"]))
        for words in (("--json",), ("--json", "dkim"), ("dmarc", "report", "--json")):
            code, out, _ = self.run_postern(*words)
            self.assertEqual((code, list(json.loads(out))), (USAGE, ["error"]))

    def test_errors_send_no_controls_to_the_terminal(self):
        code, out, err = self.run_postern("--json", "status", "\x1b[31m\u202edaemon\x9b")
        self.assertEqual((code, json.loads(out)["error"]), (USAGE, "there is no daemon \x1b[31m\u202edaemon\x9b"))
        self.assertEqual(err, "postern: there is no daemon \ufffd[31m\ufffddaemon\ufffd\n")

    def test_configuration_tools_take_options_in_any_order(self):
        program = str(self.stack.at.path("/bin/postern"))
        option = ("-o", "database_port=33")
        for words in (("-n", "-c", "/dev/null", *option), ("-c/dev/null", "-n", *option), (*option, "-c", "/dev/null", "-n")):
            with self.subTest(words=words):
                self.assertEqual(run([program, *words]).splitlines()[0], "database_port = 33")
        self.refused(USAGE, "unexpected behind -t: domain", "-t", "domain", "list")

    def test_configuration_errors(self):
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as conf:
            conf.write("database_user = root\nnonsense = 1\n")
            conf.flush()
            program = str(self.stack.at.path("/bin/postern"))
            done = subprocess.run([program, "-c", conf.name, "domain", "list"], capture_output=True, text=True,
                                  check=False)
            self.assertEqual(done.returncode, CONFIG)
            self.assertIn(f"{conf.name}:2", done.stderr)
        self.refused(CONFIG, "bcrypt_cost", "-o", "bcrypt_cost=40", "domain", "list")
        self.refused(TEMPFAIL, "database is not available", "-o", "database_socket=/nonexistent", "domain", "list")
        self.refused(TEMPFAIL, "denied", "-o", "database_user=nobody", "domain", "list")


class Domains(PosternCase):
    def test_add_list_remove(self):
        name = self.domain()
        self.refused(CANTCREAT, "there already", "domain", "add", name.upper())
        row = [r for r in self.json("domain", "list") if r["domain"] == name]
        self.assertEqual([(r["users"], r["aliases"]) for r in row], [(0, 0)])
        self.assertIn(name, self.run_postern("domain", "list")[1])
        self.stack.postern("user", "add", f"a@{name}", input_text="x\n")
        self.refused(DATAERR, "still has 1 user", "domain", "remove", name)
        self.assertEqual(self.json("domain", "remove", "--force", name)["users"], 1)
        self.refused(NOHOST, "no domain", "domain", "remove", name)

    def test_names_are_brought_to_one_form(self):
        made = self.json("domain", "add", f"B\u00fccher{os.getpid()}.Example.")
        self.addCleanup(self.stack.postern, "domain", "remove", made["domain"])
        self.assertRegex(made["domain"], r"^xn--bcher\d+-\w+\.example$")
        for wrong in ("example", "a_b.example", "-a.example", "a..example", "192.0.2.1", "a.example\n", "x" * 64 + ".example"):
            with self.subTest(name=wrong):
                self.refused(USAGE, "domain name", "domain", "add", "--", wrong)

    def test_catchall(self):
        name = f"all{os.getpid()}.example"
        self.addCleanup(self.run_postern, "domain", "remove", name)
        self.refused(USAGE, "not an address", "domain", "add", name, "--catchall", "nobody")
        self.json("domain", "add", name, "--catchall", "Office@example.net")
        rows = self.json("alias", "list", name)
        self.assertEqual([(r["source"], r["destination"]) for r in rows], [(f"@{name}", "office@example.net")])


class Users(PosternCase):
    def hash(self, user):
        return self.value("SELECT password FROM virtual_users WHERE email = %s", user)

    def fits(self, user, password):
        """Whether Dovecot takes the password for the stored hash."""
        done = subprocess.run(["doveadm", "pw", "-t", self.hash(user), "-p", password], capture_output=True,
                              check=False)
        return done.returncode == 0

    def test_life(self):
        name = self.domain()
        user = f"alice@{name}"
        made = self.json("user", "add", f"Alice@{name.upper()}", "--quota", "250", text="first pass word\nrest\n")
        self.assertEqual(made, {"email": user, "quota_mb": 250, "enabled": True})
        self.assertRegex(self.hash(user), r"^\{BLF-CRYPT\}\$2y\$12\$.{53}$")
        self.assertTrue(self.fits(user, "first pass word"))
        self.assertFalse(self.fits(user, "first pass wordrest"))
        self.refused(CANTCREAT, "there already", "user", "add", user, text="x\n")
        self.json("user", "quota", user, "0")
        self.json("user", "disable", user)
        row = self.json("user", "list", name)[0]
        self.assertEqual((row["email"], row["quota_mb"], row["enabled"]), (user, 0, False))
        self.json("user", "enable", user)
        self.assertEqual(self.json("user", "quota", user)[0]["quota_mb"], 0)
        self.assertEqual(self.json("user", "remove", user)["email"], user)
        self.assertEqual(self.json("user", "list", name), [])
        for command in (("passwd",), ("quota",), ("remove",), ("enable",)):
            self.refused(NOUSER, "no user", "user", *command, user, text="x\n")

    def test_default_quota_and_disabled(self):
        name = self.domain()
        self.assertEqual(self.json("user", "add", f"a@{name}", "--disabled", text="x\n"),
                         {"email": f"a@{name}", "quota_mb": 1024, "enabled": False})
        self.assertEqual(self.json("-o", "quota_default=7", "user", "add", f"b@{name}", text="x\n")["quota_mb"], 7)

    def test_wrong_arguments(self):
        name = self.domain()
        self.refused(NOHOST, "no domain", "user", "add", "a@nowhere.example", text="x\n")
        for quota in ("-1", "10M", "", "2147483648", "1.5"):
            with self.subTest(quota=quota):
                self.refused(USAGE, "megabytes", "user", "add", f"a@{name}", f"--quota={quota}", text="x\n")
        for address in ("a", "@" + name, f"a b@{name}", f"../a@{name}", f"a/b@{name}", f"a%n@{name}", f".a@{name}"):
            with self.subTest(address=address):
                self.refused(USAGE, "not an address", "user", "add", address, text="x\n")
        self.assertEqual(self.json("user", "list", name), [])

    def test_passwords(self):
        name = self.domain()
        user = f"a@{name}"
        self.stack.postern("user", "add", user, input_text="x\n")
        first = self.hash(user)
        for text, code in (("", NOINPUT), ("\n", DATAERR), ("x" * 73 + "\n", DATAERR), ("x" * 5000, DATAERR)):
            with self.subTest(text=text[:10]):
                self.refused(code, "password", "user", "passwd", user, text=text)
        self.assertEqual(self.hash(user), first)
        self.json("user", "passwd", user, text="x" * 72)
        self.assertTrue(self.fits(user, "x" * 72))
        self.json("user", "passwd", user, text="p\u00e4ss\r\n")
        self.assertTrue(self.fits(user, "p\u00e4ss"))
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("from the file\nnot this\n")
            file.flush()
            self.json("user", "passwd", user, "--password-file", file.name)
        self.assertTrue(self.fits(user, "from the file"))
        self.json("user", "passwd", user, "--password-file", "-", "--scheme", "sha512-crypt", text="y" * 100)
        self.assertTrue(self.hash(user).startswith("{SHA512-CRYPT}$6$"))
        self.assertTrue(self.fits(user, "y" * 100))
        self.refused(NOINPUT, "cannot read", "user", "passwd", user, "--password-file", "/nonexistent")
        self.refused(USAGE, "--scheme", "user", "passwd", user, "--scheme", "md5", text="x\n")

    @staticmethod
    def prompted(argv, answers):
        """Runs ARGV at a terminal and types ANSWERS; returns (exit status, all that was shown)."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(argv[0], argv)
        shown = b""
        for answer in [*answers, None]:
            wanted = shown.count(b": ") + 1
            while answer is None or shown.count(b": ") < wanted:
                if not select.select([terminal], [], [], 20)[0]:
                    os.kill(pid, signal.SIGKILL)
                try:
                    chunk = os.read(terminal, 4096)
                except OSError:  # the other side is closed
                    break
                shown += chunk
            if answer is not None:
                os.write(terminal, answer.encode() + b"\n")
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(terminal)
        return status, shown.decode()

    def test_prompt_hides_and_asks_twice(self):
        user = f"a@{self.domain()}"
        self.stack.postern("user", "add", user, input_text="x\n")
        argv = self.postern_argv("user", "passwd", user)
        status, shown = self.prompted(argv, ["geheim", "geheim"])
        self.assertEqual(status, 0, shown)
        self.assertNotIn("geheim", shown)
        self.assertTrue(self.fits(user, "geheim"))
        status, shown = self.prompted(argv, ["eins", "zwei"])
        self.assertEqual(status, DATAERR, shown)
        self.assertTrue(self.fits(user, "geheim"))


class Aliases(PosternCase):
    def pairs(self, name):
        return {(r["source"], r["destination"]) for r in self.json("alias", "list", name)}

    def test_life(self):
        name = self.domain()
        info = f"info@{name}"
        self.json("alias", "add", f"Info@{name}", "a@example.org", "b@M\u00fcller.example")
        self.assertEqual(self.pairs(name), {(info, "a@example.org"), (info, "b@xn--mller-kva.example")})
        # all or none
        self.refused(CANTCREAT, "there already", "alias", "add", info, "c@example.org", "a@example.org")
        self.refused(USAGE, "not an address", "alias", "add", info, "c@example.org", "nonsense")
        self.assertEqual(len(self.pairs(name)), 2)
        self.assertEqual(self.json("alias", "remove", info, "A@example.org")["removed"], 1)
        self.assertEqual(self.pairs(name), {(info, "b@xn--mller-kva.example")})
        self.assertEqual(self.json("alias", "remove", info)["removed"], 1)
        self.refused(NOUSER, "no such alias", "alias", "remove", info)
        self.refused(NOHOST, "no domain", "alias", "add", "x@nowhere.example", "a@example.org")
        self.refused(NOHOST, "no domain", "alias", "list", "nowhere.example")

    def test_postfix_follows(self):
        name = self.domain()
        self.stack.postern("alias", "add", f"@{name}", "office@example.net")
        found = run(["postmap", "-c", self.stack.at.path("/etc/postfix"), "-q", f"@{name}",
                     f"mysql:{self.stack.at.path('/etc/postfix/postern/aliases.cf')}"])
        self.assertEqual(found.strip(), "office@example.net")


class Dkim(PosternCase):
    def states(self, name):
        return {r["selector"]: r["state"] for r in self.json("dkim", "list", name)}

    def private(self, name, selector):
        return self.value("SELECT private_key FROM dkim_keys WHERE domain = %s AND selector = %s", name, selector)

    @staticmethod
    def strings(zone):
        return re.findall(r'"([^"]*)"', zone)

    def test_rsa(self):
        name = self.domain()
        made = self.json("dkim", "keygen", name)
        self.assertEqual((made["selector"], made["algorithm"], made["state"]), ("mail", "rsa-sha256", "pending"))
        self.assertEqual(made["record_name"], f"mail._domainkey.{name}")
        public = made["record_value"].removeprefix("v=DKIM1; k=rsa; p=")
        # the published half belongs to the private one
        derived = run(["openssl", "pkey", "-pubout", "-outform", "PEM"], input_text=self.private(name, "mail"))
        self.assertEqual("".join(derived.splitlines()[1:-1]), public)
        self.assertIn("2048 bit", run(["openssl", "pkey", "-noout", "-text"], input_text=self.private(name, "mail")))
        text = self.stack.postern("dkim", "show", name, "mail")
        self.assertEqual(text, made["zone"])
        strings = self.strings(text)
        self.assertEqual("".join(strings), made["record_value"])
        self.assertEqual([len(s) for s in strings[:-1]], [255] * (len(strings) - 1))
        self.assertTrue(text.startswith(f"mail._domainkey.{name}. IN TXT ("))

    def test_zone_text_is_what_dns_serves(self):
        name = self.domain()
        made = self.json("dkim", "keygen", name)
        self.stack.dns_add(" ".join(made["zone"].replace("(", "").replace(")", "").split("\n")).replace("\t", " "))
        self.addCleanup(self.stack.dns_remove, made["record_name"])
        self.assertEqual(self.served(made["record_name"]), made["record_value"])

    def served(self, name):
        """The strings of the one TXT record that the DNS server gives, joined."""
        labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        query = b"\x12\x34\x01\x00\x00\x01" + bytes(6) + labels + b"\x00\x00\x10\x00\x01"
        with socket.create_connection((HOST, self.stack.at.port("dns")), 5) as server:
            server.sendall(struct.pack("!H", len(query)) + query)
            with server.makefile("rb") as reply:
                answer = reply.read(struct.unpack("!H", reply.read(2))[0])
        self.assertEqual(answer[6:8], b"\x00\x01")
        data = answer[len(query) + 12:]  # behind a compressed name, type, class, TTL and length
        text = b""
        while data:
            text += data[1:1 + data[0]]
            data = data[1 + data[0]:]
        return text.decode()

    def test_ed25519(self):
        name = self.domain()
        made = self.json("dkim", "keygen", name, "--algorithm", "ed25519")
        self.assertEqual((made["selector"], made["algorithm"]), ("mail-ed25519", "ed25519-sha256"))
        public = made["record_value"].removeprefix("v=DKIM1; k=ed25519; p=")
        raw = base64.b64decode(public)
        self.assertEqual(len(raw), 32)
        text = run(["openssl", "pkey", "-noout", "-text_pub"], input_text=self.private(name, made["selector"]))
        self.assertEqual(bytes.fromhex("".join(re.findall(r"[0-9a-f]{2}(?=:|\n)", text.split("pub:")[1]))), raw)

    def test_one_active_key_an_algorithm(self):
        name = self.domain()
        self.json("dkim", "keygen", name, "--activate", "--bits", "1024")
        self.json("dkim", "keygen", name, "--activate", "--algorithm", "ed25519")
        self.json("dkim", "keygen", name, "--selector", "next", "--bits", "1024")
        self.assertEqual(self.states(name), {"mail": "active", "mail-ed25519": "active", "next": "pending"})
        self.json("dkim", "activate", name, "next")
        self.assertEqual(self.states(name), {"mail": "retiring", "mail-ed25519": "active", "next": "active"})
        self.json("dkim", "activate", name, "mail")  # back again
        self.assertEqual(self.states(name)["next"], "retiring")
        self.refused(NOINPUT, "no pending or retired key", "dkim", "remove", name, "mail")
        self.json("dkim", "retire", name, "mail")
        self.assertEqual(self.states(name)["mail"], "retiring")
        self.json("dkim", "retire", "--now", name, "mail")
        self.assertEqual(self.states(name)["mail"], "retired")
        self.refused(NOINPUT, "no key", "dkim", "activate", name, "mail")
        self.refused(NOINPUT, "no key", "dkim", "retire", "--now", name, "mail")
        self.json("dkim", "remove", name, "mail")
        self.assertNotIn("mail", self.states(name))

    def test_refusals(self):
        name = self.domain()
        self.json("dkim", "keygen", name, "--bits", "1024")
        self.refused(CANTCREAT, "there already", "dkim", "keygen", name, "--bits", "1024")
        self.refused(NOHOST, "no domain", "dkim", "keygen", "nowhere.example")
        self.refused(USAGE, "--algorithm", "dkim", "keygen", name, "--algorithm", "dsa")
        self.refused(USAGE, "selector", "dkim", "keygen", name, "--selector", "a b")
        for bits in ("1023", "4097", "x"):
            self.refused(USAGE, "--bits", "dkim", "keygen", name, "--bits", bits)
        self.refused(USAGE, "--bits", "dkim", "keygen", name, "--algorithm", "ed25519", "--bits", "2048")
        self.refused(NOINPUT, "no key", "dkim", "show", name, "other")

    def test_selector_as_an_argument(self):
        name = self.domain()
        self.assertEqual(self.json("dkim", "keygen", name, "ceerion")["selector"], "ceerion")
        self.refused(CANTCREAT, "there already", "dkim", "keygen", name, "--selector", "ceerion")
        self.refused(USAGE, "given twice", "dkim", "keygen", name, "a", "--selector", "b")

    def test_unhosted(self):
        name = f"relayed{os.getpid()}.example"
        made = self.json("dkim", "keygen", name, "--unhosted", "--bits", "1024")
        self.assertEqual(made["domain"], name)
        self.json("dkim", "retire", "--now", name, "mail")
        self.json("dkim", "remove", name, "mail")

    def test_private_key_is_never_printed(self):
        name = self.domain()
        shown = "".join(self.run_postern(*words)[1] + self.run_postern("--json", *words)[1] for words in (
            ("dkim", "keygen", name, "--bits", "1024"), ("dkim", "list", name), ("dkim", "show", name, "mail")))
        self.assertIn("v=DKIM1", shown)
        self.assertNotIn("PRIVATE", shown)
        self.assertNotIn(self.private(name, "mail").splitlines()[1], shown)


class Status(PosternCase):
    DAEMONS = ["milter-dkim", "policyd-ratelimit", "lmtp-indexer", "quotad"]

    def test_all_alive(self):
        # What an earlier test has left to be told is told first.
        self.wait_until(lambda: all(row["outbox_lag_s"] == 0 for row in self.json("status")), what="nothing waits")
        rows = self.json("status")
        self.assertEqual([row["daemon"] for row in rows], self.DAEMONS)
        for row in rows:
            self.assertTrue(row["alive"], row)
            self.assertEqual(row["pid"], self.stack.pid(row["daemon"]))
            self.assertGreaterEqual(row["uptime_s"], 0)
            self.assertIn("postern_start_time_seconds", row["counters"])
            self.assertEqual(row["outbox_lag_s"], 0)
        text = self.run_postern("status")[1]
        for name in self.DAEMONS:
            self.assertRegex(text, rf"(?m)^{name} +yes ")

    def test_one_down(self):
        self.stack.stop("quotad")
        with contextlib.ExitStack() as last:
            last.callback(self.stack.start, "quotad")
            rows = self.json("status", code=1)
            self.assertEqual([row["daemon"] for row in rows if not row["alive"]], ["quotad"])
            self.assertIn("control.sock", rows[3]["error"])
            self.assertEqual(self.json("status", "milter-dkim")[0]["daemon"], "milter-dkim")
        self.refused(USAGE, "no daemon", "status", "sshd")

    def test_daemon_that_hangs(self):
        pid = self.stack.pid("quotad")
        os.kill(pid, signal.SIGSTOP)
        try:
            rows = self.json("-o", "control_timeout=200ms", "status", "quotad", code=1)
            self.assertFalse(rows[0]["alive"])
        finally:
            os.kill(pid, signal.SIGCONT)


class Search(PosternCase):
    """Over rows as the indexer writes them."""

    def put(self, user, subject, terms, attachment=None, deleted=False, body=""):
        ident = self.value("SELECT id FROM virtual_users WHERE email = %s", user)
        number = next(NUMBERS)
        more = ""
        if attachment:
            more = ("INSERT INTO attachments (message_id, position, name, media_type, size_bytes) "
                    f"VALUES (@m, 0, '{attachment}', 'application/pdf', 5);")
        self.stack.mariadb(
            f"INSERT INTO messages (user_id, delivery_id, recipient, received_at, size_bytes, subject, from_address, "
            f"deleted_at) VALUES ({ident}, 'S{os.getpid()}-{number}', '{user}', "
            f"TIMESTAMPADD(SECOND, {number}, '2026-01-01'), 1000, '{subject}', 'a@example.org', "
            f"{'NOW()' if deleted else 'NULL'}); SET @m = LAST_INSERT_ID(); {more} "
            f"INSERT INTO message_texts (message_id, user_id, body, terms) VALUES (@m, {ident}, '{body}', '{terms}')")

    def subjects(self, user, *words):
        return [row["subject"] for row in self.json("search", user, *words)]

    def test_search(self):
        user, other = self.new_user(), self.new_user()
        self.put(user, "Invoice", "invoice march acme invoice_pdf report pdf", attachment="report.pdf")
        self.put(user, "Reply", "reply march to be or not")
        self.put(user, "Gone", "invoice march", deleted=True)
        self.put(user, "Japanese", "\u65e5\u672c \u672c\u8a9e \u8a9e", body="\u65e5\u672c\u8a9e")
        self.put(user, "No such run", "\u65e5\u672c \u672c\u8a9e \u8a9e", body="\u65e5\u672c\u306e\u672c\u8a9e")
        self.put(other, "Private", "invoice march")
        self.assertEqual(self.subjects(user, "MARCH"), ["Reply", "Invoice"])
        self.assertEqual(self.subjects(user, "march", "acme"), ["Invoice"])
        self.assertEqual(self.subjects(user, "--limit", "1", "march"), ["Reply"])
        self.assertEqual(self.subjects(user, "inv*"), ["Invoice"])
        self.assertEqual(self.subjects(user, '"report pdf"'), ["Invoice"])
        self.assertEqual(self.subjects(user, '"pdf report"'), [])  # not in this order
        self.assertEqual(self.subjects(user, '"pdf absent"'), [])
        self.assertEqual(self.subjects(user, "\u65e5\u672c\u8a9e"), ["Japanese"])
        self.assertEqual(self.subjects(user, "to", "be"), ["Reply"])
        self.assertEqual(self.json("search", user, "report")[0]["attachments"], "report.pdf")
        self.assertRegex(self.run_postern("search", user, "report")[1],
                         r"\n2026-01-01 00:\d\d:\d\d\.000  a@example.org  Invoice  report.pdf +1000\n")
        self.assertEqual(self.run_postern("search", user, "absent")[:2], (0, "nothing found\n"))
        self.refused(NOUSER, "no user", "search", "nobody@example.net", "x")
        self.refused(USAGE, "no word", "search", user, "...")
        self.refused(USAGE, "--limit", "search", user, "x", "--limit", "0")

    def test_hostile_query(self):
        user = self.new_user()
        self.put(user, "Safe", "word")
        for query in ('+word -word )(', '@8 "', "word' OR 1=1 -- ", '"' * 50, "word @distance", "~<>word*"):
            with self.subTest(query=query):
                self.assertIn(self.run_postern("search", user, "--", query)[0], (0, USAGE))

    def test_subject_cannot_steer_the_terminal(self):
        user = self.new_user()
        self.put(user, "\x1b[31mred\x1b]0;title\x07", "steer")
        shown = self.run_postern("search", user, "steer")[1]
        self.assertIn("[31mred", shown)
        self.assertNotRegex(shown, r"[\x00-\x09\x0b-\x1f\x7f]")
