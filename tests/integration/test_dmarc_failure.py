"""`postern dmarc failure`: from a message that fails to a report in a mailbox."""
import email
import itertools
import json
import os
import re
import shlex
import subprocess
import tempfile
import unittest
import uuid

from tests.frame import mail
from tests.frame.case import StackCase
from tests.frame.layout import HOST, USERS
from tests.frame.sql import quote
from tests.frame.supervise import read_unit, setting

NUMBERS = itertools.count(1)
FROM = "dmarc-reports@example.com"
USAGE, NOINPUT, TEMPFAIL, CONFIG = 64, 66, 75, 78


class FailureCase(StackCase):
    def setUp(self):
        super().setUp()
        self.stack.mariadb("DELETE FROM dmarc_failures; DELETE FROM dmarc_failure_reports;")
        self.folder = tempfile.mkdtemp(dir="/tmp")
        os.chmod(self.folder, 0o777)
        self.addCleanup(subprocess.run, ["rm", "-r", self.folder], check=True)
        self.box = self.new_user()
        self.real = self.script(f"MAIL_CONFIG={self.stack.at.path('/etc/postfix')} exec /usr/sbin/sendmail \"$@\"")
        # Keeps what it is given, a file each.
        self.sink = self.script(f'echo "$@" >>{self.folder}/args; cat >$(mktemp {self.folder}/mail.XXXXXX)')

    def script(self, text):
        path = os.path.join(self.folder, f"sendmail-{next(NUMBERS)}")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\n{text}\n")
        os.chmod(path, 0o755)
        return path

    def mails(self):
        """What the sink was given."""
        paths = [os.path.join(self.folder, name) for name in sorted(os.listdir(self.folder)) if name.startswith("mail.")]
        found = []
        for path in paths:
            with open(path, "rb") as file:
                found.append(email.message_from_bytes(file.read()))
        return found

    def add(self, count=1, ago=3600, **columns):
        """Incidents of a domain whose reports go to our mailbox."""
        base = {
            "outbox_instance": 78, "policy_domain": "example.net", "from_domain": "example.net",
            "dmarc_record": f"v=DMARC1; p=reject; ruf=mailto:{self.box}", "dmarc_discovery": "treewalk",
            "client_ip": "192.0.2.7", "disposition": "none", "auth_failure": "dmarc",
            "identity_alignment": "dkim, spf", "sender": "tokenA@example.net", "header": "From: tokenB@example.net\n",
        } | columns
        for _ in range(count):
            row = base | {"outbox_seq": uuid.uuid4().int % 2**60}
            names = sorted(row)
            self.stack.mariadb(
                f"INSERT INTO dmarc_failures ({', '.join(names)}, received_at) VALUES "
                f"({', '.join(quote(row[n]) for n in names)}, UTC_TIMESTAMP(3) - INTERVAL {ago} SECOND)")

    def argv(self, *words, sendmail=None, **options):
        options = {"dmarc_failure_reports": "yes", "dmarc_report_organization": "Example", "dmarc_report_email": FROM,
                   "sendmail_path": sendmail or self.sink} | options
        more = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        return [str(self.stack.at.path("/bin/postern")), "-c", str(self.stack.at.path("/etc/postern/postern.conf")),
                *more, "--json", "dmarc", "failure", *words, "--resolver", f"{HOST}:{self.stack.at.port('dns')}"]

    def call(self, *words, **options):
        done = subprocess.run(self.argv(*words, **options), capture_output=True, timeout=120, check=False)
        return done.returncode, json.loads(done.stdout), done.stderr.decode()

    def send(self, code=0, **options):
        status, out, err = self.call("send", **options)
        self.assertEqual(status, code, (out, err))
        return out

    def states(self):
        return sorted(row[0] for row in self.rows("SELECT state FROM dmarc_failures"))


class Send(FailureCase):
    def test_from_a_message_to_the_mailbox(self):
        """The whole way, with the real Postfix on both ends."""
        domain = f"f-{uuid.uuid4().hex[:8]}.example.net"
        self.stack.dns_add_text(f"_dmarc.{domain}", f"v=DMARC1; p=quarantine; ruf=mailto:{self.box}; fo=1")
        self.stack.dns_add_text("_dmarc.example.net", "v=DMARC1; p=none")
        self.stack.dns_add_text(domain, "v=spf1 ip4:192.0.2.1 -all")
        source = self.new_source()
        with self.configured("milter-dkim", failure_reports="yes", dmarc_enforce="reject"):
            with mail.smtp(self.stack, source) as client:
                for _ in range(2):
                    data = mail.message(f"Secret Name <secret.author@{domain}>", self.new_user(), subject="secret matter",
                                        text="secret body\n")
                    data = b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=" + domain.encode() + \
                        b"; s=sel; i=secret.signer@" + domain.encode() + b"; h=from; bh=" + b"A" * 43 + \
                        b"=; b=" + b"B" * 344 + b"\r\n" + data
                    client.sendmail(f"secret.sender@{domain}", [self.user_for(data)], data)
            self.wait_until(lambda: len(self.states()) == 2, what="two failures")
        out = self.send(dmarc_failure_wait="0", sendmail=self.real)
        self.assertEqual((out["sent"], out["failed"]), (1, 0), out)
        self.assertEqual(self.states(), ["reported", "reported"])
        report = self.find_report()
        self.assertEqual((report["From"].split()[-1], report["Auto-Submitted"]), (f"<{FROM}>", "auto-generated"))
        self.assertIn("DKIM-Signature", report)
        self.assertEqual((report.get_content_type(), report.get_param("report-type")),
                         ("multipart/report", "feedback-report"))
        text, feedback, original = report.get_payload()
        self.assertEqual(feedback.get_content_type(), "message/feedback-report")
        self.assertEqual(original.get_content_type(), "text/rfc822-headers")
        fields = dict(self.feedback(feedback))
        self.assertEqual(fields["Feedback-Type"], "auth-failure")
        self.assertEqual(fields["Auth-Failure"], "dmarc")
        self.assertEqual(fields["Identity-Alignment"], "dkim, spf")
        self.assertEqual((fields["DKIM-Domain"], fields["DKIM-Selector"]), (domain, "sel"))
        self.assertRegex(fields["DKIM-Identity"], rf"^[A-Za-z0-9+/]{{20}}@{re.escape(domain)}$")
        self.assertEqual(re.sub(r"\s+", " ", fields["SPF-DNS"]), f'txt : {domain} : "v=spf1 ip4:192.0.2.1 -all"')
        self.assertEqual((fields["Source-IP"], fields["Reported-Domain"]), (source, domain))
        self.assertEqual((fields["Delivery-Result"], fields["Incidents"]), ("policy", "2"))
        self.assertRegex(fields["Original-Mail-From"], rf"^<[A-Za-z0-9+/]{{20}}@{re.escape(domain)}>$")
        self.assertIn(f"dmarc=fail header.from={domain}", fields["Authentication-Results"])
        self.assertNotIn("secret", report.as_string().lower())
        self.assertEqual(self.send(dmarc_failure_wait="0")["reports"], [])

    def user_for(self, data):
        return mail.parse(data)["to"]

    @staticmethod
    def feedback(part):
        payload = part.get_payload()
        inner = payload[0] if isinstance(payload, list) else email.message_from_string(payload)
        # Python takes the block for a message: its fields are those of the report.
        return [(name, str(value)) for name, value in inner.items()]

    def find_report(self):
        with mail.Imap(self.stack, self.box) as imap:
            def look():
                imap.select()
                return imap.uids('SUBJECT "failure report"')
            return email.message_from_bytes(imap.fetch(self.wait_until(look, what="the report")[-1]))

    def test_like_incidents_are_one_report(self):
        self.add(5)
        self.add(2, client_ip="192.0.2.8")
        self.add(1, identity_alignment="spf")
        self.add(1, ago=10, client_ip="192.0.2.9") # too young
        out = self.send()
        self.assertEqual(out["sent"], 3)
        told = sorted(int(dict(self.feedback(m.get_payload()[1]))["Incidents"]) for m in self.mails())
        self.assertEqual(told, [1, 2, 5])
        self.assertEqual(self.states().count("new"), 1)

    def test_limits(self):
        for i in range(6):
            self.add(client_ip=f"192.0.2.{i}")
        self.assertEqual(self.send(dmarc_failure_per_destination="2")["sent"], 2)
        self.assertEqual(self.send(dmarc_failure_per_destination="2")["sent"], 0)
        self.assertEqual(self.send(dmarc_failure_per_destination="3", dmarc_failure_per_hour="3")["sent"], 1)
        self.assertEqual(self.send(dmarc_failure_per_destination="9", dmarc_failure_per_hour="3")["sent"], 0)
        self.assertEqual(self.states(), ["new"] * 3 + ["reported"] * 3)
        self.stack.mariadb("UPDATE dmarc_failure_reports SET created_at = created_at - INTERVAL 61 MINUTE")
        self.assertEqual(self.send()["sent"], 3)

    def test_external_destinations(self):
        def record(address):
            return f"v=DMARC1; p=none; ruf=mailto:{address}"
        token = uuid.uuid4().hex[:8]
        allowed, denied = f"allowed-{token}.example", f"denied-{token}.example"
        self.stack.dns_add_text(f"example.net._report._dmarc.{allowed}", "v=DMARC1")
        self.add(dmarc_record=record(f"a@{allowed}"), client_ip="192.0.2.1")
        self.add(dmarc_record=record(f"b@{denied}"), client_ip="192.0.2.2")
        self.add(dmarc_record=record(f"b@{denied},mailto:{self.box}"), client_ip="192.0.2.3")
        self.add(dmarc_record="v=DMARC1; p=none; ruf=https://x.example/", client_ip="192.0.2.4")
        self.assertEqual(self.send()["sent"], 2)
        self.assertEqual(sorted(m["To"] for m in self.mails()), sorted([f"a@{allowed}", self.box]))
        self.assertEqual(self.states(), ["left", "left", "reported", "reported"])

    def test_excluded(self):
        self.add()
        self.assertEqual(self.send(dmarc_report_exclude="example.net")["sent"], 0)
        self.assertEqual(self.states(), ["left"])

    def test_dns_that_fails_decides_nothing(self):
        self.add(dmarc_record="v=DMARC1; p=none; ruf=mailto:a@x.example")
        status, _, _ = self.call("send", "--resolver", f"{HOST}:1")
        self.assertEqual(status, USAGE)  # --resolver twice
        self.stack.stop("dns")
        try:
            self.assertEqual(self.send()["waiting"], 1)
        finally:
            self.stack.start("dns")
        self.assertEqual(self.states(), ["new"])

    def test_what_sendmail_refuses_is_tried_again(self):
        self.add(2)
        out = self.send(code=TEMPFAIL, sendmail=self.script("echo no space >&2; exit 75"))
        self.assertEqual((out["failed"], out["reports"][0]["state"]), (1, "failed"))
        self.assertIn("no space", out["reports"][0]["reason"])
        self.assertEqual(self.states(), ["new", "new"])
        self.assertEqual(self.send()["sent"], 1)

    def test_doubt_is_told_by_the_exit_status(self):
        self.add(1)
        out = self.send(code=TEMPFAIL, sendmail=self.script("cat >/dev/null; kill -9 $$"))
        self.assertEqual((out["sent"], out["failed"], out["doubtful"]), (0, 0, 1))

    def test_killed_within_sendmail_never_sends_twice(self):
        self.add(2)
        killer = self.script(f'cat >$(mktemp {self.folder}/mail.XXXXXX); kill -9 $PPID; sleep 0.2')
        done = subprocess.run(self.argv("send", sendmail=killer), capture_output=True, timeout=60, check=False)
        self.assertEqual(done.returncode, -9)
        self.assertEqual(self.states(), ["reported", "reported"])
        # The server ends the dead run's lock as soon as it sees that it is gone.
        self.wait_until(lambda: self.call("preview")[0] == 0 and self.call("send")[0] == 0, what="the next run")
        self.assertEqual(self.send()["reports"], [])
        self.assertEqual(len(self.mails()), 1)
        self.assertEqual(self.rows("SELECT state FROM dmarc_failure_reports"), [("sending",)])

    def test_old_ones_go(self):
        self.add(ago=4 * 86400, dmarc_record="v=DMARC1; p=none; ruf=https://x/", client_ip="192.0.2.1")
        self.add(ago=2 * 86400, dmarc_record="v=DMARC1; p=none; ruf=https://x/", client_ip="192.0.2.2")
        self.send()
        self.assertEqual(self.states(), ["left"])

    def test_hostile_rows(self):
        nasty = "x\r\nBcc: a@b.example\r\n\r\n--=_\x7f\""
        self.add(client_ip="192.0.2.5", sender=nasty, dkim_domain=nasty, dkim_identity=nasty, dkim_selector=nasty,
                 spf_domain=nasty, spf_record=nasty, header=nasty)
        self.assertEqual(self.send()["sent"], 1)
        sent, = self.mails()
        self.assertIsNone(sent["Bcc"])
        self.assertEqual(len(sent.get_payload()), 3)

    def test_the_service_may_do_it(self):
        """With the rights of its unit: its account, no new privileges, no setgid."""
        self.add(2)
        section = read_unit(self.stack.at.path("/etc/systemd/postern-dmarc-failure.service"))["Service"]
        unit = shlex.split(setting(section, "ExecStart"))
        self.assertEqual(unit[-3:], ["dmarc", "failure", "send"])
        shipped = unit[unit.index("-o"):unit.index("dmarc")]
        groups = [str(USERS.get(name) or subprocess.run(["getent", "group", name], capture_output=True, text=True,
                                                        check=True).stdout.split(":")[2])
                  for name in setting(section, "SupplementaryGroups").split()]
        number = str(USERS[setting(section, "User")])
        words = self.argv("send", sendmail=self.real)
        at = words.index("--json")
        done = subprocess.run(["setpriv", "--reuid", number, "--regid", number, "--groups", ",".join(groups),
                               "--no-new-privs", "--bounding-set=-all", *words[:at], *shipped, *words[at:]],
                              capture_output=True, text=True, check=False, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr + done.stdout)
        self.assertEqual(json.loads(done.stdout)["sent"], 1)
        self.find_report()

    def test_off_by_default(self):
        self.add()
        status, out, _ = self.call("send", dmarc_failure_reports="no")
        self.assertEqual(status, CONFIG)
        self.assertIn("dmarc_failure_reports", out["error"])


class Preview(FailureCase):
    def test_preview_changes_nothing(self):
        self.add(3)
        _, rows, _ = self.call("preview", dmarc_failure_reports="no")
        self.assertEqual([(r["incidents"], r["destination"], r["verification"]) for r in rows], [(3, self.box, "own")])
        status, out, _ = self.call("preview", str(rows[0]["id"]))
        self.assertEqual(status, 0)
        self.assertIn("Incidents: 3\n", out["mail"])
        # It looks at a site that is not set up for sending, too.
        bare = {"dmarc_failure_reports": "no", "dmarc_report_organization": "", "dmarc_report_email": ""}
        status, out, err = self.call("preview", str(rows[0]["id"]), **bare)
        self.assertEqual(status, 0, err)
        self.assertIn("postmaster@", json.dumps(out))
        self.assertEqual(self.call("preview", "999999999")[0], NOINPUT)
        self.assertEqual(self.call("preview", "x")[0], USAGE)
        self.assertEqual(self.states(), ["new"] * 3)
        self.assertEqual(self.mails(), [])


if __name__ == "__main__":
    unittest.main()
