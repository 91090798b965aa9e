/*
 * deliver() of each channel runs on its outbox's thread and has one record at a
 * time, so that what was told is not told again because of what follows it.
 */
#include "herald.h"

#include <stdlib.h>
#include <unistd.h>

#include "lib/run/hook.h"
#include "lib/run/outbox.h"
#include "lib/run/secret.h"
#include "lib/run/sendmail.h"
#include "policyd-ratelimit/herald_text.h"
#include "policyd-ratelimit/policyd.h"

#define HOUR_MS 3600000
#define BOX_BYTES (16u << 20)
#define SEGMENT_BYTES (1u << 20)
#define RETRY_MIN_MS 1000
#define RETRY_MAX_MS 300000
#define SENDMAIL_TIMEOUT_MS 10000
#define HOST_MAX 256

struct channel {
	struct herald *herald;
	const char *name;
	struct outbox *box;
	bool failing; /* was told */
	/* One attempt: 0, or ERR_TEMP with the reason. */
	int (*attempt)(struct channel *c, const struct notice *notice, struct span id, struct sbuf *error);
};

struct herald {
	struct channel webhook, mail;
	struct hook_line line;
	char *mail_to, *mail_from, *sendmail;
	char host[HOST_MAX];
	int64_t give_up_ms;
	uint64_t max_an_hour, told, dropped; /* of the hour that began at hour_ms */
	int64_t hour_ms;
};

/* ---- attempts ---- */

static int webhook_attempt(struct channel *c, const struct notice *notice, struct span id, struct sbuf *error)
{
	struct sbuf body;
	unsigned status = 0;
	sbuf_init_heap(&body, HERALD_TEXT_MAX);
	herald_json_add(notice, c->herald->host, &body);
	int rc = hook_post(&c->herald->line, id, sbuf_span(&body), &status, error);
	sbuf_done(&body);
	if (rc == 0 && status / 100 != 2) {
		sbuf_addf(error, "status %u", status);
		rc = ERR_TEMP;
	}
	return rc;
}

static int mail_attempt(struct channel *c, const struct notice *notice, struct span id, struct sbuf *error)
{
	const struct herald *h = c->herald;
	const struct herald_mail mail = {.from = h->mail_from, .to = h->mail_to, .host = h->host, .id = id};
	struct sbuf text;
	sbuf_init_heap(&text, HERALD_TEXT_MAX);
	herald_mail_add(notice, &mail, &text);
	int rc = sendmail_run(h->sendmail, h->mail_from, h->mail_to, sbuf_span(&text), SENDMAIL_TIMEOUT_MS, error);
	sbuf_done(&text);
	/* Whether it was taken nobody knows: twice is better than never. */
	return rc == 0 ? 0 : ERR_TEMP;
}

static int tell(struct channel *c, uint64_t instance, const struct outbox_record *record)
{
	char id_mem[HERALD_ID_MAX], error_mem[256];
	struct notice notice;
	struct sbuf id, error;
	if (notice_decode(record->payload, &notice) < 0)
		return ERR_PERM;
	sbuf_init(&id, id_mem, sizeof(id_mem));
	sbuf_init(&error, error_mem, sizeof(error_mem));
	herald_id_add(instance, record->seq, &id);
	if (c->attempt(c, &notice, sbuf_span(&id), &error) == 0) {
		metrics_inc(METRIC_NOTIFY_SENT);
		c->failing = false;
		return 0;
	}
	metrics_inc(METRIC_NOTIFY_FAILED);
	if (!c->failing)
		LOG_EVENT(LOG_WARNING, &ev_notify_failing, "a notice of abuse cannot be told",
			  LOG_FIELD_STR("CHANNEL", c->name), LOG_FIELD("REASON", sbuf_span(&error)));
	c->failing = true;
	if (clock_wall_ms() - record->appended_ms < c->herald->give_up_ms)
		return ERR_TEMP;
	LOG_EVENT(LOG_ERR, &ev_notify_given_up, "a notice of abuse was given up", LOG_FIELD_STR("CHANNEL", c->name),
		  LOG_FIELD("KEY", notice.fields[NOTICE_KEY]), LOG_FIELD("REASON", sbuf_span(&error)));
	return 0;
}

static int deliver(void *arg, uint64_t instance, const struct outbox_record *records, size_t count)
{
	int rc = 0;
	for (size_t i = 0; i < count && rc == 0; i++)
		rc = tell(arg, instance, &records[i]);
	return rc;
}

/* ---- life ---- */

/* An outbox that cannot be opened costs notices, not limits. */
static void channel_open(struct herald *h, struct channel *c, const char *state_dir)
{
	char path[1100], mem[512];
	struct sbuf error;
	snprintf(path, sizeof(path), "%s/notify-%s", state_dir, c->name);
	const struct outbox_config box = {.dir = path, .segment_bytes = SEGMENT_BYTES, .max_bytes = BOX_BYTES,
					  .batch_records = 1, .retry_min_ms = RETRY_MIN_MS,
					  .retry_max_ms = RETRY_MAX_MS, .deliver = deliver, .arg = c};
	c->herald = h;
	sbuf_init(&error, mem, sizeof(mem));
	if (outbox_open(&box, &c->box, &error) < 0)
		LOG_EVENT(LOG_ERR, &ev_notify_failing, "notices of abuse cannot be kept", LOG_FIELD_STR("CHANNEL", c->name),
			  LOG_FIELD("REASON", sbuf_span(&error)));
}

static int webhook_open(struct herald *h, const struct policyd_config *config, const char *state_dir,
			struct sbuf *error)
{
	char secrets[SECRET_MAX];
	h->webhook = (struct channel){.name = "webhook", .attempt = webhook_attempt};
	if (config->notify_webhook_url[0] == '\0')
		return 0;
	int rc = secret_read(config->notify_webhook_secret_file, secrets, error);
	if (rc < 0)
		return rc;
	http_start();
	sbuf_adds(error, "notify_webhook_secret_file: ");
	rc = hook_line_init(&h->line, config->notify_webhook_url, secrets, config->notify_webhook_timeout, error);
	if (rc < 0)
		return rc;
	sbuf_reset(error);
	channel_open(h, &h->webhook, state_dir);
	return 0;
}

static void mail_open(struct herald *h, const struct policyd_config *config, const char *state_dir)
{
	h->mail = (struct channel){.name = "mail", .attempt = mail_attempt};
	h->mail_to = mem_strdup(config->notify_mail_to);
	h->mail_from = mem_strdup(config->notify_mail_from);
	h->sendmail = mem_strdup(config->sendmail_path);
	if (h->mail_to[0] != '\0')
		channel_open(h, &h->mail, state_dir);
}

int herald_open(const struct policyd_config *config, const char *state_dir, struct herald **herald_out,
		struct sbuf *error)
{
	*herald_out = NULL;
	if (config->notify_webhook_url[0] == '\0' && config->notify_mail_to[0] == '\0')
		return 0;
	struct herald *h = mem_zalloc(sizeof(*h));
	h->give_up_ms = config->notify_give_up;
	h->max_an_hour = (uint64_t)config->notify_max;
	h->hour_ms = clock_boot_ms();
	if (gethostname(h->host, sizeof(h->host) - 1) < 0 || !herald_address_is_fine(h->host))
		snprintf(h->host, sizeof(h->host), "localhost");
	int rc = webhook_open(h, config, state_dir, error);
	if (rc < 0) {
		herald_close(&h);
		return rc;
	}
	mail_open(h, config, state_dir);
	*herald_out = h;
	return 0;
}

void herald_close(struct herald **herald)
{
	struct herald *h = *herald;
	if (h == NULL)
		return;
	if (h->line.http != NULL)
		http_cancel(h->line.http);
	if (h->webhook.box != NULL)
		outbox_close(&h->webhook.box, 0);
	if (h->mail.box != NULL)
		outbox_close(&h->mail.box, 0);
	hook_line_done(&h->line);
	free(h->mail_to);
	free(h->mail_from);
	free(h->sendmail);
	free(h);
	*herald = NULL;
}

/* Whether one more may be told in this hour. */
static bool has_room(struct herald *h)
{
	int64_t now_ms = clock_boot_ms();
	if (now_ms - h->hour_ms >= HOUR_MS) {
		h->hour_ms = now_ms;
		h->told = h->dropped = 0;
	}
	if (h->told < h->max_an_hour) {
		h->told++;
		return true;
	}
	if (h->dropped++ == 0)
		LOG_EVENT(LOG_WARNING, &ev_notify_dropped, "more notices of abuse than are told in an hour",
			  LOG_FIELD_STR("ADVICE", "see them by postern limits list"));
	metrics_inc(METRIC_NOTIFY_DROPPED);
	return false;
}

static void channel_add(struct channel *c, struct span record)
{
	if (c->box != NULL && outbox_append(c->box, record, NULL) < 0)
		metrics_inc(METRIC_NOTIFY_DROPPED);
}

void herald_add(struct herald *h, const struct notice *notice)
{
	char mem[NOTICE_RECORD_MAX];
	struct sbuf record;
	if (h == NULL || !has_room(h))
		return;
	sbuf_init(&record, mem, sizeof(mem));
	notice_encode(notice, &record);
	if (!sbuf_ok(&record)) {
		metrics_inc(METRIC_NOTIFY_DROPPED);
		return;
	}
	channel_add(&h->webhook, sbuf_span(&record));
	channel_add(&h->mail, sbuf_span(&record));
}
