/*
 * What the administrator is told about the daemon's surroundings.  A fault is
 * told again only when it still stands, or stands again, after an hour.
 */
#include "policyd.h"

#define TELL_EVERY_MS 3600000

static const struct log_event *const events[WIRING_FAULTS] = {
	[WIRING_NO_END] = &ev_wiring_incomplete,
	[WIRING_ONLY_END] = &ev_wiring_late,
	[WIRING_REPEATED] = &ev_wiring_repeated,
	[WIRING_NO_STAGE] = &ev_wiring_unlimited,
};

static bool stands(const struct policyd *p, enum wiring_fault fault)
{
	return (p->session.wiring.faults >> fault & 1) != 0;
}

void watch_wiring(struct policyd *p)
{
	int64_t now = policyd_now_ms();
	for (unsigned i = 0; i < WIRING_FAULTS; i++) {
		if (!stands(p, i) || (p->wiring_told_ms[i] != 0 && now - p->wiring_told_ms[i] < TELL_EVERY_MS))
			continue;
		p->wiring_told_ms[i] = now;
		LOG_EVENT(LOG_WARNING, events[i], wiring_text(i), LOG_FIELD_STR("ADVICE", wiring_advice(i)));
	}
}

json_t *watch_warnings(const struct policyd *p)
{
	json_t *list = json_array();
	for (unsigned i = 0; i < WIRING_FAULTS; i++)
		if (stands(p, i))
			json_array_append_new(list, json_sprintf("%s; %s", wiring_text(i), wiring_advice(i)));
	return list;
}

void watch_recorder(struct policyd *p)
{
	enum recorder_state state = recorder_flush(p->recorder);
	if (state == RECORDER_FULL)
		LOG_EVENT(LOG_WARNING, &ev_request_log_full, "the request log has reached request_log_max",
			  LOG_FIELD_STR("PATH", recorder_path(p->recorder)));
	else if (state == RECORDER_FAILED)
		LOG_EVENT(LOG_ERR, &ev_request_log_failed, "the request log cannot be written",
			  LOG_FIELD_STR("PATH", recorder_path(p->recorder)));
}
