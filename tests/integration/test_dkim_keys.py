"""Where milter-dkim has its keys from: fifty thousand of them, new ones, lost ones,
broken ones, and the copy on disk."""
import os
import pathlib
import stat
import tempfile
import time
import unittest

from tests.frame.lone_milter import LoneMilter, private_key
from tests.frame.stack import Stack
from tests.frame.wait import cpu_seconds, wait_until

COUNT = int(os.environ.get("DKIM_KEYS", "50000"))
START_S = 3.0  # from exec to the first signed message
CHANGE_S = 5.0
TEXTS = 20  # different keys among them
ROWS_AT_ONCE = 1000
TABLE = "lone_keys"
RSA_8192 = pathlib.Path(__file__).with_name("rsa8192.pem")  # half a minute to make


class KeysCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = Stack()
        cls.stack.start("mysql")
        cls.folder = tempfile.TemporaryDirectory()
        cls.base = pathlib.Path(cls.folder.name)
        cls.text = private_key(cls.base / "one").read_text()
        cls.other = private_key(cls.base / "two").read_text()

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def setUp(self):
        self.sql(f"DROP TABLE IF EXISTS {TABLE}, {TABLE}_counter; CREATE TABLE {TABLE} (domain VARCHAR(255), selector VARCHAR(64), "
                 f"algorithm VARCHAR(32), private_key TEXT, n INT NOT NULL AUTO_INCREMENT PRIMARY KEY); "
                 f"CREATE TABLE {TABLE}_counter (value INT); INSERT INTO {TABLE}_counter VALUES (1)")
        self.addCleanup(self.sql, f"DROP TABLE IF EXISTS {TABLE}, {TABLE}_counter")

    def sql(self, script):
        return self.stack.mariadb(script)

    def change(self, script):
        """The statements as one change that daemons see."""
        self.sql(f"BEGIN; {script}; UPDATE {TABLE}_counter SET value = value + 1; COMMIT")

    def insert(self, *rows):
        for i in range(0, len(rows), ROWS_AT_ONCE):
            values = ",".join(f"('{d}','{s}','rsa-sha256','{t}')" for d, s, t in rows[i:i + ROWS_AT_ONCE])
            self.change(f"INSERT INTO {TABLE} (domain, selector, algorithm, private_key) VALUES {values}")

    def milter(self, **more):
        return LoneMilter(**{
            "database_user": "root", "database_socket": self.stack.mysql_socket, "database_name": "postern",
            "dkim_keys_query": f"SELECT domain, selector, algorithm, private_key FROM {TABLE} ORDER BY n DESC",
            "dkim_keys_version_query": f"SELECT value FROM {TABLE}_counter", **more})

    def assert_within(self, seconds, since, what):
        self.assertLess(time.monotonic() - since, seconds, what)

    @staticmethod
    def saved(milter):
        path = milter.state / "dkim-keys"
        wait_until(path.exists, what="the copy on disk")
        return path


class Scale(KeysCase):
    def texts(self):
        return [private_key(self.base / f"p{i}").read_text() for i in range(TEXTS)]

    def first_signature(self, milter):
        milter.start()
        self.assertEqual(milter.wait_signed(b"a@d%d.example" % (COUNT - 1))[0]["d"], f"d{COUNT - 1}.example")
        # On a busy machine the daemon has waited for its turn; that is not its work.
        if time.monotonic() - milter.started >= START_S:
            self.assertLess(cpu_seconds(milter.process.pid), START_S, milter.text()[-500:])

    def test_files(self):
        texts, keys = self.texts(), self.base / "keys"
        keys.mkdir()
        for i in range(COUNT):
            (keys / f"{i}.pem").write_text(texts[i % TEXTS])
        (self.base / "KeyTable").write_text("".join(f"k{i} d{i}.example:mail:{keys}/{i}.pem\n" for i in range(COUNT)))
        (self.base / "SigningTable").write_text("".join(f"*@d{i}.example k{i}\n" for i in range(COUNT)))
        milter = LoneMilter(key_table=f"{self.base}/KeyTable", signing_table=f"refile:{self.base}/SigningTable")
        self.addCleanup(milter.__exit__)
        self.first_signature(milter)
        self.assertLess(milter.rss_mb(), 80)

    def test_sql_and_disk(self):
        texts = self.texts()
        self.insert(*((f"d{i}.example", "mail", texts[i % TEXTS]) for i in range(COUNT)))
        milter = self.milter()
        self.addCleanup(milter.__exit__)
        self.first_signature(milter)
        self.assertLess(milter.rss_mb(), 120)
        self.saved(milter)
        since = time.monotonic()
        self.insert(("new.example", "mail", texts[0]))
        milter.wait_signed(b"a@new.example")
        self.assert_within(CHANGE_S, since, "a new key among many")
        milter.stop()
        milter.configure(database_socket="/nonexistent")
        self.first_signature(milter)

    def test_parsed_keys_are_bounded(self):
        """Three thousand domains that sign take no more memory than one thousand."""
        texts = self.texts()
        self.insert(*((f"d{i}.example", "mail", texts[i % TEXTS]) for i in range(3000)))
        with self.milter() as milter:
            sizes = []
            for start in (0, 1000, 2000):
                for i in range(start, start + 1000):
                    milter.wait_signed(b"a@d%d.example" % i)
                sizes.append(milter.rss_mb())
            self.assertLess(sizes[2] - sizes[0], 5, sizes)


class Changes(KeysCase):
    def test_new_deleted_and_exchanged(self):
        self.insert(("one.example", "a", self.text))
        with self.milter() as milter:
            self.assertEqual(milter.wait_signed(b"a@one.example")[0]["s"], "a")
            self.assertEqual(milter.sign(b"a@two.example"), [])
            since = time.monotonic()
            self.insert(("two.example", "b", self.text), ("one.example", "c", self.other))
            self.assertEqual(milter.wait_signed(b"a@two.example")[0]["s"], "b")
            self.assert_within(CHANGE_S, since, "new")
            self.assertEqual(milter.sign(b"a@one.example")[0]["s"], "c")
            since = time.monotonic()
            self.change(f"DELETE FROM {TABLE}")
            wait_until(lambda: milter.sign(b"a@two.example") == [], what="deleted")
            self.assert_within(CHANGE_S, since, "deleted")

    def test_sizes(self):
        for bits in (512, 1024, 3072, 4096):
            text = private_key(self.base / f"k{bits}", "-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{bits}").read_text()
            self.insert((f"b{bits}.example", "s", text))
        self.insert(("b8192.example", "s", RSA_8192.read_text()))
        with self.milter() as milter:
            for bits in (1024, 3072, 4096, 8192):
                signature = milter.wait_signed(b"a@b%d.example" % bits)[0]
                self.assertEqual(len(signature["b"]), (bits // 8 + 2) // 3 * 4)
            self.assertIsNone(milter.sign(b"a@b512.example"))
            self.assertIn("RSA of less than 1024", milter.text())


class LastGoodSet(KeysCase):
    def dead(self, milter):
        """Starts once more, without the database."""
        milter.stop()
        milter.configure(database_socket="/nonexistent")
        milter.start()

    def test_restart_without_database(self):
        self.insert(("one.example", "a", self.text))
        with self.milter() as milter:
            milter.wait_signed(b"a@one.example")
            path = self.saved(milter)
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
            self.dead(milter)
            self.assertEqual(milter.sign(b"a@one.example")[0]["s"], "a")
            self.assertEqual(milter.sign(b"a@two.example"), [])

    def test_a_left_over_file_does_not_open_the_copy_to_others(self):
        self.insert(("one.example", "a", self.text))
        milter = self.milter()
        self.addCleanup(milter.__exit__)
        left = milter.state / "dkim-keys.new"
        left.write_text("x")
        left.chmod(0o666)
        milter.start()
        milter.wait_signed(b"a@one.example")
        self.assertEqual(stat.S_IMODE(self.saved(milter).stat().st_mode), 0o600)
        wait_until(lambda: not left.exists(), what="renamed")

    def test_damaged_copy_is_refused_and_told(self):
        self.insert(("one.example", "a", self.text))
        with self.milter() as milter:
            milter.wait_signed(b"a@one.example")
            path = self.saved(milter)
            good = path.read_bytes()
            for bad in (b"", good[:-1], good[:len(good) // 2], good[:100] + bytes([good[100] ^ 1]) + good[101:], b"\0" * 5000, good + good):
                milter.stop()
                path.write_bytes(bad)
                before = len(milter.text())
                milter.configure(database_socket="/nonexistent")
                milter.start()
                self.assertIsNone(milter.sign(b"a@one.example"), "deferred, never unsigned")
                self.assertIn("damaged", milter.text()[before:])
            # The database mends it.
            milter.stop()
            milter.configure(database_socket=self.stack.mysql_socket)
            milter.start()
            milter.wait_signed(b"a@one.example")
            wait_until(lambda: path.read_bytes() == good, what="mended")

    def test_rows_that_are_cut_off(self):
        self.insert(("one.example", "a", self.text), ("two.example", "a", self.text[:500]))
        with self.milter() as milter:
            milter.wait_signed(b"a@one.example")
            self.assertIsNone(milter.sign(b"a@two.example"))
            for bad in (self.text[:900], "", "garbage"):
                before = len(milter.text())
                self.change(f"UPDATE {TABLE} SET private_key = '{bad}' WHERE domain = 'one.example'")
                wait_until(lambda: "used on" in milter.text()[before:], what="told")
                self.assertEqual(milter.sign(b"a@one.example")[0]["s"], "a")
            self.change(f"UPDATE {TABLE} SET private_key = '{self.other}' WHERE domain = 'two.example'")
            milter.wait_signed(b"a@two.example")
            # Also over a restart, with the bad row still there.
            milter.stop()
            milter.start()
            self.assertEqual(milter.wait_signed(b"a@one.example")[0]["s"], "a")

    def test_table_that_is_empty_for_a_moment(self):
        self.insert(("one.example", "a", self.text))
        with self.milter(dkim_keys_poll="100ms") as milter:
            milter.wait_signed(b"a@one.example")
            for i in range(3):
                self.change(f"DELETE FROM {TABLE}")
                until = time.monotonic() + 0.4
                while time.monotonic() < until:
                    self.assertEqual(milter.sign(b"a@one.example")[0]["s"], "a")
                self.insert(("one.example", "a", self.text), (f"seen{i}.example", "a", self.text))
                milter.wait_signed(b"a@seen%d.example" % i)
                self.assertEqual(milter.sign(b"a@one.example")[0]["s"], "a")


if __name__ == "__main__":
    unittest.main()
