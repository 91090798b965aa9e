"""A client of Postfix's policy delegation protocol."""
import itertools
import socket

COUNTER = itertools.count(1)
PATIENCE_S = 30


class PolicyClient:
    """One connection to a policy server, at the path of a socket or at (address, port)."""

    def __init__(self, where, timeout=PATIENCE_S):
        inet = isinstance(where, tuple)
        self.socket = socket.socket(socket.AF_INET if inet else socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(where if inet else str(where))
        self.reader = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.reader.close()
        self.socket.close()

    def send(self, **attributes):
        """Sends a request as smtpd would, with ATTRIBUTES over the usual ones; bytes that are no
        UTF-8 come as surrogates, and None leaves an attribute out."""
        request = {
            "request": "smtpd_access_policy", "protocol_state": "RCPT", "protocol_name": "ESMTP",
            "client_address": "127.0.0.50", "client_name": "unknown", "client_port": "40000",
            "reverse_client_name": "unknown", "server_address": "127.0.0.1", "server_port": "25",
            "helo_name": "client.example.org", "sender": "stranger@example.org",
            "recipient": "office@example.net", "recipient_count": "0", "queue_id": "", "instance": "",
            "size": "1000", "etrn_domain": "", "stress": "", "sasl_method": "", "sasl_username": "",
            "sasl_sender": "", "ccert_subject": "", "ccert_issuer": "", "ccert_fingerprint": "",
            "ccert_pubkey_fingerprint": "", "encryption_protocol": "", "encryption_cipher": "",
            "encryption_keysize": "0", "policy_context": "",
        } | attributes
        lines = "".join(f"{k}={v}\n" for k, v in request.items() if v is not None)
        self.socket.sendall(lines.encode(errors="surrogateescape") + b"\n")

    def receive(self):
        """The action, None where the server closed the connection."""
        line = self.reader.readline()
        if not line:
            return None
        if self.reader.readline() != b"\n":
            raise AssertionError(f"reply without an empty line behind: {line!r}")
        return line.decode().rstrip("\n").removeprefix("action=")

    def ask(self, **attributes):
        self.send(**attributes)
        return self.receive()


def new_instance():
    return f"{next(COUNTER):x}.65000000.0"
