"""How long the machine itself stood still: what it held up was no wait of ours.

    with Stalls(folder) as stalls:
        began = time.monotonic()
        ...
        took = time.monotonic() - began
    self.assertLess(took, 1.2 + stalls.excuse())
"""
import os
import tempfile
import threading
import time

EVERY_S = 0.05
# A delivery needs the disk and its turn at a processor several times.
TURNS = 4


class Stalls:
    """Writes a few bytes to a file in FOLDER and syncs them again and again, and keeps what that took at worst."""

    def __init__(self, folder):
        self.folder, self.longest = folder, 0.0
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.thread.join()

    def run(self):
        with tempfile.TemporaryFile(dir=self.folder) as file:
            due = time.monotonic()
            while not self.ending.wait(max(0.0, due - time.monotonic())):
                os.pwrite(file.fileno(), b"x", 0)
                os.fsync(file.fileno())
                done = time.monotonic()
                self.longest = max(self.longest, done - due)
                due = done + EVERY_S

    def excuse(self):
        """Seconds that something may have taken longer for it."""
        return TURNS * self.longest
