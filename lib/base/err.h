/*
 * Error codes shared by all modules, and the function attributes that go with
 * them.
 *
 * A function that can fail returns 0 (or a non-negative count) on success and
 * one of the negative codes below otherwise; its outputs are then untouched.
 * A verdict of a protocol (fail, reject, over quota) is never an error code.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stddef.h>

enum err {
	ERR_OK = 0,
	ERR_NOT_FOUND = -1, /* the thing asked for certainly does not exist */
	ERR_TEMP = -2,      /* may work later: a service is away, a lock is held */
	ERR_PERM = -3,      /* will not work however often it is tried */
	ERR_SYNTAX = -4,    /* the input does not follow its grammar */
	ERR_LIMIT = -5,     /* a named cap was reached (arena full, too long, ...) */
	ERR_EXISTS = -6,    /* already there */
	ERR_AGAIN = -7,     /* more input or an answer is needed: call again */
	ERR_CLOSED = -8,    /* the peer or the owner has ended it */
};

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define NORETURN __attribute__((noreturn))
/* For the rare call whose failure changes nothing; say why beside it. */
#define IGNORE_RESULT(call) \
	do {                \
		if (call) { \
		}           \
	} while (0)

/* Returns a static English phrase for CODE, "unknown error" for others. */
const char *err_text(int code);

/*
 * Ends the process at once by abort() after writing the text to stderr.
 * PANIC is for a broken invariant of ours, never for input or environment.
 */
#define PANIC(why) err_panic(__FILE__, __LINE__, why)
NORETURN void err_panic(const char *file, int line, const char *why);

/*
 * Allocators of the daemons: they never return NULL.  Out of memory aborts;
 * systemd restarts the daemon and Postfix retries the mail.  Code that runs
 * inside Dovecot's processes does not use them.
 */
void *mem_alloc(size_t size) __attribute__((malloc, returns_nonnull));
void *mem_zalloc(size_t size) __attribute__((malloc, returns_nonnull));
void *mem_realloc(void *ptr, size_t size) __attribute__((returns_nonnull));
char *mem_strdup(const char *text) __attribute__((malloc, returns_nonnull));

#endif
