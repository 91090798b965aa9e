/* A From field, read by the grammar and carelessly: every domain that is reported
 * has no structure in it. */
#include "lib/mail/addr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct addr_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		struct span domain = list->items[i].domain;
		for (size_t k = 0; k < domain.len && !list->items[i].literal; k++)
			if (strchr("()<>@,;:\\\"[] \t\r\n", domain.ptr[k]) != NULL)
				PANIC("a domain with a special");
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct addr_list list;
	struct arena a;
	arena_init(&a, 4 << 20);
	if (addr_list_parse(span_of(data, size), &a, &list) == 0)
		check(&list);
	if (addr_list_careless(span_of(data, size), &a, &list) == 0)
		check(&list);
	arena_done(&a);
	return 0;
}
