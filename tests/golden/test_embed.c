/* Goal: embeddings agree with llama.cpp's, and their bits depend on the input alone. Method: tiny random
 * encoders and their pooled vectors and rows (data/embed.json), with F32 activations within 1e-3 (a missing
 * feature shows as 0.07 or more); the Q8_0 file also as served, as near as llama.cpp's own integer path
 * comes. Then the same inputs in batches, with several threads, kernels, and more rows than are computed at a
 * time. */
#include "golden.h"

#include <math.h>
#include <openssl/evp.h>

#include "gen/gen.h"
#include "tokenize/tokenize.h"

#define TOLERANCE 1e-3
#define ROWS_MAX 2048u
#define INPUTS_MAX 16u

static json_t *golden;

static f32 *base64_floats(const json_t *text, u32 n) {
    const char *s = json_string_value(text);
    f32 *out = xmalloc(strlen(s) + 4);
    assert_true(EVP_DecodeBlock((u8 *)out, (const u8 *)s, (int)strlen(s)) >= (int)(n * sizeof *out));
    return out;
}

static void open_encoder(const char *path, const struct kern *kern, u32 n_threads, bool f32_activations,
                         struct eval_model *e) {
    struct err err;
    struct eval_options o = {.kern = kern, .n_threads = n_threads, .f32_activations = f32_activations};
    golden_open(path, &o, e);
    assert_true(model_info(e->model)->encoder);
    if (model_scratch_fit(e->scratch, e->model, ROWS_MAX, INPUTS_MAX, e->options.n_threads, &err) != OK)
        fail_msg("%s", err.text);
}

static void encode_one(struct eval_model *e, const u32 *ids, u32 n) {
    model_encode(e->model, e->team, e->scratch, &(struct model_input){ids, n}, 1);
}

static void near(const char *model, const char *what, const f32 *got, const f32 *want, u32 n) {
    for (u32 i = 0; i < n; i++)
        if (!(fabs((f64)got[i] - (f64)want[i]) <= TOLERANCE))
            fail_msg("%s %s: value %u is %.7g, expected %.7g", model, what, i, (f64)got[i], (f64)want[i]);
}

static enum pooling pooling_of(const struct eval_model *e, const char *kind) {
    static const char *const kinds[] = {"none", "mean", "cls", "last", "rank"};
    for (u32 i = 0; i < ARRAY_LEN(kinds); i++)
        if (strcmp(kind, kinds[i]) == 0)
            return (enum pooling)i;
    return model_info(e->model)->pooling; /* "model" */
}

static void check_pool(const char *model, struct eval_model *e, const char *kind, const json_t *want) {
    enum pooling pooling = pooling_of(e, kind);
    u32 d = model_info(e->model)->n_embd, n_out = pooling == POOLING_RANK ? model_info(e->model)->n_out : d;
    if (pooling == POOLING_NONE) {
        static const char *const at[] = {"first_row_b64", "last_row_b64"};
        for (u32 i = 0; i < 2; i++) {
            u32 row = i ? (u32)json_integer_value(json_object_get(want, "rows")) - 1 : 0;
            f32 *rows = base64_floats(json_object_get(want, at[i]), d);
            near(model, at[i], model_encoded_rows(e->model, e->scratch, 0) + (size_t)row * d, rows, d);
            free(rows);
        }
        return;
    }
    f32 *out = xcalloc(d + n_out, sizeof *out);
    f32 *vector = base64_floats(json_object_get(want, "vec_b64"), n_out);
    model_pool(e->model, e->scratch, 0, pooling, out);
    near(model, kind, out, vector, n_out);
    free(vector);
    free(out);
}

static void each_model(void (*fn)(const char *model, const char *path, const json_t *entry)) {
    const char *model;
    json_t *entry;
    json_object_foreach(json_object_get(golden, "models"), model, entry) {
        char path[4096];
        golden_model(golden, model, path);
        fn(model, path, entry);
    }
}

static void one_model(const char *model, const char *path, const json_t *entry) {
    struct eval_model e;
    const char *name, *kind;
    json_t *sequence, *pools;
    open_encoder(path, NULL, 1, true, &e);
    json_object_foreach(json_object_get(entry, "sequences"), name, sequence) {
        u32 n, *ids = golden_ids(sequence, &n);
        encode_one(&e, ids, n);
        json_object_foreach(json_object_get(entry, "pool"), kind, pools)
            check_pool(model, &e, kind, json_object_get(pools, name));
        free(ids);
    }
    eval_model_close(&e);
}

static void vectors(void **state) {
    (void)state;
    each_model(one_model);
}

static f64 cosine(const f32 *a, const f32 *b, u32 n) {
    f64 ab = 0, aa = 0, bb = 0;
    for (u32 i = 0; i < n; i++) {
        ab += (f64)a[i] * (f64)b[i];
        aa += (f64)a[i] * (f64)a[i];
        bb += (f64)b[i] * (f64)b[i];
    }
    return ab / sqrt(aa * bb);
}

/* As served: activations of 8 bits. llama.cpp's own are at worst min_cos away. */
static void integer_activations(void **state) {
    (void)state;
    struct eval_model e;
    char path[4096];
    const char *name;
    json_t *entry = json_object_get(json_object_get(golden, "models"), "bert-q8_0"), *sequence;
    golden_model(golden, "bert-q8_0", path);
    f64 theirs = json_number_value(
        json_object_get(json_object_get(json_object_get(entry, "q8act"), "mean"), "min_cos"));
    open_encoder(path, NULL, 2, false, &e);
    u32 d = model_info(e.model)->n_embd;
    json_object_foreach(json_object_get(entry, "sequences"), name, sequence) {
        u32 n, *ids = golden_ids(sequence, &n);
        f32 out[1024], *want = base64_floats(
                           json_object_get(
                               json_object_get(json_object_get(json_object_get(entry, "pool"), "mean"), name),
                               "vec_b64"),
                           d);
        encode_one(&e, ids, n);
        model_pool(e.model, e.scratch, 0, POOLING_MEAN, out);
        if (1 - cosine(out, want, d) > 2 * (1 - theirs))
            fail_msg("%s: cosine %.8f, llama.cpp reaches %.8f", name, cosine(out, want, d), theirs);
        free(want);
        free(ids);
    }
    eval_model_close(&e);
}

/* Rows of the sequences one by one, hashed. */
static u32 alone(struct eval_model *e, const json_t *sequences, u64 *hashes, u32 **ids, u32 *lengths) {
    const char *name;
    json_t *sequence;
    u32 count = 0;
    json_object_foreach((json_t *)(uintptr_t)sequences, name, sequence) {
        ids[count] = golden_ids(sequence, &lengths[count]);
        encode_one(e, ids[count], lengths[count]);
        hashes[count] = hash_bytes(model_encoded_rows(e->model, e->scratch, 0),
                                   (size_t)lengths[count] * model_info(e->model)->n_embd * sizeof(f32), 0);
        count++;
    }
    return count;
}

/* Sequences in one batch, several times over and in turned order: more rows than MODEL_ENCODE_ROWS. */
static void batch_equals(const char *model, struct eval_model *e, const u64 *hashes, u32 *const *ids,
                         const u32 *lengths, u32 count) {
    struct model_input inputs[INPUTS_MAX];
    u32 n_rows = 0;
    for (u32 i = 0; i < INPUTS_MAX; i++) {
        u32 from = (i * 7 + i / count) % count;
        inputs[i] = (struct model_input){ids[from], lengths[from]};
        n_rows += lengths[from];
    }
    assert_true(n_rows > MODEL_ENCODE_ROWS && n_rows <= ROWS_MAX);
    model_encode(e->model, e->team, e->scratch, inputs, INPUTS_MAX);
    for (u32 i = 0; i < INPUTS_MAX; i++) {
        u32 from = (i * 7 + i / count) % count;
        u64 hash = hash_bytes(model_encoded_rows(e->model, e->scratch, i),
                              (size_t)inputs[i].n * model_info(e->model)->n_embd * sizeof(f32), 0);
        if (hash != hashes[from])
            fail_msg("%s: input %u of a batch has other bits than alone (%s, %u threads)", model, i,
                     e->options.kern->name, e->options.n_threads);
    }
}

static void one_determinism(const char *model, const char *path, const json_t *entry) {
    static const char *const tiers[] = {"ref", "avx2", "avxvnni", "avx512"};
    u64 first[8] = {0};
    for (u32 t = 0; t < ARRAY_LEN(tiers); t++) {
        const struct kern *kern;
        struct err err;
        if (kern_open(tiers[t], &kern, &err) != OK)
            continue;
        for (u32 threads = 1; threads <= 2; threads++) {
            struct eval_model e;
            u64 hashes[8];
            u32 *ids[8], lengths[8];
            open_encoder(path, kern, threads, false, &e);
            u32 count = alone(&e, json_object_get(entry, "sequences"), hashes, ids, lengths);
            if (!first[0])
                memcpy(first, hashes, sizeof *first * count);
            if (memcmp(first, hashes, sizeof *first * count) != 0)
                fail_msg("%s: %s with %u threads gives other bits", model, tiers[t], threads);
            batch_equals(model, &e, hashes, ids, lengths, count);
            for (u32 i = 0; i < count; i++)
                free(ids[i]);
            eval_model_close(&e);
        }
    }
}

static void determinism(void **state) {
    (void)state;
    each_model(one_determinism);
}

/* The memory of a long input grows with its length, not with the square. */
static void memory(void **state) {
    (void)state;
    struct eval_model e;
    char path[4096];
    golden_model(golden, "nomic-bert", path);
    open_encoder(path, NULL, 1, false, &e);
    u64 one = model_scratch_bytes(e.model, 8192, 1, 1), four = model_scratch_bytes(e.model, 4 * 8192, 1, 1);
    assert_true(four < 4 * one);
    eval_model_close(&e);
}

/* The real all-MiniLM-L6-v2: its sentences come out as llama.cpp's, and as the exact ones (f64, and erf where
 * both programs take the tanh form of GELU, which alone makes 6e-4). */
static void minilm(void **state) {
    (void)state;
    struct eval_model e;
    struct tokenizer *t;
    struct tokenize_scratch *scratch = tokenize_scratch_new();
    struct err err;
    json_t *real = golden_load("real_minilm.json"), *c;
    size_t i;
    f64 worst = 0;
    open_encoder(getenv("MINKA_TEST_MINILM"), NULL, 2, false, &e);
    assert_int_equal(tokenizer_open(&e.gguf, &t, &err), OK);
    json_array_foreach(json_object_get(real, "cases"), i, c) {
        u32 n = 0, *ids = golden_ids(json_object_get(c, "ids"), &n);
        struct token_list list = {0};
        json_t *text = json_object_get(c, "text");
        struct str s = {json_string_value(text), json_string_length(text)};
        tokenize(t, scratch, s, (struct tokenize_options){.add_special = true}, &list);
        assert_int_equal(list.n, n);
        assert_memory_equal(list.ids, ids, n * sizeof *ids);
        f32 got[384], *exact = base64_floats(json_object_get(c, "exact"), 384);
        f32 *theirs = base64_floats(json_object_get(c, "llama_cpp"), 384);
        encode_one(&e, ids, n);
        model_pool(e.model, e.scratch, 0, model_info(e.model)->pooling, got);
        assert_true(gen_vector_normalize(got, 384));
        for (u32 k = 0; k < 384; k++) {
            worst = fmax(worst, fabs((f64)got[k] - (f64)theirs[k]));
            if (fabs((f64)got[k] - (f64)theirs[k]) > 5e-4 || fabs((f64)got[k] - (f64)exact[k]) > 1e-3)
                fail_msg("case %zu: value %u is %.7g, llama.cpp's %.7g, exact %.7g", i, k, (f64)got[k],
                         (f64)theirs[k], (f64)exact[k]);
        }
        assert_true(cosine(got, exact, 384) > 0.99999);
        token_list_release(&list);
        free(theirs);
        free(exact);
        free(ids);
    }
    print_message("# largest difference from llama.cpp: %.2g\n", worst);
    tokenizer_close(t);
    tokenize_scratch_free(scratch);
    json_decref(real);
    eval_model_close(&e);
}

static int finish(void **state) {
    (void)state;
    golden_cleanup();
    json_decref(golden);
    return 0;
}

int main(void) {
    golden = golden_load("embed.json");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors),     cmocka_unit_test(integer_activations),
        cmocka_unit_test(determinism), cmocka_unit_test(memory),
        cmocka_unit_test(minilm), /* last: left out without the model */
    };
    const char *path = getenv("MINKA_TEST_MINILM");
    if (path && path[0])
        return cmocka_run_group_tests(tests, NULL, finish);
    print_message("# skipped: MINKA_TEST_MINILM does not name the model\n");
    return _cmocka_run_group_tests("embed", tests, ARRAY_LEN(tests) - 1, NULL, finish);
}
