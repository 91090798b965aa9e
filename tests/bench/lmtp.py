"""Load on LMTP servers, and the section of the quota drivers.

10 KB messages over 8 connections.  Each Dovecot variant is an instance of its own
that differs in its quota settings only, with mailboxes of its own that begin
empty.
"""
import json
import re
import subprocess

from tests.bench.measure import ROUNDS, Sample, cpu_seconds, ratio, scaled, table
from tests.frame.layout import HOST
from tests.frame.mail import message
from tests.frame.stack import USERS, run

CONNECTIONS = 8
MESSAGES = 2000
USER_COUNT = 20
SIZE = 10240
DOMAIN = "example.net"
FIRST_PORT = 700


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

    @property
    def p99_ms(self):
        return sorted(self.p99)[len(self.p99) // 2]


OWN_INSTANCE = """
base_dir = {base}/run
state_dir = {base}/state
instance_name = {base}
log_path = {base}/dovecot.log
protocols = lmtp
mail_home = {base}/mail/%d/%n
service lmtp {{
  inet_listener lmtp {{
    port = {port}
  }}
}}
service doveadm {{
  inet_listener http {{
    port = 0
  }}
}}
service auth {{
  unix_listener {old_auth} {{
    mode = 0
  }}
}}
{more}
"""

NO_QUOTA = "mail_plugins ="
USAGE = "mail_plugins = quota quota_usage"
COUNT = """
mail_plugins = quota
plugin {
  quota = count:User quota
  quota_vsizes = yes
}
"""
DICT = """
mail_plugins = quota
plugin {{
  quota = dict:User quota::proxy::sqlquota
}}
dict {{
  sqlquota = mysql:{base}/dict.conf
}}
service dict {{
  unix_listener dict {{
    mode = 0666
  }}
}}
"""
CLONE = DICT.replace("mail_plugins = quota", "mail_plugins = quota quota_clone").replace(
    "  quota = dict:User quota::proxy::sqlquota\n",
    "  quota = count:User quota\n  quota_vsizes = yes\n  quota_clone_dict = proxy::sqlquota\n")
DICT_SQL = """
connect = host={socket} dbname=bench user=bench password=bench
map {{
  pattern = priv/quota/storage
  table = quota
  username_field = username
  value_field = bytes
}}
map {{
  pattern = priv/quota/messages
  table = quota
  username_field = username
  value_field = messages
}}
"""


class Quota(Lmtp):
    """Delivery without quotas, with ours, and with Dovecot's own drivers."""

    def instance(self, number, name, more):
        base = self.folder / f"dovecot-{number}"
        for path in (base, base / "mail"):
            path.mkdir(exist_ok=True)
        (base / "mail").chmod(0o777)
        base.chmod(0o755)
        port = self.stack.at.base + FIRST_PORT + number
        shipped = "\n".join(path.read_text() for path in sorted(self.stack.at.path("/etc/dovecot/conf.d").glob("*.conf")))
        shipped = re.sub(r"\bport = \d+", "port = 0", shipped)  # those of the stack listen already
        top = re.sub(r"^!include.*$", "", self.stack.dovecot_conf.read_text(), flags=re.M)
        own = OWN_INSTANCE.format(base=base, port=port, old_auth=self.stack.at.path("/var/spool/postfix/private/auth"), more=more)
        (base / "dict.conf").write_text(DICT_SQL.format(socket=self.stack.mysql_socket))
        (base / "dict.conf").chmod(0o644)
        (base / "dovecot.conf").write_text(f"{top}\n{shipped}\n{own}")
        run(["dovecot", "-c", base / "dovecot.conf"])
        return base, f"{HOST}:{port}"

    def measure(self):
        self.add_users()
        self.stack.mariadb(
            "CREATE DATABASE IF NOT EXISTS bench; CREATE OR REPLACE TABLE bench.quota (username VARCHAR(255) PRIMARY KEY, "
            "bytes BIGINT NOT NULL DEFAULT 0, messages BIGINT NOT NULL DEFAULT 0); CREATE OR REPLACE USER bench@localhost "
            "IDENTIFIED BY 'bench'; GRANT ALL ON bench.* TO bench@localhost")
        kinds = [("no quota", NO_QUOTA), ("quota-usage + quotad", USAGE), ("count", COUNT),
                 ("dict:sql", DICT.format(base=self.folder / "dovecot-3")),
                 ("count + quota_clone", CLONE.format(base=self.folder / "dovecot-4"))]
        started, variants = [], []
        try:
            for number, (name, more) in enumerate(kinds):
                base, target = self.instance(number, name, more)
                started.append(base)
                for users in (1, USER_COUNT):
                    pid = self.stack.pid("quotad") if number == 1 else None
                    variants.append(Variant(f"{name}, {users} user{'s' if users > 1 else ''}", target, users, pid))
            for variant in variants:
                variant.run(self, 100, keep=False)
            for _ in range(ROUNDS):
                for variant in variants:
                    variant.run(self, scaled(MESSAGES))
        finally:
            for base in started:
                run(["doveadm", "-c", base / "dovecot.conf", "stop"])
        rows = [[v.name, f"{v.sample.rate:.0f}", v.sample.spread(), ratio(v.sample.rate, variants[n % 2].sample.rate),
                 f"{v.p99_ms:.1f}", f"{v.sample.cpu_ms:.2f}" if v.sample.cpu_ms else None]
                for n, v in enumerate(variants)]
        table(f"Delivery and quota drivers, 10 KB, {CONNECTIONS} sessions, median of {ROUNDS}",
              ["variant", "messages/s", "spread", "x no quota", "p99 ms", "quotad CPU ms/message"], rows)
