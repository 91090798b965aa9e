"""Runs one daemon from its unit files, the way systemd would.

usage: python3 -m tests.frame.supervise ROOT BASE NAME

Opens the sockets of NAME.socket with their owners and modes and keeps them over
restarts of the daemon, hands them over (LISTEN_FDS), listens to sd_notify,
kills a daemon whose watchdog is silent, and starts it again when it dies.  The
daemon runs under the numeric ids that stand for User= and Group=.

ROOT/run/units/NAME.pid exists while the daemon is ready; it holds its pid.
SIGTERM stops the daemon, then this process; SIGHUP is handed on.
"""
import grp
import os
import pwd
import re
import resource
import selectors
import shlex
import signal
import socket
import sys
import time

from tests.frame.layout import USERS, Layout

LISTEN_FDS_START = 3
BACKLOG = 1024
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def read_unit(path):
    """The settings of a unit file as {section: [(key, value), ...]}."""
    sections, current = {}, None
    for line in re.sub(r"\\\n\s*", " ", path.read_text()).splitlines():
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            current = sections.setdefault(line.strip("[]"), [])
        else:
            key, _, value = line.partition("=")
            current.append((key.strip(), value.strip()))
    return sections


def settings(section, key):
    return [value for name, value in section if name == key]


def setting(section, key, default=None):
    values = settings(section, key)
    return values[-1] if values else default


def seconds(text):
    """A time span of systemd with one unit."""
    number, unit = re.fullmatch(r"([\d.]+)\s*(ms|s|min|)", text).groups()
    return float(number) * {"ms": 0.001, "s": 1, "": 1, "min": 60}[unit]


def user_id(name):
    return USERS[name] if name in USERS else pwd.getpwnam(name).pw_uid


def group_id(name):
    return USERS[name] if name in USERS else grp.getgrnam(name).gr_gid


class Supervisor:
    """One daemon, its sockets and its life."""

    def __init__(self, layout, name):
        units = layout.path("/etc/systemd")
        self.name = name
        self.service = read_unit(units / f"{name}.service")["Service"]
        self.watchdog_s = seconds(setting(self.service, "WatchdogSec", "0"))
        self.restart_s = seconds(setting(self.service, "RestartSec", "100ms"))
        self.stop_s = seconds(setting(self.service, "TimeoutStopSec", "90s"))
        self.fatal = {int(n) for n in setting(self.service, "RestartPreventExitStatus", "").split()}
        self.pid_file = layout.path(f"/run/units/{name}.pid")
        self.sockets = self.open_sockets(units)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify_path = str(layout.path(f"/run/units/{name}.notify"))
        if os.path.exists(self.notify_path):
            os.unlink(self.notify_path)
        self.notify.bind(self.notify_path)
        os.chmod(self.notify_path, 0o666)
        self.pid = None
        self.stopping = False
        self.last_beat = 0.0  # of the watchdog, or when the stop began

    def open_sockets(self, units):
        opened = []
        for path in sorted(units.glob(f"{self.name}*.socket")):
            section = read_unit(path)["Socket"]
            name = setting(section, "FileDescriptorName", path.name)
            kinds = [("ListenStream", socket.SOCK_STREAM), ("ListenSequentialPacket", socket.SOCK_SEQPACKET)]
            for address, kind in [(a, kind) for key, kind in kinds for a in settings(section, key)]:
                sock = socket.socket(socket.AF_UNIX, kind)
                if os.path.exists(address):
                    os.unlink(address)
                sock.bind(address)
                os.chown(
                    address,
                    user_id(setting(section, "SocketUser", "root")),
                    group_id(setting(section, "SocketGroup", "root")),
                )
                os.chmod(address, int(setting(section, "SocketMode", "0666"), 8))
                sock.listen(BACKLOG)
                opened.append((sock, name))
        return opened

    def spawn(self):
        self.last_beat = time.monotonic()
        # A signal between fork and exec would end in our own handler.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.become_daemon()
            except Exception as error:  # the child must never return
                print(f"{self.name}: {error}", file=sys.stderr, flush=True)
                os._exit(127)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def become_daemon(self):
        signal.set_wakeup_fd(-1)
        for number in (*SIGNALS, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "NOTIFY_SOCKET": self.notify_path,
        }
        if self.watchdog_s:
            env |= {"WATCHDOG_USEC": str(int(self.watchdog_s * 1e6)), "WATCHDOG_PID": str(os.getpid())}
        # Duplicates first go above the range they must end in.
        high = [os.dup(sock.fileno()) for sock, _ in self.sockets]
        for index, fd in enumerate(high):
            os.dup2(fd, LISTEN_FDS_START + index, inheritable=True)
        os.closerange(LISTEN_FDS_START + len(high), 1024)
        if high:
            env |= {
                "LISTEN_FDS": str(len(high)),
                "LISTEN_PID": str(os.getpid()),
                "LISTEN_FDNAMES": ":".join(name for _, name in self.sockets),
            }
        limit = setting(self.service, "LimitNOFILE")
        if limit:
            resource.setrlimit(resource.RLIMIT_NOFILE, (int(limit), int(limit)))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.setpriority(os.PRIO_PROCESS, 0, int(setting(self.service, "Nice", "0")))
        os.umask(int(setting(self.service, "UMask", "0022"), 8))
        for line in settings(self.service, "Environment"):
            env |= dict(item.split("=", 1) for item in shlex.split(line))
        env |= {k: v for k, v in os.environ.items() if k.endswith("SAN_OPTIONS")}
        user = setting(self.service, "User", "root")
        os.setgroups([group_id(g) for g in setting(self.service, "SupplementaryGroups", "").split()])
        os.setgid(group_id(setting(self.service, "Group", user)))
        os.setuid(user_id(user))
        os.chdir("/")
        argv = shlex.split(setting(self.service, "ExecStart"))
        os.execve(argv[0], argv, env)

    def hear(self):
        """Takes the datagrams of sd_notify."""
        while True:
            try:
                message = self.notify.recv(8192, socket.MSG_DONTWAIT).decode(errors="replace")
            except BlockingIOError:
                return
            lines = message.splitlines()
            if not self.stopping:
                self.last_beat = time.monotonic()
            if "READY=1" in lines and self.pid:
                temporary = self.pid_file.with_suffix(".new")
                temporary.write_text(f"{self.pid}\n")
                temporary.rename(self.pid_file)

    def reap(self):
        """True when this process is to end."""
        pid, status = os.waitpid(self.pid, os.WNOHANG) if self.pid else (0, 0)
        if pid == 0:
            return False
        self.pid = None
        self.pid_file.unlink(missing_ok=True)
        code = os.waitstatus_to_exitcode(status)
        print(f"supervise: {self.name} ended with {code}", file=sys.stderr, flush=True)
        if self.stopping or code in self.fatal:
            return True
        time.sleep(self.restart_s)
        self.spawn()
        return False

    def on_signal(self, number):
        if number == signal.SIGHUP and self.pid:
            os.kill(self.pid, signal.SIGHUP)
        elif number in (signal.SIGTERM, signal.SIGINT) and not self.stopping:
            self.stopping = True
            self.last_beat = time.monotonic()
            if self.pid:
                os.kill(self.pid, signal.SIGTERM)
                os.kill(self.pid, signal.SIGCONT)

    def check_time(self):
        """A stop that takes too long, or a watchdog that is silent, kills."""
        if not self.pid:
            return
        silent = time.monotonic() - self.last_beat
        if self.stopping and silent > self.stop_s:
            print(f"supervise: {self.name}: does not stop", file=sys.stderr, flush=True)
            os.kill(self.pid, signal.SIGKILL)
        elif not self.stopping and self.watchdog_s and silent > self.watchdog_s:
            print(f"supervise: {self.name}: watchdog", file=sys.stderr, flush=True)
            os.kill(self.pid, signal.SIGKILL)

    def run(self):
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(writer.fileno())
        waiter = selectors.DefaultSelector()
        waiter.register(reader, selectors.EVENT_READ)
        waiter.register(self.notify, selectors.EVENT_READ)
        self.spawn()
        while True:
            waiter.select(timeout=0.5)
            try:
                for number in reader.recv(64):
                    self.on_signal(number)
            except BlockingIOError:
                pass
            self.hear()
            if self.reap() or (self.stopping and not self.pid):
                return
            self.check_time()

    def close(self):
        for sock, _ in self.sockets:
            path = sock.getsockname()
            sock.close()
            if os.path.exists(path):
                os.unlink(path)
        os.unlink(self.notify_path)
        self.pid_file.unlink(missing_ok=True)


def main():
    supervisor = Supervisor(Layout(sys.argv[1], sys.argv[2]), sys.argv[3])
    try:
        supervisor.run()
    finally:
        supervisor.close()


if __name__ == "__main__":
    main()
