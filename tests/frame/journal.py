"""A journald of one's own, in mount and file system namespaces of their own.

usage: unshare -m python3 -m tests.frame.journal CATALOG -- PROGRAM [ARGUMENT...]

Starts systemd-journald on an empty /run with CATALOG as the only catalog, runs
PROGRAM to its end, and prints as JSON what the journal then holds: "entries", each
an object of fields, and "explained", the text of `journalctl -x`.
"""
import json
import os
import shutil
import signal
import subprocess
import sys

from tests.frame.wait import wait_until

JOURNALD = "/lib/systemd/systemd-journald"
CGROUPS = "/sys/fs/cgroup"
EMPTY = ("/run", "/var/log", "/usr/lib/systemd/catalog", "/var/lib/systemd/catalog")


def output(*argv):
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout.decode(errors="replace")


def tmpfs(folder):
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)


def have_cgroups():
    """journald does not start without the place of the control groups, which a bare
    chroot lacks; that there are none in it does not trouble it."""
    if os.path.ismount(CGROUPS):
        return
    tmpfs(CGROUPS if os.path.isdir(CGROUPS) else "/sys")
    os.makedirs(f"{CGROUPS}/systemd")


def main():
    catalog, program = sys.argv[1], sys.argv[3:]
    with open(catalog, "rb") as file:
        text = file.read()
    for folder in EMPTY:
        tmpfs(folder)
    have_cgroups()
    with open("/usr/lib/systemd/catalog/test.catalog", "wb") as file:
        file.write(text)
    output("journalctl", "--update-catalog")
    os.makedirs("/run/systemd/journal")
    journald = subprocess.Popen([shutil.which(JOURNALD)], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: os.path.exists("/run/systemd/journal/socket"), what="journald")
        subprocess.run(program, check=True, stdout=sys.stderr)
        output("journalctl", "--sync")
        lines = output("journalctl", "-o", "json", "--no-pager", "_TRANSPORT=journal").splitlines()
        explained = output("journalctl", "-x", "--no-pager", "_TRANSPORT=journal")
    finally:
        journald.send_signal(signal.SIGTERM)
        journald.wait()
    json.dump({"entries": [json.loads(line) for line in lines], "explained": explained}, sys.stdout)


if __name__ == "__main__":
    main()
