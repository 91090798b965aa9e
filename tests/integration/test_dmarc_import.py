"""`postern dmarc import`: reports that others send, into the stack's MariaDB."""
import base64
import contextlib
import gzip
import io
import json
import os
import pathlib
import pty
import subprocess
import tempfile
import time
import zipfile

from tests.frame.layout import REPO
from tests.integration.test_postern import DATAERR, NOINPUT, TEMPFAIL, USAGE, PosternCase
from tests.integration.test_sql import NUMBERS

SAMPLES = REPO / "tests/fuzz/corpus"


def record(ip="192.0.2.1", count=1, disposition="none", dkim="pass", spf="fail", header_from="example.com", more=""):
    return (f"<record><row><source_ip>{ip}</source_ip><count>{count}</count><policy_evaluated>"
            f"<disposition>{disposition}</disposition><dkim>{dkim}</dkim><spf>{spf}</spf>{more}</policy_evaluated></row>"
            f"<identifiers><header_from>{header_from}</header_from></identifiers><auth_results><dkim>"
            f"<domain>{header_from}</domain><selector>s</selector><result>{dkim}</result></dkim><spf>"
            f"<domain>{header_from}</domain><scope>mfrom</scope><result>{spf}</result></spf></auth_results></record>\n")


def report(ident, *records, domain="example.com", org="Receiver", begin=1767225600, policy="<p>none</p>"):
    return (f'<?xml version="1.0"?>\n<feedback xmlns="urn:ietf:params:xml:ns:dmarc-2.0"><version>1.0</version>'
            f"<report_metadata><org_name>{org}</org_name><email>d@receiver.example</email><report_id>{ident}</report_id>"
            f"<date_range><begin>{begin}</begin><end>{begin + 86399}</end></date_range></report_metadata>"
            f"<policy_published><domain>{domain}</domain>{policy}</policy_published>\n{''.join(records)}</feedback>\n")


def tls_report(ident, domain="example.com", successful=10, failures=(("certificate-expired", 3),),
               begin="2026-01-01T00:00:00Z"):
    return json.dumps({
        "organization-name": "Sender", "report-id": ident, "contact-info": "tls@sender.example",
        "date-range": {"start-datetime": begin, "end-datetime": begin[:10] + "T23:59:59Z"},
        "policies": [{
            "policy": {"policy-type": "sts", "policy-string": ["version: STSv1"], "policy-domain": domain,
                       "mx-host": ["mx.example.com"]},
            "summary": {"total-successful-session-count": successful,
                        "total-failure-session-count": sum(n for _, n in failures)},
            "failure-details": [{"result-type": kind, "sending-mta-ip": "192.0.2.9", "failed-session-count": n,
                                 "receiving-mx-hostname": "mx.example.com"} for kind, n in failures]}]})


def make_zip(**members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return out.getvalue()


class ImportCase(PosternCase):
    def setUp(self):
        super().setUp()
        self.folder = self.make_folder()

    def make_folder(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return pathlib.Path(folder.name)

    @staticmethod
    def ident():
        return f"r{os.getpid()}-{next(NUMBERS)}"

    def write(self, content, name="report.xml"):
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def imported(self, *words, code=0):
        return self.json("dmarc", "import", *words, code=code)["reports"]

    def stored(self, ident):
        return self.rows("SELECT id FROM dmarc_reports_received WHERE report_id = %s", ident)

    def counts(self):
        return [self.value(f"SELECT COUNT(*) FROM {table}") for table in (
            "dmarc_reports_received", "dmarc_reports_received_rows", "tlsrpt_reports_received",
            "tlsrpt_reports_received_policies", "tlsrpt_reports_received_failures")]


class Import(ImportCase):
    def test_what_can_be_taken_is(self):
        """A readme beside the report, a source that is no address, stray control bytes."""
        ident = self.ident()
        text = report(ident, record("mail.example", 2), record(count=3, header_from="a\x01b.example"))
        path = self.write(make_zip(README_txt="read me", report_xml=text), "report.zip")
        result = self.json("dmarc", "import", path)
        entry, = result["reports"]
        self.assertEqual((entry["report_id"], entry["records"], entry["messages"]), (ident, 2, 5))
        self.assertEqual([(note["part"], note["line"]) for note in result["notes"]],
                         [("report.xml", 3), *[("report.xml", 4)] * 3, (None, None)])
        self.assertIn("no address", result["notes"][0]["note"])
        self.assertIn("README.txt: not a report", result["notes"][-1]["note"])
        rows = self.rows("SELECT source_ip, header_from, messages FROM dmarc_reports_received_rows WHERE report = %s "
                         "ORDER BY position", self.stored(ident)[0][0])
        self.assertEqual(rows, [("NULL", "example.com", "2"), ("192.0.2.1", "a\ufffdb.example", "3")])
        status, _, err = self.run_postern("dmarc", "import", "--dry-run", path)
        self.assertEqual(status, 0)
        self.assertRegex(err, "report.zip: report.xml: line 3: <source_ip> is no address")

    def test_what_is_stored(self):
        ident = self.ident()
        path = self.write(report(ident, record(count=3, disposition="pass"), record(
            "2001:DB8::0:1", 4, "quarantine", "fail", "fail", "sub.example.com",
            "<reason><type>mailing_list</type><comment>a &amp; b</comment></reason>")))
        entry, = self.imported(path)
        self.assertEqual(entry, {
            "file": str(path), "part": None, "type": "dmarc", "org_name": "Receiver", "report_id": ident,
            "begin": "2026-01-01T00:00:00Z", "end": "2026-01-01T23:59:59Z", "domain": "example.com", "ours": True,
            "duplicate": False, "records": 2, "messages": 7, "deviations": 0})
        self.assertEqual(
            self.rows("SELECT domain, begin_at, end_at, org_name, email, xmlns, version, p, sp, pct, records, messages, "
                      "deviations, ours FROM dmarc_reports_received WHERE report_id = %s", ident),
            [("example.com", "2026-01-01 00:00:00", "2026-01-01 23:59:59", "Receiver", "d@receiver.example",
              "urn:ietf:params:xml:ns:dmarc-2.0", "1.0", "none", "NULL", "NULL", "2", "7", "0", "1")])
        rows = self.rows("SELECT w.position, source_ip, w.messages, disposition, w.dkim_aligned, w.spf_aligned, header_from, "
                         "reasons, dkim_results, spf_results FROM dmarc_reports_received_rows w JOIN "
                         "dmarc_reports_received r ON r.id = w.report WHERE report_id = %s ORDER BY position", ident)
        self.assertEqual(rows[0][:8], ("1", "192.0.2.1", "3", "pass", "1", "0", "example.com", "NULL"))
        self.assertEqual(rows[1][:7], ("2", "2001:db8::1", "4", "quarantine", "0", "0", "sub.example.com"))
        self.assertEqual(json.loads(rows[1][7]), [{"type": "mailing_list", "comment": "a & b"}])
        self.assertEqual(json.loads(rows[0][8]), [{"domain": "example.com", "selector": "s", "result": "pass"}])
        self.assertEqual(json.loads(rows[0][9]), [{"domain": "example.com", "scope": "mfrom", "result": "fail"}])

    def test_twice_changes_nothing(self):
        ident = self.ident()
        path = self.write(report(ident, *[record(f"192.0.2.{i}") for i in range(250)]))
        self.assertFalse(self.imported(path)[0]["duplicate"])
        before = self.counts()
        self.assertTrue(self.imported(path)[0]["duplicate"])
        self.assertTrue(self.imported(self.write(gzip.compress(path.read_bytes()), "again.gz"))[0]["duplicate"])
        self.assertEqual(self.counts(), before)
        self.assertIn("there already", self.run_postern("dmarc", "import", path)[1])
        # any part of the identity makes another report
        for other in (report(ident, record(), org="Other"), report(ident, record(), begin=1767312000),
                      report(ident, record(), domain="sub.example.com"), report(ident + "x", record())):
            self.assertFalse(self.imported(self.write(other))[0]["duplicate"])

    def test_tls_report(self):
        ident = self.ident()
        path = self.write(tls_report(ident, failures=(("certificate-expired", 3), ("starttls-not-supported", 4))), "r.json")
        entry, = self.imported(path)
        self.assertEqual((entry["type"], entry["domain"], entry["policies"], entry["sessions"], entry["ours"]),
                         ("tlsrpt", "example.com", 1, 17, True))
        self.assertEqual(
            self.rows("SELECT p.domain, policy_type, policy_strings, mx_hosts, successful, failed FROM "
                      "tlsrpt_reports_received_policies p JOIN tlsrpt_reports_received r ON r.id = p.report "
                      "WHERE report_id = %s", ident),
            [("example.com", "sts", '["version: STSv1"]', '["mx.example.com"]', "10", "7")])
        self.assertEqual(
            self.rows("SELECT f.position, result_type, sending_mta_ip, sessions FROM tlsrpt_reports_received_failures f "
                      "JOIN tlsrpt_reports_received r ON r.id = f.report WHERE report_id = %s ORDER BY 1", ident),
            [("1", "certificate-expired", "192.0.2.9", "3"), ("2", "starttls-not-supported", "192.0.2.9", "4")])
        before = self.counts()
        self.assertTrue(self.imported(path)[0]["duplicate"])
        self.assertEqual(self.counts(), before)

    def test_all_shapes(self):
        """The samples in the shapes of known reporters, each in each wrapping, hold the same."""
        for sample in sorted((SAMPLES / "reports_feedback").glob("*.xml")):
            if sample.stem in ("charset", "entities", "unfinished"):
                continue
            content = sample.read_bytes()
            mail = (b"Subject: Report\r\nMIME-Version: 1.0\r\nContent-Type: application/xml; name=r.xml\r\n"
                    b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(content))
            shown = []
            for name, data in (("a.xml", content), ("b", gzip.compress(content)), ("c", make_zip(r_xml=content)), ("d", mail)):
                entry, = self.imported("--dry-run", self.write(data, name))
                self.assertEqual(entry["records"], 1, sample)
                shown.append({k: v for k, v in entry.items() if k not in ("file", "part")})
            self.assertEqual(shown[1:], shown[:1] * 3)

    def test_several_in_one_zip_and_mail(self):
        idents = [self.ident() for _ in range(4)]
        content = make_zip(a_xml=report(idents[0], record()), b_xml=report(idents[1], record(), record()),
                           t_json=tls_report(idents[2]), again_xml=report(idents[0], record()))
        entries = self.imported(self.write(content, "r.zip"))
        self.assertEqual([(e["part"], e["report_id"], e["duplicate"]) for e in entries],
                         [("a.xml", idents[0], False), ("b.xml", idents[1], False), ("t.json", idents[2], False),
                          ("again.xml", idents[0], True)])
        self.assertEqual(self.value("SELECT file FROM dmarc_reports_received WHERE report_id = %s", idents[1]), "b.xml")

    def test_standard_input_and_folder(self):
        ident, other = self.ident(), self.ident()
        status, out, err = self.run_postern("--json", "dmarc", "import", "-", text=report(ident, record()))
        self.assertEqual((status, json.loads(out)["reports"][0]["report_id"]), (0, ident), err)
        # a zip file is read from its end: through a pipe too
        content = make_zip(a_xml=report(other, record()))
        done = subprocess.run(self.postern_argv("dmarc", "import", "-"), input=content, capture_output=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(self.stored(other)), 1)
        folder = self.folder / "reports"
        folder.mkdir()
        idents = [self.ident() for _ in range(3)]
        for number, name in enumerate(idents):
            (folder / f"{number}.xml").write_text(report(name, record()))
        (folder / "below").mkdir()
        (folder / ".hidden").write_text("nothing")
        self.assertEqual([e["report_id"] for e in self.imported(folder)], idents)

    def test_all_or_nothing(self):
        """Damage anywhere leaves nothing of the file, and the other files are imported."""
        good, bad, late = self.ident(), self.ident(), self.ident()
        whole = report(bad, *[record(f"192.0.2.{i % 256}") for i in range(1000)])
        cases = {
            "cut.xml": (whole[:-100].encode(), "line 100[0-9]: not well-formed"),
            "crc.gz": (gzip.compress(whole.encode())[:-8] + bytes(8), "damaged"),
            "two.zip": (make_zip(a_xml=report(bad, record()), b_xml="<feedback/>"), "b.xml: line 1: <report_metadata>"),
            "tail.zip": (make_zip(a_xml=report(bad, record())) + b"x", "no end record"),
            "nested.zip": (make_zip(a_zip=make_zip(b_xml=whole)), "a.zip: an archive within an archive"),
            "lie.xml": (whole.replace("<count>1</count></row>", "", 1).replace("<count>1", "<count>many", 1).encode(),
                        "<count>"),
        }
        before = self.counts()
        for name, (content, pattern) in cases.items():
            with self.subTest(name=name):
                path = self.write(content, name)
                status, out, err = self.run_postern("--json", "dmarc", "import", path)
                self.assertEqual(status, DATAERR, err)
                self.assertRegex(err, rf"^postern: {path}: .*{pattern}")
                self.assertEqual(json.loads(out)["reports"], [])
                self.assertRegex(json.loads(out)["error"], pattern)
                self.assertEqual(self.counts(), before)
        first, last = self.write(report(good, record()), "1.xml"), self.write(report(late, record()), "3.xml")
        entries = self.imported(first, self.folder / "cut.xml", last, code=DATAERR)
        self.assertEqual([e["report_id"] for e in entries], [good, late])
        self.assertEqual((len(self.stored(good)), len(self.stored(bad)), len(self.stored(late))), (1, 0, 1))

    def test_domains_of_others(self):
        ident = self.ident()
        path = self.write(report(ident, record(), domain="elsewhere.example"))
        status, out, err = self.run_postern("--json", "dmarc", "import", "--ours-only", path)
        self.assertEqual((status, json.loads(out)["reports"]), (DATAERR, []))
        self.assertIn("elsewhere.example is no domain of ours", err)
        self.assertEqual(self.stored(ident), [])
        self.assertIn("not a domain of ours", self.run_postern("dmarc", "import", path)[1])
        self.assertEqual(self.value("SELECT ours FROM dmarc_reports_received WHERE report_id = %s", ident), "0")
        # above and below a hosted domain is ours, a name that only ends alike is not
        for domain, ours in (("sub.example.com", True), ("notexample.com", False), ("com", True)):
            entry, = self.imported(self.write(report(self.ident(), record(), domain=domain)))
            self.assertEqual(entry["ours"], ours, domain)

    def test_errors(self):
        self.assertEqual(self.run_postern("dmarc", "import", "/nonexistent")[0], NOINPUT)
        path = self.write(report(self.ident(), record()))
        status, out, err = self.run_postern("-o", "database_socket=/nonexistent", "dmarc", "import", path)
        self.assertEqual((status, out), (TEMPFAIL, ""))
        self.assertIn("not available", err)
        self.assertEqual(self.run_postern("-o", "database_socket=/nonexistent", "dmarc", "import", "--dry-run", path)[0], 0)

    def test_database_that_cannot_take_it_now(self):
        """Somebody else is storing the same report and does not come to an end."""
        ident = self.ident()
        path = self.write(report(ident, *[record() for _ in range(20000)]))
        with contextlib.ExitStack() as last:
            self.stack.mariadb("SET GLOBAL innodb_lock_wait_timeout = 1")
            last.callback(self.stack.mariadb, "SET GLOBAL innodb_lock_wait_timeout = 50")
            holder = subprocess.Popen(
                ["mariadb", "--no-defaults", "--unbuffered", "--skip-column-names", "-uroot", "-S",
                 str(self.stack.mysql_socket), "-D", "postern"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            last.callback(holder.wait, 20)
            last.callback(holder.stdin.close)
            holder.stdin.write(
                "BEGIN; INSERT INTO dmarc_reports_received (domain, begin_at, end_at, org_name, report_id, ours) VALUES "
                f"('example.com', '2026-01-01', '2026-01-02', 'Receiver', '{ident}', 1); SELECT 'held';\n")
            holder.stdin.flush()
            self.assertIn("held", holder.stdout.readline())
            status, _, err = self.run_postern("dmarc", "import", path)
            self.assertEqual(status, TEMPFAIL, err)
        self.assertEqual(self.stored(ident), [])
        self.assertFalse(self.imported(path)[0]["duplicate"])

    def test_least_privilege_account_is_enough(self):
        ident, tls = self.ident(), self.ident()
        password = self.stack.at.path("/etc/postern/passwords/dmarc-import")
        status, _, err = self.run_postern(
            "-o", "database_user=dmarc-import", "-o", f"database_password_file={password}", "dmarc", "import",
            self.write(report(ident, record())), self.write(tls_report(tls), "t.json"))
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(len(self.stored(ident)), 1)

    def test_texts_cannot_steer_the_terminal(self):
        ident = self.ident() + "\u009b31m\u202e"
        path = self.write(report(ident, record(), org="A\u0085\u009b2JB"), "\x1b[31m.xml")
        status, out, err = self.run_postern("dmarc", "import", path, self.write("<\x1b]0;x\x07/>", "b.xml"))
        self.assertEqual(status, DATAERR)
        self.assertNotRegex(out + err, "[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")
        self.assertNotRegex(json.dumps(self.imported("--dry-run", path), ensure_ascii=False), "[\x00-\x1f]")

    def test_progress_on_a_terminal(self):
        path = self.write(report(self.ident(), *[record() for _ in range(9000)]))
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        done = subprocess.run(self.postern_argv("dmarc", "import", "--dry-run", path), stdout=subprocess.PIPE,
                              stderr=theirs, timeout=60, check=False)
        os.close(theirs)
        self.assertEqual(done.returncode, 0)
        self.assertIn(b"report.xml: 8192 records", os.read(ours, 65536))

    def test_a_million_records_in_constant_memory(self):
        """The peak is that of a small report."""
        peaks = []
        for records in (1000, 1000000):
            path = self.folder / "big.xml"
            head, tail = report(self.ident(), "%RECORDS%").split("%RECORDS%")
            block = "".join(record(f"10.0.{i >> 8}.{i & 255}") for i in range(1000))
            with open(path, "w", encoding="utf-8") as out:
                out.write(head)
                for _ in range(records // 1000):
                    out.write(block)
                out.write(tail)
            with subprocess.Popen(self.postern_argv("--json", "dmarc", "import", "--dry-run", path),
                                  stdout=subprocess.PIPE) as process:
                shown = json.loads(process.stdout.read())
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            self.assertEqual((status, shown["reports"][0]["records"]), (0, records))
            peaks.append(usage.ru_maxrss)
        self.assertLess(peaks[1], peaks[0] + 4096)


class Summary(ImportCase):
    """Each test has a domain of its own."""

    def summary(self, domain, *words):
        return self.json("dmarc", "summary", domain, "--since", "2026-01-01", "--until", "2026-02-01", *words)

    def add(self, domain, *records, **more):
        self.imported(self.write(report(self.ident(), *records, domain=domain, **more)))

    def test_counts(self):
        domain = self.domain()
        forwarded = "<reason><type>mailing_list</type></reason>"
        test_mode = "<reason><type>policy_test_mode</type></reason>"
        self.add(domain, record("192.0.2.1", 10, dkim="pass", spf="pass"), record("192.0.2.2", 5, dkim="pass", spf="fail"),
                 record("192.0.2.3", 7, dkim="fail", spf="fail"),
                 record("192.0.2.3", 2, "quarantine", "fail", "fail"), record("192.0.2.4", 1, "reject", "fail", "fail"))
        self.add("sub." + domain, record("192.0.2.3", 20, dkim="fail", spf="fail", more=forwarded),
                 record("2001:db8::1", 3, dkim="fail", spf="fail", more=test_mode), org="Other")
        self.add("x" + domain, record("192.0.2.9", 1000))  # another name that ends alike
        self.add(domain, record("192.0.2.9", 1000), begin=1767225600 - 86400)  # before
        self.add(domain, record("192.0.2.9", 1000), begin=1769904000)  # behind
        shown = self.summary(domain)
        self.assertEqual((shown["domain"], shown["since"], shown["until"]),
                         (domain, "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"))
        self.assertEqual(shown["received"], {"reports": 2, "reporters": 2, "messages": 48, "passed": 15, "failed": 33,
                                             "dkim_aligned": 15, "spf_aligned": 10})
        self.assertEqual(shown["simulation"], {"failed": 33, "let_pass": 20, "hit": 13, "new_by_quarantine": 10,
                                               "new_by_reject": 12})
        self.assertEqual([(r["org_name"], r["reports"], r["messages"], r["passed"], r["failed"])
                          for r in shown["reporters"]], [("Receiver", 1, 25, 15, 10), ("Other", 1, 23, 0, 23)])
        self.assertEqual([(r["source_ip"], r["messages"], r["passed"], r["failed"], r["dkim_aligned"], r["spf_aligned"])
                          for r in shown["sources"]],
                         [("192.0.2.3", 29, 0, 29, 0, 0), ("192.0.2.1", 10, 10, 0, 10, 10), ("192.0.2.2", 5, 5, 0, 5, 0),
                          ("2001:db8::1", 3, 0, 3, 0, 0), ("192.0.2.4", 1, 0, 1, 0, 0)])
        self.assertEqual([(r["source_ip"], r["failed"], r["quarantined"], r["rejected"], r["reporters"])
                          for r in shown["failing_sources"]],
                         [("192.0.2.3", 29, 2, 0, 2), ("2001:db8::1", 3, 0, 0, 1), ("192.0.2.4", 1, 0, 1, 1)])
        self.assertEqual([(r["domain"], r["p"]) for r in shown["policies"]], [(domain, "none"), ("sub." + domain, "none")])
        self.assertEqual([r["source_ip"] for r in self.summary(domain, "--top", "1")["sources"]], ["192.0.2.3"])
        self.assertEqual(self.summary("sub." + domain)["received"]["messages"], 23)

    def test_tls(self):
        domain = self.domain()
        for failures in ((("certificate-expired", 3), ("starttls-not-supported", 4)), (("certificate-expired", 5),)):
            self.imported(self.write(tls_report(self.ident(), domain, 10, failures), "t.json"))
        self.imported(self.write(tls_report(self.ident(), domain, 1000, begin="2025-12-31T00:00:00Z"), "t.json"))
        shown = self.summary(domain)
        self.assertEqual(shown["tls"], {"reports": 2, "reporters": 1, "successful": 20, "failed": 12})
        self.assertEqual([(r["result_type"], r["sessions"]) for r in shown["tls_failures"]],
                         [("certificate-expired", 8), ("starttls-not-supported", 4)])

    def test_own_verdicts(self):
        domain = self.domain()
        rows = (("pass", 1, 0, "none", "192.0.2.1"), ("fail", 0, 0, "none", "192.0.2.2"),
                ("fail", 0, 0, "quarantine", "192.0.2.2"), ("fail", 0, 0, "reject", "192.0.2.3"),
                ("temperror", 0, 0, "none", "192.0.2.4"))
        for result, dkim, spf, disposition, ip in rows:
            self.stack.mariadb(
                "INSERT INTO auth_results (outbox_instance, outbox_seq, received_at, direction, client_ip, from_domain, "
                f"dmarc_result, dmarc_aligned_dkim, dmarc_aligned_spf, disposition) VALUES ({os.getpid()}, "
                f"{next(NUMBERS)}, '2026-01-05', 'verified', '{ip}', 'sub.{domain}', '{result}', {dkim}, {spf}, "
                f"'{disposition}')")
        shown = self.summary(domain)
        self.assertEqual(shown["local"], {"messages": 5, "passed": 1, "failed": 3, "undecided": 1, "dkim_aligned": 1,
                                          "spf_aligned": 0, "quarantined": 1, "rejected": 1})
        self.assertEqual([(r["source_ip"], r["failed"]) for r in shown["local_failing_sources"]],
                         [("192.0.2.2", 2), ("192.0.2.3", 1)])

    def test_text(self):
        domain = self.domain()
        words = ("dmarc", "summary", domain, "--since", "2026-01-01")
        self.assertIn("nothing was reported", self.run_postern(*words)[1])
        self.add(domain, record(dkim="fail", spf="fail", header_from="\u009b31m\u202e"), org="A\u009b2JB",
                 policy="<p>\u009bnone</p>")
        out = self.run_postern(*words)[1]
        self.assertRegex(out, r"\nSources with most failing mail\nSource +Fail .*\n192\.0\.2\.1 +1 ")
        self.assertNotIn("TLS", out)
        self.assertNotRegex(out, "[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")

    def test_period(self):
        domain = self.domain()
        self.imported(self.write(report(self.ident(), record(), domain=domain, begin=int(time.time()) - 3 * 86400)))
        self.assertEqual(self.json("dmarc", "summary", domain)["received"]["reports"], 1)
        self.assertEqual(self.json("dmarc", "summary", domain, "--since", "4d")["received"]["reports"], 1)
        self.assertEqual(self.json("dmarc", "summary", domain, "--since", "2d")["received"]["reports"], 0)
        self.assertEqual(self.json("dmarc", "summary", domain, "--until", "100h")["received"]["reports"], 0)
        for words in (("--since", "yesterday"), ("--until", "2026-02-30"), ("--since", "-1d"), ("--top", "0"),
                      ("--top", "10001")):
            self.refused(USAGE, "--(since|until|top) is", "dmarc", "summary", domain, *words)
        self.refused(USAGE, "domain", "dmarc", "summary", "no domain")

    def test_dashboards_may_read_it(self):
        for table in ("dmarc_reports_received", "dmarc_reports_received_rows", "tlsrpt_reports_received",
                      "tlsrpt_reports_received_policies", "tlsrpt_reports_received_failures"):
            self.assertEqual(self.query("mailreader", f"SELECT COUNT(*) FROM {table}")[0], 0)
