/*
 * Invariants: streams[c] runs if and only if some entry wants canonicalisation
 * c; lengths[c] counts the bytes it has written, so that each entry takes the
 * part of a piece that is below its limit.
 */
#include "bodyhash.h"

struct entry {
	enum canon canon;
	uint64_t limit;
	struct crypto_hash *hash;
	uint8_t digest[CRYPTO_SHA256_BYTES];
};

struct stream {
	struct bodyhash *set;
	bool wanted;
	uint64_t length;
	struct canon_body body;
};

struct bodyhash {
	struct stream streams[2];
	struct entry entries[BODYHASH_MAX];
	size_t count;
};

struct bodyhash *bodyhash_new(void)
{
	return mem_zalloc(sizeof(struct bodyhash));
}

void bodyhash_free(struct bodyhash **set)
{
	if (*set == NULL)
		return;
	for (size_t i = 0; i < BODYHASH_MAX; i++)
		crypto_hash_free(&(*set)->entries[i].hash);
	free(*set);
	*set = NULL;
}

void bodyhash_reset(struct bodyhash *set)
{
	set->streams[CANON_SIMPLE].wanted = set->streams[CANON_RELAXED].wanted = false;
	set->count = 0;
}

static void stream_write(void *arg, const char *bytes, size_t len)
{
	struct stream *stream = arg;
	enum canon canon = stream->body.canon;
	for (size_t i = 0; i < stream->set->count; i++) {
		struct entry *e = &stream->set->entries[i];
		if (e->canon != canon || e->limit <= stream->length)
			continue;
		uint64_t room = e->limit - stream->length;
		crypto_hash_add(e->hash, span_of(bytes, room < len ? (size_t)room : len));
	}
	stream->length += len;
}

int bodyhash_want(struct bodyhash *set, enum canon canon, uint64_t limit, unsigned *index_out)
{
	for (size_t i = 0; i < set->count; i++) {
		if (set->entries[i].canon == canon && set->entries[i].limit == limit) {
			*index_out = (unsigned)i;
			return 0;
		}
	}
	if (set->count == BODYHASH_MAX)
		return ERR_LIMIT;
	struct stream *stream = &set->streams[canon];
	if (!stream->wanted) {
		stream->set = set;
		stream->wanted = true;
		stream->length = 0;
		canon_body_init(&stream->body, canon, stream_write, stream);
	}
	struct entry *e = &set->entries[set->count];
	e->canon = canon;
	e->limit = limit;
	if (e->hash == NULL)
		e->hash = crypto_hash_new();
	crypto_hash_begin(e->hash);
	*index_out = (unsigned)set->count++;
	return 0;
}

bool bodyhash_wanted(const struct bodyhash *set)
{
	return set->count > 0;
}

void bodyhash_push(struct bodyhash *set, struct span bytes)
{
	for (size_t c = 0; c < 2; c++)
		if (set->streams[c].wanted)
			canon_body_push(&set->streams[c].body, bytes);
}

void bodyhash_finish(struct bodyhash *set)
{
	for (size_t c = 0; c < 2; c++)
		if (set->streams[c].wanted)
			canon_body_finish(&set->streams[c].body);
	for (size_t i = 0; i < set->count; i++)
		crypto_hash_end(set->entries[i].hash, set->entries[i].digest);
}

struct span bodyhash_digest(const struct bodyhash *set, unsigned index)
{
	return span_of(set->entries[index].digest, CRYPTO_SHA256_BYTES);
}

uint64_t bodyhash_length(const struct bodyhash *set, enum canon canon)
{
	return set->streams[canon].length;
}
