/* A draft model's guesses: what the model itself would draw greedily, whatever was asked before; its memory.
 * The truth is the model's own forward pass over each sequence from its first token, in one piece. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mapping.h"
#include "engine/draft_model.h"
#include "model/sampler.h"

#define N_TOKENS 420u
#define N_ASKS 5u
#define MIB (1u << 20)

static struct {
    struct mapping map;
    struct gguf gguf;
    struct model *model;
    struct tokenizer *tokenizer;
    struct grammar_vocab *vocab;
    struct draft_tools tools;
    void *sampler_scratch[2], *masks[2];
    u32 n_vocab;
} f;

static const char *path;

static int start(void **state) {
    (void)state;
    struct err err;
    struct stat st;
    struct model_config c = {.cache = KERN_CACHE_F16};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) || mapping_open(fd, (u64)st.st_size, &f.map, &err) != OK ||
        gguf_parse(&f.gguf, f.map.data, (u64)st.st_size, &err) != OK ||
        kern_open(NULL, &c.kern, &err) != OK || model_open(&f.gguf, &c, &f.model, &err) != OK ||
        tokenizer_open(&f.gguf, &f.tokenizer, &err) != OK)
        return -1;
    close(fd);
    f.n_vocab = tokenizer_n_vocab(f.tokenizer);
    f.vocab = grammar_vocab_new(f.tokenizer);
    f.tools = (struct draft_tools){team_new(2), model_scratch_new(), c.kern, f.sampler_scratch, f.masks};
    for (u32 i = 0; i < 2; i++) {
        f.sampler_scratch[i] = aligned_alloc(64, ALIGN_UP(sampler_scratch_bytes(f.n_vocab), 64));
        f.masks[i] = xcalloc(DIV_CEIL(f.n_vocab, 32u), sizeof(u32));
    }
    return model_scratch_fit(f.tools.scratch, f.model, LIMIT_STEP_ROWS, LIMIT_RUNNING, 2, &err) == OK ? 0
                                                                                                      : -1;
}

static int finish(void **state) {
    (void)state;
    for (u32 i = 0; i < 2; i++) {
        free(f.sampler_scratch[i]);
        free(f.masks[i]);
    }
    model_scratch_free(f.tools.scratch);
    team_free(f.tools.team);
    grammar_vocab_free(f.vocab);
    tokenizer_close(f.tokenizer);
    model_close(f.model);
    gguf_release(&f.gguf);
    mapping_close(&f.map);
    return 0;
}

/* The likeliest token behind tokens[n]. */
static u32 truth(const u32 *tokens, u32 n) {
    struct kv_pool *pool = kv_pool_new(kv_memory_anonymous);
    kv_pool_limit(pool, 256 * MIB);
    struct kv_space *space = kv_space_new(pool, &model_info(f.model)->kv, 0);
    struct kv_seq seq = {0};
    kv_seq_open(&seq, space, tokens, n, 0);
    assert_true(kv_seq_reserve(&seq, n));
    struct model_span span = {&seq, tokens, 0, n, 1, 512};
    model_forward(f.model, f.tools.team, f.tools.scratch, &span, 1, 0, 0);
    const f32 *x = model_logits(f.model, f.tools.team, f.tools.scratch, 0, 1);
    u32 best = 0;
    for (u32 i = 1; i < f.n_vocab; i++)
        best = x[i] > x[best] ? i : best;
    kv_seq_close(&seq, tokens, false, 0);
    kv_space_free(space);
    kv_pool_free(pool);
    return best;
}

/* Guesses agree with the truth, one by one; fewer than wanted only before an end token. */
static void assert_right(const struct draft_ask *a) {
    u32 tokens[N_TOKENS + LIMIT_DRAFT];
    memcpy(tokens, a->tokens, a->n_tokens * sizeof(u32));
    for (u32 i = 0; i < a->n_wanted; i++) {
        u32 next = truth(tokens, a->n_tokens + i);
        if (i >= a->n_guesses) {
            assert_true(tokenizer_is_end(f.tokenizer, next));
            return;
        }
        assert_int_equal(a->guesses[i], next);
        tokens[a->n_tokens + i] = next;
    }
}

static void text(u32 *tokens, u32 n, u64 seed) {
    for (u32 i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        tokens[i] = 300 + (u32)(seed >> 33) % 200;
    }
}

static struct draft_ask ask_of(const u32 *tokens, u32 n, u32 n_wanted) {
    return (struct draft_ask){
        .tokens = tokens, .n_tokens = n, .n_wanted = n_wanted, .tokenizer = f.tokenizer};
}

static struct draft_cost guess(struct draft_model *d, struct draft_ask *asks, u32 n) {
    return draft_model_guess(d, &f.tools, asks, n);
}

/* Goal: whoever asks, in whatever company, with guesses of before drawn or not, gets what the model would
 * draw. Method: five sequences grow by 1 to 6 tokens, guesses of before or others, asked in changing company.
 */
static void test_guesses(void **state) {
    (void)state;
    static u32 tokens[N_ASKS][N_TOKENS];
    u32 n[N_ASKS] = {1, 40, 3, 90, 65};
    struct draft_model *d = draft_model_new(f.model, 64 * MIB, 512);
    struct draft_ask asks[N_ASKS];
    u64 n_right = 0;
    for (u32 s = 0; s < N_ASKS; s++)
        text(tokens[s], N_TOKENS, s < 2 ? 1 : s); /* two begin alike */
    for (u32 turn = 0; turn < 12; turn++) {
        u32 n_asks = 0, who[N_ASKS];
        for (u32 s = 0; s < N_ASKS; s++)
            if ((turn + s) % 4 != 3) {
                who[n_asks] = s;
                asks[n_asks++] = ask_of(tokens[s], n[s], 1 + (turn * 7 + s) % 5);
            }
        struct draft_cost cost = guess(d, asks, n_asks);
        assert_true(cost.n_passes >= 1 && cost.n_passes <= 5 && cost.n_rows >= n_asks);
        for (u32 i = 0; i < n_asks; i++) {
            assert_right(&asks[i]);
            n_right += asks[i].n_guesses;
            u32 s = who[i], n_drawn = (turn + i) % (asks[i].n_guesses + 1);
            memcpy(tokens[s] + n[s], asks[i].guesses, n_drawn * sizeof(u32));
            n[s] += n_drawn + 1; /* and one that was not guessed */
        }
    }
    assert_true(n_right > 100);
    draft_model_free(d);
}

/* Goal: a sequence that goes on costs one row for each pass; one that lost tokens in front is read anew, and
 * another that is new too, in pieces, without guesses until all is read. */
static void test_reading(void **state) {
    (void)state;
    u32 tokens[N_TOKENS], other[N_TOKENS];
    struct draft_model *d = draft_model_new(f.model, 64 * MIB, 512);
    text(tokens, N_TOKENS, 5);
    text(other, N_TOKENS, 6);
    struct draft_ask a = ask_of(tokens, LIMIT_DRAFT_READ, 2);
    struct draft_cost cost = guess(d, &a, 1);
    assert_int_equal(cost.n_passes, 2);
    assert_int_equal(cost.n_rows, LIMIT_DRAFT_READ + 1);
    assert_right(&a);
    a.n_tokens += 1;
    cost = guess(d, &a, 1);
    assert_int_equal(cost.n_rows, 2);
    assert_right(&a);
    struct draft_ask both[] = {ask_of(tokens + 9, LIMIT_DRAFT_READ - 8, 1), ask_of(other, 300, 1)};
    u32 n_calls = 0, n_rows = 0;
    do {
        cost = guess(d, both, 2);
        assert_true(cost.n_rows <= LIMIT_DRAFT_READ + 2);
        assert_right(&both[0]);
        n_rows += cost.n_rows;
        n_calls++;
    } while (both[1].n_guesses == 0 && n_calls < 10);
    assert_right(&both[1]);
    assert_int_equal(n_calls, 1 + DIV_CEIL(300 - 8, LIMIT_DRAFT_READ - 1));
    assert_int_equal(n_rows, LIMIT_DRAFT_READ - 8 + 300 + n_calls - 1);
    draft_model_free(d);
}

/* Goal: the cache stays within its bytes: what fits alone pushes out what nobody uses, what does not fit gets
 * no guess, and who is in the same call keeps its pages. */
static void test_memory(void **state) {
    (void)state;
    static u32 tokens[LIMIT_DRAFT_RUNS + 4][100];
    const struct kv_layout *l = &model_info(f.model)->kv;
    u64 bytes = kv_plan_extent_bytes(l, 1);
    u32 n_max = 1;
    while (kv_plan_extent_bytes(l, n_max + 1) <= bytes)
        n_max++;
    assert_int_equal(draft_model_bytes(l, 0), bytes);
    assert_int_equal(draft_model_bytes(l, UINT64_MAX), kv_plan_extent_bytes(l, LIMIT_DRAFT_TOKENS));
    assert_true(draft_model_bytes(l, 3 * bytes) <= 3 * bytes);
    struct draft_model *d = draft_model_new(f.model, bytes, 512);
    for (u32 i = 0; i < ARRAY_LEN(tokens); i++) {
        text(tokens[i], 100, i);
        struct draft_ask a = ask_of(tokens[i], 100, 2);
        guess(d, &a, 1);
        assert_right(&a);
        assert_in_range(draft_model_mapped_bytes(d), 1, bytes);
    }
    u32 *longest = xcalloc(n_max + 1, sizeof(u32));
    text(longest, n_max + 1, 99);
    struct draft_ask a = ask_of(longest, n_max, 1); /* with its guess one too many */
    assert_int_equal(guess(d, &a, 1).n_passes, 0);
    assert_int_equal(a.n_guesses, 0);
    free(longest);
    struct draft_ask all[ARRAY_LEN(tokens)];
    for (u32 i = 0; i < ARRAY_LEN(all); i++)
        all[i] = ask_of(tokens[i], 6, 3);
    guess(d, all, ARRAY_LEN(all));
    u32 n_guessed = 0;
    for (u32 i = 0; i < ARRAY_LEN(all); i++) {
        n_guessed += all[i].n_guesses > 0;
        if (all[i].n_guesses > 0)
            assert_right(&all[i]);
    }
    assert_in_range(n_guessed, 1, LIMIT_DRAFT_RUNS);
    assert_in_range(draft_model_mapped_bytes(d), 1, bytes);
    draft_model_free(d);
}

/* Goal: ids that the draft model does not have are no index into its tables, and no guess goes beyond the
 * length that it was trained for. */
static void test_refused(void **state) {
    (void)state;
    u32 tokens[N_TOKENS];
    struct draft_model *d = draft_model_new(f.model, 256 * MIB, 512);
    text(tokens, N_TOKENS, 3);
    tokens[7] = f.n_vocab;
    struct draft_ask asks[] = {ask_of(tokens, 10, 3), ask_of(tokens + 8, 10, 3)};
    guess(d, asks, 2);
    assert_int_equal(asks[0].n_guesses, 0);
    assert_right(&asks[1]);
    u32 n = model_info(f.model)->n_ctx_train, *many = xcalloc(n + 1, sizeof(u32));
    text(many, n + 1, 8);
    struct draft_ask a = ask_of(many, n, 1);
    assert_int_equal(guess(d, &a, 1).n_passes, 0);
    assert_int_equal(a.n_guesses, 0);
    free(many);
    draft_model_free(d);
}

/* Goal: guesses follow the grammar, up to its end. */
static void test_grammar(void **state) {
    (void)state;
    struct grammar_part part = {.kind = GRAMMAR_SCHEMA, .text = STR("{\"enum\": [\"on and on\", \"off\"]}")};
    struct grammar *g;
    struct grammar_run run;
    struct err err;
    struct buf said = {0};
    u32 tokens[20];
    text(tokens, 20, 4);
    assert_int_equal(grammar_compile(f.vocab, &part, &g, &err), OK);
    grammar_run_start(g, &run);
    struct draft_model *d = draft_model_new(f.model, 64 * MIB, 512);
    struct draft_ask a = ask_of(tokens, 20, LIMIT_DRAFT);
    a.grammar = &run;
    guess(d, &a, 1);
    for (u32 i = 0; i < a.n_guesses; i++) {
        assert_true(grammar_run_accept(&run, a.guesses[i]));
        buf_add_str(&said, tokenizer_bytes_of(f.tokenizer, a.guesses[i], false));
    }
    assert_true(grammar_run_over(&run));
    assert_true(str_is(buf_str(&said), "\"on and on\"") || str_is(buf_str(&said), "\"off\""));
    buf_release(&said);
    grammar_run_release(&run);
    grammar_free(g);
    draft_model_free(d);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guesses), cmocka_unit_test(test_reading), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_grammar),
    };
    check(argc == 2);
    path = argv[1];
    return cmocka_run_group_tests_name("engine_draft_model", tests, start, finish);
}
