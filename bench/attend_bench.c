/* attend_bench.c - attention, elementwise kernels and the passes over logits, beside what the same machine does
 * in the same run, measured between the repetitions: a plain read of memory, and fma on registers.
 *
 *   attend_bench [--kernels ref|avx2|avx512] [--cache-type f16|bf16|q8_0|f32] [--threads N]
 *                [--pages huge|small] [--only decode,prefill,elem,vocab]
 *
 * Decode: queries of one position walk 4096 cached positions of all KV heads, layer after layer through an
 * arena larger than the caches; items (KV head, chunk) are shared by the team as the forward pass does. Prefill:
 * a slice of 64 rows against one chunk in the second-level cache. Figures are medians (10th, 90th percentile). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "base/str.h"
#include "base/team.h"
#include "kern/kern.h"

#include "machine.h"

#define ARENA_BYTES ((size_t)384 << 20)
#define HUGE_PAGE ((size_t)2 << 20)
#define REPETITIONS 60u
#define PAGE 64u
#define PAGES (KERN_CHUNK / PAGE)
#define POSITIONS 4096u
#define QUERIES_MAX 512u
#define THREADS_MAX 16u

static struct {
    const struct kern *kern;
    enum kern_cache cache;
    struct team *team;
    u8 *arena;
    size_t at; /* walks through the arena */
    void *scratch[THREADS_MAX];
} bench;

static int f64_compare(const void *a, const void *b) {
    f64 x = *(const f64 *)a, y = *(const f64 *)b;
    return x < y ? -1 : x > y;
}

static f64 quantile(f64 *t, u32 n, u32 percent) {
    qsort(t, n, sizeof *t, f64_compare);
    return t[n * percent / 100];
}

/* One thread: its own time, which other processes do not disturb much. Several: wall time. */
static u64 now_ns(void) {
    struct timespec t;
    clock_gettime(team_threads(bench.team) == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (u64)t.tv_sec * 1000000000u + (u64)t.tv_nsec;
}

static u8 *arena_take(size_t n) {
    if (bench.at + n > ARENA_BYTES)
        bench.at = 0;
    u8 *p = bench.arena + bench.at;
    bench.at += n;
    return p;
}

/* --- the yardsticks --- */
struct read_job { const u8 *p; size_t n; u32 parts; };
static void read_part(void *arg, u32 chunk, u32 thread) {
    const struct read_job *j = arg;
    size_t part = j->n / j->parts;
    volatile f64 used = machine_read(bench.kern->name, j->p + chunk * part, part);
    (void)used, (void)thread;
}
static f64 read_seconds(size_t n) {
    struct read_job j = {arena_take(n), n, 32};
    u64 t = now_ns();
    team_run(bench.team, read_part, &j, j.parts);
    return 1e-9 * (f64)(now_ns() - t);
}
static void fma_part(void *arg, u32 chunk, u32 thread) {
    volatile f64 used = machine_fma(bench.kern->name, *(u32 *)arg);
    (void)used, (void)chunk, (void)thread;
}
static f64 fma_gflops(u32 n_parts) {
    u32 n = 20000;
    u64 t = now_ns();
    team_run(bench.team, fma_part, &n, n_parts);
    return machine_fma_ops(bench.kern->name, n) * n_parts / (f64)(now_ns() - t);
}

/* --- attention --- */
struct attend_job {
    u32 head_dim, n_queries, n_heads, n_chunks;
    enum kern_cache cache;
    const u8 *cache_at; /* [page][head][K | V] */
    const f32 *q[QUERIES_MAX];
    u32 pos[QUERIES_MAX];
    f32 *o[THREADS_MAX], m[THREADS_MAX][QUERIES_MAX], l[THREADS_MAX][QUERIES_MAX];
};
/* Item (head, chunk): chunks of one head follow each other. */
static void attend_pages(const struct attend_job *j, u32 item, const void *k[PAGES], const void *v[PAGES]) {
    size_t slice = PAGE / 16 * kern_cache_block_bytes(j->cache, j->head_dim);
    u32 head = item / j->n_chunks, chunk = item % j->n_chunks;
    for (u32 i = 0; i < PAGES; i++) {
        const u8 *at = j->cache_at + ((size_t)(chunk * PAGES + i) * j->n_heads + head) * 2 * slice;
        k[i] = at;
        v[i] = at + slice;
    }
}
static void attend_item(void *arg, u32 item, u32 thread) {
    struct attend_job *j = arg;
    const void *k[PAGES], *v[PAGES], *next_k[PAGES], *next_v[PAGES];
    u32 after = item + 1;
    attend_pages(j, item, k, v);
    struct kern_attend a = {.cache = j->cache, .head_dim = j->head_dim, .n_queries = j->n_queries, .q = j->q, .pos = j->pos,
                            .chunk = item % j->n_chunks, .k = k, .v = v, .scale = 0.1f, .m = j->m[thread], .l = j->l[thread],
                            .o = j->o[thread]}, next = a;
    if (after < j->n_heads * j->n_chunks) {
        attend_pages(j, after, next_k, next_v);
        next.k = next_k;
        next.v = next_v;
        next.chunk = after % j->n_chunks;
        a.next = &next;
    }
    bench.kern->attend(&a, bench.scratch[thread]);
}
static struct attend_job *attend_job_new(u32 head_dim, u32 n_queries, u32 n_heads, u32 n_chunks, u32 pos) {
    struct attend_job *j = xcalloc(1, sizeof *j);
    *j = (struct attend_job){.head_dim = head_dim, .n_queries = n_queries, .n_heads = n_heads, .n_chunks = n_chunks,
                             .cache = bench.cache};
    f32 *q = xmalloc(sizeof(f32) * n_queries * head_dim);
    for (u32 i = 0; i < n_queries * head_dim; i++)
        q[i] = (f32)(i % 17) * 0.1f - 0.8f;
    for (u32 i = 0; i < n_queries; i++) {
        j->q[i] = q + (size_t)i * head_dim;
        j->pos[i] = pos;
    }
    for (u32 t = 0; t < team_threads(bench.team); t++)
        j->o[t] = xmalloc(sizeof(f32) * n_queries * head_dim);
    return j;
}
static void attend_job_free(struct attend_job *j) {
    free((void *)j->q[0]);
    for (u32 t = 0; t < team_threads(bench.team); t++)
        free(j->o[t]);
    free(j);
}

static void bench_decode(void) {
    static const u32 head_dims[] = {64, 80, 96, 128, 256}, queries[] = {1, 3, 4, 8};
    printf("attention decode, %u positions, GB/s of K and V (share of a plain read)\n", POSITIONS);
    for (u32 h = 0; h < ARRAY_LEN(head_dims); h++) {
        for (u32 c = 0; c < ARRAY_LEN(queries); c++) {
            u32 n_chunks = POSITIONS / KERN_CHUNK, n_heads = head_dims[h] > 128 ? 2 : 4;
            struct attend_job *j = attend_job_new(head_dims[h], queries[c], n_heads, n_chunks, POSITIONS - 1);
            size_t bytes = (size_t)POSITIONS / 16 * n_heads * 2 * kern_cache_block_bytes(bench.cache, head_dims[h]);
            f64 t[REPETITIONS], r[REPETITIONS], share[REPETITIONS];
            for (u32 i = 0; i < REPETITIONS; i++) {
                j->cache_at = arena_take(bytes);
                u64 start = now_ns();
                team_run(bench.team, attend_item, j, n_heads * n_chunks);
                t[i] = 1e-9 * (f64)(now_ns() - start);
                r[i] = read_seconds(bytes);
                share[i] = r[i] / t[i];
            }
            f64 mid = 1e-9 * (f64)bytes / quantile(t, REPETITIONS, 50), high = 1e-9 * (f64)bytes / quantile(t, REPETITIONS, 10);
            f64 low = 1e-9 * (f64)bytes / quantile(t, REPETITIONS, 90);
            printf("  head %3u, %u queries: %5.1f (%5.1f %5.1f) read %5.1f (%5.1f)  share %3.0f %%\n", head_dims[h], queries[c], mid,
                   low, high, 1e-9 * (f64)bytes / quantile(r, REPETITIONS, 50),
                   1e-9 * (f64)bytes / quantile(r, REPETITIONS, 10), 100 * quantile(share, REPETITIONS, 50));
            attend_job_free(j);
        }
    }
}

static void bench_prefill(void) {
    static const u32 head_dims[] = {64, 80, 96, 128, 256};
    printf("attention prefill, 192 queries per KV head, GFLOPS (share of fma on registers)\n");
    for (u32 h = 0; h < ARRAY_LEN(head_dims); h++) {
        u32 n_heads = 2 * team_threads(bench.team);
        struct attend_job *j = attend_job_new(head_dims[h], 192, n_heads, 1, KERN_CHUNK - 1);
        j->cache_at = bench.arena;
        f64 t[REPETITIONS], share[REPETITIONS], flops = 4.0 * 192 * KERN_CHUNK * head_dims[h] * n_heads;
        for (u32 i = 0; i < REPETITIONS; i++) {
            u64 start = now_ns();
            team_run(bench.team, attend_item, j, n_heads);
            t[i] = 1e-9 * (f64)(now_ns() - start);
            share[i] = 1e-9 * flops / t[i] / fma_gflops(2 * team_threads(bench.team));
        }
        printf("  head %3u: %5.0f GFLOPS, share %3.0f %%\n", head_dims[h], 1e-9 * flops / quantile(t, REPETITIONS, 50),
               100 * quantile(share, REPETITIONS, 50));
        attend_job_free(j);
    }
}

/* --- one thread: elementwise kernels on a row in the first-level cache, logits in memory --- */
#define ROW 2048u
static void bench_elem(void) {
    static f32 x[ROW], y[ROW], w[ROW];
    const struct kern *k = bench.kern;
    printf("elementwise, one thread, %u values, ns per call\n", ROW);
    for (u32 op = 0; op < 8; op++) {
        static const char *const names[] = {"rmsnorm", "layernorm", "add_scaled", "silu_mul", "gelu_mul", "softcap", "rope", "rope neox"};
        f64 t[REPETITIONS];
        for (u32 i = 0; i < REPETITIONS; i++) {
            for (u32 n = 0; n < ROW; n++)
                x[n] = (f32)(n % 31) * 0.2f - 3, y[n] = x[n], w[n] = 0.9f;
            u64 start = now_ns();
            for (u32 n = 0; n < 16; n++) {
                switch (op) {
                case 0: k->rmsnorm(x, w, 1e-5f, ROW, y); break;
                case 1: k->layernorm(x, w, w, 1e-5f, ROW, y); break;
                case 2: k->add_scaled(y, x, 0.5f, ROW); break;
                case 3: k->silu_mul(y, x, ROW); break;
                case 4: k->gelu_mul(y, x, ROW); break;
                case 5: k->softcap(y, ROW, 30); break;
                case 6: k->rope(y, ROW / 64, 64, 64, false, w); break;
                default: k->rope(y, ROW / 64, 64, 64, true, w); break;
                }
            }
            t[i] = (f64)(now_ns() - start) / 16;
        }
        printf("  %-10s %7.0f\n", names[op], quantile(t, REPETITIONS, 50));
    }
}

static void bench_vocab(void) {
    static const u32 sizes[] = {49152, 128256, 262144};
    printf("rows of logits, one thread, GB/s of one reading\n");
    for (u32 s = 0; s < ARRAY_LEN(sizes); s++) {
        u32 n = sizes[s];
        f64 lse_t[REPETITIONS], above_t[REPETITIONS], read_t[REPETITIONS];
        u32 *found = xmalloc(sizeof(u32) * n);
        f32 *x = xmalloc(sizeof(f32) * n);
        for (u32 i = 0; i < n; i++)
            x[i] = (f32)(i * 2654435761u >> 8) * 0x1p-24f * 20;
        for (u32 i = 0; i < REPETITIONS; i++) {
            f32 max;
            f64 lse;
            u64 a = now_ns();
            bench.kern->logsumexp(x, n, &max, &lse);
            u64 b = now_ns();
            bench.kern->above(x, n, max - 0.05f, found, n);
            u64 c = now_ns();
            volatile f64 used = machine_read(bench.kern->name, (const u8 *)x, sizeof(f32) * n);
            (void)used;
            lse_t[i] = (f64)(b - a), above_t[i] = (f64)(c - b), read_t[i] = (f64)(now_ns() - c);
        }
        f64 bytes = 4.0 * n;
        printf("  %6u: logsumexp %5.1f us %5.1f, above %5.1f us %5.1f, plain read %5.1f us %5.1f\n", n,
               quantile(lse_t, REPETITIONS, 50) / 1e3, bytes / quantile(lse_t, REPETITIONS, 50),
               quantile(above_t, REPETITIONS, 50) / 1e3, bytes / quantile(above_t, REPETITIONS, 50),
               quantile(read_t, REPETITIONS, 50) / 1e3, bytes / quantile(read_t, REPETITIONS, 50));
        free(found);
        free(x);
    }
}

int main(int argc, char **argv) {
    const char *name = NULL, *cache = NULL, *only = "decode,prefill,elem,vocab";
    u64 n_threads = 2;
    bool huge = true;
    struct err err;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--kernels") == 0)
            name = argv[i + 1];
        else if (strcmp(argv[i], "--only") == 0)
            only = argv[i + 1];
        else if (strcmp(argv[i], "--cache-type") == 0)
            cache = argv[i + 1];
        else if (strcmp(argv[i], "--pages") == 0)
            huge = strcmp(argv[i + 1], "small") != 0;
        else if (strcmp(argv[i], "--threads") != 0 || !str_to_u64(str_of(argv[i + 1]), &n_threads))
            die("usage: attend_bench [--kernels NAME] [--cache-type TYPE] [--threads N] [--pages huge|small] [--only decode,prefill,elem,vocab]");
    }
    if (n_threads < 1 || n_threads > THREADS_MAX)
        die("--threads must be 1 to %u", THREADS_MAX);
    if (kern_open(name, &bench.kern, &err) != OK || kern_cache_by_name(cache, &bench.cache, &err) != OK)
        die("%s", err.text);
    bench.team = team_new((u32)n_threads);
    u8 *map = mmap(NULL, ARENA_BYTES + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(map != MAP_FAILED);
    bench.arena = (u8 *)ALIGN_UP((uintptr_t)map, HUGE_PAGE);
    if (huge)
        madvise(bench.arena, ARENA_BYTES, MADV_HUGEPAGE);
    for (size_t i = 0; i < ARENA_BYTES / 2; i++)
        ((u16 *)(void *)bench.arena)[i] = (u16)(0x3000 + i * 7919 % 0x700); /* halves from 0.125 to about 0.5 */
    for (u32 t = 0; t < n_threads; t++) {
        bench.scratch[t] = aligned_alloc(64, ALIGN_UP(kern_attend_scratch_bytes(), 64));
        check(bench.scratch[t]);
    }
    printf("kernels %s, %u threads; fma on registers %.0f GFLOPS\n", bench.kern->name, (u32)n_threads, fma_gflops((u32)n_threads * 4));
    if (strstr(only, "decode"))
        bench_decode();
    if (strstr(only, "prefill"))
        bench_prefill();
    if (strstr(only, "elem"))
        bench_elem();
    if (strstr(only, "vocab"))
        bench_vocab();
    for (u32 t = 0; t < n_threads; t++)
        free(bench.scratch[t]);
    munmap(map, ARENA_BYTES + HUGE_PAGE);
    team_free(bench.team);
    return 0;
}
