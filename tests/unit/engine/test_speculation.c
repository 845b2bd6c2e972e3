/* Goal: an answer is the same whether tokens are guessed ahead or not, and an answer that goes on from any of
 * its tokens in a new request (as after an engine crash) ends as it would have. Method: a real engine in a
 * child process, a tiny model, and requests drawn from a seed: sampling, penalties, stop strings, lengths,
 * contexts that shift, guesses from the text and of draft models. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/limit.h"
#include "engine/engine.h"
#include "wire/wire.h"

#define N_RUNS 60u
#define TOKENS_MAX 400u

/* The target; as its own draft, whose greedy guesses are what the target draws; a draft of other weights. */
enum { TARGET = 1, SELF, OTHER };
static const char *model_paths[4];

struct engine_process {
    pid_t pid;
    struct wire_conn *conn;
    u64 last_id;
    u64 n_steps;
};

struct answer {
    u32 ids[TOKENS_MAX];
    size_t text_at[TOKENS_MAX + 1]; /* bytes of text before the event of each id */
    u32 n_ids, n_output;
    struct buf text;
    u64 hash;
    enum gen_done_reason reason;
};

static bool announce(struct engine_process *en, u32 model_id) {
    struct wire_message m = {.type = WIRE_MODEL, .model = {.model_id = model_id, .name = STR("tiny")}};
    struct stat st;
    int fd = open(model_paths[model_id], O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st))
        return false;
    m.model.file_bytes = (u64)st.st_size;
    wire_send(en->conn, &m, fd);
    close(fd);
    return true;
}

static int start(void **state) {
    static struct engine_process en;
    struct settings settings = {
        .num_ctx = 512, .max_queue = 8, .n_threads = 2, .speculation = SPECULATION_ALWAYS};
    int pair[2];
    settings.memory_bytes = 256u << 20;
    settings.max_wait_ns = 1000000000;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
        return -1;
    en.pid = fork();
    if (en.pid == 0) {
        close(pair[0]);
        _exit(engine_run(pair[1], &settings));
    }
    close(pair[1]);
    en.conn = wire_conn_new(pair[0]);
    *state = &en;
    return announce(&en, TARGET) && announce(&en, SELF) && announce(&en, OTHER) ? 0 : -1;
}

static int stop(void **state) {
    struct engine_process *en = *state;
    int status;
    wire_conn_free(en->conn);
    return waitpid(en->pid, &status, 0) == en->pid && WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

/* False at the end of the answer. */
static bool take(struct answer *a, const struct gen_event *e) {
    if (e->kind == GEN_STARTED)
        return true;
    if (e->kind != GEN_TEXT) {
        assert_int_equal(e->kind, GEN_DONE);
        a->n_output = e->counts.n_output;
        a->hash = e->logits_hash;
        a->reason = e->reason;
        return false;
    }
    assert_true(e->n_ids <= 1); /* one event for each token */
    for (u32 i = 0; i < e->n_ids; i++) {
        assert_true(a->n_ids < TOKENS_MAX);
        a->ids[a->n_ids++] = e->ids[i];
    }
    buf_add_str(&a->text, e->text);
    a->text_at[a->n_ids] = a->text.n;
    return true;
}

static void ask(struct engine_process *en, struct gen_request r, struct answer *a) {
    struct err err;
    struct arena arena;
    arena_init(&arena, 0);
    *a = (struct answer){0};
    r.id = ++en->last_id;
    wire_send(en->conn, &(struct wire_message){.type = WIRE_GENERATE, .stream_id = r.id, .generate = {r, -1}},
              -1);
    for (bool more = true; more;) {
        struct pollfd p = {.fd = wire_conn_fd(en->conn), .events = POLLIN};
        assert_int_equal(wire_flush(en->conn, &err), OK);
        assert_int_equal(poll(&p, 1, 60000), 1);
        assert_int_equal(wire_read(en->conn, &err), OK);
        for (bool got = true; got;) {
            struct wire_message m;
            int fd;
            assert_int_equal(wire_next(en->conn, &arena, &m, &fd, &got, &err), OK);
            if (got && m.type == WIRE_STATE)
                en->n_steps = m.state.n_steps_total;
            else if (got)
                more = take(a, &m.event) && more;
        }
    }
    arena_release(&arena);
}

/* Steps so far, as the engine says when it has nothing to do. */
static u64 steps(struct engine_process *en) {
    struct err err;
    struct arena arena;
    struct pollfd p = {.fd = wire_conn_fd(en->conn), .events = POLLIN};
    arena_init(&arena, 0);
    while (poll(&p, 1, 300) == 1) {
        struct wire_message m;
        int fd;
        bool got = true;
        assert_int_equal(wire_read(en->conn, &err), OK);
        while (got) {
            assert_int_equal(wire_next(en->conn, &arena, &m, &fd, &got, &err), OK);
            if (got && m.type == WIRE_STATE)
                en->n_steps = m.state.n_steps_total;
        }
    }
    arena_release(&arena);
    return en->n_steps;
}

static u32 below(u64 *random, u32 n) {
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return (u32)(*random >> 33) % n;
}

static struct gen_request draw(u64 *random) {
    static const f32 temperatures[] = {0, 0.02f, 0.3f, 1};
    struct gen_request r;
    gen_request_init(&r);
    r.model_id = 1;
    r.form = GEN_FORM_RAW;
    r.prompt = STR("the wheel and the stone and the wheel and the stone and the wheel and");
    r.num_ctx = 48 + below(random, 200);
    r.num_predict = 1 + below(random, 160);
    r.shift = below(random, 2);
    r.truncate = true;
    r.want_hash = true;
    r.sampling.seed = below(random, 1000);
    r.sampling.temperature = temperatures[below(random, 4)];
    r.sampling.repeat_last_n = (i32)below(random, 64);
    r.sampling.repeat_penalty = below(random, 3) ? 1.0f : 1.05f;
    r.sampling.frequency_penalty = below(random, 3) ? 0.0f : -0.1f; /* more of the same */
    return r;
}

static void assert_same(const struct answer *a, const struct answer *b, u32 from) {
    assert_int_equal(a->n_output, b->n_output);
    assert_int_equal(a->reason, b->reason);
    assert_int_equal(a->n_ids - from, b->n_ids);
    assert_memory_equal(a->ids + from, b->ids, b->n_ids * sizeof(u32));
    assert_true(str_eq(str_slice(buf_str(&a->text), a->text_at[from], SIZE_MAX), buf_str(&b->text)));
}

static void answer_release(struct answer *a) { buf_release(&a->text); }

/* One request with guesses, without, and resumed somewhere. Returns how many tokens were drawn in all. */
static u32 compare(struct engine_process *en, struct gen_request r, u64 *random, struct answer *plain) {
    static struct answer guessed, resumed;
    r.draft_max = 0;
    ask(en, r, plain);
    r.draft_max = 1 + below(random, LIMIT_DRAFT);
    r.draft_id = below(random, OTHER + 1);
    ask(en, r, &guessed);
    assert_same(plain, &guessed, 0);
    assert_int_equal(plain->hash, guessed.hash);
    answer_release(&guessed);
    u32 n = plain->n_ids > 1 ? 1 + below(random, plain->n_ids - 1) : 0;
    if (n == 0)
        return 2 * plain->n_output;
    r.resume = plain->ids;
    r.n_resume = n;
    ask(en, r, &resumed);
    assert_same(plain, &resumed, n);
    answer_release(&resumed);
    return 3 * plain->n_output - n;
}

static void test_same_answers(void **state) {
    struct engine_process *en = *state;
    static struct answer plain;
    u64 random = 3, n_tokens = 0;
    u32 n_ended[2] = {0};
    for (u32 run = 0; run < N_RUNS; run++) {
        struct gen_request r = draw(&random);
        n_tokens += compare(en, r, &random, &plain);
        /* The same, but ended by what it says in its middle. */
        struct buf said = plain.text;
        struct str middle = str_slice(buf_str(&said), said.n / 2, said.n / 2 + 2);
        n_ended[plain.reason == GEN_STOP]++;
        if (middle.n == 2) {
            r.stop = &middle;
            r.n_stop = 1;
            n_tokens += compare(en, r, &random, &plain);
            n_ended[plain.reason == GEN_STOP]++;
            answer_release(&plain);
        }
        buf_release(&said);
    }
    print_message("# %llu tokens in %llu steps\n", (unsigned long long)n_tokens,
                  (unsigned long long)en->n_steps);
    assert_true(n_tokens > 3000 && n_ended[0] > 10 && n_ended[1] > 10);
    assert_true(en->n_steps < n_tokens * 9 / 10); /* there were guesses, and they came true */
}

/* Goal: a model as its own draft has every guess of a greedy answer agreed. Method: an answer whose text
 * holds nothing to guess from; a step gives 1 + 4 tokens, but the first few, while the draft model is loaded.
 */
static void test_own_draft(void **state) {
    struct engine_process *en = *state;
    static struct answer plain, guessed;
    u64 random = 1;
    struct gen_request r = draw(&random);
    r.sampling = (struct gen_sampling){.repeat_penalty = 1};
    r.prompt = STR("water");
    r.num_ctx = 512;
    r.num_predict = 150;
    r.stop = NULL;
    r.n_stop = 0;
    r.draft_max = 0;
    ask(en, r, &plain);
    r.draft_max = 4;
    r.draft_id = SELF;
    ask(en, r, &guessed); /* its draft model is loaded meanwhile, if it is not yet */
    answer_release(&guessed);
    u64 before = steps(en);
    ask(en, r, &guessed);
    u64 n_steps = steps(en) - before;
    assert_same(&plain, &guessed, 0);
    print_message("# %u tokens in %llu steps\n", guessed.n_output, (unsigned long long)n_steps);
    assert_int_equal(guessed.n_output, 150);
    assert_in_range(n_steps, 150 / 5, 150 / 5 + 4);
    answer_release(&plain);
    answer_release(&guessed);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_answers), cmocka_unit_test(test_own_draft)};
    check(argc == 3);
    model_paths[TARGET] = model_paths[SELF] = argv[1];
    model_paths[OTHER] = argv[2];
    return cmocka_run_group_tests_name("engine_speculation", tests, start, stop);
}
