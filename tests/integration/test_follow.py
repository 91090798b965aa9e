"""The index follows the mailbox: what users do over IMAP stands in SQL soon after."""
import concurrent.futures
import json
import os
import random
import socket
import subprocess
import threading
import time
import unittest

from tests.frame.follow import doveadm, event_types, index_view, mailbox_view
from tests.frame.mail import Imap, lmtp, message, new_message_id
from tests.frame.sieve import set_script, with_sieve
from tests.frame.stack import StackError
from tests.frame.webhook import WebhookReceiver, payload
from tests.integration.test_indexer import IndexCase

FOLLOW_S = 2.0
HINTS_SOCKET = "/run/postern/lmtp-indexer.hints.sock"
LOADED_S = 60
OLD_MAILBOXES, OLD_MAILS, ONE_BOX = 25, 400, 12000
IN_ITS_MIDST_S = 0.2  # under follow_delay: a move on a machine slower than this is a copy and a deletion


class FollowCase(IndexCase):
    def arrive(self, user, count=1, **headers):
        """Delivers COUNT messages; returns their Message-IDs."""
        idents = [new_message_id() for _ in range(count)]
        with lmtp(self.stack) as client:
            for ident in idents:
                client.sendmail("a@example.org", [user], message("a@example.org", user, message_id=ident, **headers))
        return idents

    def messages(self, user, columns="m.id"):
        return self.rows(f"SELECT {columns} FROM messages m JOIN virtual_users u ON u.id = m.user_id "
                         "WHERE u.email = %s ORDER BY m.id", user)

    def follows(self, user, timeout=LOADED_S):
        """Waits until the index says what the mailbox says, and nobody looks at mailboxes any more."""
        def same():
            want = mailbox_view(self.stack, user)
            return want == index_view(self.stack, user) and [want]
        try:
            view = self.wait_until(same, timeout)[0]
            self.follower_rests()
            return view
        except AssertionError:
            self.assertEqual(index_view(self.stack, user), mailbox_view(self.stack, user))
            raise

    def types(self, user):
        return [kind for kind, _ in event_types(self.stack, user)]

    def mailbox_of(self, user):
        self.arrive(user)
        self.follows(user)
        return Imap(self.stack, user)


class Changes(FollowCase):
    """Each kind of change, alone."""

    def test_delivery_gets_its_place(self):
        user = self.new_user()
        self.arrive(user, 3)
        view = self.follows(user)
        self.assertEqual(sorted(view), [("INBOX", "1"), ("INBOX", "2"), ("INBOX", "3")])
        guid = self.value("SELECT mailbox_guid FROM messages m JOIN virtual_users u ON u.id = m.user_id "
                          "WHERE u.email = %s LIMIT 1", user)
        self.assertIn(guid, doveadm(self.stack, "-f", "tab", "mailbox", "status", "-u", user, "guid", "INBOX"))
        self.assertEqual(self.types(user), ["message.received"] * 3)

    def test_flags(self):
        user = self.new_user()
        with self.mailbox_of(user) as imap:
            imap.select()
            imap.ok(imap.client.uid("STORE", "1", "+FLAGS", r"(\Seen \Flagged work)"))
            self.follows(user)
            self.assertEqual(self.messages(user, "m.flags"), [(r"\Flagged \Seen work",)])
            imap.ok(imap.client.uid("STORE", "1", "-FLAGS", r"(\Flagged)"))
            self.follows(user)
        self.assertEqual(self.types(user), ["message.received", "message.flags", "message.flags"])

    def test_expunge_leaves_a_tombstone(self):
        user = self.new_user()
        with self.mailbox_of(user) as imap:
            imap.select()
            self.follower_rests()
            imap.expunge(["1"])
        self.wait_until(lambda: self.messages(user, "m.deleted_at IS NOT NULL, m.deleted_reason, m.uid")
                        == [("1", "expunged", "1")])
        self.assertEqual(self.types(user)[-1], "message.deleted")
        self.assertIn("nothing found", self.stack.postern("search", user, "message"))

    def test_move_keeps_the_row(self):
        user = self.new_user()
        with self.mailbox_of(user) as imap:
            before = self.messages(user)
            imap.ok(imap.client.create("Archive"))
            imap.select()
            self.follows(user)
            began = time.monotonic()
            imap.ok(imap.client.uid("MOVE", "1", "Archive"))
            self.follows(user)
            took = time.monotonic() - began
        self.assertEqual(self.messages(user), before, "the same row")
        self.assertEqual(self.messages(user, "m.mailbox_name"), [("Archive",)])
        events = event_types(self.stack, user)
        self.assertEqual([e for e in events if e[0] == "message.moved"], [("message.moved", before[0][0])])
        self.assertNotIn("message.deleted", self.types(user))
        print(f"move followed after {took:.2f} s")

    def test_move_that_is_looked_at_in_its_midst(self):
        """Clients without MOVE copy and expunge; a draft that is saved in between is looked at at once."""
        user, kept = self.new_user(), 0
        draft = message("a@example.org", user, text="Ein Entwurf.\n")
        with self.mailbox_of(user) as imap:
            imap.ok(imap.client.create("Archive"))
            imap.ok(imap.client.create("Drafts"))
            for _ in range(20):
                self.arrive(user)
                self.follows(user)
                self.wait_until(lambda: self.status("lmtp-indexer")["follow"]["users"] == 0, what="nobody is looked at soon")
                imap.select()
                uid, rows = imap.uids()[-1].decode(), self.messages(user)
                seen = self.metric("postern_follow_compared_total", "lmtp-indexer")
                began = time.monotonic()
                imap.ok(imap.client.uid("COPY", uid, "Archive"))
                imap.ok(imap.client.append("Drafts", None, None, draft))
                self.wait_until(lambda: self.metric("postern_follow_compared_total", "lmtp-indexer") >= seen + 2)
                in_time = time.monotonic() - began < IN_ITS_MIDST_S
                imap.expunge([uid])
                self.follows(user)
                if in_time:
                    after = self.messages(user, "m.id, m.mailbox_name, m.deleted_at IS NULL")
                    self.assertEqual(after[len(rows) - 1], (*rows[-1], "Archive", "1"))
                    self.assertEqual([row[1:] for row in after[len(rows):]], [("Drafts", "1")])
                    kept += 1
                if kept == 3:
                    break
            self.assertGreater(kept, 0, "the machine is too slow for this test")

    def test_move_whose_second_half_takes_its_time(self):
        user = self.new_user()
        with self.mailbox_of(user) as imap:
            imap.ok(imap.client.create("Archive"))
            imap.select()
            self.follows(user)
            before = self.messages(user)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as hints:
                hints.connect(str(self.stack.at.path(HINTS_SOCKET)))
                hints.send(f"1\tm\t{user}\n".encode())
                imap.ok(imap.client.uid("COPY", "1", "Archive"))
            passes = self.metric("postern_follow_passes_total", "lmtp-indexer")
            self.wait_until(lambda: self.metric("postern_follow_passes_total", "lmtp-indexer") >= passes + 3)
            self.assertEqual(self.messages(user), before, "half a move has no row")
            imap.expunge(["1"])
            self.follows(user)
        self.assertEqual(self.messages(user, "m.id, m.mailbox_name"), [(*before[0], "Archive")])

    def test_plug_in_tells_a_move_from_a_copy(self):
        user = self.new_user()
        with self.mailbox_of(user) as imap:
            imap.ok(imap.client.create("Archive"))
            self.follows(user)
        self.stack.stop("lmtp-indexer")
        path = self.stack.at.path(HINTS_SOCKET)
        path.unlink(missing_ok=True)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server, Imap(self.stack, user) as imap:
                server.bind(str(path))
                path.chmod(0o666)
                server.listen()
                server.settimeout(LOADED_S)
                imap.select()
                imap.ok(imap.client.uid("COPY", "1", "Archive"))
                peer, _ = server.accept()
                with peer:
                    peer.settimeout(LOADED_S)
                    self.assertEqual(peer.recv(4096).decode(), f"1\tc\t{user}\n")
                    imap.ok(imap.client.uid("MOVE", "1", "Archive"))
                    self.assertEqual(peer.recv(4096).decode(), f"1\tm\t{user}\n")
                    self.assertEqual(peer.recv(4096).decode(), f"1\tcm\t{user}\n")
                    self.assertEqual(peer.recv(4096).decode(), f"1\tx\t{user}\n")
        finally:
            path.unlink(missing_ok=True)
            self.stack.start("lmtp-indexer")

    def test_copy_is_a_row_of_its_own(self):
        user = self.new_user()
        with self.mailbox_of(user) as imap:
            imap.ok(imap.client.create("Copies"))
            imap.select()
            imap.ok(imap.client.uid("COPY", "1", "Copies"))
            self.follows(user)
        self.assertEqual(sorted(self.messages(user, "m.mailbox_name, m.subject")),
                         [("Copies", "a message"), ("INBOX", "a message")])
        self.assertIn("message.appended", self.types(user))

    def test_append_is_parsed_and_found(self):
        user = self.new_user()
        data = message("a@example.org", user, subject="Überraschung", text="Ein Entwurf.\n",
                       attachments=[("Liste.pdf", "application/pdf", b"%PDF-1.4 x")])
        with Imap(self.stack, user) as imap:
            imap.ok(imap.client.append("INBOX", r"(\Draft)", None, data))
            self.follows(user)
        self.assertEqual(self.messages(user, "m.subject, m.flags, m.attachment_count, m.parse_state, m.mailbox_name"),
                         [("Überraschung", r"\Draft", "1", "parsed", "INBOX")])
        self.assertEqual(self.types(user)[-1], "message.appended")
        for word in ("Überraschung", "Entwurf", "Liste"):
            self.assertIn("Überraschung", self.stack.postern("search", user, word))

    def test_append_of_raw_bytes_in_an_old_charset(self):
        user = self.new_user()
        data = ("Subject: alt\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\n"
                "Content-Transfer-Encoding: 8bit\r\n\r\nGrüße aus Köln\r\n").encode("latin-1")
        with Imap(self.stack, user) as imap:
            imap.ok(imap.client.append("INBOX", None, None, data))
        self.follows(user)
        self.assertEqual(self.messages(user, "m.snippet"), [("Grüße aus Köln",)])

    def test_folders_renamed_and_deleted(self):
        user = self.new_user()
        with self.mailbox_of(user) as imap:
            for name in ("Work", "Work/2025"):
                imap.ok(imap.client.create(name.replace("/", imap.client.list()[1][0].split()[-2].decode().strip('"'))))
            separator = imap.client.list()[1][0].split()[-2].decode().strip('"')
            imap.select()
            imap.ok(imap.client.uid("COPY", "1", "Work"))
            imap.ok(imap.client.uid("COPY", "1", f"Work{separator}2025"))
            self.follows(user)
            before = self.messages(user, "m.id, m.uid")
            imap.ok(imap.client.rename("Work", "Office"))
            view = self.follows(user)
            self.assertEqual({name for name, _ in view}, {"INBOX", "Office", f"Office{separator}2025"})
            self.assertEqual(self.messages(user, "m.id, m.uid"), before)
            self.assertEqual(self.types(user).count("mailbox.renamed"), 2)
            imap.ok(imap.client.delete(f"Office{separator}2025"))
            self.follows(user)
        self.assertEqual([row for row in self.messages(user, "m.deleted_reason") if row[0] != "NULL"],
                         [("mailbox_deleted",)])
        self.wait_until(lambda: "mailbox.deleted" in self.types(user))


class Hints(FollowCase):
    """The plug-in's hints may be lost; the index finds out all the same."""

    def markers(self):
        return list(self.stack.at.path("/run/postern/index-dirty").iterdir())

    def test_daemon_away_leaves_a_marker(self):
        user = self.new_user()
        with self.mailbox_of(user) as imap:
            # With systemd the socket stays; here nobody may listen.
            self.stack.stop("lmtp-indexer")
            imap.select()
            imap.ok(imap.client.uid("STORE", "1", "+FLAGS", r"(\Seen)"))
            self.assertEqual([marker.name for marker in self.markers()], [user])
            self.stack.start("lmtp-indexer")
            self.follows(user)
        self.wait_until(lambda: not self.markers())

    def test_killed_while_mailboxes_change(self):
        user = self.new_user()
        self.arrive(user, 20)
        with Imap(self.stack, user) as imap:
            imap.ok(imap.client.create("Archive"))
            imap.select()
            for uid in range(1, 21):
                imap.ok(imap.client.uid("MOVE" if uid % 2 else "COPY", str(uid), "Archive"))
                if uid % 5 == 0:
                    self.stack.kill("lmtp-indexer")
                    self.stack.start("lmtp-indexer")
        self.follows(user)
        event_types(self.stack, user)


class Soak(FollowCase):
    """Random operations; then the index equals the mailbox."""

    BOXES = ("INBOX", "Archive", "Work")

    def move_about(self, user, chance, seconds):
        """Moves mails to and fro; mail arrives and drafts are saved meanwhile."""
        draft = message("a@example.org", user, text="Ein Entwurf.\n")
        end = time.monotonic() + seconds
        source, target = self.BOXES[:2]
        with Imap(self.stack, user) as imap:
            while time.monotonic() < end:
                imap.select(source)
                uids = imap.uids()
                if uids:
                    some = chance.sample(uids, min(len(uids), chance.choice((1, 1, 3))))
                    imap.ok(imap.client.uid("MOVE", b",".join(some).decode(), target))
                if chance.random() < 0.3:
                    imap.ok(imap.client.append("INBOX", None, None, draft))
                if chance.random() < 0.3:
                    self.arrive(user)
                source, target = chance.sample(self.BOXES, 2)
                # What a user does; one who moves a mail without a pause may outrun all looks.
                time.sleep(0.4 + chance.random())

    def test_moves_beside_rebuilds(self):
        """Whenever the mailboxes are looked at, no move is a deletion and a new mail."""
        seed = int(os.environ.get("SOAK_SEED", random.randrange(1 << 30)))
        seconds = int(os.environ.get("SOAK_SECONDS", "10"))
        users, over = [self.new_user() for _ in range(3)], threading.Event()
        for user in users:
            with self.mailbox_of(user) as imap:
                for box in self.BOXES[1:]:
                    imap.ok(imap.client.create(box))
            self.arrive(user, 30)
            self.follows(user)
        before = {user: self.messages(user) for user in users}

        def rebuild():
            rebuilt = 0
            while not over.is_set() or rebuilt < 2:
                self.stack.postern("index", "rebuild", users[rebuilt % len(users)] if rebuilt % 2 else "--all")
                rebuilt += 1
            return rebuilt

        with concurrent.futures.ThreadPoolExecutor(len(users) + 1) as pool:
            rebuilds = pool.submit(rebuild)
            movers = [pool.submit(self.move_about, user, random.Random(seed + at), seconds) for at, user in enumerate(users)]
            try:
                for mover in movers:
                    mover.result()
            finally:
                over.set()
            print(f"seed {seed}: {rebuilds.result()} rebuilds")
        for user in users:
            self.follows(user)
            events = event_types(self.stack, user)
            deleted = {ident for kind, ident in events if kind == "message.deleted"}
            self.assertEqual([e for e in events if e[1] in deleted], [], f"SOAK_SEED={seed}")
            self.assertEqual(self.messages(user)[:len(before[user])], before[user])
            self.assertIn("message.moved", self.types(user))

    def test_random_operations(self):
        seed = int(os.environ.get("SOAK_SEED", random.randrange(1 << 30)))
        count = int(os.environ.get("SOAK_OPERATIONS", "150"))
        chance = random.Random(seed)
        user = self.new_user()
        boxes = ["INBOX"]
        with Imap(self.stack, user) as imap:
            for number in range(count):
                self.operate(imap, user, chance, boxes, number)
        try:
            self.follows(user, 2 * LOADED_S)
        except AssertionError as error:
            raise AssertionError(f"SOAK_SEED={seed}: {error}") from None
        self.assertIn("message.appended", self.types(user))

    def operate(self, imap, user, chance, boxes, number):
        what = chance.choice(["deliver", "append", "append", "flags", "flags", "move", "move", "copy", "expunge", "create", "rename",
                              "delete"])
        box = chance.choice(boxes)
        if what == "deliver":
            self.arrive(user)
        elif what == "append":
            imap.ok(imap.client.append(box, None, None, message("a@example.org", user, subject=f"number {number}")))
        elif what == "create" and len(boxes) < 6:
            boxes.append(f"Box{number}")
            kind, data = imap.client.create(boxes[-1])
            # Dovecot makes a mailbox in steps; who lists the mailboxes in their midst may make the rest of it first.
            self.assertTrue(kind == "OK" or b"[ALREADYEXISTS]" in data[0], data)
        elif what == "rename" and box != "INBOX":
            imap.ok(imap.client.unselect()) if imap.client.state == "SELECTED" else None
            imap.ok(imap.client.rename(box, f"{box}r"))
            boxes[boxes.index(box)] = f"{box}r"
        elif what == "delete" and box != "INBOX":
            imap.ok(imap.client.unselect()) if imap.client.state == "SELECTED" else None
            imap.ok(imap.client.delete(box))
            boxes.remove(box)
        else:
            self.change_mails(imap, chance, boxes, box, what)

    @staticmethod
    def change_mails(imap, chance, boxes, box, what):
        imap.select(box)
        uids = imap.uids()
        if not uids:
            return
        some = b",".join(chance.sample(uids, chance.randint(1, len(uids)))).decode()
        if what == "flags":
            imap.ok(imap.client.uid("STORE", some, chance.choice("+-") + "FLAGS",
                                    chance.choice([r"(\Seen)", r"(\Flagged)", "(work)", r"(\Answered private)"])))
        elif what in ("move", "copy") and len(boxes) > 1:
            imap.ok(imap.client.uid(what.upper(), some, chance.choice([name for name in boxes if name != box])))
        elif what == "expunge":
            imap.expunge([uid.decode() for uid in chance.sample(uids, 1 + len(uids) // 3)])


class Webhooks(FollowCase):
    def test_changes_are_told_in_order(self):
        user = self.new_user()
        self.mailbox_of(user)
        with WebhookReceiver() as hook, self.configured("lmtp-indexer", webhook_url=hook.url), Imap(self.stack, user) as imap:
            imap.select()
            imap.ok(imap.client.uid("STORE", "1", "+FLAGS", r"(\Seen)"))
            self.follows(user)
            imap.expunge(["1"])
            self.wait_until(lambda: any(b"message.deleted" in r.body for r in hook.received))
            told = [payload(r) for r in hook.received]
        self.assertEqual([event["data"]["sequence"] for event in told], sorted(e["data"]["sequence"] for e in told))
        self.assertIn("message.flags", [event["type"] for event in told])
        self.assertEqual(json.dumps(told[0]["data"]["flags"]), json.dumps([r"\Seen"]))


class Sieve(FollowCase):
    """What Sieve does with a delivery."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with_sieve(cls)

    def user_with(self, script):
        user = self.new_user()
        set_script(self.stack, user, script)
        return user

    def test_fileinto(self):
        user = self.user_with('require ["fileinto", "mailbox", "imap4flags"]; addflag "work"; fileinto :create "Lists";\n')
        self.arrive(user)
        self.assertEqual([key[0] for key in self.follows(user)], ["Lists"])
        self.assertEqual(self.messages(user, "m.mailbox_name, m.flags"), [("Lists", "work")])
        self.wait_until(lambda: self.types(user)[-1] == "message.filed")

    def test_fileinto_copy_makes_two_rows(self):
        user = self.user_with('require ["fileinto", "mailbox", "copy"]; fileinto :copy :create "Copies";\n')
        self.arrive(user)
        self.assertEqual(sorted(key[0] for key in self.follows(user)), ["Copies", "INBOX"])
        self.assertEqual(len(self.messages(user)), 2)
        self.assertEqual(self.types(user).count("message.received"), 1)

    def test_discard_is_marked(self):
        user = self.user_with("discard;\n")
        self.arrive(user)
        self.wait_until(lambda: self.messages(user, "m.deleted_reason, m.mailbox_guid") == [("not_stored", "NULL")])
        self.assertEqual(self.types(user), ["message.received", "message.deleted"])
        self.assertEqual(mailbox_view(self.stack, user), {})


class Tools(FollowCase):
    """postern index verify, postern index rebuild."""

    def verify(self, user):
        """[(kind, mailbox, UID)] of the differences."""
        path = self.stack.at.path("/bin/postern")
        done = subprocess.run([path, "-c", self.stack.at.path("/etc/postern/postern.conf"), "--json", "index", "verify", user],
                              capture_output=True, text=True, check=False)
        answer = json.loads(done.stdout)
        self.assertEqual(done.returncode, 0 if answer["ok"] else 1, done.stderr)
        return [(d["kind"], d["mailbox"], d["uid"]) for d in answer["differences"]]

    def spoil(self, user, column, value, uid):
        self.stack.mariadb(f"UPDATE messages m JOIN virtual_users u ON u.id = m.user_id SET m.{column} = {value} "
                           f"WHERE u.email = '{user}' AND m.uid = {uid}")

    def test_differences_are_named_and_mended(self):
        user = self.new_user()
        self.arrive(user, 6)
        with Imap(self.stack, user) as imap:
            imap.ok(imap.client.create("Work"))
            imap.select()
            imap.ok(imap.client.uid("COPY", "6", "Work"))
        self.follows(user)
        self.assertEqual(self.verify(user), [])
        before = self.messages(user, "m.subject, m.delivery_id, m.uid")
        self.stack.mariadb("DELETE m FROM messages m JOIN virtual_users u ON u.id = m.user_id "
                           f"WHERE u.email = '{user}' AND m.uid = 2")
        self.spoil(user, "flags", "'\\\\Seen'", 3)
        self.spoil(user, "mailbox_name", "'Elsewhere'", 4)
        self.spoil(user, "uid", "77", 5)
        self.assertEqual(sorted(self.verify(user)), [
            ("missing", "INBOX", 2), ("wrong_flags", "INBOX", 3), ("wrong_folder", "INBOX", 4), ("wrong_folder", "INBOX", 5)])
        answer = json.loads(self.stack.postern("--json", "index", "rebuild", user))
        self.assertEqual((answer["added"], answer["changed"], answer["compared"], answer["failed"]), (1, 3, 7, 0))
        self.assertEqual(self.verify(user), [])
        self.follows(user)
        self.assertEqual(sorted(self.messages(user, "m.subject, m.delivery_id, m.uid")), sorted(before))

    def test_mail_without_a_row_and_a_row_without_a_mail(self):
        user = self.new_user()
        self.arrive(user, 2)
        self.follows(user)
        self.spoil(user, "mailbox_guid = REPEAT('0', 32), m.mail_guid", "NULL", 2)
        self.assertEqual(sorted(self.verify(user)), [("extra", "INBOX", 2), ("missing", "INBOX", 2)])
        self.stack.postern("index", "rebuild", user)
        self.assertEqual(self.verify(user), [])

    def maildir(self, user):
        box = self.stack.mail_dir(user)
        for folder in (box, box / "cur", box / "new", box / "tmp"):
            folder.mkdir(exist_ok=True)
            os.chown(folder, 5000, 5000)
        return box

    def fill_alike(self, user, count):
        """A mailbox of COUNT times the same mail."""
        box = self.maildir(user)
        first = box / "cur" / "1234567890.M0P1.host:2,S"
        first.write_bytes(message("a@example.org", user, subject="old").replace(b"\r\n", b"\n"))
        os.chown(first, 5000, 5000)
        for number in range(1, count):
            os.link(first, first.with_name(f"1234567890.M{number}P1.host:2,S"))

    def fill(self, user, count):
        """A mailbox of COUNT mails that were there before."""
        box = self.maildir(user)
        old = time.time() - 86400
        for number in range(count):
            path = box / "cur" / f"{int(old)}.M{number}P1.host:2,{'S' if number % 3 else ''}"
            path.write_bytes(message("a@example.org", user, subject=f"old {number}").replace(b"\r\n", b"\n"))
            os.chown(path, 5000, 5000)
        doveadm(self.stack, "mailbox", "status", "-u", user, "messages", "INBOX")

    def rebuild_under_way(self):
        progress = self.control("lmtp-indexer", "index progress")
        return progress if progress["running"] and progress["compared"] > 0 else None

    def test_changes_are_followed_beside_a_rebuild_of_all(self):
        """What is done over IMAP waits for none of the mailboxes that are worked at."""
        # Those of other tests, nearly a thousand in a whole run.
        self.stack.mariadb("UPDATE virtual_users SET enabled = 0 WHERE email LIKE 'u%-%' OR email LIKE 'm%-%'")
        user = self.new_user()
        self.arrive(user)
        with self.mailbox_of(user) as imap:
            imap.ok(imap.client.create("Archive"))
            imap.select()
            self.follows(user)
            for _ in range(OLD_MAILBOXES):
                self.fill_alike(self.new_user(), OLD_MAILS)
            with subprocess.Popen([self.stack.at.path("/bin/postern"), "-c", self.stack.at.path("/etc/postern/postern.conf"),
                                   "index", "rebuild", "--all"], stdout=subprocess.DEVNULL) as rebuild:
                self.wait_until(self.rebuild_under_way, what="the rebuild")
                imap.ok(imap.client.uid("MOVE", "1", "Archive"))
                imap.expunge(["2"])
                before = self.control("lmtp-indexer", "index progress")
                self.wait_until(lambda: self.messages(user, "m.mailbox_name, m.deleted_at IS NULL")
                                == [("Archive", "1"), ("INBOX", "0")],
                                what=lambda: self.messages(user, "m.id, m.mailbox_name, m.uid, m.deleted_reason"))
                after = self.control("lmtp-indexer", "index progress")
                rebuild.wait()
        self.assertTrue(after["running"], "the rebuild was over: nothing is shown")
        self.assertLess(after["compared"] - before["compared"], OLD_MAILBOXES * OLD_MAILS // 4)
        print(f"followed while {after['compared'] - before['compared']} mails of others were compared")

    def test_copy_beside_a_rebuild_of_the_same_user(self):
        """What may be half a move does not wait for the rest of the mailbox."""
        user = self.new_user()
        self.fill_alike(user, ONE_BOX)
        with Imap(self.stack, user) as imap:
            imap.ok(imap.client.create("Copies"))
            imap.select()
            with subprocess.Popen([self.stack.at.path("/bin/postern"), "-c", self.stack.at.path("/etc/postern/postern.conf"),
                                   "index", "rebuild", user], stdout=subprocess.DEVNULL) as rebuild:
                self.wait_until(self.rebuild_under_way, what="the rebuild")
                imap.ok(imap.client.uid("COPY", str(ONE_BOX), "Copies"))
                self.wait_until(lambda: self.value("SELECT COUNT(*) FROM messages m JOIN virtual_users u ON u.id = m.user_id "
                                                   "WHERE u.email = %s AND m.mailbox_name = 'Copies'", user) == "1")
                after = self.control("lmtp-indexer", "index progress")
                rebuild.wait()
        self.assertTrue(after["running"], "the rebuild was over: nothing is shown")
        print(f"followed when {after['compared']} of {ONE_BOX} mails were compared")

    def test_existing_maildir_is_filled_in(self):
        """Mail that was there before the indexer; a kill -9 in the middle; no events."""
        user, count = self.new_user(), int(os.environ.get("REBUILD_MESSAGES", "1500"))
        self.stack.stop("lmtp-indexer")
        self.fill(user, count)
        self.stack.mariadb("UPDATE virtual_users SET created_at = NOW()")
        self.stack.start("lmtp-indexer")
        rows = "SELECT COUNT(*) FROM messages m JOIN virtual_users u ON u.id = m.user_id WHERE u.email = %s"
        self.wait_until(lambda: int(self.value(rows, user)) > 0, 60)
        self.stack.kill("lmtp-indexer")
        self.stack.start("lmtp-indexer")
        answer = json.loads(self.stack.postern("--json", "index", "rebuild", user, timeout=240))
        self.assertEqual((answer["compared"], answer["failed"]), (count, 0))
        self.follows(user)
        self.assertEqual(int(self.value(rows, user)), count)
        self.assertEqual(self.verify(user), [])
        with Imap(self.stack, user):  # a login, so that the usage is counted, too
            used = "SELECT messages FROM mailbox_usage WHERE email = %s"
            self.wait_until(lambda: self.value(used, user) == str(count), what="the usage of what was there before")
        print(f"rebuild: {answer['compared']} compared, {answer['added']} added in {answer['elapsed_ms']} ms")

    def test_nobody_to_rebuild(self):
        with self.assertRaises(StackError):
            self.stack.postern("index", "rebuild", "nobody@example.net")
        with self.assertRaises(StackError):
            self.stack.postern("index", "rebuild")


if __name__ == "__main__":
    unittest.main()
