/*
 * One name for each value of enum auth_result, in its order.
 */
#include "lib/mail/result.h"

static const char *const names[AUTH_RESULTS] = {
	[AUTH_NONE] = "none",           [AUTH_PASS] = "pass",
	[AUTH_FAIL] = "fail",           [AUTH_NEUTRAL] = "neutral",
	[AUTH_SOFTFAIL] = "softfail",   [AUTH_POLICY] = "policy",
	[AUTH_TEMPERROR] = "temperror", [AUTH_PERMERROR] = "permerror",
};

const char *auth_result_name(enum auth_result result)
{
	return names[result];
}
