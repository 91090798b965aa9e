"""policyd-ratelimit killed, stopped, restarted and reloaded, in a request and under load.

KILLS in the environment is how often it is killed at random moments (10).
"""
import contextlib
import os
import random
import signal
import smtplib
import threading
import time
from collections import Counter

from tests.frame.mail import message, smtp
from tests.frame.policy import new_instance
from tests.frame.policy_case import DAEMON, SENDER, PolicyCase
from tests.frame.policy_load import PolicyLoad

KILLS = int(os.environ.get("KILLS", "10"))
ROUNDS = 20
EVERY_S = 0.1
POSTFIX_TIMEOUT_S = 3
SLACK_S = 3  # of a busy machine
UNLIMITED = "client_ip messages 1000000/1d"


class KillCase(PolicyCase):
    def setUp(self):
        super().setUp()
        self.source, self.user = self.new_source(), self.new_user()

    def next_life(self, before=None):
        self.wait_until(lambda: self.stack.pid(DAEMON) not in (None, before), what="the next life")

    def pause(self, seconds):
        """Lets the load run on for a while."""
        threading.Event().wait(seconds)


class InARequest(KillCase):
    """Rows 6 and 7: the daemon is killed, or hangs, while Postfix waits for its answer."""

    def timed_rcpt(self, meanwhile):
        """(the reply to RCPT, seconds it took) where MEANWHILE is done once Postfix waits."""
        with smtp(self.stack, self.source) as client:
            client.ehlo_or_helo_if_needed()
            client.mail(SENDER)
            began, replies = time.monotonic(), []
            thread = threading.Thread(target=lambda: replies.append(client.rcpt(self.user)))
            thread.start()
            self.pause(0.5)
            self.assertEqual(replies, [], "Postfix waits")
            meanwhile()
            thread.join(30)
            return replies[0], time.monotonic() - began

    def test_killed(self):
        pid = self.stack.kill(DAEMON, signal.SIGSTOP)  # so that it cannot answer first
        reply, seconds = self.timed_rcpt(lambda: self.stack.kill(DAEMON))
        self.assertEqual(reply[0], 250)
        self.assertLess(seconds, POSTFIX_TIMEOUT_S)
        self.next_life(pid)

    def test_stopped(self):
        pid = self.stack.kill(DAEMON, signal.SIGSTOP)
        try:
            reply, seconds = self.timed_rcpt(lambda: None)
        finally:
            self.stack.kill(DAEMON, signal.SIGCONT)
        self.assertEqual(reply[0], 250)
        self.assertLess(seconds, POSTFIX_TIMEOUT_S + SLACK_S)
        self.assertEqual(self.stack.pid(DAEMON), pid)
        # With try_limit=1 the smtpd that gave up asks in vain until its session ends; what it had
        # asked costs nothing then.
        self.stack.reload("postfix")
        self.wait_until(lambda: self.used(self.source) == 0, what="the refund")
        with smtp(self.stack, self.source) as client:
            self.assertEqual(client.sendmail(SENDER, [self.user], message(SENDER, self.user)), {})
        self.assertEqual(self.used(self.source), 1)

    def test_watchdog_ends_one_that_hangs(self):
        unit = self.stack.at.path(f"/etc/systemd/{DAEMON}.service")
        text = unit.read_text()
        with self.client() as client:
            self.send_message(client, client_address=self.source)
        self.stack.stop(DAEMON)
        unit.write_text(text.replace("WatchdogSec=30s", "WatchdogSec=5s"))
        try:
            self.stack.start(DAEMON)
            pid = self.stack.kill(DAEMON, signal.SIGSTOP)
            self.next_life(pid)
            self.assertEqual(self.used(self.source), 1)
        finally:
            unit.write_text(text)
            self.stack.restart(DAEMON)


class UnderLoad(KillCase):
    def test_kill_at_random_moments(self):
        """The counts after a restart lie between what was acknowledged and that plus what was in flight."""
        over, flying, total = Counter(), Counter(), 0
        with self.configured(DAEMON, limit=UNLIMITED):
            for _ in range(KILLS):
                counted = self.used(self.source)
                with PolicyLoad(self.socket_path, self.source, one_life=True) as load:
                    self.wait_until(lambda load=load: load.acknowledged > 10, what="load")
                    self.pause(random.uniform(0, 0.3))
                    pid = self.stack.kill(DAEMON)
                    load.stop()
                self.next_life(pid)
                more = self.used(self.source) - counted - load.acknowledged
                self.assertGreaterEqual(more, 0, "an acknowledged message is lost")
                self.assertLessEqual(more, load.in_flight)
                self.assertEqual(load.other, [])
                over[more] += 1
                flying[load.in_flight] += 1
                total += load.acknowledged
        show = lambda counter: ", ".join(f"{number}: {times}" for number, times in sorted(counter.items()))
        print(f"\n{KILLS} kills, {total} messages acknowledged; lost: none; in flight at the kill (how often): "
              f"{show(flying)}; of them counted: {show(over)}")

    def test_a_charged_message_is_not_charged_again_after_a_crash(self):
        last = {"instance": new_instance(), "client_address": self.source, "protocol_state": "END-OF-MESSAGE",
                "recipient_count": "1"}
        limits = ["client_ip messages 1000000/1d", "client_ip recipients 1000000/1d"]
        with self.configured(DAEMON, limit=limits), self.client() as client:
            self.assertEqual(client.ask(**last), "DUNNO")
            self.stack.kill(DAEMON)
            self.next_life()
            with self.client() as again:
                self.assertEqual(again.ask(**last), "DUNNO")
            self.assertEqual(self.used(self.source), 1)

    def disturb(self, act, rounds=ROUNDS):
        """Disturbs the daemon each EVERY_S under load of both kinds: what the policy clients saw, and
        the replies of Postfix that were no acceptance."""
        refused, stopped = [], threading.Event()

        def send():
            while not stopped.is_set():
                try:
                    with smtp(self.stack, self.new_source()) as client:
                        for _ in range(5):
                            client.sendmail(SENDER, [self.user], message(SENDER, self.user))
                except (smtplib.SMTPException, OSError) as error:
                    refused.append(error)

        senders = [threading.Thread(target=send) for _ in range(2)]
        with PolicyLoad(self.socket_path, self.source) as load:
            for thread in senders:
                thread.start()
            for number in range(rounds):
                act(number)
                self.pause(EVERY_S)
            self.wait_until(lambda: load.acknowledged > rounds or load.refused or load.other, what="load enough")
            stopped.set()
            for thread in senders:
                thread.join(60)
        self.assertEqual(refused, [])
        self.assertEqual(load.refused, [])
        self.assertEqual(load.other, [])
        self.assertGreater(load.acknowledged, rounds)
        return load

    def exact(self, load):
        """Retries counted once: all that was acknowledged, and not more."""
        self.assertGreaterEqual(self.used(self.source), load.acknowledged)
        self.assertLessEqual(self.used(self.source), load.acknowledged + len(load.threads))

    def test_restart_with_the_sockets_of_systemd(self):
        with self.configured(DAEMON, limit=UNLIMITED, rate_events="no"):
            def restart(_):
                before = self.stack.pid(DAEMON)
                with contextlib.suppress(ProcessLookupError):
                    self.stack.kill(DAEMON, signal.SIGTERM)
                self.next_life(before)

            load = self.disturb(restart, 6)
            self.exact(load)
            # Each client waited through at most one end of a connection a restart.
            self.assertLessEqual(load.lost, 6 * len(load.threads) * 2)

    def test_start_and_stop_each_100_ms(self):
        with self.configured(DAEMON, limit=UNLIMITED, rate_events="no"):
            def signal_it(_):
                pid = self.stack.pid(DAEMON)
                if pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM)

            load = self.disturb(signal_it)
            self.next_life()
            self.exact(load)

    def test_reload_each_100_ms(self):
        with self.configured(DAEMON, limit=UNLIMITED):
            pid = self.stack.pid(DAEMON)

            def reload(number):
                self.stack.configure(DAEMON, limit=[UNLIMITED, f"account messages {100 + number}/1h"][::-1 if number % 2 else 1])
                self.stack.reload(DAEMON)

            load = self.disturb(reload)
            self.assertEqual(load.lost, 0)
            self.assertEqual(self.stack.pid(DAEMON), pid)
            self.assertEqual(self.used(self.source), load.acknowledged)
