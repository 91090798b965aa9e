/*
 * Members one after the other.  `unpacked` counts over all members and is
 * compared with its cap before bytes are handed out; the ratio is that of the
 * member in hand, of what it has given to what it has taken.
 */
#include "postern/reports/archive.h"

#include "postern/reports/inflate.h"

#define CHUNK 32768

struct archive {
	const struct zip_file *file;
	const struct archive_limits *limits;
	enum content_kind kind;
	struct zip_directory dir;
	size_t next; /* member that archive_next() moves to */
	const struct zip_member *member;
	struct inflater *z;
	uint64_t at, end; /* of the packed bytes that are still in the file */
	struct span in;	  /* packed bytes in `chunk` */
	char chunk[CHUNK];
	uint64_t taken, given; /* packed and unpacked bytes of the member */
	uint64_t unpacked;
	uint32_t crc32;
	size_t streams;
	bool finished; /* of the member */
};

static int refuse(struct sbuf *error, int code, const char *why)
{
	sbuf_adds(error, why);
	return code;
}

static int read_span(void *arg, uint64_t at, char *mem, size_t len)
{
	const struct span *bytes = arg;
	if (len > 0)
		memcpy(mem, bytes->ptr + at, len);
	return 0;
}

struct zip_file archive_file_of(const struct span *bytes)
{
	return (struct zip_file){bytes->len, read_span, (void *)(uintptr_t)bytes};
}

int archive_open(const struct zip_file *file, const struct archive_limits *limits,
		 struct archive **archive_out, struct sbuf *error)
{
	struct archive *a = mem_zalloc(sizeof(*a));
	a->file = file;
	a->limits = limits;
	size_t len = file->size < CONTENT_SNIFF_BYTES ? (size_t)file->size : CONTENT_SNIFF_BYTES;
	int rc = file->read_at(file->arg, 0, a->chunk, len);
	if (rc == 0) {
		a->kind = content_sniff(span_of(a->chunk, len));
		bool packed = a->kind == CONTENT_GZIP || a->kind == CONTENT_ZIP;
		if (file->size > (packed ? limits->packed_bytes : limits->unpacked_bytes))
			rc = refuse(error, ERR_LIMIT, "the file is too large");
	}
	if (rc == 0 && a->kind == CONTENT_ZIP)
		rc = zip_directory_read(file, limits->members, &a->dir, error);
	if (rc < 0)
		archive_free(&a);
	else
		*archive_out = a;
	return rc;
}

void archive_free(struct archive **archive)
{
	if (*archive == NULL)
		return;
	zip_directory_done(&(*archive)->dir);
	inflater_free(&(*archive)->z);
	free(*archive);
	*archive = NULL;
}

enum content_kind archive_kind(const struct archive *a)
{
	return a->kind;
}

/* ---- Members ---- */

static void begin_member(struct archive *a, uint64_t at, uint64_t end)
{
	a->at = at;
	a->end = end;
	a->in = SPAN_EMPTY;
	a->taken = a->given = 0;
	a->crc32 = 0;
	a->streams = 1;
	a->finished = false;
	inflater_free(&a->z);
}

static bool is_passed_over(const struct zip_member *m)
{
	struct span name = span_str(m->name);
	return m->folder || span_starts(name, SPAN_LIT("__MACOSX/")) ||
	       span_ends(name, SPAN_LIT(".DS_Store"));
}

int archive_next(struct archive *a, struct span *name_out)
{
	if (a->kind != CONTENT_ZIP) {
		if (a->next++ > 0)
			return ERR_NOT_FOUND;
		begin_member(a, 0, a->file->size);
		if (a->kind == CONTENT_GZIP)
			a->z = inflater_new(INFLATE_GZIP);
		*name_out = SPAN_EMPTY;
		return 0;
	}
	while (a->next < a->dir.count && is_passed_over(&a->dir.members[a->next]))
		a->next++;
	if (a->next >= a->dir.count)
		return ERR_NOT_FOUND;
	a->member = &a->dir.members[a->next++];
	begin_member(a, a->member->data_at, a->member->data_at + a->member->packed_bytes);
	if (a->member->deflated)
		a->z = inflater_new(INFLATE_RAW);
	*name_out = span_str(a->member->name);
	return 0;
}

/* More packed bytes into the chunk; `in` stays empty at the end of them. */
static int fill(struct archive *a)
{
	if (a->in.len > 0 || a->at == a->end)
		return 0;
	size_t len = a->end - a->at < CHUNK ? (size_t)(a->end - a->at) : CHUNK;
	int rc = a->file->read_at(a->file->arg, a->at, a->chunk, len);
	if (rc < 0)
		return rc;
	a->at += len;
	a->in = span_of(a->chunk, len);
	return 0;
}

/* ---- What stands behind the end of a gzip stream ---- */

/* White space and zeros, which mail programs and tapes add, to the end of the file. */
static int check_padding(struct archive *a, struct sbuf *error)
{
	for (;;) {
		int rc = fill(a);
		if (rc < 0)
			return rc;
		if (a->in.len == 0)
			return 0;
		for (size_t i = 0; i < a->in.len; i++)
			if (a->in.ptr[i] != '\0' && !ascii_isfws(a->in.ptr[i]))
				return refuse(error, ERR_SYNTAX,
					      "there is garbage behind the gzip data");
		a->in = SPAN_EMPTY;
	}
}

/* Another stream may follow (RFC 1952 section 2.2). */
static int next_stream(struct archive *a, struct sbuf *error)
{
	int rc = fill(a);
	if (rc < 0)
		return rc;
	if (a->in.len == 0 || a->in.ptr[0] != '\x1f') {
		a->finished = true;
		return check_padding(a, error);
	}
	if (++a->streams > a->limits->members)
		return refuse(error, ERR_LIMIT, "the gzip file is joined from too many streams");
	inflater_reset(a->z);
	return 0;
}

/* ---- Reading ---- */

static int check_end(struct archive *a, struct sbuf *error)
{
	if (a->kind == CONTENT_GZIP)
		return next_stream(a, error);
	a->finished = true;
	if (a->kind != CONTENT_ZIP)
		return 0;
	if (a->in.len > 0 || a->at < a->end || a->given != a->member->bytes)
		return refuse(error, ERR_SYNTAX, "a member's size is not what the zip file says");
	if (a->crc32 != a->member->crc32)
		return refuse(error, ERR_SYNTAX, "a member's checksum is wrong");
	return 0;
}

static int take_packed(struct archive *a, char *mem, size_t size, size_t *got, struct sbuf *error)
{
	struct span before = a->in;
	int rc = inflater_step(a->z, &a->in, mem, size, got);
	if (rc < 0)
		return refuse(error, ERR_SYNTAX, "the packed data is damaged");
	a->taken += before.len - a->in.len;
	if (rc == 0 && *got == 0 && a->in.len == before.len && a->at == a->end)
		return refuse(error, ERR_SYNTAX, "the packed data is cut off");
	return rc;
}

static int take_stored(struct archive *a, char *mem, size_t size, size_t *got)
{
	*got = a->in.len < size ? a->in.len : size;
	if (*got > 0)
		memcpy(mem, a->in.ptr, *got);
	a->in = span_skip(a->in, *got);
	a->taken += *got;
	return a->in.len == 0 && a->at == a->end;
}

static int check_caps(struct archive *a, const char *mem, size_t got, struct sbuf *error)
{
	a->given += got;
	a->unpacked += got;
	if (a->kind == CONTENT_ZIP)
		a->crc32 = inflate_crc32(a->crc32, span_of(mem, got));
	if (a->unpacked > a->limits->unpacked_bytes)
		return refuse(error, ERR_LIMIT, "it unpacks to too much");
	if (a->z != NULL && a->given > a->limits->ratio_floor_bytes &&
	    a->given > a->taken * a->limits->ratio)
		return refuse(error, ERR_LIMIT, "it is packed too well for a report");
	return 0;
}

int archive_read(struct archive *a, char *mem, size_t size, size_t *got_out, struct sbuf *error)
{
	size_t got = 0;
	while (got == 0 && !a->finished) {
		int rc = fill(a);
		if (rc < 0)
			return rc;
		rc = a->z != NULL ? take_packed(a, mem, size, &got, error)
				  : take_stored(a, mem, size, &got);
		if (rc < 0)
			return rc;
		bool ended = rc == 1;
		rc = check_caps(a, mem, got, error);
		if (rc == 0 && ended)
			rc = check_end(a, error);
		if (rc < 0)
			return rc;
	}
	*got_out = got;
	return 0;
}
