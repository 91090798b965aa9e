"""Clients of the policy protocol that send messages as fast as they are answered."""
import threading

from tests.frame.policy import PolicyClient, new_instance

PER_CONNECTION = 20
CONNECT_TRIES = 3


class PolicyLoad:
    """CLIENTS threads that send whole messages of SOURCE, on a new connection after PER_CONNECTION.

    Where the server goes away in a request they try the identical one again on a new connection, as
    Postfix does, unless ONE_LIFE: then they end.  What happened: `acknowledged` messages, `in_flight`
    ones whose end was asked for and not answered, `lost` connections, `refused` ones, `other` answers
    than DUNNO.
    """

    def __init__(self, path, source, clients=4, one_life=False):
        self.path, self.source, self.one_life = path, source, one_life
        self.acknowledged, self.in_flight, self.lost = 0, 0, 0
        self.refused, self.other = [], []
        self.lock, self.ending = threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.ending.set()
        for thread in self.threads:
            thread.join(60)

    def connect(self):
        try:
            return PolicyClient(self.path)
        except OSError as error:
            with self.lock:
                self.refused.append(error)
            raise

    def ask(self, client, **attributes):
        """(the answer, the client that gave it); the answer None: the server is gone."""
        for _ in range(CONNECT_TRIES):
            try:
                answer = client.ask(client_address=self.source, **attributes)
            except (BrokenPipeError, ConnectionResetError):
                answer = None
            if answer is not None or self.one_life:
                return answer, client
            with self.lock:
                self.lost += 1
            client.close()
            client = self.connect()
        return None, client

    def message(self, client):
        instance = new_instance()
        for state, count in (("RCPT", "0"), ("END-OF-MESSAGE", "1")):
            answer, client = self.ask(client, instance=instance, protocol_state=state, recipient_count=count)
            if answer == "DUNNO":
                continue
            with self.lock:
                self.in_flight += answer is None and state != "RCPT"
                if answer is not None:
                    self.other.append(answer)
            return None
        with self.lock:
            self.acknowledged += 1
        return client

    def run(self):
        client = None
        try:
            while not self.ending.is_set():
                client = self.connect()
                for _ in range(PER_CONNECTION):
                    if client and not self.ending.is_set():
                        client = self.message(client)
                if client:
                    client.close()
                elif self.one_life:
                    return
        except OSError:
            pass  # noted in connect()
