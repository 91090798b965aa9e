"""allow = spf:DOMAIN, with a DNS server of the tests and the real Postfix."""
import smtplib

from tests.dns.dnsd import Server, Zone
from tests.frame.mail import message, smtp
from tests.integration.test_policyd import DAEMON, SENDER, PolicyCase

ONE_AN_HOUR = "client_ip messages 1/1h"


class Exempt(PolicyCase):
    """Whom the SPF records of large senders exempt, and for how long."""

    def setUp(self):
        super().setUp()
        self.zone = {
            "big.example": [["TXT", "v=spf1 include:_spf.big.example ip4:203.0.113.0/28 -ip4:198.51.100.5 mx/28 ~all"],
                            ["MX", 10, "mx.big.example"]],
            "_spf.big.example": [["TXT", "v=spf1 ip6:2001:db8:77::/48 redirect=_all.big.example"]],
            "_all.big.example": [["TXT", "v=spf1 a:out.big.example exists:%{i}.big.example ?all"]],
            "mx.big.example": [["A", "198.51.100.7"]],
            "out.big.example": [["A", "192.0.2.77"]],
        }

    def serve(self, **kwargs):
        server = Server(self.zone, **kwargs)
        self.addCleanup(server.close)
        return server

    def exempting(self, server, **values):
        return self.configured(DAEMON, **{
            "allow": "spf:big.example", "resolver": server.address, "spf_refresh_min": "1s", "spf_refresh_max": "1s",
            "dns_timeout": "2s", "limit": ONE_AN_HOUR, **values})

    def known(self, domain="big.example"):
        return next(row for row in self.limits("list")["spf"] if row["domain"] == domain)

    def wait_networks(self, count):
        self.wait_until(lambda: self.known()["networks"] == count and self.known()["resolved_at"],
                        what=f"{count} networks")

    def passes(self, address, **attributes):
        """Whether three messages from ADDRESS pass a limit of one."""
        with self.client() as client:
            return [self.send_message(client, client_address=address, **attributes) for _ in range(3)] == ["DUNNO"] * 3

    def test_networks_of_the_record_are_exempt(self):
        with self.exempting(self.serve()):
            self.wait_networks(7)
            for address, wanted in (("203.0.113.15", True), ("203.0.113.16", False), ("2001:db8:77:1::1", True),
                                    ("2001:db8:78::1", False), ("192.0.2.77", True), ("192.0.2.78", False),
                                    ("198.51.100.7", True), ("198.51.100.5", False), ("198.51.100.16", False)):
                self.assertEqual(self.passes(address), wanted, address)
            row = self.known()
            self.assertEqual((row["skipped_terms"], row["problem"]), (1, None))
            told = self.limits("explain", "203.0.113.1")
            self.assertEqual((told["allowed"], told["allowed_by"]), (True, "spf:big.example"))
            self.assertNotIn("allowed_by", self.limits("explain", "203.0.113.16"))
            self.assertRegex(self.stack.postern("limits", "list"), r"exempt: spf:big\.example, 7 networks, as of \d")
            self.assertEqual(self.metric("postern_policy_spf_networks", DAEMON), 7)
            self.assertEqual(self.metric("postern_policy_spf_domains", DAEMON), 1)
            # Who has logged in is an account, wherever from.
            user = self.new_user()
            self.stack.configure(DAEMON, limit="account messages 1/1h")
            self.stack.restart(DAEMON)
            self.wait_networks(7)
            self.assertFalse(self.passes("203.0.113.1", sasl_username=user))

    def test_through_postfix(self):
        source, other, user = self.new_source(), self.new_source(), self.new_user()
        self.zone["big.example"] = [["TXT", f"v=spf1 ip4:{source} -all"]]
        with self.exempting(self.serve(), limit='client_ip messages 1/1h when sasl_username=""'):
            self.wait_networks(1)
            for address, wanted in ((source, [250] * 3), (other, [250, 450, 450])):
                with smtp(self.stack, address) as client:
                    codes = []
                    for _ in range(3):
                        try:
                            client.sendmail(SENDER, [user], message(SENDER, user))
                            codes.append(250)
                        except smtplib.SMTPRecipientsRefused as refused:
                            codes.append(refused.recipients[user][0])
                self.assertEqual(codes, wanted)

    def test_changes_are_followed(self):
        server = self.serve()
        with self.exempting(server):
            self.wait_networks(7)
            server.zone = Zone({"big.example": [["TXT", "v=spf1 ip4:203.0.113.32/27 -all"]]}, False)
            self.wait_networks(1)
            self.assertTrue(self.passes("203.0.113.33"))
            self.assertFalse(self.passes("203.0.113.1"))
            log = self.stack.log_file(DAEMON).read_text(errors="replace")
            self.assertRegex(log, r"spf_networks_changed .*domain=big\.example networks=1 added=1 removed=7")
            # A record that is gone names nobody.
            server.zone = Zone({"big.example": [["TXT", "no SPF"]]}, False)
            self.wait_networks(0)
            self.assertIn("no SPF record", self.known()["problem"])
            self.assertFalse(self.passes("203.0.113.34"))

    def test_a_dead_dns_changes_nothing(self):
        server = self.serve()
        with self.exempting(server):
            self.wait_networks(7)
            port = server.port
            for zone in ({"big.example": [["SERVFAIL"]]}, {"big.example": [["TXT", "v=spf1 ip4:nonsense"]]},
                         {"big.example": [["TIMEOUT"]]}, None):
                if zone is None:
                    server.close()
                else:
                    server.zone = Zone(zone, False)
                before = self.metric("postern_policy_spf_failures_total", DAEMON)
                self.wait_until(lambda b=before: self.metric("postern_policy_spf_failures_total", DAEMON) >= b + 2,
                                what="two failures")
                self.assertTrue(self.passes("203.0.113.1"))
                self.assertIsNotNone(self.known()["problem"])
            # A crash, and a new life without DNS.
            self.stack.kill(DAEMON)
            self.wait_until(lambda: self.stack.pid(DAEMON), what="the next life")
            self.assertTrue(self.passes("2001:db8:77::5"))
            self.assertEqual(self.known()["networks"], 7)
            # It is back, with something else.
            self.zone = {"big.example": [["TXT", "v=spf1 ip4:192.0.2.0/24 -all"]]}
            self.serve(port=port)
            self.wait_networks(1)
            self.assertIsNone(self.known()["problem"])

    def test_reload_takes_domains_and_resolver_over(self):
        server = self.serve()
        with self.exempting(server, spf_refresh_min="1h", spf_refresh_max="1h"):
            self.wait_networks(7)
            self.zone = {"big.example": [["TXT", "v=spf1 ip4:203.0.113.0/24"]],
                         "new.example": [["TXT", "v=spf1 ip4:10.11.12.0/24 -all"]]}
            other = self.serve()
            self.stack.configure(DAEMON, allow=["spf:new.example", "spf:big.example"], resolver=other.address)
            self.stack.reload(DAEMON)
            self.wait_networks(1)
            self.wait_until(lambda: self.passes("10.11.12.13"), what="the new domain")
            self.stack.configure(DAEMON, allow="127.0.0.1")
            self.stack.reload(DAEMON)
            self.wait_until(lambda: not self.limits("list")["spf"], what="no domain")
            self.assertFalse(self.passes("10.11.12.14"))
            # A bad line changes nothing and says where it stands.
            self.stack.configure(DAEMON, allow="spf:not_a_domain")
            self.stack.reload(DAEMON)
            self.wait_until(lambda: "`spf:' without" in self.stack.log_file(DAEMON).read_text(errors="replace"),
                            what="the error")

    def test_a_stop_does_not_wait_for_the_dns(self):
        self.zone["big.example"] = [["TIMEOUT"]]
        server = self.serve()
        with self.exempting(server, dns_timeout="60s"):
            self.wait_until(lambda: server.queries, what="a question")
            pid = self.stack.pid(DAEMON)
            self.stack.restart(DAEMON)  # fails after its own timeout
            self.assertNotEqual(self.stack.pid(DAEMON), pid)
            self.wait_until(lambda: len(server.queries) >= 2, what="a question of the next life")
