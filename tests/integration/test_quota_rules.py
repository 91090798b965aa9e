"""Limits of messages, rules of mailboxes, grace, warnings, and what IMAP shows and sets."""
import imaplib
import re
import unittest

from tests.frame import mail
from tests.frame.case import NUMBERS
from tests.frame.quota import KB, QuotaCase, body

SCRIPT = """
service quota-warning {{
  executable = script {script}
  user = root
  unix_listener quota-warning {{
    mode = 0666
  }}
}}
"""


class Messages(QuotaCase):
    def test_parallel_deliveries_stop_at_the_limit(self):
        user = self.new_user(quota_mb=0)
        self.stack.mariadb(f"UPDATE virtual_users SET quota_messages = 7 WHERE email = '{user}'")
        codes = self.deliver_all([(user, body(KB))] * 32, threads=16)
        self.assertEqual((codes.count(250), codes.count(552)), (7, 25), codes)
        with mail.Imap(self.stack, user) as imap:
            self.assertIn("(MESSAGE 7 7)", str(imap.quota_root()))
            imap.select()
            kind, data = imap.client.copy("1", "Trash")
            self.assertEqual(kind, "NO")
            self.assertIn(b"OVERQUOTA", data[0])
            imap.ok(imap.client._simple_command("MOVE", "1", "Trash"))
            imap.expunge(imap.uids()[:1])
            imap.ok(imap.client.append("INBOX", None, None, body(KB)))
            self.assertEqual(imap.client.append("INBOX", None, None, body(KB))[0], "NO")
        self.assert_exact(user)

    def test_a_domain_shares_one(self):
        domain = f"d{next(NUMBERS)}-messages.example"
        self.stack.mariadb(f"INSERT INTO virtual_domains (name) VALUES ('{domain}'); "
                           "INSERT INTO domain_limits (domain_id, quota_messages) "
                           f"SELECT id, 6 FROM virtual_domains WHERE name = '{domain}'")
        users = self.users(3, quota_mb=0, domain=domain)
        codes = self.deliver_all([(users[i % 3], body(KB)) for i in range(24)], threads=12)
        self.assertEqual(codes.count(250), 6, codes)

    def test_the_limit_still_holds_without_quotad(self):
        user = self.new_user(quota_mb=0)
        self.stack.mariadb(f"UPDATE virtual_users SET quota_messages = 3 WHERE email = '{user}'")
        with mail.Imap(self.stack, user) as imap:  # a process that knows the limit
            self.assertIn("(MESSAGE 0 3)", str(imap.quota_root()))
            self.stack.stop("quotad")
            kinds = [imap.client.append("INBOX", None, None, body(KB))[0] for _ in range(5)]
        self.stack.start("quotad")
        self.assertEqual(kinds, ["OK"] * 3 + ["NO"] * 2)
        self.quota_get(user)
        self.assert_exact(user)


class Rules(QuotaCase):
    OLD = """
plugin {
  quota_rule2 = Trash:storage=+200K
  quota_rule3 = Free:ignore
  quota_rule4 = Half:storage=-50%%
}
"""
    NEW = """
namespace inbox {
  mailbox Trash {
    quota_storage_extra = 200k
  }
  mailbox Free {
    quota_ignore = yes
  }
  mailbox Half {
    quota_storage_percentage = 50
  }
}
"""

    def test_mailboxes_with_limits_of_their_own(self):
        with self.dovecot_with(self.OLD, self.NEW):
            user = self.new_user(quota_mb=1)
            codes = [self.deliver(user, body(100 * KB))[0] for _ in range(11)]
            self.assertEqual(codes, [250] * 10 + [552])
            with mail.Imap(self.stack, user) as imap:
                for name in ("Free", "Half"):
                    imap.client.create(name)

                def append(mailbox):
                    return imap.client.append(mailbox, None, None, body(90 * KB))[0]

                self.assertEqual([append("Trash") for _ in range(3)], ["OK", "OK", "NO"])
                self.assertEqual([append("Free") for _ in range(3)], ["OK"] * 3)
                self.assertEqual(append("Half"), "NO")
                counted = self.in_mailbox(user)[1] - 3
                self.wait_until(lambda: self.row(user) and self.row(user)[1] == counted)
                imap.select()
                imap.expunge(imap.uids()[:7])
                self.assertEqual(append("Half"), "NO")  # 3 * 100 + 2 * 90 + 90 is over 512
                imap.select("Trash")
                imap.expunge(imap.uids())
                self.assertEqual(append("Half"), "OK")
            self.wait_until(lambda: self.row(user)[1] == 4)
            self.stack.doveadm("quota", "recalc", "-u", user)
            self.assertEqual(self.quota_get(user)[1], 4)

    def test_folders_that_go_into_and_out_of_what_is_ignored(self):
        with self.dovecot_with(self.OLD.replace("Free:", "Free*:"), self.NEW.replace("mailbox Free", "mailbox Free*")):
            user = self.new_user()
            with mail.Imap(self.stack, user) as imap:
                imap.client.create("Box")
                imap.ok(imap.client.append("Box", None, None, body(10 * KB)))
                self.wait_until(lambda: self.quota_get(user)[1] == 1)
                imap.ok(imap.client.rename("Box", "Free1"))
                self.wait_until(lambda: self.quota_get(user)[1] == 0)
                imap.ok(imap.client.rename("Free1", "Box"))
                self.wait_until(lambda: self.quota_get(user)[1] == 1)
            self.assert_exact(user)

    def test_what_goes_along_with_its_parent_into_what_is_ignored(self):
        with self.dovecot_with("plugin {\n  quota_rule2 = Lists.Free:ignore\n}\n",
                               "namespace inbox {\n  mailbox Lists.Free {\n    quota_ignore = yes\n  }\n}\n"):
            user = self.new_user()
            with mail.Imap(self.stack, user) as imap:
                for name in ("Box", "Box.Free"):
                    imap.ok(imap.client.create(name))
                    imap.ok(imap.client.append(name, None, None, body(10 * KB)))
                for old, new, counted in (("Box", "Lists", 1), ("Lists", "Box", 2), ("Box", "Other", 2)):
                    imap.ok(imap.client.rename(old, new))
                    self.wait_until(lambda counted=counted: self.row(user) == (counted * 10 * KB, counted),
                                    what=lambda: f"{self.row(user)} without Lists.Free")
            self.assert_exact(user)

    def test_grace_is_for_the_last_delivery(self):
        old = "plugin {\n  quota_grace = 200K\n}\n"
        new = 'quota "User quota" {\n  storage_grace = 200k\n}\n'
        with self.dovecot_with(old, new):
            user = self.new_user(quota_mb=1)
            for _ in range(10):
                self.assertEqual(self.deliver(user, body(100 * KB))[0], 250)
            with mail.Imap(self.stack, user) as imap:
                self.assertEqual(imap.client.append("INBOX", None, None, body(150 * KB))[0], "NO")
            codes = self.deliver_all([(user, body(150 * KB))] * 8)
            self.assertEqual(codes.count(250), 1, codes)  # however many come at a time
            self.assertEqual(self.deliver(user, body(KB))[0], 552)
            self.assert_exact(user)

    def test_a_limit_that_is_not_enforced(self):
        old = "plugin {\n  quota = usage:User quota:noenforcing\n}\n"
        new = 'quota "User quota" {\n  enforce = no\n}\n'
        with self.dovecot_with(old, new):
            user = self.new_user(quota_mb=1)
            self.assertEqual([self.deliver(user, body(600 * KB))[0] for _ in range(3)], [250] * 3)
            self.assert_exact(user)


class Warnings(QuotaCase):
    OLD = """
plugin {
  quota_warning = storage=80%% quota-warning over80 %u
  quota_warning2 = storage=50%% quota-warning over50 %u
  quota_warning3 = -storage=50%% quota-warning under50 %u
  quota_warning4 = messages=20 quota-warning over20messages %u
  quota_over_flag_value = TRUE
  quota_over_script = quota-warning flag %u
}
"""
    NEW = """
quota "User quota" {
  warning over80 {
    quota_storage_percentage = 80
    execute quota-warning {
      args = over80 %{user}
    }
  }
  warning over50 {
    quota_storage_percentage = 50
    execute quota-warning {
      args = over50 %{user}
    }
  }
  warning under50 {
    quota_storage_percentage = 50
    quota_warning_threshold = under
    execute quota-warning {
      args = under50 %{user}
    }
  }
  warning over20messages {
    quota_warning_resource = message
    quota_message_count = 20
    execute quota-warning {
      args = over20messages %{user}
    }
  }
  quota_over_status_mask = TRUE
  quota_over_status {
    execute quota-warning {
      args = flag %{user}
    }
  }
}
"""

    def setUp(self):
        super().setUp()
        script = self.stack.at.path("/etc/dovecot/warning.sh")
        self.told = self.stack.at.path("/log/warnings")
        script.write_text(f'#!/bin/sh\necho "$1 $2" >>{self.told}\n')
        script.chmod(0o755)
        self.addCleanup(script.unlink)
        self.told.write_text("")
        service = SCRIPT.format(script=script)
        context = self.dovecot_with(self.OLD + service, self.NEW + service)
        context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)

    def warnings(self, user):
        return [line.split()[0] for line in self.told.read_text().splitlines() if line.split()[1] == user]

    def test_each_crossing_once(self):
        user = self.new_user(quota_mb=1)
        for number in range(1, 4):
            codes = self.deliver_all([(user, body(50 * KB))] * 16, threads=12)
            self.assertEqual(codes.count(250), 16, codes)
            self.wait_until(lambda: self.warnings(user).count("over50") == number)
            self.assertEqual(self.deliver(user, body(50 * KB))[0], 250)
            self.wait_until(lambda: self.warnings(user).count("over80") == number)
            with mail.Imap(self.stack, user) as imap:
                imap.select()
                imap.expunge(imap.uids())
            self.wait_until(lambda: self.warnings(user).count("under50") == number)
        self.assertEqual(sorted(self.warnings(user)), ["over50"] * 3 + ["over80"] * 3 + ["under50"] * 3)
        self.assert_exact(user)

    def test_messages(self):
        user = self.new_user()
        self.deliver_all([(user, body(KB))] * 25, threads=12)
        self.wait_until(lambda: self.warnings(user))
        self.assertEqual(self.warnings(user), ["over20messages"])

    def test_over_quota_flag(self):
        user = self.new_user(quota_mb=2)
        self.deliver(user, body(1500 * KB))
        self.wait_until(lambda: self.warnings(user) == ["over50"])
        with mail.Imap(self.stack, user):
            pass
        self.assertEqual(self.warnings(user), ["over50"])  # not over, and no flag
        self.stack.mariadb(f"UPDATE virtual_users SET quota_mb = 1 WHERE email = '{user}'")
        self.wait_until(lambda: "\t1024\t" in self.stack.doveadm("-f", "tab", "quota", "get", "-u", user))
        with mail.Imap(self.stack, user):
            self.wait_until(lambda: "flag" in self.warnings(user))


class InImap(QuotaCase):
    ADMIN = [("SELECT email AS user, CONCAT", "SELECT email AS user, IF(LEFT(email, 5) = 'admin', 'y', NULL) AS admin, CONCAT"),
             ("SELECT email AS user, GREATEST", "SELECT email AS user, IF(LEFT(email, 5) = 'admin', 'y', NULL) AS admin, GREATEST")]

    def limits(self, user):
        return self.stack.mariadb(
            f"SELECT quota_mb, quota_messages FROM virtual_users WHERE email = '{user}'").split()

    def test_what_is_advertised(self):
        with mail.Imap(self.stack, self.new_user()) as imap:
            words = imap.ok(imap.client.capability())[0].decode().split()
        for word in ("QUOTA", "QUOTA=RES-STORAGE", "QUOTA=RES-MESSAGE"):
            self.assertIn(word, words)
        self.assertNotIn("QUOTASET", words)

    def test_status_of_what_is_marked_deleted(self):
        user = self.new_user()
        for size in (3 * KB, 5 * KB, 7 * KB):
            self.deliver(user, body(size))
        with mail.Imap(self.stack, user) as imap, mail.Imap(self.stack, user) as other:
            def status(box, items):
                kind, data = imap.client.status(box, items)
                return data[0].decode() if kind == "OK" else kind
            self.assertEqual(status("INBOX", "(DELETED DELETED-STORAGE)"), "INBOX (DELETED 0 DELETED-STORAGE 0)")
            other.select()
            sizes = [int(line.split()[-1].rstrip(b")")) for line in other.ok(other.client.fetch("1:3", "RFC822.SIZE"))]
            other.ok(other.client.store("1,3", "+FLAGS", "\\Deleted"))
            self.assertEqual(status("INBOX", "(deleted-storage)"), f"INBOX (DELETED-STORAGE {sizes[0] + sizes[2]})")
            self.assertEqual(status("INBOX", "(MESSAGES DELETED UIDNEXT SIZE DELETED-STORAGE)"),
                             f"INBOX (MESSAGES 3 UIDNEXT 4 SIZE {sum(sizes)} DELETED 2 DELETED-STORAGE {sizes[0] + sizes[2]})")
            self.assertEqual(status("INBOX", "(MESSAGES UIDNEXT)"), "INBOX (MESSAGES 3 UIDNEXT 4)")
            imap.select()
            self.assertEqual(status("INBOX", "(DELETED)"), "INBOX (DELETED 2)")
            other.ok(other.client.expunge())
            imap.ok(imap.client.noop())
            self.assertEqual(status("INBOX", "(DELETED MESSAGES)"), "INBOX (MESSAGES 1 DELETED 0)")
            for box, items in (("Nowhere", "(DELETED)"), ("Nowhere", "(MESSAGES DELETED)")):
                self.assertEqual(status(box, items), "NO")
            for items in ("()", "(DELETED NOTHING)", "(NOTHING)", "DELETED", '("DELETED")', "(DELETED (DELETED))"):
                with self.assertRaises(imap.client.error):
                    imap.client.status("INBOX", items)
            self.assertEqual(status('"INBOX"', "(X-GUID DELETED)").split()[1], "(X-GUID")

    def test_status_of_what_has_no_size(self):
        user = self.new_user()
        for _ in range(2):
            self.deliver(user, body(3 * KB))
        with mail.Imap(self.stack, user) as imap:
            imap.select()
            folder = self.stack.mail_dir(user) / "cur"
            unread = folder / "1.M1.unread:2,T"  # no size in its name, and nobody may look
            unread.write_bytes(body(KB))
            unread.chmod(0)
            try:
                imap.ok(imap.client.noop())
                kind, data = imap.client.status("INBOX", "(DELETED)")
                self.assertEqual((kind, data), ("OK", [b"INBOX (DELETED 1)"]))
                kind, data = imap.client.status("INBOX", "(DELETED DELETED-STORAGE)")
                self.assertEqual(kind, "NO", data)
            finally:
                unread.unlink()
            imap.ok(imap.client.noop())
            kind, data = imap.client.status("INBOX", "(DELETED DELETED-STORAGE)")
            self.assertEqual((kind, data), ("OK", [b"INBOX (DELETED 0 DELETED-STORAGE 0)"]))

    def test_getquota(self):
        user = self.new_user(quota_mb=3)
        self.stack.mariadb(f"UPDATE virtual_users SET quota_messages = 9 WHERE email = '{user}'")
        self.deliver(user, body(10 * KB))
        kilobytes = -(-self.in_mailbox(user)[0] // KB)
        with mail.Imap(self.stack, user) as imap:
            answer = imap.ok(imap.client.getquota('"User quota"'))[0].decode()
            self.assertEqual(answer, f'"User quota" (STORAGE {kilobytes} 3072 MESSAGE 1 9)')
            self.assertEqual(imap.client.getquota('"Other quota"')[0], "NO")
            roots, resources = imap.quota_root("Trash")
            self.assertEqual((roots, resources), ([b'Trash "User quota"'], [answer.encode()]))

    def test_setquota_is_for_administrators(self):
        user = self.new_user(quota_mb=3)
        with mail.Imap(self.stack, user) as imap:
            kind, data = imap.client.setquota('"User quota"', "(STORAGE 9000)")
            self.assertEqual(kind, "NO")
            self.assertIn(b"NOPERM", data[0])
        self.assertEqual(self.limits(user), ["3", "0"])

    def test_setquota(self):
        with self.dovecot_with("", "", self.ADMIN):
            user = self.new_user(quota_mb=3)
            admin = user.replace("m", "admin", 1)
            self.stack.mariadb(f"UPDATE virtual_users SET email = '{admin}' WHERE email = '{user}'")
            other = self.new_user(quota_mb=3)
            with mail.Imap(self.stack, admin) as imap:
                def setquota(root, limits):
                    kind, data = imap.client.setquota(f'"{root}"', limits)
                    return kind, data[0].decode() if data[0] else ""

                self.assertEqual(setquota("User quota", "(STORAGE 5000)"), ("OK", '"User quota" (STORAGE 0 5120)'))
                self.assertIn("(STORAGE 0 5120)", str(imap.quota_root()))
                self.assertEqual(self.limits(admin), ["5", "0"])
                kind, text = setquota(f"{other}:User quota", "(STORAGE 2048 MESSAGE 2)")
                self.assertEqual((kind, text), ("OK", f'"{other}:User quota" (STORAGE 0 2048 MESSAGE 0 2)'))
                self.assertEqual(self.limits(other), ["2", "2"])
                codes = [self.deliver(other, body(KB))[0] for _ in range(3)]
                self.assertEqual(codes, [250, 250, 552])
                self.assertEqual(setquota(f"{other}:User quota", "()")[0], "OK")
                self.assertEqual(self.limits(other), ["0", "0"])
                for root, limits in (("No quota", "(STORAGE 1)"), ("nobody@example.net:User quota", "(STORAGE 1)"),
                                     ("User quota", "(MAILBOX 1)"), ("User quota", "(STORAGE 0)"),
                                     ("User quota", "(MESSAGE 2147483648)")):
                    self.assertEqual(setquota(root, limits)[0], "NO", (root, limits))
                for limits in ("(STORAGE)", "(STORAGE x)", "STORAGE", "(STORAGE -1)"):
                    with self.assertRaises(imaplib.IMAP4.error):
                        imap.ok(imap.client.setquota('"User quota"', limits))
                self.assertEqual(self.limits(admin), ["5", "0"])
                self.assertIn("QUOTASET", str(imap.ok(imap.client.capability())))

    def test_setquota_while_the_database_is_away(self):
        with self.dovecot_with("", "", self.ADMIN):
            user = self.new_user(quota_mb=3)
            admin = user.replace("m", "admin", 1)
            self.stack.mariadb(f"UPDATE virtual_users SET email = '{admin}' WHERE email = '{user}'")
            with mail.Imap(self.stack, admin) as imap:
                self.stack.stop("mysql")
                kind, data = imap.client.setquota('"User quota"', "(STORAGE 9000)")
                self.assertEqual(kind, "NO")
                self.assertTrue(re.search(rb"UNAVAILABLE", data[0]), data)
                self.stack.start("mysql")
                self.wait_until(lambda: imap.client.setquota('"User quota"', "(STORAGE 9000)")[0] == "OK")
            self.assertEqual(self.limits(admin), ["9", "0"])


if __name__ == "__main__":
    unittest.main()
