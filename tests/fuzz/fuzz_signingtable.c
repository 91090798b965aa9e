/*
 * SigningTable, over a KeyTable that is good: a line for everybody in front takes
 * every author, a line for nobody behind changes nothing, and never do more keys
 * sign than are wanted.  The input: AUTHOR newline TABLE.
 */
#include "milter-dkim/keytable.h"
#include "tests/unit/dkim_keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define KEYS_MAX 4

static const char key_table[] = "one one.example:s:" ED25519_PRIVATE "\ntwo %:t:" ED25519_PRIVATE "\n";

static int no_file(void *arg, const char *path, struct sbuf *out)
{
	(void)arg;
	(void)path;
	(void)out;
	return ERR_NOT_FOUND;
}

static int no_path(void *arg, const char *path)
{
	(void)arg;
	(void)path;
	return ERR_NOT_FOUND;
}

struct found {
	size_t count;
	bool first_is_one;
};

static int find(struct span before, struct span table, struct span after, struct span author, bool patterns,
		struct found *found_out)
{
	static struct signkey_cache *cache;
	struct sbuf text;
	struct keytable *keys;
	struct keytable_match list[KEYS_MAX];
	struct span domain = author, local;
	struct arena arena;
	if (cache == NULL)
		cache = signkey_cache_new(4);
	sbuf_init_heap(&text, table.len + 256);
	sbuf_add(&text, before);
	sbuf_add(&text, table);
	sbuf_add(&text, after);
	struct keytable_source source = {
		.keys = span_str(key_table), .signing = sbuf_span(&text), .patterns = patterns, .folder = "",
		.cache = cache, .read = no_file, .check = no_path,
	};
	int rc = keytable_load(&source, &keys);
	sbuf_done(&text);
	if (rc < 0)
		return rc;
	arena_init(&arena, 1 << 16);
	(void)span_cut(&domain, '@', &local);
	size_t count = keytable_find(keys, local, domain, &arena, list, KEYS_MAX);
	if (count > KEYS_MAX)
		PANIC("more keys than are wanted");
	*found_out = (struct found){
		count, count > 0 && span_eq(signkey_domain(list[0].key), SPAN_LIT("one.example")),
	};
	for (size_t i = 0; i < count; i++)
		signkey_unref(&list[i].key);
	arena_done(&arena);
	keytable_unref(&keys);
	return 0;
}

static void check(struct span author, struct span table, bool patterns)
{
	struct found plain, more;
	if (author.len > KEYTABLE_ADDRESS_MAX)
		return;
	if (find(SPAN_EMPTY, table, SPAN_EMPTY, author, patterns, &plain) < 0)
		return;
	if (find(SPAN_EMPTY, table, SPAN_LIT("\nnobody@nowhere.invalid one\n"), author, patterns, &more) == 0 &&
	    more.count != plain.count && !span_ieq(author, SPAN_LIT("nobody@nowhere.invalid")))
		PANIC("a line for somebody else counts");
	if (patterns && find(SPAN_LIT("* one\n"), table, SPAN_EMPTY, author, true, &more) == 0 && !more.first_is_one)
		PANIC("a line for everybody is passed over");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span table = span_of(data, size), author;
	(void)span_cut(&table, '\n', &author);
	check(author, table, false);
	check(author, table, true);
	return 0;
}
