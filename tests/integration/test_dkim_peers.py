"""Generated signatures, good and spoilt, judged by us and by dkimpy, Mail::DKIM and
OpenDKIM; see tests/conformance/dkim_peers.py."""
import json
import os
import subprocess
import unittest

from tests.frame.layout import REPO, Layout

COUNT = int(os.environ.get("PEER_MESSAGES", "250"))


class Peers(unittest.TestCase):
    def test_what_was_made_is_what_is_said(self):
        done = subprocess.run([REPO / "tests/conformance/dkim_peers.py", Layout().build / "bin/postern", "--count", str(COUNT)],
                              capture_output=True, timeout=300 + COUNT, check=False)
        self.assertTrue(done.stdout, done.stderr)
        result = json.loads(done.stdout)
        self.assertEqual(result["wrong"], [])
        judged = result["judged"]
        self.assertEqual(judged["pass"] + judged["spoilt"], COUNT)
        for peer, changes in result["peers"].items():
            # They miss rules, but a plain message is never in dispute.
            self.assertGreater(judged[peer], COUNT // 4)
            self.assertNotIn(" is refused", changes, peer)
            self.assertLess(sum(changes.values()), judged[peer] // 2, peer)


if __name__ == "__main__":
    unittest.main()
