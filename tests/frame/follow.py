"""What the index says of a mailbox, and what Dovecot says."""
from tests.frame import sql
from tests.frame.stack import run

NO_PLACE = "NULL"


def flags(text):
    """A set of flags as a sorted text, without \\Recent, which is no flag of the mail."""
    return " ".join(sorted(word for word in text.split() if word != r"\Recent"))


def doveadm(stack, *words):
    return run(["doveadm", "-c", stack.dovecot_conf, *words])


def mailbox_view(stack, user):
    """{(mailbox, UID): (UIDVALIDITY of it, flags)} of all mails, by doveadm."""
    validity = {}
    for line in doveadm(stack, "-f", "tab", "mailbox", "status", "-u", user, "uidvalidity", "*").splitlines()[1:]:
        name, number = line.split("\t")
        validity[name] = number
    view = {}
    for line in doveadm(stack, "-f", "tab", "fetch", "-u", user, "mailbox uid flags", "all").splitlines()[1:]:
        name, uid, marks = line.split("\t")
        view[name, uid] = (validity[name], flags(marks))
    return view


def index_view(stack, user):
    """The same by the rows that are not deleted; rows without a place have the keys (None, 0), (None, 1), ..."""
    found = sql.rows(stack, "SELECT m.mailbox_name, m.uid, m.uid_validity, COALESCE(m.flags, '') FROM messages m "
                     "JOIN virtual_users u ON u.id = m.user_id WHERE u.email = %s AND m.deleted_at IS NULL", user)
    view = {}
    for number, (name, uid, validity, marks) in enumerate(found):
        if uid == NO_PLACE:
            view[None, number] = (validity, marks)
            continue
        assert (name, uid) not in view, f"two rows for {name}/{uid}"
        view[name, uid] = (validity, flags(marks))
    return view


def event_types(stack, user):
    """[(type, message id)] of the feed, in its order; the numbers must have no gap."""
    found = sql.rows(stack, "SELECT e.seq, e.type, e.message_id FROM events e JOIN virtual_users u ON u.id = e.user_id "
                     "WHERE u.email = %s ORDER BY e.seq", user)
    assert [int(row[0]) for row in found] == list(range(1, len(found) + 1)), found
    return [row[1:] for row in found]
