/* Nothing here looks at a clock. */
#include "postern/rotation.h"

#include <time.h>

int64_t rotation_start_at(const struct rotation_rules *rules, int64_t activated_at)
{
	return rules->rotate_after_s == 0 ? 0 : activated_at + rules->rotate_after_s;
}

int64_t rotation_visible_since(int64_t visible_at, int64_t now)
{
	return visible_at == 0 || visible_at > now ? now : visible_at;
}

int64_t rotation_activate_at(const struct rotation_rules *rules, int64_t visible_at, int64_t absent_until,
			     int64_t now)
{
	int64_t at = visible_at + rules->visible_for_s;
	if (absent_until > now + ROTATION_ABSENT_MAX_S)
		absent_until = now + ROTATION_ABSENT_MAX_S;
	return at > absent_until ? at : absent_until;
}

int64_t rotation_retire_at(const struct rotation_rules *rules, int64_t retiring_at)
{
	return retiring_at + rules->retire_after_s;
}

void rotation_selector(struct sbuf *out, const char *prefix, bool ed25519, int64_t now, unsigned try)
{
	struct tm day;
	time_t seconds = (time_t)now;
	gmtime_r(&seconds, &day);
	sbuf_addf(out, "%s%s-%04d%02d%02d", prefix, ed25519 ? "-ed25519" : "", day.tm_year + 1900, day.tm_mon + 1,
		  day.tm_mday);
	if (try > 1)
		sbuf_addf(out, "-%u", try);
}
