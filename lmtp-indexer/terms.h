/*
 * The words of a message, each once, with where it stands: what the column
 * message_texts.terms holds and search blocks are made of.  Pure.
 *
 *   invoice:s anna:ft hello
 *
 * A word is followed by the letters of the places, beside the text, in which
 * it stands.  Words never hold ':' or a space.
 */
#ifndef INDEXER_TERMS_H
#define INDEXER_TERMS_H

#include "lmtp-indexer/tokens.h"

/* Places as bits of a mark. */
#define TERMS_PRESENT 0x01u /* anywhere in the message */
#define TERMS_SUBJECT 0x02u
#define TERMS_FROM 0x04u
#define TERMS_TO 0x08u
#define TERMS_ALL 0x0fu

struct terms;

/* At most MAX_BYTES of words are taken; what is beyond is left out. */
struct terms *terms_new(size_t max_bytes);
void terms_free(struct terms **terms);
/* The words of TEXT, which stands at PLACE (0: the text or an attachment's name). */
void terms_add(struct terms *terms, struct span text, unsigned place);
/* False where something was left out. */
bool terms_write(const struct terms *terms, struct sbuf *out) MUST_CHECK;

/*
 * Takes the next word off REST, as terms_write() has made it; false at the
 * end.  *MARK_OUT has TERMS_PRESENT set.
 */
bool terms_next(struct span *rest, struct span *word_out, unsigned *mark_out);

#endif
