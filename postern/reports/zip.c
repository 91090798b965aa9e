/*
 * Reading of the directory.  All offsets are 32 bits wide in the file and 64
 * in memory, so sums do not wrap.  A member is usable only after its range has
 * been compared with all others.
 */
#include "postern/reports/zip.h"

#include "lib/base/bytes.h"

#define END_SIZE 22
#define END_COMMENT_MAX 65535
#define LOCATOR_SIZE 20 /* of the zip64 end record */
#define END64_SIZE 56   /* with nothing of others in it */
#define END64_REST 44   /* behind what tells its size */
#define SIZES64 16      /* both sizes of a member */
#define CENTRAL_SIZE 46
#define LOCAL_SIZE 30
#define FLAG_ENCRYPTED 0x0001u
#define FLAG_DESCRIPTOR 0x0008u
#define FLAG_STRONG 0x0040u
#define FLAG_MASKED 0x2000u
#define METHOD_STORED 0
#define METHOD_DEFLATED 8
#define EXTRA_ZIP64 1
#define ALL_16 0xffffu
#define ALL_32 0xffffffffu

struct zip_end {
	uint64_t at; /* where the end record begins */
	uint64_t directory_at, directory_bytes;
	size_t count;
};

static int refuse(struct sbuf *error, int code, const char *why)
{
	sbuf_adds(error, why);
	return code;
}

/* ---- The end record ---- */

/* The record whose comment ends with the file, or NULL. */
static const char *find_end(const char *tail, size_t len)
{
	for (size_t i = len - END_SIZE + 1; i-- > 0;)
		if (memcmp(tail + i, "PK\5\6", 4) == 0 &&
		    i + END_SIZE + bytes_get_u16(tail + i + 20) == len)
			return tail + i;
	return NULL;
}

static int take_end(const char *record, struct zip_end *end, size_t members_max, struct sbuf *error)
{
	unsigned count = bytes_get_u16(record + 10);
	end->directory_bytes = bytes_get_u32(record + 12);
	end->directory_at = bytes_get_u32(record + 16);
	if (count == ALL_16 || end->directory_bytes == ALL_32 || end->directory_at == ALL_32)
		return refuse(error, ERR_SYNTAX, "zip64 is not taken");
	if (bytes_get_u16(record + 4) != 0 || bytes_get_u16(record + 6) != 0 ||
	    bytes_get_u16(record + 8) != count)
		return refuse(error, ERR_SYNTAX, "the zip file is spread over several disks");
	if (end->directory_at + end->directory_bytes != end->at)
		return refuse(error, ERR_SYNTAX,
			      "the directory of the zip file is not where its end record says");
	if (count > members_max)
		return refuse(error, ERR_LIMIT, "the zip file has too many members");
	end->count = count;
	return 0;
}

/*
 * Some writers end with the records of zip64, too, where none of their numbers needs
 * it.  BEFORE bytes stand in front of the end record RECORD, which is at AT.
 */
static bool repeats_end(const char *record, size_t before, uint64_t at)
{
	if (before < LOCATOR_SIZE + END64_SIZE)
		return false;
	const char *locator = record - LOCATOR_SIZE, *end64 = locator - END64_SIZE;
	return memcmp(end64, "PK\6\6", 4) == 0 &&
	       bytes_get_u32(locator + 4) == 0 && bytes_get_u64(locator + 8) == at - LOCATOR_SIZE - END64_SIZE &&
	       bytes_get_u32(locator + 16) == 1 && bytes_get_u64(end64 + 4) == END64_REST &&
	       bytes_get_u64(end64 + 16) == 0 && bytes_get_u64(end64 + 24) == bytes_get_u16(record + 8) &&
	       bytes_get_u64(end64 + 32) == bytes_get_u16(record + 10) &&
	       bytes_get_u64(end64 + 40) == bytes_get_u32(record + 12) &&
	       bytes_get_u64(end64 + 48) == bytes_get_u32(record + 16);
}

static int read_end(const struct zip_file *file, size_t members_max, struct zip_end *end,
		    struct sbuf *error)
{
	size_t len = END_SIZE + END_COMMENT_MAX + LOCATOR_SIZE + END64_SIZE;
	if (file->size < END_SIZE)
		return refuse(error, ERR_SYNTAX, "the zip file is cut off");
	if (len > file->size)
		len = (size_t)file->size;
	char *tail = mem_alloc(len);
	int rc = file->read_at(file->arg, file->size - len, tail, len);
	const char *record = rc == 0 ? find_end(tail, len) : NULL;
	if (rc == 0 && record == NULL)
		rc = refuse(error, ERR_SYNTAX,
			    "the zip file has no end record: it is cut off or has a tail");
	if (rc == 0) {
		size_t i = (size_t)(record - tail);
		end->at = file->size - len + i;
		bool has64 = i >= LOCATOR_SIZE && memcmp(record - LOCATOR_SIZE, "PK\6\7", 4) == 0;
		if (has64 && !repeats_end(record, i, end->at))
			rc = refuse(error, ERR_SYNTAX, "zip64 is not taken");
		else if (has64)
			end->at -= LOCATOR_SIZE + END64_SIZE;
	}
	if (rc == 0)
		rc = take_end(record, end, members_max, error);
	free(tail);
	return rc;
}

/* ---- One member ---- */

/* A field that is cut off is empty. */
static bool find_zip64(struct span extra, struct span *field_out)
{
	while (extra.len >= 4) {
		size_t len = bytes_get_u16(extra.ptr + 2);
		*field_out = len <= extra.len - 4 ? span_of(extra.ptr + 4, len) : SPAN_EMPTY;
		if (bytes_get_u16(extra.ptr) == EXTRA_ZIP64)
			return true;
		extra = span_skip(extra, 4 + len);
	}
	return false;
}

static int take_name(struct zip_member *m, struct span name, struct sbuf *error)
{
	if (span_copy_cstr(name, m->name, sizeof(m->name)) < 0)
		return refuse(error, name.len > ZIP_NAME_MAX ? ERR_LIMIT : ERR_SYNTAX,
			      "a member of the zip file has no usable name");
	m->folder = name.len > 0 && name.ptr[name.len - 1] == '/';
	return 0;
}

/* The fixed part of a directory entry. */
static int take_central(struct zip_member *m, const char *p, struct sbuf *error)
{
	unsigned flags = bytes_get_u16(p + 8), method = bytes_get_u16(p + 10);
	m->crc32 = bytes_get_u32(p + 16);
	m->packed_bytes = bytes_get_u32(p + 20);
	m->bytes = bytes_get_u32(p + 24);
	m->header_at = bytes_get_u32(p + 42);
	m->deflated = method == METHOD_DEFLATED;
	if (flags & (FLAG_ENCRYPTED | FLAG_STRONG | FLAG_MASKED))
		return refuse(error, ERR_SYNTAX, "the zip file is encrypted");
	if (method != METHOD_STORED && method != METHOD_DEFLATED)
		return refuse(error, ERR_SYNTAX,
			      "a member is packed by a method other than stored and deflated");
	if (m->packed_bytes == ALL_32 || m->bytes == ALL_32 || m->header_at == ALL_32)
		return refuse(error, ERR_SYNTAX, "zip64 is not taken");
	if (bytes_get_u16(p + 34) != 0)
		return refuse(error, ERR_SYNTAX, "the zip file is spread over several disks");
	if (!m->deflated && m->packed_bytes != m->bytes)
		return refuse(error, ERR_SYNTAX, "a stored member has two sizes");
	return 0;
}

/*
 * The sizes of M in its local header HEAD, which may stand in a field of zip64: who
 * writes it before the data does not know yet how small they are.  The field lies AT.
 */
static int read_sizes(const struct zip_file *file, const struct zip_end *end, uint64_t at, const char *head,
		      uint64_t *packed_out, uint64_t *bytes_out)
{
	char extra[ZIP_EXTRA_MAX];
	struct span field;
	size_t len = bytes_get_u16(head + 28);
	*packed_out = bytes_get_u32(head + 18);
	*bytes_out = bytes_get_u32(head + 22);
	if (*packed_out != ALL_32 || *bytes_out != ALL_32 || len > ZIP_EXTRA_MAX || at + len > end->directory_at)
		return 0;
	int rc = file->read_at(file->arg, at, extra, len);
	if (rc == 0 && find_zip64(span_of(extra, len), &field) && field.len == SIZES64) {
		*bytes_out = bytes_get_u64(field.ptr);
		*packed_out = bytes_get_u64(field.ptr + 8);
	}
	return rc;
}

/* Compares the local header with M and finds the data behind it. */
static int check_local(const struct zip_file *file, const struct zip_end *end, struct zip_member *m,
		       struct sbuf *error)
{
	char head[LOCAL_SIZE + ZIP_NAME_MAX];
	size_t name_len = strlen(m->name), len = LOCAL_SIZE + name_len;
	if (m->header_at + len > end->directory_at)
		return refuse(error, ERR_SYNTAX, "a member lies outside of the zip file");
	int rc = file->read_at(file->arg, m->header_at, head, len);
	if (rc < 0)
		return rc;
	unsigned flags = bytes_get_u16(head + 6), method = bytes_get_u16(head + 8);
	bool same = memcmp(head, "PK\3\4", 4) == 0 &&
		    method == (m->deflated ? METHOD_DEFLATED : METHOD_STORED) &&
		    !(flags & (FLAG_ENCRYPTED | FLAG_STRONG | FLAG_MASKED)) &&
		    bytes_get_u16(head + 26) == name_len &&
		    memcmp(head + LOCAL_SIZE, m->name, name_len) == 0;
	/* With a descriptor behind the data the sizes in front of it may be zero. */
	if (same && !(flags & FLAG_DESCRIPTOR)) {
		uint64_t packed_bytes, bytes;
		rc = read_sizes(file, end, m->header_at + len, head, &packed_bytes, &bytes);
		if (rc < 0)
			return rc;
		same = bytes_get_u32(head + 14) == m->crc32 && packed_bytes == m->packed_bytes && bytes == m->bytes;
	}
	if (!same)
		return refuse(error, ERR_SYNTAX,
			      "a member's own header differs from the directory");
	m->data_at = m->header_at + len + bytes_get_u16(head + 28);
	if (m->data_at + m->packed_bytes > end->directory_at)
		return refuse(error, ERR_SYNTAX, "a member lies outside of the zip file");
	return 0;
}

/* Reads the entry at *POS of the directory and moves behind it. */
static int read_member(const struct zip_file *file, const struct zip_end *end, uint64_t *pos,
		       struct zip_member *m, struct sbuf *error)
{
	char fixed[CENTRAL_SIZE], more[ZIP_NAME_MAX + ZIP_EXTRA_MAX];
	if (*pos + CENTRAL_SIZE > end->at)
		return refuse(error, ERR_SYNTAX, "the directory of the zip file is cut off");
	int rc = file->read_at(file->arg, *pos, fixed, sizeof(fixed));
	if (rc < 0)
		return rc;
	if (memcmp(fixed, "PK\1\2", 4) != 0)
		return refuse(error, ERR_SYNTAX, "the directory of the zip file is damaged");
	size_t name_len = bytes_get_u16(fixed + 28), extra_len = bytes_get_u16(fixed + 30);
	size_t rest = name_len + extra_len + bytes_get_u16(fixed + 32);
	if (name_len > ZIP_NAME_MAX || rest - name_len > ZIP_EXTRA_MAX)
		return refuse(error, ERR_LIMIT,
			      "a name, comment or extra field in the zip file is too long");
	if (*pos + CENTRAL_SIZE + rest > end->at)
		return refuse(error, ERR_SYNTAX, "the directory of the zip file is cut off");
	rc = file->read_at(file->arg, *pos + CENTRAL_SIZE, more, rest);
	if (rc < 0)
		return rc;
	*pos += CENTRAL_SIZE + rest;
	rc = take_name(m, span_of(more, name_len), error);
	struct span field;
	if (rc == 0 && find_zip64(span_of(more + name_len, extra_len), &field))
		rc = refuse(error, ERR_SYNTAX, "zip64 is not taken");
	if (rc == 0)
		rc = take_central(m, fixed, error);
	return rc == 0 ? check_local(file, end, m, error) : rc;
}

/* ---- All members ---- */

static int by_place(const void *a, const void *b)
{
	const struct zip_member *const *x = a, *const *y = b;
	return (*x)->header_at < (*y)->header_at ? -1 : (*x)->header_at > (*y)->header_at;
}

/* Two members that share bytes would be a small file that unpacks to a large one. */
static int check_overlap(const struct zip_directory *dir, struct sbuf *error)
{
	if (dir->count < 2)
		return 0;
	const struct zip_member **sorted = mem_alloc(dir->count * sizeof(struct zip_member *));
	for (size_t i = 0; i < dir->count; i++)
		sorted[i] = &dir->members[i];
	qsort(sorted, dir->count, sizeof(struct zip_member *), by_place);
	int rc = 0;
	for (size_t i = 1; i < dir->count && rc == 0; i++)
		if (sorted[i - 1]->data_at + sorted[i - 1]->packed_bytes > sorted[i]->header_at)
			rc = refuse(error, ERR_SYNTAX, "members of the zip file overlap");
	free(sorted);
	return rc;
}

int zip_directory_read(const struct zip_file *file, size_t members_max,
		       struct zip_directory *dir_out, struct sbuf *error)
{
	struct zip_end end = {.at = 0};
	int rc = read_end(file, members_max, &end, error);
	if (rc < 0)
		return rc;
	struct zip_directory dir = {
		.members = mem_zalloc((end.count + 1) * sizeof(struct zip_member))};
	uint64_t pos = end.directory_at;
	for (; dir.count < end.count && rc == 0; dir.count++)
		rc = read_member(file, &end, &pos, &dir.members[dir.count], error);
	if (rc == 0 && pos != end.at)
		rc = refuse(error, ERR_SYNTAX, "the directory of the zip file has a tail");
	if (rc == 0)
		rc = check_overlap(&dir, error);
	if (rc < 0)
		zip_directory_done(&dir);
	else
		*dir_out = dir;
	return rc;
}

void zip_directory_done(struct zip_directory *dir)
{
	free(dir->members);
	*dir = (struct zip_directory){NULL, 0};
}
