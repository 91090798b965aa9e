/*
 * A table of the words seen, open addressing over an array in the order of
 * their appearance; the bytes of the words lie in one buffer.
 */
#include "terms.h"

#include "lib/base/hash.h"

#define FIRST_SLOTS 1024

struct term {
	uint32_t at, len; /* in `bytes` */
	uint64_t hash, last; /* last_piece() */
	unsigned mark;
};

struct terms {
	struct hash_key key;
	struct sbuf bytes;
	struct term *list;
	size_t count, list_size;
	uint32_t *slots; /* index into `list` plus one; 0: free */
	size_t slot_count; /* a power of two */
	unsigned place;  /* of the text in hand */
};

static const struct {
	char letter;
	unsigned place;
} places[] = {{'s', TERMS_SUBJECT}, {'f', TERMS_FROM}, {'t', TERMS_TO}};

#define PLACES (sizeof(places) / sizeof(places[0]))

struct terms *terms_new(size_t max_bytes)
{
	struct terms *t = mem_zalloc(sizeof(*t));
	t->key = hash_key_random();
	t->key.k1 |= 1;
	sbuf_init_heap(&t->bytes, max_bytes);
	t->slot_count = FIRST_SLOTS;
	t->slots = mem_zalloc(t->slot_count * sizeof(*t->slots));
	return t;
}

void terms_free(struct terms **terms)
{
	struct terms *t = *terms;
	if (t == NULL)
		return;
	sbuf_done(&t->bytes);
	free(t->list);
	free(t->slots);
	free(t);
	*terms = NULL;
}

static void grow_slots(struct terms *t)
{
	free(t->slots);
	t->slot_count *= 2;
	t->slots = mem_zalloc(t->slot_count * sizeof(*t->slots));
	for (size_t i = 0; i < t->count; i++) {
		size_t slot = (size_t)t->list[i].hash & (t->slot_count - 1);
		while (t->slots[slot] != 0)
			slot = (slot + 1) & (t->slot_count - 1);
		t->slots[slot] = (uint32_t)i + 1;
	}
}

static uint64_t mix(uint64_t a, uint64_t b)
{
	unsigned __int128 wide = (unsigned __int128)a * b;
	return (uint64_t)wide ^ (uint64_t)(wide >> 64);
}

static uint64_t piece_at(const char *at, size_t len)
{
	uint64_t piece = 0;
	memcpy(&piece, at, len);
	return piece;
}

/*
 * The last eight bytes, or all there are: those as two halves that may overlap, so that no
 * length takes a call.  With its length it tells a word of up to eight bytes from all others.
 */
static uint64_t last_piece(struct span word)
{
	const char *end = word.ptr + word.len;
	if (word.len >= 8)
		return piece_at(end - 8, 8);
	if (word.len >= 4)
		return piece_at(word.ptr, 4) << 32 | piece_at(end - 4, 4);
	if (word.len >= 2)
		return piece_at(word.ptr, 2) << 32 | piece_at(end - 2, 2);
	return word.len == 0 ? 0 : (unsigned char)*word.ptr;
}

/* Keyed, since the words are chosen by others, and cheaper than SipHash: the
 * table lives for one message, and nobody outside sees what collides. */
static uint64_t hash_word(const struct terms *t, struct span word, uint64_t last)
{
	uint64_t h = t->key.k0 ^ word.len;
	for (size_t i = 0; i + 8 < word.len; i += 8)
		h = mix(h ^ piece_at(word.ptr + i, 8), t->key.k1);
	return mix(h ^ last, t->key.k1);
}

static bool is_word(const struct terms *t, const struct term *seen, struct span word, uint64_t last)
{
	return seen->len == word.len && seen->last == last &&
	       (word.len <= 8 || memcmp(t->bytes.ptr + seen->at, word.ptr, word.len) == 0);
}

static bool append(struct terms *t, struct span word, uint64_t last, uint64_t hash, size_t slot)
{
	sbuf_add(&t->bytes, word);
	if (!sbuf_ok(&t->bytes))
		return false;
	if (t->count == t->list_size) {
		t->list_size = t->list_size == 0 ? FIRST_SLOTS / 2 : t->list_size * 2;
		t->list = mem_realloc(t->list, t->list_size * sizeof(*t->list));
	}
	t->list[t->count++] = (struct term){.at = (uint32_t)(t->bytes.len - word.len), .len = (uint32_t)word.len,
					    .hash = hash, .last = last, .mark = t->place};
	t->slots[slot] = (uint32_t)t->count;
	if (t->count * 2 > t->slot_count)
		grow_slots(t);
	return true;
}

static bool see(void *arg, struct span word, enum tokens_kind kind)
{
	(void)kind;
	struct terms *t = arg;
	uint64_t last = last_piece(word), hash = hash_word(t, word, last);
	size_t slot = (size_t)hash & (t->slot_count - 1);
	for (; t->slots[slot] != 0; slot = (slot + 1) & (t->slot_count - 1)) {
		struct term *seen = &t->list[t->slots[slot] - 1];
		if (is_word(t, seen, word, last)) {
			seen->mark |= t->place;
			return true;
		}
	}
	return append(t, word, last, hash, slot);
}

void terms_add(struct terms *t, struct span text, unsigned place)
{
	t->place = place;
	tokens_each(text, see, t);
}

bool terms_write(const struct terms *t, struct sbuf *out)
{
	for (size_t i = 0; i < t->count; i++) {
		const struct term *term = &t->list[i];
		if (i > 0)
			sbuf_addc(out, ' ');
		sbuf_add(out, span_of(t->bytes.ptr + term->at, term->len));
		if (term->mark != 0)
			sbuf_addc(out, ':');
		for (size_t p = 0; p < PLACES; p++)
			if (term->mark & places[p].place)
				sbuf_addc(out, places[p].letter);
	}
	return sbuf_ok(&t->bytes) && sbuf_ok(out);
}

bool terms_next(struct span *rest, struct span *word_out, unsigned *mark_out)
{
	struct span word, marks = SPAN_EMPTY;
	do {
		if (rest->len == 0)
			return false;
		span_cut(rest, ' ', &word);
	} while (word.len == 0);
	*mark_out = TERMS_PRESENT;
	size_t colon = span_chr(word, ':');
	if (colon != SPAN_NPOS) {
		marks = span_skip(word, colon + 1);
		word.len = colon;
	}
	for (size_t i = 0; i < marks.len; i++)
		for (size_t p = 0; p < PLACES; p++)
			if (marks.ptr[i] == places[p].letter)
				*mark_out |= places[p].place;
	while (span_ends(word, SPAN_LIT("_"))) /* short words were filled up once */
		word.len--;
	*word_out = word;
	return true;
}
