/*
 * OpenDKIM's tables, the text form of a key ring, and host sets.  The input is
 * cut at its NUL bytes: KeyTable, SigningTable, an address.
 */
#include "milter-dkim/hostset.h"
#include "milter-dkim/keyring.h"
#include "milter-dkim/keytable.h"
#include "milter-dkim/keytable_spec.h"
#include "milter-dkim/sigwrite.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int no_file(void *arg, const char *path, struct sbuf *out)
{
	(void)arg;
	(void)out;
	return path[0] == '\0' ? ERR_SYNTAX : ERR_NOT_FOUND;
}

static int check_path(void *arg, const char *path)
{
	return no_file(arg, path, NULL);
}

static void check_table(struct span keys, struct span signing, struct span address, unsigned form)
{
	struct keytable *table;
	struct keytable_match found[4];
	struct arena arena;
	struct span domain = address, local;
	struct signkey_cache *cache = signkey_cache_new(2);
	struct keytable_source source = {
		.keys = keys, .signing = signing, .patterns = form & 1, .key_patterns = form & 2, .multiple = form & 4,
		.read = no_file, .check = check_path, .cache = cache,
	};
	signkey_cache_ref(cache);
	arena_init(&arena, 1 << 16);
	span_cut(&domain, '@', &local);
	size_t count = 0;
	if (keytable_load(&source, &table) == 0) {
		count = keytable_find(table, local, domain, &arena, found, 4);
		keytable_unref(&table);
	}
	for (size_t i = 0; i < count; i++) {
		struct crypto_key *key;
		const char *reason;
		if (found[i].identity.len > 0 && !sigwrite_value_valid(found[i].identity))
			PANIC("an identity that cannot stand in a field");
		if (signkey_get(found[i].key, &key, &reason) == 0)
			crypto_key_unref(&key);
		signkey_unref(&found[i].key);
	}
	arena_done(&arena);
	signkey_cache_unref(&cache);
	signkey_cache_unref(&source.cache);
}

static int add_piece(void *arg, struct span piece)
{
	sbuf_add(arg, piece);
	return 0;
}

static void check_ring(struct span text)
{
	struct signkey_cache *cache = signkey_cache_new(2);
	struct keyring *ring, *back;
	struct sbuf once, twice;
	sbuf_init_heap(&once, 4 * text.len + 256);
	sbuf_init_heap(&twice, 4 * text.len + 256);
	if (keyring_decode(text, cache, &ring) == 0) {
		if (keyring_write(ring, add_piece, &once) < 0 || keyring_decode(sbuf_span(&once), cache, &back) < 0 ||
		    keyring_write(back, add_piece, &twice) < 0 || !span_eq(sbuf_span(&once), sbuf_span(&twice)))
			PANIC("a ring changes when written anew");
		keyring_unref(&ring);
		keyring_unref(&back);
	}
	sbuf_done(&once);
	sbuf_done(&twice);
	signkey_cache_unref(&cache);
}

static void check_spec(struct span text)
{
	char value[256], mem[512];
	struct keytable_spec spec;
	struct sbuf out;
	if (span_copy_cstr(text, value, sizeof(value)) < 0)
		return;
	sbuf_init(&out, mem, sizeof(mem));
	if (keytable_spec_parse(value, &spec, &out) == 0 && spec.kind == KEYTABLE_LIST)
		keytable_spec_lines(spec.path, &out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span rest = span_of(data, size), keys, signing, bad;
	struct hostset hosts = {0};
	struct ip ip = {.bits = 32, .bytes = {127, 0, 0, 1}};
	check_ring(rest);
	span_cut(&rest, '\0', &keys);
	span_cut(&rest, '\0', &signing);
	check_spec(keys);
	for (unsigned form = 0; form < 8; form++)
		check_table(keys, signing, rest, form);
	if (hostset_add(&hosts, keys, &bad) == 0)
		(void)hostset_has(&hosts, &ip, rest);
	hostset_done(&hosts);
	return 0;
}
