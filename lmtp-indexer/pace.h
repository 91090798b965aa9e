/*
 * How much room work that can wait leaves for live mail.  Pure.
 */
#ifndef INDEXER_PACE_H
#define INDEXER_PACE_H

#include <stdint.h>

#define PACE_BUSY_RATE 20 /* deliveries a second beyond which live mail is left room */
#define PACE_SHARE 20	  /* such work takes a twentieth of the time at least */

/*
 * How long to rest after a piece of work that took TOOK_MS, while RATE deliveries a second
 * come in: as long as it took for each PACE_BUSY_RATE of them, since the faster mail
 * comes, the less of the machine is left.  0 up to PACE_BUSY_RATE.
 */
int64_t pace_rest_ms(int64_t took_ms, uint64_t rate);

#endif
