"""The test case for policyd-ratelimit: looks at the counters, asks as Postfix would."""
import contextlib
import json
import re

from tests.frame.case import StackCase
from tests.frame.policy import PATIENCE_S, PolicyClient, new_instance

RECIPIENT = "office@example.net"
SENDER = "stranger@example.org"
DAEMON = "policyd-ratelimit"
SERVICE = "check_policy_service $postern_policy"


class PolicyCase(StackCase):
    @property
    def socket_path(self):
        return self.stack.at.path("/var/spool/postfix/postern/policyd-ratelimit.sock")

    def client(self, timeout=PATIENCE_S):
        return PolicyClient(self.socket_path, timeout)

    def limits(self, *words):
        return json.loads(self.stack.postern("limits", *words, "--json"))

    def used(self, key, unit="messages"):
        """What the limits of KEY count now, the largest window's."""
        windows = [w for w in self.limits("show", key)["windows"] if w["unit"] == unit]
        return max((w["used"] for w in windows), default=0)

    @staticmethod
    def send_message(client, **attributes):
        """A whole message by the protocol: the first answer that is not DUNNO, or DUNNO."""
        instance = new_instance()
        answer = client.ask(instance=instance, **attributes)
        if answer != "DUNNO":
            return answer
        return client.ask(instance=instance, protocol_state="END-OF-MESSAGE", recipient_count="1", **attributes)

    def log_text(self, part=DAEMON):
        return self.stack.log_file(part).read_text(errors="replace")

    @contextlib.contextmanager
    def postfix_with(self, **settings):
        """Runs a block with other settings of Postfix, and puts them back."""
        before = {name: self.stack.postconf_value(name) for name in settings}
        try:
            self.stack.postconf(*(f"{name}={value}" for name, value in settings.items()))
            self.stack.reload("postfix")
            yield
        finally:
            self.stack.postconf(*(f"{name}={value}" for name, value in before.items()))
            self.stack.reload("postfix")

    @contextlib.contextmanager
    def recorded(self, **options):
        """Runs a block with a request log.  Yields a function that waits until the requests so far
        hold COUNT messages' ends, and returns them: dicts with "connection" besides."""
        log = self.stack.at.path("/var/lib/postern/policyd-ratelimit/recorded.log")
        log.unlink(missing_ok=True)

        def parsed():
            text = log.read_text(errors="surrogateescape") if log.exists() else ""
            records = [dict(line.partition("=")[::2] for line in record.splitlines())
                       for record in re.split(r"\n\n+", text.strip("\n"))]
            return [record for record in records if "request" in record]

        def requests(count):
            def ends():
                return sum(record["protocol_state"] == "END-OF-MESSAGE" for record in parsed()) >= count
            self.wait_until(ends, what=f"{count} messages in the request log")
            return parsed()

        with self.configured(DAEMON, request_log=str(log), **options):
            yield requests
