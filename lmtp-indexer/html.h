/*
 * The readable text of an HTML part: tags dropped, scripts, styles and
 * comments with their content, entities decoded, blocks on lines of their own.
 * Input and output are UTF-8.  Pure; never fails: what is no HTML comes out as
 * it is.
 */
#ifndef INDEXER_HTML_H
#define INDEXER_HTML_H

#include "lib/base/sbuf.h"

void html_to_text(struct sbuf *out, struct span html);

#define HTML_CHARSET_MAX 40 /* characters of a name; a longer one is none */
#define HTML_CHARSET_WITHIN 1024 /* bytes from the start that are looked at for one */

/* The charset that a <meta> of HTML, in any that has ASCII, names; false where there is none. */
bool html_charset(struct span html, char name_out[HTML_CHARSET_MAX + 1]) MUST_CHECK;

#endif
