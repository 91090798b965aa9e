"""Mail that may not fit, by a usage in doubt, while others keep the mailbox from being counted: it waits."""
import contextlib
import socket

from tests.frame import mail
from tests.frame.quota import KB, QuotaCase, body
from tests.frame.sieve import set_script, with_sieve

INBOX_HAS_MORE = """
plugin {
  quota_rule2 = INBOX:storage=+1M
}
"""
INBOX_HAS_MORE_24 = """
namespace inbox {
  mailbox INBOX {
    quota_storage_extra = 1M
  }
}
"""


class InDoubt(QuotaCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with_sieve(cls)

    def full(self):
        """A user who has room for no mail of 100 KB any more."""
        user = self.new_user(quota_mb=1)
        for _ in range(10):
            self.assertEqual(self.deliver(user, body(100 * KB))[0], 250)
        return user

    @contextlib.contextmanager
    def doubted(self, user):
        """USER's usage is in doubt, and another mail process is about to expunge."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.stack.at.path("/run/postern/quotad.sock")))
            client.sendall(f"HELLO\t2\t79\nINTENT\t{user}\nSTALE\t{user}\nLOOKUP\t{user}\n".encode())
            self.assertTrue(client.recv(1024).startswith(b"OK\t"))
            yield

    def test_a_delivery_is_tried_again(self):
        user = self.full()
        doubts = 'quotad_reservations_total{result="doubt"}'
        before = self.metric(doubts, "quotad")
        with self.doubted(user):
            code, text = self.deliver(user, body(100 * KB))
            self.assertEqual((code, text.split()[0]), (451, "4.2.0"), text)
            self.assertEqual(self.metric(doubts, "quotad"), before + 1)
            self.assertIn("over quota by a usage in doubt", self.stack.log_tail("quotad", 5))
            self.assertEqual(self.deliver(user, body(KB))[0], 250)  # it fits, doubt or not
            self.assertEqual(self.deliver(user, body(1025 * KB))[0], 552)  # it never will
        self.wait_until(lambda: self.deliver(user, body(100 * KB))[0] == 552, what="certainty")
        with mail.Imap(self.stack, user) as imap:
            imap.select()
            imap.client.store("1", "+FLAGS", "\\Deleted")
            imap.ok(imap.client.expunge())
        self.assertEqual(self.deliver(user, body(100 * KB))[0], 250)
        self.assert_exact(user)

    def test_a_folder_that_cannot_be_counted_now(self):
        """The number stays in doubt until it can be, and refuses nothing for good."""
        user = self.full()
        with mail.Imap(self.stack, user) as imap:
            imap.ok(imap.client.create("Broken"))
            imap.ok(imap.client.append("Broken", None, None, body(KB)))
        self.assert_exact(user)
        folder = self.stack.mail_dir(user) / ".Broken"
        uids, kept, more = folder / "dovecot-uidlist", folder / "kept", folder / "new/1.M1.more"
        uids.rename(kept)
        uids.mkdir()
        more.write_bytes(body(KB))  # so that the list is needed
        try:
            with self.doubted(user):
                pass
            code, text = self.deliver(user, body(100 * KB))
            self.assertEqual((code, text.split()[0]), (451, "4.2.0"), text)
            self.assertEqual(self.deliver(user, body(1025 * KB))[0], 552)  # it never will fit
        finally:
            more.unlink()
            uids.rmdir()
            kept.rename(uids)
        self.wait_until(lambda: self.deliver(user, body(100 * KB))[0] == 552, what="certainty")
        self.assert_exact(user)

    def test_an_imap_client_is_told(self):
        user = self.full()
        with mail.Imap(self.stack, user) as imap, self.doubted(user):
            imap.select()
            for kind, data in (imap.client.append("INBOX", None, None, body(100 * KB)), imap.client.copy("1", "Trash")):
                self.assertEqual(kind, "NO")
                self.assertRegex(data[0], rb"^\[INUSE\] Quota: the mailbox is being counted, try again later")
        self.assertEqual(self.in_mailbox(user)[1], 10)
        self.assert_exact(user)

    def test_a_mailbox_that_may_have_more(self):
        """There the user's own limit is not what a mail is too large for."""
        with self.dovecot_with("plugin {\n  quota_rule2 = Trash:storage=+1M\n}\n",
                               "namespace inbox {\n  mailbox Trash {\n    quota_storage_extra = 1M\n  }\n}\n"):
            user = self.new_user(quota_mb=1)
            with mail.Imap(self.stack, user) as imap:
                imap.ok(imap.client.append("Trash", None, None, body(1000 * KB)))
                with self.doubted(user):
                    kind, data = imap.client.append("Trash", None, None, body(1050 * KB))
                    self.assertEqual((kind, b"try again later" in data[0]), ("NO", True), data)
                    kind, data = imap.client.append("Trash", None, None, body(2049 * KB))
                    self.assertEqual((kind, b"[OVERQUOTA]" in data[0]), ("NO", True), data)
            self.assert_exact(user)

    def test_sieve_puts_it_in_no_other_mailbox(self):
        """Where it has room: INBOX has more of it."""
        user = self.full()
        set_script(self.stack, user, 'require ["fileinto", "mailbox"]; fileinto :create "Lists";\n')
        with self.dovecot_with(INBOX_HAS_MORE, INBOX_HAS_MORE_24), self.doubted(user):
            self.assertEqual(self.deliver(user, body(100 * KB))[0], 451)
        self.assertEqual(self.in_mailbox(user)[1], 10)
        self.assert_exact(user)
