"""Header fields, texts and attachment names in the charsets that mail comes in, and MIME that is broken."""
import base64
import quopri
import unittest

from tests.frame.mail import new_message_id
from tests.integration.test_indexer import Dialogue, IndexCase

# Name in the mail, Python's codec, a sample that it can write.
CHARSETS = [
    ("us-ascii", "ascii", "plain words"), ("utf-8", "utf-8", "Grüße 日本 😀"), ("iso-8859-1", "latin-1", "Grüße aus Köln"),
    ("iso-8859-2", "iso8859-2", "Zażółć gęślą jaźń"), ("iso-8859-3", "iso8859-3", "ĉirkaŭ"), ("iso-8859-4", "iso8859-4", "šokolāde"),
    ("iso-8859-5", "iso8859-5", "Привет"), ("iso-8859-6", "iso8859-6", "مرحبا"), ("iso-8859-7", "iso8859-7", "Καλημέρα"),
    ("iso-8859-8", "iso8859-8", "שלום"), ("iso-8859-8-i", "iso8859-8", "שלום"), ("iso-8859-9", "iso8859-9", "İstanbul güneş"),
    ("iso-8859-10", "iso8859-10", "þorn ŋ"), ("iso-8859-13", "iso8859-13", "ąžuolas"), ("iso-8859-14", "iso8859-14", "ŵyneb"),
    ("iso-8859-15", "iso8859-15", "100 € œuvre"), ("iso-8859-16", "iso8859-16", "știință"), ("windows-1250", "cp1250", "Příliš žluťoučký"),
    ("windows-1251", "cp1251", "Счёт № 5"), ("windows-1252", "cp1252", "“quoted” – 5 €"), ("windows-1253", "cp1253", "Ελλάδα"),
    ("windows-1254", "cp1254", "çığ"), ("windows-1255", "cp1255", "חשבונית"), ("windows-1256", "cp1256", "فاتورة"),
    ("windows-1257", "cp1257", "rēķins"), ("windows-1258", "cp1258", "đồ".replace("ồ", "ô")), ("koi8-r", "koi8-r", "Привет"),
    ("koi8-u", "koi8-u", "Їжак"), ("gb2312", "gb2312", "发票通知"), ("gbk", "gbk", "發票通知"), ("gb18030", "gb18030", "发票㐀"),
    ("big5", "big5", "發票通知"), ("big5-hkscs", "big5hkscs", "發票喺度"), ("euc-jp", "euc-jp", "請求書"), ("shift_jis", "shift_jis", "請求書カタ"),
    ("iso-2022-jp", "iso2022-jp", "御請求書"), ("euc-kr", "euc-kr", "청구서"), ("ks_c_5601-1987", "euc-kr", "청구서"),
    ("iso-2022-kr", "iso2022-kr", "청구서"), ("tis-620", "tis-620", "ใบแจ้งหนี้"), ("windows-874", "cp874", "ใบแจ้งหนี้"),
    ("macintosh", "mac-roman", "Größe é"), ("ibm850", "cp850", "Größe"), ("cp866", "cp866", "Привет"), ("utf-16be", "utf-16-be", "Grüße"),
    ("utf-7", "utf-7", "Grüße 日本"),
]


class ContentCase(IndexCase):
    def send(self, user, data):
        """DATA, with a Message-ID of ours in front; returns it."""
        ident = new_message_id()
        with Dialogue(self.stack) as d:
            d.envelope(user)
            self.assertEqual(d.data(f"Message-ID: {ident}\r\n".encode() + data, 1)[0][0], 250)
        return ident


class Charsets(ContentCase):
    def test_encoded_words_texts_and_names(self):
        user, sent = self.new_user(), {}
        for name, codec, sample in CHARSETS:
            raw = sample.encode(codec)
            word = f"=?{name}?B?{base64.b64encode(raw).decode()}?="
            quoted = "".join(f"%{byte:02X}" for byte in raw)
            text = quopri.encodestring(raw, quotetabs=True).replace(b"\n", b"\r\n")
            head = (f"Subject: {word}\r\nFrom: {word} <x@example.org>\r\nMIME-Version: 1.0\r\n"
                    "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
                    f"Content-Type: text/plain; charset={name}\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n").encode()
            tail = (f"\r\n--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename*={name}''{quoted}\r\n\r\n"
                    "%PDF\r\n--b--\r\n").encode()
            sent[name] = self.send(user, head + text + tail)
        for name, _, sample in CHARSETS:
            with self.subTest(charset=name):
                got = self.row(user, sent[name], "m.subject, m.from_display, TRIM(m.snippet), (SELECT a.name FROM attachments a "
                               "WHERE a.message_id = m.id), m.parse_state")
                self.assertEqual(got, [(sample, sample, sample, sample, "parsed")])

    def test_raw_bytes_in_the_charset_of_the_text(self):
        user, sent = self.new_user(), {}
        charsets = [(name, codec, sample) for name, codec, sample in CHARSETS if not codec.startswith(("utf-", "iso2022-kr"))]
        for name, codec, sample in charsets:
            raw = sample.encode(codec)
            sent[name] = self.send(user, b"Subject: " + raw + b"\r\nFrom: " + raw + b" <x@example.org>\r\nMIME-Version: 1.0\r\n"
                                   b"Content-Type: text/plain; charset=" + name.encode() + b"\r\n\r\n" + raw + b"\r\n")
        for name, _, sample in charsets:
            with self.subTest(charset=name):
                got = self.row(user, sent[name], "m.subject, m.from_display, TRIM(m.snippet), m.parse_state")
                self.assertEqual(got, [(sample, sample, sample, "parsed")])


class Broken(ContentCase):
    def test_message_in_base64(self):
        """Forbidden by RFC 2046, and sent."""
        user = self.new_user()
        inner = "Subject: Weitergeleitet: Grüße\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nDas steht innen.\r\n".encode()
        ident = self.send(user, b"Subject: outer\r\nMIME-Version: 1.0\r\nContent-Type: message/rfc822\r\n"
                                b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(inner).replace(b"\n", b"\r\n"))
        self.assertEqual(self.row(user, ident, "m.snippet, (SELECT a.name FROM attachments a WHERE a.message_id = m.id)"),
                         [("Das steht innen.", "Weitergeleitet: Grüße")])


if __name__ == "__main__":
    unittest.main()
