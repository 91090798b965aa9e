"""The RFCs of mail authentication case by case, as an outsider would drive the
tools; see tests/conformance. Each module counts its cases."""
import re
import subprocess
import unittest

from tests.frame.layout import REPO, Layout


class Conformance(unittest.TestCase):
    def cases(self, module, at_least, *options):
        """The module's own line tells; a case that vanished is a failure, too."""
        done = subprocess.run([REPO / "tests/conformance" / module, "--postern", Layout().build / "bin/postern", *options],
                              capture_output=True, text=True, timeout=600, check=False)
        counts = re.search(r"^\w+: (\d+) passed, (\d+) failed$", done.stdout, re.MULTILINE)
        self.assertTrue(counts, done.stdout + done.stderr)
        self.assertEqual((done.returncode, int(counts.group(2))), (0, 0), done.stdout)
        self.assertGreaterEqual(int(counts.group(1)), at_least)

    def test_arc_validator(self):
        self.cases("arc_rfc8617.py", 293)

    def test_arc_sealer(self):
        self.cases("arc_sealing.py", 28)

    def test_dmarc(self):
        self.cases("dmarc_rfc9989.py", 89)

    def test_dmarc_tree_walk(self):
        self.cases("dmarc_walk.py", 600)

    def test_dmarc_public_suffixes(self):
        self.cases("dmarc_walk.py", 600, "--discovery", "psl")

    def test_authentication_results(self):
        self.cases("authres_rfc8601.py", 400)

    def test_dns_manners(self):
        self.cases("dns_manners.py", 35)

    def test_contract_of_the_tools(self):
        self.cases("tools_contract.py", 16)


if __name__ == "__main__":
    unittest.main()
