"""milter-dkim's options: a bad value is told with its place before anything starts, and a
change that has to wait for a restart is told, too."""
import pathlib
import socket
import struct
import subprocess
import tempfile
import unittest

from tests.frame.layout import Layout
from tests.frame.lone_milter import LoneMilter
from tests.frame.milter import ACTIONS, STEPS, TIMEOUT_S, VERSION, packet, read_packet

HOSTS_FILE_MAX = 4 << 20
SIG_NAMES_MAX = 256


class Places(unittest.TestCase):
    BAD = (
        ("listen", "unix:/a,inet:127.0.0.1"), ("listen", "inet:8891@localhost"),
        ("authserv_id", "a.example, b.example"), ("authserv_id", "$myhostname"), ("authserv_id", "a b"),
        ("sign_headers", "To:Subject"), ("key_table", "/x"), ("signing_table", "/x"),
        ("internal_hosts", "10.0.0.0/33"), ("internal_hosts", "10.0.0"), ("trusted_forwarders", "192.0.2.1-192.0.2.9"),
        ("arc_trusted_sealers", "192.0.2.1"), ("arc_seal", "yes"), ("arc_domain", "nobody"), ("arc_selector", "a b"),
        ("arc_key_file", "/x"), ("resolver", "127.0.0.1, ns.example"), ("resolver", "127.0.0.1:0"),
        ("internal_hosts", "/nonexistent/hosts"), ("trusted_forwarders", "file:/nonexistent/hosts"),
        ("arc_trusted_sealers", "/"), ("resolver", "[::1]:65536"), ("resolver_trusted", "ns.example"), ("dns_timeout", "99ms"), ("role", "both"),
    )

    def check(self, text):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "conf"
            path.write_text(text)
            done = subprocess.run([Layout().build / "bin/milter-dkim", "-c", path, "-t"], capture_output=True, text=True,
                                  check=False, timeout=60)
            return done.returncode, done.stderr.replace(str(path), "FILE")

    def test_bad_values(self):
        for name, value in self.BAD:
            with self.subTest(name=name, value=value):
                code, text = self.check(f"# one\n\n{name} = {value}\n")
                self.assertEqual(code, 78)
                self.assertTrue(text.startswith("FILE:3: "), text)
                self.assertIn(name, text)
                self.assertEqual(text.count("\n"), 1)

    def test_files_that_cannot_be_read(self):
        """Told where the option stands, before a start that would fail."""
        with tempfile.TemporaryDirectory() as folder:
            good = pathlib.Path(folder) / "good"
            good.write_text("k d.example:s:/k\n")
            for keys, signing, line in (("/nonexistent/keys", good, 1), (good, "refile:/nonexistent/signing", 2),
                                        (f"file:{folder}", good, 1), (good, folder, 2)):
                with self.subTest(keys=keys, signing=signing):
                    code, text = self.check(f"key_table = {keys}\nsigning_table = {signing}\n")
                    self.assertEqual(code, 78)
                    self.assertRegex(text, rf"^FILE:{line}: {('key', 'signing')[line - 1]}_table: /")
            self.assertEqual(self.check(f"key_table = {good}\nsigning_table = {good}\n"), (0, ""))
            hosts = pathlib.Path(folder) / "hosts"
            for text, wanted in (("10.0.0.0/99\n192.0.2.1\n", 0), ("!10.0.0.0/99\n", 78)):
                hosts.write_text(text)
                self.assertEqual(self.check(f"internal_hosts = {hosts}\n")[0], wanted)

    def test_size_of_a_hosts_file(self):
        with tempfile.TemporaryDirectory() as folder:
            hosts = pathlib.Path(folder) / "hosts"
            for size, wanted in ((HOSTS_FILE_MAX, 0), (HOSTS_FILE_MAX + 1, 78)):
                hosts.write_text("192.0.2.1\n#".ljust(size, "x"))
                code, text = self.check(f"internal_hosts = {hosts}\n")
                self.assertEqual((code, text.count("FILE:1: internal_hosts: ")), (wanted, wanted // 78))

    def test_a_file_without_an_end(self):
        """Nor does a reload read it for ever."""
        self.assertEqual(self.check("internal_hosts = /dev/zero\n"),
                         (78, "FILE:1: internal_hosts: /dev/zero: limit reached\n"))

    def test_names_to_be_signed(self):
        """One more than a signature may name would defer each message of ours."""
        for count, wanted in ((SIG_NAMES_MAX, 0), (SIG_NAMES_MAX + 1, 78)):
            names = ":".join(["From"] + ["To"] * (count - 1))
            code, text = self.check(f"sign_headers = {names}\n")
            self.assertEqual((code, text.count("FILE:1: sign_headers: ")), (wanted, wanted // 78))

    def test_good_values(self):
        for line in ("authserv_id = mx", "authserv_id = mx_1.example.com", "authserv_id = bücher.example", "listen = unix:/a, inet:127.0.0.1:8891, inet6:[::1]:8891", "resolver = 127.0.0.1, [::1]:53, ::1, 192.0.2.1:5353", "resolver_trusted = 192.0.2.0/24, ::1",
                     "internal_hosts = 192.0.2.1, 10.0.0.0/8, !10.1.0.0/16, .example.com, *.example.org, 2001:db8::/32"):
            self.assertEqual(self.check(line + "\n"), (0, ""))


class Sockets(unittest.TestCase):
    def test_each_is_served(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with LoneMilter() as milter:
            milter.stop()
            milter.options["listen"] += f", inet:127.0.0.1:{port}"
            milter.start()
            self.assertEqual(milter.sign(b"a@example.com"), [])
            with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as client, client.makefile("rb") as stream:
                client.sendall(packet(b"O", struct.pack(">III", VERSION, ACTIONS, STEPS)))
                self.assertEqual(read_packet(stream)[0], b"O")


class Restart(unittest.TestCase):
    def test_fixed_options_are_told(self):
        with LoneMilter() as milter:
            milter.reload(packet_timeout="30s", dns_timeout="4s")
            self.assertRegex(milter.text(), "restart_needed .*=packet_timeout")
            self.assertNotIn("dns_timeout", milter.text())
