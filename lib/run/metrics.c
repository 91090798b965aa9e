/*
 * One static table of atomic cells, parallel to the daemon's rows.  A counter
 * or gauge uses `value`; a histogram its buckets (not cumulative here) and the
 * sum in nanoseconds, which wraps after some five hundred years.
 */
#include "metrics.h"

#include <inttypes.h>
#include <stdatomic.h>

#define BUCKETS 20 /* the last one has no upper bound */

static const double bounds_s[BUCKETS - 1] = {0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005,
					     0.01,    0.025,  0.05,    0.1,    0.25,  0.5,    1,
					     2.5,     5,      10,      30,     60};

/* As OpenMetrics wants them: the shortest decimal that is a float, not an integer. */
static const char *const bounds_text[BUCKETS] = {
	"5e-05", "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05",
	"0.1",   "0.25",   "0.5",     "1.0",    "2.5",   "5.0",    "10.0",  "30.0", "60.0",  "+Inf"};

struct cell {
	_Atomic uint64_t value;
	_Atomic uint64_t buckets[BUCKETS];
	_Atomic uint64_t sum_ns;
};

struct collector {
	void (*fn)(void *);
	void *arg;
};

static struct cell cells[METRICS_MAX];
static const struct metric_row *all_rows;
static size_t rows_count;
static struct collector collectors[METRICS_COLLECTORS_MAX];
static size_t collectors_count;

void metrics_init(const struct metric_row *rows, size_t count)
{
	if (count > METRICS_MAX)
		PANIC("more metrics than METRICS_MAX");
	memset(cells, 0, sizeof(cells));
	collectors_count = 0;
	all_rows = rows;
	rows_count = count;
}

void metrics_add(unsigned id, uint64_t n)
{
	if (id < rows_count)
		atomic_fetch_add_explicit(&cells[id].value, n, memory_order_relaxed);
}

void metrics_dec(unsigned id)
{
	if (id < rows_count)
		atomic_fetch_sub_explicit(&cells[id].value, 1, memory_order_relaxed);
}

void metrics_set(unsigned id, int64_t value)
{
	if (id < rows_count)
		atomic_store_explicit(&cells[id].value, (uint64_t)value, memory_order_relaxed);
}

int64_t metrics_get(unsigned id)
{
	if (id >= rows_count)
		return 0;
	return (int64_t)atomic_load_explicit(&cells[id].value, memory_order_relaxed);
}

void metrics_observe(unsigned id, double seconds)
{
	if (id >= rows_count)
		return;
	if (!(seconds > 0))
		seconds = 0;
	size_t i = 0;
	while (i < BUCKETS - 1 && seconds > bounds_s[i])
		i++;
	atomic_fetch_add_explicit(&cells[id].buckets[i], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&cells[id].sum_ns, (uint64_t)(seconds * 1e9), memory_order_relaxed);
}

void metrics_on_collect(void (*fn)(void *), void *arg)
{
	if (collectors_count == METRICS_COLLECTORS_MAX)
		PANIC("more collectors than METRICS_COLLECTORS_MAX");
	collectors[collectors_count++] = (struct collector){fn, arg};
}

static void add_name(const struct metric_row *row, struct sbuf *out)
{
	sbuf_adds(out, row->family);
	if (row->unit[0] != '\0')
		sbuf_addf(out, "_%s", row->unit);
}

static void add_escaped_help(const char *help, struct sbuf *out)
{
	for (; *help != '\0'; help++) {
		if (*help == '\n')
			sbuf_adds(out, "\\n");
		else if (*help == '\\' || *help == '"')
			sbuf_addf(out, "\\%c", *help);
		else
			sbuf_addc(out, *help);
	}
}

static void print_head(const struct metric_row *row, struct sbuf *out)
{
	static const char *const types[] = {"counter", "gauge", "histogram"};
	sbuf_adds(out, "# TYPE ");
	add_name(row, out);
	sbuf_addf(out, " %s\n", types[row->type]);
	if (row->unit[0] != '\0') {
		sbuf_adds(out, "# UNIT ");
		add_name(row, out);
		sbuf_addf(out, " %s\n", row->unit);
	}
	sbuf_adds(out, "# HELP ");
	add_name(row, out);
	sbuf_addc(out, ' ');
	add_escaped_help(row->help, out);
	sbuf_addc(out, '\n');
}

static void print_sample_name(const struct metric_row *row, const char *suffix, struct sbuf *out)
{
	add_name(row, out);
	sbuf_adds(out, suffix);
	if (row->labels[0] != '\0')
		sbuf_addf(out, "{%s}", row->labels);
	sbuf_addc(out, ' ');
}

static void print_bucket(const struct metric_row *row, size_t i, uint64_t count, struct sbuf *out)
{
	add_name(row, out);
	sbuf_addf(out, "_bucket{%s%s", row->labels, row->labels[0] != '\0' ? "," : "");
	sbuf_addf(out, "le=\"%s\"} %" PRIu64 "\n", bounds_text[i], count);
}

/* The count printed is that of the buckets printed, whatever comes in meanwhile. */
static void print_histogram(const struct metric_row *row, const struct cell *cell, struct sbuf *out)
{
	uint64_t count = 0;
	for (size_t i = 0; i < BUCKETS; i++) {
		count += atomic_load_explicit(&cell->buckets[i], memory_order_relaxed);
		print_bucket(row, i, count, out);
	}
	uint64_t sum_ns = atomic_load_explicit(&cell->sum_ns, memory_order_relaxed);
	print_sample_name(row, "_sum", out);
	sbuf_addf(out, "%" PRIu64 ".%09" PRIu64 "\n", sum_ns / 1000000000, sum_ns % 1000000000);
	print_sample_name(row, "_count", out);
	sbuf_addf(out, "%" PRIu64 "\n", count);
}

static void print_samples(const struct metric_row *row, const struct cell *cell, struct sbuf *out)
{
	uint64_t value = atomic_load_explicit(&cell->value, memory_order_relaxed);
	switch (row->type) {
	case METRIC_COUNTER:
		print_sample_name(row, "_total", out);
		sbuf_addf(out, "%" PRIu64 "\n", value);
		break;
	case METRIC_GAUGE:
		print_sample_name(row, "", out);
		sbuf_addf(out, "%" PRId64 "\n", (int64_t)value);
		break;
	case METRIC_HISTOGRAM:
		print_histogram(row, cell, out);
		break;
	}
}

static void collect(void)
{
	for (size_t i = 0; i < collectors_count; i++)
		collectors[i].fn(collectors[i].arg);
}

static uint64_t histogram_count(const struct cell *cell)
{
	uint64_t count = 0;
	for (size_t i = 0; i < BUCKETS; i++)
		count += atomic_load_explicit(&cell->buckets[i], memory_order_relaxed);
	return count;
}

#define SAMPLE_NAME_MAX 512

void metrics_each(void (*fn)(void *arg, const char *name, int64_t value), void *arg)
{
	static const char *const suffixes[] = {"_total", "", "_count"};
	char mem[SAMPLE_NAME_MAX];
	struct sbuf name;
	collect();
	for (size_t i = 0; i < rows_count; i++) {
		const struct metric_row *row = &all_rows[i];
		sbuf_init(&name, mem, sizeof(mem));
		print_sample_name(row, suffixes[row->type], &name);
		sbuf_truncate(&name, name.len - 1);
		fn(arg, sbuf_cstr(&name),
		   row->type == METRIC_HISTOGRAM ? (int64_t)histogram_count(&cells[i])
						 : metrics_get((unsigned)i));
	}
}

void metrics_print(struct sbuf *out)
{
	collect();
	for (size_t i = 0; i < rows_count; i++) {
		bool same_family = i > 0 && strcmp(all_rows[i].family, all_rows[i - 1].family) == 0;
		if (!same_family)
			print_head(&all_rows[i], out);
		print_samples(&all_rows[i], &cells[i], out);
	}
	sbuf_adds(out, "# EOF\n");
}
