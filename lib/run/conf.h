/*
 * Configuration in Postfix style: `key = value`, `#` comments, a line that
 * begins with white space continues the one before.
 *
 * A daemon lists its options in options.def, one row each:
 *
 *   OPTION(name, TYPE, unit, min, max, default, prose)
 *
 *   name     identifier; key in the file and member of the daemon's struct
 *   TYPE     STRING INT BOOL DURATION SIZE ENUM LIST (see enum conf_type)
 *   unit     "" or what a number counts; for ENUM the words: "auto|sign|verify"
 *   min,max  bounds, in the unit of the value (milliseconds, bytes, items of a LIST)
 *   default  as it would stand in the file; "" is unset; several items of a LIST
 *            are separated by \n
 *   prose    one paragraph for the man page
 *
 * and makes its struct and table from the file:
 *
 *   struct policyd_config {
 *   #define OPTION CONF_MEMBER
 *   #include "policyd-ratelimit/options.def"
 *   #undef OPTION
 *   };
 *   #define CONF_STRUCT struct policyd_config
 *   static const struct conf_option options[] = {
 *   #define OPTION CONF_ROW
 *   #include "policyd-ratelimit/options.def"
 *   #undef OPTION
 *   };
 *
 * Each options.def begins with #include "lib/run/options-common.def" (what
 * skel needs) and, where the daemon speaks SQL, "lib/run/options-database.def".
 */
#ifndef RUN_CONF_H
#define RUN_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/sbuf.h"

enum conf_type {
	CONF_STRING,   /* const char *; "" when unset, never NULL */
	CONF_INT,      /* int64_t, not negative */
	CONF_BOOL,     /* bool: yes or no */
	CONF_DURATION, /* int64_t milliseconds: 30s, 10m, 1h, 500ms */
	CONF_SIZE,     /* int64_t bytes: 64K, 10M */
	CONF_ENUM,     /* int: index of the word in `unit` */
	CONF_LIST,     /* struct conf_list: the key may be repeated, each time one item;
			  an item in the file replaces the default's, one of -o those of
			  the file; an empty value adds none */
};

#define CONF_FILE_MAX (4u << 20) /* bytes of a file */

struct conf_item {
	const char *value;
	const char *file; /* where it stood, for messages of later checks */
	unsigned line;    /* 0: `file` is "default" or "command line" */
};

struct conf_list {
	struct conf_item *items;
	size_t count;
};

struct conf_option {
	const char *name;
	enum conf_type type;
	const char *unit;
	int64_t min, max;
	const char *def;
	size_t offset;
	const char *prose;
};

#define CONF_CTYPE_STRING const char *
#define CONF_CTYPE_INT int64_t
#define CONF_CTYPE_BOOL bool
#define CONF_CTYPE_DURATION int64_t
#define CONF_CTYPE_SIZE int64_t
#define CONF_CTYPE_ENUM int
#define CONF_CTYPE_LIST struct conf_list
#define CONF_MEMBER(name, type, unit, min, max, def, prose) CONF_CTYPE_##type name;
#define CONF_ROW(name, type, unit, min, max, def, prose) \
	{#name, CONF_##type, unit, min, max, def, offsetof(CONF_STRUCT, name), prose},

struct conf_spec {
	const struct conf_option *options;
	size_t count;
	size_t struct_size;
	/*
	 * Checks what a single row cannot (may be NULL): returns 0, or
	 * ERR_SYNTAX after conf_fail(). Must not touch the world: it also runs
	 * under -t.
	 */
	int (*check)(const void *config, struct sbuf *error);
};

/*
 * Reads PATH (NULL: defaults only), then the COUNT texts of OVERRIDES, each
 * "key=value" from -o.  On success *CONFIG_OUT is an owned struct for
 * conf_free(); on failure ERROR holds "file:line: message" and the return is
 * ERR_SYNTAX, or ERR_NOT_FOUND where the file cannot be read.
 */
int conf_load(const struct conf_spec *spec, const char *path, const char *const *overrides,
	      size_t count, void **config_out, struct sbuf *error) MUST_CHECK;
void conf_free(const struct conf_spec *spec, void **config);

/*
 * Writes all options as `key = value`, or those whose value differs from the
 * default (-n).  CONFIG may be NULL for the defaults (-d).
 */
void conf_print(const struct conf_spec *spec, const void *config, bool only_changed, struct sbuf *out);

/* Whether OPTION of SPEC has the same value in both. */
bool conf_same(const struct conf_option *option, const void *a, const void *b);

/* For checks of list items: writes "file:line: message" and returns ERR_SYNTAX. */
int conf_fail(struct sbuf *error, const struct conf_item *at, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* The same for any option of CONFIG, by its name. */
int conf_fail_option(const struct conf_spec *spec, const void *config, const char *name,
		     struct sbuf *error, const char *fmt, ...) PRINTF_LIKE(5, 6);

/*
 * Typed access by name, for library code that serves every daemon.  Panics
 * where the option does not exist or has another type.
 */
const char *conf_get_string(const struct conf_spec *spec, const void *config, const char *name);
/* INT, DURATION, SIZE; an ENUM gives its index, a BOOL 0 or 1. */
int64_t conf_get_number(const struct conf_spec *spec, const void *config, const char *name);
bool conf_has(const struct conf_spec *spec, const char *name);

#endif
