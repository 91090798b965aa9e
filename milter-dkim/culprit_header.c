/*
 * Of the header a guess is checked by the signature itself and so is certain, all
 * but one: what a field said that is gone nobody can know, so that one is missing is
 * only counted.  The tries are bounded by CULPRIT_LINES_MAX and CULPRIT_TOGETHER_MAX,
 * and by CULPRIT_WORK_MAX over all signatures: what it counts is what a hostile message
 * can make much of, which is bytes, keys, and names times fields.
 */
#include "milter-dkim/culprit.h"

#include "milter-dkim/taglist.h"

#define HEADER_ARENA (16u << 20)
#define NAMES_SHOWN 4
#define CHANGES_MAX 16 /* of values, that could be undone */
#define UNDONE_MAX 2   /* of them at once */
#define CHECK_BITS 2048 /* of the key that CULPRIT_CHECK_WORK stands for */

enum change_kind { CHANGE_TAG, CHANGE_REWRITTEN, CHANGE_LABEL };

/* Field INDEX may have had VALUE. */
struct change {
	enum change_kind kind;
	size_t index;
	struct span value;
	struct span told; /* the tag, or the field that has VALUE now */
};

struct attempt {
	const struct sig *sig;
	const struct mail_header *header; /* what is signed, and the signature: nothing else costs a try anything */
	size_t self;
	const struct dns_view *view;
	struct keycache *keys; /* to parse one costs more than to use it */
	size_t names;	       /* in h= */
	struct culprit_work *work;
	/* what is undone */
	size_t dropped[CULPRIT_DROPS_MAX];
	size_t drops;
	const struct change *undone[UNDONE_MAX];
	size_t undos;
};

/* The fields that h= names, and what could have happened to their values. */
struct suspects {
	size_t at[CULPRIT_LINES_MAX];
	size_t count;
	struct change changes[CHANGES_MAX];
	size_t change_count;
	struct sbuf untagged; /* the value of one Subject */
};

static bool is_dropped(const struct attempt *t, size_t index)
{
	for (size_t i = 0; i < t->drops; i++)
		if (t->dropped[i] == index)
			return true;
	return false;
}

static struct span value_of(const struct attempt *t, size_t index)
{
	for (size_t i = 0; i < t->undos; i++)
		if (t->undone[i]->index == index)
			return t->undone[i]->value;
	return t->header->fields[index].value;
}

/* The header as it may have been; SELF_OUT is where the signature stands in it. */
static int undo(const struct attempt *t, struct mail_header *copy, size_t *self_out)
{
	int rc = 0;
	*self_out = t->self;
	for (size_t i = 0; rc == 0 && i < t->header->count; i++) {
		if (is_dropped(t, i))
			*self_out -= i < t->self;
		else
			rc = mail_header_add(copy, t->header->fields[i].name, value_of(t, i));
	}
	return rc;
}

/* Of an RSA key it grows with the square of its length. */
static uint64_t check_work(const struct sig_verdict *v)
{
	const uint64_t times = (uint64_t)v->key_bits * v->key_bits / (CHECK_BITS * CHECK_BITS);
	return v->keys_tried * (times > 0 ? times : 1) * CULPRIT_CHECK_WORK;
}

static uint64_t look_work(const struct attempt *t, size_t fields)
{
	return (uint64_t)t->names * fields * CULPRIT_LOOK_WORK;
}

static bool fits(struct attempt *t)
{
	struct arena a;
	struct mail_header copy;
	struct sbuf scratch;
	struct sig_verdict v = {.result = AUTH_NONE};
	uint8_t digest[CRYPTO_SHA256_BYTES];
	size_t self;
	if (culprit_is_spent(t->work))
		return false;
	arena_init(&a, HEADER_ARENA);
	mail_header_init(&copy, &a, &t->header->limits);
	sbuf_init_heap(&scratch, 4 * t->header->limits.header_bytes);
	int rc = undo(t, &copy, &self);
	if (rc == 0)
		rc = sig_header_digest(t->sig, &copy, self, &t->header->fields[t->self], &scratch, digest);
	if (rc == 0)
		rc = sig_verify(t->sig, digest, t->view, t->keys, &v);
	t->work->done += scratch.len + check_work(&v) + look_work(t, copy.count);
	sbuf_done(&scratch);
	arena_done(&a);
	return rc == 0 && v.result == AUTH_PASS;
}

static void suspect(struct suspects *s, struct change change)
{
	if (s->change_count < CHANGES_MAX)
		s->changes[s->change_count++] = change;
}

/* "[tag] " that a list puts in front. */
static void suspect_tag(struct suspects *s, size_t index, struct span value)
{
	size_t open = span_chr(value, '['), close = span_chr(value, ']');
	if (s->untagged.len > 0 || open == SPAN_NPOS || close == SPAN_NPOS || close < open)
		return;
	struct span rest = span_skip(value, close + 1);
	while (rest.len > 0 && ascii_isfws(rest.ptr[0]))
		rest = span_skip(rest, 1);
	sbuf_add(&s->untagged, span_take(value, open));
	sbuf_add(&s->untagged, rest);
	if (sbuf_ok(&s->untagged))
		suspect(s, (struct change){CHANGE_TAG, index, sbuf_span(&s->untagged),
					   span_skip(span_take(value, close + 1), open)});
}

/* What lists and gateways put in place of field INDEX, and where of ALL fields they keep what it said. */
static void suspect_value(struct suspects *s, const struct mail_header *h, size_t index, const struct mail_header *all)
{
	static const char *const kept[][2] = {
		{"From", "X-Original-From"},
		{"From", "Reply-To"},
		{"Subject", "X-Original-Subject"},
	};
	static const char *const encodings[] = {" 8bit", " 7bit", " quoted-printable", " base64"};
	struct span name = h->fields[index].name;
	if (span_ieq(name, SPAN_LIT("Subject")))
		suspect_tag(s, index, h->fields[index].value);
	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
		size_t at = mail_header_find(all, span_str(kept[i][1]), 0);
		if (at != SPAN_NPOS && span_ieq(name, span_str(kept[i][0])))
			suspect(s, (struct change){CHANGE_REWRITTEN, index, all->fields[at].value, span_str(kept[i][1])});
	}
	for (size_t i = 0; i < sizeof(encodings) / sizeof(encodings[0]); i++)
		if (span_ieq(name, SPAN_LIT("Content-Transfer-Encoding")))
			suspect(s, (struct change){CHANGE_LABEL, index, span_str(encodings[i]), SPAN_EMPTY});
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

static void add_change(struct sbuf *out, const struct change *c, struct span name)
{
	if (c->kind == CHANGE_TAG) {
		sbuf_adds(out, "the tag ");
		sbuf_add_escaped(out, c->told);
		sbuf_adds(out, " was added to Subject");
		return;
	}
	sbuf_add_escaped(out, name);
	if (c->kind == CHANGE_REWRITTEN)
		sbuf_addf(out, " was rewritten after the signature: it said what %.*s says", SPAN_ARG(c->told));
	else
		sbuf_addf(out, " was changed after the signature: it said%.*s", SPAN_ARG(c->value));
}

static void tell(const struct attempt *t, struct sbuf *out)
{
	struct span names[CULPRIT_DROPS_MAX];
	for (size_t i = 0; i < t->undos; i++) {
		sbuf_adds(out, i > 0 ? ", and " : "");
		add_change(out, t->undone[i], t->header->fields[t->undone[i]->index].name);
	}
	for (size_t i = 0; i < t->drops; i++)
		names[i] = t->header->fields[t->dropped[i]].name;
	if (t->drops == 0)
		return;
	sbuf_adds(out, t->undos > 0 ? ", and " : "");
	add_names(out, names, t->drops);
	sbuf_adds(out, " added after the signature");
}

/* Some of the COUNT fields in AT were added, MOST together; T keeps which. */
static bool added(struct attempt *t, const size_t *at, size_t count, size_t most)
{
	for (size_t i = 0; i < count; i++) {
		t->dropped[t->drops++] = at[i];
		if (fits(t) || (t->drops < most && added(t, at + i + 1, count - i - 1, most)))
			return true;
		t->drops--;
	}
	return false;
}

/* Values that were changed, one or two, with or without a field that was added. */
static bool changed(struct attempt *t, const struct suspects *s, bool with_added)
{
	for (size_t i = 0; i < s->change_count; i++) {
		t->undone[0] = &s->changes[i];
		t->undos = 1;
		if (with_added ? added(t, s->at, s->count, 1) : fits(t))
			return true;
		for (size_t j = i + 1; j < s->change_count; j++) {
			t->undone[1] = &s->changes[j];
			t->undos = 2;
			if (s->changes[i].index != s->changes[j].index &&
			    (with_added ? added(t, s->at, s->count, 1) : fits(t)))
				return true;
		}
	}
	t->undos = 0;
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

/* Whether next to every message has it, so that one without has lost it. */
static bool is_usual(struct span name)
{
	static const char *const usual[] = {"From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"};
	for (size_t i = 0; i < sizeof(usual) / sizeof(usual[0]); i++)
		if (span_ieq(name, span_str(usual[i])))
			return true;
	return false;
}

/* Of the fields that h= names more often than they are there, beyond SPARE, those that are usual or all. */
static size_t missing_names(const struct attempt *t, size_t spare, bool usual_only, struct span names[NAMES_SHOWN + 1])
{
	struct taglist_items items = {.rest = t->sig->names};
	struct span name;
	size_t count = 0;
	while (count <= NAMES_SHOWN && taglist_item(&items, &name)) {
		size_t more = span_ieq(name, SPAN_LIT("From")) ? 1 : spare;
		if ((is_usual(name) || !usual_only) && sig_signs(t->sig, name) > present(t, name) + more &&
		    !named_before(names, count, name))
			names[count++] = name;
	}
	return count;
}

/* Signers that name each field once more than it is there name one twice only if it was there. Others
 * may name fields that never were. */
static bool missing(const struct attempt *t, struct sbuf *out)
{
	struct span names[NAMES_SHOWN + 1];
	bool firm = oversigns(t), probable = true;
	size_t count = missing_names(t, firm ? 1 : 0, !firm, names);
	if (count == 0 && !firm) {
		probable = false;
		count = missing_names(t, 0, false, names);
	}
	if (count == 0)
		return false;
	add_names(out, names, count);
	sbuf_addf(out, " %s removed after the signature: h= names %s more often than the message does%s",
		  probable ? "probably" : "perhaps", count == 1 ? "it" : "them",
		  probable ? "" : ", as some signers do with what never was there");
	return true;
}

static void collect(struct suspects *s, const struct attempt *t, const struct mail_header *all)
{
	for (size_t i = 0; i < t->header->count && s->count < CULPRIT_LINES_MAX; i++) {
		if (i == t->self || !sig_signs(t->sig, t->header->fields[i].name))
			continue;
		s->at[s->count++] = i;
		suspect_value(s, t->header, i, all);
	}
}

/* The fields of ALL that are signed, and field SELF, whose index becomes *SELF_OUT. */
static int signed_only(const struct sig *sig, const struct mail_header *all, size_t self, struct mail_header *out,
		       size_t *self_out)
{
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < all->count; i++) {
		if (i == self)
			*self_out = out->count;
		if (i == self || sig_signs(sig, all->fields[i].name))
			rc = mail_header_add(out, all->fields[i].name, all->fields[i].value);
	}
	return rc;
}

static int find(struct attempt *t, const struct suspects *s, struct sbuf *out)
{
	size_t together = s->count <= CULPRIT_TOGETHER_MAX ? CULPRIT_DROPS_MAX : 1;
	if (!changed(t, s, false) && !added(t, s->at, s->count, together) && !(together > 1 && changed(t, s, true)))
		/* Of what was not tried nobody can say that it is not the reason. */
		return culprit_is_spent(t->work) ? ERR_LIMIT : missing(t, out) ? 0 : ERR_NOT_FOUND;
	tell(t, out);
	return 0;
}

static size_t count_names(const struct sig *sig)
{
	struct taglist_items items = {.rest = sig->names};
	struct span name;
	size_t count = 0;
	while (taglist_item(&items, &name))
		count++;
	return count;
}

int culprit_header(const struct sig *sig, const struct mail_header *header, size_t self,
		   const struct dns_view *view, struct culprit_work *work, struct sbuf *out)
{
	struct arena a;
	struct mail_header only;
	struct attempt t = {.sig = sig, .header = &only, .view = view, .names = count_names(sig), .work = work};
	struct suspects s = {.count = 0};
	if (culprit_is_spent(work))
		return ERR_LIMIT;
	if (sig_is_of_another_key(sig, view)) {
		sbuf_adds(out, "b= was not made with the key in DNS, or was damaged on the way");
		return 0;
	}
	arena_init(&a, HEADER_ARENA);
	mail_header_init(&only, &a, &header->limits);
	sbuf_init_heap(&s.untagged, header->limits.header_bytes);
	t.keys = keycache_new(VERIFY_KEYS_MAX);
	/* What is signed is looked for twice, and what is missing twice more. */
	work->done += 2 * look_work(&t, header->count) + 2 * look_work(&t, t.names + header->count);
	int rc = signed_only(sig, header, self, &only, &t.self);
	collect(&s, &t, header);
	if (rc == 0)
		rc = find(&t, &s, out);
	keycache_free(&t.keys);
	sbuf_done(&s.untagged);
	arena_done(&a);
	return rc;
}
