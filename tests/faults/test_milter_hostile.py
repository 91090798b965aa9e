"""Malformed mail through the real Postfix, and a hostile peer on the milter's own
socket: each ends in a reply or a closed connection, never in a crash, a hang or a
verdict that was not earned."""
import contextlib
import random
import re
import smtplib
import socket
import struct
import time

from tests.dns.dnsd import Server
from tests.faults.test_milter_dns import BODY, header
from tests.frame import mail
from tests.frame.milter import MilterClient, packet, strings
from tests.integration.test_milter import SENDER, MilterCase, fields, from_signature, header_of

HEADER_COUNT_LIMIT = 10000
PACKET_MAX = (1 << 20) - 1
LARGE_BODY = 200 << 20
MEMORY_GROWTH_MAX = 4 << 20
RANDOM_SESSIONS = 300
CPU_SECONDS_MAX = 1
GOOD = [(b"From", b" a@example.org"), (b"Subject", b" x")]


class HostileCase(MilterCase):
    def setUp(self):
        super().setUp()
        self.pid = self.stack.pid("milter-dkim")

    def tearDown(self):
        """The same process still judges and signs."""
        with MilterClient(self.stack) as client:
            self.assertEqual(client.message(GOOD, [BODY])[1], (b"c", b""))
        self.assertEqual(self.stack.pid("milter-dkim"), self.pid)


class Malformed(HostileCase):
    """Through Postfix.  Bytes go out as they are, dot-stuffed."""

    def reply(self, client, data, sender):
        client.ehlo_or_helo_if_needed()
        client.mail(sender)
        client.rcpt(self.user)
        self.assertEqual(client.docmd("data")[0], 354)
        client.send(re.sub(rb"(?m)^\.", b"..", data) + b"\r\n.\r\n")
        return client.getreply()

    def both_ways(self, data, code=250):
        """As a stranger's and as our user's; returns both as stored, or None."""
        tags = [f"{self.id().rpartition('.')[2]}-{way}-{time.monotonic_ns()}" for way in ("in", "out")]
        with mail.smtp(self.stack, self.new_source()) as client:
            judged = self.reply(client, f"X-Try: {tags[0]}\r\n".encode() + data, "a@b.example")
        with self.submission() as client:
            signed = self.reply(client, f"X-Try: {tags[1]}\r\n".encode() + data, SENDER)
        self.assertEqual((judged[0], signed[0]), (code, code), (judged, signed))
        if code != 250:
            return None
        stored = [self.find(f'HEADER X-Try "{tag}"') for tag in tags]
        self.assertEqual(self.results(stored[0]).count("; dmarc="), 1)
        self.assertEqual([v for v in fields(stored[0], "Authentication-Results")[1:] if v.startswith("mail.example.com")], [])
        return stored

    def message(self, head=b"", body=b"text\r\n", author=f"From: {SENDER}\r\n".encode()):
        return author + b"To: x@example.net\r\n" + head + b"\r\n" + body

    def test_nul(self):
        stored = self.both_ways(self.message(b"Subject: a\0b\r\n", b"before\0after\r\n"))
        self.assertEqual(len(fields(stored[1], "DKIM-Signature")), 1)

    def test_nul_in_the_author(self):
        self.both_ways(self.message(author=b"From: ceo@bank.example\0@b.example\r\n"))

    def test_bare_lf_and_cr(self):
        stored = self.both_ways(self.message(b"Subject: a\nX-Bare: b\rc\r\n", b"one\ntwo\rthree\r\n"))
        self.assertEqual(len(fields(stored[1], "DKIM-Signature")), 1)

    def test_bare_lf_adds_no_results_of_ours(self):
        """Postfix sees the end of a line where we see none, or the other way around."""
        forged = b"Authentication-Results: mail.example.com; dkim=pass\r\n"
        for end in (b"\n", b"\r", b"\r\r\n", b"\n\r"):
            with self.subTest(end):
                self.both_ways(self.message(b"X-A: b" + end + forged))

    def test_hundred_thousand_fields(self):
        self.assertIsNone(self.both_ways(self.message(b"X: y\r\n" * 100000), 552))

    def test_as_many_fields_as_are_allowed(self):
        """Those of Postfix (Received, Message-ID ...) included."""
        self.both_ways(self.message(b"X: y\r\n" * (HEADER_COUNT_LIMIT - 20)))

    def test_line_of_a_megabyte(self):
        self.both_ways(self.message(body=b"x" * (1 << 20) + b"\r\n"))

    def test_field_of_half_a_megabyte(self):
        self.both_ways(self.message(b"X: " + b"y\r\n " * 100000 + b"z\r\n"))

    def test_no_from(self):
        stored = self.both_ways(self.message(author=b""))
        self.assertIn("dmarc=permerror", self.results(stored[0]))

    def test_many_from(self):
        stored = self.both_ways(self.message(author=f"From: {SENDER}\r\nFrom: a@b.example\r\n".encode() * 50))
        self.assertRegex(self.results(stored[0]), "dmarc=(fail|permerror|none)")

    def test_eight_bit(self):
        stored = self.both_ways(self.message("Subject: Grüße \udcff\r\n".encode("utf-8", "surrogateescape"), b"\xff\xfe\x80\r\n"))
        judged = self.results(self.receive(from_signature(stored[1])))
        self.assertIn("dkim=pass", judged)

    def test_no_body_and_no_header(self):
        self.both_ways(f"From: {SENDER}\r\n".encode())
        self.both_ways(b"\r\n\r\nonly a body\r\n")


class Peer(HostileCase):
    """On the milter socket."""

    def session(self, *packets, half_close=False):
        """Sends all at once after the negotiation; returns when the milter has closed."""
        with MilterClient(self.stack) as client:
            client.negotiate()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.send(*packets)
                if half_close:
                    client.socket.shutdown(socket.SHUT_WR)
            self.assertTrue(client.ended())

    def test_wrong_lengths(self):
        for raw in (b"\0\0\0\0", b"\0\0\0\0M", b"\xff\xff\xff\xffM", struct.pack(">I", PACKET_MAX + 2) + b"L",
                    struct.pack(">I", 1 << 20) + b"L" + b"x" * 1000, b"\x7f\xff\xff\xffB" + b"y" * 70000):
            with self.subTest(raw[:5]):
                self.session(*MilterClient.opening(), raw, half_close=True)

    def test_cut_off_anywhere(self):
        whole = b"".join([*MilterClient.opening(), packet(b"M", strings(b"<a@example.org>")),
                          *MilterClient.fields(GOOD), packet(b"B", BODY), packet(b"E")])
        for end in range(0, len(whole), 7):
            self.session(whole[:end], half_close=True)

    def test_out_of_order(self):
        opening, good = MilterClient.opening(), MilterClient.fields(GOOD)
        sender = packet(b"M", strings(b"<a@example.org>"))
        for name, packets in {
            "end first": [packet(b"E")],
            "mail without connect": [sender, *good, packet(b"E")],
            "body before mail": [*opening, packet(b"B", BODY), packet(b"E")],
            "header before mail": [*opening, *good, packet(b"E")],
            "mail twice": [*opening, sender, sender, *good, packet(b"E")],
            "header behind the body": [*opening, sender, *good, packet(b"B", BODY), *good, packet(b"E")],
            "end twice": [*opening, sender, *good, packet(b"E"), packet(b"E")],
            "abort and go on": [*opening, sender, packet(b"A"), *good, packet(b"E")],
            "connect twice": [*opening, *opening, sender, *good, packet(b"E")],
            "negotiation twice": [packet(b"O", struct.pack(">III", 6, 0x1FF, 0x1FFFFF)), *opening, sender],
            "a new connection on the old one": [*opening, sender, packet(b"K"), *opening, sender, *good, packet(b"E")],
            "no fields": [*opening, sender, packet(b"N"), packet(b"E")],
            "unknown commands": [packet(bytes([c]), b"x\0") for c in range(256) if bytes([c]) not in b"Q"],
        }.items():
            with self.subTest(name):
                self.session(*packets, packet(b"Q"), half_close=True)

    def test_malformed_arguments(self):
        opening, sender = MilterClient.opening(), packet(b"M", strings(b"<a@example.org>"))
        for name, packets in {
            "negotiation too short": [packet(b"O", b"\0\0\0\x06")],
            "connect without anything": [packet(b"C")],
            "connect, unknown family": [packet(b"C", strings(b"h") + b"9\0\0" + strings(b"x"))],
            "connect, cut": [packet(b"C", strings(b"h") + b"4\0")],
            "connect, no address": [packet(b"C", strings(b"h") + b"4\0\x19" + strings(b"not an address"))],
            "connect, ipv6": [packet(b"C", strings(b"h") + b"6\0\x19" + strings(b"IPv6:2001:db8::1")), sender],
            "helo not ended": [opening[0], opening[1], packet(b"H", b"name"), sender],
            "mail without address": [*opening, packet(b"M")],
            "mail empty": [*opening, packet(b"M", b"\0")],
            "mail not ended": [*opening, packet(b"M", b"<a@b")],
            "mail of 60 KB": [*opening, packet(b"M", strings(b"<" + b"a" * 60000 + b"@b>"))],
            "field without value": [*opening, sender, packet(b"L", b"From\0")],
            "field not ended": [*opening, sender, packet(b"L", b"From\0a@b")],
            "field with three texts": [*opening, sender, packet(b"L", strings(b"From", b"a@b", b"c@d"))],
            "field without name": [*opening, sender, packet(b"L", strings(b"", b"a@b")), packet(b"N"), packet(b"E")],
            "macros": [packet(b"D"), packet(b"D", b"M"), packet(b"D", b"Mx"), packet(b"D", b"C" + strings(b"j")),
                       packet(b"D", b"M" + strings(*[b"{x}"] * 999)), *opening, sender],
            "helo of 60 KB": [opening[0], opening[1], packet(b"H", strings(b"h" * 60000)), sender],
        }.items():
            with self.subTest(name):
                self.session(*packets, *MilterClient.fields(GOOD), packet(b"E"), packet(b"Q"), half_close=True)

    def test_pipelined_messages(self):
        """Three messages in one piece of bytes, each with a verdict of its own."""
        one = [packet(b"M", strings(b"<a@example.org>")), *MilterClient.fields(GOOD), packet(b"B", BODY), packet(b"E")]
        with MilterClient(self.stack) as client:
            client.negotiate()
            client.send(*MilterClient.opening(), *one * 3)
            replies = [client.read()[0] for _ in range(9)]
        self.assertEqual(b"".join(replies), b"cic" * 3)

    def test_body_in_any_pieces(self):
        with MilterClient(self.stack) as client:
            self.assertEqual(client.message(GOOD, [b"x"] * 5000 + [b"\r", b"\n", b"y" * PACKET_MAX])[1],
                             (b"c", b""))
        with MilterClient(self.stack) as client, self.assertRaises(OSError):
            client.message(GOOD, [b"y" * (PACKET_MAX + 1)])

    def test_no_edits_offered(self):
        """A mail server without what we need is refused at once, not served badly."""
        with MilterClient(self.stack) as client:
            client.send(packet(b"O", struct.pack(">III", 2, 0, 0)))
            self.assertNotEqual((client.read() or (b"",))[0], b"O")

    def test_gone_while_dns_is_asked(self):
        with Server({"example": [["TIMEOUT"]], "sender.example": [["TIMEOUT"]]}) as server, \
                self.configured("milter-dkim", resolver=server.address, dns_timeout="500ms"):
            self.pid = self.stack.pid("milter-dkim")
            for _ in range(20):
                with MilterClient(self.stack) as client:
                    client.begin(b"<a@sender.example>")
                    client.send(*client.fields((n.encode(), v.encode()) for n, v in header("d.example")),
                                client.body(BODY), packet(b"E"))
            self.wait_until(lambda: self.metric("postern_milter_active_messages") == 0, what="no message left")
        self.pid = self.stack.pid("milter-dkim")

    def test_random_sessions(self):
        """Packets of a grammar that is only nearly the protocol's; the seed is fixed."""
        rng = random.Random(20261123)
        for _ in range(RANDOM_SESSIONS):
            self.session(*self.random_packets(rng), half_close=True)
        self.wait_until(lambda: self.metric("postern_milter_active_messages") == 0, what="no message left")
        self.wait_until(lambda: self.metric("postern_connections") == 0, what="no connection left")

    @staticmethod
    def random_packets(rng):
        texts = [b"", b"<>", b"<a@b.example>", b"From", b"DKIM-Signature", b"ARC-Seal", b"Authentication-Results",
                 b" mail.example.com; dkim=pass", b" v=1; a=rsa-sha256; d=b.example; s=s; h=from; bh=AA==; b=AA==",
                 b" i=1; a=rsa-sha256; cv=none; d=b.example; s=s; b=AA==", b"\xff\x01\r\n x", b"a@b.example, c@d.example",
                 b"x" * 3000]
        packets = MilterClient.opening() if rng.random() < 0.8 else []
        for _ in range(rng.randrange(1, 40)):
            command = rng.choice(b"CHMMLLLLLLNBBEADRTUXKO")
            data = strings(*(rng.choice(texts) for _ in range(rng.randrange(4))))
            packets.append(packet(bytes([command]), data[:len(data) - (rng.random() < 0.1)]))
        return packets


class LargeBody(HostileCase):
    """200 MB in constant memory, in whatever shape."""

    def peak(self):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            return int(re.search(r"VmHWM:\s+(\d+) kB", status.read()).group(1)) << 10

    def large(self, piece, size, canonicalization):
        signature = header("d.example")[0][1].replace("d=", f"c={canonicalization}; d=")
        with MilterClient(self.stack) as client:
            fields_ = [*GOOD, (b"DKIM-Signature", b" " + signature.encode())]
            client.message(fields_, [piece] * 20)
            before = self.peak()
            _, verdict = client.next_message(fields_, (piece for _ in range(size // len(piece))))
        self.assertEqual(verdict, (b"c", b""))
        self.assertLess(self.peak() - before, MEMORY_GROWTH_MAX)

    def test_lines(self):
        self.large(b"a line of text, nothing more\r\n" * 2000, LARGE_BODY, "relaxed/relaxed")

    def test_one_line(self):
        self.large(b"x" * 60000, LARGE_BODY, "simple/simple")

    def test_only_spaces(self):
        self.large(b" \t" * 30000, LARGE_BODY, "relaxed/relaxed")

    def test_only_line_ends(self):
        self.large(b"\r\n" * 30000, LARGE_BODY, "simple/simple")


class Bounded(HostileCase):
    """The caps over the whole message, at N and at N + 1."""

    def text(self, fields_):
        with MilterClient(self.stack) as client:
            edits, verdict = client.message(fields_, [BODY])
        return "".join(data[4:].decode() for command, data in edits if command == b"i"), verdict

    def test_header_count(self):
        filler = [(b"X", b" y")] * (HEADER_COUNT_LIMIT - len(GOOD))
        self.assertEqual(self.text(GOOD + filler)[1], (b"c", b""))
        self.assertEqual(self.text(GOOD + filler + [(b"X", b" y")])[1][1][:10], b"552 5.3.4 ")

    def test_header_size(self):
        """1 MB; of a field counts its name, its value and four more."""
        filler, left = [], (1 << 20) - sum(len(n) + len(v) + 3 for n, v in GOOD)
        while left > 0:
            size = min(left, 50000)
            filler.append((b"X", b"y" * (size - 4)))
            left -= size
        self.assertEqual(self.text(GOOD + filler)[1], (b"c", b""))
        filler[-1] = (b"X", filler[-1][1] + b"y")
        self.assertEqual(self.text(GOOD + filler)[1][1][:10], b"552 5.3.4 ")

    def test_field_of_300_kb(self):
        """As long a field as Postfix may be told to let through."""
        self.assertEqual(self.text([*GOOD, (b"X", b" " + b"y" * 300000)])[1], (b"c", b""))

    def test_signatures(self):
        signatures = [(b"DKIM-Signature", b" " + value.encode())
                      for _, value in header(*(f"d{i}.example" for i in range(21)))[:21]]
        text, verdict = self.text(signatures[:20] + GOOD)
        self.assertEqual((verdict, text.count("dkim=")), ((b"c", b""), 20))
        text, verdict = self.text(signatures + GOOD)
        self.assertEqual((verdict, text.count("dkim=")), ((b"c", b""), 21))
        self.assertIn("dkim=policy reason=\"there are more signatures than are looked at\"", text)

    def test_forged_fields(self):
        """So many that their removal would be endless: the message is refused."""
        forged = (b"Authentication-Results", b" mail.example.com; dkim=pass")
        text, verdict = self.text([forged] * 248 + GOOD)
        self.assertEqual(verdict, (b"c", b""))
        self.assertEqual(self.text([forged] * 249 + GOOD)[1][1][:10], b"554 5.7.1 ")

    def cost(self, fields_):
        """(CPU seconds of the milter, our field, verdict)"""
        before = self.stack.cpu_seconds("milter-dkim")
        text, verdict = self.text(fields_)
        return self.stack.cpu_seconds("milter-dkim") - before, text, verdict

    def test_ten_thousand_signatures_cost_little(self):
        signatures = [(b"DKIM-Signature", b" " + header("d.example")[0][1].encode())] * (HEADER_COUNT_LIMIT // 2)
        self.assertLess(self.cost(signatures[:1800] + GOOD)[0], CPU_SECONDS_MAX)

    def test_nothing_but_arc_fields(self):
        arc = [(b"ARC-Seal", b" i=%d; a=rsa-sha256; cv=pass; d=d.example; s=s; b=AAAA" % (i % 60)) for i in range(5000)]
        seconds, text, verdict = self.cost(arc + GOOD)
        self.assertEqual(verdict, (b"c", b""))
        self.assertIn("arc=fail", text)
        self.assertLess(seconds, CPU_SECONDS_MAX)


class Protocol(HostileCase):
    def test_refused_client_can_go_on(self):
        """After a 5xx the same connection takes the next message."""
        with mail.smtp(self.stack, self.new_source()) as client:
            with self.assertRaises(smtplib.SMTPDataError):
                client.sendmail("a@b.example", [self.user], b"X: y\r\n" * 10001 + b"\r\n")
            self.assertEqual(client.sendmail("a@b.example", [self.user], b"From: a@b.example\r\n\r\n"), {})

    def test_lines_of_our_field(self):
        """No line over 998 bytes, no control bytes, whatever the message holds."""
        hostile = [(b"From", b" \"" + b"x\x01" * 2000 + b"\" <a@" + b"b." * 100 + b"example>"),
                   (b"DKIM-Signature", b" v=1; a=rsa-sha256; s=" + b"s" * 3000 + b"; d=" + b"d" * 3000 + b"; h=from; bh=AA==; b=AA==")]
        with MilterClient(self.stack) as client:
            client.begin(b"<\"" + b"y" * 900 + b";dkim=pass\"@example.org>", helo=b"h;\x02" + b"z" * 400)
            client.send(*client.fields(hostile), client.body(BODY))
            edits, verdict = client.end()
        self.assertEqual(verdict, (b"c", b""))
        (command, data), = edits
        self.assertEqual(command, b"i")
        name, value, rest = data[4:].split(b"\0")
        self.assertEqual((name, rest), (b"Authentication-Results", b""))
        self.assertLess(max(map(len, value.split(b"\n"))), 998)
        self.assertRegex(value, rb"\A[\n\t -~\x80-\xff]*\Z")
        self.assertNotIn(b"\r", value)
        self.assertEqual(header_of(b"x: " + value.replace(b"\n", b"\r\n")).count(b"\r\n\r\n"), 0)
