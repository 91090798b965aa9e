"""A stream of deliveries that survives faults, and the books about it."""
import smtplib
import threading
import time

from tests.frame.mail import message, new_message_id, smtp

TRIES = 240
PAUSE_S = 0.5


class Load:
    """COUNT messages to USERS over port 25 from several clients at once.

    Each client goes on after refusals and broken connections as a mail server
    would: the same message again, after a pause.
    """

    def __init__(self, stack, users, sources, count):
        self.stack = stack
        self.users = users
        self.jobs = [(new_message_id(), users[i % len(users)]) for i in range(count)]
        self.accepted = {}  # Message-ID -> recipient
        self.uncertain = set()  # sent to the end, the reply was lost
        self.refused = {}  # Message-ID -> last refusal, of those never accepted
        self.retries = 0
        self.lock = threading.Lock()
        self.threads = [
            threading.Thread(target=self.client, args=(source, self.jobs[index :: len(sources)]))
            for index, source in enumerate(sources)
        ]

    def start(self):
        for thread in self.threads:
            thread.start()

    def join(self, timeout=180):
        deadline = time.monotonic() + timeout
        for thread in self.threads:
            thread.join(max(0.1, deadline - time.monotonic()))
            if thread.is_alive():
                raise AssertionError("the load does not come to its end")

    def done(self):
        with self.lock:
            return len(self.accepted)

    def client(self, source, jobs):
        connection = None
        for ident, user in jobs:
            for _ in range(TRIES):
                try:
                    connection = connection or smtp(self.stack, source)
                    connection.sendmail("a@example.org", [user], message("a@example.org", user, message_id=ident))
                    with self.lock:
                        self.accepted[ident] = user
                        self.refused.pop(ident, None)
                    break
                except (OSError, smtplib.SMTPException) as error:
                    self.note(error, ident)
                    if connection:
                        connection.close()
                    # A mail server comes back on a new connection; on this one
                    # a lost milter stays lost.
                    connection = None
                    time.sleep(PAUSE_S)
        if connection:
            connection.close()

    def note(self, error, ident):
        refused = isinstance(error, (smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused))
        with self.lock:
            self.retries += 1
            self.refused[ident] = repr(error)
            if not refused:
                self.uncertain.add(ident)
