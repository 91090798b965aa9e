/* Both forms come down to one mark for each word of the query. */
#include "match.h"

#define SCORE_SUBJECT 4
#define SCORE_FROM 2
#define SCORE_TO 1

/* The places where all words of TERM stand; 0: it does not hold. */
static unsigned places_of(const struct query_term *term, const uint8_t *marks)
{
	unsigned all = TERMS_ALL;
	for (size_t i = 0; i < term->word_count; i++)
		all &= marks[term->first_word + i];
	if (!(all & TERMS_PRESENT) || (term->place != 0 && !(all & term->place)))
		return 0;
	return all;
}

static unsigned score_of(unsigned places)
{
	return (places & TERMS_SUBJECT ? SCORE_SUBJECT : 0u) + (places & TERMS_FROM ? SCORE_FROM : 0u) +
	       (places & TERMS_TO ? SCORE_TO : 0u);
}

static bool judge(const struct query *q, const struct block_message *m, const uint8_t *marks, struct match_hit *hit)
{
	unsigned score = 0;
	if ((q->attachment == WISH_YES && !m->attachment) || (q->attachment == WISH_NO && m->attachment) ||
	    (q->has_after && m->received_s < q->after_s) || (q->has_before && m->received_s >= q->before_s))
		return false;
	for (size_t i = 0; i < q->term_count; i++) {
		const struct query_term *term = &q->terms[i];
		unsigned places = places_of(term, marks);
		if (term->negated) {
			if (places != 0 && term->exact)
				return false;
			continue;
		}
		if (places == 0)
			return false;
		score += score_of(places);
	}
	*hit = (struct match_hit){m->id, m->received_s, score};
	return true;
}

size_t match_block(const struct query *q, const struct block_meta *meta, const match_marks *marks,
		   struct match_hit *hits)
{
	uint8_t one[QUERY_WORDS_MAX];
	size_t found = 0;
	for (size_t slot = 0; slot < meta->count; slot++) {
		struct block_message m = {.id = meta->ids[slot], .received_s = meta->received_s[slot],
					  .attachment = meta->attachment[slot]};
		for (size_t w = 0; w < q->word_count; w++)
			one[w] = marks[w][slot];
		found += judge(q, &m, one, &hits[found]);
	}
	return found;
}

bool match_message(const struct query *q, const struct block_message *m, struct match_hit *hit_out)
{
	uint8_t one[QUERY_WORDS_MAX] = {0};
	struct span rest = m->terms, word;
	unsigned mark;
	while (q->word_count > 0 && terms_next(&rest, &word, &mark))
		for (size_t w = 0; w < q->word_count; w++)
			if (q->words[w].prefix ? span_starts(word, q->words[w].text) : span_eq(word, q->words[w].text))
				one[w] |= (uint8_t)mark;
	return judge(q, m, one, hit_out);
}

int match_order(const void *a, const void *b)
{
	const struct match_hit *x = a, *y = b;
	if (x->score != y->score)
		return x->score < y->score ? 1 : -1;
	if (x->received_s != y->received_s)
		return x->received_s < y->received_s ? 1 : -1;
	return x->id < y->id ? 1 : x->id > y->id ? -1 : 0;
}
