/* human.c - numbers, times and tables for people. */
#include "cli/human.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>
#include <utf8proc.h>

void human_bytes(u64 bytes, char out[HUMAN_BYTES]) {
    static const struct {
        u64 size;
        const char *name;
    } units[] = {{1000000000000ull, "TB"}, {1000000000ull, "GB"}, {1000000ull, "MB"}, {1000ull, "KB"}};
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        if (bytes < units[i].size)
            continue;
        f64 v = (f64)bytes / (f64)units[i].size;
        if (v >= 10 || v == floor(v))
            snprintf(out, HUMAN_BYTES, "%.0f %s", floor(v), units[i].name);
        else
            snprintf(out, HUMAN_BYTES, "%.1f %s", v, units[i].name);
        return;
    }
    snprintf(out, HUMAN_BYTES, "%llu B", (unsigned long long)bytes);
}

void human_count(u64 n, char out[HUMAN_BYTES]) {
    f64 billions = (f64)n / 1e9, millions = (f64)n / 1e6;
    if (n >= 1000000000)
        snprintf(out, HUMAN_BYTES, billions == floor(billions) ? "%.0fB" : "%.1fB", billions);
    else if (n >= 1000000)
        snprintf(out, HUMAN_BYTES, millions == floor(millions) ? "%.0fM" : "%.2fM", millions);
    else if (n >= 1000)
        snprintf(out, HUMAN_BYTES, "%.0fK", (f64)n / 1e3);
    else
        snprintf(out, HUMAN_BYTES, "%llu", (unsigned long long)n);
}

/* The words of a distance in time; hours and more are counted in hours rounded to the nearest. */
static void distance(i64 ns, char out[HUMAN_BYTES]) {
    i64 seconds = ns / 1000000000, minutes = seconds / 60;
    i64 hours = (i64)round((f64)ns / 3600e9);
    if (seconds < 1)
        snprintf(out, HUMAN_BYTES, "Less than a second");
    else if (seconds == 1)
        snprintf(out, HUMAN_BYTES, "1 second");
    else if (seconds < 60)
        snprintf(out, HUMAN_BYTES, "%lld seconds", (long long)seconds);
    else if (minutes == 1)
        snprintf(out, HUMAN_BYTES, "About a minute");
    else if (minutes < 60)
        snprintf(out, HUMAN_BYTES, "%lld minutes", (long long)minutes);
    else if (hours == 1)
        snprintf(out, HUMAN_BYTES, "About an hour");
    else if (hours < 48)
        snprintf(out, HUMAN_BYTES, "%lld hours", (long long)hours);
    else if (hours < 24 * 14)
        snprintf(out, HUMAN_BYTES, "%lld days", (long long)(hours / 24));
    else if (hours < 24 * 60)
        snprintf(out, HUMAN_BYTES, "%lld weeks", (long long)(hours / 24 / 7));
    else if (hours < 24 * 365 * 2)
        snprintf(out, HUMAN_BYTES, "%lld months", (long long)(hours / 24 / 30));
    else
        snprintf(out, HUMAN_BYTES, "%lld years", (long long)(seconds / 3600 / 24 / 365));
}

void human_time(i64 then_ns, i64 now_ns, char out[HUMAN_BYTES]) {
    const i64 year_ns = 365ll * 24 * 3600 * 1000000000;
    if (then_ns == 0) {
        snprintf(out, HUMAN_BYTES, "Never");
        return;
    }
    i64 ahead_ns;
    if (__builtin_sub_overflow(then_ns, now_ns, &ahead_ns))
        ahead_ns = then_ns < now_ns ? -INT64_MAX : INT64_MAX;
    if (ahead_ns / year_ns > 20) {
        snprintf(out, HUMAN_BYTES, "Forever");
        return;
    }
    distance(llabs(ahead_ns), out);
    size_t n = strlen(out);
    snprintf(out + n, HUMAN_BYTES - n, ahead_ns > 0 ? " from now" : " ago");
}

/* v without zeros at its end: "1.5" of 1500000 with 6 digits. */
static void decimals(char *out, size_t cap, u64 whole, u64 rest, u32 n_digits) {
    while (n_digits && rest % 10 == 0) {
        rest /= 10;
        n_digits--;
    }
    if (n_digits)
        snprintf(out, cap, "%llu.%0*llu", (unsigned long long)whole, (int)n_digits, (unsigned long long)rest);
    else
        snprintf(out, cap, "%llu", (unsigned long long)whole);
}

void human_duration(i64 ns, char out[HUMAN_BYTES]) {
    const char *sign = ns < 0 ? "-" : "";
    u64 v = ns < 0 ? 0 - (u64)ns : (u64)ns;
    char number[32];
    if (v == 0) {
        snprintf(out, HUMAN_BYTES, "0s");
    } else if (v < 1000) {
        snprintf(out, HUMAN_BYTES, "%s%lluns", sign, (unsigned long long)v);
    } else if (v < 1000000) {
        decimals(number, sizeof number, v / 1000, v % 1000, 3);
        snprintf(out, HUMAN_BYTES, "%s%s\u00b5s", sign, number);
    } else if (v < 1000000000) {
        decimals(number, sizeof number, v / 1000000, v % 1000000, 6);
        snprintf(out, HUMAN_BYTES, "%s%sms", sign, number);
    } else {
        u64 seconds = v / 1000000000, hours = seconds / 3600, minutes = seconds / 60 % 60;
        decimals(number, sizeof number, seconds % 60, v % 1000000000, 9);
        if (hours)
            snprintf(out, HUMAN_BYTES, "%s%lluh%llum%ss", sign, (unsigned long long)hours,
                     (unsigned long long)minutes, number);
        else if (minutes)
            snprintf(out, HUMAN_BYTES, "%s%llum%ss", sign, (unsigned long long)minutes, number);
        else
            snprintf(out, HUMAN_BYTES, "%s%ss", sign, number);
    }
}

static bool digits_parse(struct str s, size_t at, size_t n, int *out) {
    *out = 0;
    for (size_t i = at; i < at + n; i++) {
        if (i >= s.n || s.p[i] < '0' || s.p[i] > '9')
            return false;
        *out = *out * 10 + (s.p[i] - '0');
    }
    return true;
}

/* "Z" or "+01:00" as seconds east of UTC. */
static bool zone_parse(struct str s, int *east_s) {
    int h, m;
    *east_s = 0;
    if (str_is(s, "Z") || str_is(s, "z"))
        return true;
    if (s.n != 6 || (s.p[0] != '+' && s.p[0] != '-') || s.p[3] != ':' || !digits_parse(s, 1, 2, &h) ||
        !digits_parse(s, 4, 2, &m))
        return false;
    *east_s = (s.p[0] == '-' ? -1 : 1) * (h * 3600 + m * 60);
    return true;
}

bool rfc3339_parse(struct str s, i64 *unix_ns) {
    struct tm tm = {0};
    if (s.n < 20 || s.p[4] != '-' || s.p[7] != '-' || (s.p[10] | 0x20) != 't' || s.p[13] != ':' ||
        s.p[16] != ':' || !digits_parse(s, 0, 4, &tm.tm_year) || !digits_parse(s, 5, 2, &tm.tm_mon) ||
        !digits_parse(s, 8, 2, &tm.tm_mday) || !digits_parse(s, 11, 2, &tm.tm_hour) ||
        !digits_parse(s, 14, 2, &tm.tm_min) || !digits_parse(s, 17, 2, &tm.tm_sec))
        return false;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    size_t at = 19;
    i64 fraction = 0, scale = 100000000;
    if (s.p[at] == '.')
        for (at++; at < s.n && s.p[at] >= '0' && s.p[at] <= '9'; at++, scale /= 10)
            fraction += (s.p[at] - '0') * scale;
    int east_s;
    if (!zone_parse(str_slice(s, at, s.n), &east_s))
        return false;
    i64 unix_s = timegm(&tm) - east_s;
    /* Beyond 64-bit nanoseconds (year 2262): as far ahead as can be said. */
    if (unix_s > INT64_MAX / 1000000000 - 1 || unix_s < INT64_MIN / 1000000000 + 1)
        *unix_ns = unix_s < 0 ? INT64_MIN : INT64_MAX;
    else
        *unix_ns = unix_s * 1000000000 + fraction;
    return true;
}

u32 char_columns(u32 code_point) {
    if (code_point < 0x20 || (code_point >= 0x7f && code_point < 0xa0))
        return 0;
    return (u32)MAX(utf8proc_charwidth((utf8proc_int32_t)code_point), 0);
}

u32 str_columns(struct str s) {
    u32 columns = 0;
    for (size_t at = 0; at < s.n;) {
        u32 code_point, n = utf8_decode(s, at, &code_point);
        columns += n ? char_columns(code_point) : 1;
        at += n ? n : 1;
    }
    return columns;
}

/* --- tables --- */

#define ROW_START UINT32_MAX

void table_release(struct table *t) {
    buf_release(&t->text);
    free(t->cells);
    *t = (struct table){0};
}

static void cell_add(struct table *t, struct table_cell cell) {
    if (t->n_cells == t->cap_cells) {
        t->cap_cells = MAX(2 * t->cap_cells, 64u);
        t->cells = xrealloc(t->cells, sizeof *t->cells * t->cap_cells);
    }
    t->cells[t->n_cells++] = cell;
}

/* A row begins with a mark in the list of cells. */
void table_row(struct table *t) { cell_add(t, (struct table_cell){.column = ROW_START}); }

void table_cell(struct table *t, struct str text) {
    check(t->n_cells > 0);
    u32 last = t->cells[t->n_cells - 1].column;
    cell_add(t, (struct table_cell){t->text.n, text.n, last == ROW_START ? 0 : last + 1});
    buf_add_str(&t->text, text);
}

void table_wrapped_row(struct table *t, struct str first, struct str text, u32 wrap_columns) {
    do {
        size_t end = 0, blank = 0;
        u32 columns = 0;
        while (end < text.n && columns < wrap_columns) {
            u32 code_point, n = utf8_decode(text, end, &code_point);
            if (text.p[end] == ' ')
                blank = end;
            columns += n ? char_columns(code_point) : 1;
            end += n ? n : 1;
        }
        if (end < text.n && blank && text.p[end] != ' ')
            end = blank;
        table_row(t);
        table_cell(t, first);
        table_cell(t, str_slice(text, 0, end));
        text = str_trim(str_slice(text, end, text.n));
        first = STR_NONE;
    } while (text.n);
}

void table_print(const struct table *t, FILE *out) {
    u32 widths[64] = {0};
    for (u32 i = 0; i < t->n_cells; i++) {
        const struct table_cell *c = &t->cells[i];
        if (c->column < ARRAY_LEN(widths))
            widths[c->column] = MAX(widths[c->column], str_columns((struct str){t->text.p + c->from, c->n}));
    }
    for (u32 i = 0; i < t->n_cells; i++) {
        const struct table_cell *c = &t->cells[i];
        if (c->column != ROW_START) {
            struct str s = {t->text.p + c->from, c->n};
            u32 width = c->column < ARRAY_LEN(widths) ? widths[c->column] : 0;
            int pad = (int)width - (int)str_columns(s);
            fprintf(out, "%.*s%*s", STR_FMT(s), MAX(pad, 0) + 4, "");
        }
        if (i + 1 == t->n_cells || t->cells[i + 1].column == ROW_START)
            fputc('\n', out);
    }
}
