"""Private Redis servers: one, a master with replicas under Sentinel, or a cluster."""
import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from tests.frame.wait import wait_until

HOST = "127.0.0.1"
START_S = 60
# Below the ports that connections get by themselves, also those of a cluster's nodes, 10000 above: a server
# that is away, or has not come yet, must find its port free.
PORT_FIRST, PORT_LAST = 5000, 10999


def free_ports(count, bus=False):
    """COUNT ports that nobody has; with BUS also those 10000 above."""
    ports, candidate = [], PORT_FIRST + os.getpid() * 37 % 5000
    while len(ports) < count:
        candidate = candidate + 1 if candidate < PORT_LAST else PORT_FIRST
        wanted = [candidate, candidate + 10000] if bus else [candidate]
        try:
            for port in wanted:
                with socket.socket() as sock:
                    sock.bind((HOST, port))
        except OSError:
            continue
        ports.append(candidate)
    return ports


class RedisServer:
    """One redis-server (or, with SENTINEL, a sentinel) in a folder of its own."""

    def __init__(self, port, *options, sentinel=None):
        self.port = port
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="postern-redis-"))
        self.sentinel = sentinel
        self.options = options
        self.process = None

    def start(self):
        lines = [f"port {self.port}", f"bind {HOST}", f"dir {self.dir}", 'save ""', "appendonly no",
                 "protected-mode no", "repl-diskless-sync-delay 0", f"unixsocket {self.dir}/redis.sock"]
        if self.sentinel:
            lines = [f"port {self.port}", f"bind {HOST}", f"dir {self.dir}", *self.sentinel]
        config = self.dir / "redis.conf"
        if not (self.sentinel and config.exists()):  # a sentinel keeps its state in it
            config.write_text("\n".join([*lines, *self.options]) + "\n")
        argv = ["redis-server", str(config)] + (["--sentinel"] if self.sentinel else [])
        with open(self.dir / "log", "ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(lambda: self.try_ask("PING") == "PONG", START_S, f"redis at {self.port}")
        return self

    def try_ask(self, *words):
        try:
            return self.ask(*words)
        except subprocess.CalledProcessError:
            return None

    def ask(self, *words, password=None):
        """What redis-cli prints."""
        auth = ["-a", password, "--no-auth-warning"] if password else []
        done = subprocess.run(["redis-cli", "-e", "-h", HOST, "-p", str(self.port), *auth, *map(str, words)],
                              capture_output=True, text=True, check=True, timeout=30)
        return done.stdout.strip()

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.process.wait(30)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(30)
        shutil.rmtree(self.dir, ignore_errors=True)


class Sentinels:
    """A master with one replica, and three sentinels that watch it under the name `limits`."""

    NAME = "limits"

    def __init__(self):
        ports = free_ports(5)
        self.servers = [RedisServer(ports[0]), RedisServer(ports[1], f"replicaof {HOST} {ports[0]}")]
        watch = [f"sentinel monitor {self.NAME} {HOST} {ports[0]} 2", f"sentinel down-after-milliseconds {self.NAME} 700",
                 f"sentinel failover-timeout {self.NAME} 3000"]
        self.sentinels = [RedisServer(port, sentinel=watch) for port in ports[2:]]
        self.address = f"sentinel:{self.NAME}@" + ",".join(f"{HOST}:{port}" for port in ports[2:])

    def start(self):
        for server in (*self.servers, *self.sentinels):
            server.start()
        wait_until(lambda: "master_link_status:up" in self.servers[1].ask("INFO", "replication"), START_S, "replica")
        for sentinel in self.sentinels:
            wait_until(lambda s=sentinel: f"slaves=1,sentinels={len(self.sentinels)}" in s.ask("INFO", "sentinel"),
                       START_S, "sentinels know each other")
        return self

    def master_port(self):
        return int(self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.NAME).split()[1])

    def stop(self):
        for server in (*self.sentinels, *self.servers):
            server.stop()


class Cluster:
    """A Redis Cluster of three masters, and with REPLICAS as many replicas."""

    def __init__(self, replicas=0):
        ports = free_ports(3 * (1 + replicas), bus=True)
        self.replicas = replicas
        self.servers = [RedisServer(port, "cluster-enabled yes", "cluster-node-timeout 1000") for port in ports]
        self.address = "cluster:" + ",".join(f"{HOST}:{port}" for port in ports[:2])

    def start(self):
        for server in self.servers:
            server.start()
        nodes = [f"{HOST}:{server.port}" for server in self.servers]
        subprocess.run(["redis-cli", "--cluster", "create", *nodes, "--cluster-replicas", str(self.replicas),
                        "--cluster-yes"], check=True, capture_output=True, timeout=60)
        for server in self.servers:
            wait_until(lambda s=server: "cluster_state:ok" in s.ask("CLUSTER", "INFO"), START_S, "cluster")
        # A replica that has no copy yet does not take over.
        wait_until(lambda: self.synced() == 3 * self.replicas, START_S, "replicas")
        return self

    def synced(self):
        return sum("master_link_status:up" in server.ask("INFO", "replication") for server in self.servers)

    def server_of(self, key):
        """The master that has the slot of KEY."""
        slot = int(self.servers[0].ask("CLUSTER", "KEYSLOT", key))
        for server in self.servers:
            for line in self.servers[0].ask("CLUSTER", "NODES").splitlines():
                words = line.split()
                if words[1].startswith(f"{HOST}:{server.port}@") and "master" in words[2]:
                    ranges = [w.split("-") for w in words[8:] if not w.startswith("[")]
                    if any(int(r[0]) <= slot <= int(r[-1]) for r in ranges):
                        return server
        raise AssertionError(f"nobody has slot {slot}")

    def stop(self):
        for server in self.servers:
            server.stop()


def paused(server, seconds):
    """Stops SERVER for SECONDS (SIGSTOP): connections stay, answers do not come."""
    server.kill(signal.SIGSTOP)
    time.sleep(seconds)
    server.kill(signal.SIGCONT)


class ClockProxy:
    """Stands before a server at PORT whose clock seems to be `offset_ms` ahead: numbers of 13 digits in
    its answers, which are times in milliseconds, are moved."""

    def __init__(self, port):
        self.target, self.offset_ms = port, 0
        self.listener = socket.create_server((HOST, 0))
        self.port = self.listener.getsockname()[1]
        self.sockets = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, server = self.listener.accept()[0], socket.create_connection((HOST, self.target))
                self.sockets += [client, server]
                threading.Thread(target=self.pump, args=(client, server, lambda data: data), daemon=True).start()
                threading.Thread(target=self.pump, args=(server, client, self.moved), daemon=True).start()

    def moved(self, data):
        return re.sub(rb"^:(\d{13})\r$", lambda found: b":%d\r" % (int(found[1]) + self.offset_ms), data, flags=re.M)

    @staticmethod
    def pump(source, target, change):
        """Whole lines only: an answer always ends with one."""
        rest = b""
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                lines, newline, rest = (rest + data).rpartition(b"\n")
                target.sendall(change(lines + newline))
            target.shutdown(socket.SHUT_RDWR)

    def stop(self):
        for one in (self.listener, *self.sockets):
            one.close()
