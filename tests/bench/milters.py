"""Postfix to discard: no milter, empty ones, milter-dkim and its peers.

One Postfix has a port for each variant, so that nothing but the milter differs.
The rounds go over all variants in turn, so that a drift of the machine's speed
meets all of them.
"""
import json
import subprocess

from tests.bench.measure import ROUNDS, Sample, Server, cpu_seconds, ratio, resident_mb, scaled, table, timed
from tests.bench.peers import Peers
from tests.frame.layout import HOST
from tests.frame.mail import message
from tests.frame.stack import run
from tests.frame.wait import wait_until

SESSIONS = 10
MESSAGES = 1500
SIZE = 4096
FIRST_PORT = 600
PORT_53 = "127.0.0.53"  # where opendkim and opendmarc ask

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


AUTHSERV = "bench.example.com"
HOW = {"a connection a message": [], "persistent connections": ["-d"]}


class Variant:
    """One or more milters in a row: PARTS are (socket, argv)."""

    def __init__(self, name, parts=(), message_file=None):
        self.name, self.parts, self.message_file = name, parts, message_file
        self.servers = []
        self.samples = {how: Sample() for how in HOW}
        self.alone = Sample()
        self.per_message = {}  # page faults and switches, of a milter that is one process
        self.at_rest = self.after = 0.0

    def cpu_seconds(self):
        return sum(cpu_seconds(server.pid) for server in self.servers)

    def resident_mb(self):
        return sum(resident_mb(server.pid) for server in self.servers)


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

    def postern(self, role):
        base = self.folder / f"milter-{role}"
        (self.folder / "KeyTable").write_text(f"bench {DOMAIN}:bench:{self.key}\n")
        (self.folder / "SigningTable").write_text(f"*@{DOMAIN} bench\n")
        state = self.folder / f"state-{role}"
        state.mkdir(exist_ok=True)
        base.with_suffix(".conf").write_text("\n".join([
            f"listen = unix:{base}.sock", f"role = {role}", f"authserv_id = {AUTHSERV}",
            f"key_table = {self.folder}/KeyTable", f"signing_table = refile:{self.folder}/SigningTable",
            f"resolver = {HOST}:{self.stack.at.port('dns')}", f"runtime_dir = {state}", f"state_dir = {state}",
            "log_level = warning", ""]))
        return [(base.with_suffix(".sock"), [self.stack.at.path("/bin/milter-dkim"), "-c", base.with_suffix(".conf")])]

    def empty(self, *options):
        socket = self.folder / f"null{''.join(options[:1])}.sock"
        return [(socket, [self.stack.at.build / "helpers/milter_null", *options, socket])]

    def variants(self):
        peers = Peers(self.folder, self.key, DOMAIN, AUTHSERV, f"{HOST}:{self.stack.at.port('dns')}", PORT_53)
        return [
            Variant("no milter"),
            Variant("empty", self.empty()),
            Variant("empty, no replies", self.empty("-n")),
            Variant("empty, our flags", self.empty("-m")),
            Variant("empty, one signature", self.empty("-s", self.key)),
            Variant("milter-dkim sign", self.postern("sign")),
            Variant("opendkim sign", peers.opendkim("s")),
            Variant("Rspamd sign", peers.rspamd_sign()),
            Variant("milter-dkim verify", self.postern("verify"), self.signed),
            Variant("opendkim verify", peers.opendkim("v"), self.signed),
            Variant("opendkim + opendmarc", peers.opendkim_opendmarc(), self.signed),
            Variant("Rspamd verify", peers.rspamd_verify(), self.signed),
        ]

    def serve(self, variants):
        for number, variant in enumerate(variants):
            variant.port = self.stack.at.base + FIRST_PORT + number
            milters = " ".join(f"unix:{socket}" for socket, _ in variant.parts).replace(" ", ",")
            run(["postconf", "-c", self.stack.at.path("/etc/postfix"), "-M",
                 f"{HOST}:{variant.port}/inet={HOST}:{variant.port} inet n - n - - smtpd "
                 f"-o smtpd_milters={milters} -o smtpd_recipient_restrictions=permit_mynetworks,reject "
                 "-o smtpd_end_of_data_restrictions= -o smtpd_sender_restrictions= "
                 "-o smtpd_client_connection_count_limit=0 -o smtpd_client_connection_rate_limit=0 "
                 "-o smtpd_reject_unlisted_sender=no"])
            for part, (socket, argv) in enumerate(variant.parts):
                socket.unlink(missing_ok=True)
                variant.servers.append(Server(argv, socket.exists, self.folder / f"{number}-{part}.log"))
                socket.chmod(0o666)
        self.stack.reload("postfix")
        for variant in variants:
            wait_until(lambda port=variant.port: self.answers(port), 20, f"port {variant.port}")

    @staticmethod
    def answers(port):
        done = subprocess.run(["smtp-source", "-m", "1", "-f", SENDER, "-t", "to@sink.example",
                               f"inet:{HOST}:{port}"], capture_output=True, check=False)
        return done.returncode == 0

    def round(self, variant, count, how):
        source = ["smtp-source", *HOW[how], "-s", SESSIONS, "-m", count, "-M", HELO, "-f", SENDER, "-t", "to@sink.example",
                  "-F", variant.message_file or self.plain, f"inet:{HOST}:{variant.port}"]
        before = variant.cpu_seconds()
        seconds = timed(lambda: run(source))
        self.stack.wait_queue_empty()
        variant.samples[how].add(count, seconds, variant.cpu_seconds() - before if variant.servers else None)

    def alone(self, variant, count):
        """COUNT messages without Postfix: milter_load plays what Postfix sends."""
        login = ["-l", "sales"] if "sign" in variant.name else []
        before = variant.cpu_seconds()
        load = [self.stack.at.build / "helpers/milter_load", "-c", SESSIONS, "-n", count, "-p", variant.servers[0].pid, *login,
                variant.parts[0][0], variant.message_file or self.plain]
        told = json.loads(run(load))
        if told["accepted"] != count:
            raise RuntimeError(f"{variant.name}: {told}")
        variant.alone.add(count, told["seconds"], variant.cpu_seconds() - before)
        variant.per_message = told

    def measure(self):
        self.prepare()
        dns = Server(["unbound", "-d", "-c", self.dns_on_port_53()], lambda: True, self.folder / "dns.log")
        variants = self.variants()
        try:
            self.serve(variants)
            for variant in variants:
                self.round(variant, 100, next(iter(HOW)))
                variant.samples = {how: Sample() for how in HOW}
                variant.at_rest = variant.resident_mb()
            for _ in range(ROUNDS):
                for how in HOW:
                    for variant in variants:
                        self.round(variant, scaled(MESSAGES), how)
            for _ in range(ROUNDS):
                for variant in variants:
                    if len(variant.servers) == 1:
                        self.alone(variant, scaled(MESSAGES))
            for variant in variants:
                variant.after = variant.resident_mb()
        finally:
            for variant in variants:
                for server in variant.servers:
                    server.stop()
            dns.stop()
        self.report(variants)

    def dns_on_port_53(self):
        text = self.stack.unbound_conf.read_text()
        port = self.stack.at.port("dns")
        text = text.replace(f"interface: {HOST}@{port}", f"interface: {PORT_53}@53").replace(f"port: {port}", "port: 53")
        text = text.replace("/run/unbound.", "/run/unbound-53.").replace("control-enable: yes", "control-enable: no")
        path = self.folder / "unbound.conf"
        path.write_text(text)
        return path

    def report(self, variants):
        by_name = {variant.name: variant for variant in variants}
        for how in HOW:
            empty, ours = (by_name[name].samples[how].rate for name in ("empty", "empty, our flags"))
            table(f"Postfix to discard, {SIZE // 1024} KB, {SESSIONS} sessions, {how}, median of {ROUNDS}",
                  ["variant", "messages/s", "spread", "x empty", "x empty, our flags", "milter CPU ms/message"],
                  [[v.name, f"{v.samples[how].rate:.0f}", v.samples[how].spread(), ratio(v.samples[how].rate, empty),
                    ratio(v.samples[how].rate, ours), f"{v.samples[how].cpu_ms:.2f}" if v.servers else None]
                   for v in variants])
        table(f"The milters without Postfix, {SESSIONS} connections, a connection a message, median of {ROUNDS}",
              ["variant", "messages/s", "milter CPU ms/message", "page faults/message", "switches/message"],
              [[v.name, f"{v.alone.rate:.0f}", f"{v.alone.cpu_ms:.3f}",
                *(["", ""] if "Rspamd" in v.name else [f"{v.per_message[key]:.1f}" for key in ("faults", "switches")])]
               for v in variants if len(v.servers) == 1])
        table("Resident memory of the milter processes",
              ["variant", "MB after 100 messages", f"MB after {100 + (len(HOW) + 1) * ROUNDS * scaled(MESSAGES)}"],
              [[v.name, f"{v.at_rest:.1f}", f"{v.after:.1f}"] for v in variants if v.servers])
        self.report_bars(by_name)

    def report_bars(self, by_name):
        core = json.loads(run([self.stack.at.build / "helpers/dkim_core", self.key]))
        speed = run(["openssl", "speed", "-seconds", "3", "rsa2048"]).splitlines()[-1].split()
        openssl = float(speed[-2])
        how = next(iter(HOW))
        cpu = {name: variant.samples[how].cpu_ms for name, variant in by_name.items()}
        rate = {name: variant.samples[how].rate for name, variant in by_name.items()}
        empty = "empty, our flags"
        rows = [
            ["sign: CPU / empty milter and one bare signature", "at most 1.10",
             cpu["milter-dkim sign"] / cpu["empty, one signature"]],
            ["verify: CPU / opendkim's", "at most 0.33", cpu["milter-dkim verify"] / cpu["opendkim verify"]],
            ["the same two without Postfix: sign", "at most 1.10",
             by_name["milter-dkim sign"].alone.cpu_ms / by_name["empty, one signature"].alone.cpu_ms],
            ["the same two without Postfix: verify", "at most 0.33",
             by_name["milter-dkim verify"].alone.cpu_ms / by_name["opendkim verify"].alone.cpu_ms],
            ["verify: CPU / that of opendkim + opendmarc", "", cpu["milter-dkim verify"] / cpu["opendkim + opendmarc"]],
            ["sign: Postfix's rate / with an empty milter", "at least 0.90", rate["milter-dkim sign"] / rate["empty"]],
            ["the same / with an empty milter of our flags", "at least 0.90", rate["milter-dkim sign"] / rate[empty]],
            ["the same / with that and one bare signature", "",
             rate["milter-dkim sign"] / rate["empty, one signature"]],
            ["verify: Postfix's rate / with an empty milter", "at least 0.95", rate["milter-dkim verify"] / rate["empty"]],
            ["the same / with an empty milter of our flags", "at least 0.95", rate["milter-dkim verify"] / rate[empty]],
            ["core: messages signed / openssl speed rsa2048", "at least 0.95", core["signed_messages_per_s"] / openssl],
            ["core: messages signed / bare signatures", "at least 0.95", core["signing_ratio"]],
            ["core: relaxed body and SHA-256 / SHA-256 alone", "at least 0.85", core["relaxed_ratio"]],
        ]
        table(f"Bars (openssl speed: {openssl:.0f} signatures a second)",
              ["what", "bar", "measured"], [[what, bar, f"{value:.2f}"] for what, bar, value in rows])
