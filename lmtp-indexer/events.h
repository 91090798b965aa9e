/* The events that lmtp-indexer logs; defined in main.c. */
#ifndef INDEXER_EVENTS_H
#define INDEXER_EVENTS_H

#include "lib/run/log.h"

#define EVENT EVENT_DECLARE
#include "lmtp-indexer/events.def"
#undef EVENT

#endif
