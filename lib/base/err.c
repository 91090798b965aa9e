/*
 * Error phrases, the panic that ends a process on a broken invariant, and the
 * allocators that never fail.
 */
#include "err.h"

const char *err_text(int code)
{
	static const char *const text[] = {
		[-ERR_OK] = "success",
		[-ERR_NOT_FOUND] = "not found",
		[-ERR_TEMP] = "temporary failure",
		[-ERR_PERM] = "permanent failure",
		[-ERR_SYNTAX] = "syntax error",
		[-ERR_LIMIT] = "limit reached",
		[-ERR_EXISTS] = "already exists",
		[-ERR_AGAIN] = "more input needed",
		[-ERR_CLOSED] = "closed",
	};
	if (code > 0 || code < ERR_CLOSED)
		return "unknown error";
	return text[-code];
}

void err_panic(const char *file, int line, const char *why)
{
	fprintf(stderr, "panic at %s:%d: %s\n", file, line, why);
	abort();
}

void *mem_alloc(size_t size)
{
	void *ptr = malloc(size > 0 ? size : 1);
	if (ptr == NULL)
		PANIC("out of memory");
	return ptr;
}

void *mem_zalloc(size_t size)
{
	void *ptr = calloc(1, size > 0 ? size : 1);
	if (ptr == NULL)
		PANIC("out of memory");
	return ptr;
}

void *mem_realloc(void *ptr, size_t size)
{
	void *grown = realloc(ptr, size > 0 ? size : 1);
	if (grown == NULL)
		PANIC("out of memory");
	return grown;
}

char *mem_strdup(const char *text)
{
	size_t size = strlen(text) + 1;
	return memcpy(mem_alloc(size), text, size);
}
