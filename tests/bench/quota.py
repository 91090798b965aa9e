"""The section of the quota drivers: delivery without quotas, with ours, and with Dovecot's own.

Each is an instance of Dovecot of its own that differs in its quota settings only.  Ours and
each of Dovecot's is set against the one without quotas in short turns, into mailboxes that
begin empty and grow alike on both sides.
"""
import re

from tests.bench.lmtp import CONNECTIONS, USER_COUNT, Lmtp, Variant
from tests.bench.measure import ROUNDS, SCALE, Duel, Sample, cpu_seconds, table
from tests.frame.assemble import dovecot_is_24
from tests.frame.layout import HOST
from tests.frame.stack import run
from tests.frame.wait import wait_until

FIRST_PORT = 700
TURN = 100  # messages
BLOCKS = 8  # of four turns, for each round
OURS = "quota-usage + quotad"
OUR_BLOCKS = 24  # it is the one with a bar
WARM_UP = 100

OWN_INSTANCE = """
base_dir = {base}/run
state_dir = {base}/state
instance_name = {base}
log_path = {base}/dovecot.log
protocols = lmtp
mail_home = {base}/mail/{home}
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
HOME = "%d/%n"
HOME_24 = "%{user | domain}/%{user | username}"

NO_QUOTA = "mail_plugins ="
USAGE = "mail_plugins = quota quota_usage"
COUNT = """
mail_plugins = quota
plugin {
  quota = count:User quota
  quota_vsizes = yes
}
"""
COUNT_24 = """
mail_plugins = quota
quota "User quota" {
  driver = count
  # Without a limit 2.4 counts nothing.
  storage_size = 10G
}
"""
# Dovecot 2.4 has no quotas in a dict any more.
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


class Contest:
    """One driver against none; what it costs in CPU is Dovecot's time, quotad's and the database's."""

    def __init__(self, kind, base, other, pids):
        self.base, self.other, self.pids = base, other, pids
        self.blocks = max(2, round(ROUNDS * SCALE * (OUR_BLOCKS if kind == OURS else BLOCKS)))
        self.duel = Duel(base, other)
        self.cpus = {base: Sample(), other: Sample()}

    def run(self, section):
        for way in (self.base, self.other):
            way.run(section, WARM_UP, keep=False)

        def turn(way):
            before = sum(map(cpu_seconds, self.pids))
            seconds = way.run(section, TURN)
            self.cpus[way].add(TURN, seconds, sum(map(cpu_seconds, self.pids)) - before)
            return seconds

        for _ in range(self.blocks):
            self.duel.block(turn)

    def row(self):
        other, base, duel = self.other, self.base, self.duel
        return [other.name, f"{other.sample.rate:.0f}", f"{base.sample.rate:.0f}", f"{duel.ratio:.2f}", duel.spread(),
                4 * len(duel.ratios), f"{other.p99_ms:.1f}", f"{base.p99_ms:.1f}",
                f"{self.cpus[other].cpu_ms:.2f}", f"{self.cpus[base].cpu_ms:.2f}",
                f"{other.sample.cpu_ms:.2f}" if other.sample.cpu_ms else None]


class Quota(Lmtp):
    """Every driver against none, in turn."""

    def instance(self, number, more):
        base = self.folder / f"dovecot-{number}"
        for path in (base, base / "mail"):
            path.mkdir(exist_ok=True)
        (base / "mail").chmod(0o777)
        base.chmod(0o755)
        port = self.stack.at.base + FIRST_PORT + number
        shipped = "\n".join(path.read_text() for path in sorted(self.stack.at.path("/etc/dovecot/conf.d").glob("*.conf")))
        shipped = re.sub(r"\bport = \d+", "port = 0", shipped)  # those of the stack listen already
        top = re.sub(r"^!include.*$", "", self.stack.dovecot_conf.read_text(), flags=re.M)
        own = OWN_INSTANCE.format(base=base, port=port, old_auth=self.stack.at.path("/var/spool/postfix/private/auth"), more=more,
                                  home=HOME_24 if dovecot_is_24() else HOME)
        (base / "dict.conf").write_text(DICT_SQL.format(socket=self.stack.mysql_socket))
        (base / "dict.conf").chmod(0o644)
        (base / "dovecot.conf").write_text(f"{top}\n{shipped}\n{own}")
        run(["dovecot", "-c", base / "dovecot.conf"])
        pid_file = base / "run/master.pid"
        master = wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), 20, f"Dovecot {number} ready")
        return base, f"{HOST}:{port}", int(master)

    def kinds(self):
        """(name, what is configured), the one without quotas first."""
        ours = [("no quota", NO_QUOTA), (OURS, USAGE)]
        if dovecot_is_24():
            return [*ours, ("count", COUNT_24)]
        return [*ours, ("count", COUNT), ("dict:sql", DICT.format(base=self.folder / "dovecot-3")),
                ("count + quota_clone", CLONE.format(base=self.folder / "dovecot-4"))]

    def contests(self, names, targets, masters):
        """Each has a domain to itself, so that no mailbox of the one without quotas is in two of them."""
        found = []
        for number, name in enumerate(names[1:], 1):
            for users in (1, USER_COUNT):
                domain = f"bench{number}-{users}.example.net"
                self.stack.mariadb(f"INSERT INTO virtual_domains (name) VALUES ('{domain}')")
                self.add_users(domain)
                quotad = self.stack.pid("quotad") if name == OURS else None
                ways = (Variant(f"{names[n]}, {users} user{'s' if users > 1 else ''}", targets[n], users, quotad if n else None,
                                domain) for n in (0, number))
                pids = [masters[0], masters[number], self.stack.pid("quotad"), self.stack.pid("mysql")]
                found.append(Contest(name, *ways, pids))
        return found

    def measure(self):
        self.stack.mariadb(
            "CREATE DATABASE IF NOT EXISTS bench; CREATE OR REPLACE TABLE bench.quota (username VARCHAR(255) PRIMARY KEY, "
            "bytes BIGINT NOT NULL DEFAULT 0, messages BIGINT NOT NULL DEFAULT 0); CREATE OR REPLACE USER bench@localhost "
            "IDENTIFIED BY 'bench'; GRANT ALL ON bench.* TO bench@localhost")
        kinds = self.kinds()
        started, targets, masters = [], [], []
        try:
            for number, (_, more) in enumerate(kinds):
                base, target, master = self.instance(number, more)
                started.append(base)
                targets.append(target)
                masters.append(master)
            contests = self.contests([name for name, _ in kinds], targets, masters)
            for contest in contests:
                contest.run(self)
        finally:
            for base in started:
                run(["doveadm", "-c", base / "dovecot.conf", "stop"])
        table(f"Delivery and quota drivers, 10 KB, {CONNECTIONS} sessions, {TURN} messages a turn",
              ["variant", "messages/s", "no quota beside it", "x no quota", "middle half", "turns", "p99 ms", "beside it",
               "CPU ms/message", "beside it", "quotad's"],
              [contest.row() for contest in contests])
