/* One POST in the form of Standard Webhooks.  Each secret signs, so that a
 * receiver may go from one to the next while both are in the file. */
#include "lmtp-indexer/payload.h"
#include "lmtp-indexer/server.h"
#include "lmtp-indexer/webhook_internal.h"

#define NUMBER_MAX 64

bool webhook_refuses(unsigned status)
{
	return status / 100 == 4 && status != 408 && status != 429;
}

/* The event's key with letters that every receiver takes. */
void webhook_add_id(struct sbuf *out, struct span key)
{
	sbuf_adds(out, "evt_");
	for (size_t i = 0; i < key.len; i++)
		sbuf_addc(out, ascii_isalnum(key.ptr[i]) ? key.ptr[i] : '_');
}

/* The next secret of REST, without the empty lines. */
static bool next_secret(struct span *rest, struct span *secret_out)
{
	while (rest->len > 0) {
		span_cut(rest, '\n', secret_out);
		*secret_out = span_trim(*secret_out);
		if (secret_out->len > 0)
			return true;
	}
	return false;
}

static int add_signatures(struct sbuf *out, const char *secrets, struct span id, int64_t now_s, struct span body)
{
	struct span rest = span_str(secrets), secret;
	for (size_t n = 0; next_secret(&rest, &secret); n++) {
		if (n == WEBHOOK_SECRETS_MAX)
			return ERR_LIMIT;
		if (n > 0)
			sbuf_addc(out, ' ');
		int rc = payload_sign(out, secret, id, now_s, body);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int webhook_post(struct webhook_line *line, struct span key, struct span body, unsigned *status_out, struct sbuf *error)
{
	char id[HTTP_HEADER_MAX], stamp[NUMBER_MAX], signature[HTTP_HEADER_MAX];
	static const char agent[] = "User-Agent: Postern/" POSTERN_VERSION;
	const char *headers[] = {"Content-Type: application/json", agent, id, stamp, signature};
	struct sbuf id_b, stamp_b, sign_b;
	int64_t now_s = clock_wall_ms() / 1000;
	sbuf_init(&id_b, id, sizeof(id));
	sbuf_init(&stamp_b, stamp, sizeof(stamp));
	sbuf_init(&sign_b, signature, sizeof(signature));
	sbuf_adds(&id_b, "webhook-id: ");
	size_t head = id_b.len;
	webhook_add_id(&id_b, key);
	sbuf_addf(&stamp_b, "webhook-timestamp: %lld", (long long)now_s);
	sbuf_adds(&sign_b, "webhook-signature: ");
	if (add_signatures(&sign_b, line->secrets, span_skip(sbuf_span(&id_b), head), now_s, body) < 0)
		PANIC("the webhook's secrets were checked at the start");
	return http_post(line->http, headers, line->secrets[0] != '\0' ? 5 : 4, body, status_out, NULL, error);
}

int webhook_line_init(struct webhook_line *line, const struct webhook_config *config, struct sbuf *error)
{
	char probe_mem[HTTP_HEADER_MAX];
	struct sbuf probe;
	sbuf_init(&probe, probe_mem, sizeof(probe_mem));
	int rc = add_signatures(&probe, config->secrets, SPAN_EMPTY, 0, SPAN_EMPTY);
	if (rc < 0) {
		if (rc == ERR_LIMIT)
			sbuf_addf(error, "webhook_secret_file: more than %d secrets", WEBHOOK_SECRETS_MAX);
		else
			sbuf_adds(error, "webhook_secret_file: not whsec_ and base64");
		return ERR_SYNTAX;
	}
	line->http = http_new(config->url, "/", config->timeout_ms);
	/* A file of blank lines signs nothing. */
	line->secrets = mem_strdup(probe.len > 0 ? config->secrets : "");
	return 0;
}

void webhook_line_done(struct webhook_line *line)
{
	http_free(&line->http);
	free(line->secrets);
	line->secrets = NULL;
}
