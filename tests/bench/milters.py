"""Postfix to discard: no milter, an empty one, milter-dkim, opendkim.

One Postfix has a port for each variant, so that nothing but the milter differs.
The rounds go over all variants in turn, so that a drift of the machine's speed
meets all of them.
"""
import subprocess

from tests.bench.measure import ROUNDS, Sample, Server, cpu_seconds, memory_mb, ratio, scaled, table, timed
from tests.frame.layout import HOST
from tests.frame.mail import message
from tests.frame.stack import run
from tests.frame.wait import wait_until

SESSIONS = 10
MESSAGES = 1500
SIZE = 4096
FIRST_PORT = 600
OPENDKIM_DNS = "127.0.0.53"  # opendkim asks port 53 only

OPENDKIM = """\
Mode {mode}
Socket local:{socket}
Domain bench.example
Selector bench
KeyFile {key}
Canonicalization relaxed/relaxed
SignatureAlgorithm rsa-sha256
Nameservers {dns}
InternalHosts {internal}
ExternalIgnoreList {internal}
RequireSafeKeys no
Background no
Syslog no
UMask 000
PidFile {pid}
AuthservID bench.example.com
"""


# A domain that does it right.  The SOA allows resolvers to keep what is not there.
DOMAIN = "bench.example"
SENDER = f"sales@{DOMAIN}"
HELO = f"mail.{DOMAIN}"
SPF = "v=spf1 ip4:127.0.0.0/8 ip4:192.0.2.0/24 -all"
ZONE = {
    ".": "IN SOA ns.invalid. hostmaster.invalid. 1 3600 600 86400 3600",
    DOMAIN: f'3600 IN TXT "{SPF}"',
    HELO: f'3600 IN TXT "{SPF}"',
    f"_dmarc.{DOMAIN}": f'3600 IN TXT "v=DMARC1; p=reject; rua=mailto:dmarc@{DOMAIN}"',
}


class Variant:
    def __init__(self, name, socket=None, argv=None, message_file=None, env=None):
        self.name, self.socket, self.argv, self.message_file = name, socket, argv, message_file
        self.env = env
        self.server = None
        self.sample = Sample()
        self.memory = 0.0


class Milters:
    """The section; `folder` holds its keys, sockets and messages."""

    def __init__(self, stack, folder):
        self.stack, self.folder = stack, folder
        self.folder.mkdir(exist_ok=True)
        self.folder.chmod(0o755)
        self.key = folder / "bench.pem"
        self.plain, self.signed = folder / "plain.eml", folder / "signed.eml"

    def prepare(self):
        run(["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", self.key])
        self.key.chmod(0o600)
        public = run(["openssl", "pkey", "-in", self.key, "-pubout"]).splitlines()
        key = "".join(line for line in public if not line.startswith("-"))
        record = f"v=DKIM1; k=rsa; p={key}"
        strings = " ".join(f'"{record[i:i + 255]}"' for i in range(0, len(record), 255))
        for name, record in (ZONE | {f"bench._domainkey.{DOMAIN}": f"3600 IN TXT {strings}"}).items():
            self.stack.dns_remove(name)
            self.stack.dns_add(f"{name.rstrip('.')}. {record}")
        # smtp-source sends the file as it is and wants LF.
        text = "".join(f"This is line {n} of the body of a message.\n" for n in range(1000))
        head = message(SENDER, "to@sink.example", "benchmark", "").replace(b"\r\n", b"\n")
        body = text[:SIZE - len(head)].rsplit("\n", 1)[0] + "\n"
        self.plain.write_bytes(head.rstrip(b"\n") + b"\n\n" + body.encode())
        signer = [self.stack.at.path("/bin/postern"), "dkim", "sign", "--domain", DOMAIN, "--selector", "bench",
                  "--key", self.key]
        done = subprocess.run([str(a) for a in signer], input=self.plain.read_bytes(), capture_output=True, check=True)
        self.signed.write_bytes(done.stdout.replace(b"\r\n", b"\n"))

    def opendkim(self, mode):
        base = self.folder / f"opendkim-{mode}"
        nobody = self.folder / "nobody"
        nobody.write_text("192.0.2.1\n")
        everybody = self.folder / "everybody"
        everybody.write_text("127.0.0.0/8\n")
        base.with_suffix(".conf").write_text(OPENDKIM.format(
            mode=mode, socket=base.with_suffix(".sock"), key=self.key, dns=OPENDKIM_DNS,
            internal=everybody if mode == "s" else nobody, pid=base.with_suffix(".pid")))
        return base.with_suffix(".sock"), ["opendkim", "-f", "-x", base.with_suffix(".conf")]

    def postern(self, role):
        base = self.folder / f"milter-{role}"
        (self.folder / "KeyTable").write_text(f"bench {DOMAIN}:bench:{self.key}\n")
        (self.folder / "SigningTable").write_text(f"*@{DOMAIN} bench\n")
        state = self.folder / f"state-{role}"
        state.mkdir(exist_ok=True)
        base.with_suffix(".conf").write_text("\n".join([
            f"listen = unix:{base}.sock", f"role = {role}", "authserv_id = bench.example.com",
            f"key_table = {self.folder}/KeyTable", f"signing_table = refile:{self.folder}/SigningTable",
            f"resolver = {HOST}:{self.stack.at.port('dns')}", f"runtime_dir = {state}", f"state_dir = {state}",
            "log_level = warning", ""]))
        return base.with_suffix(".sock"), [self.stack.at.path("/bin/milter-dkim"), "-c", base.with_suffix(".conf")]

    def variants(self):
        null = self.stack.at.build / "helpers/milter_null"
        sock, quiet = self.folder / "null.sock", self.folder / "null-n.sock"
        return [
            Variant("no milter"),
            Variant("empty milter", sock, [null, sock]),
            Variant("empty milter, no replies", quiet, [null, "-n", quiet]),
            Variant("milter-dkim sign", *self.postern("sign")),
            Variant("opendkim sign", *self.opendkim("s")),
            Variant("milter-dkim verify", *self.postern("verify"), self.signed),
            Variant("opendkim verify", *self.opendkim("v"), self.signed),
        ]

    def serve(self, variants):
        for number, variant in enumerate(variants):
            variant.port = self.stack.at.base + FIRST_PORT + number
            milter = f"unix:{variant.socket}" if variant.socket else ""
            run(["postconf", "-c", self.stack.at.path("/etc/postfix"), "-M",
                 f"{HOST}:{variant.port}/inet={HOST}:{variant.port} inet n - n - - smtpd "
                 f"-o smtpd_milters={milter} -o smtpd_recipient_restrictions=permit_mynetworks,reject "
                 "-o smtpd_end_of_data_restrictions= -o smtpd_sender_restrictions= "
                 "-o smtpd_client_connection_count_limit=0 -o smtpd_client_connection_rate_limit=0 "
                 "-o smtpd_reject_unlisted_sender=no"])
            if variant.argv:
                log = self.folder / f"{number}.log"
                variant.server = Server(variant.argv, variant.socket.exists, log)
                variant.socket.chmod(0o666)
        self.stack.reload("postfix")
        for variant in variants:
            wait_until(lambda port=variant.port: self.answers(port), 20, f"port {variant.port}")

    @staticmethod
    def answers(port):
        done = subprocess.run(["smtp-source", "-m", "1", "-f", SENDER, "-t", "to@sink.example",
                               f"inet:{HOST}:{port}"], capture_output=True, check=False)
        return done.returncode == 0

    def round(self, variant, count):
        source = ["smtp-source", "-s", SESSIONS, "-m", count, "-M", HELO, "-f", SENDER, "-t", "to@sink.example",
                  "-F", variant.message_file or self.plain, f"inet:{HOST}:{variant.port}"]
        before = cpu_seconds(variant.server.pid) if variant.server else 0
        seconds = timed(lambda: run(source))
        cpu = cpu_seconds(variant.server.pid) - before if variant.server else None
        variant.sample.add(count, seconds, cpu)
        self.stack.wait_queue_empty()

    def measure(self):
        self.prepare()
        variants = self.variants()
        dns = Server(["unbound", "-d", "-c", self.dns_on_port_53()], lambda: True, self.folder / "dns.log")
        try:
            self.serve(variants)
            for variant in variants:
                self.round(variant, 100)
                variant.sample = Sample()
            for _ in range(ROUNDS):
                for variant in variants:
                    self.round(variant, scaled(MESSAGES))
            for variant in variants:
                if variant.server:
                    variant.memory = memory_mb(variant.server.pid)
        finally:
            for variant in variants:
                if variant.server:
                    variant.server.stop()
            dns.stop()
        self.report(variants)

    def dns_on_port_53(self):
        text = self.stack.unbound_conf.read_text()
        port = self.stack.at.port("dns")
        text = text.replace(f"interface: {HOST}@{port}", f"interface: {OPENDKIM_DNS}@53").replace(f"port: {port}", "port: 53")
        text = text.replace("/run/unbound.", "/run/unbound-53.").replace("control-enable: yes", "control-enable: no")
        path = self.folder / "unbound.conf"
        path.write_text(text)
        return path

    @staticmethod
    def report(variants):
        empty = variants[1].sample.rate
        quiet = variants[2].sample.rate
        table(f"Postfix to discard, {SIZE // 1024} KB, {SESSIONS} sessions, a connection a message, median of {ROUNDS}",
              ["variant", "messages/s", "spread", "x empty milter", "x empty, no replies", "milter CPU ms/message", "peak MB"],
              [[v.name, f"{v.sample.rate:.0f}", v.sample.spread(), ratio(v.sample.rate, empty), ratio(v.sample.rate, quiet),
                f"{v.sample.cpu_ms:.2f}" if v.sample.cpu_ms is not None else None,
                f"{v.memory:.0f}" if v.memory else None] for v in variants])
