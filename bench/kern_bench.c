/* kern_bench.c - how fast the matrix kernels are on this machine, on one thread.
 *
 *   kern_bench [--kernels ref|avx2|avxvnni|avx512] [--type Q4_1] [--shape NxK] [--rows 1,2,8,512] [--hot] [--seconds S]
 *
 * Prints per type, shape and number of activation rows the weights read per second and the operations per
 * second (a multiply and an add are two), as medians with the 10th and 90th percentile, and as shares of what the
 * same machine does in the same run, measured between the repetitions: a plain streaming read, and the peak (90th
 * percentile) of the tier's dot product instruction. Weights are walked through an arena larger than the caches,
 * so each repetition finds them cold, as a model's are; --hot stays on one place. Time is the thread's own. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "base/str.h"
#include "kern/kern.h"

#include "machine.h"

#define ARENA_BYTES ((size_t)192 << 20)
#define REPETITIONS_MAX 400u
#define REPETITION_BYTES ((size_t)4 << 20)
/* About 270 us: after 25 us of them the units are not yet at their full rate (920 instead of 1,140 GOPS). */
#define DOT_LOOPS 20000u

struct options {
    const struct kern *kern;
    struct str type; /* empty = all */
    u32 N, K;        /* 0 = the usual shapes */
    u32 rows[16], n_rows;
    bool hot;
    f64 seconds; /* per figure */
};

struct spread { f64 low, median, high; };

static f64 thread_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (f64)t.tv_sec + 1e-9 * (f64)t.tv_nsec;
}

static int f64_compare(const void *a, const void *b) {
    f64 x = *(const f64 *)a, y = *(const f64 *)b;
    return x < y ? -1 : x > y;
}

/* Of rates: work per repetition divided by its times. */
static struct spread spread_of(f64 work, f64 *times, u32 n) {
    qsort(times, n, sizeof *times, f64_compare);
    return (struct spread){work / times[n - 1 - n / 10], work / times[n / 2], work / times[n / 10]};
}

/* Random weights of finite scales, repeated through the arena. */
static void arena_fill(u8 *arena, enum quant_type type) {
    u32 values = quant_block_values(type), bytes = quant_block_bytes(type);
    size_t unit = ((size_t)2 << 20) / bytes * bytes;
    u64 r = 88172645463325252ull;
    for (size_t at = 0; at < unit; at += bytes) {
        f32 v[256];
        for (u32 i = 0; i < values; i++) {
            r ^= r << 13, r ^= r >> 7, r ^= r << 17;
            v[i] = (f32)(i32)(r >> 32) * 0x1p-31f;
        }
        if (values == 1) {
            quant_encode(type, v, arena + at, 1);
            continue;
        }
        for (u32 i = 0; i < bytes; i++)
            arena[at + i] = (u8)(r >> (i % 8 * 8)) ^ (u8)(i * 37);
        u16 d = f32_to_f16(0.01f), m = f32_to_f16(0.02f);
        memcpy(arena + at + (type == QUANT_Q6_K ? 208 : 0), &d, 2);
        if (type == QUANT_Q4_1 || type == QUANT_Q5_1 || type == QUANT_Q4_K || type == QUANT_Q5_K)
            memcpy(arena + at + 2, &m, 2);
    }
    for (size_t at = unit; at + unit <= ARENA_BYTES; at += unit)
        memcpy(arena + at, arena, unit);
}

/* One figure: rows activation rows times N x K weights. */
static void figure_print(const struct options *o, u8 *arena, enum quant_type type, u32 N, u32 K, u32 rows) {
    size_t row_bytes = quant_row_bytes(type, K), bytes = row_bytes * N, block = quant_block_bytes(type);
    enum kern_act kind = kern_act_kind(type, false);
    f32 *x = xmalloc((size_t)rows * K * sizeof *x), *out = xmalloc((size_t)rows * N * sizeof *out);
    for (size_t i = 0; i < (size_t)rows * K; i++)
        x[i] = (f32)(i * 2654435761u % 2001) / 1000 - 1;
    void *mem = aligned_alloc(64, ALIGN_UP(kern_acts_bytes(kind, rows, K) + 1, 64));
    void *scratch = aligned_alloc(64, ALIGN_UP(kern_matmul_scratch_bytes(), 64));
    struct kern_acts a;
    kern_acts_at(&a, kind, rows, K, x, mem);
    if (kind != KERN_ACT_F32)
        o->kern->quantize(&a, 0, rows, 0, K);

    /* A repetition multiplies as many slices in a row as make REPETITION_BYTES, as a model's matrices follow
     * each other; then the same number of bytes behind them is only read. */
    u32 slices = o->hot ? 1 : (u32)MAX(1, REPETITION_BYTES / bytes);
    size_t span = ALIGN_UP(slices * bytes + 4096, block);
    f64 times[REPETITIONS_MAX], reads[REPETITIONS_MAX], peaks[REPETITIONS_MAX], spent = 0, sink = 0;
    u32 n = 0;
    for (size_t at = 0; n < REPETITIONS_MAX && (spent < o->seconds || n < 9); n++, at += o->hot ? 0 : 2 * span) {
        if (at + 2 * span > ARENA_BYTES)
            at = 0;
        struct kern_mat w = {.data = arena + at, .type = type, .N = N, .K = K, .row_bytes = row_bytes};
        f64 t0 = thread_seconds();
        for (u32 i = 0; i < slices; i++, w.data += bytes)
            o->kern->matmul(&w, 0, N, &a, out, N, scratch, w.data + bytes);
        f64 t1 = thread_seconds();
        sink += machine_read(o->kern->name, arena + at + (o->hot ? 0 : span), slices * bytes);
        f64 t2 = thread_seconds();
        sink += machine_dot(o->kern->name, DOT_LOOPS);
        peaks[n] = thread_seconds() - t2;
        times[n] = (t1 - t0) / slices;
        reads[n] = (t2 - t1) / slices;
        spent += t1 - t0;
    }
    struct spread gb = spread_of((f64)bytes * 1e-9, times, n), read = spread_of((f64)bytes * 1e-9, reads, n);
    struct spread peak = spread_of(machine_dot_ops(o->kern->name, DOT_LOOPS) * 1e-9, peaks, n);
    f64 gops = 2.0 * N * K * rows * 1e-9 / ((f64)bytes * 1e-9);
    printf("%-7s %6ux%-5u %4u | %6.1f GB/s (%5.1f..%5.1f) %3.0f%% of read %5.1f | %7.1f GOPS (%6.1f..%6.1f)", quant_name(type), N, K,
           rows, gb.median, gb.low, gb.high, 100 * gb.median / read.median, read.median, gb.median * gops, gb.low * gops,
           gb.high * gops);
    if (machine_dot_ops(o->kern->name, 1) > 0)
        printf(" %3.0f%% of peak %.0f", 100 * gb.median * gops / peak.high, peak.high);
    printf("%s\n", sink == 0.5 ? " " : "");
    fflush(stdout);
    free(x), free(out), free(mem), free(scratch);
}

static bool options_read(int argc, char **argv, struct options *o) {
    struct err err;
    const char *kernels = NULL;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--hot") == 0) {
            o->hot = true;
            continue;
        }
        if (strcmp(argv[i], "--kernels") == 0)
            kernels = value;
        else if (strcmp(argv[i], "--type") == 0)
            o->type = str_of(value);
        else if (strcmp(argv[i], "--seconds") == 0)
            o->seconds = strtod(value, NULL);
        else if (strcmp(argv[i], "--shape") == 0) {
            if (sscanf(value, "%ux%u", &o->N, &o->K) != 2)
                return false;
        } else if (strcmp(argv[i], "--rows") == 0) {
            char *end = (char *)(uintptr_t)value;
            for (o->n_rows = 0; *end && o->n_rows < ARRAY_LEN(o->rows); end += *end == ',')
                o->rows[o->n_rows++] = (u32)strtoul(end, &end, 10);
        } else {
            return false;
        }
        i++;
    }
    if (kern_open(kernels, &o->kern, &err) != OK) {
        fprintf(stderr, "%s\n", err.text);
        return false;
    }
    return true;
}

int main(int argc, char **argv) {
    static const u32 shapes[][2] = {{1536, 576}, {576, 1536}, {2048, 4096}};
    struct options o = {.rows = {1, 2, 4, 8, 16, 64, 512}, .n_rows = 7, .seconds = 0.15};
    if (!options_read(argc, argv, &o)) {
        fprintf(stderr, "usage: kern_bench [--kernels K] [--type T] [--shape NxK] [--rows 1,8] [--hot] [--seconds S]\n");
        return 1;
    }
    u8 *arena = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (arena == MAP_FAILED)
        die("no memory for the arena");
    printf("%s\n", o.kern->name);
    for (u32 type = 0; type < QUANT_TYPES; type++) {
        if (!quant_supported(type) || (o.type.n && !str_eq(o.type, str_of(quant_name(type)))))
            continue;
        arena_fill(arena, type);
        for (u32 s = 0; s < (o.K ? 1 : ARRAY_LEN(shapes)); s++) {
            u32 N = o.K ? o.N : shapes[s][0], K = o.K ? o.K : shapes[s][1];
            for (u32 r = 0; r < o.n_rows && K % MAX(quant_block_values(type), 16u) == 0; r++)
                figure_print(&o, arena, type, N, K, o.rows[r]);
        }
    }
    return 0;
}
