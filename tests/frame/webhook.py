"""A receiver of webhooks that keeps what it is sent, and when."""
import base64
import hashlib
import hmac
import http.server
import json
import threading
import time
from collections import namedtuple

Received = namedtuple("Received", "at headers body")


class WebhookReceiver:
    """Listens on 127.0.0.1:PORT until closed; REFUSE makes it answer 500, or that status."""

    def __init__(self, port=0):
        receiver = self
        self.received = []
        self.refuse = False

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):  # noqa: N802, the name is the library's
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                refuse = receiver.refuse  # before a test can see that it came, and change its mind
                receiver.received.append(Received(time.time(), dict(self.headers.items()), body))
                self.send_response(500 if refuse is True else refuse or 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def find(self, text):
        """The first delivery whose body holds TEXT, or None."""
        return next((item for item in list(self.received) if text.encode() in item.body), None)


def signature_holds(received, secret):
    """Whether the Standard Webhooks signature of RECEIVED fits SECRET (whsec_...)."""
    headers = {name.lower(): value for name, value in received.headers.items()}
    signed = b".".join((headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), received.body))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return any(hmac.compare_digest(wanted, given) for given in headers["webhook-signature"].split())


def payload(received):
    return json.loads(received.body)
