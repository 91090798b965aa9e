/*
 * Of the header a guess is checked by the signature itself and so is certain, all
 * but one: what a field said that is gone nobody can know, so that one is missing is
 * only counted.  The tries are bounded by CULPRIT_LINES_MAX and CULPRIT_TOGETHER_MAX.
 */
#include "milter-dkim/culprit.h"

#include "milter-dkim/taglist.h"

#define HEADER_ARENA (16u << 20)
#define NAMES_SHOWN 4

struct attempt {
	const struct sig *sig;
	const struct mail_header *header;
	size_t self;
	const struct dns_view *view;
	/* what is undone */
	size_t dropped[CULPRIT_DROPS_MAX];
	size_t drops;
	size_t replaced; /* SPAN_NPOS: none */
	struct span value;
};

static bool is_dropped(const struct attempt *t, size_t index)
{
	for (size_t i = 0; i < t->drops; i++)
		if (t->dropped[i] == index)
			return true;
	return false;
}

/* The header as it may have been; SELF_OUT is where the signature stands in it. */
static int undo(const struct attempt *t, struct mail_header *copy, size_t *self_out)
{
	int rc = 0;
	*self_out = t->self;
	for (size_t i = 0; rc == 0 && i < t->header->count; i++) {
		const struct mail_field *f = &t->header->fields[i];
		if (is_dropped(t, i))
			*self_out -= i < t->self;
		else
			rc = mail_header_add(copy, f->name, i == t->replaced ? t->value : f->value);
	}
	return rc;
}

static bool fits(const struct attempt *t)
{
	struct arena a;
	struct mail_header copy;
	struct sbuf scratch;
	struct sig_verdict v = {.result = AUTH_NONE};
	uint8_t digest[CRYPTO_SHA256_BYTES];
	size_t self;
	arena_init(&a, HEADER_ARENA);
	mail_header_init(&copy, &a, &t->header->limits);
	sbuf_init_heap(&scratch, 4 * t->header->limits.header_bytes);
	int rc = undo(t, &copy, &self);
	if (rc == 0)
		rc = sig_header_digest(t->sig, &copy, self, &t->header->fields[t->self], &scratch, digest);
	if (rc == 0)
		rc = sig_verify(t->sig, digest, t->view, NULL, &v);
	sbuf_done(&scratch);
	arena_done(&a);
	return rc == 0 && v.result == AUTH_PASS;
}

static bool fits_with(const struct attempt *t, size_t index, struct span value)
{
	struct attempt with = *t;
	with.replaced = index;
	with.value = value;
	return fits(&with);
}

/* "[tag] " that a list puts in front. */
static bool tag_added(const struct attempt *t, size_t index, struct sbuf *out)
{
	struct span value = t->header->fields[index].value;
	size_t open = span_chr(value, '['), close = span_chr(value, ']');
	if (!span_ieq(t->header->fields[index].name, SPAN_LIT("Subject")) || open == SPAN_NPOS || close == SPAN_NPOS ||
	    close < open)
		return false;
	struct span rest = span_skip(value, close + 1);
	while (rest.len > 0 && ascii_isfws(rest.ptr[0]))
		rest = span_skip(rest, 1);
	struct sbuf joined;
	sbuf_init_heap(&joined, value.len + 1);
	sbuf_add(&joined, span_take(value, open));
	sbuf_add(&joined, rest);
	bool found = fits_with(t, index, sbuf_span(&joined));
	sbuf_done(&joined);
	if (!found)
		return false;
	sbuf_adds(out, "the tag ");
	sbuf_add_escaped(out, span_skip(span_take(value, close + 1), open));
	sbuf_adds(out, " was added to Subject");
	return true;
}

/* What lists put in place of a field, and where they keep what it said. */
static bool rewritten(const struct attempt *t, size_t index, struct sbuf *out)
{
	static const char *const known[][2] = {
		{"From", "X-Original-From"},
		{"From", "Reply-To"},
		{"Subject", "X-Original-Subject"},
	};
	const struct mail_header *h = t->header;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		size_t kept = mail_header_find(h, span_str(known[i][1]), 0);
		if (!span_ieq(h->fields[index].name, span_str(known[i][0])) || kept == SPAN_NPOS ||
		    !fits_with(t, index, h->fields[kept].value))
			continue;
		sbuf_addf(out, "%s was rewritten after the signature: it said what %s says", known[i][0], known[i][1]);
		return true;
	}
	return false;
}

/* The text stayed as it was, but got another name of its encoding. */
static bool relabelled(const struct attempt *t, size_t index, struct sbuf *out)
{
	static const char *const encodings[] = {" 8bit", " 7bit", " quoted-printable", " base64"};
	if (!span_ieq(t->header->fields[index].name, SPAN_LIT("Content-Transfer-Encoding")))
		return false;
	for (size_t i = 0; i < sizeof(encodings) / sizeof(encodings[0]); i++) {
		if (!fits_with(t, index, span_str(encodings[i])))
			continue;
		sbuf_addf(out, "Content-Transfer-Encoding was changed after the signature: it said%s", encodings[i]);
		return true;
	}
	return false;
}

/* "the field A was", "the fields A, B and others were". */
static void add_names(struct sbuf *out, const struct span *names, size_t count)
{
	sbuf_adds(out, count == 1 ? "the field " : "the fields ");
	for (size_t i = 0; i < count && i < NAMES_SHOWN; i++) {
		sbuf_adds(out, i > 0 ? ", " : "");
		sbuf_add_escaped(out, names[i]);
	}
	sbuf_adds(out, count > NAMES_SHOWN ? " and others were" : count > 1 ? " were" : " was");
}

/* Some of the COUNT fields in AT were added: one, or up to CULPRIT_DROPS_MAX together. */
static bool added(struct attempt *t, const size_t *at, size_t count, struct sbuf *out)
{
	for (size_t i = 0; i < count; i++) {
		t->dropped[t->drops++] = at[i];
		if (fits(t)) {
			struct span names[CULPRIT_DROPS_MAX];
			for (size_t d = 0; d < t->drops; d++)
				names[d] = t->header->fields[t->dropped[d]].name;
			add_names(out, names, t->drops);
			sbuf_adds(out, " added after the signature");
			return true;
		}
		if (t->drops < CULPRIT_DROPS_MAX && count <= CULPRIT_TOGETHER_MAX &&
		    added(t, at + i + 1, count - i - 1, out))
			return true;
		t->drops--;
	}
	return false;
}

/* How many fields NAME the message has, other than the signature itself. */
static size_t present(const struct attempt *t, struct span name)
{
	return mail_header_count(t->header, name) - span_ieq(t->header->fields[t->self].name, name);
}

/* Whether the signer names fields once more than they are there, so that none can be
 * added.  From alone says little: OpenDKIM does so with it and with nothing else. */
static bool oversigns(const struct attempt *t)
{
	struct taglist_items items = {.rest = t->sig->names};
	struct span name;
	while (taglist_item(&items, &name)) {
		size_t count = present(t, name);
		if (count > 0 && sig_signs(t->sig, name) == count + 1 && !span_ieq(name, SPAN_LIT("From")))
			return true;
	}
	return false;
}

static bool named_before(const struct span *names, size_t count, struct span name)
{
	for (size_t i = 0; i < count; i++)
		if (span_ieq(names[i], name))
			return true;
	return false;
}

/* Fields that h= names more often than they are there, beyond what such a signer does. */
static bool missing(const struct attempt *t, struct sbuf *out)
{
	struct taglist_items items = {.rest = t->sig->names};
	struct span name, names[NAMES_SHOWN + 1];
	size_t count = 0, spare = oversigns(t) ? 1 : 0;
	while (count <= NAMES_SHOWN && taglist_item(&items, &name)) {
		size_t more = span_ieq(name, SPAN_LIT("From")) ? 1 : spare;
		if (sig_signs(t->sig, name) > present(t, name) + more && !named_before(names, count, name))
			names[count++] = name;
	}
	if (count == 0)
		return false;
	add_names(out, names, count);
	sbuf_addf(out, " probably removed after the signature: h= names %s more often than the message does",
		  count == 1 ? "it" : "them");
	return true;
}

int culprit_header(const struct sig *sig, const struct mail_header *header, size_t self,
		   const struct dns_view *view, struct sbuf *out)
{
	struct attempt t = {.sig = sig, .header = header, .self = self, .view = view, .replaced = SPAN_NPOS};
	size_t at[CULPRIT_LINES_MAX], count = 0;
	if (sig_is_of_another_key(sig, view)) {
		sbuf_adds(out, "b= was not made with the key in DNS, or was damaged on the way");
		return 0;
	}
	for (size_t i = 0; i < header->count && count < CULPRIT_LINES_MAX; i++)
		if (i != self && sig_signs(sig, header->fields[i].name))
			at[count++] = i;
	for (size_t i = 0; i < count; i++)
		if (tag_added(&t, at[i], out) || rewritten(&t, at[i], out) || relabelled(&t, at[i], out))
			return 0;
	return added(&t, at, count, out) || missing(&t, out) ? 0 : ERR_NOT_FOUND;
}
