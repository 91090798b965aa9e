/*
 * A loaded configuration is one block: a hidden head with the arena that owns
 * every string and the place where each option was set, then the daemon's
 * struct.  Sources are applied in the order default, file, command line; a
 * later source replaces what an earlier one set.
 */
#include "conf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdalign.h>
#include <unistd.h>

#include "lib/run/conf_reader.h"
#include "lib/run/conf_value.h"

#define CONF_MEMORY_MAX (4 * (size_t)CONF_FILE_MAX)
#define SHOWN_VALUE_MAX 60

enum source { FROM_DEFAULT, FROM_FILE, FROM_COMMAND_LINE };

struct origin {
	enum source source;
	struct conf_item place; /* of the line that set it first */
};

struct holder {
	struct arena mem;
	struct origin *origins; /* one an option */
	alignas(max_align_t) char data[];
};

struct loader {
	const struct conf_spec *spec;
	struct holder *holder;
	enum source source;
	const char *file;
	struct sbuf *error;
};

static const struct holder *holder_of(const void *config)
{
	return (const struct holder *)(const void *)((const char *)config - offsetof(struct holder, data));
}

static void *zalloc_from(struct holder *holder, size_t count, size_t size)
{
	void *mem = arena_calloc(&holder->mem, count, size);
	if (mem == NULL)
		PANIC("configuration tables over the cap");
	return mem;
}

static struct holder *holder_new(const struct conf_spec *spec)
{
	struct holder *holder = mem_zalloc(sizeof(*holder) + spec->struct_size);
	arena_init(&holder->mem, CONF_MEMORY_MAX);
	holder->origins = zalloc_from(holder, spec->count, sizeof(struct origin));
	return holder;
}

static void holder_free(struct holder *holder)
{
	arena_done(&holder->mem);
	free(holder);
}

static int vfail(struct sbuf *error, const struct conf_item *at, const char *fmt, va_list args)
{
	sbuf_adds(error, at->file != NULL ? at->file : "default");
	if (at->line > 0)
		sbuf_addf(error, ":%u", at->line);
	sbuf_adds(error, ": ");
	sbuf_vaddf(error, fmt, args);
	return ERR_SYNTAX;
}

int conf_fail(struct sbuf *error, const struct conf_item *at, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	int rc = vfail(error, at, fmt, args);
	va_end(args);
	return rc;
}

static const struct conf_option *find_option(const struct conf_spec *spec, struct span name)
{
	for (size_t i = 0; i < spec->count; i++)
		if (span_eq(span_str(spec->options[i].name), name))
			return &spec->options[i];
	return NULL;
}

static const struct conf_option *need_option(const struct conf_spec *spec, const char *name)
{
	const struct conf_option *option = find_option(spec, span_str(name));
	if (option == NULL)
		PANIC("no such option");
	return option;
}

int conf_fail_option(const struct conf_spec *spec, const void *config, const char *name,
		     struct sbuf *error, const char *fmt, ...)
{
	const struct conf_option *option = need_option(spec, name);
	va_list args;
	va_start(args, fmt);
	int rc = vfail(error, &holder_of(config)->origins[option - spec->options].place, fmt, args);
	va_end(args);
	return rc;
}

static int add_item(struct loader *load, const struct conf_option *option, struct span text,
		    const struct conf_item *at)
{
	struct conf_list *list = (struct conf_list *)(void *)(load->holder->data + option->offset);
	if ((int64_t)list->count >= option->max)
		return conf_fail(load->error, at, "more than %lld times \"%s\"",
				 (long long)option->max, option->name);
	/* The array doubles whenever the count is a power of two. */
	if ((list->count & (list->count - 1)) == 0) {
		size_t room = list->count == 0 ? 1 : list->count * 2;
		struct conf_item *items = arena_calloc(&load->holder->mem, room, sizeof(*items));
		if (items == NULL)
			return conf_fail(load->error, at, "the configuration is too large");
		if (list->count > 0)
			memcpy(items, list->items, list->count * sizeof(*items));
		list->items = items;
	}
	const char *value = arena_strdup(&load->holder->mem, text);
	if (value == NULL)
		return conf_fail(load->error, at, "the configuration is too large");
	list->items[list->count++] = (struct conf_item){value, at->file, at->line};
	return 0;
}

static int set_value(struct loader *load, const struct conf_option *option, struct span text,
		     const struct conf_item *at)
{
	char mem[256];
	struct sbuf reason, shown;
	char shown_mem[4 * SHOWN_VALUE_MAX + 1];
	sbuf_init(&reason, mem, sizeof(mem));
	int rc = conf_value_parse(option, text, &load->holder->mem, load->holder->data, &reason);
	if (rc == 0)
		return 0;
	sbuf_init(&shown, shown_mem, sizeof(shown_mem));
	sbuf_add_escaped(&shown, span_take(text, SHOWN_VALUE_MAX));
	return conf_fail(load->error, at, "bad value \"%s\" for %s: %s", sbuf_cstr(&shown),
			 option->name, sbuf_cstr(&reason));
}

static int unknown_key(struct loader *load, struct span key, const struct conf_item *at)
{
	char mem[4 * SHOWN_VALUE_MAX + 1];
	struct sbuf shown;
	sbuf_init(&shown, mem, sizeof(mem));
	sbuf_add_escaped(&shown, span_take(key, SHOWN_VALUE_MAX));
	conf_fail(load->error, at, "unknown key \"%s\"", sbuf_cstr(&shown));
	conf_value_suggest(load->spec, key, load->error);
	return ERR_SYNTAX;
}

static int apply(struct loader *load, struct span key, struct span value, unsigned line)
{
	const struct conf_item at = {NULL, load->file, line};
	const struct conf_option *option = find_option(load->spec, key);
	if (option == NULL)
		return unknown_key(load, key, &at);
	struct origin *origin = &load->holder->origins[option - load->spec->options];
	bool again = origin->source == load->source && load->source != FROM_DEFAULT;
	if (again && load->source == FROM_FILE && option->type != CONF_LIST)
		return conf_fail(load->error, &at, "%s is already set in line %u", option->name,
				 origin->place.line);
	if (!again)
		*origin = (struct origin){load->source, at};
	if (option->type != CONF_LIST)
		return set_value(load, option, value, &at);
	if (!again)
		((struct conf_list *)(void *)(load->holder->data + option->offset))->count = 0;
	return value.len == 0 ? 0 : add_item(load, option, value, &at);
}

/* Unset strings skip their minimum here: check_required() looks once all
 * sources were read. */
static int apply_default(struct loader *load, const struct conf_option *option)
{
	struct span rest = span_str(option->def), item;
	if (option->type == CONF_STRING && rest.len == 0) {
		*(const char **)(void *)(load->holder->data + option->offset) = "";
		return 0;
	}
	if (option->type != CONF_LIST)
		return apply(load, span_str(option->name), rest, 0);
	while (rest.len > 0) {
		span_cut(&rest, '\n', &item);
		if (add_item(load, option, item, &(struct conf_item){NULL, load->file, 0}) < 0)
			return ERR_SYNTAX;
	}
	return 0;
}

static int load_defaults(struct loader *load)
{
	load->source = FROM_DEFAULT;
	load->file = "default";
	for (size_t i = 0; i < load->spec->count; i++) {
		load->holder->origins[i].place.file = load->file;
		if (apply_default(load, &load->spec->options[i]) < 0)
			return ERR_SYNTAX;
	}
	return 0;
}

static int read_all(int fd, struct sbuf *text)
{
	char chunk[16384];
	for (;;) {
		ssize_t n = read(fd, chunk, sizeof(chunk));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return (int)n;
		sbuf_add(text, span_of(chunk, (size_t)n));
		if (!sbuf_ok(text)) {
			errno = EFBIG;
			return -1;
		}
	}
}

static int read_file(const char *path, struct sbuf *text, struct sbuf *error)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int rc = fd < 0 ? -1 : read_all(fd, text);
	if (rc < 0)
		sbuf_addf(error, "%s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return rc < 0 ? ERR_NOT_FOUND : 0;
}

static int load_lines(struct loader *load, struct span text)
{
	char mem[128];
	struct sbuf reason;
	struct conf_reader reader;
	struct conf_line line = {0};
	int rc;
	sbuf_init(&reason, mem, sizeof(mem));
	conf_reader_init(&reader, text);
	while ((rc = conf_reader_next(&reader, &line, &reason)) > 0) {
		rc = apply(load, line.key, line.value, line.line);
		if (rc < 0)
			goto out;
	}
	if (rc < 0)
		conf_fail(load->error, &(struct conf_item){NULL, load->file, line.line}, "%s",
			  sbuf_cstr(&reason));
out:
	conf_reader_done(&reader);
	return rc;
}

static int load_file(struct loader *load, const char *path)
{
	struct sbuf text;
	sbuf_init_heap(&text, CONF_FILE_MAX);
	load->source = FROM_FILE;
	load->file = arena_strdup(&load->holder->mem, span_str(path));
	int rc = load->file == NULL ? ERR_LIMIT : read_file(path, &text, load->error);
	if (rc == 0)
		rc = load_lines(load, sbuf_span(&text));
	sbuf_done(&text);
	return rc;
}

static int load_overrides(struct loader *load, const char *const *overrides, size_t count)
{
	load->source = FROM_COMMAND_LINE;
	load->file = "command line";
	for (size_t i = 0; i < count; i++) {
		struct span value = span_str(overrides[i]), key;
		if (!span_cut(&value, '=', &key))
			return conf_fail(load->error, &(struct conf_item){NULL, load->file, 0},
					 "expected \"key=value\"");
		int rc = apply(load, span_trim(key), span_trim(value), 0);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Minima that only hold once every source has been read. */
static int check_required(struct loader *load)
{
	for (size_t i = 0; i < load->spec->count; i++) {
		const struct conf_option *option = &load->spec->options[i];
		const void *at = load->holder->data + option->offset;
		const struct conf_item *place = &load->holder->origins[i].place;
		if (option->type == CONF_STRING && option->min > 0 && **(const char *const *)at == '\0')
			return conf_fail(load->error, place, "%s must be set", option->name);
		if (option->type == CONF_LIST &&
		    (int64_t)((const struct conf_list *)at)->count < option->min)
			return conf_fail(load->error, place, "at least %lld times \"%s\" is needed",
					 (long long)option->min, option->name);
	}
	return 0;
}

int conf_load(const struct conf_spec *spec, const char *path, const char *const *overrides,
	      size_t count, void **config_out, struct sbuf *error)
{
	struct loader load = {.spec = spec, .holder = holder_new(spec), .error = error};
	int rc = load_defaults(&load);
	if (rc == 0 && path != NULL)
		rc = load_file(&load, path);
	if (rc == 0)
		rc = load_overrides(&load, overrides, count);
	if (rc == 0)
		rc = check_required(&load);
	if (rc == 0 && spec->check != NULL)
		rc = spec->check(load.holder->data, error);
	if (rc < 0) {
		holder_free(load.holder);
		return rc;
	}
	*config_out = load.holder->data;
	return 0;
}

void conf_free(const struct conf_spec *spec, void **config)
{
	(void)spec;
	if (*config == NULL)
		return;
	holder_free((struct holder *)(void *)((char *)*config - offsetof(struct holder, data)));
	*config = NULL;
}

static void print_list(const struct conf_option *option, const void *config, struct sbuf *out)
{
	const struct conf_list *list =
		(const struct conf_list *)(const void *)((const char *)config + option->offset);
	if (list->count == 0)
		sbuf_addf(out, "%s =\n", option->name);
	for (size_t i = 0; i < list->count; i++)
		sbuf_addf(out, "%s = %s\n", option->name, list->items[i].value);
}

static void print_option(const struct conf_option *option, const void *config, struct sbuf *out)
{
	if (option->type == CONF_LIST) {
		print_list(option, config, out);
		return;
	}
	sbuf_addf(out, "%s = ", option->name);
	size_t value = out->len;
	conf_value_print(option, config, out);
	if (out->len == value)
		sbuf_truncate(out, value - 1);
	sbuf_addc(out, '\n');
}

void conf_print(const struct conf_spec *spec, const void *config, bool only_changed, struct sbuf *out)
{
	struct loader load = {.spec = spec, .holder = holder_new(spec), .error = out};
	struct sbuf now, before;
	if (load_defaults(&load) < 0)
		PANIC("a default does not satisfy its own option");
	if (config == NULL)
		config = load.holder->data;
	sbuf_init_heap(&now, CONF_FILE_MAX);
	sbuf_init_heap(&before, CONF_FILE_MAX);
	for (size_t i = 0; i < spec->count; i++) {
		sbuf_reset(&now);
		sbuf_reset(&before);
		print_option(&spec->options[i], config, &now);
		print_option(&spec->options[i], load.holder->data, &before);
		if (!only_changed || !span_eq(sbuf_span(&now), sbuf_span(&before)))
			sbuf_add(out, sbuf_span(&now));
	}
	sbuf_done(&now);
	sbuf_done(&before);
	holder_free(load.holder);
}

bool conf_same(const struct conf_option *option, const void *a, const void *b)
{
	struct sbuf first, second;
	sbuf_init_heap(&first, CONF_FILE_MAX);
	sbuf_init_heap(&second, CONF_FILE_MAX);
	print_option(option, a, &first);
	print_option(option, b, &second);
	bool same = span_eq(sbuf_span(&first), sbuf_span(&second));
	sbuf_done(&first);
	sbuf_done(&second);
	return same;
}

const char *conf_get_string(const struct conf_spec *spec, const void *config, const char *name)
{
	const struct conf_option *option = need_option(spec, name);
	if (option->type != CONF_STRING)
		PANIC("not a string option");
	return *(const char *const *)(const void *)((const char *)config + option->offset);
}

int64_t conf_get_number(const struct conf_spec *spec, const void *config, const char *name)
{
	const struct conf_option *option = need_option(spec, name);
	const void *at = (const char *)config + option->offset;
	switch (option->type) {
	case CONF_BOOL:
		return *(const bool *)at;
	case CONF_ENUM:
		return *(const int *)at;
	case CONF_INT:
	case CONF_DURATION:
	case CONF_SIZE:
		return *(const int64_t *)at;
	case CONF_STRING:
	case CONF_LIST:
		break;
	}
	PANIC("not a number option");
}

bool conf_has(const struct conf_spec *spec, const char *name)
{
	return find_option(spec, span_str(name)) != NULL;
}
