/* Goal: the logits of a position depend on the model and the tokens up to it, to the last bit, and on nothing
 * else. Method: hashes over the raw bits of every position's logits are compared between one pass on one
 * thread and: slices of 1, 7, 64 and all tokens; 1 and 2 threads; every tier of kernels; a place among 15
 * other sequences; a prefix found in the cache; a step that stops between layers. That the comparison sees
 * anything is shown by two planted faults, in kernels that only this test has. The hashes themselves are tied
 * to NUMERICS_VERSION: KV caches outlive a process, so bits must not change under one version. */
#include "golden.h"

static json_t *forward;

/* Each kind of activations, weights, windows, norms, and of rope; the whole matrix for the first N_WHOLE. */
#define N_WHOLE 3u
static const char *const models[] = {"llama-q-q4_1", "llama-q-q4_k", "gemma3-q4_0", "llama-q-q8_0",
                                     "llama-q-q6_k", "llama-q-f16",  "llama-gqa",   "phi3-longrope",
                                     "gemma2",       "cohere2",      "llama-bias"};

struct setting {
    const struct kern *kern;
    u32 n_threads, slice;
    bool f32_activations;
    enum kern_cache cache;
};

static void open_with(const char *path, const struct setting *s, struct eval_model *e) {
    struct eval_options o = {.kern = s->kern,
                             .n_threads = s->n_threads,
                             .cache = s->cache,
                             .slice = s->slice,
                             .f32_activations = s->f32_activations,
                             .num_ctx = 512};
    golden_open(path, &o, e);
}

/* --- ways to compute a sequence; each gives the hash of every position --- */
struct hashes {
    u64 h[512];
    u32 n_vocab;
};

static void keep_hash(void *ctx, u32 position, const f32 *logits) {
    struct hashes *out = ctx;
    out->h[position] = model_logits_hash(logits, out->n_vocab, 0);
}

static void alone(struct eval_model *e, const u32 *ids, u32 n, struct hashes *out) {
    struct err err;
    out->n_vocab = model_info(e->model)->n_vocab;
    assert_int_equal(eval_model_run(e, ids, n, false, keep_hash, out, &err), OK);
}

/* One step; the hashes of the spans' wanted rows that belong to span `ours` go to out. */
static void step(struct eval_model *e, const struct model_span *spans, u32 n_spans, u32 ours,
                 struct hashes *out) {
    u32 rows = 0, first = 0, wanted = 0;
    struct err err;
    for (u32 s = 0; s < n_spans; s++) {
        rows += spans[s].n;
        first += s < ours ? spans[s].n_logits : 0;
        wanted += spans[s].n_logits;
    }
    assert_int_equal(model_scratch_fit(e->scratch, e->model, rows, wanted, e->options.n_threads, &err), OK);
    model_forward(e->model, e->team, e->scratch, spans, n_spans, 0, 0);
    const struct model_span *own = &spans[ours];
    for (u32 i = 0; i < own->n_logits; i++) {
        const f32 *logits = model_logits(e->model, e->team, e->scratch, first + i, 1);
        out->h[own->pos0 + own->n - own->n_logits + i] = model_logits_hash(logits, out->n_vocab, 0);
    }
}

#define CROWD 16u
#define OURS 5u
/* Neighbours have other tokens and lengths, join and end at other steps, and take other slices. */
static void in_crowd(struct eval_model *e, const u32 *ids, u32 n, struct hashes *out) {
    struct kv_seq seqs[CROWD] = {0};
    u32 tokens[CROWD][256], length[CROWD];
    out->n_vocab = model_info(e->model)->n_vocab;
    for (u32 s = 0; s < CROWD; s++) {
        length[s] = s == OURS ? n : 20 + s * 13;
        for (u32 i = 0; i < length[s]; i++)
            tokens[s][i] = s == OURS ? ids[i] : (i * 37 + s * 101 + i * i) % out->n_vocab;
        kv_seq_open(&seqs[s], e->space, tokens[s], length[s], 0);
    }
    for (u32 turn = 0; seqs[OURS].n_tokens < n; turn++) {
        struct model_span spans[CROWD];
        u32 n_spans = 0, ours = 0;
        for (u32 s = 0; s < CROWD; s++) {
            u32 left = length[s] - seqs[s].n_tokens;
            u32 rows = MIN(left, s == OURS ? 1 + turn % 5 : 1 + (turn * 7 + s * 3) % 11);
            if (rows == 0 || (s != OURS && turn < s % 4))
                continue;
            assert_true(kv_seq_reserve(&seqs[s], seqs[s].n_tokens + rows));
            ours = s == OURS ? n_spans : ours;
            spans[n_spans++] = (struct model_span){.seq = &seqs[s],
                                                   .tokens = tokens[s] + seqs[s].n_tokens,
                                                   .pos0 = seqs[s].n_tokens,
                                                   .n = rows,
                                                   .n_logits = s == OURS ? rows : s % 2,
                                                   .num_ctx = 512};
        }
        step(e, spans, n_spans, ours, out);
        for (u32 i = 0; i < n_spans; i++)
            ((struct kv_seq *)(uintptr_t)spans[i].seq)->n_tokens += spans[i].n;
    }
    for (u32 s = 0; s < CROWD; s++)
        kv_seq_close(&seqs[s], tokens[s], false, 0);
}

/* Computes the first part, leaves it in the tree, and goes on from there as another sequence. */
static void from_cache(struct eval_model *e, const u32 *ids, u32 n, struct hashes *out) {
    u32 cuts[] = {n / 3, n};
    out->n_vocab = model_info(e->model)->n_vocab;
    for (u32 c = 0; c < ARRAY_LEN(cuts); c++) {
        struct kv_seq seq = {0};
        u32 covered = kv_seq_open(&seq, e->space, ids, cuts[c], c);
        assert_true(c == 0 ? covered == 0 : covered > 0);
        assert_true(kv_seq_reserve(&seq, cuts[c]));
        struct model_span span = {.seq = &seq,
                                  .tokens = ids + covered,
                                  .pos0 = covered,
                                  .n = cuts[c] - covered,
                                  .n_logits = cuts[c] - covered,
                                  .num_ctx = 512};
        step(e, &span, 1, 0, out);
        seq.n_tokens = cuts[c];
        kv_seq_close(&seq, ids, true, c);
    }
    kv_space_drop_cached(e->space);
}

static void layer_by_layer(struct eval_model *e, const u32 *ids, u32 n, struct hashes *out) {
    struct kv_seq seq = {0};
    struct err err;
    u32 n_layers = model_info(e->model)->n_layers;
    out->n_vocab = model_info(e->model)->n_vocab;
    kv_seq_open(&seq, e->space, ids, n, 0);
    assert_true(kv_seq_reserve(&seq, n));
    struct model_span span = {.seq = &seq, .tokens = ids, .n = n, .n_logits = n, .num_ctx = 512};
    assert_int_equal(model_scratch_fit(e->scratch, e->model, n, n, e->options.n_threads, &err), OK);
    for (u32 l = 0; l < n_layers; l++)
        model_forward(e->model, e->team, e->scratch, &span, 1, l, l + 1);
    for (u32 i = 0; i < n; i++)
        keep_hash(out, i, model_logits(e->model, e->team, e->scratch, i, 1));
    kv_seq_close(&seq, ids, false, 0);
}

typedef void way_fn(struct eval_model *e, const u32 *ids, u32 n, struct hashes *out);

static void hash_with(const char *path, const struct setting *s, way_fn *way, const u32 *ids, u32 n,
                      struct hashes *out) {
    struct eval_model e;
    open_with(path, s, &e);
    memset(out, 0, sizeof *out);
    way(&e, ids, n, out);
    eval_model_close(&e);
}

static bool same(const struct hashes *a, const struct hashes *b, u32 n) {
    return memcmp(a->h, b->h, n * sizeof *a->h) == 0;
}

/* --- the matrix --- */
static u32 list_tiers(const struct kern *tiers[3]) {
    const char *names[] = {"ref", "avx2", "avx512"};
    u32 n = 0;
    struct err err;
    for (u32 i = 0; i < ARRAY_LEN(names); i++) {
        if (kern_open(names[i], &tiers[n], &err) == OK)
            n++;
        else
            print_message("# not compared: %s\n", err.text);
    }
    return n;
}

static void expect(const char *model, const char *what, const char *path, const struct setting *s,
                   way_fn *way, const u32 *ids, u32 n, const struct hashes *want) {
    struct hashes got;
    hash_with(path, s, way, ids, n, &got);
    for (u32 i = 0; i < n; i++)
        if (got.h[i] != want->h[i])
            fail_msg("%s, %s, kernels %s, %u threads, slices of %u: other bits from position %u on", model,
                     what, s->kern->name, s->n_threads, s->slice, i);
}

static void check_matrix(const char *model, const char *path, const u32 *ids, u32 n, bool f32_activations,
                         bool whole, const struct kern **tiers, u32 n_tiers) {
    const u32 slices[] = {1, 7, 64, 512};
    struct setting base = {
        .kern = tiers[n_tiers - 1], .n_threads = 1, .slice = 512, .f32_activations = f32_activations};
    struct hashes want;
    hash_with(path, &base, alone, ids, n, &want);
    for (u32 t = 0; t < n_tiers; t++)
        for (u32 threads = whole ? 1 : 2; threads <= 2; threads++) {
            struct setting s = base;
            s.kern = tiers[t];
            s.n_threads = threads;
            for (u32 i = whole ? 0 : 1; i < (whole ? ARRAY_LEN(slices) : 2); i++) {
                s.slice = slices[i];
                expect(model, "alone", path, &s, alone, ids, n, &want);
            }
            expect(model, "among 15 others", path, &s, in_crowd, ids, n, &want);
            if (!whole)
                continue;
            expect(model, "from a cached prefix", path, &s, from_cache, ids, n, &want);
            expect(model, "layer by layer", path, &s, layer_by_layer, ids, n, &want);
        }
}

static void tiny_models(void **state) {
    (void)state;
    const struct kern *tiers[3];
    u32 n_tiers = list_tiers(tiers), n, *ids = golden_sequence(forward, "s200", &n);
    char path[4096];
    n = 100; /* more than a page of keys, and long enough for the windows */
    for (u32 m = 0; m < ARRAY_LEN(models); m++) {
        golden_model(forward, models[m], path);
        check_matrix(models[m], path, ids, n, false, m < N_WHOLE, tiers, n_tiers);
    }
    golden_model(forward, "llama-q-q4_k", path);
    check_matrix("llama-q-q4_k with F32 activations", path, ids, n, true, false, tiers, n_tiers);
    free(ids);
}

/* Chunks of attention beyond the first are split over threads when a sequence is alone: 300 to 500 tokens. */
static void check_long(const char *model, enum kern_cache cache, const struct kern *const *tiers, u32 n_tiers) {
    char path[4096];
    u32 ids[500];
    for (u32 i = 0; i < ARRAY_LEN(ids); i++)
        ids[i] = (i * 131 + i * i * 7) % 512;
    golden_model(forward, model, path);
    struct setting s = {.kern = tiers[n_tiers - 1], .n_threads = 1, .slice = 512, .cache = cache};
    struct hashes want;
    hash_with(path, &s, alone, ids, ARRAY_LEN(ids), &want);
    for (s.n_threads = 1, s.slice = 41; s.n_threads <= 3; s.n_threads++)
        expect(model, "alone", path, &s, alone, ids, ARRAY_LEN(ids), &want);
    s.n_threads = 2;
    s.slice = 1;
    expect(model, "alone", path, &s, alone, ids, ARRAY_LEN(ids), &want);
    s.slice = 64;
    for (u32 t = 0; t + 1 < n_tiers; t++) {
        s.kern = tiers[t];
        expect(model, "alone", path, &s, alone, ids, ARRAY_LEN(ids), &want);
    }
}

static void long_context(void **state) {
    (void)state;
    static const enum kern_cache caches[] = {KERN_CACHE_F16, KERN_CACHE_BF16, KERN_CACHE_Q8};
    const struct kern *tiers[3];
    u32 n_tiers = list_tiers(tiers);
    for (u32 c = 0; c < ARRAY_LEN(caches); c++) {
        check_long("llama-q-q4_1", caches[c], tiers, n_tiers);
        check_long("gemma3-q4_0", caches[c], tiers, n_tiers);
    }
}

/* The real model on the fastest kernels. */
static void real_model(void **state) {
    (void)state;
    const char *path = getenv("MINKA_TEST_SMOLLM2");
    const struct kern *tiers[3];
    u32 n_tiers = list_tiers(tiers), ids[100];
    for (u32 i = 0; i < ARRAY_LEN(ids); i++)
        ids[i] = (i * 997 + i * i * 31) % 49152;
    check_matrix("SmolLM2", path, ids, ARRAY_LEN(ids), false, true, &tiers[n_tiers - 1], 1);
}

/* --- planted faults --- */
/* Adds the products of the two halves of K separately as soon as several rows come together, as a kernel
 * does that is tiled otherwise for batches. F32 weights and activations. */
static void split_matmul(const struct kern_mat *w, u32 n0, u32 n1, const struct kern_acts *a, f32 *out,
                         size_t ldo, void *scratch, const u8 *next) {
    if (a->rows < 2 || a->kind != KERN_ACT_F32 || w->K % 32 != 0) {
        kern_ref.matmul(w, n0, n1, a, out, ldo, scratch, next);
        return;
    }
    f32 half[1024];
    check(w->N <= ARRAY_LEN(half));
    struct kern_mat front = *w, back = *w;
    front.K = back.K = w->K / 2;
    back.data += quant_row_bytes(w->type, w->K / 2);
    for (u32 r = 0; r < a->rows; r++) {
        struct kern_acts one = *a;
        one.rows = 1;
        one.K = w->K / 2;
        one.x = a->x + (size_t)r * w->K;
        kern_ref.matmul(&front, n0, n1, &one, out + r * ldo, ldo, scratch, next);
        one.x += w->K / 2;
        kern_ref.matmul(&back, n0, n1, &one, half, ldo, scratch, next);
        for (u32 i = n0; i < n1; i++)
            out[r * ldo + i] += half[i];
    }
}

static void fault_split_by_batch(void **state) {
    (void)state;
    struct kern faulty = kern_ref;
    struct hashes whole, sliced;
    char path[4096];
    u32 n, *ids = golden_sequence(forward, "s33", &n);
    golden_model(forward, "llama-q-f32", path);
    for (u32 broken = 0; broken < 2; broken++) {
        faulty.matmul = broken ? split_matmul : kern_ref.matmul;
        struct setting s = {.kern = &faulty, .n_threads = 1, .slice = 512, .f32_activations = true};
        hash_with(path, &s, alone, ids, n, &whole);
        s.slice = 1;
        hash_with(path, &s, alone, ids, n, &sliced);
        assert_true(same(&whole, &sliced, n) == !broken);
    }
    free(ids);
}

/* A cache that is rounded to half precision: rightly when a key is stored, or, as the fault, only when the
 * slice is done, so that the slice itself reads unrounded keys. Both in an F32 cache. */
static void round_values(f32 *x, u64 n) {
    for (u64 i = 0; i < n; i++)
        x[i] = f16_to_f32(f32_to_f16(x[i]));
}

static void rounding_store(enum kern_cache cache, u32 head_dim, u32 in_page, const f32 *k, const f32 *v,
                           void *k_slice, void *v_slice) {
    f32 rounded_k[256], rounded_v[256];
    memcpy(rounded_k, k, head_dim * sizeof *k);
    memcpy(rounded_v, v, head_dim * sizeof *v);
    round_values(rounded_k, head_dim);
    round_values(rounded_v, head_dim);
    kern_ref.kv_store(cache, head_dim, in_page, rounded_k, rounded_v, k_slice, v_slice);
}

static void sliced_then_rounded(struct eval_model *e, const u32 *ids, u32 n, struct hashes *out) {
    struct kv_seq seq = {0};
    const struct kv_layout *layout = &model_info(e->model)->kv;
    out->n_vocab = model_info(e->model)->n_vocab;
    kv_seq_open(&seq, e->space, ids, n, 0);
    assert_true(kv_seq_reserve(&seq, n));
    for (u32 pos = 0; pos < n; pos = seq.n_tokens) {
        u32 rows = MIN(e->options.slice, n - pos);
        struct model_span span = {
            .seq = &seq, .tokens = ids + pos, .pos0 = pos, .n = rows, .n_logits = rows, .num_ctx = 512};
        step(e, &span, 1, 0, out);
        seq.n_tokens = pos + rows;
        for (u32 g = 0; g < layout->n_groups; g++)
            for (u32 p = 0; p < seq.tables[g].n_pages; p++)
                round_values(seq.tables[g].pages[p], kv_page_bytes(&layout->groups[g]) / sizeof(f32));
    }
    kv_seq_close(&seq, ids, false, 0);
}

static void fault_unrounded_slice(void **state) {
    (void)state;
    struct kern kern = kern_ref;
    struct hashes whole, sliced;
    char path[4096];
    u32 n, *ids = golden_sequence(forward, "s33", &n);
    golden_model(forward, "llama-q-q4_1", path);
    for (u32 broken = 0; broken < 2; broken++) {
        kern.kv_store = broken ? kern_ref.kv_store : rounding_store;
        struct setting s = {.kern = &kern, .n_threads = 1, .slice = 512, .cache = KERN_CACHE_F32};
        hash_with(path, &s, sliced_then_rounded, ids, n, &whole);
        s.slice = 7;
        hash_with(path, &s, sliced_then_rounded, ids, n, &sliced);
        assert_true(same(&whole, &sliced, n) == !broken);
    }
    free(ids);
}

/* --- numerics version --- */
static void numerics_version(void **state) {
    (void)state;
    static const struct {
        u32 version;
        u64 hash;
    } known = {1, 0xb756ed892f875b01};
    u64 hash = 0;
    char path[4096];
    u32 n, *ids = golden_sequence(forward, "s200", &n);
    for (u32 m = 0; m < ARRAY_LEN(models); m++) {
        struct setting s = {.kern = NULL, .n_threads = 1, .slice = 512};
        struct hashes h;
        golden_model(forward, models[m], path);
        hash_with(path, &s, alone, ids, n, &h);
        hash = hash_bytes(h.h, n * sizeof *h.h, hash);
    }
    free(ids);
    if (known.version != NUMERICS_VERSION || known.hash != hash)
        fail_msg("logits have hash 0x%016llx at NUMERICS_VERSION %u; known is 0x%016llx for version %u. A "
                 "change of float order "
                 "must raise NUMERICS_VERSION; then put both into this test",
                 (unsigned long long)hash, NUMERICS_VERSION, (unsigned long long)known.hash, known.version);
}

static int start(void **state) {
    (void)state;
    forward = golden_load("forward.json");
    return 0;
}

static int finish(void **state) {
    (void)state;
    json_decref(forward);
    golden_cleanup();
    return 0;
}

int main(void) {
    struct CMUnitTest tests[] = {
        cmocka_unit_test(tiny_models),
        cmocka_unit_test(long_context),
        cmocka_unit_test(fault_split_by_batch),
        cmocka_unit_test(fault_unrounded_slice),
        cmocka_unit_test(numerics_version),
        cmocka_unit_test(real_model),
    };
    const char *path = getenv("MINKA_TEST_SMOLLM2");
    size_t n = ARRAY_LEN(tests);
    if (!path || !path[0]) {
        /* cmocka reports a skipped test as one that failed, so it is left out. */
        printf("# skipped: MINKA_TEST_SMOLLM2 does not name the model\n");
        n--;
    }
    return _cmocka_run_group_tests("determinism", tests, n, start, finish);
}
