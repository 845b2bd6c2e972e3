/* model_bench.c - the engine alone on a model file: no server, no scheduler, no sampling; what other engines'
 * bench programs measure.
 *
 *   model_bench FILE.gguf [--prompt 512] [--sequences 1,4,8,16,64] [--depths 0,1024] [--tokens 32] [--seconds 2]
 *               [--threads N] [--kernels NAME] [--cache-type f16]
 *
 * Prefill: a sequence of --prompt tokens is read in steps of at most 512 rows, its last logits are computed.
 * Decode: so many sequences at each depth make --tokens tokens, one row and one row of logits each per step. A line
 * of JSON per case: tokens per second in all (median, smallest and largest repetition) and, for decode, what a step
 * must read (weights once, keys and values of every sequence) beside a plain read of the same weights by the same
 * threads, measured between the repetitions; for prefill the share of the dot product peak that the matrices of
 * the layers reach. --seconds per case (0: decode tells only the bytes); tokens are random; with one thread its own
 * time counts. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/limit.h"
#include "base/str.h"
#include "cli/eval_model.h"

#include "machine.h"

#define LIST_MAX 16u
#define REPETITIONS_MAX 200u
#define SEQUENCES_MAX 256u
#define DOT_LOOPS 20000u

struct list {
    u32 n, at[LIST_MAX];
};

struct bench {
    struct eval_model e;
    struct list sequences, depths;
    u32 prompt, n_tokens;
    f64 seconds;
    u64 random;
    struct kv_seq seqs[SEQUENCES_MAX];
    struct model_span spans[SEQUENCES_MAX];
};

struct rates {
    f64 at[REPETITIONS_MAX], read[REPETITIONS_MAX]; /* tokens per second, bytes per second */
    u32 n;
};

static int f64_compare(const void *a, const void *b) {
    f64 x = *(const f64 *)a, y = *(const f64 *)b;
    return x < y ? -1 : x > y;
}

static bool alone; /* one thread: its own time, which other processes disturb less; several: wall time */

static u64 now_ns(void) {
    struct timespec t;
    clock_gettime(alone ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (u64)t.tv_sec * 1000000000u + (u64)t.tv_nsec;
}

static f64 seconds_since(u64 start_ns) { return 1e-9 * (f64)(now_ns() - start_ns); }

static u32 random_token(struct bench *b) {
    b->random ^= b->random << 13, b->random ^= b->random >> 7, b->random ^= b->random << 17;
    return (u32)(b->random % model_info(b->e.model)->n_vocab);
}

/* --- the yardstick --- */
struct reading {
    const struct bench *b;
    u32 n_parts;
};

static void read_part(void *arg, u32 part, u32 thread) {
    const struct reading *r = arg;
    size_t n = r->b->e.map_bytes / r->n_parts;
    volatile f64 used = machine_read(r->b->e.options.kern->name, (const u8 *)r->b->e.map + part * n, n);
    (void)used, (void)thread;
}

static f64 read_rate(struct bench *b) {
    struct reading r = {b, b->e.options.n_threads};
    u64 start = now_ns();
    team_run(b->e.team, read_part, &r, r.n_parts);
    return (f64)b->e.map_bytes / seconds_since(start);
}

static void dot_part(void *arg, u32 part, u32 thread) {
    const struct reading *r = arg;
    volatile f64 used = machine_dot(r->b->e.options.kern->name, DOT_LOOPS);
    (void)used, (void)part, (void)thread;
}

/* Operations per second of all threads; 0: the tier has no such instruction. */
static f64 dot_rate(struct bench *b) {
    struct reading r = {b, b->e.options.n_threads};
    u64 start = now_ns();
    team_run(b->e.team, dot_part, &r, r.n_parts);
    return machine_dot_ops(b->e.options.kern->name, DOT_LOOPS) * r.n_parts / seconds_since(start);
}

/* Multiplies and adds of one token in the matrices of the layers. */
static f64 layer_ops(const struct bench *b) {
    f64 ops = 0;
    for (u32 i = 0; i < b->e.gguf.n_tensors; i++) {
        const struct gguf_tensor *t = &b->e.gguf.tensors[i];
        if (t->n_dims == 2 && str_starts(t->name, STR("blk.")))
            ops += 2.0 * (f64)t->dims[0] * (f64)t->dims[1];
    }
    return ops;
}

/* --- what a step reads --- */
static u64 weights_read(const struct bench *b) {
    bool tied = !gguf_tensor_find(&b->e.gguf, STR("output.weight"));
    u64 bytes = 0;
    for (u32 i = 0; i < b->e.gguf.n_tensors; i++)
        if (tied || !str_is(b->e.gguf.tensors[i].name, "token_embd.weight"))
            bytes += b->e.gguf.tensors[i].bytes;
    return bytes;
}

static u64 kv_read(const struct bench *b, u32 n_positions) {
    const struct kv_layout *l = &model_info(b->e.model)->kv;
    u64 bytes = 0;
    for (u32 i = 0; i < l->n_groups; i++) {
        const struct kv_group *g = &l->groups[i];
        u64 seen = g->window ? MIN(g->window, n_positions) : n_positions;
        bytes += kv_page_bytes(g) * seen / KV_PAGE_TOKENS;
    }
    return bytes;
}

/* --- steps --- */
static void sequence_open(struct bench *b, u32 i, u32 n) {
    u32 token = random_token(b);
    kv_seq_open(&b->seqs[i], b->e.space, &token, 1, 0);
    if (!kv_seq_reserve(&b->seqs[i], n))
        die("no memory for the keys and values of %u tokens", n);
}

static void prefill(struct bench *b, struct kv_seq *seq, u32 n, bool logits) {
    u32 tokens[LIMIT_STEP_ROWS];
    for (u32 pos = 0; pos < n;) {
        u32 rows = MIN(n - pos, LIMIT_STEP_ROWS);
        for (u32 i = 0; i < rows; i++)
            tokens[i] = random_token(b);
        struct model_span span = {
            .seq = seq, .tokens = tokens, .pos0 = pos, .n = rows, .num_ctx = b->e.options.num_ctx};
        pos += rows;
        span.n_logits = logits && pos == n;
        model_forward(b->e.model, b->e.team, b->e.scratch, &span, 1, 0, 0);
    }
    if (logits)
        model_logits(b->e.model, b->e.team, b->e.scratch, 0, 1);
}

static void decode(struct bench *b, u32 n_seqs, u32 pos) {
    u32 tokens[SEQUENCES_MAX];
    for (u32 i = 0; i < n_seqs; i++) {
        tokens[i] = random_token(b);
        b->spans[i] = (struct model_span){.seq = &b->seqs[i], .tokens = &tokens[i], .pos0 = pos, .n = 1, .n_logits = 1,
                                          .num_ctx = b->e.options.num_ctx};
    }
    model_forward(b->e.model, b->e.team, b->e.scratch, b->spans, n_seqs, 0, 0);
    for (u32 i = 0; i < n_seqs; i += MODEL_LOGITS_TILE)
        model_logits(b->e.model, b->e.team, b->e.scratch, i, MIN(MODEL_LOGITS_TILE, n_seqs - i));
}

/* --- cases --- */
static bool more(const struct bench *b, const struct rates *r, u64 start) {
    return r->n < REPETITIONS_MAX && (r->n < 3 || seconds_since(start) < b->seconds);
}

static void print_rates(struct rates *r) {
    qsort(r->at, r->n, sizeof *r->at, f64_compare);
    printf("\"repetitions\":%u,\"tokens_per_second\":%.1f,\"low\":%.1f,\"high\":%.1f", r->n, r->at[r->n / 2], r->at[0],
           r->at[r->n - 1]);
}

static void bench_prefill(struct bench *b) {
    struct rates r = {.n = 0};
    sequence_open(b, 0, b->prompt);
    prefill(b, &b->seqs[0], b->prompt, true);
    f64 share[REPETITIONS_MAX];
    for (u64 start = now_ns(); more(b, &r, start); r.n++) {
        u64 t = now_ns();
        prefill(b, &b->seqs[0], b->prompt, true);
        r.at[r.n] = b->prompt / seconds_since(t);
        f64 peak = dot_rate(b);
        share[r.n] = peak > 0 ? r.at[r.n] * layer_ops(b) / peak : 0;
    }
    kv_seq_close(&b->seqs[0], NULL, false, 0);
    printf("{\"case\":\"prefill\",\"tokens\":%u,", b->prompt);
    qsort(share, r.n, sizeof *share, f64_compare);
    print_rates(&r);
    printf(",\"share_of_peak\":%.3f}\n", share[r.n / 2]);
    fflush(stdout);
}

static void bench_decode(struct bench *b, u32 n_seqs, u32 depth) {
    struct rates r = {.n = 0};
    u64 bytes = weights_read(b) + n_seqs * kv_read(b, depth + b->n_tokens / 2);
    if (b->seconds <= 0) {
        printf("{\"case\":\"decode\",\"sequences\":%u,\"depth\":%u,\"step_bytes\":%llu}\n", n_seqs, depth,
               (unsigned long long)bytes);
        return;
    }
    for (u32 i = 0; i < n_seqs; i++) {
        sequence_open(b, i, depth + b->n_tokens);
        prefill(b, &b->seqs[i], depth, false);
    }
    decode(b, n_seqs, depth);
    f64 share[REPETITIONS_MAX];
    for (u64 start = now_ns(); more(b, &r, start); r.n++) {
        u64 t = now_ns();
        for (u32 i = 0; i < b->n_tokens; i++) /* each repetition writes over the positions of the one before */
            decode(b, n_seqs, depth + i);
        f64 took = seconds_since(t);
        r.at[r.n] = b->n_tokens * n_seqs / took;
        r.read[r.n] = read_rate(b);
        share[r.n] = (f64)bytes * b->n_tokens / took / r.read[r.n];
    }
    for (u32 i = 0; i < n_seqs; i++)
        kv_seq_close(&b->seqs[i], NULL, false, 0);
    printf("{\"case\":\"decode\",\"sequences\":%u,\"depth\":%u,", n_seqs, depth);
    qsort(r.read, r.n, sizeof *r.read, f64_compare);
    qsort(share, r.n, sizeof *share, f64_compare);
    print_rates(&r);
    printf(",\"step_bytes\":%llu,\"read_bytes_per_second\":%.4g,\"share_of_bound\":%.3f}\n", (unsigned long long)bytes,
           r.read[r.n / 2], share[r.n / 2]);
    fflush(stdout);
}

/* --- arguments --- */
static bool list_read(const char *text, u32 min, u32 max, struct list *out) {
    struct str rest = str_of(text), item;
    out->n = 0;
    while (rest.n) {
        size_t comma = 0;
        while (comma < rest.n && rest.p[comma] != ',')
            comma++;
        item = str_slice(rest, 0, comma);
        rest = str_slice(rest, MIN(comma + 1, rest.n), rest.n);
        u64 v;
        if (out->n == LIST_MAX || !str_to_u64(item, &v) || v < min || v > max)
            return false;
        out->at[out->n++] = (u32)v;
    }
    return true;
}

static bool option_read(struct bench *b, struct eval_options *o, struct str name, const char *value, struct err *err) {
    struct list one;
    if (str_is(name, "--kernels"))
        return kern_open(value, &o->kern, err) == OK;
    if (str_is(name, "--cache-type"))
        return kern_cache_by_name(value, &o->cache, err) == OK;
    if (str_is(name, "--sequences"))
        return list_read(value, 1, SEQUENCES_MAX, &b->sequences);
    if (str_is(name, "--depths"))
        return list_read(value, 0, LIMIT_NUM_CTX / 2, &b->depths);
    if (!list_read(value, 0, LIMIT_NUM_CTX / 2, &one) || one.n != 1)
        return false;
    if (str_is(name, "--prompt"))
        b->prompt = one.at[0];
    else if (str_is(name, "--tokens"))
        b->n_tokens = MAX(one.at[0], 1);
    else if (str_is(name, "--seconds"))
        b->seconds = one.at[0];
    else if (str_is(name, "--threads"))
        o->n_threads = MIN(one.at[0], TEAM_THREADS_MAX);
    else
        return false;
    return true;
}

int main(int argc, char **argv) {
    static struct bench b = {.sequences = {5, {1, 4, 8, 16, 64}}, .depths = {1, {0}}, .prompt = 512, .n_tokens = 32,
                             .seconds = 2, .random = 88172645463325252ull};
    struct eval_options o = {.num_ctx = LIMIT_NUM_CTX, .slice = LIMIT_STEP_ROWS, .cache = KERN_CACHE_F16};
    struct err err = {0};
    bool good = argc >= 2 && argc % 2 == 0;
    for (int i = 2; good && i < argc; i += 2)
        good = option_read(&b, &o, str_of(argv[i]), argv[i + 1], &err);
    if (!good)
        die("usage: model_bench FILE.gguf [--prompt N] [--sequences N,...] [--depths N,...] [--tokens N] [--seconds N]"
            " [--threads N] [--kernels NAME] [--cache-type f16|bf16|q8_0|f32] %s", err.text);
    if (eval_model_open(argv[1], &o, &b.e, &err) != OK)
        die("%s", err.text);
    alone = b.e.options.n_threads == 1;
    read_rate(&b); /* the file is in memory from here on */
    if (b.prompt)
        bench_prefill(&b);
    for (u32 d = 0; d < b.depths.n; d++)
        for (u32 i = 0; i < b.sequences.n; i++)
            bench_decode(&b, b.sequences.at[i], b.depths.at[d]);
    eval_model_close(&b.e);
    return 0;
}
