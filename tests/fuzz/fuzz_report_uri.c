/* The value of a rua tag; what comes out may stand anywhere an address may. */
#include "lib/mail/dnsname.h"
#include "milter-dkim/report_uri.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct report_uri_list list;
	struct arena a;
	arena_init(&a, 1 << 20);
	if (report_uri_list(span_of(data, size), &a, &list) == 0) {
		for (size_t i = 0; i < list.count; i++) {
			struct span address = list.items[i].address;
			if (address.len > REPORT_ADDRESS_MAX || address.ptr[0] == '-' ||
			    !dnsname_mail_valid(list.items[i].host) || !span_ends(address, list.items[i].host))
				PANIC("an address that is none");
			for (size_t k = 0; k < address.len; k++)
				if (address.ptr[k] <= ' ' || address.ptr[k] > '~' || strchr("<>()\",;:\\[]", address.ptr[k]) != NULL)
					PANIC("an address with a delimiter");
		}
	}
	arena_done(&a);
	return 0;
}
