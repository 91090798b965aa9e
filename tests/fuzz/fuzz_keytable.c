/*
 * OpenDKIM's tables, the text form of a key ring, and host sets.  The input is
 * cut at its NUL bytes: KeyTable, SigningTable, an address.
 */
#include "milter-dkim/hostset.h"
#include "milter-dkim/keyring.h"
#include "milter-dkim/keytable.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int no_file(void *arg, const char *path, struct sbuf *out)
{
	(void)arg;
	(void)out;
	return path[0] == '\0' ? ERR_SYNTAX : ERR_NOT_FOUND;
}

static void check_table(struct span keys, struct span signing, struct span address, bool wildcards)
{
	struct keytable *table;
	struct signkey *found[4];
	struct span domain = address, local;
	struct keytable_source source = {
		.keys = keys, .signing = signing, .wildcards = wildcards, .read = no_file,
	};
	if (keytable_load(&source, &table) < 0)
		return;
	span_cut(&domain, '@', &local);
	size_t count = keytable_find(table, local, domain, found, 4);
	for (size_t i = 0; i < count; i++) {
		struct crypto_key *key;
		const char *reason;
		if (signkey_get(found[i], &key, &reason) == 0)
			crypto_key_unref(&key);
		signkey_unref(&found[i]);
	}
	keytable_unref(&table);
}

static void check_ring(struct span text)
{
	struct keyring *ring;
	struct sbuf again;
	if (keyring_decode(text, &ring) < 0)
		return;
	sbuf_init_heap(&again, 4 * text.len + 256);
	keyring_encode(ring, &again);
	if (again.len > text.len)
		PANIC("a ring grows when written anew");
	sbuf_done(&again);
	keyring_unref(&ring);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span rest = span_of(data, size), keys, signing, bad;
	struct hostset hosts = {0};
	struct ip ip = {.bits = 32, .bytes = {127, 0, 0, 1}};
	check_ring(rest);
	span_cut(&rest, '\0', &keys);
	span_cut(&rest, '\0', &signing);
	check_table(keys, signing, rest, true);
	check_table(keys, signing, rest, false);
	if (hostset_add(&hosts, keys, &bad) == 0)
		(void)hostset_has(&hosts, &ip, rest);
	hostset_done(&hosts);
	return 0;
}
