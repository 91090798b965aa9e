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

#endif
