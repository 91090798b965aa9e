"""What can become of the database under a daemon, each as a block that ends with all as it was.  A PLACE is a
trigger's, such as "BEFORE INSERT ON rate_events"."""
import contextlib
import signal

from tests.frame import sql
from tests.frame.wait import wait_until

DEADLOCKS = 3


@contextlib.contextmanager
def hangs(stack):
    """It neither answers nor ends."""
    stack.kill("mysql", signal.SIGSTOP)
    try:
        yield
    finally:
        stack.kill("mysql", signal.SIGCONT)


@contextlib.contextmanager
def no_connection_free(stack, daemon):
    """DAEMON starts while all connections are taken."""
    most = int(sql.value(stack, "SELECT @@max_connections"))
    sql.rows(stack, "SET GLOBAL max_connections = 10")
    with contextlib.ExitStack() as held:
        held.callback(lambda: sql.rows(stack, f"SET GLOBAL max_connections = {most}"))
        stack.stop(daemon)
        with contextlib.suppress(AssertionError, BrokenPipeError):  # one in use is not ours
            for _ in range(11):
                held.enter_context(sql.session(stack))
        stack.start(daemon)
        yield


@contextlib.contextmanager
def deadlocks(stack, place):
    """Error 1213 at the first tries; yields a function that tells how many there were."""
    stack.mariadb(
        "CREATE TABLE test_tries (n INT) ENGINE=MyISAM; INSERT INTO test_tries VALUES (0);\n"
        f"DELIMITER //\nCREATE TRIGGER test_deadlock {place} FOR EACH ROW BEGIN "
        f"UPDATE test_tries SET n = n + 1; IF (SELECT n FROM test_tries) <= {DEADLOCKS} THEN "
        "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock found'; END IF; END//\n")
    try:
        yield lambda: int(sql.value(stack, "SELECT n FROM test_tries"))
    finally:
        stack.mariadb("DROP TRIGGER test_deadlock; DROP TABLE test_tries")


@contextlib.contextmanager
def dies_in_mid_statement(stack, place):
    """It is killed, and started, in the middle of a statement that the block has set off."""
    stack.mariadb(f"DELIMITER //\nCREATE TRIGGER test_slow {place} FOR EACH ROW BEGIN DO SLEEP(20); END//\n")
    try:
        yield
        wait_until(lambda: sql.value(stack, "SELECT COUNT(*) FROM information_schema.processlist "
                                            "WHERE state = 'User sleep'") != "0", 20, "the statement under way")
        stack.kill("mysql")
        stack.start("mysql")
    finally:
        stack.mariadb("DROP TRIGGER IF EXISTS test_slow")
