"""The peers of milter-dkim: their configuration and how they are started.

All get the same key, the same zone and nothing to do that milter-dkim does not
do.  Each function returns a list of (socket, argv): the milters of one variant.
"""

OPENDKIM = """\
Mode {mode}
Socket local:{socket}
Domain {domain}
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
AuthservID {authserv}
"""

OPENDMARC = """\
Socket local:{socket}
AuthservID {authserv}
TrustedAuthservIDs {authserv}
IgnoreHosts {nobody}
SPFSelfValidate true
SPFIgnoreResults true
RejectFailures false
Background false
Syslog false
UMask 000
PidFile {pid}
PublicSuffixList /usr/share/publicsuffix/public_suffix_list.dat
"""

# The rules that Rspamd ships would load every module; here are four, and the one
# that writes Authentication-Results.
RSPAMD = """\
options {{
  pidfile = "{base}.pid"; rundir = "{base}"; dbdir = "{base}"; hs_cache_dir = "{base}";
  filters = "dkim"; control_socket = "{base}/control.sock mode=0600";
  dns {{ nameserver = ["{dns}"]; }}
  url_tld = "{tld}";
}}
logging {{ type = "file"; filename = "{base}/log"; level = "error"; }}
worker "rspamd_proxy" {{
  bind_socket = "{socket} mode=0666"; milter = yes; count = 2; timeout = 120s;
  upstream "local" {{ default = yes; self_scan = yes; }}
}}
modules {{ path = "/usr/share/rspamd/plugins/"; }}
actions {{ reject = 1000; }}
{modules}
"""
RSPAMD_VERIFY = """\
dkim { check_local = true; check_authed = true; }
spf { check_local = true; check_authed = true; disable_ipv6 = false; }
dmarc { check_local = true; check_authed = true; reporting { enabled = false; } }
arc { check_local = true; check_authed = true; sign_local = false; sign_authenticated = false; }
milter_headers { use = ["authentication-results"]; skip_local = false; skip_authenticated = false; }
"""
RSPAMD_SIGN = """\
dkim_signing {{
  sign_local = true; sign_authenticated = true; check_pubkey = false; allow_username_mismatch = true;
  use_domain = "header"; use_redis = false; selector = "bench"; path = "{key}";
}}
"""


class Peers:
    """Their files are below FOLDER."""

    def __init__(self, folder, key, domain, authserv, dns, dns_port_53):
        self.folder = folder
        self.values = {"key": key, "domain": domain, "authserv": authserv, "dns": dns}
        self.dns_port_53 = dns_port_53
        self.nobody, self.everybody = folder / "nobody", folder / "everybody"
        self.tld = folder / "tld"  # the whole list takes Rspamd half a minute to compile
        self.nobody.write_text("192.0.2.1\n")
        self.everybody.write_text("127.0.0.0/8\n192.0.2.0/24\n")

    def write(self, name, text, **values):
        """Writes NAME.conf; returns the paths of the socket and the file."""
        base = self.folder / name
        conf = base.with_suffix(".conf")
        conf.write_text(text.format(base=base, socket=base.with_suffix(".sock"), pid=base.with_suffix(".pid"),
                                    nobody=self.nobody, **self.values | values))
        return base.with_suffix(".sock"), conf

    def opendkim(self, mode, name=None):
        socket, conf = self.write(name or f"opendkim-{mode}", OPENDKIM, mode=mode, dns=self.dns_port_53,
                                  internal=self.everybody if mode == "s" else self.nobody)
        return [(socket, ["opendkim", "-f", "-x", conf])]

    def opendkim_opendmarc(self):
        """opendmarc only knows the system's resolver, so it gets a system of its own."""
        resolv = self.folder / "resolv.conf"
        resolv.write_text(f"nameserver {self.dns_port_53}\n")
        socket, conf = self.write("opendmarc", OPENDMARC)
        return self.opendkim("v", "opendkim-both") + [(socket, [
            "unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec opendmarc -f -c "$1"', resolv, conf])]

    def rspamd(self, name, modules):
        socket, conf = self.write(name, RSPAMD, modules=modules, tld=self.tld)
        (self.folder / name).mkdir(exist_ok=True)
        self.tld.write_text("com\nexample\n")
        return [(socket, ["rspamd", "-f", "-i", "-c", conf])]

    def rspamd_verify(self):
        return self.rspamd("rspamd-verify", RSPAMD_VERIFY)

    def rspamd_sign(self):
        return self.rspamd("rspamd-sign", RSPAMD_SIGN.format(**self.values))
