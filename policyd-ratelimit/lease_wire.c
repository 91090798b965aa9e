/*
 * The scripts keep to what Redis 5 to 7 have.  They write only what follows from
 * their arguments and TIME, and touch the keys that they are given.
 */
#include "lease_wire.h"

#include "lib/base/num.h"
#include "policyd-ratelimit/subject.h"

/*
 * KEYS[1] the counter.  ARGV: 1 daemon, 2 life, 3 seq, 4 need, 5 keep, 6 limit,
 * 7 share in percent of what is free, 8 cap, 9 window ms, 10 lease ms, 11 counts,
 * 12 channel for recalls.  Gives {granted, others, others' leases, ms until need
 * (at least 1) fits or -1, server's ms, stale}.
 */
static const char sync_body[] =
	"local t = redis.call('TIME')\n"
	"local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
	"local need, keep, limit = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])\n"
	"local window, lease_ms = tonumber(ARGV[9]), tonumber(ARGV[10])\n"
	"local ends, others, leased = {}, 0, 0\n"
	"local all = redis.call('HGETALL', KEYS[1])\n"
	"for i = 1, #all, 2 do\n"
	"  local life, seq, held, till, counts = all[i + 1]:match('^(%d+) (%d+) (%d+) (%d+) ?(.*)$')\n"
	"  if all[i] == ARGV[1] then\n"
	"    if life == ARGV[2] and tonumber(seq) >= tonumber(ARGV[3]) then\n"
	"      return {0, 0, 0, -1, now, 1}\n"
	"    end\n"
	"  elseif life then\n"
	"    local sum = 0\n"
	"    for at, n in counts:gmatch('(%d+):(%d+)') do\n"
	"      at, n = tonumber(at), tonumber(n)\n"
	"      if now - at <= window then\n"
	"        sum = sum + n\n"
	"        ends[#ends + 1] = {at + window, n}\n"
	"      end\n"
	"    end\n"
	"    if tonumber(till) > now then leased = leased + held else held = 0 end\n"
	"    if sum == 0 and tonumber(held) == 0 then redis.call('HDEL', KEYS[1], all[i]) end\n"
	"    others = others + sum\n"
	"  end\n"
	"end\n"
	"local own, list = 0, {}\n"
	"for age, n in ARGV[11]:gmatch('(%d+):(%d+)') do\n"
	"  local at = now - age\n"
	"  own = own + n\n"
	"  ends[#ends + 1] = {at + window, tonumber(n)}\n"
	"  list[#list + 1] = string.format('%.0f:%s', at, n)\n"
	"end\n"
	"local free = math.max(0, limit - others - leased - own)\n"
	"local want = math.min(tonumber(ARGV[8]), math.floor(free * ARGV[7] / 100))\n"
	"local grant = math.min(free, math.max(keep, want))\n"
	"if need > grant and need <= free then grant = need end\n"
	"local wait = -1\n"
	"if need > grant and leased > 0 then redis.call('PUBLISH', ARGV[12], 'recall ' .. KEYS[1]) end\n"
	"if math.max(need, 1) > math.max(grant, free) then\n"
	"  table.sort(ends, function(a, b) return a[1] < b[1] end)\n"
	"  local room = free\n"
	"  for _, e in ipairs(ends) do\n"
	"    room = room + e[2]\n"
	"    if room >= math.max(need, 1) then wait = math.max(0, e[1] - now) + 1 break end\n"
	"  end\n"
	"end\n"
	"if own == 0 and grant == 0 then\n"
	"  redis.call('HDEL', KEYS[1], ARGV[1])\n"
	"else\n"
	"  redis.call('HSET', KEYS[1], ARGV[1], string.format('%s %s %.0f %.0f %s', ARGV[2], ARGV[3], grant,\n"
	"    now + lease_ms, table.concat(list, ' ')))\n"
	"end\n"
	"redis.call('PEXPIRE', KEYS[1], string.format('%.0f', window + lease_ms))\n"
	"return {grant, others + leased, leased, wait, now, 0}\n";

/*
 * KEYS[1] the daemons.  ARGV: 1 daemon, 2 state (1 ready, 0 not, -1 it leaves),
 * 3 ms that one counts as there.  Gives {server's ms, daemons, of them not
 * ready, whether this one was known}.
 */
static const char beat_body[] =
	"local t = redis.call('TIME')\n"
	"local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
	"local known = redis.call('HEXISTS', KEYS[1], ARGV[1])\n"
	"if ARGV[2] == '-1' then\n"
	"  redis.call('HDEL', KEYS[1], ARGV[1])\n"
	"else\n"
	"  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s', now, ARGV[2]))\n"
	"end\n"
	"local there, unready = 0, 0\n"
	"local all = redis.call('HGETALL', KEYS[1])\n"
	"for i = 1, #all, 2 do\n"
	"  local at, state = all[i + 1]:match('^(%d+) (%d)$')\n"
	"  if at == nil or now - at > tonumber(ARGV[3]) then\n"
	"    redis.call('HDEL', KEYS[1], all[i])\n"
	"  else\n"
	"    there = there + 1\n"
	"    if state ~= '1' then unready = unready + 1 end\n"
	"  end\n"
	"end\n"
	"return {now, there, unready, known}\n";

/*
 * KEYS[1] the commands.  ARGV: 1 field, 2 verb, 3 daemon, 4 most fields, 5 channel.
 * Gives {version}.
 */
static const char command_body[] =
	"local version = redis.call('HINCRBY', KEYS[1], 'version', 1)\n"
	"redis.call('HSET', KEYS[1], ARGV[1], version .. ' ' .. ARGV[2] .. ' ' .. ARGV[3])\n"
	"local most = tonumber(ARGV[4])\n"
	"if redis.call('HLEN', KEYS[1]) > most then\n"
	"  local all = redis.call('HGETALL', KEYS[1])\n"
	"  for i = 1, #all, 2 do\n"
	"    local v, verb = all[i + 1]:match('^(%d+) (%a+) ')\n"
	"    if v and verb ~= 'block' and version - v > most / 2 then redis.call('HDEL', KEYS[1], all[i]) end\n"
	"  end\n"
	"end\n"
	"redis.call('PUBLISH', ARGV[5], 'commands')\n"
	"return {version}\n";

const struct wire_script wire_scripts[WIRE_SCRIPTS] = {
	[WIRE_SYNC] = {"sync", sync_body, WIRE_SYNC},
	[WIRE_BEAT] = {"beat", beat_body, WIRE_BEAT},
	[WIRE_COMMAND] = {"command", command_body, WIRE_COMMAND},
};

static void arg_add(struct wire_args *a, struct span text)
{
	if (a->count == WIRE_ARGS_MAX)
		PANIC("too many arguments of a script");
	a->args[a->count++] = text;
}

static void number_add(struct wire_args *a, uint64_t value)
{
	int len = snprintf(a->mem + a->used, sizeof(a->mem) - a->used, "%llu", (unsigned long long)value);
	arg_add(a, span_of(a->mem + a->used, (size_t)len));
	a->used += (size_t)len;
}

void wire_sync_args(const struct lease_sync *sync, const struct wire_daemon *daemon, uint64_t seq,
		    struct wire_args *out)
{
	out->count = out->used = 0;
	arg_add(out, daemon->id);
	number_add(out, daemon->life);
	number_add(out, seq);
	number_add(out, sync->need);
	number_add(out, sync->keep);
	number_add(out, sync->max);
	number_add(out, sync->share_percent);
	number_add(out, sync->cap);
	number_add(out, (uint64_t)sync->length_ms);
	number_add(out, (uint64_t)sync->lease_ms);
	arg_add(out, span_of(sync->counts, sync->counts_len));
	arg_add(out, daemon->channel);
}

int wire_sync_reply(const int64_t *n, size_t count, struct wire_sync_reply *out)
{
	if (count != WIRE_SYNC_REPLY || n[0] < 0 || n[1] < 0 || n[2] < 0 || n[4] < 0)
		return ERR_SYNTAX;
	*out = (struct wire_sync_reply){
		.grant = {.granted = (uint64_t)n[0], .others = (uint64_t)n[1], .others_leased = (uint64_t)n[2],
			  .free_in_ms = n[3] < WINDOW_LENGTH_MAX_MS * 2 ? n[3] : -1},
		.server_ms = n[4], .stale = n[5] != 0};
	return 0;
}

void wire_beat_args(const struct wire_daemon *daemon, bool ready, bool leaving, int64_t alive_ms, struct wire_args *out)
{
	out->count = out->used = 0;
	arg_add(out, daemon->id);
	arg_add(out, leaving ? SPAN_LIT("-1") : ready ? SPAN_LIT("1") : SPAN_LIT("0"));
	number_add(out, (uint64_t)alive_ms);
}

int wire_beat_reply(const int64_t *n, size_t count, struct wire_beat_reply *out)
{
	if (count != WIRE_BEAT_REPLY || n[0] < 0 || n[1] < 0 || n[1] > UINT16_MAX || n[2] < 0 || n[2] > n[1])
		return ERR_SYNTAX;
	*out = (struct wire_beat_reply){.server_ms = n[0], .daemons = (unsigned)n[1], .unready = (unsigned)n[2],
					.was_known = n[3] != 0};
	return 0;
}

/* ---- names ---- */

/* So that a key can neither end the hash tag nor be taken for another. */
static void escaped_add(struct sbuf *out, struct span s)
{
	static const char plain[] = "@.-_+=/<>,:";
	for (size_t i = 0; i < s.len; i++) {
		char c = s.ptr[i];
		if (ascii_isalnum(c) || (c != '\0' && memchr(plain, c, sizeof(plain) - 1) != NULL))
			sbuf_addc(out, c);
		else
			sbuf_addf(out, "%%%02X", (unsigned)(unsigned char)c);
	}
}

int lease_name_add(const struct subject *subject, const struct rule *rule, const struct rule_window *window,
		   struct sbuf *out)
{
	char mem[SUBJECT_CLIENT_KEY_MAX], text_mem[SUBJECT_KEY_MAX];
	struct sbuf text;
	struct span key;
	int rc = subject_key(subject, rule, mem, &key);
	if (rc < 0)
		return rc;
	if (rule->scope == SCOPE_CLIENT_IP || rule->scope == SCOPE_CLIENT_NET) {
		sbuf_init(&text, text_mem, sizeof(text_mem));
		subject_format(subject, rule, &text);
		key = sbuf_span(&text);
	}
	sbuf_addf(out, "{%s:", rule_scope_name(rule->scope));
	escaped_add(out, key);
	sbuf_addf(out, "}:%s:%lld:%016llx", rule_unit_name(rule->unit), (long long)(window->length_ms / 1000),
		  (unsigned long long)window->id);
	return sbuf_ok(out) ? 0 : ERR_LIMIT;
}

/* ---- what administrators do ---- */

static const char *const verb_words[] = {[WIRE_BLOCK] = "block", [WIRE_RELEASE] = "release", [WIRE_RESET] = "reset"};

void wire_order_field_add(const struct wire_order *order, struct sbuf *out)
{
	sbuf_addf(out, "%s:%s:", order->verb == WIRE_RESET ? "reset" : "block", rule_scope_name(order->scope));
	sbuf_add(out, order->key);
}

void wire_order_args(const struct wire_order *order, const struct wire_daemon *daemon, struct span field,
		     struct wire_args *out)
{
	out->count = out->used = 0;
	arg_add(out, field);
	arg_add(out, span_str(verb_words[order->verb]));
	arg_add(out, daemon->id);
	number_add(out, WIRE_ORDERS_MAX);
	arg_add(out, daemon->channel);
}

int wire_order_parse(struct span field, struct span value, struct wire_order *out)
{
	struct wire_order order = {0};
	struct span kind, scope, version, word;
	if (!span_cut(&field, ':', &kind) || !span_cut(&field, ':', &scope) || field.len == 0 ||
	    rule_scope_find(scope, &order.scope) < 0 || !span_cut(&value, ' ', &version) ||
	    num_parse_u64(version, INT64_MAX, &order.version) < 0 || order.version == 0)
		return ERR_SYNTAX;
	if (!span_cut(&value, ' ', &word) || value.len == 0 || value.len > WIRE_ID_MAX)
		return ERR_SYNTAX;
	int verb = WIRE_BLOCK;
	while (verb <= WIRE_RESET && !span_eq(word, span_str(verb_words[verb])))
		verb++;
	bool resets = span_eq(kind, SPAN_LIT("reset"));
	if (verb > WIRE_RESET || resets != (verb == WIRE_RESET) || (!resets && !span_eq(kind, SPAN_LIT("block"))))
		return ERR_SYNTAX;
	order.verb = (enum wire_verb)verb;
	order.key = field;
	order.by = value;
	*out = order;
	return 0;
}
