"""The shipped files by themselves: units, users, samples, the wiring."""
import fnmatch
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from tests.frame.layout import REPO, USERS, Layout
from tests.frame.stack import DAEMONS
from tests.frame.supervise import read_unit, setting, settings

DEPLOY = REPO / "deploy"
UNITS = DEPLOY / "systemd"
EXPOSURE_TENTHS = 15


def run(*argv, **more):
    return subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False, **more)


class Units(unittest.TestCase):
    """systemd units and sockets."""

    def test_verify_prints_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            for path in UNITS.iterdir():
                text = re.sub(r"^ExecStart=/usr/bin/", f"ExecStart={Layout().build}/bin/", path.read_text(), flags=re.M)
                (pathlib.Path(folder) / path.name).write_text(text)
            done = run("systemd-analyze", "verify", *pathlib.Path(folder).iterdir(),
                       env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{folder}:/lib/systemd/system"})
        self.assertEqual((done.stdout + done.stderr, done.returncode), ("", 0))

    def test_exposure(self):
        for name in DAEMONS:
            with self.subTest(name):
                done = run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_TENTHS}",
                           UNITS / f"{name}.service")
                self.assertEqual(done.returncode, 0, done.stdout[-300:])

    def test_each_daemon_has_unit_socket_and_sample(self):
        for name in DAEMONS:
            with self.subTest(name):
                service = read_unit(UNITS / f"{name}.service")["Service"]
                self.assertEqual(setting(service, "Type"), "notify")
                self.assertIn(setting(service, "User"), USERS)
                socket = read_unit(UNITS / f"{name}.socket")["Socket"]
                self.assertEqual(setting(socket, "FileDescriptorName"), "listen")
                self.assertTrue((DEPLOY / f"conf/{name}.conf").exists())

    def test_samples_are_accepted(self):
        for name in DAEMONS:
            with self.subTest(name):
                done = run(Layout().build / "bin" / name, "-t", "-c", DEPLOY / f"conf/{name}.conf")
                self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_bad_addresses_are_told_with_their_line(self):
        for line in ("backend = junk", "mailbox_api = junk", "webhook_url = ftp://host/", "trace_header = a b",
                     "listen = junk"):
            with self.subTest(line), tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
                file.write(f"# comment\n{line}\n")
                file.flush()
                done = run(Layout().build / "bin/lmtp-indexer", "-t", "-c", file.name)
                self.assertEqual(done.returncode, 78)
                self.assertTrue(done.stderr.startswith(f"{file.name}:2: {line.split()[0]}: "), done.stderr)

    def test_users_of_units_are_made(self):
        done = run("systemd-sysusers", "--dry-run", DEPLOY / "sysusers.d/postern.conf")
        self.assertEqual(done.returncode, 0, done.stderr)
        for name in USERS:
            self.assertRegex(done.stdout + done.stderr, rf"Creating (user|group) '?{name}'?")

    def test_no_folder_is_everybodys(self):
        for line in (DEPLOY / "tmpfiles.d/postern.conf").read_text().splitlines():
            if not line.startswith("#"):
                self.assertEqual(int(line.split()[2], 8) & 0o002, 0, line)

    def test_parsers_may_confine_themselves(self):
        """A call that the unit denies would end each parser at its start."""
        allowed = " ".join(settings(read_unit(UNITS / "lmtp-indexer.service")["Service"], "SystemCallFilter")).split()
        source = (REPO / "lmtp-indexer/parser_confine.c").read_text()
        self.assertLessEqual(set(re.findall(r"SYS_(landlock_\w+)", source)), set(allowed))


class Packages(unittest.TestCase):
    """debian/: everything that is built or shipped is in one package, with what it needs."""

    DEBIAN = REPO / "debian"

    def paragraphs(self):
        """The control file as {name of the package: {field: value}}."""
        found = {}
        for block in (self.DEBIAN / "control").read_text().split("\n\n"):
            fields = dict(re.findall(r"^(\S+):[ \n]*((?:.*\n?)(?:^[ \t].*\n?)*)", block, re.M))
            found[fields.get("Package", "source").strip()] = fields
        return found

    def installed(self):
        """Package -> the patterns of its NAME.install, as paths below the root."""
        return {path.stem: [line.replace("${env:UNITS}", "lib/systemd/system") for line in path.read_text().split()]
                for path in self.DEBIAN.glob("*.install")}

    def owners(self, path):
        return [name for name, patterns in self.installed().items()
                if any(fnmatch.fnmatch(path, pattern) for pattern in patterns)]

    def test_every_file_is_in_one_package(self):
        names = run("make", "-s", "-C", REPO, "-f", "Makefile", "-f", "-", "names",
                    input="names:\n\t@echo $(BINS)\n\t@echo $(PLUGINS)\n").stdout.splitlines()
        programs, plugins = names[-2].split(), names[-1].split()
        self.assertIn("quotad", programs)
        self.assertIn("lib11_quota_usage_plugin", plugins)
        paths = [f"usr/bin/{name}" for name in programs]
        paths += [f"etc/postern/{path.name}" for path in (DEPLOY / "conf").iterdir()]
        paths += [f"lib/systemd/system/{path.name}" for path in UNITS.iterdir()]
        paths += [f"usr/share/man/man8/{name}.8" for name in programs]
        for path in paths:
            self.assertEqual(len(self.owners(path)), 1, path)
        for name in plugins:
            self.assertEqual(self.owners(f"usr/lib/dovecot/modules/{name}.so"), ["dovecot-postern"])
        for name in DAEMONS:
            self.assertEqual({*self.owners(f"usr/bin/{name}"), *self.owners(f"lib/systemd/system/{name}.socket")},
                             {f"postern-{name}"})

    def test_dependencies(self):
        packages = self.paragraphs()
        self.assertEqual({name for name in packages if name != "source"}, set(self.installed()))
        # Dovecot loads no plug-in of another ABI; the value is that of dovecot-dev.
        self.assertIn("${dovecot:ABI}", packages["dovecot-postern"]["Depends"])
        rules = (self.DEBIAN / "rules").read_text()
        self.assertIn("-Vdovecot:ABI=dovecot-abi-$$(cat /usr/share/dovecot/dovecot-abi)", rules)
        for name in DAEMONS:
            self.assertIn("postern (= ${binary:Version})", packages[f"postern-{name}"]["Depends"])
        build = re.search(r"^# build\n(.*?)\n\n", (REPO / "tools/deps.txt").read_text(), re.M | re.S)[1].split()
        wanted = set(re.findall(r"[\w.+-]+(?= *(?:\(|,|$))", packages["source"]["Build-Depends"], re.M))
        self.assertEqual(set(build) - wanted, {"build-essential"})

    def test_one_version(self):
        version = re.search(r"^VERSION\s*\?= (\S+)", (REPO / "config.mk").read_text(), re.M)[1]
        self.assertTrue((self.DEBIAN / "changelog").read_text().startswith(f"postern ({version}) "))


class Wiring(unittest.TestCase):
    """deploy/postfix/wire puts everything back."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        (self.folder / "main.cf").write_text("myhostname = old.example.org\nmessage_size_limit = 1000\n")
        shutil.copy("/usr/share/postfix/master.cf.dist", self.folder / "master.cf")

    def wire(self, command):
        return run(DEPLOY / "postfix/wire", command, env={"PATH": "/usr/sbin:/usr/bin:/bin", "MAIL_CONFIG": str(self.folder)})

    def state(self):
        env = {"PATH": "/usr/sbin:/usr/bin:/bin", "MAIL_CONFIG": str(self.folder)}
        return run("postconf", "-n", env=env).stdout, run("postconf", "-M", env=env).stdout

    def test_apply_and_undo(self):
        before = self.state()
        self.assertEqual(self.wire("apply").returncode, 0)
        after = self.state()
        self.assertIn("myhostname = mail.example.com", after[0])
        self.assertIn("default_action=tempfail", after[0])
        self.assertIn("submissions inet", after[1])
        self.assertEqual(self.wire("undo").returncode, 0)
        self.assertEqual(self.state(), before)

    def test_second_apply_is_refused(self):
        self.wire("apply")
        self.assertNotEqual(self.wire("apply").returncode, 0)

    def test_no_unknown_parameter(self):
        self.wire("apply")
        env = {"PATH": "/usr/sbin:/usr/bin:/bin", "MAIL_CONFIG": str(self.folder)}
        self.assertNotIn("unused parameter", run("postconf", "-n", env=env).stderr)


class Deps(unittest.TestCase):
    """tools/deps, with an apt-get that only tells."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.list = self.folder / "list"
        self.list.write_text("# comment\n\nbase-files\nno-such-package-anywhere\n")
        self.policy = pathlib.Path("/usr/sbin/policy-rc.d")
        apt = self.folder / "apt-get"
        apt.write_text(f'#!/bin/sh\necho "$@" >> {self.folder}/calls\ncat {self.policy} > {self.folder}/policy\n'
                       "exit $APT_STATUS\n")
        apt.chmod(0o755)

    def deps(self, command, status=0):
        return run(REPO / "tools/deps", command, self.list,
                   env={"PATH": f"{self.folder}:/usr/sbin:/usr/bin:/sbin:/bin", "APT_STATUS": str(status)})

    def test_check_names_what_is_missing(self):
        done = self.deps("check")
        self.assertEqual(done.returncode, 1)
        self.assertIn("\nno-such-package-anywhere\n", done.stderr)
        self.assertNotIn("base-files", done.stderr)

    def test_install_forbids_starts_meanwhile_and_puts_back(self):
        before = self.policy.read_text() if self.policy.exists() else None
        for status in (0, 1):
            with self.subTest(status=status):
                self.assertEqual(self.deps("install", status).returncode, status)
                self.assertIn("exit 101", (self.folder / "policy").read_text())
                self.assertEqual(self.policy.read_text() if self.policy.exists() else None, before)
        calls = (self.folder / "calls").read_text().splitlines()
        self.assertEqual(calls[0], "update -q")
        self.assertTrue(calls[1].endswith(" no-such-package-anywhere"))
        self.assertNotIn("base-files", calls[1])

    def test_nothing_to_do(self):
        self.list.write_text("base-files\n")
        self.assertEqual(self.deps("install").returncode, 0)
        self.assertFalse((self.folder / "calls").exists())


class Prometheus(unittest.TestCase):
    """The alert rules speak of metrics that exist."""

    def test_metrics_exist(self):
        known = set()
        for path in REPO.glob("**/*.def"):
            for match in re.finditer(r'METRIC\(\s*\w+,\s*(\w+),\s*"(\w+)",\s*(".*?"),\s*"(\w*)"', path.read_text()):
                kind, family, _, unit = match.groups()
                family += f"_{unit}" if unit else ""
                known |= {family, f"{family}_total", f"{family}_bucket", f"{family}_count", f"{family}_sum"}
        used = set(re.findall(r"\b(?:postern|quotad)_\w+", (DEPLOY / "prometheus/postern.rules.yml").read_text()))
        self.assertTrue(used)
        self.assertEqual(used - known, set())


if __name__ == "__main__":
    unittest.main()
