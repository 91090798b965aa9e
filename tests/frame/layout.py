"""Where a private stack keeps its things.

A stack is one folder that stands for the root of a machine: the shipped files
of deploy/ are used with /etc/..., /run/... and /var/... moved below it, and
with each port moved up by the stack's port base.  So several stacks run beside
each other and nothing outside of the folder is touched.
"""
import os
import pathlib
import re
import socket

REPO = pathlib.Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"

# Names in the unit files and their numbers here: nothing is added to
# /etc/passwd.  Other names (postfix, mysql, ...) come with their packages.
USERS = {
    "vmail": 5000,
    "postern": 5100,
    "milter-dkim": 5101,
    "policyd-ratelimit": 5102,
    "lmtp-indexer": 5103,
    "quotad": 5104,
    "dmarc-report": 5105,
    "dkim-rotate": 5106,
}

# Base + number must stay below 65536, and a folder short enough for the 107
# bytes of a unix socket's path.
PORT_SPAN = 1000
BASES = range(11000, 31001, PORT_SPAN)
ROOT_LENGTH_MAX = 55

PORTS = {
    "smtp": 25,
    "submission": 587,
    "submissions": 465,
    "imap": 143,
    "imaps": 993,
    "pop3": 110,
    "pop3s": 995,
    "lmtp": 24,
    "doveadm": 981,
    "doveadm-server": 982,
    "dns": 53,
    "sql": 306,
}

MOVED = re.compile(
    r"(?<![\w.-])/(?=(?:etc/(?:postern|postfix|dovecot)|run/(?:postern|mysqld|dovecot)"
    r"|var/(?:mail/vhosts|lib/postern|spool/postfix))\b)"
)


def is_free(port):
    with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        try:
            tcp.bind((HOST, port))
            udp.bind((HOST, port))
            return True
        except OSError:
            return False


def free_base():
    """A port base whose ports nobody has, below those that connections get by
    themselves: a part that is started again must find its port free."""
    for offset in range(len(BASES)):
        base = BASES[(os.getpid() + offset) % len(BASES)]
        if all(is_free(base + number) for number in PORTS.values()):
            return base
    raise SystemExit("stack: no free ports")


class Layout:
    """Paths and ports of one stack."""

    def __init__(self, root=None, base=None):
        self.root = str(root or os.environ.get("STACK_DIR", "/srv/postern-stack"))
        self.base = int(base or os.environ.get("STACK_PORT_BASE", "21000"))
        if not self.root.startswith("/srv/") and not self.root.startswith("/tmp/"):
            raise SystemExit("stack: STACK_DIR must be below /srv or /tmp")
        if len(self.root) > ROOT_LENGTH_MAX or not re.fullmatch(r"[\w./-]+", self.root):
            raise SystemExit(f"stack: STACK_DIR must be plain and at most {ROOT_LENGTH_MAX} bytes")
        if not 1024 <= self.base <= 65535 - PORT_SPAN:
            raise SystemExit("stack: STACK_PORT_BASE is out of range")

    def path(self, name):
        """The private place of an absolute path."""
        return pathlib.Path(self.root + name)

    def port(self, name):
        return self.base + PORTS[name]

    def move(self, text):
        """TEXT of a shipped file with its paths moved below the root."""
        return MOVED.sub(self.root + "/", text)

    @property
    def build(self):
        return pathlib.Path(os.environ.get("POSTERN_BUILD", REPO / "build"))
