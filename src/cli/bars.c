/* bars.c - the reference's look: "pulling 8eeb52dfb3bb:  45% ▕███   ▏ 500 MB/1.1 GB   12 MB/s    45s". */
#include "cli/bars.h"

#include <stdlib.h>

#include "cli/human.h"
#include "cli/term.h"

#define SECOND_NS 1000000000ull
#define DRAW_NS 100000000ull
/* Behind the bar: "999 MB/999 MB" "  999 MB/s" "  59m59s". */
#define SUFFIX_COLUMNS 31

void bars_start(struct bars *b, FILE *out, bool redraw) {
    *b = (struct bars){.out = out, .redraw = redraw};
    if (redraw)
        fputs("\033[?25l", out);
}

static struct bar *bar_find(struct bars *b, struct str status, bool *fresh) {
    for (u32 i = 0; i < b->n; i++)
        if (str_is(status, b->items[i].status))
            return &b->items[i];
    *fresh = true;
    b->items = xrealloc(b->items, sizeof *b->items * (b->n + 1));
    struct bar *bar = &b->items[b->n++];
    *bar = (struct bar){0};
    /* A server's text: nothing in it commands the terminal. */
    size_t n = MIN(status.n, sizeof bar->status - 1);
    for (size_t i = 0; i < n; i++)
        bar->status[i] = (u8)status.p[i] < 0x20 || status.p[i] == 0x7f ? ' ' : status.p[i];
    return bar;
}

static u64 percent(const struct bar *b) {
    return b->total ? (u64)((f64)b->completed / (f64)b->total * 100) : 0;
}

/* Bytes per second over the last seconds; 0: not known yet. */
static f64 rate(const struct bar *b, u64 now_ns) {
    if (b->n_marks == 0 || now_ns - b->marks[0].ns < SECOND_NS / 2)
        return 0;
    return (f64)(b->completed - MIN(b->marks[0].completed, b->completed)) /
           ((f64)(now_ns - b->marks[0].ns) / 1e9);
}

static void mark(struct bar *b, u64 now_ns) {
    if (b->n_marks && now_ns - b->marks[b->n_marks - 1].ns < SECOND_NS)
        return;
    if (b->n_marks == BARS_RATE_SECONDS)
        memmove(&b->marks[0], &b->marks[1], sizeof b->marks[0] * --b->n_marks);
    b->marks[b->n_marks].ns = now_ns;
    b->marks[b->n_marks++].completed = b->completed;
}

/* "99h+", "1h5m", "1m5s", "45s". */
static void remaining(u64 s, char out[HUMAN_BYTES]) {
    if (s >= 100 * 3600)
        snprintf(out, HUMAN_BYTES, "99h+");
    else if (s >= 3600)
        snprintf(out, HUMAN_BYTES, "%lluh%llum", (unsigned long long)(s / 3600),
                 (unsigned long long)(s / 60 % 60));
    else if (s >= 60)
        snprintf(out, HUMAN_BYTES, "%llum%llus", (unsigned long long)(s / 60), (unsigned long long)(s % 60));
    else
        snprintf(out, HUMAN_BYTES, "%llus", (unsigned long long)s);
}

static void suffix(const struct bar *b, u64 now_ns, char *out, size_t cap) {
    char have[HUMAN_BYTES], total[HUMAN_BYTES], speed[HUMAN_BYTES], left[HUMAN_BYTES];
    human_bytes(b->completed, have);
    human_bytes(b->total, total);
    f64 r = rate(b, now_ns);
    if (b->stop_ns) {
        snprintf(out, cap, "%6s%25s", total, "");
        return;
    }
    if (r <= 0) {
        snprintf(out, cap, "%6s/%6s%18s", have, total, "");
        return;
    }
    human_bytes((u64)r, speed);
    remaining((u64)((f64)(b->total - MIN(b->completed, b->total)) / r), left);
    snprintf(out, cap, "%6s/%6s  %6s/s  %6s", have, total, speed, left);
}

void bar_text(const struct bar *b, u64 now_ns, u32 columns, char *out, size_t cap) {
    char behind[256];
    if (b->total == 0) {
        snprintf(out, cap, "%.*s", (int)MIN((size_t)columns, strlen(b->status)), b->status);
        return;
    }
    suffix(b, now_ns, behind, sizeof behind);
    int n = snprintf(out, cap, "%s: %3llu%% ", b->status, (unsigned long long)percent(b));
    u32 used = (u32)n + 4 + SUFFIX_COLUMNS, width = columns > used ? columns - used : 0;
    u32 full = (u32)((f64)width * (f64)percent(b) / 100);
    size_t at = (size_t)n;
    if (width < 4) /* too narrow for a bar, and a line that wraps could not be drawn again */
        return;
    at += (size_t)snprintf(out + at, cap - at, "▕");
    for (u32 i = 0; i < width && at + 8 < cap; i++)
        at += (size_t)snprintf(out + at, cap - at, "%s", i < full ? "█" : " ");
    snprintf(out + at, cap - at, "▏ %s", behind);
}

/* --- drawing --- */

static void draw(struct bars *b, u64 now_ns, bool last) {
    static const char *const frames[] = {"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"};
    char text[2048];
    u32 columns = term_columns(), rows = term_rows();
    u32 from = b->n >= rows ? b->n - rows + 1 : 0; /* what has scrolled away cannot be drawn again */
    if (b->n_drawn)
        fprintf(b->out, "\033[%uA", b->n_drawn);
    for (u32 i = from; i < b->n; i++) {
        bar_text(&b->items[i], now_ns, columns, text, sizeof text);
        bool busy = !last && i + 1 == b->n && b->items[i].total == 0;
        fprintf(b->out, "\r%s%s%s\033[K\n", text, busy ? " " : "",
                busy ? frames[b->frame % ARRAY_LEN(frames)] : "");
    }
    b->frame++;
    b->n_drawn = b->n - from;
    b->drawn_ns = now_ns;
    fflush(b->out);
}

static void print_plain(struct bars *b, struct bar *bar, bool fresh) {
    char total[HUMAN_BYTES];
    if (bar->total == 0) {
        if (fresh)
            fprintf(b->out, "%s\n", bar->status);
        return;
    }
    u32 tenths = (u32)(percent(bar) / 10);
    if (!fresh && tenths <= bar->tenths)
        return;
    bar->tenths = tenths;
    human_bytes(bar->total, total);
    fprintf(b->out, "%s: %3llu%% of %s\n", bar->status, (unsigned long long)percent(bar), total);
    fflush(b->out);
}

void bars_update(struct bars *b, struct str status, u64 total, u64 completed, u64 now_ns) {
    bool fresh = false;
    struct bar *bar = bar_find(b, status, &fresh);
    bar->total = total;
    bar->completed = MIN(completed, total);
    mark(bar, now_ns);
    if (bar->completed == total && !bar->stop_ns)
        bar->stop_ns = now_ns;
    if (!b->redraw)
        print_plain(b, bar, fresh);
    else if (fresh)
        draw(b, now_ns, false);
}

void bars_tick(struct bars *b, u64 now_ns) {
    if (b->redraw && b->n && now_ns - b->drawn_ns >= DRAW_NS)
        draw(b, now_ns, false);
}

void bars_stop(struct bars *b, u64 now_ns) {
    if (b->redraw) {
        if (b->n)
            draw(b, now_ns, true);
        fputs("\033[?25h", b->out);
        fflush(b->out);
    }
    free(b->items);
    *b = (struct bars){.out = b->out};
}
