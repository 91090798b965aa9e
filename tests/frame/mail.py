"""Messages, and clients for SMTP, LMTP and IMAP on a stack."""
import contextlib
import email
import email.message
import email.policy
import email.utils
import imaplib
import smtplib
import ssl
import uuid

from tests.frame.layout import HOST
from tests.frame.stack import PASSWORD
from tests.frame.wait import wait_until

# Clients with this address are outside of mynetworks, hence strangers.
OUTSIDE = "127.0.0.50"
TIMEOUT_S = 120
POLICY = email.policy.SMTP.clone(max_line_length=76)


def new_message_id(domain="example.com"):
    return f"<{uuid.uuid4().hex}@{domain}>"


def message(sender, recipient, subject="a message", text="Some text.\n", attachments=(), **headers):
    """The bytes of a message.  ATTACHMENTS are (name, type, bytes); headers
    are given as message_id="<...>", in_reply_to=..."""
    mail = email.message.EmailMessage(policy=POLICY)
    mail["From"] = sender
    mail["To"] = recipient
    mail["Subject"] = subject
    mail["Date"] = email.utils.formatdate()
    headers.setdefault("message_id", new_message_id())
    for name, value in headers.items():
        mail[name.replace("_", "-").title()] = value
    mail.set_content(text)
    for name, kind, data in attachments:
        main, _, sub = kind.partition("/")
        mail.add_attachment(data, maintype=main, subtype=sub, filename=name)
    return mail.as_bytes()


def parse(data):
    return email.message_from_bytes(data, policy=email.policy.default)


def tls_context(stack):
    return ssl.create_default_context(cafile=str(stack.at.path("/etc/postern/tls/fullchain.pem")))


def smtp(stack, source=OUTSIDE, helo="client.example.org"):
    """A connection to port 25, as from the outside."""
    return smtplib.SMTP(HOST, stack.at.port("smtp"), helo, TIMEOUT_S, (source, 0))


def submission(stack, user, password=PASSWORD, source="127.0.0.2", wrapped=False):
    """An authenticated connection to port 587 with STARTTLS, or to 465."""
    if wrapped:
        client = smtplib.SMTP_SSL(
            HOST, stack.at.port("submissions"), "client.example.org", timeout=TIMEOUT_S,
            source_address=(source, 0), context=tls_context(stack),
        )
    else:
        client = smtplib.SMTP(HOST, stack.at.port("submission"), "client.example.org", TIMEOUT_S, (source, 0))
        client.starttls(context=tls_context(stack))
    client.login(user, password)
    return client


def submit(stack, user, recipients, data, **more):
    """Sends one message with the account USER."""
    with submission(stack, user, **more) as client:
        return client.sendmail(user, recipients, data)


def deliver(stack, sender, recipients, data, source=OUTSIDE):
    """Sends one message to port 25 from an outside address."""
    with smtp(stack, source) as client:
        return client.sendmail(sender, recipients, data)


def lmtp(stack, address=None):
    """A connection to lmtp-indexer's socket, or to ADDRESS (a port of Dovecot)."""
    path = address or str(stack.at.path("/var/spool/postfix/postern/lmtp-indexer.sock"))
    if isinstance(path, int):
        return smtplib.LMTP(HOST, path, "client.example.org")
    return smtplib.LMTP(path, 0, "client.example.org")


class Imap:
    """A logged-in IMAP session with what tests need of it."""

    def __init__(self, stack, user, password=PASSWORD):
        self.client = imaplib.IMAP4(HOST, stack.at.port("imap"), TIMEOUT_S)
        self.client.starttls(tls_context(stack))
        self.client.login(user, password)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.client.logout()
        except (imaplib.IMAP4.error, OSError):
            pass

    def ok(self, answer):
        kind, data = answer
        if kind != "OK":
            raise imaplib.IMAP4.error(f"{kind} {data}")
        return data

    def select(self, mailbox="INBOX"):
        self.ok(self.client.select(mailbox))

    def uids(self, criteria="ALL"):
        return self.ok(self.client.uid("SEARCH", criteria))[0].split()

    def fetch(self, uid):
        """The whole message as Dovecot stores it."""
        return self.ok(self.client.uid("FETCH", uid, "(BODY.PEEK[])"))[0][1]

    def find(self, message_id, mailbox="INBOX"):
        """UIDs of the messages with that Message-ID."""
        self.select(mailbox)
        return self.uids(f'HEADER Message-ID "{message_id}"')

    def expunge(self, uids):
        for uid in uids:
            self.ok(self.client.uid("STORE", uid, "+FLAGS", r"(\Deleted)"))
        self.ok(self.client.expunge())

    def quota_root(self, mailbox="INBOX"):
        """[[roots], [resources]] as imaplib gives them."""
        return self.ok(self.client.getquotaroot(mailbox))


def wait_for_mail(stack, user, message_id, count=1):
    """Waits until USER's inbox has the message; returns its bytes."""
    with Imap(stack, user) as imap:
        uids = wait_until(
            lambda: (found := imap.find(message_id)) and len(found) >= count and found,
            what=f"{message_id} in the inbox of {user}", interval=0.1,
        )
        return imap.fetch(uids[-1])


def maildir_ids(stack, user):
    """Message-IDs of all files in USER's maildir, with repetitions.  Dovecot may move a file from new to
    cur, or rename it, at any moment: then it is looked for again."""
    root = stack.mail_dir(user)

    def files():
        return {(path.parents[1], path.name.partition(":")[0]): path
                for part in ("new", "cur") for path in root.glob(f"**/{part}/*")}

    while True:
        found, ids = files(), {}
        for mail, path in found.items():
            with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                ids[mail] = email.message_from_binary_file(file)["Message-ID"]
        if ids.keys() == found.keys() == files().keys():
            return list(ids.values())
