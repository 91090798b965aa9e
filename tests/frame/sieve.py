"""Sieve in the deliveries of a test class."""
import os

from tests.frame.assemble import dovecot_is_24
from tests.frame.mail import Imap

NEW = """\
protocol lmtp {
  mail_plugins {
    sieve = yes
  }
}
sieve_script personal {
  driver = file
  path = ~/sieve
  active_path = ~/.dovecot.sieve
}
"""

OLD = """\
mail_plugins = $mail_plugins
protocol lmtp {
  mail_plugins = $mail_plugins sieve
}
plugin {
  sieve = file:~/sieve;active=~/.dovecot.sieve
}
"""


def with_sieve(case):
    """For the tests of the class CASE; call it in its setUpClass, when the stack is there."""
    config = case.stack.at.path("/etc/dovecot/conf.d/99-sieve-test.conf")
    case.addClassCleanup(case.stack.restart, "dovecot")
    case.addClassCleanup(config.unlink)
    config.write_text(NEW if dovecot_is_24() else OLD)
    case.stack.restart("dovecot")


def set_script(stack, user, script):
    """SCRIPT for what is delivered to USER from now on."""
    with Imap(stack, user) as imap:  # makes the home
        imap.select()
    path = stack.mail_dir(user) / ".dovecot.sieve"
    path.write_text(script)
    os.chown(path, 5000, 5000)
