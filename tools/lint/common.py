"""What the lint scripts share: the repository, its files, and how to report."""
import json
import pathlib
import shlex
import subprocess
import sys

REPO = pathlib.Path(__file__).resolve().parents[2]
DAEMONS = ("milter-dkim", "policyd-ratelimit", "lmtp-indexer", "dovecot-plugin-quota", "postern")


def tracked(*patterns):
    """Files of the repository, as git knows them, relative to its top."""
    out = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=REPO, check=True,
                         stdout=subprocess.PIPE, text=True).stdout
    return [name for name in out.split("\0") if name and (REPO / name).is_file()]


def product_sources():
    """C files and headers of the libraries and daemons."""
    folders = ("lib/", *(f"{d}/" for d in DAEMONS))
    return [name for name in tracked("*.c", "*.h") if name.startswith(folders)]


def make(target):
    return subprocess.run(["make", "-s", "--no-print-directory", target], cwd=REPO, check=True,
                          stdout=subprocess.PIPE, text=True).stdout


def compile_commands():
    """One {file, flags} for each compiled source of the product."""
    rows = []
    for line in make("lint-sources").splitlines():
        words = shlex.split(line)
        rows.append({"file": words[0], "flags": words[1:]})
    return rows


def write_compdb(folder):
    """compile_commands.json for clang-tidy and cppcheck."""
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    path = pathlib.Path(folder) / "compile_commands.json"
    # Double quotes escaped: what clang-tidy and cppcheck both understand.
    path.write_text(json.dumps([
        {"directory": str(REPO), "file": row["file"],
         "command": " ".join(["cc", *(f.replace('"', '\\"') for f in row["flags"]), "-c", row["file"]])}
        for row in compile_commands()]))
    return path


def finish(findings):
    """Prints the findings and ends with the exit status that they ask for."""
    for finding in findings:
        print(finding)
    sys.exit(1 if findings else 0)
