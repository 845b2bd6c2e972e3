/* Hostile clients: malformed requests get the reference's code and leave the server healthy; clients that
 * leave or read too slowly free what they hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/limit.h"
#include "fixture.h"

static int setup(void **state) {
    struct api_config config = {.version = STR("1.2.3"),
                                .loopback = true,
                                .num_ctx_default = 4096,
                                .keep_alive_ns_default = 300000000000};
    *state = fixture_open(&config);
    return 0;
}

static int teardown(void **state) {
    fixture_close(*state);
    return 0;
}

static void healthy(struct fixture *f) {
    struct reply r;
    fixture_ask(f, "GET", "/api/version", "", STR_NONE, &r);
    assert_int_equal(r.code, 200);
    assert_true(r.whole);
    reply_release(&r);
}

#define G "/api/generate"
#define C "/api/chat"
#define S "/api/show"
#define O "/v1/chat/completions"
#define P "/v1/completions"

/* Goal: each malformed request gets its code, text and a whole answer; the server goes on. */
static void malformed(void **state) {
    static const struct {
        const char *path, *body;
        u32 code;
        const char *text;
    } cases[] = {
        {G, "", 400, "missing request body"},
        {C, "", 400, "missing request body"},
        {S, "   ", 400, "missing request body"},
        {O, "", 400, "missing request body"},
        {G, "null", 404, "model '' not found"},
        {C, "null", 400, "model is required"},
        {S, "null", 400, "model is required"},
        {G, "[]", 400, "cannot unmarshal array"},
        {C, "\"text\"", 400, "cannot unmarshal string"},
        {C, "3", 400, "cannot unmarshal number"},
        {C, "true", 400, "cannot unmarshal bool"},
        {G, "{", 400, "unexpected EOF"},
        {G, "{\"model\"", 400, "unexpected EOF"},
        {G, "}", 400, "invalid JSON"},
        {G, "{\"model\":\"tiny\" \"prompt\":\"x\"}", 400, "invalid JSON"},
        {G, "{\"model\":tiny}", 400, "invalid JSON"},
        {G, "{\"model\":'tiny'}", 400, "invalid JSON"},
        {G, "{\"model\":\"tiny\",}", 400, "invalid JSON"},
        {G, "model=tiny&prompt=x", 400, "invalid JSON"},
        {G, "<xml/>", 400, "invalid JSON"},
        {G, "{\"model\":\"tiny\\\"}", 400, "unexpected EOF"},
        {G, "{\"model\":1}", 400, "GenerateRequest.model of type string"},
        {G, "{\"model\":{\"a\":1}}", 400, "GenerateRequest.model of type string"},
        {G, "{\"model\":\"tiny\",\"prompt\":7}", 400, "GenerateRequest.prompt of type string"},
        {G, "{\"model\":\"tiny\",\"prompt\":\"x\",\"stream\":\"yes\"}", 400,
         "GenerateRequest.stream of type bool"},
        {G, "{\"model\":\"tiny\",\"prompt\":\"x\",\"raw\":1}", 400, "GenerateRequest.raw of type bool"},
        {G, "{\"model\":\"tiny\",\"prompt\":\"x\",\"context\":\"x\"}", 400,
         "GenerateRequest.context of type array"},
        {G, "{\"model\":\"tiny\",\"prompt\":\"x\",\"context\":[-1]}", 400,
         "context is an array of token ids"},
        {G, "{\"model\":\"tiny\",\"prompt\":\"x\",\"context\":[1.5]}", 400,
         "context is an array of token ids"},
        {G, "{\"model\":\"tiny\",\"prompt\":\"x\",\"context\":[4294967296]}", 400,
         "context is an array of token ids"},
        {G, "{\"model\":\"tiny\",\"prompt\":\"x\",\"options\":[]}", 400,
         "GenerateRequest.options of type object"},
        {G, "{\"model\":\"tiny\",\"prompt\":\"x\",\"top_logprobs\":1.5}", 400,
         "GenerateRequest.top_logprobs of type int"},
        {G, "{\"model\":\"tiny\",\"prompt\":\"x\",\"top_logprobs\":-1}", 400,
         "top_logprobs must be between 0 and 20"},
        {G, "{\"model\":\"tiny\",\"prompt\":\"x\",\"keep_alive\":true}", 400, "Unsupported type"},
        {G, "{\"model\":\"tiny\",\"prompt\":\"x\",\"keep_alive\":\"soon\"}", 400, "invalid duration"},
        {G, "{\"model\":\"tiny\",\"prompt\":\"x\",\"keep_alive\":\"\"}", 400, "invalid duration"},
        {G, "{\"model\":\"tiny\",\"prompt\":\"x\",\"think\":[]}", 400, "think must be"},
        {G, "{\"model\":\"tiny\",\"prompt\":\"x\",\"format\":7}", 400, "invalid format"},
        {G, "{\"model\":\"../../etc/passwd\",\"prompt\":\"x\"}", 400, "invalid model name"},
        {G, "{\"model\":\"tiny\\u0000\",\"prompt\":\"x\"}", 400, "invalid model name"},
        {G, "{\"model\":\"t\xc3\xafny\",\"prompt\":\"x\"}", 400, "invalid model name"},
        {G, "{\"model\":\"tiny:\",\"prompt\":\"x\"}", 400, "invalid model name"},
        {G, "{\"model\":\"broken\",\"prompt\":\"x\"}", 500, "broken"},
        {C, "{\"model\":\"tiny\",\"messages\":\"hi\"}", 400, "ChatRequest.messages of type array"},
        {C, "{\"model\":\"tiny\",\"messages\":[3]}", 400, "cannot unmarshal number"},
        {C, "{\"model\":\"tiny\",\"messages\":[{}]}", 400, "invalid role"},
        {C, "{\"model\":\"tiny\",\"messages\":[null]}", 400, "invalid role"},
        {C, "{\"model\":\"tiny\",\"messages\":[{\"role\":5}]}", 400, "Message.role of type string"},
        {C, "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":{}}]}", 400,
         "Message.content of type string"},
        {C, "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"images\":\"x\"}]}", 400,
         "Message.images of type array"},
        {C, "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"tool_calls\":{}}]}", 400,
         "Message.tool_calls of type array"},
        {C, "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"tool_calls\":[1]}]}", 400,
         "cannot unmarshal number"},
        {C, "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"tool_calls\":[{\"function\":[]}]}]}", 400,
         "ToolCall.function"},
        {C, "{\"model\":\"tiny\",\"tools\":{}}", 400, "ChatRequest.tools of type array"},
        {C, "{\"model\":\"tiny\",\"messages\":[],\"options\":{\"top_k\":\"many\"}}", 500,
         "option \\\"top_k\\\" must be of type integer"},
        {C, "{\"model\":\"tiny\",\"messages\":[],\"options\":{\"stop\":[[]]}}", 500,
         "must be of an array of strings"},
        {S, "{\"model\":[]}", 400, "ShowRequest.model of type string"},
        {S, "{\"model\":\"tiny\",\"verbose\":\"no\"}", 400, "ShowRequest.verbose of type bool"},
        {S, "{\"name\":\"a/b/c/d/e\"}", 400, "invalid model name"},
        {O, "{\"model\":\"tiny\"}", 400, "[] is too short"},
        {O, "{\"model\":\"tiny\",\"messages\":null}", 400, "[] is too short"},
        {O, "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_tokens\":\"9\"}",
         400, "max_tokens of type int"},
        {O,
         "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"temperature\":\"hot\"}",
         400, "temperature of type float"},
        {O, "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"stream_options\":1}",
         400, "stream_options of type object"},
        {O, "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"video\"}]}]}", 400,
         "invalid message format"},
        {O, "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":[[]]}]}", 400,
         "invalid message format"},
        {O, "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
         400, "invalid message format"},
        {O,
         "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\"}]}]}",
         400, "invalid input_audio format"},
        {P, "{\"model\":\"tiny\",\"prompt\":[1,2]}", 400, "prompt of type string"},
        {P, "{\"model\":\"tiny\",\"prompt\":\"x\",\"logprobs\":true}", 400, "logprobs of type int"},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct reply r;
        fixture_ask(f, "POST", cases[i].path, "", str_of(cases[i].body), &r);
        if (r.code != cases[i].code || !r.whole || !strstr(buf_cstr(&r.body), cases[i].text))
            fail_msg("%s %s gave %u %s", cases[i].path, cases[i].body, r.code, buf_cstr(&r.body));
        reply_release(&r);
        healthy(f);
    }
}

/* Goal: bodies that are huge, deep or wide are refused by their limits. */
static void oversized(void **state) {
    struct fixture *f = *state;
    struct buf b = {0};
    struct reply r;
    for (int i = 0; i < 100000; i++)
        buf_add_char(&b, '[');
    fixture_ask(f, "POST", G, "", buf_str(&b), &r);
    assert_int_equal(r.code, 400);
    assert_non_null(strstr(buf_cstr(&r.body), "nested deeper"));
    reply_release(&r);
    buf_clear(&b);
    buf_add_str(&b, STR("{\"model\":\"tiny\",\"context\":[1"));
    for (u32 i = 0; i < LIMIT_JSON_VALUES; i++)
        buf_add(&b, ",1", 2);
    buf_add_str(&b, STR("]}"));
    fixture_ask(f, "POST", G, "", buf_str(&b), &r);
    assert_int_equal(r.code, 400);
    assert_non_null(strstr(buf_cstr(&r.body), "values"));
    reply_release(&r);
    buf_clear(&b);
    buf_add_str(&b, STR("{\"model\":\"tiny\",\"messages\":["));
    for (u32 i = 0; i <= LIMIT_MESSAGES; i++)
        buf_add_str(&b, i ? STR(",{\"role\":\"user\",\"content\":\"\"}")
                          : STR("{\"role\":\"user\",\"content\":\"\"}"));
    buf_add_str(&b, STR("]}"));
    fixture_ask(f, "POST", C, "", buf_str(&b), &r);
    assert_int_equal(r.code, 400);
    if (!strstr(buf_cstr(&r.body), "messages"))
        fail_msg("%s", buf_cstr(&r.body));
    reply_release(&r);
    fixture_raw(f,
                STR("POST /api/chat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: "
                    "99999999999\r\n\r\n"),
                &r);
    assert_int_equal(r.code, 413);
    reply_release(&r);
    buf_release(&b);
    healthy(f);
}

/* Goal: a client that leaves while it waits, or in the middle of a stream, is cancelled at once. */
static void client_gone(void **state) {
    struct fixture *f = *state;
    static const char *const bodies[] = {
        "{\"model\":\"tiny\",\"prompt\":\"wait\"}",
        "{\"model\":\"tiny\",\"prompt\":\"wait\",\"stream\":false}",
        "{\"model\":\"tiny\",\"prompt\":\"talk\",\"stream\":false}",
        "{\"model\":\"tiny\",\"prompt\":\"talk\"}",
    };
    for (u32 i = 0; i < ARRAY_LEN(bodies); i++) {
        struct buf seen = {0};
        int fd = fixture_send(f, "POST", G, str_of(bodies[i]));
        char byte;
        if (i == 3)
            assert_int_equal(recv(fd, &byte, 1, 0), 1); /* the stream has begun */
        for (int n = 0; n < 5000 && !strstr(buf_cstr(&seen), "generate"); n++) {
            usleep(1000);
            fixture_seen(f, &seen);
        }
        assert_non_null(strstr(buf_cstr(&seen), "generate"));
        assert_int_equal(fixture_cancelled(f, i), i);
        close(fd);
        assert_int_equal(fixture_cancelled(f, i + 1), i + 1);
        buf_release(&seen);
        healthy(f);
    }
}

/* Goal: a client that does not read is cancelled when its unsent text reaches the limit, and cut off. */
static void slow_reader(void **state) {
    struct fixture *f = *state;
    int fd = fixture_send(f, "POST", G, STR("{\"model\":\"tiny\",\"prompt\":\"flood\"}"));
    assert_int_equal(fixture_cancelled(f, 1), 1);
    static char sink[65536];
    u64 n_read = 0;
    for (ssize_t n; (n = recv(fd, sink, sizeof sink, 0)) > 0;)
        n_read += (u64)n;
    close(fd);
    assert_true(n_read < 64u << 20);
    healthy(f);
}

/* Goal: many requests at once, each answered whole, while others leave. */
static void many(void **state) {
    struct fixture *f = *state;
    enum { N = 60 };
    int fds[N];
    for (int i = 0; i < N; i++)
        fds[i] = fixture_send(
            f, "POST", i % 3 ? G : C,
            i % 3 == 0
                ? STR("{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":\"two words\"}]}")
            : i % 3 == 1 ? STR("{\"model\":\"tiny\",\"prompt\":\"two words\",\"stream\":false}")
                         : STR("{\"model\":\"tiny\",\"prompt\":\"wait\"}"));
    u32 n_left = 0;
    for (int i = 2; i < N; i += 3, n_left++)
        close(fds[i]);
    for (int i = 0; i < N; i++) {
        static char text[65536];
        size_t n = 0;
        if (i % 3 == 2)
            continue;
        for (ssize_t got; (got = recv(fds[i], text + n, sizeof text - 1 - n, 0)) > 0;)
            n += (size_t)got;
        text[n] = 0;
        close(fds[i]);
        assert_non_null(strstr(text, "200 OK"));
        assert_non_null(strstr(text, "\"done\":true"));
    }
    assert_int_equal(fixture_cancelled(f, n_left), n_left);
    healthy(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(malformed), T(oversized), T(client_gone), T(slow_reader), T(many),
    };
    return cmocka_run_group_tests_name("api_hostile", tests, NULL, NULL);
}
