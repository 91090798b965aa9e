#!/usr/bin/env python3
"""A DNS server for tests: serves a small zone over UDP and TCP on loopback and
misbehaves where the zone says so.

A zone maps names to lists of rows:

    {"example.com": [["TXT", "one string"], ["TXT", ["two ", "strings"]],
                     ["A", "192.0.2.1"], ["AAAA", "2001:db8::1"],
                     ["MX", 10, "mail.example.com"], ["PTR", "host.example.com"],
                     ["CNAME", "other.example.com"]],
     "broken.example.com": [["SERVFAIL"]]}

and these rows that are faults:

    ["TIMEOUT"]            no reply to types without records here
    ["SERVFAIL"]           likewise; also REFUSED, FORMERR
    ["TRUNCATE"]           by UDP only an empty reply with TC set
    ["LAZY-CNAME", NAME]   an alias, without the records of its target
    ["GARBAGE"]            a reply that is no DNS message
    ["SLOW", MS]           by UDP replies come so much later

Names that have names below them exist (NODATA, not NXDOMAIN).

    dnsd.py [--port N] [--ad] ZONE.json     prints "HOST:PORT", serves until SIGTERM
"""
import argparse
import json
import random
import signal
import socket
import struct
import sys
import threading

TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28}
RCODES = {"FORMERR": 1, "SERVFAIL": 2, "REFUSED": 5}
NXDOMAIN = 3
TTL = 60
NEGATIVE_TTL = 30
PORT_ATTEMPTS = 50
PORTS = range(1100, 5000)


def normal(name):
    return name.lower().rstrip(".")


def pack_name(name):
    out = b""
    for label in name.rstrip(".").split(".") if name.rstrip(".") else []:
        raw = label.encode("utf-8")
        out += bytes([len(raw)]) + raw
    return out + b"\0"


def pack_strings(value):
    strings = [value] if isinstance(value, str) else value
    out = b""
    for text in strings:
        raw = text.encode("utf-8")
        chunks = [raw[i:i + 255] for i in range(0, len(raw), 255)] or [b""]
        for chunk in chunks:
            out += bytes([len(chunk)]) + chunk
    return out


def pack_data(row):
    kind = row[0]
    if kind == "A":
        return socket.inet_pton(socket.AF_INET, row[1])
    if kind == "AAAA":
        return socket.inet_pton(socket.AF_INET6, row[1])
    if kind == "MX":
        return struct.pack(">H", row[1]) + pack_name(row[2])
    if kind == "TXT":
        return pack_strings(row[1])
    return pack_name(row[1])


class Query:
    """The one question of a message."""

    def __init__(self, data):
        self.id, self.flags, count = struct.unpack(">HHH", data[:6])
        if count != 1:
            raise ValueError("one question expected")
        at, labels = 12, []
        while data[at]:
            size = data[at]
            labels.append(data[at + 1:at + 1 + size].decode("utf-8", "replace"))
            at += 1 + size
        self.name = normal(".".join(labels))
        self.type = struct.unpack(">H", data[at + 1:at + 3])[0]
        self.question = data[12:at + 5]
        self.udp_size = 512
        rest = data[at + 5:]
        if len(rest) >= 11 and rest[0] == 0 and rest[1:3] == b"\0\x29":
            self.udp_size = max(512, struct.unpack(">H", rest[3:5])[0])


class Zone:
    def __init__(self, rows, authentic=False):
        self.rows = {normal(name): [r if isinstance(r, list) else [r] for r in value]
                     for name, value in rows.items()}
        self.authentic = authentic
        self.nodes = set()
        for name in self.rows:
            labels = name.split(".")
            self.nodes.update(".".join(labels[i:]) for i in range(len(labels)))

    def resolve(self, name, qtype):
        """Returns (answers, status): status is None, NXDOMAIN or a fault's word."""
        answers, seen = [], set()
        while True:
            rows = self.rows.get(name, [])
            found = [r for r in rows if TYPES.get(r[0]) == qtype]
            words = [r[0] for r in rows]
            if "TRUNCATE" in words:
                answers.append("TRUNCATE")
            if found:
                return answers + [(name, r) for r in found], None
            alias = [r for r in rows if r[0] in ("CNAME", "LAZY-CNAME")]
            if alias:
                target = normal(alias[0][1])
                answers.append((name, ["CNAME", target]))
                if alias[0][0] == "LAZY-CNAME" or target in seen:
                    return answers, "CUT"
                seen.add(target)
                name = target
                continue
            for word in words:
                if word in RCODES or word in ("TIMEOUT", "GARBAGE"):
                    return answers, word
            return answers, None if name in self.nodes else NXDOMAIN

    def reply(self, query, tcp):
        answers, status = self.resolve(query.name, query.type)
        truncate = "TRUNCATE" in answers and not tcp
        answers = [a for a in answers if a != "TRUNCATE"]
        if status == "TIMEOUT":
            return None
        if status == "GARBAGE":
            return struct.pack(">H", query.id) + b"\x81\x80\xff"
        rcode = RCODES.get(status, status if status == NXDOMAIN else 0)
        body, soa = b"", b""
        for owner, row in answers:
            data = pack_data(row)
            body += pack_name(owner) + struct.pack(">HHIH", TYPES[row[0]], 1, TTL, len(data)) + data
        if status != "CUT" and (not answers or answers[-1][1][0] == "CNAME"):
            data = pack_name("ns.invalid") * 2 + struct.pack(">IIIII", 1, 1, 1, 1, NEGATIVE_TTL)
            soa = pack_name("") + struct.pack(">HHIH", TYPES["SOA"], 1, TTL, len(data)) + data
        flags = 0x8180 | rcode | (0x20 if self.authentic else 0)
        head = struct.pack(">HHHHHH", query.id, flags, 1, len(answers), 1 if soa else 0, 0)
        message = head + query.question + body + soa
        if truncate or (not tcp and len(message) > query.udp_size):
            head = struct.pack(">HHHHHH", query.id, flags | 0x200, 1, 0, 0, 0)
            message = head + query.question
        return message


def bind_both(host, port):
    """Sockets for UDP and TCP on one port.  Where any will do it is one below those that sockets
    get by themselves: a server that went away may be there again."""
    candidates = [port] if port else random.sample(PORTS, PORT_ATTEMPTS)
    for candidate in candidates:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            udp.bind((host, candidate))
            tcp.bind(udp.getsockname())
            return udp, tcp
        except OSError:
            udp.close()
            tcp.close()
            if candidate == candidates[-1]:
                raise


class Server:
    """Serves ZONE until close(); `queries` lists (name, type, "udp"|"tcp")."""

    def __init__(self, rows, host="127.0.0.1", port=0, authentic=False):
        self.zone = Zone(rows, authentic)
        self.queries = []
        self.udp, self.tcp = bind_both(host, port)
        self.port = self.udp.getsockname()[1]
        self.tcp.listen(64)
        self.address = "%s:%d" % (host, self.port)
        for target in (self.serve_udp, self.serve_tcp):
            threading.Thread(target=target, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for sock in (self.udp, self.tcp):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()

    def answer(self, data, transport):
        query = Query(data)
        self.queries.append((query.name, query.type, transport))
        return self.zone.reply(query, transport == "tcp")

    def send_udp(self, reply, peer):
        try:
            self.udp.sendto(reply, peer)
        except OSError:
            pass  # closed meanwhile

    def serve_udp(self):
        while True:
            try:
                data, peer = self.udp.recvfrom(65535)
            except OSError:
                return
            if not data:
                return
            try:
                reply = self.answer(data, "udp")
            except (ValueError, IndexError, struct.error):
                continue
            if reply is None:
                continue
            slow = [row[1] for row in self.zone.rows.get(self.queries[-1][0], []) if row[0] == "SLOW"]
            if slow:
                threading.Timer(slow[0] / 1000, self.send_udp, (reply, peer)).start()
            else:
                self.send_udp(reply, peer)

    def serve_tcp(self):
        while True:
            try:
                conn, _ = self.tcp.accept()
            except OSError:
                return
            threading.Thread(target=self.serve_connection, args=(conn,), daemon=True).start()

    def serve_connection(self, conn):
        with conn, conn.makefile("rb") as stream:
            while True:
                head = stream.read(2)
                if len(head) < 2:
                    return
                reply = self.answer(stream.read(struct.unpack(">H", head)[0]), "tcp")
                if reply is None:
                    return
                conn.sendall(struct.pack(">H", len(reply)) + reply)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ad", action="store_true", help="set the AD bit")
    parser.add_argument("zone")
    options = parser.parse_args()
    with open(options.zone, encoding="utf-8") as stream:
        server = Server(json.load(stream), options.host, options.port, options.ad)
    print(server.address, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
