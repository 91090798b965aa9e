"""A mailbox of many messages in the index, made by SQL: words are drawn so that
a few stand in most messages and most in a few."""
import os
import random

WORDS = 20_000
TEXT_WORDS = 150
SECONDS_APART = 600
BEGUN = 1_700_000_000


def word(number):
    """Word NUMBER of the vocabulary, 0 the most frequent one."""
    return f"w{number}x"


def draw(rng):
    """Zipf-like: the density of number n falls as 1/n."""
    return word(int(WORDS ** rng.random()) - 1)


def escape(text):
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


def lines(first_id, user_id, user, count, seed):
    """Rows of messages, texts and addresses, as LOAD DATA reads them."""
    rng = random.Random(seed)
    for number in range(count):
        ident = first_id + number
        subject = [draw(rng) for _ in range(4)]
        text = [draw(rng) for _ in range(TEXT_WORDS)]
        sender = f"p{int(300 ** rng.random())}"
        terms = {}
        for token, place in ([(t, "s") for t in subject] + [(sender, "f"), ("peer", "f"), ("example", "f")] +
                             [(t, "t") for t in user.replace("@", ".").replace("-", ".").split(".")] +
                             [(t, "") for t in text]):
            terms[token] = terms.get(token, "") + ("" if place in terms.get(token, "") else place)
        written = " ".join(t + (":" + p if p else "") for t, p in terms.items())
        yield (
            (ident, user_id, f"F{ident:025d}", user, f"{ident}@fill.example", " ".join(subject), f"{sender}@peer.example",
             BEGUN + number * SECONDS_APART, 10240, int(number % 10 == 0), "INBOX" if number % 20 else "Rare"),
            (ident, user_id, " ".join(text), written),
            ((ident, 0, "from", f"{sender}@peer.example"), (ident, 1, "to", user)))


def fill(stack, user, count, seed=1):
    """Puts COUNT messages of USER into the index."""
    first = int(stack.mariadb("SELECT COALESCE(MAX(id), 0) + 1 FROM messages").strip())
    user_id = int(stack.mariadb(f"SELECT id FROM virtual_users WHERE email = '{user}'").strip())
    folder = stack.at.path("/tmp")
    folder.mkdir(exist_ok=True)
    names = [folder / f"fill-{os.getpid()}-{kind}" for kind in ("messages", "texts", "addresses")]
    files = [open(name, "w", encoding="utf-8") for name in names]
    for message, text, addresses in lines(first, user_id, user, count, seed):
        for file, rows in zip(files, ((message,), (text,), addresses)):
            for row in rows:
                file.write("\t".join(escape(str(cell)) for cell in row) + "\n")
    for file in files:
        file.close()
    stack.mariadb(f"""
        LOAD DATA LOCAL INFILE '{names[0]}' INTO TABLE messages (id, user_id, delivery_id, recipient, message_id_header,
            subject, from_address, @at, size_bytes, attachment_count, mailbox_name)
            SET received_at = DATE_ADD('1970-01-01', INTERVAL @at SECOND);
        LOAD DATA LOCAL INFILE '{names[1]}' INTO TABLE message_texts (message_id, user_id, body, terms);
        LOAD DATA LOCAL INFILE '{names[2]}' INTO TABLE message_addresses (message_id, position, kind, address);
    """)
    for name in names:
        name.unlink()
