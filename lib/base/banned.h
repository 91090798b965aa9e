/*
 * Functions that this code base does not use, because each has a bounded or
 * checked replacement here (sbuf, span, num).  The build includes this file in
 * front of every translation unit, so a use fails to compile.
 */
#ifndef BASE_BANNED_H
#define BASE_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define BANNED_CALL(name) banned_function_##name##_see_lib_base_banned_h

#undef strcpy
#define strcpy(d, s) BANNED_CALL(strcpy)
#undef strcat
#define strcat(d, s) BANNED_CALL(strcat)
#undef strncpy
#define strncpy(d, s, n) BANNED_CALL(strncpy)
#undef strncat
#define strncat(d, s, n) BANNED_CALL(strncat)
#undef stpcpy
#define stpcpy(d, s) BANNED_CALL(stpcpy)
#undef strtok
#define strtok(s, d) BANNED_CALL(strtok)
#undef strtok_r
#define strtok_r(s, d, p) BANNED_CALL(strtok_r)
#undef sprintf
#define sprintf(...) BANNED_CALL(sprintf)
#undef vsprintf
#define vsprintf(...) BANNED_CALL(vsprintf)
#undef sscanf
#define sscanf(...) BANNED_CALL(sscanf)
#undef scanf
#define scanf(...) BANNED_CALL(scanf)
#undef atoi
#define atoi(s) BANNED_CALL(atoi)
#undef atol
#define atol(s) BANNED_CALL(atol)
#undef atoll
#define atoll(s) BANNED_CALL(atoll)
#undef atof
#define atof(s) BANNED_CALL(atof)
#undef gmtime
#define gmtime(t) BANNED_CALL(gmtime)
#undef localtime
#define localtime(t) BANNED_CALL(localtime)
#undef ctime
#define ctime(t) BANNED_CALL(ctime)
#undef asctime
#define asctime(t) BANNED_CALL(asctime)
#undef tmpnam
#define tmpnam(s) BANNED_CALL(tmpnam)
#undef mktemp
#define mktemp(s) BANNED_CALL(mktemp)

#endif
