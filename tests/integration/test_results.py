"""What milter-dkim records of each message, on its way to auth_results."""
import contextlib
import json
import re
import signal
import subprocess
import unittest
import uuid

from tests.frame import mail
from tests.frame.case import StackCase

SENDER = "sales@example.com"
COLUMNS = ("direction", "queue_id", "client_ip", "helo", "envelope_sender", "account", "message_id_header",
           "from_domain", "spf_result", "spf_domain", "spf_scope", "dkim_result", "arc_result", "dmarc_result",
           "dmarc_domain", "dmarc_policy", "dmarc_applied", "dmarc_record", "dmarc_discovery", "dmarc_aligned_dkim",
           "dmarc_aligned_spf", "disposition", "override_type", "override_reason")


class ResultsCase(StackCase):
    def setUp(self):
        super().setUp()
        self.user = self.new_user()

    def found(self, message_id, column="message_id_header"):
        """The rows of a message, as dictionaries."""
        names = (*COLUMNS, "dkim_signatures")
        got = self.rows(f"SELECT {', '.join(names)} FROM auth_results WHERE {column} = %s ORDER BY id", message_id)
        return [dict(zip(names, (None if cell == "NULL" else cell for cell in row))) for row in got]

    def row(self, message_id, column="message_id_header"):
        """The one row of a message, once it is there."""
        self.wait_until(lambda: self.found(message_id, column), what=f"a row of {message_id}")
        row, = self.found(message_id, column)
        return row

    def receive(self, sender, author, code=250, helo="client.example.org", **more):
        """Sends a message from outside; returns its Message-ID and client."""
        source = self.new_source()
        data = mail.message(author, self.user, **more)
        with mail.smtp(self.stack, source, helo) as client:
            client.ehlo_or_helo_if_needed()
            client.mail(sender)
            client.rcpt(self.user)
            answer = client.data(data)
            self.assertEqual(answer[0], code, answer)
        return mail.parse(data)["message-id"], source

    def dead_letters(self):
        return list(self.folder().glob("dead/*"))

    def folder(self):
        return self.stack.at.path("/var/lib/postern/milter-dkim/results")

    def counter(self, sample):
        text = subprocess.run(["curl", "-s", "--unix-socket", self.stack.at.path("/run/postern/milter-dkim.metrics.sock"),
                               "http://localhost/metrics"], check=True, capture_output=True, text=True).stdout
        return int(re.search(rf"^{re.escape(sample)} (\d+)$", text, re.M).group(1))

    def new_domain(self, policy):
        domain = f"r-{uuid.uuid4().hex[:8]}.example"
        self.stack.dns_add_text(f"_dmarc.{domain}", policy)
        return domain


class Columns(ResultsCase):
    def test_judged(self):
        policy = "v=DMARC1; p=quarantine; rua=mailto:agg@rua.example"
        domain = self.new_domain(policy)
        self.stack.dns_add_text(domain, "v=spf1 -all")
        with self.configured("milter-dkim", dmarc_enforce="reject"):
            message_id, source = self.receive(f"x@{domain}", f"a@{domain}")
            row = self.row(message_id)
        self.assertRegex(row.pop("queue_id"), r"^[0-9A-Za-z]{6,}$")
        self.assertEqual(json.loads(row.pop("dkim_signatures")), [])
        self.assertEqual(row, {
            "direction": "verified", "client_ip": source, "helo": "client.example.org",
            "envelope_sender": f"x@{domain}", "account": None, "message_id_header": message_id,
            "from_domain": domain, "spf_result": "fail", "spf_domain": domain, "spf_scope": "mfrom",
            "dkim_result": "none", "arc_result": "none", "dmarc_result": "fail", "dmarc_domain": domain,
            "dmarc_policy": "quarantine", "dmarc_applied": "quarantine", "dmarc_record": policy,
            "dmarc_discovery": "treewalk", "dmarc_aligned_dkim": "0", "dmarc_aligned_spf": "0",
            "disposition": "quarantine", "override_type": None, "override_reason": None})

    def test_rejected_is_recorded_too(self):
        domain = self.new_domain("v=DMARC1; p=reject")
        with self.configured("milter-dkim", dmarc_enforce="reject"):
            message_id, _ = self.receive("", f"a@sub.{domain}", code=550)
            row = self.row(message_id)
        self.assertEqual((row["disposition"], row["dmarc_domain"], row["from_domain"], row["envelope_sender"]),
                         ("reject", domain, f"sub.{domain}", ""))
        self.assertEqual((row["spf_scope"], row["spf_domain"]), ("helo", "client.example.org"))

    def test_not_enforced(self):
        domain = self.new_domain("v=DMARC1; p=reject")
        row = self.row(self.receive("", f"a@{domain}")[0])
        self.assertEqual((row["disposition"], row["override_type"]), ("none", "local_policy"))

    def test_testing_policy(self):
        domain = self.new_domain("v=DMARC1; p=quarantine; t=y")
        row = self.row(self.receive("", f"a@{domain}")[0])
        self.assertEqual((row["dmarc_policy"], row["dmarc_applied"], row["disposition"], row["override_type"]),
                         ("quarantine", "none", "none", "policy_test_mode"))

    def test_signed_and_judged(self):
        data = mail.message(SENDER, self.user)
        message_id = mail.parse(data)["message-id"]
        mail.submit(self.stack, SENDER, [self.user], data)
        row = self.row(message_id)
        self.assertEqual((row["direction"], row["account"], row["from_domain"], row["dmarc_result"], row["disposition"]),
                         ("signed", SENDER, "example.com", None, None))
        signature, = json.loads(row["dkim_signatures"])
        self.assertEqual((signature["domain"], signature["algorithm"], signature["result"], signature["aligned"]),
                         ("example.com", "rsa-sha256", None, True))
        stored = mail.wait_for_mail(self.stack, self.user, message_id)
        mail.deliver(self.stack, "x@elsewhere.example", [self.user], stored[stored.index(b"DKIM-Signature:"):],
                     source=self.new_source())
        self.wait_until(lambda: len(self.found(message_id)) == 2, what="two rows")
        row = self.found(message_id)[1]
        self.assertEqual((row["direction"], row["dkim_result"]), ("verified", "pass"))
        judged, = json.loads(row["dkim_signatures"])
        self.assertEqual(judged, signature | {"result": "pass"})

    def test_old_discovery(self):
        domain = self.new_domain("v=DMARC1; p=none")
        with self.configured("milter-dkim", dmarc_discovery="psl"):
            row = self.row(self.receive("", f"a@{domain}")[0])
        self.assertEqual(row["dmarc_discovery"], "psl")

    def test_hostile_bytes(self):
        token = uuid.uuid4().hex
        helo = ("x" * 40 + ".") * 6 + "example"
        data = (b"From: a@b\xff.example\r\nMessage-ID: <" + token.encode() + b"\xff\xc3\x28\x01" + b"x" * 900
                + b"\xe2\x82\xac" * 200 + b">\r\nDKIM-Signature: v=1; a=rsa-sha256; d=\"\\\xff; s=\xc3\xa4; h=from; bh=; b=\r\n"
                + b"Subject: hostile\r\n\r\ntext\r\n")
        with mail.smtp(self.stack, self.new_source(), helo=helo) as client:
            client.ehlo_or_helo_if_needed()
            self.assertEqual(client.docmd(f'MAIL FROM:<"{token} quoted"@{"z" * 60}.example>')[0], 250)
            self.assertEqual(client.rcpt(self.user)[0], 250)
            self.assertEqual(client.data(data)[0], 250)
        self.wait_until(lambda: self.rows("SELECT id FROM auth_results WHERE message_id_header LIKE %s", f"<{token}%"), what="the row")
        row, = self.rows("SELECT helo, envelope_sender, CHAR_LENGTH(message_id_header), dkim_signatures "
                         "FROM auth_results WHERE message_id_header LIKE %s", f"<{token}%")
        self.assertEqual(row[0], helo)
        self.assertTrue(row[1].startswith(f'"{token}'), row[1])
        self.assertGreater(int(row[2]), 900)
        self.assertEqual(len(json.loads(row[3])), 1)
        self.assertEqual(self.dead_letters(), [])


class Failures(ResultsCase):
    """What is kept for failure reports (RFC 9991)."""

    def failures(self, domain):
        return self.rows("SELECT client_ip, auth_failure, identity_alignment, sender, spf_record, header, dmarc_record, "
                         "disposition, state FROM dmarc_failures WHERE policy_domain = %s", domain)

    def test_off_by_default(self):
        domain = self.new_domain("v=DMARC1; p=none; ruf=mailto:x@ruf.example")
        self.row(self.receive(f"x@{domain}", f"a@{domain}")[0])
        self.assertEqual(self.failures(domain), [])

    def test_recorded_and_redacted(self):
        policy = "v=DMARC1; p=none; ruf=mailto:x@ruf.example"
        domain = self.new_domain(policy)
        self.stack.dns_add_text(domain, "v=spf1 -all")
        with self.configured("milter-dkim", failure_reports="yes"):
            self.receive(f"secret.sender@{domain}", f"Secret Name <secret.author@{domain}>", subject="secret matter",
                         text="secret body\n")
            _, source = self.receive(f"secret.sender@{domain}", f"secret.author@{domain}")
            rows = self.wait_until(lambda: len(self.failures(domain)) == 2 and self.failures(domain), what="two rows")
        self.assertEqual(rows[1][0], source)
        self.assertEqual({row[1:3] + row[6:] for row in rows}, {("dmarc", "dkim, spf", policy, "none", "new")})
        self.assertEqual({row[4] for row in rows}, {"v=spf1 -all"})
        self.assertEqual(rows[0][3], rows[1][3])
        self.assertRegex(rows[0][3], rf"^[A-Za-z0-9+/]{{20}}@{re.escape(domain)}$")
        self.assertNotIn("secret", repr(rows).lower())
        self.assertIn("From: ", rows[0][5])
        key = self.stack.at.path("/var/lib/postern/milter-dkim/redaction-key")
        self.assertEqual((key.stat().st_mode & 0o777, key.stat().st_size), (0o600, 32))
        self.assertEqual(self.dead_letters(), [])


    def test_a_flood_is_bounded(self):
        domain = self.new_domain("v=DMARC1; p=none; ruf=mailto:x@ruf.example")
        with self.configured("milter-dkim", failure_reports="yes", failure_rate="2"):
            sent = [self.receive("", f"a@{domain}")[0] for _ in range(4)]
            for message_id in sent:
                self.row(message_id)
            self.assertEqual(len(self.failures(domain)), 2)
            self.assertEqual(self.counter('postern_milter_failures_total{result="dropped"}'), 2)


class Faults(ResultsCase):
    def log(self):
        return self.stack.log_file("milter-dkim").read_text(errors="replace")

    def test_without_the_database_mail_goes_on_and_rows_come_later(self):
        """Away for the milter only: Postfix needs it for its mailboxes."""
        seen = self.log().count("results_waiting ")
        with self.configured("milter-dkim", database_socket="/nonexistent/mysqld.sock"):
            sent = [self.receive(f"x{i}@b.example", "a@b.example")[0] for i in range(20)]
            self.wait_until(lambda: self.log().count("results_waiting ") > seen, what="a log line")
            self.assertEqual(self.found(sent[0]), [])
            # What waits survives.
            pid = self.stack.kill("milter-dkim")
            self.wait_until(lambda: self.stack.pid("milter-dkim") not in (None, pid), what="milter-dkim again")
        for i, message_id in enumerate(sent):
            self.assertEqual(self.row(message_id)["envelope_sender"], f"x{i}@b.example")

    def test_rows_wait_until_the_query_is_mended(self):
        """No SQL, a column or a table that is not there, too few values."""
        for query in ("INSRT INTO auth_results", "INSERT INTO auth_results (nobody) VALUES (?)",
                      "INSERT INTO nowhere VALUES (?)", "INSERT INTO auth_results (queue_id, helo) VALUES (?)",
                      "INSERT INTO auth_results (queue_id) SELECT no_such_function(?)"):
            with self.subTest(query):
                seen = self.log().count("results_waiting ")
                with self.configured("milter-dkim", results_query=query):
                    message_id, _ = self.receive("", "a@b.example")
                    self.wait_until(lambda seen=seen: self.log().count("results_waiting ") > seen, what="a log line")
                self.row(message_id)
                self.assertEqual(self.dead_letters(), [])

    def test_killed_while_rows_are_written_none_is_lost_or_doubled(self):
        sent = []
        for turn in range(3):
            sent += [self.receive(f"k{turn}@b.example", "a@b.example")[0] for _ in range(10)]
            # The consumer gathers for 200 ms: some rows are in the database, some are not.
            self.wait_until(lambda: self.found(sent[-10]), what="a row")
            sent.append(self.receive("last@b.example", "a@b.example")[0])
            self.wait_until(lambda: self.found(sent[-1]) or self.on_disk(sent[-1]), what="the record on disk")
            pid = self.stack.kill("milter-dkim")
            self.wait_until(lambda pid=pid: self.stack.pid("milter-dkim") not in (None, pid), what="milter-dkim again")
        for message_id in sent:
            self.row(message_id)
        doubles = self.rows("SELECT message_id_header FROM auth_results WHERE envelope_sender LIKE 'k_@b.example' "
                            "GROUP BY message_id_header HAVING COUNT(*) > 1")
        self.assertEqual(doubles, [])

    def on_disk(self, message_id):
        for path in self.folder().glob("*.seg"):
            with contextlib.suppress(FileNotFoundError):  # all of it is in the database by now
                if message_id.encode() in path.read_bytes():
                    return True
        return False

    def test_rows_that_were_committed_are_not_added_again(self):
        """The cursor is lost, as by a crash between commit and its writing."""
        sent = [self.receive("", "a@b.example")[0] for _ in range(5)]
        for message_id in sent:
            self.row(message_id)
        self.stack.stop("milter-dkim")
        (self.folder() / "cursor").unlink()
        self.stack.start("milter-dkim")
        later = self.receive("", "a@b.example")[0]
        self.row(later)
        for message_id in sent:
            self.row(message_id)
        self.assertEqual(self.dead_letters(), [])

    def test_a_full_outbox_stops_no_mail(self):
        with self.configured("milter-dkim", database_socket="/nonexistent/mysqld.sock", results_max_bytes="1M"):
            before = self.dropped()
            pad = "m" * 3000
            sent = 0
            while self.dropped() == before and sent < 1000:
                with mail.smtp(self.stack, self.new_source()) as client:
                    for _ in range(50):
                        client.sendmail("a@b.example", [self.user],
                                        f"From: a@b.example\r\nMessage-ID: <{pad}>\r\n\r\nx\r\n".encode())
                        sent += 1
            self.assertGreater(self.dropped(), before)
        message_id, _ = self.receive("", "a@b.example")
        self.row(message_id)

    def dropped(self):
        return self.counter('postern_milter_results_total{result="dropped"}')

    def test_an_outbox_that_cannot_be_opened_stops_no_mail(self):
        folder = self.folder()
        self.stack.stop("milter-dkim")
        away = folder.with_name("results.away")
        folder.rename(away)
        folder.write_text("no folder")
        try:
            self.stack.start("milter-dkim")
            self.receive("", "a@b.example")
            self.assertEqual(self.dropped(), 1)
            self.assertIn("results_unavailable", self.log())
        finally:
            self.stack.stop("milter-dkim")
            folder.unlink()
            away.rename(folder)
            self.stack.start("milter-dkim")

    def test_switched_off_and_on_by_reload(self):
        path = self.stack.at.path("/etc/postern/milter-dkim.conf")
        before = path.read_text()

        def reload(text):
            seen = self.log().count("reloaded")
            path.write_text(text)
            self.stack.kill("milter-dkim", signal.SIGHUP)
            self.wait_until(lambda: self.log().count("reloaded") > seen, what="the reload")
        try:
            reload(before + "results = no\n")
            off = self.receive("", "a@b.example")[0]
        finally:
            reload(before)
        on = self.receive("", "a@b.example")[0]
        self.row(on)
        self.assertEqual(self.found(off), [])


if __name__ == "__main__":
    unittest.main()
