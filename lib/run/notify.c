/*
 * Thin calls of sd_notify(3).  Their failure is ignored on purpose: systemd
 * notices by its own time-outs, and a daemon without systemd has nobody to tell.
 */
#include "notify.h"

#include <inttypes.h>
#include <systemd/sd-daemon.h>

#include "lib/run/loop.h"

void notify_ready(void)
{
	sd_notify(0, "READY=1");
}

void notify_reloading(void)
{
	sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRId64, clock_mono_us());
}

void notify_stopping(void)
{
	sd_notify(0, "STOPPING=1");
}

void notify_status(const char *text)
{
	/* A newline would begin another assignment. */
	sd_notifyf(0, "STATUS=%.*s", (int)strcspn(text, "\n"), text);
}

void notify_watchdog(void)
{
	sd_notify(0, "WATCHDOG=1");
}

int64_t notify_watchdog_interval_ms(void)
{
	uint64_t usec = 0;
	if (sd_watchdog_enabled(0, &usec) <= 0)
		return 0;
	return (int64_t)(usec / 2000);
}
