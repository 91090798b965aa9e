"""Load on LMTP servers: 10 KB messages over 8 connections."""
import json
import subprocess

from tests.bench.measure import Sample, cpu_seconds
from tests.frame.mail import message
from tests.frame.stack import USERS

CONNECTIONS = 8
MESSAGES = 2000
USER_COUNT = 20
SIZE = 10240
DOMAIN = "example.net"


class Lmtp:
    """What both sections share: users, the message, one run of the load."""

    def __init__(self, stack, folder):
        self.stack, self.folder = stack, folder
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        self.mail = folder / "10k.eml"
        text = "".join(f"Line {n} of a message that a person might have written.\n" for n in range(1000))
        head = message("load@example.org", f"u1@{DOMAIN}", "benchmark", "")
        self.mail.write_bytes(head + text[:SIZE - len(head)].encode() + b"\n")

    def add_users(self, domain=DOMAIN):
        """u1 to uN, with the password of another user: bcrypt takes its time."""
        values = ", ".join(f"('u{n}@{domain}')" for n in range(1, USER_COUNT + 1))
        self.stack.mariadb(
            "CREATE TEMPORARY TABLE names (email VARCHAR(255)); INSERT INTO names VALUES " + values + ";"
            "INSERT IGNORE INTO virtual_users (domain_id, email, password, quota_mb) SELECT d.id, n.email, u.password, 10240 "
            f"FROM names n JOIN virtual_domains d ON d.name = '{domain}' JOIN virtual_users u ON u.email = '{USERS[0]}'")

    def load(self, target, users, count, domain=DOMAIN):
        # Mail that does not come from the indexer would be followed, and so be indexed after all.
        session = ["01ARZ3NDEKTSV4RRFFQ69G5FAV"] if ":" in str(target) else []
        done = subprocess.run(
            [self.stack.at.build / "helpers/lmtp_load", str(target), str(CONNECTIONS), str(count), str(users), domain, self.mail,
             *session],
            capture_output=True, text=True, check=False, timeout=600)
        if done.returncode != 0:
            raise RuntimeError(f"lmtp_load {target}: {done.stdout} {done.stderr}")
        return json.loads(done.stdout)


class Variant:
    """What is measured of one way of delivering; PID is a process whose time is told."""

    def __init__(self, name, target, users, pid=None, domain=DOMAIN):
        self.name, self.target, self.users, self.pid, self.domain = name, target, users, pid, domain
        self.sample, self.p99 = Sample(), []

    def run(self, section, count, keep=True):
        before = cpu_seconds(self.pid) if self.pid else 0
        result = section.load(self.target, self.users, count, self.domain)
        cpu = cpu_seconds(self.pid) - before if self.pid else None
        if keep:
            self.sample.add(count, result["seconds"], cpu)
            self.p99.append(result["p99_ms"])
        return result["seconds"]

    @property
    def p99_ms(self):
        return sorted(self.p99)[len(self.p99) // 2]
