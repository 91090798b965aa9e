/*
 * Each fault stands from the moment its evidence is complete until evidence to
 * the contrary is: an END-OF-MESSAGE, a request that is counted, a sample
 * without it.
 */
#include "wiring.h"

static void fault_set(struct wiring *w, enum wiring_fault fault, bool stands)
{
	unsigned bit = 1u << fault;
	w->faults = stands ? w->faults | bit : w->faults & ~bit;
}

void wiring_stranger(struct wiring *w)
{
	if (w->sample > 0 && ++w->strange >= w->sample)
		fault_set(w, WIRING_NO_STAGE, true);
}

void wiring_request(struct wiring *w, bool is_end, int64_t now_ms)
{
	w->strange = 0;
	fault_set(w, WIRING_NO_STAGE, false);
	if (!is_end)
		return;
	w->end_ms = now_ms;
	w->unended = 0;
	fault_set(w, WIRING_NO_END, false);
}

void wiring_message(struct wiring *w, bool at_end)
{
	if (w->sample == 0)
		return;
	w->bare = at_end ? w->bare + 1 : 0;
	fault_set(w, WIRING_ONLY_END, w->bare >= w->sample);
	if (w->messages == w->sample) {
		fault_set(w, WIRING_REPEATED, w->repeated * 2 >= w->messages);
		w->messages = w->repeated = 0;
	}
	w->messages++;
}

void wiring_repeat(struct wiring *w)
{
	w->repeated++;
	if (w->sample > 0 && w->repeated * 2 >= w->sample)
		fault_set(w, WIRING_REPEATED, true);
}

void wiring_unended(struct wiring *w, int64_t now_ms)
{
	bool seen = w->end_ms != 0 && now_ms - w->end_ms < WIRING_END_AGE_MS;
	w->unended++;
	if (w->sample > 0 && w->unended >= w->sample && !seen)
		fault_set(w, WIRING_NO_END, true);
}

static const struct {
	const char *text, *advice;
} words[WIRING_FAULTS] = {
	[WIRING_NO_END] = {"messages are reserved at RCPT and END-OF-MESSAGE is never asked: nothing is limited",
			   "add the same check_policy_service to smtpd_end_of_data_restrictions"},
	[WIRING_ONLY_END] = {"only END-OF-MESSAGE is asked: mail over a limit travels whole before it is refused",
			     "add the same check_policy_service to smtpd_recipient_restrictions, as the last"},
	[WIRING_REPEATED] = {"messages are asked about twice before their end: two lists or stages ask",
			     "keep check_policy_service in smtpd_recipient_restrictions and "
			     "smtpd_end_of_data_restrictions only, once in each"},
	[WIRING_NO_STAGE] = {"no request comes at RCPT or END-OF-MESSAGE: nothing is limited",
			     "move check_policy_service to smtpd_recipient_restrictions and "
			     "smtpd_end_of_data_restrictions"},
};

const char *wiring_text(enum wiring_fault fault)
{
	return words[fault].text;
}

const char *wiring_advice(enum wiring_fault fault)
{
	return words[fault].advice;
}
