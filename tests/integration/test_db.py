"""lib/run/db on the real MariaDB: the checks are in db_probe.c."""
import os
import subprocess
import unittest

from tests.frame.case import StackCase


class Database(StackCase):
    def test_probe(self):
        self.stack.mariadb("CREATE DATABASE IF NOT EXISTS test_db", database=None)
        self.addCleanup(self.stack.mariadb, "DROP DATABASE test_db", database=None)
        done = subprocess.run(
            [self.stack.at.build / "helpers/db_probe"], env=os.environ | {"DB_SOCKET": str(self.stack.mysql_socket)},
            capture_output=True, text=True, check=False, timeout=120,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("100%: Checks: 12,", done.stdout)


if __name__ == "__main__":
    unittest.main()
