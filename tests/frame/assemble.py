"""Makes the files of a private stack out of the shipped ones."""
import base64
import grp
import pathlib
import pwd
import re
import secrets
import shutil
import subprocess

from tests.frame.layout import HOST, REPO, USERS

DEPLOY = REPO / "deploy"
MODULES = pathlib.Path("/usr/lib/dovecot/modules")

# What a machine of its own has from its packages.
MAIN_CF_BASE = """\
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
queue_directory = {root}/var/spool/postfix
data_directory = {root}/var/lib/postfix
mail_owner = postfix
setgid_group = postdrop
maillog_file = {root}/log/postfix.log
maillog_file_prefixes = {root}/log
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtp_bind_address = 127.0.0.1
alias_maps =
alias_database =
biff = no
"""

# Set over the shipped ones: a machine without a network has no names to look
# up, and nothing may leave it.
MAIN_CF_PRIVATE = (
    "smtpd_peername_lookup = no",
    "disable_dns_lookups = yes",
    "default_transport = discard:",
    "relay_transport = discard:",
    "minimal_backoff_time = 1s",
    "maximal_backoff_time = 2s",
    "queue_run_delay = 1s",
)

DOVECOT_24 = """\
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
"""

DOVECOT_BASE = """\
base_dir = {root}/run/dovecot
state_dir = {root}/var/lib/dovecot
instance_name = {root}
log_path = {root}/log/dovecot.log
log_timestamp = "%Y-%m-%d %H:%M:%S.%{{usecs}} "
listen = 127.0.0.1
mail_plugin_dir = {root}/lib/dovecot
default_vsz_limit = 512M
!include_try conf.d/*.conf
"""

UNBOUND = """\
server:
  interface: {host}@{dns}
  port: {dns}
  do-ip6: no
  chroot: ""
  username: ""
  directory: "{root}"
  pidfile: "{root}/run/unbound.pid"
  logfile: "{root}/log/dns.log"
  use-syslog: no
  access-control: 127.0.0.0/8 allow
  module-config: "iterator"
  local-zone: "." static
  include: "{root}/etc/unbound-records.conf"
remote-control:
  control-enable: yes
  control-interface: {root}/run/unbound.control
  control-use-cert: no
"""

# Clients "from outside" come from these addresses of the loopback network,
# which is not in mynetworks except for 127.0.0.1.
RECORDS = [
    f"{name}. IN {record}"
    for domain in ("example.com", "example.net")
    for name, record in (
        (domain, f"MX 10 mail.{domain}."),
        (f"mail.{domain}", "A 127.0.0.1"),
        (domain, 'TXT "v=spf1 ip4:127.0.0.0/25 -all"'),
        (f"_dmarc.{domain}", 'TXT "v=DMARC1; p=none"'),
    )
]

TRAP = re.compile(r"^(?P<key>[\w]+)[ \t]*=.*\n(?:[ \t]+\S.*\n)*", re.M)


def set_options(text, values):
    """TEXT of a config file with the keys of VALUES set, each exactly once;
    a list of values makes as many lines."""
    if text and not text.endswith("\n"):
        text += "\n"
    text = TRAP.sub(lambda match: "" if match["key"] in values else match[0], text)
    for key, value in values.items():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            text += f"{key} = {item}\n"
    return text


def owned(path, user="root", group="root", mode=0o755):
    uid = USERS[user] if user in USERS else pwd.getpwnam(user).pw_uid
    gid = USERS[group] if group in USERS else grp.getgrnam(group).gr_gid
    shutil.chown(path, uid, gid)
    path.chmod(mode)


def write(path, text, **rights):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    owned(path, **({"mode": 0o644} | rights))


def directories(at):
    """The tree; what tmpfiles.d makes on a machine is made from that file."""
    for name in ("", "/log", "/etc", "/run", "/run/units", "/run/dovecot", "/lib", "/var", "/var/lib", "/var/spool",
                 "/var/mail", "/var/spool/postfix", "/etc/postfix/postern", "/etc/dovecot/conf.d", "/etc/postern/tls",
                 "/etc/systemd"):
        path = at.path(name)
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755)
    for name in ("/var/lib/mysql", "/var/lib/mysql-tmp", "/run/mysqld"):
        at.path(name).mkdir()
        owned(at.path(name), "mysql", "mysql")
    for name, mode in (("/var/lib/postfix", 0o755), ("/var/spool/postfix/private", 0o700)):
        at.path(name).mkdir()
        owned(at.path(name), "postfix", mode=mode)
    for line in (DEPLOY / "tmpfiles.d/postern.conf").read_text().splitlines():
        if not line.startswith("d"):
            continue
        _, path, mode, user, group = line.split()[:5]
        path = pathlib.Path(at.move(path))
        path.mkdir(parents=True, exist_ok=True)
        owned(path, user, group, int(mode, 8))


def files(at):
    """All that needs no password of the database."""
    certificate(at)
    programs(at)
    units(at)
    configs(at)
    write(at.path("/etc/unbound.conf"), UNBOUND.format(root=at.root, host=HOST, dns=at.port("dns")))
    write(at.path("/etc/unbound-records.conf"), "".join(f"local-data: '{record}'\n" for record in RECORDS))


def certificate(at):
    tls = at.path("/etc/postern/tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
         "-subj", "/CN=mail.example.com", "-addext", f"subjectAltName=DNS:mail.example.com,DNS:localhost,IP:{HOST}",
         "-keyout", tls / "privkey.pem", "-out", tls / "fullchain.pem"],
        check=True, capture_output=True,
    )
    (tls / "privkey.pem").chmod(0o600)


def programs(at):
    """Copies what was built: it may stand in a folder that the daemons' users
    cannot enter, and may change while the stack runs."""
    shutil.copytree(at.build / "bin", at.path("/bin"))
    shutil.copytree(REPO / "sql", at.path("/sql"))


def units(at):
    """The unit files, with the copied programs."""
    for path in (DEPLOY / "systemd").iterdir():
        text = re.sub(r"^(ExecStart=)/usr/bin/", rf"\1{at.root}/bin/", at.move(path.read_text()), flags=re.M)
        write(at.path("/etc/systemd") / path.name, text)


def configs(at):
    for path in (DEPLOY / "conf").glob("*.conf"):
        values = {
            "runtime_dir": at.path("/run/postern"),
            "database_socket": at.path("/run/mysqld/mysqld.sock"),
        }
        if path.stem == "postern":
            values["sql_dir"] = at.path("/sql")
            values["mailbox_server"] = f"inet:{HOST}:{at.port('doveadm-server')}"
        else:
            if path.stem in ("milter-dkim", "policyd-ratelimit"):
                values["resolver"] = f"{HOST}:{at.port('dns')}"
            values["state_dir"] = at.path(f"/var/lib/postern/{path.stem}")
        values |= {
            "quotad": {"recount_socket": at.path("/run/dovecot/postern-recount"),
                       "marker_dir": at.path("/run/postern/quota-dirty")},
            # The large senders of the shipped file are not in the stack's DNS.
            "policyd-ratelimit": {"allow": ""},
            "lmtp-indexer": {
                "backend": f"inet:{HOST}:{at.port('lmtp')}",
                "mailbox_api": f"http://{HOST}:{at.port('doveadm')}/doveadm/v1",
                "mailbox_server": f"inet:{HOST}:{at.port('doveadm-server')}",
                "hints_marker_dir": at.path("/run/postern/index-dirty"),
                "authserv_id": "mail.example.com",
            },
        }.get(path.stem, {})
        text = set_options(at.move(path.read_text()), values)
        write(at.path("/etc/postern") / path.name, text, group="postern", mode=0o640)


def passwords(at):
    """Makes the secrets that are not the database's, and gives each file to
    its reader: `postern sql accounts` knows users by name, here they are only
    numbers.  Returns all by name."""
    folder = at.path("/etc/postern/passwords")
    for name in ("doveadm", "webhook"):
        secret = base64.b64encode(secrets.token_bytes(24)).decode()
        (folder / name).write_text(("whsec_" if name == "webhook" else "") + secret + "\n")
    readers = {"doveadm": "lmtp-indexer", "webhook": "lmtp-indexer"}
    for path in folder.iterdir():
        reader = readers.get(path.name, path.name)
        owned(path, reader if reader in USERS else "root", mode=0o400)
    return {path.name: path.read_text().strip() for path in folder.iterdir()}


def fill(text, secret):
    return text.replace("@MAILUSER_PASSWORD@", secret["mailuser"]).replace("@DOVEADM_API_KEY@", secret["doveadm"])


def postfix(at, secret):
    config = at.path("/etc/postfix")
    write(config / "main.cf", MAIN_CF_BASE.format(root=at.root))
    shutil.copy("/usr/share/postfix/master.cf.dist", config / "master.cf")
    for path in (DEPLOY / "postfix/maps").iterdir():
        text = fill(at.move(path.read_text()), secret)
        write(config / "postern" / path.name, text, group="postfix", mode=0o640)
    shipped = at.path("/etc/wire")
    write(shipped / "main.cf", at.move((DEPLOY / "postfix/main.cf").read_text()))
    ports = re.compile(r"^(smtp|submission|submissions)(?=\s+inet)", re.M)
    text = ports.sub(lambda match: f"{HOST}:{at.port(match[0])}", (DEPLOY / "postfix/master.cf").read_text())
    write(shipped / "master.cf", text)
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "MAIL_CONFIG": str(config), "WIRE_FROM": str(shipped)}
    subprocess.run([DEPLOY / "postfix/wire", "apply"], env=env, check=True, capture_output=True, text=True)
    subprocess.run(["postconf", "-MX", "smtp/inet"], env=env, check=True)
    subprocess.run(["postconf", "-e", *MAIN_CF_PRIVATE], env=env, check=True)


def dovecot_is_24():
    """Whether this machine's Dovecot has the configuration of 2.4; else it is 2.3."""
    version = subprocess.run(["dovecot", "--version"], check=True, capture_output=True, text=True).stdout
    return version.startswith("2.4.")


def dovecot(at, secret):
    config = at.path("/etc/dovecot")
    new = dovecot_is_24()
    write(config / "dovecot.conf", (DOVECOT_24 if new else "") + DOVECOT_BASE.format(root=at.root))
    for path in (DEPLOY / "dovecot" / ("2.4" if new else "")).glob("9*.conf"):
        text = fill(at.move(path.read_text()), secret)
        text = re.sub(r"\bport = (\d+)", lambda match: f"port = {at.base + int(match[1])}", text)
        # Dovecot wants users with a name, and ours are only numbers here.
        text = text.replace("user = quotad\n    mode = 0600", "mode = 0666")
        write(config / "conf.d" / path.name, text, mode=0o600)
    if not new:
        text = fill(at.move((DEPLOY / "dovecot/postern-sql.conf").read_text()), secret)
        write(config / "postern-sql.conf", text, mode=0o600)
    modules = at.path("/lib/dovecot")
    # One folder of plug-ins is all that Dovecot takes: the stock ones and ours.
    modules.mkdir()
    for path in MODULES.iterdir():
        (modules / path.name).symlink_to(path)
    for path in (at.build / "lib").glob("lib[0-9]*_plugin.so"):
        (modules / path.name).unlink(missing_ok=True)
        shutil.copy(path, modules)
