/*
 * What a daemon says to systemd (sd_notify); without a NOTIFY_SOCKET all of it
 * does nothing.
 */
#ifndef RUN_NOTIFY_H
#define RUN_NOTIFY_H

#include <stdint.h>

void notify_ready(void);
void notify_reloading(void);
void notify_stopping(void);
void notify_status(const char *text);
void notify_watchdog(void);
/* Half of WatchdogSec in milliseconds, 0 where there is none. */
int64_t notify_watchdog_interval_ms(void);

#endif
