/*
 * How much of the raw cryptography's speed is left in our core, on one core:
 * signatures of 4 KB messages beside bare RSA-2048 signatures, and relaxed body
 * canonicalisation with SHA-256 beside SHA-256 alone.  The two sides of a pair
 * take turns, and the best round of each counts.
 *
 *   dkim_core KEY.pem  ->  one JSON object
 */
#include <time.h>

#include "milter-dkim/sign.h"

#define ROUNDS 15
#define SIGN_PER_ROUND 150
#define MESSAGE_BYTES 4096
#define BODY_BYTES (1 << 20)
#define HASH_PER_ROUND 40

struct bench {
	struct crypto_key *key;
	struct sbuf message, body;
	struct arena arena;
	struct bodyhash *bodies;
	struct crypto_hash *hash;
};

static double now_s(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fill_text(struct sbuf *out, size_t bytes)
{
	for (unsigned line = 0; out->len < bytes; line++)
		sbuf_addf(out, "Line %u of a letter, such as people write: some words, no more.\r\n", line);
}

static void sign_raw(struct bench *b)
{
	uint8_t digest[CRYPTO_SHA256_BYTES] = {1};
	char mem[CRYPTO_SIGNATURE_MAX + 1];
	struct sbuf out;
	sbuf_init(&out, mem, sizeof(mem));
	if (crypto_sign(b->key, digest, &out) < 0)
		PANIC("the key does not sign");
}

/* All of it: parse the header, canonicalise and hash, make the field. */
static void sign_message(struct bench *b)
{
	struct mail_header header;
	struct mail_splitter splitter;
	struct span body;
	struct sbuf value;
	unsigned index;
	struct sign_spec spec = {
		.domain = SPAN_LIT("example.com"), .selector = SPAN_LIT("mail"), .key = b->key,
		.header_canon = CANON_RELAXED, .body_canon = CANON_RELAXED, .now = 1700000000, .eol = "\n",
	};
	arena_reset(&b->arena);
	bodyhash_reset(b->bodies);
	mail_header_init(&header, &b->arena, &MAIL_LIMITS_DEFAULT);
	mail_splitter_init(&splitter, &header);
	sbuf_init_heap(&value, SIGN_FIELD_MAX);
	if (bodyhash_want(b->bodies, CANON_RELAXED, BODYHASH_WHOLE, &index) < 0 ||
	    mail_splitter_push(&splitter, sbuf_span(&b->message), &body) < 0)
		PANIC("the message is malformed");
	bodyhash_push(b->bodies, body);
	bodyhash_finish(b->bodies);
	if (sign_field(&spec, &header, bodyhash_digest(b->bodies, index), &value) < 0)
		PANIC("the message cannot be signed");
	sbuf_done(&value);
	mail_splitter_done(&splitter);
}

static void hash_raw(struct bench *b)
{
	uint8_t digest[CRYPTO_SHA256_BYTES];
	crypto_hash_begin(b->hash);
	crypto_hash_add(b->hash, sbuf_span(&b->body));
	crypto_hash_end(b->hash, digest);
}

static void hash_relaxed(struct bench *b)
{
	unsigned index;
	bodyhash_reset(b->bodies);
	if (bodyhash_want(b->bodies, CANON_RELAXED, BODYHASH_WHOLE, &index) < 0)
		PANIC("no room for one hash");
	/* In pieces as the MTA sends them. */
	for (struct span rest = sbuf_span(&b->body); rest.len > 0; rest = span_skip(rest, 65535))
		bodyhash_push(b->bodies, span_take(rest, 65535));
	bodyhash_finish(b->bodies);
}

static double round_s(struct bench *b, void (*fn)(struct bench *), unsigned times)
{
	double from = now_s();
	for (unsigned i = 0; i < times; i++)
		fn(b);
	return now_s() - from;
}

struct pair {
	double raw_s, ours_s; /* the best round */
};

static struct pair measure(struct bench *b, void (*raw)(struct bench *), void (*ours)(struct bench *),
			   unsigned times)
{
	struct pair best = {1e9, 1e9};
	for (int i = 0; i < ROUNDS; i++) {
		double r = round_s(b, raw, times), o = round_s(b, ours, times);
		best.raw_s = r < best.raw_s ? r : best.raw_s;
		best.ours_s = o < best.ours_s ? o : best.ours_s;
	}
	return best;
}

static int load_key(const char *path, struct crypto_key **key_out)
{
	char text[CRYPTO_KEY_TEXT_MAX];
	FILE *file = fopen(path, "r");
	if (file == NULL)
		return ERR_NOT_FOUND;
	size_t len = fread(text, 1, sizeof(text), file);
	fclose(file);
	return crypto_private_new(span_of(text, len), key_out);
}

int main(int argc, char **argv)
{
	struct bench b = {.bodies = bodyhash_new(), .hash = crypto_hash_new()};
	if (argc != 2 || load_key(argv[1], &b.key) < 0) {
		fprintf(stderr, "usage: dkim_core KEY.pem\n");
		return 64;
	}
	arena_init(&b.arena, 1 << 20);
	sbuf_init_heap(&b.message, 1 << 20);
	sbuf_init_heap(&b.body, BODY_BYTES + 256);
	sbuf_adds(&b.message, "From: A <a@example.com>\r\nTo: B <b@example.net>\r\nSubject: a letter\r\n"
			      "Date: Mon, 23 Nov 2026 00:00:00 +0000\r\nMessage-ID: <x@example.com>\r\n"
			      "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n");
	fill_text(&b.message, MESSAGE_BYTES);
	fill_text(&b.body, BODY_BYTES);
	struct pair sign = measure(&b, sign_raw, sign_message, SIGN_PER_ROUND);
	struct pair hash = measure(&b, hash_raw, hash_relaxed, HASH_PER_ROUND);
	double megabytes = (double)b.body.len * HASH_PER_ROUND / 1e6;
	printf("{\"rsa2048_signatures_per_s\":%.0f,\"signed_messages_per_s\":%.0f,\"signing_ratio\":%.3f,"
	       "\"sha256_mb_per_s\":%.0f,\"relaxed_sha256_mb_per_s\":%.0f,\"relaxed_ratio\":%.3f}\n",
	       SIGN_PER_ROUND / sign.raw_s, SIGN_PER_ROUND / sign.ours_s, sign.raw_s / sign.ours_s,
	       megabytes / hash.raw_s, megabytes / hash.ours_s, hash.raw_s / hash.ours_s);
	sbuf_done(&b.message);
	sbuf_done(&b.body);
	arena_done(&b.arena);
	bodyhash_free(&b.bodies);
	crypto_hash_free(&b.hash);
	crypto_key_unref(&b.key);
	return 0;
}
