"""`postern dmarc report`: from rows of auth_results to mail in a mailbox."""
import concurrent.futures
import datetime
import email.utils
import gzip
import itertools
import json
import os
import random
import re
import shlex
import signal
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ET

from tests.frame import mail
from tests.frame.case import StackCase
from tests.frame.clock import clear_of_midnight
from tests.frame.layout import HOST, REPO, USERS
from tests.frame.sql import quote
from tests.frame.supervise import read_unit, setting

NUMBERS = itertools.count(1)
SCHEMA = REPO / "tests/schema/dmarc-aggregate.xsd"
NS = {"d": "urn:ietf:params:xml:ns:dmarc-2.0"}
FROM = "dmarc-reports@example.com"
USAGE, NOINPUT, TEMPFAIL, CONFIG = 64, 66, 75, 78
DAY_S = 86400
SIGNATURE = {"domain": "example.com", "selector": "s", "algorithm": "rsa-sha256", "result": "pass", "reason": None,
             "aligned": True}


def validate(xml):
    """The complaints of xmllint, empty where XML follows the schema."""
    with tempfile.NamedTemporaryFile(suffix=".xml") as file:
        file.write(xml)
        file.flush()
        done = subprocess.run(["xmllint", "--noout", "--nonet", "--huge", "--schema", SCHEMA, file.name],
                              capture_output=True, text=True, check=False, timeout=120)
        return "" if done.returncode == 0 else done.stderr


class ReportCase(StackCase):
    """Each test reports about a day of its own, long ago."""

    def setUp(self):
        super().setUp()
        number = next(NUMBERS)
        self.number = f"{os.getpid()}-{number}"
        self.begin = DAY_S * (3650 + (37 * os.getpid() + 3 * number) % 12000)
        self.day = self.day_of(self.begin)
        self.clean(self.day)
        self.addCleanup(self.clean, self.day)
        self.folder = tempfile.mkdtemp(dir="/tmp")
        os.chmod(self.folder, 0o777)
        self.addCleanup(subprocess.run, ["rm", "-r", self.folder], check=True)
        self.box = self.new_user()
        self.real = self.script(f"MAIL_CONFIG={self.stack.at.path('/etc/postfix')} exec /usr/sbin/sendmail \"$@\"")

    @staticmethod
    def day_of(begin):
        return datetime.datetime.fromtimestamp(begin, datetime.timezone.utc).strftime("%Y-%m-%d")

    def clean(self, day):
        self.stack.mariadb(f"DELETE FROM auth_results WHERE received_at >= '{day}' AND received_at < '{day}' + INTERVAL 1 DAY;"
                           f"DELETE FROM dmarc_reports_sent WHERE DATE(begin_at) = '{day}';"
                           f"DELETE FROM dmarc_report_days WHERE day = '{day}';")

    def domain(self, below="example.net"):
        """A policy domain of this test's own."""
        return f"d{self.number}-{next(NUMBERS)}.{below}"

    def script(self, text):
        path = os.path.join(self.folder, f"sendmail-{next(NUMBERS)}")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\n{text}\n")
        os.chmod(path, 0o755)
        return path

    def add_rows(self, *rows, day=None, **common):
        """Rows of a message that passed under p=reject, but for what is given."""
        base = {
            "outbox_instance": 77, "received_at": f"{day or self.day} 12:00:00", "direction": "verified",
            "client_ip": "192.0.2.1", "envelope_sender": "a@example.net", "from_domain": "example.net",
            "spf_result": "pass", "spf_domain": "example.net", "spf_scope": "mfrom", "dkim_result": "pass",
            "dkim_signatures": json.dumps([SIGNATURE]), "dmarc_result": "pass", "dmarc_policy": "reject",
            "dmarc_applied": "reject", "dmarc_aligned_dkim": 1, "dmarc_aligned_spf": 1, "disposition": "none",
            "dmarc_record": f"v=DMARC1; p=reject; rua=mailto:{self.box}", "dmarc_discovery": "treewalk",
            "override_type": None, "override_reason": None,
        } | common
        lines = []
        for row in rows or ({},):
            row = base | {"outbox_seq": random.getrandbits(60)} | row
            columns = sorted(row)
            lines.append("(" + ", ".join(self.literal(row[c]) for c in columns) + ")")
        for start in range(0, len(lines), 500):
            self.stack.mariadb(f"INSERT INTO auth_results ({', '.join(columns)}) VALUES " +
                               ",\n".join(lines[start:start + 500]))

    @staticmethod
    def literal(value):
        return f"CONVERT(x'{value.hex()}' USING utf8mb4)" if isinstance(value, bytes) else quote(value)

    def argv(self, *words, sendmail=None, **options):
        options = {"dmarc_reports": "yes", "dmarc_report_organization": "Example & Co", "dmarc_report_email": FROM,
                   "sendmail_path": sendmail or self.real} | options
        more = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        return [str(self.stack.at.path("/bin/postern")), "-c", str(self.stack.at.path("/etc/postern/postern.conf")),
                *more, "dmarc", "report", *words, "--resolver", f"{HOST}:{self.stack.at.port('dns')}"]

    def call(self, *words, **options):
        done = subprocess.run(self.argv(*words, **options), capture_output=True, timeout=300, check=False)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def send(self, *words, code=0, **options):
        status, out, err = self.call("send", "--json", "--day", self.day, *words, **options)
        self.assertEqual(status, code, err + out)
        return json.loads(out)

    def preview(self, *words, **options):
        status, out, err = self.call("preview", "--json", "--day", self.day, *words, **options)
        self.assertEqual(status, 0, err)
        return json.loads(out)

    def dead_run_is_gone(self):
        """The server ends the lock of a run that was killed as soon as it sees that it is gone."""
        self.wait_until(lambda: self.value("SELECT IS_FREE_LOCK(CONCAT('postern-dmarc-report-', LEFT(MD5(DATABASE()), 16)))") == "1",
                        what="the lock of the dead run is free")

    def states(self, domain):
        return self.rows("SELECT destination, state, attempts FROM dmarc_reports_sent WHERE domain = %s ORDER BY id",
                         domain)

    def mails(self, box=None, count=1):
        """The reports that have come, when there are COUNT of them."""
        with mail.Imap(self.stack, box or self.box) as imap:
            def look():
                imap.select()
                uids = imap.uids('HEADER Subject "Report Domain:"')
                return uids if len(uids) >= count else None
            uids = self.wait_until(look, what=f"{count} reports") if count else look() or []
            return [mail.parse(imap.fetch(uid)) for uid in uids]

    def xml_of(self, message):
        part = [p for p in message.walk() if p.get_content_type() == "application/gzip"]
        self.assertEqual(len(part), 1)
        return gzip.decompress(part[0].get_payload(decode=True))

    def report(self, xml):
        self.assertEqual(validate(xml), "")
        return ET.fromstring(xml)


class Sending(ReportCase):
    def test_off_until_switched_on(self):
        self.add_rows(dmarc_domain=self.domain())
        status, out, err = self.call("send", "--day", self.day, dmarc_reports="no")
        self.assertEqual((status, out), (CONFIG, ""))
        self.assertIn("dmarc_reports = yes", err)
        for missing in ("dmarc_report_email", "dmarc_report_organization"):
            status, _, err = self.call("send", "--day", self.day, **{missing: ""})
            self.assertEqual(status, CONFIG)
            self.assertIn(missing, err)
        self.assertEqual(self.value("SELECT COUNT(*) FROM dmarc_reports_sent WHERE DATE(begin_at) = %s", self.day), "0")

    def test_report_arrives(self):
        domain = self.domain()
        self.add_rows(
            {"received_at": f"{self.day} 00:00:00.000"}, {"received_at": f"{self.day} 23:59:59.999"},
            {"from_domain": f"news.{domain}"},
            {"client_ip": "2001:db8::25", "dmarc_result": "fail", "dmarc_aligned_dkim": 0, "dmarc_aligned_spf": 0,
             "dmarc_applied": "quarantine", "disposition": "quarantine", "dkim_signatures": None,
             "envelope_sender": "", "spf_result": "fail", "spf_domain": "h.example", "spf_scope": "helo"},
            {"received_at": f"{self.day_of(self.begin + DAY_S)} 00:00:00"},
            {"direction": "signed"},
            dmarc_domain=domain, dmarc_record=f"v=DMARC1; p=reject; t=y; rua=mailto:{self.box}")
        self.addCleanup(self.clean, self.day_of(self.begin + DAY_S))
        done = self.send()
        self.assertEqual((done["sent"], done["failed"]), (1, 0))
        message = self.mails()[0]
        report_id = done["reports"][0]["report_id"]
        self.assertRegex(report_id, "^[0-9a-f]{32}$")
        self.assertEqual(message["Subject"], f"Report Domain: {domain} Submitter: example.com Report-ID: <{report_id}>")
        self.assertEqual((message["To"], message["Auto-Submitted"]), (self.box, "auto-generated"))
        self.assertEqual(email.utils.parseaddr(message["From"]), ("Example & Co", FROM))
        self.assertLess(abs(email.utils.parsedate_to_datetime(message["Date"]).timestamp() - time.time()), 120)
        self.assertEqual(message["Return-Path"], f"<{FROM}>")
        part = [p for p in message.walk() if p.get_content_type() == "application/gzip"][0]
        end = self.begin + DAY_S - 1
        self.assertEqual(part.get_filename(), f"example.com!{domain}!{self.begin}!{end}!{report_id}.xml.gz")
        self.assertEqual(part.get_content_disposition(), "attachment")
        root = self.report(self.xml_of(message))
        self.assertEqual(root.findtext("d:report_metadata/d:report_id", None, NS), report_id)
        self.assertEqual(root.findtext("d:report_metadata/d:org_name", None, NS), "Example & Co")
        self.assertEqual(root.findtext("d:report_metadata/d:date_range/d:begin", None, NS), str(self.begin))
        self.assertEqual(root.findtext("d:report_metadata/d:date_range/d:end", None, NS), str(end))
        self.assertEqual(root.findtext("d:policy_published/d:domain", None, NS), domain)
        self.assertEqual(root.findtext("d:policy_published/d:testing", None, NS), "y")
        found = {(r.findtext("d:row/d:source_ip", None, NS), r.findtext("d:identifiers/d:header_from", None, NS)):
                 r for r in root.findall("d:record", NS)}
        self.assertEqual(sorted(found), [("192.0.2.1", "example.net"), ("192.0.2.1", f"news.{domain}"),
                                         ("2001:db8::25", "example.net")])
        record = found["192.0.2.1", "example.net"]
        self.assertEqual(record.findtext("d:row/d:count", None, NS), "2")
        self.assertEqual(record.findtext("d:row/d:policy_evaluated/d:disposition", None, NS), "pass")
        record = found["2001:db8::25", "example.net"]
        self.assertEqual(record.findtext("d:row/d:policy_evaluated/d:disposition", None, NS), "quarantine")
        self.assertEqual(record.findtext("d:row/d:policy_evaluated/d:reason/d:type", None, NS), "policy_test_mode")
        self.assertEqual(record.findtext("d:identifiers/d:envelope_from", None, NS), "")
        self.assertEqual(record.findtext("d:auth_results/d:spf/d:scope", None, NS), "mfrom")
        self.assertEqual(self.states(domain), [(self.box, "sent", "1")])

    def test_report_mail_passes_dmarc(self):
        self.add_rows(dmarc_domain=self.domain())
        self.assertEqual(self.send()["sent"], 1)
        with mail.Imap(self.stack, self.box) as imap:
            self.wait_until(lambda: imap.select() or imap.uids(), what="the report")
            data = imap.fetch(imap.uids()[0])
        verdict = json.loads(subprocess.run(
            [str(self.stack.at.path("/bin/postern")), "auth", "check", "--ip", "192.0.2.99", "--helo", "x.example",
             "--mail-from", FROM, "--resolver", f"{HOST}:{self.stack.at.port('dns')}"],
            input=data, capture_output=True, check=True, timeout=60).stdout)
        self.assertEqual(verdict["dmarc"]["result"], "pass")
        self.assertEqual(verdict["dmarc"]["alignment"]["dkim"], "example.com")

    def test_second_run_sends_nothing(self):
        domain = self.domain()
        self.add_rows(dmarc_domain=domain)
        self.assertEqual(self.send()["sent"], 1)
        for words in ((), ("--domain", domain)):
            self.assertEqual(self.send(*words)["sent"], 0)
        self.assertEqual(self.states(domain), [(self.box, "sent", "1")])
        self.assertEqual(len(self.mails()), 1)

    def test_each_address_gets_its_mail_in_order(self):
        domain, second, log = self.domain(), self.new_user(), os.path.join(self.folder, "log")
        self.add_rows(dmarc_domain=domain, dmarc_record="v=DMARC1; p=none; rua=https://example.net/x, "
                      f"mailto:{second}!10m,mailto:{self.box},mailto:%22x%22@example.net,mailto:{second}")
        done = self.send(sendmail=self.script(f"echo \"$@\" >>{log}; exec {self.real} \"$@\""))
        self.assertEqual(done["sent"], 2)
        with open(log, encoding="utf-8") as file:
            self.assertEqual(file.read().splitlines(),
                             [f"-i -f {FROM} -- {second}", f"-i -f {FROM} -- {self.box}"])
        one, two = self.mails()[0], self.mails(second)[0]
        self.assertEqual(self.xml_of(one), self.xml_of(two))
        self.assertEqual(one["Subject"], two["Subject"])
        self.assertNotEqual(one["Message-ID"], two["Message-ID"])

    def test_no_rua_no_report(self):
        domain = self.domain()
        self.add_rows(dmarc_domain=domain, dmarc_record="v=DMARC1; p=reject")
        self.assertEqual(self.send()["reports"], [])

    def test_the_last_record_of_the_day_counts(self):
        other = self.new_user()
        self.add_rows({"received_at": f"{self.day} 20:00:00"},
                      {"received_at": f"{self.day} 08:00:00",
                       "dmarc_record": f"v=DMARC1; p=none; rua=mailto:{other}"}, dmarc_domain=self.domain())
        self.assertEqual(self.send()["sent"], 1)
        root = self.report(self.xml_of(self.mails()[0]))
        self.assertEqual(root.findtext("d:policy_published/d:p", None, NS), "reject")
        self.assertEqual([r.text for r in root.findall("d:record/d:row/d:count", NS)], ["2"])

    def test_one_report_for_each_policy_domain(self):
        first, second = self.domain(), self.domain()
        self.add_rows({"dmarc_domain": first}, {"dmarc_domain": first.upper(), "from_domain": f"a.{first}"},
                      {"dmarc_domain": second})
        self.assertEqual(self.send()["sent"], 2)
        subjects = sorted(m["Subject"].split()[2] for m in self.mails(count=2))
        self.assertEqual(subjects, sorted([first, second]))

    def test_the_service_may_do_it(self):
        """With the rights of its unit: its account, no new privileges, no setgid."""
        domain = self.domain()
        self.add_rows(dmarc_domain=domain)
        section = read_unit(self.stack.at.path("/etc/systemd/postern-dmarc-report.service"))["Service"]
        unit = shlex.split(setting(section, "ExecStart"))
        shipped = unit[unit.index("-o"):unit.index("dmarc")]
        groups = [str(USERS.get(name) or subprocess.run(["getent", "group", name], capture_output=True, text=True,
                                                        check=True).stdout.split(":")[2])
                  for name in setting(section, "SupplementaryGroups").split()]
        number = str(USERS[setting(section, "User")])
        words = self.argv("send", "--day", self.day, "--json")
        at = words.index("dmarc")
        done = subprocess.run(["setpriv", "--reuid", number, "--regid", number, "--groups", ",".join(groups),
                               "--no-new-privs", "--bounding-set=-all", *words[:at], *shipped, *words[at:]],
                              capture_output=True, text=True, check=False, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr + done.stdout)
        self.assertEqual(json.loads(done.stdout)["sent"], 1)
        self.mails()


class Destinations(ReportCase):
    """External destinations, and those that get nothing."""

    def setUp(self):
        super().setUp()
        self.policy = f"ext{self.number}.test"

    def allow(self, text):
        name = f"{self.policy}._report._dmarc.example.net"
        self.stack.dns_add_text(name, text)
        self.addCleanup(self.stack.dns_remove, name)

    def results(self, **options):
        return [(row["destination"], row["verification"], row["state"]) for row in self.send(**options)["reports"]]

    def test_denied_without_consent(self):
        self.add_rows(dmarc_domain=self.policy)
        self.assertEqual(self.results(), [(self.box, "denied", "not sent")])
        self.assertEqual(self.states(self.policy), [])

    def test_allowed(self):
        self.allow("v=DMARC1")
        self.add_rows(dmarc_domain=self.policy)
        self.assertEqual(self.results(), [(self.box, "allowed", "sent")])
        self.mails()

    def test_replaced(self):
        other = self.new_user()
        self.allow(f"v=DMARC1; rua=mailto:{other}")
        self.add_rows(dmarc_domain=self.policy)
        self.assertEqual(self.results(), [(other, "replaced", "sent")])
        self.mails(other)
        self.assertEqual(self.mails(count=0), [])

    def test_replaced_by_another_host(self):
        self.allow("v=DMARC1; rua=mailto:office@example.com")
        self.add_rows(dmarc_domain=self.policy)
        self.assertEqual(self.results(), [(self.box, "denied", "not sent")])

    def test_dns_failure_is_tried_again(self):
        self.add_rows(dmarc_domain=self.policy)
        words = self.argv("send", "--json", "--day", self.day)
        words[-1] = f"{HOST}:1"
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
        self.assertEqual(done.returncode, TEMPFAIL)
        self.assertEqual(json.loads(done.stdout)["undecided"], 1)
        self.assertEqual(self.value("SELECT finished_at FROM dmarc_report_days WHERE day = %s", self.day), "NULL")
        self.allow("v=DMARC1")
        self.assertEqual(self.results(), [(self.box, "allowed", "sent")])
        self.assertNotEqual(self.value("SELECT finished_at FROM dmarc_report_days WHERE day = %s", self.day), "NULL")

    def test_excluded(self):
        domain = self.domain()
        self.add_rows(dmarc_domain=domain)
        for rule in (domain, ".example.net", self.box.upper(), "example.net", f"x.test, {domain}"):
            with self.subTest(rule):
                self.assertEqual(self.results(dmarc_report_exclude=rule), [(self.box, "excluded", "not sent")])
        self.assertEqual(self.results(dmarc_report_exclude="example.com"), [(self.box, "own", "sent")])

    def test_bad_exclusion_is_told(self):
        status, _, err = self.call("send", dmarc_report_exclude="a@b@, ok.test")
        self.assertEqual(status, CONFIG)
        self.assertIn("dmarc_report_exclude", err)


class KnownFaults(ReportCase):
    """What the reports of other programs got wrong, by the number of its report."""

    def shown(self, domain):
        status, out, err = self.call("preview", "--day", self.day, domain)
        self.assertEqual(status, 0, err)
        return self.report(out.encode())

    def test_rspamd_2872_invalid_xml(self):
        """Words that the schema does not know, a reason without a type, missing parts."""
        domain = self.domain()
        none = {"dmarc_result": "fail", "dmarc_aligned_dkim": 0, "dmarc_aligned_spf": 0, "dmarc_applied": "quarantine"}
        self.add_rows(
            none | {"spf_result": "softfail", "disposition": "quarantine"},
            none | {"spf_result": "none", "spf_domain": None, "dkim_signatures": None, "disposition": "none",
                    "override_type": "local_policy", "override_reason": "sampled_out"},
            none | {"envelope_sender": "", "spf_result": "temperror", "disposition": "reject", "override_type": "trusted_forwarder"},
            {"dkim_signatures": json.dumps([SIGNATURE | {"selector": ""}])},
            dmarc_domain=domain)
        root = self.shown(domain)
        found = {record.findtext("d:row/d:policy_evaluated/d:disposition", None, NS) for record in root.findall("d:record", NS)}
        self.assertEqual(found, {"none", "pass", "quarantine", "reject"})
        for reason in root.iter(f"{{{NS['d']}}}reason"):
            self.assertIn(reason.findtext("d:type", None, NS), ("local_policy", "trusted_forwarder", "policy_test_mode"))
            self.assertEqual((reason.text or "").strip(), "")

    def test_rspamd_2775_3337_each_report_only_to_whom_its_domain_names(self):
        boxes = {self.domain(): self.box, self.domain(): self.new_user(), self.domain(): None}
        for domain, box in boxes.items():
            self.add_rows(dmarc_domain=domain, dmarc_record="v=DMARC1; p=reject" + (f"; rua=mailto:{box}" if box else ""))
        self.assertEqual(self.send()["sent"], 2)
        for domain, box in boxes.items():
            if box:
                subject, = (message["Subject"] for message in self.mails(box))
                self.assertIn(f"Report Domain: {domain} ", subject)
        self.assertEqual(self.rows("SELECT domain, destination FROM dmarc_reports_sent WHERE DATE(begin_at) = %s ORDER BY domain",
                                   self.day), sorted((domain, box) for domain, box in boxes.items() if box))

    def test_opendmarc_282_arc_pass_is_told(self):
        """And nothing of ARC where it decided nothing: mail that fails and comes in all the same is local policy."""
        domain = self.domain()
        failed = {"dmarc_result": "fail", "dmarc_aligned_dkim": 0, "dmarc_aligned_spf": 0, "disposition": "none"}
        arc = "arc=pass as[1].d=list.example as[1].s=s remote-ip[1]=192.0.2.7"
        self.add_rows(failed | {"client_ip": "192.0.2.1", "arc_result": "pass", "override_type": "local_policy", "override_reason": arc},
                      failed | {"client_ip": "192.0.2.2", "arc_result": "fail"}, {"client_ip": "192.0.2.3", "arc_result": "pass"},
                      dmarc_domain=domain)
        told = {record.findtext("d:row/d:source_ip", None, NS): [
            (reason.findtext("d:type", None, NS), reason.findtext("d:comment", None, NS))
            for reason in record.findall("d:row/d:policy_evaluated/d:reason", NS)]
            for record in self.shown(domain).findall("d:record", NS)}
        self.assertEqual(told, {"192.0.2.1": [("local_policy", arc)], "192.0.2.2": [("local_policy", None)], "192.0.2.3": []})


class Faults(ReportCase):
    def test_failed_sendmail_is_tried_again_under_the_same_id(self):
        domain = self.domain()
        self.add_rows(dmarc_domain=domain)
        done = self.send(code=TEMPFAIL, sendmail=self.script("cat >/dev/null; echo 'queue is full' >&2; exit 75"))
        self.assertEqual((done["sent"], done["failed"], done["reports"][0]["reason"]), (0, 1, "queue is full"))
        self.assertEqual(self.states(domain), [(self.box, "failed", "1")])
        done = self.send(code=TEMPFAIL, sendmail="/nonexistent/sendmail")
        self.assertEqual(self.states(domain), [(self.box, "failed", "2")])
        again = self.send()
        self.assertEqual((again["sent"], again["reports"][0]["report_id"]), (1, done["reports"][0]["report_id"]))
        self.assertEqual(self.states(domain), [(self.box, "sent", "3")])

    def test_doubt_is_told_by_the_exit_status_of_the_run_it_is_from(self):
        domain = self.domain()
        self.add_rows(dmarc_domain=domain)
        done = self.send(code=TEMPFAIL, sendmail=self.script("cat >/dev/null; kill -9 $$"))
        self.assertEqual([done[key] for key in ("sent", "failed", "doubtful")], [0, 0, 1])
        self.assertEqual((done["reports"][0]["state"], done["reports"][0]["reason"]), ("sending", "it was killed"))
        self.assertEqual(self.send()["doubtful"], 1)
        self.assertEqual(self.send("--resend")["sent"], 1)

    def test_one_bad_address_does_not_keep_the_others(self):
        second, domain = self.new_user(), self.domain()
        self.add_rows(dmarc_domain=domain, dmarc_record=f"v=DMARC1; rua=mailto:{second},mailto:{self.box}")
        script = self.script(f"case \"$*\" in *{second}) exit 67;; esac; exec {self.real} \"$@\"")
        done = self.send(code=TEMPFAIL, sendmail=script)
        self.assertEqual((done["sent"], done["failed"]), (1, 1))
        self.assertEqual(self.send()["sent"], 1)
        self.assertEqual((len(self.mails()), len(self.mails(second))), (1, 1))

    def test_crash_never_sends_twice(self):
        domain = self.domain()
        self.add_rows(dmarc_domain=domain)
        script = self.script(f"{self.real} \"$@\"; kill -9 $PPID")
        status, _, _ = self.call("send", "--day", self.day, sendmail=script)
        self.assertEqual(status, -signal.SIGKILL)
        self.mails()
        self.dead_run_is_gone()
        done = self.send()
        self.assertEqual((done["sent"], done["doubtful"]), (0, 1))
        self.assertEqual(self.states(domain), [(self.box, "sending", "1")])
        again = self.send("--resend")
        self.assertEqual(again["sent"], 1)
        first, second = self.mails(count=2)
        self.assertEqual(first["Subject"], second["Subject"])
        self.assertEqual(first["Message-ID"], second["Message-ID"])
        self.assertEqual(self.xml_of(first), self.xml_of(second))
        self.assertEqual(self.states(domain), [(self.box, "sent", "2")])

    def test_killed_before_sendmail_leaves_nothing_half(self):
        """Whatever moment it dies at, a later run sends at most what was not claimed."""
        domains = [self.domain() for _ in range(5)]
        log = os.path.join(self.folder, "log")
        for domain in domains:
            self.add_rows(dmarc_domain=domain)
        script = self.script(f"cat >/dev/null; echo x >>{log}; [ $(wc -l <{log}) != 3 ] || kill -9 $PPID")
        self.assertEqual(self.call("send", "--day", self.day, sendmail=script)[0], -signal.SIGKILL)
        self.dead_run_is_gone()
        self.assertEqual(self.send(sendmail=script)["sent"], 2)
        with open(log, encoding="utf-8") as file:
            self.assertEqual(len(file.readlines()), 5)

    def test_two_runs_at_once(self):
        for _ in range(3):
            self.add_rows(dmarc_domain=self.domain())
        log = os.path.join(self.folder, "log")
        script = self.script(f"cat >/dev/null; echo x >>{log}")
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            runs = [pool.submit(self.call, "send", "--day", self.day, sendmail=script) for _ in range(6)]
            codes = {run.result()[0] for run in runs}
        self.assertLessEqual(codes, {0, TEMPFAIL})
        self.assertIn(0, codes)
        with open(log, encoding="utf-8") as file:
            self.assertEqual(len(file.readlines()), 3)

    def test_the_second_run_says_so(self):
        self.add_rows(dmarc_domain=self.domain())
        go, here = os.path.join(self.folder, "go"), os.path.join(self.folder, "here")
        os.mkfifo(go)
        script = self.script(f"cat >/dev/null; : >{here}; read x <{go}")
        first = subprocess.Popen(self.argv("send", "--day", self.day, sendmail=script), stdout=subprocess.DEVNULL)
        self.wait_until(lambda: os.path.exists(here), what="the first run in its sendmail")
        status, _, err = self.call("send", "--day", self.day)
        with open(go, "w", encoding="utf-8") as pipe:
            pipe.write("x\n")
        self.assertEqual(first.wait(60), 0)
        self.assertEqual(status, TEMPFAIL)
        self.assertIn("another run", err)

    def test_hostile_rows(self):
        """Whatever stands in the table, the report is valid."""
        rng = random.Random(9990)
        domain = self.domain()
        pieces = [b"<", b"&", b"]]>", b"\x00", b"\x01", b"\x1f", b"\r\n", b"\t", b"\x7f", b"\xc2\x85", b"\xef\xbf\xbe",
                  b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf", b"\xf0\x9f\x98\x80", b"\"'", b"a" * 40, b"&#0;", b"<!--",
                  b"</record>", "\u202e".encode(), b".", b"@", b"\\", b"%s", b"example.net"]

        def text(most=6):
            return b"".join(rng.choices(pieces, k=rng.randrange(most)))[:240]

        rows = []
        for _ in range(400):
            signatures = [{rng.choice(["domain", "selector", "result", "x"]): text().decode(),
                           "domain": text().decode(), "result": rng.choice(["pass", "fail", "", "hardfail"]),
                           "selector": text().decode(), "reason": text(12).decode()} for _ in range(rng.randrange(5))]
            rows.append({
                "from_domain": text(), "envelope_sender": rng.choice([None, "", text()]), "spf_domain": text(),
                "spf_result": rng.choice([None, "", "pass", "softfail", "x<y"]),
                "dkim_signatures": json.dumps(rng.choice([signatures, signatures, None, {}, 7, "x", [[[]]]])).encode(),
                "client_ip": rng.choice(["192.0.2.1", "::", "::1", "1::8", "::ffff:1.2.3.4", "::1.2.3.4", "x", "<", "",
                                         "1:2:3:4:5:6:7:8", "fe80::1%eth0", "2001:db8::"]),
                "dmarc_result": rng.choice(["pass", "fail", "temperror", "<"]),
                "dmarc_policy": rng.choice(["none", "reject", "x", None]), "disposition": rng.choice(["none", "<", None]),
                "dmarc_applied": rng.choice(["none", "quarantine", None]),
                "override_type": rng.choice([None, "local_policy", "<x>"]), "override_reason": text(),
            })
        self.add_rows(*rows, dmarc_domain=domain)
        seen = self.preview(domain)
        self.assertEqual(validate(seen["xml"].encode()), "")
        self.assertGreater(seen["messages"], 200)
        self.assertEqual(seen["messages"] + seen["left_out"], 400)
        again = self.preview(domain)
        self.assertEqual(seen["xml"], again["xml"])

    def test_hostile_policy_domains_harm_nobody(self):
        good = self.domain()
        for bad in (b"<script>", b"a b.example", b"x\ny.example", b"x!y.example", b".", b"..", b"\xc3\xa4.example",
                    b"a" * 255, b"-", b"x\".example"):
            self.add_rows(dmarc_domain=bad)
        self.add_rows(dmarc_domain=good)
        done = self.send()
        self.assertIn((good, "sent"), [(row["domain"], row["state"]) for row in done["reports"]])

    def test_a_report_that_is_too_large_is_cut(self):
        domain = self.domain()
        rng = random.Random(1)
        self.add_rows(*({"client_ip": f"10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}",
                         "from_domain": f"{rng.getrandbits(200):x}.example"} for i in range(9000)), dmarc_domain=domain)
        status, out, err = self.call("send", "--json", "--day", self.day, dmarc_report_max_bytes="262144")
        self.assertEqual(status, 0, err)
        self.assertIn("is cut", err)
        row = json.loads(out)["reports"][0]
        self.assertLessEqual(row["bytes"], 262144)
        self.assertGreater(row["bytes"], 100000)
        root = self.report(self.xml_of(self.mails()[0]))
        self.assertIn(f"cut after {row['records']} records", root.findtext("d:report_metadata/d:error", None, NS))
        self.assertEqual(len(root.findall("d:record", NS)), row["records"])


class Days(ReportCase):
    """Without --day: yesterday, and what was missed."""

    def setUp(self):
        super().setUp()
        clear_of_midnight(120)
        today = int(time.time()) // DAY_S * DAY_S
        self.days = [self.day_of(today - n * DAY_S) for n in range(10)]
        for day in self.days[1:]:
            self.clean(day)
            self.addCleanup(self.clean, day)
        self.stack.mariadb("DELETE FROM dmarc_report_days")

    def run_send(self, *words, code=0, **options):
        status, out, err = self.call("send", "--json", *words, **options)
        self.assertEqual(status, code, err)
        return sorted(row["day"] for row in json.loads(out)["reports"] if row["state"] == "sent")

    def test_yesterday_first_then_what_was_missed(self):
        for day in self.days[:9]:
            self.add_rows(dmarc_domain=self.domain(), day=day)
        self.addCleanup(self.clean, self.days[0])
        self.assertEqual(self.run_send(), [self.days[1]])
        self.assertEqual(self.run_send(), [])
        # As if the first run had been a week and more ago, and day 3 been done since.
        self.stack.mariadb(f"UPDATE dmarc_report_days SET day = '{self.days[9]}';"
                           f"INSERT INTO dmarc_report_days VALUES ('{self.days[3]}', NOW(), NOW())")
        self.assertEqual(self.run_send(), sorted(d for d in self.days[2:8] if d != self.days[3]))
        self.assertEqual(self.run_send(), [])
        self.assertEqual(self.run_send("--day", self.days[3]), [self.days[3]])

    def test_unfinished_day_is_taken_up_again(self):
        self.add_rows(dmarc_domain=self.domain(), day=self.days[1])
        self.assertEqual(self.run_send(code=TEMPFAIL, sendmail=self.script("exit 1")), [])
        self.stack.mariadb(f"UPDATE dmarc_report_days SET day = '{self.days[2]}';"
                           f"UPDATE auth_results SET received_at = '{self.days[2]} 10:00:00' "
                           f"WHERE DATE(received_at) = '{self.days[1]}';"
                           "UPDATE dmarc_reports_sent SET begin_at = begin_at - INTERVAL 1 DAY "
                           f"WHERE DATE(begin_at) = '{self.days[1]}'")
        self.assertEqual(self.run_send(), [self.days[2]])

    def test_a_day_that_is_not_over_is_refused(self):
        for words in (("--day", self.days[0]), ("--day", "2999-01-01"), ("--day", "yesterday"), ("--resend",)):
            self.assertEqual(self.call("send", *words)[0], USAGE, words)

    def test_old_rows_are_removed_when_told_to(self):
        old, kept = "1999-12-31", self.days[8]
        self.add_rows(*({} for _ in range(4100)), dmarc_domain=self.domain(), day=old)
        self.add_rows(dmarc_domain=self.domain(), day=kept)
        count = "SELECT COUNT(*) FROM auth_results WHERE DATE(received_at) = %s"
        self.addCleanup(self.clean, old)
        self.run_send()
        self.assertEqual(self.value(count, old), "4100")
        self.run_send(auth_results_keep="36500")
        self.assertEqual(self.value(count, old), "4100")
        self.run_send(auth_results_keep="8")
        self.assertEqual((self.value(count, old), self.value(count, kept)), ("0", "1"))
        self.assertEqual(self.call("send", auth_results_keep="7")[0], CONFIG)


class RealMail(ReportCase):
    """From mail that came in to the report about it."""

    def test_what_came_in_is_told(self):
        domain, source = self.domain("example"), self.new_source()
        clear_of_midnight()
        for name, text in ((f"_dmarc.{domain}", f"v=DMARC1; p=quarantine; rua=mailto:{self.box}"),
                           (domain, f"v=spf1 ip4:{source} -all"),
                           (f"{domain}._report._dmarc.example.net", "v=DMARC1")):
            self.stack.dns_add_text(name, text)
            self.addCleanup(self.stack.dns_remove, name)
        wanted = []
        for author, sender in ((f"a@{domain}", f"x@{domain}"), (f"a@{domain}", f"y@{domain}"),
                               (f"b@news.{domain}", "<>"), (f"c@{domain}", "z@example.org")):
            data = mail.message(author, self.box)
            mail.deliver(self.stack, sender, [self.box], data, source)
            wanted.append(mail.parse(data)["message-id"])
        ids = ", ".join(quote(i) for i in wanted)
        self.wait_until(lambda: self.value(f"SELECT COUNT(*) FROM auth_results WHERE message_id_header IN ({ids})") == "4", what="four rows")
        today = self.day_of(int(time.time()))
        status, out, err = self.call("preview", domain, "--day", today)
        self.assertEqual((status, validate(out.encode())), (0, ""), err)
        self.stack.mariadb(f"UPDATE auth_results SET received_at = '{self.day} 10:00:00' WHERE message_id_header IN ({ids})")
        self.assertEqual(self.send("--domain", domain)["sent"], 1)
        root = self.report(self.xml_of(self.mails()[0]))
        told = sorted((r.findtext("d:identifiers/d:header_from", None, NS),
                       r.findtext("d:identifiers/d:envelope_from", None, NS),
                       r.findtext("d:row/d:policy_evaluated/d:disposition", None, NS),
                       r.findtext("d:row/d:policy_evaluated/d:reason/d:type", None, NS),
                       r.findtext("d:row/d:policy_evaluated/d:spf", None, NS),
                       r.findtext("d:row/d:count", None, NS)) for r in root.findall("d:record", NS))
        self.assertEqual({r.text for r in root.findall("d:record/d:row/d:source_ip", NS)}, {source})
        self.assertEqual(told, [
            (domain, domain, "pass", None, "pass", "2"),
            (domain, "example.org", "none", "local_policy", "fail", "1"),
            (f"news.{domain}", "", "none", "local_policy", "fail", "1"),
        ])
        self.assertEqual(root.findtext("d:policy_published/d:p", None, NS), "quarantine")
        self.assertEqual(root.findtext("d:policy_published/d:discovery_method", None, NS), "treewalk")


class Preview(ReportCase):
    def test_the_table(self):
        domain, denied = self.domain(), f"ext{self.number}.test"
        self.add_rows({}, {}, {"client_ip": "192.0.2.2"}, dmarc_domain=domain)
        self.add_rows(dmarc_domain=denied)
        status, out, err = self.call("preview", "--day", self.day)
        self.assertEqual((status, err), (0, ""))
        self.assertRegex(out, rf"{re.escape(domain)} +3 +2 +{re.escape(self.box)} +own +- +-")
        self.assertRegex(out, rf"{re.escape(denied)} +1 +1 +{re.escape(self.box)} +denied +- +the host does not")
        rows = {row["domain"]: row for row in self.preview()}
        self.assertEqual((rows[domain]["send"], rows[denied]["send"]), (True, False))
        self.assertEqual(self.value("SELECT COUNT(*) FROM dmarc_reports_sent WHERE DATE(begin_at) = %s", self.day), "0")

    def test_shows_what_is_sent(self):
        domain = self.domain()
        self.add_rows({}, {"client_ip": "2001:db8::1"}, dmarc_domain=domain)
        status, out, err = self.call("preview", domain.upper(), "--day", self.day, dmarc_reports="no")
        self.assertEqual(status, 0)
        self.assertIn(f"to {self.box} (own)", err)
        self.assertEqual(validate(out.encode()), "")
        self.send()
        self.assertEqual(self.xml_of(self.mails()[0]).decode(), out)
        seen = self.preview(domain)
        self.assertEqual((seen["xml"], seen["destinations"][0]["state"]), (out, "sent"))
        self.assertEqual(seen["file_name"], f"example.com!{domain}!{self.begin}!{self.begin + DAY_S - 1}!"
                                            f"{seen['report_id']}.xml.gz")

    def test_nothing_to_show(self):
        status, out, err = self.call("preview", "--day", self.day)
        self.assertEqual((status, out), (0, ""))
        self.assertIn(f"nothing was received on {self.day}", err)
        self.assertEqual(self.preview(), [])
        status, out, err = self.call("preview", "nothing.example", "--day", self.day)
        self.assertEqual((status, out), (NOINPUT, ""))
        self.assertIn("nothing.example", err)

    def test_a_resolver_that_is_none(self):
        for word in ("127.0.0.1:0", "[::1", ""):
            done = subprocess.run(self.argv("preview")[:-1] + [word], capture_output=True, text=True, check=False, timeout=60)
            self.assertEqual(done.returncode, USAGE, done.stderr)
            self.assertIn("DNS server", done.stderr)

    def test_works_before_it_is_set_up(self):
        domain = self.domain()
        self.add_rows(dmarc_domain=domain)
        seen = self.preview(domain, dmarc_reports="no", dmarc_report_email="", dmarc_report_organization="")
        self.assertEqual(validate(seen["xml"].encode()), "")
