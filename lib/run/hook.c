/* Each secret signs, so that a receiver may go from one to the next while both
 * are in the file. */
#include "lib/run/hook.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "lib/run/loop.h"

#define NUMBER_MAX 64
#define DIGEST_BYTES 32

bool hook_refuses(unsigned status)
{
	return status / 100 == 4 && status != 408 && status != 429;
}

static void hmac(const struct sbuf *key, const struct sbuf *text, unsigned char digest[DIGEST_BYTES])
{
	unsigned len = 0;
	if (HMAC(EVP_sha256(), key->ptr, (int)key->len, (const unsigned char *)text->ptr, text->len, digest, &len) == NULL ||
	    len != DIGEST_BYTES)
		PANIC("HMAC-SHA256 failed");
}

int hook_sign(struct sbuf *out, struct span secret, struct span id, int64_t timestamp_s, struct span body)
{
	char key_mem[HOOK_SECRET_MAX];
	unsigned char digest[DIGEST_BYTES];
	struct sbuf key, text;
	sbuf_init(&key, key_mem, sizeof(key_mem));
	if (!span_starts(secret, SPAN_LIT("whsec_")) || sbuf_add_unbase64(&key, span_skip(secret, 6)) < 0 ||
	    key.len == 0)
		return ERR_SYNTAX;
	sbuf_init_heap(&text, id.len + NUMBER_MAX + body.len);
	sbuf_add(&text, id);
	sbuf_addf(&text, ".%lld.", (long long)timestamp_s);
	sbuf_add(&text, body);
	hmac(&key, &text, digest);
	sbuf_done(&text);
	sbuf_adds(out, "v1,");
	sbuf_add_base64(out, span_of(digest, sizeof(digest)));
	return 0;
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
		if (n == HOOK_SECRETS_MAX)
			return ERR_LIMIT;
		if (n > 0)
			sbuf_addc(out, ' ');
		int rc = hook_sign(out, secret, id, now_s, body);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int hook_post(struct hook_line *line, struct span id, struct span body, unsigned *status_out, struct sbuf *error)
{
	char id_mem[HTTP_HEADER_MAX], stamp[NUMBER_MAX], signature[HTTP_HEADER_MAX];
	static const char agent[] = "User-Agent: Postern/" POSTERN_VERSION;
	const char *headers[] = {"Content-Type: application/json", agent, id_mem, stamp, signature};
	struct sbuf id_b, stamp_b, sign_b;
	int64_t now_s = clock_wall_ms() / 1000;
	sbuf_init(&id_b, id_mem, sizeof(id_mem));
	sbuf_init(&stamp_b, stamp, sizeof(stamp));
	sbuf_init(&sign_b, signature, sizeof(signature));
	sbuf_adds(&id_b, "webhook-id: ");
	sbuf_add(&id_b, id);
	sbuf_addf(&stamp_b, "webhook-timestamp: %lld", (long long)now_s);
	sbuf_adds(&sign_b, "webhook-signature: ");
	if (add_signatures(&sign_b, line->secrets, id, now_s, body) < 0)
		PANIC("the webhook's secrets were checked at the start");
	return http_post(line->http, headers, line->secrets[0] != '\0' ? 5 : 4, body, status_out, NULL, error);
}

int hook_line_init(struct hook_line *line, const char *url, const char *secrets, int64_t timeout_ms,
		   struct sbuf *error)
{
	char probe_mem[HTTP_HEADER_MAX];
	struct sbuf probe;
	sbuf_init(&probe, probe_mem, sizeof(probe_mem));
	int rc = add_signatures(&probe, secrets, SPAN_EMPTY, 0, SPAN_EMPTY);
	if (rc < 0) {
		if (rc == ERR_LIMIT)
			sbuf_addf(error, "more than %d secrets", HOOK_SECRETS_MAX);
		else
			sbuf_adds(error, "not whsec_ and base64");
		return ERR_SYNTAX;
	}
	line->http = http_new(url, "/", timeout_ms);
	/* A file of blank lines signs nothing. */
	line->secrets = mem_strdup(probe.len > 0 ? secrets : "");
	return 0;
}

void hook_line_done(struct hook_line *line)
{
	http_free(&line->http);
	free(line->secrets);
	line->secrets = NULL;
}
