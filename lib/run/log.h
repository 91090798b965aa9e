/*
 * Logging: structured fields to journald, or `id key=value` lines on stderr
 * where no journald listens.  Never blocks: what cannot be handed over at once
 * is dropped and counted (metric postern_log_dropped).  Thread-safe.
 *
 * Each kind of event is one row of a daemon's events.def:
 *
 *   EVENT(name, "32 hex digits", "subject", "what it means and what to do")
 *
 * from which the journald catalog is generated.  Library code under lib/base
 * and lib/mail and pure modules do not log.
 */
#ifndef RUN_LOG_H
#define RUN_LOG_H

#include <syslog.h> /* LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_INFO, LOG_DEBUG */

#include "lib/base/sbuf.h"

struct log_event {
	const char *name;       /* the id= of the line, e.g. "delivered" */
	const char *message_id; /* of the catalog */
};

/* Makes the objects ev_NAME from an events.def. */
#define EVENT_DEFINE(name, id, subject, prose) const struct log_event ev_##name = {#name, id};
#define EVENT_DECLARE(name, id, subject, prose) extern const struct log_event ev_##name;

struct log_field {
	const char *name; /* upper case: QUEUE_ID, MESSAGE_ID_HDR, CLIENT_IP, ACCOUNT,
			     RECIPIENT, DOMAIN, RESULT, ... */
	struct span value; /* any bytes; escaped for the stderr form */
};

#define LOG_FIELD(name, value) ((struct log_field){name, value})
#define LOG_FIELD_STR(name, text) ((struct log_field){name, span_str(text)})

/*
 * LOG_EVENT(LOG_INFO, &ev_delivered, "delivered", LOG_FIELD("QUEUE_ID", id), ...)
 * TEXT is a literal sentence without variable parts: those are the fields.
 */
#define LOG_EVENT(level, event, text, ...)                                          \
	log_event_write(level, event, text, (const struct log_field[]){__VA_ARGS__}, \
			sizeof((const struct log_field[]){__VA_ARGS__}) / sizeof(struct log_field))

#define LOG_FIELDS_MAX 32     /* more fields of one event are left out */
#define LOG_VALUE_MAX 2048    /* bytes of a value or text; the rest is cut off */
#define LOG_LINE_MAX 4096     /* bytes of a stderr line; cut off at a field (PIPE_BUF) */

/* In the order of the words of the option log_target. */
enum log_target {
	LOG_TO_AUTO, /* journald where its socket is there, else stderr: decided for each line */
	LOG_TO_JOURNAL,
	LOG_TO_STDERR,
};

/*
 * IDENT is the daemon's name and must stay valid.  Before the first call all
 * goes to stderr.  Call it again after stderr was replaced.
 */
void log_open(const char *ident);
void log_set_level(int level);
void log_set_target(enum log_target target);
/* Where journald is looked for instead of its usual place; for tests. */
void log_set_journal(const char *socket_path);
void log_event_write(int level, const struct log_event *event, const char *text,
		     const struct log_field *fields, size_t count);
/* A line without an event of its own. */
void log_text(int level, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Lines dropped since the start. */
uint64_t log_dropped(void);

#endif
