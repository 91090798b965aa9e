/* The share has a floor, so that what waits comes to its end under any load. */
#include "pace.h"

int64_t pace_rest_ms(int64_t took_ms, uint64_t rate)
{
	if (rate <= PACE_BUSY_RATE)
		return 0;
	const uint64_t times = rate / PACE_BUSY_RATE;
	return took_ms * (int64_t)(times < PACE_SHARE - 1 ? times : PACE_SHARE - 1);
}
