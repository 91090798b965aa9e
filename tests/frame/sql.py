"""Rows of the stack's database, for looking at results, and sessions that stay."""
import contextlib
import subprocess

ESCAPES = {"n": "\n", "t": "\t", "\\": "\\", "0": "\0"}


def quote(value):
    """A value as an SQL literal."""
    if value is None:
        return "NULL"
    if isinstance(value, (int, float)):
        return str(value)
    return "'" + str(value).replace("\\", "\\\\").replace("'", "''") + "'"


def unescape(text):
    out, position = [], 0
    while position < len(text):
        if text[position] == "\\" and position + 1 < len(text):
            position += 1
            out.append(ESCAPES.get(text[position], text[position]))
        else:
            out.append(text[position])
        position += 1
    return "".join(out)


def rows(stack, statement, *values):
    """Each row as a tuple of texts; %s in STATEMENT stand for VALUES.  NULL
    comes as the text NULL."""
    if values:
        statement %= tuple(quote(value) for value in values)
    output = stack.mariadb(statement)
    return [tuple(unescape(cell) for cell in line.split("\t")) for line in output.split("\n")[:-1]]


def value(stack, statement, *values):
    """The first cell, None without a row."""
    found = rows(stack, statement, *values)
    return found[0][0] if found else None


@contextlib.contextmanager
def session(stack):
    """A session that stays open; yields a function that runs a statement in it."""
    argv = ["mariadb", "--no-defaults", "-uroot", "-S", stack.mysql_socket, "--batch", "--skip-column-names", "--unbuffered",
            "-D", "postern"]
    with subprocess.Popen([str(a) for a in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True) as client:
        def execute(statement):
            client.stdin.write(f"{statement};\nSELECT 'done';\n")
            client.stdin.flush()
            while (line := client.stdout.readline()) != "done\n":
                if not line:
                    raise AssertionError(f"the session ended: {statement}")

        try:
            execute("DO 0")
            yield execute
        finally:
            client.stdin.close()
            client.kill()


@contextlib.contextmanager
def locked(stack, table):
    """Another session holds TABLE for itself."""
    with session(stack) as execute:
        execute(f"LOCK TABLES {table} WRITE")
        yield
