"""The milter protocol, version 6, from the mail server's side: a client that may
misbehave, and a relay that stands between Postfix and the milter."""
import contextlib
import os
import socket
import struct
import threading

SOCKET = "/var/spool/postfix/postern/milter-dkim.sock"
TIMEOUT_S = 60
VERSION = 6
ACTIONS = 0x1FF
STEPS = 0x1FFFFF
# What the milter answers finally with.
VERDICTS = b"acdrty"


def packet(command, data=b""):
    return struct.pack(">I", 1 + len(data)) + command + data


def strings(*items):
    return b"".join(item + b"\0" for item in items)


def read_packet(stream):
    """(command, data), or None at the end of the stream."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    body = stream.read(struct.unpack(">I", head)[0])
    return (body[:1], body[1:]) if body else None


class MilterClient:
    """One connection to the milter; `send` takes raw packets."""

    def __init__(self, stack, timeout=TIMEOUT_S):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(str(stack.at.path(SOCKET)))
        self.stream = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.stream.close()
        self.socket.close()

    def send(self, *packets):
        self.socket.sendall(b"".join(packets))

    def read(self):
        return read_packet(self.stream)

    def ended(self):
        """Whether the milter has closed the connection, after what it still says."""
        try:
            while self.stream.read(65536):
                pass
        except ConnectionError:
            pass
        return True

    def negotiate(self):
        self.send(packet(b"O", struct.pack(">III", VERSION, ACTIONS, STEPS)))
        command, data = self.read()
        if command != b"O":
            raise AssertionError(f"negotiation answered with {command!r}")
        self.steps = struct.unpack(">III", data[:12])[2]

    @staticmethod
    def opening(address=b"192.0.2.1", helo=b"client.example.org"):
        """The packets of a new client, which get no reply of ours."""
        return [packet(b"D", b"C" + strings(b"j", b"mail.example.com", b"{daemon_name}", b"smtpd")),
                packet(b"C", strings(b"client.example.org") + b"4" + struct.pack(">H", 25000) + strings(address)),
                packet(b"H", strings(helo))]

    def begin(self, sender=b"<a@example.org>", **more):
        """Up to the reply to MAIL FROM."""
        self.negotiate()
        self.send(*self.opening(**more), packet(b"M", strings(sender)))
        return self.read()

    @staticmethod
    def fields(pairs):
        """The packets of a whole header."""
        return [*(packet(b"L", strings(name, value)) for name, value in pairs), packet(b"N")]

    @staticmethod
    def body(piece):
        return packet(b"B", piece)

    def end(self):
        """The end of the message: ([(command, data) of the edits], (command, data) of the verdict)."""
        self.send(packet(b"E"))
        edits = []
        while True:
            reply = self.read()
            if reply is None or reply[0] in VERDICTS:
                return edits, reply
            edits.append(reply)

    def message(self, fields, body=(), **more):
        """A whole message with FIELDS [(name, value)] and a body in pieces."""
        self.begin(**more)
        return self.content(fields, body)

    def next_message(self, fields, body=(), sender=b"<a@example.org>"):
        """Another one on the same connection."""
        self.send(packet(b"M", strings(sender)))
        self.read()
        return self.content(fields, body)

    def content(self, fields, body):
        self.send(*self.fields(fields))
        for piece in body:
            self.send(self.body(piece))
        return self.end()


@contextlib.contextmanager
def relay(stack, on_packet):
    """Puts itself between Postfix and the milter for a block.

    ON_PACKET(from_milter, command) sees each packet before it is passed on; where
    it returns True the packet is passed on, both connections end, and nothing
    later comes through, as if the milter had died behind that packet.
    """
    path = stack.at.path(SOCKET)
    real = path.with_suffix(".real")
    path.rename(real)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        os.chmod(path, 0o666)
        listener.listen(64)
        threading.Thread(target=serve, args=(listener, str(real), on_packet), daemon=True).start()
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        real.rename(path)


def serve(listener, target, on_packet):
    while True:
        try:
            near, _ = listener.accept()
        except OSError:
            return
        far = socket.socket(socket.AF_UNIX)
        far.connect(target)
        for source, sink, from_milter in ((near, far, False), (far, near, True)):
            threading.Thread(target=copy, args=(source, sink, from_milter, on_packet), daemon=True).start()


def copy(source, sink, from_milter, on_packet):
    """One direction, until it ends or ON_PACKET says so."""
    with contextlib.suppress(OSError), source.makefile("rb") as stream:
        while (read := read_packet(stream)) is not None:
            last = on_packet(from_milter, read[0])
            sink.sendall(packet(*read))
            if last:
                break
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
