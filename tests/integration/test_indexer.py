"""lmtp-indexer between the real Postfix, Dovecot and MariaDB."""
import base64
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time
import unittest

from tests.frame.case import StackCase
from tests.frame.mail import Imap, deliver, lmtp, maildir_ids, message, new_message_id, parse, wait_for_mail
from tests.frame.stalls import Stalls
from tests.frame.wait import PATIENCE_S
from tests.frame.webhook import WebhookReceiver, payload, signature_holds

TRACE = "X-Postern-Delivery"
SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()
MEMORY_MAX_KB = 16 * 1024
LARGE_MB = int(os.environ.get("LARGE_MB", "64"))


class Dialogue:
    """An LMTP client that says just what it is told."""

    def __init__(self, stack):
        self.client = lmtp(stack)
        self.lhlo = self.client.docmd("LHLO", "client.example.org")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()

    def envelope(self, *recipients, sender="a@example.org"):
        """The codes of MAIL and of each RCPT."""
        codes = [self.client.docmd("MAIL", f"FROM:<{sender}>")[0]]
        return codes + [self.client.docmd("RCPT", f"TO:<{to}>")[0] for to in recipients]

    def data(self, content, replies):
        """Sends CONTENT by DATA; returns the replies."""
        assert self.client.docmd("DATA")[0] == 354
        self.client.send(content.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        return [self.client.getreply() for _ in range(replies)]


class IndexCase(StackCase):
    def row(self, user, ident, columns="m.subject", timeout=PATIENCE_S):
        """The row of a message of USER, once it is there."""
        return self.wait_until(lambda: self.rows(
            f"SELECT {columns} FROM messages m JOIN virtual_users u ON u.id = m.user_id "
            "WHERE u.email = %s AND m.message_id_header = %s", user, ident.strip("<>")), timeout)

    def count(self, user):
        return int(self.value("SELECT COUNT(*) FROM messages m JOIN virtual_users u ON u.id = m.user_id "
                              "WHERE u.email = %s", user))

    def open_deliveries(self):
        """Those of which the spool does not know yet that they are in the index."""
        return self.status("lmtp-indexer")["spool"]["open"]

    def follower_rests(self):
        """Waits until no mailbox is compared, or is to be.  Dovecot that renames a file (a first SELECT, a flag)
        while the follower lists the folder may lose sight of the mail and give it another UID."""
        def rests():
            follow = self.status("lmtp-indexer")["follow"]
            return (follow["running"], follow["next_in_ms"]) == (0, -1)
        self.wait_until(rests, what="the follower rests")

    def parsers(self):
        """The nursery, and the processes that it has forked."""
        def below(pid):
            return [int(n) for n in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        nursery = below(self.stack.pid("lmtp-indexer"))
        return nursery, [pid for one in nursery for pid in below(one)]


class Proxy(IndexCase):
    """What the client sees is Dovecot's."""

    def test_offers_what_the_backend_takes(self):
        with Dialogue(self.stack) as d:
            offered = set(d.lhlo[1].decode().split("\n")[1:])
        self.assertEqual(offered, {"8BITMIME", "ENHANCEDSTATUSCODES", "CHUNKING", "PIPELINING"})

    def test_replies_of_each_recipient(self):
        one, two = self.new_user(), self.new_user()
        ident = new_message_id()
        with Dialogue(self.stack) as d:
            self.assertEqual(d.envelope(one, "nobody@example.net", two, one), [250, 250, 550, 250, 250])
            replies = d.data(message("a@example.org", one, message_id=ident), 3)
        self.assertEqual([code for code, _ in replies], [250] * 3)
        self.assertIn(one.encode(), replies[0][1])
        self.assertIn(two.encode(), replies[1][1])
        delivery = self.row(one, ident, "m.delivery_id")[0][0]
        self.assertIn(delivery.encode(), replies[0][1])
        self.assertEqual(self.row(two, ident, "m.delivery_id"), [(delivery,)])
        with Imap(self.stack, one) as imap:
            self.assertEqual(len(imap.find(ident)), 1, "Dovecot saves it once and says so twice")
        self.assertEqual(self.count(one), 1)

    def test_full_mailbox_is_refused_for_its_recipient_only(self):
        full, empty = self.new_user(quota_mb=1), self.new_user()
        data = message("a@example.org", full, text="x" * 70 + "\n")
        data += (b"y" * 76 + b"\r\n") * 20000
        with Dialogue(self.stack) as d:
            self.assertEqual(d.envelope(full, empty), [250, 250, 250])
            codes = [code for code, _ in d.data(data, 2)]
        self.assertEqual(codes[1], 250)
        self.assertEqual(codes[0], 552)
        self.wait_until(lambda: self.count(empty) == 1)
        self.assertEqual(self.count(full), 0)

    def test_bdat_keeps_bytes_and_trace_header_is_ours(self):
        user, ident = self.new_user(), new_message_id()
        body = b"bare\nfeed\n.\n\r\n.\r\nend\r\n"
        head = f"{TRACE}: forged\r\n folded\r\nMessage-ID: {ident}\r\nSubject: bytes\r\n\r\n".encode()
        with Dialogue(self.stack) as d:
            d.envelope(user)
            d.client.send(b"BDAT %d\r\n" % len(head) + head)
            self.assertEqual(d.client.getreply()[0], 250)
            d.client.send(b"BDAT %d LAST\r\n" % len(body) + body)
            self.assertEqual(d.client.getreply()[0], 250)
        stored = wait_for_mail(self.stack, user, ident)
        traces = parse(stored).get_all(TRACE)
        self.assertEqual(traces, [self.row(user, ident, "m.delivery_id")[0][0]])
        # Dovecot gives back all lines with CRLF.
        self.assertTrue(stored.endswith(b"\r\n\r\n" + body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")))

    def test_backend_down_is_temporary_and_postfix_retries(self):
        user, ident = self.new_user(), new_message_id()
        self.stack.stop("dovecot")
        with Dialogue(self.stack) as d:
            code, text = d.client.docmd("MAIL", "FROM:<a@example.org>")
            self.assertEqual((code, text[:5]), (451, b"4.4.1"))
        self.stack.start("dovecot")
        deliver(self.stack, "a@example.org", [user], message("a@example.org", user, message_id=ident), self.new_source())
        wait_for_mail(self.stack, user, ident)
        self.row(user, ident)

    def test_large_message_takes_no_memory(self):
        user, ident = self.new_user(quota_mb=4 * LARGE_MB), new_message_id()
        head = f"Message-ID: {ident}\r\nSubject: large\r\n\r\n".encode()
        portion = (b"z" * 78 + b"\r\n") * 3277
        with self.configured("lmtp-indexer", spool_max=f"{4 * LARGE_MB}M"), Dialogue(self.stack) as d:
            d.envelope(user)
            self.assertEqual(d.client.docmd("DATA")[0], 354)
            d.client.send(head)
            used = []
            for _ in range(LARGE_MB * 4):
                d.client.send(portion)
                used.append(self.anonymous_kb())
            d.client.send(b".\r\n")
            d.client.sock.settimeout(300)
            self.assertEqual(d.client.getreply()[0], 250)
            used.append(self.anonymous_kb())
            self.assertEqual(self.metric("postern_index_gaps_total", "lmtp-indexer"), 0)
            self.assertEqual(self.row(user, ident, timeout=300), [("large",)])
            used.append(self.anonymous_kb())
        self.assertLess(max(used), MEMORY_MAX_KB)
        print(f"{LARGE_MB} MB in {max(used) / 1024:.1f} MB", end=" ")

    def anonymous_kb(self):
        """Memory of the proxy that no file stands behind."""
        status = pathlib.Path(f"/proc/{self.stack.pid('lmtp-indexer')}/status").read_text()
        return next(int(entry.split()[1]) for entry in status.splitlines() if entry.startswith("RssAnon"))


class FakeBackend:
    """An LMTP server without CHUNKING that saves what it gets; with DIES it
    answers the first recipient only and hangs up."""

    def __init__(self, dies=False):
        self.dies = dies
        self.content = b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"inet:127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb", 0) as stream:
                self.serve(stream)

    def serve(self, stream):
        recipients = 0
        stream.write(b"220 fake\r\n")
        for line in stream:
            verb = line[:4].upper()
            if verb == b"LHLO":
                stream.write(b"250-fake\r\n250-8BITMIME\r\n250 PIPELINING\r\n")
            elif verb == b"DATA":
                stream.write(b"354 go\r\n")
                self.content = b"".join(iter(stream.readline, b".\r\n"))
                stream.write(b"250 2.0.0 saved\r\n" * (1 if self.dies else recipients))
                if self.dies:
                    return
                recipients = 0
            else:
                recipients += verb == b"RCPT"
                stream.write(b"250 2.0.0 ok\r\n")

    def close(self):
        self.listener.close()


@contextlib.contextmanager
def dead_address():
    """Where nobody listens, and nobody will: the port is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"inet:127.0.0.1:{taken.getsockname()[1]}"


class OtherBackends(IndexCase):
    """What Dovecot does not do by itself."""

    def test_data_where_there_is_no_chunking(self):
        user, backend = self.new_user(), FakeBackend()
        self.addCleanup(backend.close)
        with self.configured("lmtp-indexer", backend=backend.address):
            with Dialogue(self.stack) as d:
                self.assertEqual(set(d.lhlo[1].decode().split("\n")[1:]), {"8BITMIME", "PIPELINING"})
                self.assertEqual(d.envelope(user), [250, 250])
                body = b"Subject: x\r\n\r\nbare\nfeed\n.\r\n.dots\r\n" + b"z" * 300_000 + b"\r\n"
                self.assertEqual(d.data(body, 1)[0][0], 250)
            self.wait_until(lambda: self.count(user) == 1)
        head, _, rest = backend.content.partition(b"\r\n")
        self.assertTrue(head.startswith(TRACE.encode()))
        self.assertEqual(rest, b"Subject: x\r\n\r\nbare\r\nfeed\r\n..\r\n..dots\r\n" + b"z" * 300_000 + b"\r\n")

    def test_backend_dies_between_two_replies(self):
        one, two, backend = self.new_user(), self.new_user(), FakeBackend(dies=True)
        self.addCleanup(backend.close)
        with self.configured("lmtp-indexer", backend=backend.address, settle_after="1s"):
            with Dialogue(self.stack) as d:
                d.envelope(one, two)
                replies = d.data(b"Subject: x\r\n\r\nx\r\n", 2)
            self.assertEqual([code for code, _ in replies], [250, 451])
            self.assertEqual(replies[1][1][:5], b"4.4.2")
            self.wait_until(lambda: self.count(one) == 1)
            self.assertEqual(self.count(two), 0, "the mailbox was asked and has no such mail")

    def test_failover_to_the_next_backend(self):
        user, backend = self.new_user(), FakeBackend()
        self.addCleanup(backend.close)
        with dead_address() as dead, self.configured("lmtp-indexer", backend=f"{dead}, {backend.address}"):
            with Dialogue(self.stack) as d:
                self.assertEqual(d.envelope(user), [250, 250])
                self.assertEqual(d.data(b"Subject: x\r\n\r\nx\r\n", 1)[0][0], 250)
        self.assertIn(b"Subject: x", backend.content)

    def test_most_backends(self):
        """More than the proxy tries in turn are refused at the check."""
        program, conf = self.stack.at.path("/bin/lmtp-indexer"), self.stack.at.path("/etc/postern/lmtp-indexer.conf")
        for count, status in ((8, 0), (9, 78)):
            backend = ", ".join(f"inet:127.0.0.1:{2400 + n}" for n in range(count))
            done = subprocess.run([program, "-t", "-c", conf, "-o", f"backend={backend}"], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertEqual("more than 8 addresses" in done.stderr, status != 0)

    @contextlib.contextmanager
    def hosts(self, **options):
        """A table of hosts that backend_query reads: yields a function that sets one."""
        self.stack.mariadb("CREATE OR REPLACE TABLE test_hosts (email VARCHAR(255) PRIMARY KEY, host VARCHAR(255)); "
                           "GRANT SELECT ON test_hosts TO postern_indexer")
        try:
            with self.configured("lmtp-indexer", backend_query="SELECT host FROM test_hosts WHERE email = ?", **options):
                yield lambda user, host: self.rows("REPLACE INTO test_hosts VALUES (%s, %s)", user, host)
        finally:
            self.stack.mariadb("DROP TABLE test_hosts")

    def test_backend_of_each_recipient(self):
        here, there, unknown, wrong = (self.new_user() for _ in range(4))
        other = FakeBackend()
        self.addCleanup(other.close)
        with self.hosts() as set_host:
            set_host(there, other.address)
            set_host(here, None)
            set_host(wrong, "no address")
            with Dialogue(self.stack) as d:
                self.assertEqual(d.envelope(here, there, unknown, here), [250, 250, 452, 250, 250])
                self.assertEqual([code for code, _ in d.data(b"Subject: here\r\n\r\nx\r\n", 3)], [250] * 3)
                self.assertEqual(d.envelope(there, here), [250, 250, 452])
                self.assertEqual([code for code, _ in d.data(b"Subject: there\r\n\r\nx\r\n", 1)], [250])
                self.assertEqual(d.envelope(wrong), [250, 250])
                self.assertEqual([code for code, _ in d.data(b"Subject: wrong\r\n\r\nx\r\n", 1)], [250])
                self.assertEqual(d.client.docmd("MAIL", "FROM:<a@example.org>")[0], 250)
                self.assertEqual(d.client.docmd("RCPT", "TO:<nobody@example.net>")[0], 550)
                self.assertEqual(d.client.docmd("RSET")[0], 250)
            self.wait_until(lambda: [self.count(u) for u in (here, there, unknown, wrong)] == [1, 1, 1, 1])
        self.assertIn(b"Subject: there", other.content)

    def test_most_backends_that_the_query_names(self):
        """Mail for one more waits in the queue: it is no mail of the default, which would refuse it for good."""
        user, here, most = self.new_user(), self.new_user(), 256
        with self.hosts() as set_host:
            self.stack.mariadb("INSERT INTO test_hosts VALUES " + ", ".join(
                f"('backend{n}@example.net', 'inet:127.2.0.{n}:1')" for n in range(most)))
            set_host(user, "inet:127.2.1.0:1")
            with Dialogue(self.stack) as d:
                for n in [*range(most), 0]:
                    self.assertEqual(d.envelope(f"backend{n}@example.net"), [250, 451], n)
                for to, told in ((f"backend{most - 1}@example.net", False), (user, True)):
                    self.assertEqual(d.envelope(), [250])
                    code, text = d.client.docmd("RCPT", f"TO:<{to}>")
                    self.assertEqual((code, b"Too many servers" in text), (451, told))
                self.assertEqual([d.client.docmd(word)[0] for word in ("DATA", "RSET")], [503, 250])
                self.assertEqual(d.envelope(user, here, user), [250, 451, 250, 451])
                self.assertEqual([code for code, _ in d.data(b"Subject: here\r\n\r\nx\r\n", 1)], [250])

    def test_backend_query_without_the_database(self):
        known, unknown, other = self.new_user(), self.new_user(), FakeBackend()
        self.addCleanup(other.close)
        with self.hosts(backend=other.address, backend_query_keep="1s", backend_query_timeout="3s") as set_host:
            other.content = b""
            second = FakeBackend()
            self.addCleanup(second.close)
            set_host(known, second.address)
            with Dialogue(self.stack) as d:
                d.envelope(known)
                self.assertEqual(d.data(b"Subject: one\r\n\r\nx\r\n", 1)[0][0], 250)
                self.stack.stop("mysql")
                try:
                    for user, backend, subject in ((known, second, b"two"), (unknown, other, b"three")):
                        self.assertEqual(d.envelope(user), [250, 250])
                        self.assertEqual(d.data(b"Subject: " + subject + b"\r\n\r\nx\r\n", 1)[0][0], 250)
                        self.assertIn(b"Subject: " + subject, backend.content)
                finally:
                    self.stack.start("mysql")
                    self.stack.reload("postfix")

    def test_backend_of_a_recipient_is_down(self):
        user = self.new_user()
        with dead_address() as dead, self.hosts() as set_host:
            set_host(user, dead)
            with Dialogue(self.stack) as d:
                self.assertEqual(d.envelope(user), [250, 451])
                self.assertEqual(d.envelope(self.new_user()), [250, 250])

    def test_full_spool_lets_mail_pass(self):
        user, ident = self.new_user(), new_message_id()
        with self.configured("lmtp-indexer", spool_max="1M"):
            with Dialogue(self.stack) as d:
                d.envelope(user)
                data = message("a@example.org", user, message_id=ident) + (b"y" * 76 + b"\r\n") * 30000
                self.assertEqual(d.data(data, 1)[0][0], 250)
            wait_for_mail(self.stack, user, ident)
            # What the spool could not keep is read from the mailbox.
            self.assertEqual(self.row(user, ident, "m.parse_state, m.subject"), [("parsed", "a message")])
            self.assertEqual(self.count(user), 1)


class Content(IndexCase):
    """What is in a row."""

    def test_encoded_japanese_and_attachment(self):
        user, ident = self.new_user(), new_message_id()
        data = message("a@example.org", user, subject="御請求書 Ünïcode", text="今月の請求書を送ります。\n", message_id=ident,
                       attachments=[("請求.pdf", "application/pdf", b"%PDF-1.4 abc")])
        deliver(self.stack, "a@example.org", [user], data, self.new_source())
        self.assertEqual(self.row(user, ident, "m.subject, m.attachment_count, m.snippet, m.parse_state, m.dkim_result"),
                         [("御請求書 Ünïcode", "1", "今月の請求書を送ります。", "parsed", "none")])
        name = self.rows("SELECT a.name, a.media_type, a.size_bytes, LOWER(HEX(a.sha256)) FROM attachments a "
                         "JOIN messages m ON m.id = a.message_id WHERE m.message_id_header = %s", ident.strip("<>"))
        self.assertEqual(name[0][:3], ("請求.pdf", "application/pdf", "12"))
        for words in ("unicode", "請求", "送ります", "求", "Ünïc*"):
            self.assertIn("御請求書", self.stack.postern("search", user, words), words)

    def test_thread_when_the_reply_comes_first(self):
        user = self.new_user()
        root, first, second = (new_message_id() for _ in range(3))
        for ident, more in ((second, {"references": f"{root} {first}", "in_reply_to": first}),
                            (first, {"in_reply_to": root}), (root, {})):
            data = message("a@example.org", user, subject="topic", message_id=ident, **more)
            deliver(self.stack, "a@example.org", [user], data, self.new_source())
            self.row(user, ident)
        threads = self.rows("SELECT DISTINCT m.thread_id FROM messages m JOIN virtual_users u ON u.id = m.user_id "
                            "WHERE u.email = %s", user)
        self.assertEqual(len(threads), 1)

    def test_threads_become_one_when_the_link_comes(self):
        user = self.new_user()
        one, two, link, reply, other = (new_message_id() for _ in range(5))
        for ident, subject, more in ((one, "alpha", {}), (two, "beta", {}), (other, "gamma", {}),
                                     (link, "delta", {"references": f"{one} {two}"}), (reply, "Re: gamma", {})):
            data = message("a@example.org", user, subject=subject, message_id=ident, **more)
            deliver(self.stack, "a@example.org", [user], data, self.new_source())
            self.row(user, ident)

        def thread(ident):
            return self.row(user, ident, "m.thread_id")[0][0]
        self.assertEqual(len({thread(i) for i in (one, two, link)}), 1)
        self.assertEqual(thread(reply), thread(other), "a reply without references goes by its subject")
        self.assertNotEqual(thread(other), thread(one))

    def test_unreadable_message_is_indexed_by_its_envelope(self):
        user = self.new_user()
        with Dialogue(self.stack) as d:
            d.envelope(user, sender="sender@example.org")
            self.assertEqual(d.data(b"\x01\x02 no header at all\r\n", 1)[0][0], 250)
        self.wait_until(lambda: self.count(user) == 1)
        got = self.rows("SELECT m.envelope_sender, m.recipient FROM messages m JOIN virtual_users u ON u.id = m.user_id "
                        "WHERE u.email = %s", user)
        self.assertEqual(got, [("sender@example.org", user)])


class Parsers(IndexCase):
    """What a message does to the parser costs that message its text, and nothing else."""

    def send(self, user, data, sender="a@example.org"):
        with Dialogue(self.stack) as d:
            d.envelope(user, sender=sender)
            self.assertEqual(d.data(data, 1)[0][0], 250)

    def state(self, user, count):
        """States of the rows of USER in their order, once there are COUNT."""
        self.wait_until(lambda: self.count(user) == count)
        return [row[0] for row in self.rows("SELECT m.parse_state FROM messages m JOIN virtual_users u ON u.id = m.user_id "
                                            "WHERE u.email = %s ORDER BY m.id", user)]

    def lost(self):
        return self.metric("postern_index_parsers_lost_total", "lmtp-indexer")

    def test_too_much_memory(self):
        user, pid = self.new_user(), self.stack.pid("lmtp-indexer")
        with self.configured("lmtp-indexer", parse_memory="16M"):
            self.send(user, message("a@example.org", user, message_id=new_message_id()))
            pid = self.stack.pid("lmtp-indexer")
            self.send(user, b"Subject: bomb\r\n" + b"a: b\r\n" * 150_000 + b"\r\nx\r\n", sender="bomber@example.org")
            self.send(user, message("a@example.org", user, subject="after", message_id=new_message_id()))
            self.assertEqual(self.state(user, 3), ["parsed", "failed", "parsed"])
            self.assertEqual(self.lost(), 1)
            self.assertEqual(self.stack.pid("lmtp-indexer"), pid)
        self.assertEqual(self.rows("SELECT m.envelope_sender, m.subject FROM messages m JOIN virtual_users u ON "
                                   "u.id = m.user_id WHERE u.email = %s AND m.parse_state = 'failed'", user),
                         [("bomber@example.org", "NULL")])

    def test_parser_that_does_not_end(self):
        user = self.new_user()
        with self.configured("lmtp-indexer", parse_timeout="3s"):
            self.send(user, message("a@example.org", user, message_id=new_message_id()))
            self.assertEqual(self.state(user, 1), ["parsed"])
            os.kill(self.parsers()[1][0], signal.SIGSTOP)
            self.send(user, message("a@example.org", user, message_id=new_message_id()))
            # Two that are lost together would be parsed once more, each alone.
            self.wait_until(lambda: self.status("lmtp-indexer")["index"]["waiting"] == 0, what="the parser has the first one")
            self.send(user, message("a@example.org", user, message_id=new_message_id()))
            self.assertEqual(self.state(user, 3), ["parsed", "failed", "parsed"])

    def test_parser_that_somebody_kills(self):
        user = self.new_user()
        for number in range(3):
            self.send(user, message("a@example.org", user, message_id=new_message_id()))
            self.assertEqual(self.state(user, number + 1), ["parsed"] * (number + 1))
            os.kill(self.parsers()[1][0], signal.SIGKILL)

    def test_confined(self):
        user = self.new_user()
        self.send(user, message("a@example.org", user, message_id=new_message_id()))
        self.state(user, 1)
        for pid in self.parsers()[1]:
            files = {os.readlink(entry) for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir()}
            self.assertEqual({name for name in files if not name.startswith("socket:")}, {"/dev/null"})
            limits = pathlib.Path(f"/proc/{pid}/limits").read_text()
            self.assertRegex(limits, r"Max file size +0 +0 ")
            self.assertRegex(limits, r"Max processes +0 +0 ")
            self.assertNotRegex(limits, r"Max address space +unlimited")
            self.assertIn("NoNewPrivs:\t1", pathlib.Path(f"/proc/{pid}/status").read_text())

    def test_nursery_that_somebody_kills(self):
        """The daemon starts anew; nothing is lost.  What it ends over may be the mail whose reply Postfix still waits
        for: then that comes twice, and the index holds each copy."""
        user, idents = self.new_user(), [new_message_id(), new_message_id()]
        deliver(self.stack, "a@example.org", [user], message("a@example.org", user, message_id=idents[0]), self.new_source())
        self.row(user, idents[0])
        nursery, parsers = self.parsers()
        for pid in nursery + parsers:
            os.kill(pid, signal.SIGKILL)
        deliver(self.stack, "a@example.org", [user], message("a@example.org", user, message_id=idents[1]), self.new_source())
        self.row(user, idents[1])
        self.stack.wait_queue_empty()
        copies = maildir_ids(self.stack, user)
        self.assertEqual((set(copies), copies.count(idents[0])), (set(idents), 1))
        self.assertIn(copies.count(idents[1]), (1, 2))
        self.assertEqual(self.state(user, len(copies)), ["parsed"] * len(copies))


class Events(IndexCase):
    def test_feed_and_signed_webhook(self):
        user, ident = self.new_user(), new_message_id()
        secret = self.stack.at.path("/etc/postern/passwords/webhook")
        secret.write_text(SECRET + "\n")
        secret.chmod(0o644)
        with WebhookReceiver() as hook, self.configured(
                "lmtp-indexer", webhook_url=hook.url, webhook_secret_file=str(secret)):
            with Dialogue(self.stack) as d, Stalls(self.stack.at.path("/var")) as stalls:
                d.envelope(user)
                d.data(message("a@example.org", user, subject="Grüße", message_id=ident), 1)
                replied = time.time()
                got = self.wait_until(lambda: hook.find(ident.strip("<>")))
            self.assertLess(got.at - replied, 2 + stalls.excuse())
            self.assertTrue(signature_holds(got, SECRET))
            event = payload(got)
            self.assertEqual((event["type"], event["data"]["subject"]), ("message.received", "Grüße"))
            self.assertEqual((event["data"]["user"], event["data"]["sequence"]), (user, 1))
            self.check_retry(hook, user)

    def check_retry(self, hook, user):
        """What was refused comes again under the same id."""
        hook.refuse = True
        ident = new_message_id()
        with Dialogue(self.stack) as d:
            d.envelope(user)
            d.data(message("a@example.org", user, message_id=ident), 1)
        first = self.wait_until(lambda: hook.find(ident.strip("<>")))
        hook.refuse = False
        self.wait_until(lambda: sum(ident.strip("<>").encode() in r.body for r in hook.received) >= 2)
        again = [r for r in hook.received if ident.strip("<>").encode() in r.body]
        ids = {dict((k.lower(), v) for k, v in r.headers.items())["webhook-id"] for r in again}
        self.assertEqual(len(ids), 1)
        self.assertEqual(payload(first)["data"]["sequence"], 2)


class Failures(IndexCase):
    def test_database_away_and_back(self):
        user, idents = self.new_user(), [new_message_id() for _ in range(20)]
        with Dialogue(self.stack) as d:  # Dovecot knows the user from here on
            d.envelope(user)
            d.data(message("a@example.org", user), 1)
        self.wait_until(lambda: self.count(user) == 1)
        self.stack.stop("mysql")
        try:
            with Dialogue(self.stack) as d:
                for ident in idents:
                    self.assertEqual(d.envelope(user), [250, 250])
                    self.assertEqual(d.data(message("a@example.org", user, message_id=ident), 1)[0][0], 250)
        finally:
            self.stack.start("mysql")
            # Postfix 3.7 leaves a database alone for 60 s after a failure.
            self.stack.reload("postfix")
        self.wait_until(lambda: self.count(user) == 21)

    def lmtp_processes(self):
        master = self.stack.pid("dovecot")
        for entry in pathlib.Path("/proc").iterdir():
            try:
                if (entry.name.isdigit() and f"PPid:\t{master}\n" in (entry / "status").read_text()
                        and (entry / "comm").read_text().strip() == "lmtp"):
                    yield int(entry.name)
            except OSError:
                continue

    def kill_in_the_air(self, user, ident, arrives):
        """Ends the daemon between the last byte and the reply; the backend
        finishes the mail afterwards, or dies, too."""
        with Dialogue(self.stack) as d:
            d.envelope(user)
            d.client.docmd("DATA")
            stopped = list(self.lmtp_processes())
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            try:
                text = message("a@example.org", user, message_id=ident)
                d.client.send(text + b".\r\n")
                self.wait_until(lambda: self.open_deliveries() == 1 and self.unread_by_dovecot() > len(text))
            finally:
                self.stack.kill("lmtp-indexer")
                for pid in stopped:
                    os.kill(pid, signal.SIGCONT if arrives else signal.SIGKILL)

    def unread_by_dovecot(self):
        """Bytes that lie in the connections to its LMTP port."""
        port = f":{self.stack.at.port('lmtp'):04X}"
        lines = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(int(line[4].partition(":")[2], 16) for line in lines if line[1].endswith(port))

    def test_killed_in_the_air(self):
        for arrives in (True, False):
            user, ident = self.new_user(), new_message_id()
            self.kill_in_the_air(user, ident, arrives)
            self.stack.start("lmtp-indexer")
            if arrives:
                self.row(user, ident)
            self.wait_until(lambda: self.open_deliveries() == 0)
            with Imap(self.stack, user) as imap:
                self.assertEqual(len(imap.find(ident)), int(arrives))
            self.assertEqual(self.count(user), int(arrives))


if __name__ == "__main__":
    unittest.main()
