#!/usr/bin/python3
"""The life of the packages on a machine that was just installed: refused, installed, used, upgraded, removed and
purged.  For `tools/machine run`: /mnt has the packages, this file, and debian/tests as `autopkgtest`.

The steps build on one another and run in the order in which they stand here.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import traceback

MNT = pathlib.Path("/mnt")
WORK = pathlib.Path("/root/packages")
DAEMONS = ("milter-dkim", "policyd-ratelimit", "lmtp-indexer", "quotad")
NAMES = ("postern", "dovecot-postern", *(f"postern-{name}" for name in DAEMONS))
CONFFILES = {f"/etc/postern/{name}.conf" for name in ("postern", *DAEMONS)}
TMPFILES = pathlib.Path("/usr/lib/tmpfiles.d/postern.conf")
MAIL = pathlib.Path("/var/mail/vhosts")
EDITED = "# the administrator was here\n"


def run(*argv, check=True, **more):
    done = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, **more)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(map(str, argv))} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout if check else done


def equal(found, wanted):
    if found != wanted:
        raise AssertionError(f"{found!r} instead of {wanted!r}")


def install(*files, check=True):
    """Without a network: what the packages need is in apt's cache."""
    return run("apt-get", "install", "-q", "-y", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confdef",
               *files, check=check)


def packages():
    return sorted(MNT.glob("*.deb"))


def rebuilt(package, folder, change):
    """A copy of the package whose control file is what CHANGE makes of its text."""
    tree = WORK / "tree"
    folder.mkdir(parents=True, exist_ok=True)
    run("dpkg-deb", "-R", package, tree)
    control = tree / "DEBIAN/control"
    text = control.read_text()
    control.write_text(change(text))
    assert control.read_text() != text, package
    run("dpkg-deb", "--root-owner-group", "-b", tree, folder / package.name)
    shutil.rmtree(tree)
    return folder / package.name


def next_version(text):
    """The control file of the next version, which wants its kin of that version, too."""
    return re.sub(r"(?m)^(Version: .*)$", r"\1+1", re.sub(r"postern \(= (.*?)\)", r"postern (= \1+1)", text))


def installed():
    """Name -> version of ours that dpkg has anything of."""
    text = run("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n", *NAMES, check=False).stdout
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()
            if len(line.split()) == 3 and line.split()[0] in NAMES}


def active(*units):
    return [unit for unit in units if run("systemctl", "is-active", "-q", unit, check=False).returncode == 0]


def units():
    found = run("dpkg", "-L", *NAMES, check=False).stdout
    return sorted({pathlib.Path(line).name for line in found.splitlines()
                   if "/systemd/system/" in line and line.endswith((".service", ".socket", ".timer"))})


def pid(daemon):
    return run("systemctl", "show", "-P", "MainPID", f"{daemon}.service").strip()


def rows(query):
    return run("mariadb", "-N", "-B", "postern", "-e", query)


def left_over():
    """What bears our names outside of dpkg's own notes, apt's cache and the kernel."""
    found = set()
    skipped = {"/proc", "/sys", "/dev", "/mnt", "/var/lib/dpkg", "/var/cache/apt", "/var/lib/mysql", "/root", "/tmp",
               "/var/log"}
    for folder, folders, files in os.walk("/"):
        folders[:] = [name for name in folders if str(pathlib.Path(folder) / name) not in skipped]
        for name in folders + files:
            if re.search(r"postern|milter-dkim|policyd-ratelimit|lmtp-indexer|quotad", name):
                found.add(str(pathlib.Path(folder) / name))
                if name in folders:
                    folders.remove(name)
    return found


# ---- the steps ----

def refused_beside_another_dovecot():
    [package] = MNT.glob("dovecot-postern_*.deb")
    abi = "dovecot-abi-" + run("dpkg-deb", "-f", package, "Depends").partition("dovecot-abi-")[2].partition(",")[0]
    assert abi in run("dpkg-query", "-W", "-f", "${Provides}", "dovecot-core"), abi
    other = rebuilt(package, WORK / "other", lambda text: text.replace(abi, "dovecot-abi-2.9.abiv1"))
    done = install(other, *(p for p in packages() if p != package), check=False)
    assert done.returncode != 0 and "dovecot-abi-2.9.abiv1" in done.stdout, done.stdout
    equal(installed(), {})


def installs():
    install(*packages())
    equal(set(installed()), set(NAMES))
    equal({status for _, status in installed().values()}, {"installed"})


def nothing_starts_by_itself():
    equal(active(*units()), [])
    equal([unit for unit in units()
           if run("systemctl", "is-enabled", unit, check=False).stdout.strip() == "enabled"], [])


def units_are_sound():
    assert {f"{name}.service" for name in DAEMONS} <= set(units())
    equal(run("systemd-analyze", "verify", *units()), "")


def conffiles_are_those_of_etc():
    text = run("dpkg-query", "-W", "-f", "${Conffiles}\n", *NAMES)
    equal({line.split()[0] for line in text.splitlines() if line.strip()}, CONFFILES)


def folders_and_settings_have_their_owners():
    """Path -> mode, owner and group: those of tmpfiles.d, and settings that the group postern reads."""
    lines = [line.split() for line in TMPFILES.read_text().splitlines() if line.startswith("d ")]
    wanted = {path: f"{mode.lstrip('0')} {user}:{group}" for _, path, mode, user, group, _ in lines}
    assert "/var/lib/postern/quotad" in wanted, wanted
    wanted.update({path: "640 root:postern" for path in CONFFILES})
    equal({path: run("stat", "-c", "%a %U:%G", path).strip() for path in wanted}, wanted)


def users_have_no_shell():
    for name in ("vmail", *DAEMONS, "dmarc-report", "dmarc-import", "dkim-rotate"):
        entry = run("getent", "passwd", name).strip().split(":")
        assert entry[6].endswith("/nologin"), entry
        assert name == "vmail" or "postern" in run("id", "-Gn", name).split(), name
    equal(run("id", "-u", "vmail").strip(), "5000")


def autopkgtest_installed():
    run("sh", MNT / "autopkgtest/installed")


def autopkgtest_mail():
    print(run("python3", MNT / "autopkgtest/mail"))


def upgrade_keeps_settings_and_state():
    settings = pathlib.Path("/etc/postern/quotad.conf")
    settings.write_text(settings.read_text() + EDITED)
    usage = "SELECT email, usage_bytes, messages FROM mailbox_usage ORDER BY email"
    before, old, pids = rows(usage), installed()["postern"][0], {name: pid(name) for name in DAEMONS}
    assert before.count("\n") == 2 and "0" not in pids.values(), (before, pids)
    newer = [rebuilt(package, WORK / "newer", next_version) for package in packages()]
    install(*newer)
    equal({tuple(found) for found in installed().values()}, {(old + "+1", "installed")})
    assert settings.read_text().endswith(EDITED)
    for name in DAEMONS:
        assert pid(name) not in ("0", pids[name]), f"{name} still runs as it was"
        equal(run("systemctl", "is-active", f"{name}.service").strip(), "active")
    equal(rows(usage), before)
    folders_and_settings_have_their_owners()
    run("python3", MNT / "autopkgtest/mail", "Mail.test_arrives_by_all_of_our_parts", env={**os.environ, "WIRED": "1"})


def wiring_is_undone():
    run("/usr/share/postern/deploy/postfix/wire", "undo")
    run("sh", "-c", "rm -r /etc/dovecot/conf.d/9*-postern*.conf /etc/postfix/postern; rm -f /etc/dovecot/postern-sql.conf"
        " /etc/mysql/mariadb.conf.d/60-postern.cnf; postfix reload; doveadm reload")


def removal_stops_all_and_keeps_settings():
    shipped = units()
    run("systemctl", "start", "postern-dkim-rotate.timer")
    out = run("apt-get", "remove", "-q", "-y", *NAMES)
    assert "warn" not in out.lower(), out
    equal({status for _, status in installed().values()}, {"config-files"})
    equal(active(*shipped), [])
    for path in CONFFILES:
        assert os.path.exists(path), path
    assert list(pathlib.Path("/var/lib/postern/quotad").iterdir())
    run("systemctl", "daemon-reload")
    for unit in shipped:
        equal(run("systemctl", "show", "-P", "LoadState", unit).strip() in ("not-found", "masked"), True)


def purge_leaves_mail_users_and_certificate():
    mails = sorted(str(path) for path in MAIL.glob("**/*,S=*"))
    assert mails
    run("apt-get", "purge", "-q", "-y", *NAMES)
    equal(installed(), {})
    equal(sorted(str(path) for path in MAIL.glob("**/*,S=*")), mails)
    equal(left_over(), {"/etc/postern"})
    equal(sorted(str(path) for path in pathlib.Path("/etc/postern").rglob("*")),
          [f"/etc/postern/tls{name}" for name in ("", "/fullchain.pem", "/privkey.pem")])
    run("getent", "passwd", "vmail")


def installs_again():
    shutil.rmtree("/etc/postern")
    install(*packages())
    folders_and_settings_have_their_owners()


STEPS = (refused_beside_another_dovecot, installs, nothing_starts_by_itself, units_are_sound,
         conffiles_are_those_of_etc, folders_and_settings_have_their_owners, users_have_no_shell,
         autopkgtest_installed, autopkgtest_mail, upgrade_keeps_settings_and_state, wiring_is_undone,
         removal_stops_all_and_keeps_settings, purge_leaves_mail_users_and_certificate, installs_again)


def main():
    failed = 0
    for step in STEPS:
        began = time.monotonic()
        try:
            step()
            word = "ok"
        except Exception:  # the next steps still tell something
            traceback.print_exc(file=sys.stdout)
            failed += 1
            word = "FAIL"
        print(f"{step.__name__} ... {word}, {time.monotonic() - began:.1f} s", flush=True)
    print(f"{len(STEPS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
