/*
 * The top header of a message: addresses, identity, date, thread, and the
 * verdicts of our milter.  Only the topmost Authentication-Results of the
 * configured name counts; the milter has removed forged ones of that name.
 */
#include "extract_internal.h"

/* Columns hold years 1000 to 9999; a Date beyond 2199 is nonsense anyway. */
#define SUBJECT_KEY_MAX 1024

/* ---- Addresses ---- */

static void add_person(struct extract_run *run, enum extract_kind kind, const char *address, const char *name)
{
	struct extract *x = run->x;
	if (x->address_count >= EXTRACT_ADDRESSES_MAX) {
		extract_partial(run);
		return;
	}
	struct extract_address *a = &x->addresses[x->address_count++];
	a->kind = kind;
	a->address = extract_keep(run, address, EXTRACT_ADDRESS_CHARS);
	a->display = extract_keep(run, name, EXTRACT_ADDRESS_CHARS);
}

/* The first word of S with an '@' within, else "". */
static struct span word_with_at(struct span s)
{
	static const char ends[] = " \t\r\n,;<>()\"";
	for (size_t i = 0, from = 0; i <= s.len; i++) {
		if (i < s.len && strchr(ends, s.ptr[i]) == NULL)
			continue;
		struct span word = span_of(s.ptr + from, i - from);
		size_t at = span_chr(word, '@');
		if (at != SPAN_NPOS && at > 0 && at + 1 < word.len)
			return word;
		from = i + 1;
	}
	return SPAN_EMPTY;
}

/* A field that holds no address by the rules: what stands there is a name, and with an '@' its address. */
static void add_broken(struct extract_run *run, enum extract_kind kind, const char *raw)
{
	char *text = g_mime_utils_header_decode_text(NULL, raw);
	struct span word = word_with_at(span_str(text));
	char *address = g_strndup(word.ptr == NULL ? "" : word.ptr, word.len);
	add_person(run, kind, address, text);
	extract_partial(run);
	g_free(address);
	g_free(text);
}

/* An encoded word, which no address may be (RFC 2047, 5), holds a name, or an address with its name. */
static void add_address(struct extract_run *run, enum extract_kind kind, InternetAddress *ia)
{
	const char *address = internet_address_mailbox_get_addr(INTERNET_ADDRESS_MAILBOX(ia));
	const char *name = internet_address_get_name(ia);
	if (span_str(name).len == 0 && span_starts(span_str(address), SPAN_LIT("=?")) && strchr(address, '@') == NULL)
		add_broken(run, kind, address);
	else
		add_person(run, kind, address, name);
}

static void add_list(struct extract_run *run, enum extract_kind kind, InternetAddressList *list,
		     unsigned depth)
{
	int count = list == NULL ? 0 : internet_address_list_length(list);
	for (int i = 0; i < count; i++) {
		InternetAddress *ia = internet_address_list_get_address(list, i);
		if (INTERNET_ADDRESS_IS_MAILBOX(ia))
			add_address(run, kind, ia);
		else if (INTERNET_ADDRESS_IS_GROUP(ia) && depth < run->limits->depth_max)
			add_list(run, kind, internet_address_group_get_members(INTERNET_ADDRESS_GROUP(ia)),
				 depth + 1);
	}
}

/* Addresses with ';' between them, as some programs show and others send them; NULL where ';' may mean
 * something else, or no more come of it than of LIST. */
static InternetAddressList *split_at_semicolons(const char *raw, InternetAddressList *list)
{
	if (raw == NULL || strchr(raw, ';') == NULL || strpbrk(raw, ":\"(") != NULL)
		return NULL;
	char *commas = g_strdelimit(g_strdup(raw), ";", ',');
	InternetAddressList *more = internet_address_list_parse(NULL, commas);
	g_free(commas);
	int count = list == NULL ? 0 : internet_address_list_length(list);
	if (more != NULL && internet_address_list_length(more) > count)
		return more;
	if (more != NULL)
		g_object_unref(more);
	return NULL;
}

static void add_field(struct extract_run *run, enum extract_kind kind, InternetAddressList *list, const char *raw)
{
	size_t before = run->x->address_count;
	InternetAddressList *split = split_at_semicolons(raw, list);
	if (split != NULL) {
		extract_partial(run);
		add_list(run, kind, split, 0);
		g_object_unref(split);
		return;
	}
	add_list(run, kind, list, 0);
	/* A group may be empty, and <> says nothing. */
	bool said = raw != NULL && strchr(raw, ':') == NULL && raw[strspn(raw, "<> \t\r\n")] != '\0';
	if (said && run->x->address_count == before && before < EXTRACT_ADDRESSES_MAX)
		add_broken(run, kind, raw);
}

/* What stands in each field NAME, with its raw bytes and encoded words as they are meant. */
static void read_fields(struct extract_run *run, enum extract_kind kind, GMimeMessage *message, const char *name)
{
	GMimeHeaderList *fields = g_mime_object_get_header_list(GMIME_OBJECT(message));
	int count = g_mime_header_list_get_count(fields);
	for (int i = 0; i < count; i++) {
		GMimeHeader *h = g_mime_header_list_get_header_at(fields, i);
		if (!span_ieq(span_str(g_mime_header_get_name(h)), span_str(name)))
			continue;
		const char *raw = g_mime_header_get_raw_value(h);
		char *mended = extract_mend_field(run, raw);
		if (mended != NULL)
			raw = mended;
		InternetAddressList *list = internet_address_list_parse(NULL, raw);
		add_field(run, kind, list, raw);
		if (list != NULL)
			g_object_unref(list);
		g_free(mended);
	}
}

static void read_addresses(struct extract_run *run, GMimeMessage *message)
{
	static const struct {
		enum extract_kind kind;
		const char *name;
	} rows[] = {
		{KIND_FROM, "From"}, {KIND_SENDER, "Sender"}, {KIND_REPLY_TO, "Reply-To"},
		{KIND_TO, "To"},     {KIND_CC, "Cc"},	      {KIND_BCC, "Bcc"},
	};
	struct extract *x = run->x;
	x->addresses = arena_calloc(&x->arena, EXTRACT_ADDRESSES_MAX, sizeof(*x->addresses));
	if (x->addresses == NULL) {
		extract_partial(run);
		return;
	}
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		read_fields(run, rows[i].kind, message, rows[i].name);
}

/* ---- Threads ---- */

static void hash_of(struct span s, uint8_t hash_out[EXTRACT_HASH_LEN])
{
	uint8_t digest[32];
	gsize len = sizeof(digest);
	GChecksum *sum = g_checksum_new(G_CHECKSUM_SHA256);
	g_checksum_update(sum, (const guchar *)s.ptr, (gssize)s.len);
	g_checksum_get_digest(sum, digest, &len);
	g_checksum_free(sum);
	memcpy(hash_out, digest, EXTRACT_HASH_LEN);
}

static void add_ref(struct extract *x, struct span id)
{
	uint8_t hash[EXTRACT_HASH_LEN];
	if (id.len == 0 || x->ref_count >= EXTRACT_REFS_MAX + 2)
		return;
	hash_of(id, hash);
	for (size_t i = 0; i < x->ref_count; i++)
		if (memcmp(x->refs[i], hash, sizeof(hash)) == 0)
			return;
	memcpy(x->refs[x->ref_count++], hash, sizeof(hash));
}

/* The next <id> of a field of them; false at its end. */
static bool next_id(struct span *rest, struct span *id_out)
{
	size_t from = span_chr(*rest, '<');
	if (from == SPAN_NPOS)
		return false;
	*rest = span_skip(*rest, from + 1);
	span_cut(rest, '>', id_out);
	*id_out = span_trim(*id_out);
	return true;
}

/* Of a long References, the root and the last ones matter. */
static void read_references(struct extract *x, struct span field)
{
	struct span rest = field, id;
	size_t count = 0, n = 0;
	while (next_id(&rest, &id))
		count++;
	for (rest = field; next_id(&rest, &id); n++)
		if (n == 0 || count - n < EXTRACT_REFS_MAX)
			add_ref(x, id);
}

/* Of a field with one id: what stands in <>, else its only word, as broken programs write it, if that has an @. */
static bool only_id(struct span field, struct span *id_out)
{
	struct span rest = field, word = span_trim(field);
	if (next_id(&rest, id_out))
		return id_out->len > 0;
	for (size_t i = 0; i < word.len; i++)
		if (ascii_isfws(word.ptr[i]))
			return false;
	*id_out = word;
	return span_chr(word, '@') != SPAN_NPOS;
}

static struct span skip_blanks(struct span s)
{
	while (s.len > 0 && ascii_isfws(s.ptr[0]))
		s = span_skip(s, 1);
	return s;
}

/* A mark in front of a subject, "Re:", "RE [2] :" (RFC 5256), or with a wide colon; returns its length, or 0. */
static size_t mark_length(struct span s, struct span word)
{
	static const char wide_colon[] = "\xef\xbc\x9a";
	struct span rest = skip_blanks(span_skip(s, word.len));
	if (!span_istarts(s, word))
		return 0;
	if (rest.len > 0 && rest.ptr[0] == '[') {
		size_t end = span_chr(rest, ']');
		rest = end == SPAN_NPOS ? SPAN_EMPTY : skip_blanks(span_skip(rest, end + 1));
	}
	size_t colon = span_starts(rest, SPAN_LIT(":")) ? 1 : span_starts(rest, span_str(wide_colon)) ? 3 : 0;
	return colon > 0 ? s.len - rest.len + colon : 0;
}

static size_t longest_mark(struct span s, const char *const *words, size_t count)
{
	size_t len = 0;
	for (size_t i = 0; i < count && len == 0; i++)
		len = mark_length(s, span_str(words[i]));
	return len;
}

/* The subject without Re:, Fwd: and [list]; sets *REPLY where it had a Re:. */
static struct span base_subject(struct span s, bool *reply)
{
	static const char *const replies[] = {"re", "aw", "sv", "antw", "ref", "rif", "vs", "odp", "回复", "回覆", "答复"};
	static const char *const others[] = {"fwd", "fw", "wg", "tr", "vb", "转发", "轉寄"};
	bool more = true;
	*reply = false;
	while (more) {
		s = span_trim(s);
		size_t re = longest_mark(s, replies, sizeof(replies) / sizeof(replies[0]));
		size_t skip = re > 0 ? re : longest_mark(s, others, sizeof(others) / sizeof(others[0]));
		size_t end = skip == 0 && s.len > 0 && s.ptr[0] == '[' ? span_chr(s, ']') : SPAN_NPOS;
		if (end != SPAN_NPOS && end + 1 < s.len)
			skip = end + 1;
		s = span_skip(s, skip);
		more = skip > 0;
		*reply = *reply || re > 0;
	}
	return s;
}

static void read_thread(struct extract_run *run, GMimeMessage *message)
{
	struct extract *x = run->x;
	struct span id = SPAN_EMPTY;
	x->refs = arena_calloc(&x->arena, EXTRACT_REFS_MAX + 2, sizeof(*x->refs));
	if (x->refs == NULL) {
		extract_partial(run);
		return;
	}
	read_references(x, span_str(extract_raw_field(GMIME_OBJECT(message), "References")));
	if (only_id(span_str(extract_raw_field(GMIME_OBJECT(message), "In-Reply-To")), &id)) {
		add_ref(x, id);
		char *text = g_strndup(id.ptr, id.len);
		x->in_reply_to = extract_keep(run, text, EXTRACT_ID_CHARS);
		g_free(text);
	}
	bool tied = x->ref_count > 0;
	add_ref(x, x->message_id);

	char mem[SUBJECT_KEY_MAX];
	struct sbuf key;
	bool reply;
	struct span base = base_subject(x->subject, &reply);
	sbuf_init(&key, mem, sizeof(mem));
	sbuf_adds(&key, "subject ");
	sbuf_add_lower(&key, span_take(base, SUBJECT_KEY_MAX / 2));
	x->has_subject_hash = base.len > 0;
	x->subject_joins = reply && !tied;
	hash_of(sbuf_span(&key), x->subject_hash);
}

/* ---- Authentication-Results (RFC 8601) ---- */

/* Copies S without comments and quoted strings, which may hold anything. */
static void add_bare(struct sbuf *out, struct span s)
{
	unsigned depth = 0;
	bool quoted = false;
	for (size_t i = 0; i < s.len; i++) {
		char c = s.ptr[i];
		if (c == '\\' && (quoted || depth > 0))
			i++;
		else if (quoted)
			quoted = c != '"';
		else if (c == '(')
			depth++;
		else if (c == ')' && depth > 0)
			depth--;
		else if (depth == 0 && c == '"')
			quoted = true;
		else if (depth == 0)
			sbuf_addc(out, ascii_isfws(c) ? ' ' : c);
	}
}

static bool is_result_word(struct span s)
{
	for (size_t i = 0; i < s.len; i++)
		if (!ascii_isalpha(s.ptr[i]))
			return false;
	return s.len > 0 && s.len <= 16;
}

/* "dkim=pass header.d=..." : the best of several dkim results is kept. */
static void take_result(struct extract *x, struct span item)
{
	struct span method, result;
	item = span_trim(item);
	span_cut(&item, '=', &method);
	method = span_trim(method);
	item = span_trim(item);
	span_cut(&item, ' ', &result);
	struct span *to = span_ieq(method, SPAN_LIT("spf"))	? &x->spf
			  : span_ieq(method, SPAN_LIT("dkim"))	? &x->dkim
			  : span_ieq(method, SPAN_LIT("dmarc")) ? &x->dmarc
			  : span_ieq(method, SPAN_LIT("arc"))	? &x->arc
								: NULL;
	if (to == NULL || !is_result_word(result) || span_eq(*to, SPAN_LIT("pass")))
		return;
	if (to->len == 0 || span_ieq(result, SPAN_LIT("pass"))) {
		struct sbuf lower;
		char mem[24];
		sbuf_init(&lower, mem, sizeof(mem));
		sbuf_add_lower(&lower, result);
		if (arena_dup(&x->arena, sbuf_span(&lower), to) < 0)
			*to = SPAN_EMPTY;
	}
}

/* False where the field is not from our milter. */
static bool take_results(struct extract_run *run, struct span field)
{
	struct sbuf bare;
	struct span rest, item, name;
	sbuf_init_heap(&bare, 64u << 10);
	add_bare(&bare, field);
	rest = sbuf_span(&bare);
	span_cut(&rest, ';', &item);
	item = span_trim(item);
	span_cut(&item, ' ', &name); /* a version may follow */
	bool ours = span_ieq(name, span_str(run->authserv_id));
	while (ours && rest.len > 0) {
		span_cut(&rest, ';', &item);
		take_result(run->x, item);
	}
	sbuf_done(&bare);
	return ours;
}

static void read_results(struct extract_run *run, GMimeMessage *message)
{
	GMimeHeaderList *list = g_mime_object_get_header_list(GMIME_OBJECT(message));
	int count = g_mime_header_list_get_count(list);
	if (run->authserv_id[0] == '\0')
		return;
	for (int i = 0; i < count; i++) {
		GMimeHeader *h = g_mime_header_list_get_header_at(list, i);
		if (span_ieq(span_str(g_mime_header_get_name(h)), SPAN_LIT("Authentication-Results")) &&
		    take_results(run, span_str(g_mime_header_get_raw_value(h))))
			return;
	}
}

static void read_date(struct extract *x, GMimeMessage *message)
{
	GDateTime *date = g_mime_message_get_date(message);
	int64_t s = date == NULL ? -1 : g_date_time_to_unix(date);
	x->has_date = s >= EXTRACT_DATE_MIN_S && s <= EXTRACT_DATE_MAX_S;
	x->date_s = x->has_date ? s : 0;
}

void extract_headers(struct extract_run *run, GMimeMessage *message)
{
	struct extract *x = run->x;
	char *subject = extract_subject(run, message);
	struct span id;
	x->has_subject = subject != NULL;
	x->subject = extract_keep(run, subject, EXTRACT_SUBJECT_CHARS);
	g_free(subject);
	if (only_id(span_str(extract_raw_field(GMIME_OBJECT(message), "Message-ID")), &id)) {
		char *text = g_strndup(id.ptr, id.len);
		x->message_id = extract_keep(run, text, EXTRACT_ID_CHARS);
		g_free(text);
	}
	read_date(x, message);
	read_addresses(run, message);
	read_thread(run, message);
	read_results(run, message);
}
