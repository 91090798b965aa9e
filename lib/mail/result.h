/*
 * The result words of RFC 8601 section 2.7, shared by all methods.
 */
#ifndef MAIL_RESULT_H
#define MAIL_RESULT_H

enum auth_result {
	AUTH_NONE,
	AUTH_PASS,
	AUTH_FAIL,
	AUTH_NEUTRAL,
	AUTH_SOFTFAIL,
	AUTH_POLICY,
	AUTH_TEMPERROR,
	AUTH_PERMERROR,
};
#define AUTH_RESULTS 8

/* In lower case, as it is written. */
const char *auth_result_name(enum auth_result result);

#endif
