/*
 * One value of a configuration: from text into the member of the daemon's
 * struct, and back.  Internal to lib/run/conf; LIST is handled there.
 */
#ifndef RUN_CONF_VALUE_H
#define RUN_CONF_VALUE_H

#include "lib/base/arena.h"
#include "lib/run/conf.h"

/*
 * Parses TEXT for OPTION (not a LIST) into its member of DATA; strings are
 * copied to MEM.  ERR_SYNTAX with the reason in ERROR, without a place.
 */
int conf_value_parse(const struct conf_option *option, struct span text, struct arena *mem,
		     void *data, struct sbuf *error) MUST_CHECK;

/* Writes the value (not of a LIST) as conf_value_parse reads it. */
void conf_value_print(const struct conf_option *option, const void *data, struct sbuf *out);

/* A bound of a number option, as it would stand in the file. */
void conf_value_print_number(enum conf_type type, int64_t value, struct sbuf *out);

/* Adds ` (did you mean "x"?)` where an option's name is close to KEY. */
void conf_value_suggest(const struct conf_spec *spec, struct span key, struct sbuf *error);

#endif
