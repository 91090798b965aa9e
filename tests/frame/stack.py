"""A private mail stack: MariaDB, unbound, Dovecot, Postfix and our daemons.

Everything lives in one folder and listens on loopback (see layout.py).  Our
daemons run from the unit files of deploy/ (see supervise.py), Postfix and
Dovecot from the shipped files of deploy/ below a few lines that a machine of
its own would get from its packages.
"""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

from tests.frame import assemble
from tests.frame.layout import HOST, REPO, Layout
from tests.frame.layout import USERS as USER_IDS
from tests.frame.wait import cpu_seconds, wait_until

DAEMONS = ("quotad", "milter-dkim", "policyd-ratelimit", "lmtp-indexer")
# In the order of starting.
PARTS = ("mysql", "dns", "quotad", "dovecot", "milter-dkim", "policyd-ratelimit", "lmtp-indexer", "postfix")
DATABASE = "postern"
DOMAINS = ("example.com", "example.net")
USERS = ("sales@example.com", "office@example.net")
PASSWORD = "secret"
START_S = 120


class StackError(Exception):
    """The stack could not do what was asked; the text says why."""


def run(argv, input_text="", timeout=120):
    """Runs ARGV to its end; returns stdout.  Output goes through files, because
    a program that leaves a daemon behind would keep a pipe open."""
    argv = [str(a) for a in argv]
    with tempfile.TemporaryFile("w+") as source, tempfile.TemporaryFile("w+") as out, \
            tempfile.TemporaryFile("w+") as err:
        source.write(input_text)
        source.seek(0)
        done = subprocess.run(argv, stdin=source, stdout=out, stderr=err, check=False, timeout=timeout)
        out.seek(0)
        err.seek(0)
        if done.returncode != 0:
            raise StackError(f"{' '.join(argv)} ended with {done.returncode}: {err.read() or out.read()}")
        return out.read()


def alive(pid):
    """Whether PID runs (a zombie does not)."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def read_pid(path):
    try:
        return int(pathlib.Path(path).read_text().split()[0])
    except (FileNotFoundError, IndexError, ValueError):
        return None


class Stack:
    """One stack; the methods are what tests/stack/stack offers."""

    sql_settings = None  # a file for MariaDB; without one it is small

    def __init__(self, layout=None):
        self.at = layout or Layout()

    # ---------------------------------------------------------------- parts

    def pid(self, part):
        """The process of PART, None where it does not run."""
        where = {
            "mysql": "/run/mysqld/mysqld.pid",
            "dns": "/run/unbound.pid",
            "dovecot": "/run/dovecot/master.pid",
            "postfix": "/var/spool/postfix/pid/master.pid",
        }.get(part, f"/run/units/{part}.pid")
        pid = read_pid(self.at.path(where))
        return pid if pid and alive(pid) else None

    def supervisor(self, part):
        pid = read_pid(self.at.path(f"/run/units/{part}.supervisor"))
        return pid if pid and alive(pid) else None

    def log_file(self, part):
        return self.at.path("/log") / f"{part}.log"

    def start(self, *parts):
        if not self.at.path("/etc/postern").is_dir():
            raise StackError(f"{self.at.root} is not initialised")
        for part in parts or PARTS:
            self.check_part(part)
            if not self.pid(part):
                getattr(self, "start_" + part, lambda part=part: self.start_daemon(part))()

    def stop(self, *parts):
        for part in reversed(parts or PARTS):
            self.check_part(part)
            getattr(self, "stop_" + part, lambda part=part: self.stop_daemon(part))()

    def restart(self, *parts):
        self.stop(*parts)
        self.start(*parts)

    def kill(self, part, number=signal.SIGKILL):
        """Sends a signal to PART itself; returns the pid that got it."""
        self.check_part(part)
        pid = self.pid(part)
        if not pid:
            raise StackError(f"{part} does not run")
        os.kill(pid, number)
        if number == signal.SIGKILL:  # who asks for the next life must not see this one
            wait_until(lambda: not alive(pid), what=f"end of {part}")
        return pid

    def limit(self, part, what, value):
        """Sets the soft limit WHAT (as prlimit calls it) of a running daemon.  As its
        own user: a container's root may not do it."""
        pid = self.pid(part)
        done = subprocess.run(["prlimit", f"--pid={pid}", f"--{what}={value}:"], user=USER_IDS[part],
                              group=USER_IDS[part], extra_groups=[], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StackError(f"prlimit: {done.stderr}")

    def children(self, part, name):
        """The processes called NAME that PART has started itself."""
        pid = self.pid(part)
        try:
            pids = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            return {child for child in pids if pathlib.Path(f"/proc/{child}/comm").read_text() == f"{name}\n"}
        except (FileNotFoundError, ProcessLookupError):  # one of them has just gone
            return self.children(part, name) if self.pid(part) else set()

    def cpu_seconds(self, part):
        """The CPU time that a running daemon has used."""
        return cpu_seconds(self.pid(part))

    def reload(self, part):
        """Afterwards every new session has the new settings; no SMTP session may be open."""
        if part == "postfix":
            before = self.children(part, "smtpd")
            self.reload_postfix()
            wait_until(lambda: not before & self.children(part, "smtpd"), START_S, "the end of the old smtpd processes")
        elif part == "dovecot":
            run(["doveadm", "-c", self.dovecot_conf, "reload"])
        else:
            self.kill(part, signal.SIGHUP)

    def reload_postfix(self):
        run(["postfix", "-c", self.at.path("/etc/postfix"), "reload"])

    def status(self):
        return {part: self.pid(part) for part in PARTS}

    @staticmethod
    def check_part(part):
        if part not in PARTS:
            raise StackError(f"no part {part}: one of {' '.join(PARTS)}")

    def wait(self, part, condition):
        try:
            wait_until(condition, START_S, f"{part} ready")
        except AssertionError as error:
            raise StackError(f"{error}\n{self.log_tail(part)}") from None

    def log_tail(self, part, lines=30):
        path = self.log_file(part)
        text = path.read_text(errors="replace") if path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def background(self, part, argv):
        """Starts a process that outlives us, with its output in the log."""
        with open(self.log_file(part), "ab") as log:
            return subprocess.Popen(
                [str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, cwd=REPO, env=os.environ | {"PYTHONPATH": str(REPO)},
            )

    def start_daemon(self, part):
        if self.supervisor(part):  # between a crash and the next life
            self.wait(part, lambda: self.pid(part))
            return
        process = self.background(
            part, [sys.executable, "-m", "tests.frame.supervise", self.at.root, self.at.base, part]
        )
        self.at.path(f"/run/units/{part}.supervisor").write_text(f"{process.pid}\n")
        self.wait(part, lambda: self.pid(part) or process.poll() is not None)
        if process.poll() is not None:
            raise StackError(f"{part} did not start:\n{self.log_tail(part)}")

    def stop_daemon(self, part):
        self.end(self.supervisor(part), signal.SIGTERM)

    @staticmethod
    def end(pid, number, timeout=100):
        if not pid:
            return
        os.kill(pid, number)

        def gone():
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass
            return not alive(pid)

        wait_until(gone, timeout, f"end of process {pid}")

    def start_mysql(self):
        data = self.at.path("/var/lib/mysql")
        self.background("mysql", [
            "mariadbd", f"--defaults-file={self.sql_settings}" if self.sql_settings else "--no-defaults", "--user=mysql", f"--datadir={data}",
            f"--socket={self.mysql_socket}", f"--port={self.at.port('sql')}", f"--bind-address={HOST}",
            f"--pid-file={self.at.path('/run/mysqld/mysqld.pid')}", "--skip-name-resolve",
            # Of its own: a server that starts removes what others have left in theirs.
            f"--tmpdir={self.at.path('/var/lib/mysql-tmp')}",
            "--character-set-server=utf8mb4",
            *(() if self.sql_settings else ("--innodb-buffer-pool-size=64M", "--innodb-log-file-size=48M")),
        ])
        self.wait("mysql", lambda: self.pid("mysql") and self.answers(["mariadb-admin", "--no-defaults", "-uroot", "-S", self.mysql_socket, "ping"]))
        if self.pid("postfix"):
            # Postfix 3.7 leaves a database alone for 60 s after a failure.
            self.reload_postfix()

    def stop_mysql(self):
        self.end(self.pid("mysql"), signal.SIGTERM)

    @staticmethod
    def answers(argv):
        return subprocess.run([str(a) for a in argv], capture_output=True, check=False).returncode == 0

    def start_dns(self):
        run(["unbound", "-c", self.unbound_conf])
        self.wait("dns", lambda: self.pid("dns"))

    def stop_dns(self):
        self.end(self.pid("dns"), signal.SIGTERM)

    def start_dovecot(self):
        run(["dovecot", "-c", self.dovecot_conf])
        self.wait("dovecot", lambda: self.pid("dovecot") and self.listens("lmtp") and self.listens("imap"))

    def stop_dovecot(self):
        self.end(self.pid("dovecot"), signal.SIGTERM)

    def start_postfix(self):
        run(["postfix", "-c", self.at.path("/etc/postfix"), "start"])
        self.wait("postfix", lambda: self.listens("smtp"))

    def stop_postfix(self):
        if self.pid("postfix"):
            run(["postfix", "-c", self.at.path("/etc/postfix"), "stop"])

    def listens(self, port):
        try:
            socket.create_connection((HOST, self.at.port(port)), 1).close()
            return True
        except OSError:
            return False

    @property
    def mysql_socket(self):
        return self.at.path("/run/mysqld/mysqld.sock")

    @property
    def dovecot_conf(self):
        return self.at.path("/etc/dovecot/dovecot.conf")

    @property
    def unbound_conf(self):
        return self.at.path("/etc/unbound.conf")

    # ------------------------------------------------------- init, destroy

    def init(self):
        if os.geteuid() != 0:
            raise StackError("root is needed: the parts run as users of their own")
        missing = [n for n in (*DAEMONS, "postern") if not (self.at.build / "bin" / n).exists()]
        if missing:
            raise StackError(f"not built: {' '.join(missing)} (make all)")
        root = pathlib.Path(self.at.root)
        if root.exists():
            if any(self.status().values()):
                raise StackError(f"{root} runs; stop it first")
            if any(root.iterdir()) and not (root / ".postern-stack").exists():
                raise StackError(f"{root} is not a stack; I will not empty it")
            shutil.rmtree(root)
        root.mkdir(parents=True)
        (root / ".postern-stack").touch()  # destroy() removes nothing without it
        assemble.directories(self.at)
        assemble.files(self.at)
        run([
            "mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={self.at.path('/var/lib/mysql')}",
            f"--tmpdir={self.at.path('/run/mysqld')}",
            "--skip-test-db", "--auth-root-authentication-method=socket",
        ])
        self.start("mysql")
        try:
            self.init_database()
            secrets = assemble.passwords(self.at)
            assemble.postfix(self.at, secrets)
            assemble.dovecot(self.at, secrets)
            for domain in DOMAINS:
                self.add_domain(domain)
            for user in USERS:
                self.add_user(user)
        finally:
            self.stop("mysql")

    def init_database(self):
        self.mariadb(f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4", database=None)
        self.postern("sql", "migrate")
        self.postern("sql", "accounts", "--password-dir", str(self.at.path("/etc/postern/passwords")))

    def destroy(self):
        if not (pathlib.Path(self.at.root) / ".postern-stack").exists():
            return
        for part in reversed(PARTS):
            try:
                self.stop(part)
            except (StackError, AssertionError, OSError):
                self.kill_hard(part)
        shutil.rmtree(self.at.root)

    def kill_hard(self, part):
        for pid in (self.supervisor(part), self.pid(part)):
            if pid:
                os.kill(pid, signal.SIGKILL)

    # ------------------------------------------------------------- contents

    def mariadb(self, script, database=DATABASE):
        """Runs SQL as the server's root; returns the client's batch output."""
        return run(
            ["mariadb", "--no-defaults", "-uroot", "-S", self.mysql_socket, "--batch", "--skip-column-names",
             "--default-character-set=utf8mb4", "--local-infile=1",
             *(["-D", database] if database else [])], input_text=script,
        )

    def postern(self, *words, **more):
        """The administrator's command, on this stack."""
        return run([self.at.path("/bin/postern"), "-c", self.at.path("/etc/postern/postern.conf"), *words], **more)

    def add_domain(self, domain):
        """Adds a domain whose mail is signed, with its key in DNS."""
        self.postern("domain", "add", domain)
        key = json.loads(self.postern("--json", "dkim", "keygen", domain, "--activate"))
        self.dns_add_text(key["record_name"], key["record_value"])

    def add_user(self, address, password=PASSWORD, quota_mb=1024):
        self.postern("user", "add", address, "--quota", str(quota_mb), input_text=password + "\n")

    def dns_add(self, record):
        """Adds a record in zone file syntax, at once and for later starts."""
        with open(self.at.path("/etc/unbound-records.conf"), "a", encoding="utf-8") as records:
            records.write(f"local-data: '{record}'\n")
        if self.pid("dns"):
            run(["unbound-control", "-c", self.unbound_conf, "local_data", record])

    def dns_add_text(self, name, text):
        """Adds a TXT record, cut into strings of at most 255 bytes."""
        strings = " ".join(f'"{text[i:i + 255]}"' for i in range(0, len(text), 255))
        self.dns_add(f"{name.rstrip('.')}. IN TXT {strings}")

    def dns_remove(self, name):
        """Removes all records of NAME."""
        path = self.at.path("/etc/unbound-records.conf")
        wanted = name.rstrip(".").lower()
        kept = [line for line in path.read_text().splitlines(True)
                if line.partition("'")[2].split()[0].rstrip(".").lower() != wanted]
        path.write_text("".join(kept))
        if self.pid("dns"):
            run(["unbound-control", "-c", self.unbound_conf, "local_data_remove", name])

    def configure(self, daemon, **values):
        """Sets options in a daemon's file; takes effect at its next reload."""
        path = self.at.path(f"/etc/postern/{daemon}.conf")
        path.write_text(assemble.set_options(path.read_text(), values))

    def postconf(self, *settings):
        run(["postconf", "-c", self.at.path("/etc/postfix"), "-e", *settings])

    def postconf_value(self, name):
        return run(["postconf", "-c", self.at.path("/etc/postfix"), "-h", name]).strip()

    def queue(self):
        """The ids of the messages in Postfix's queue."""
        listing = run(["postqueue", "-c", self.at.path("/etc/postfix"), "-j"])
        return [line for line in listing.splitlines() if line]

    def flush(self):
        run(["postqueue", "-c", self.at.path("/etc/postfix"), "-f"])

    def remove_held(self, sender):
        """Removes what waits on hold for SENDER from the queue; how many there were."""
        held = [row["queue_id"] for row in map(json.loads, self.queue())
                if row["queue_name"] == "hold" and row["sender"] == sender]
        for queue_id in held:
            run(["postsuper", "-c", self.at.path("/etc/postfix"), "-d", queue_id])
        return len(held)

    def doveadm(self, *words):
        return run(["doveadm", "-c", self.dovecot_conf, *words])

    def mail_dir(self, address):
        local, _, domain = address.partition("@")
        return self.at.path(f"/var/mail/vhosts/{domain}/{local}")

    def wait_queue_empty(self, timeout=120):
        """Flushes until nothing is left.  A message that moves between two
        directories of the queue can escape one look, hence two."""

        def empty():
            if not self.queue() and not self.queue():
                return True
            with contextlib.suppress(StackError):  # the queue manager is not up again yet
                self.flush()
            return False

        try:
            wait_until(empty, timeout, "queue of Postfix empty", interval=0.3)
        except AssertionError as error:
            raise AssertionError(f"{error}\n" + "\n".join(self.queue()[:5])) from None
