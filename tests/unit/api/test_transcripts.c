/* Golden transcripts: what a request makes the backend see, and what comes back, byte for byte, with times,
 * durations and hashes masked.
 *
 * A file of transcripts/ holds cases "=== name", then the request (method and path, header lines, an empty
 * line, the body), then "--- seen" and "--- answer". MINKA_GOLDEN=write writes the last two anew: read the
 * difference like code. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fixture.h"

/* --- masks --- */

/* Replaces the characters of a JSON value behind each occurrence of key. */
static void value_mask(struct buf *b, const char *key, const char *mask) {
    struct buf out = {0};
    struct str text = buf_str(b), needle = str_of(key);
    size_t from = 0, at;
    while ((at = str_find(text, needle, from)) != SIZE_MAX) {
        at += needle.n;
        size_t end = at;
        while (end < text.n && text.p[end] != ',' && text.p[end] != '}' && text.p[end] != '\n')
            end++;
        buf_add(&out, text.p + from, at - from);
        buf_add_str(&out, str_of(mask));
        from = end;
    }
    buf_add_str(&out, str_slice(text, from, text.n));
    buf_release(b);
    *b = out;
}

static void text_replace(struct buf *b, struct str old, const char *new) {
    struct buf out = {0};
    struct str text = buf_str(b);
    size_t from = 0, at;
    while ((at = str_find(text, old, from)) != SIZE_MAX) {
        buf_add(&out, text.p + from, at - from);
        buf_add_str(&out, str_of(new));
        from = at + old.n;
    }
    buf_add_str(&out, str_slice(text, from, text.n));
    buf_release(b);
    *b = out;
}

/* Runs of 64 hex digits are SHA-256 sums. */
static void hashes_mask(struct buf *b) {
    struct buf out = {0};
    size_t run = 0;
    for (size_t i = 0; i <= b->n; i++) {
        char c = i < b->n ? b->p[i] : 0;
        bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
        if (i < b->n)
            buf_add_char(&out, c);
        if (hex) {
            run++;
            continue;
        }
        if (run == 64) {
            out.n -= 64 + (i < b->n);
            buf_add_str(&out, STR("SHA256"));
            if (i < b->n)
                buf_add_char(&out, c);
        }
        run = 0;
    }
    buf_release(b);
    *b = out;
}

static void answer_mask(struct fixture *f, struct buf *b, bool models_change) {
    if (models_change)
        value_mask(b, "\"modified_at\":", "TIME");
    value_mask(b, "\"created_at\":", "TIME");
    value_mask(b, "\"expires_at\":", "TIME");
    value_mask(b, "\"total_duration\":", "NS");
    value_mask(b, "\"created\":17", "..."); /* the current time; the store's times are in the past */
    text_replace(b, str_of(fixture_folder(f)), "FOLDER");
    hashes_mask(b);
}

/* --- cases --- */

struct wanted {
    struct str name, request, seen, answer;
};

static struct str part_take(struct str *text, const char *mark) {
    size_t at = MIN(str_find(*text, str_of(mark), 0), text->n);
    struct str part = str_slice(*text, 0, at);
    *text = str_slice(*text, at + strlen(mark), text->n);
    return part;
}

static bool case_take(struct str *file, struct wanted *w) {
    size_t start = str_find(*file, STR("=== "), 0);
    if (start == SIZE_MAX)
        return false;
    *file = str_slice(*file, start + 4, file->n);
    size_t end = str_find(*file, STR("\n=== "), 0);
    struct str text = str_slice(*file, 0, end == SIZE_MAX ? file->n : end + 1);
    *file = str_slice(*file, text.n, file->n);
    w->name = part_take(&text, "\n");
    w->request = part_take(&text, "--- seen\n");
    w->seen = part_take(&text, "--- answer\n");
    w->answer = text;
    return true;
}

static void case_run(struct fixture *f, const struct wanted *w, bool models_change, struct buf *seen,
                     struct buf *answer) {
    static const char *const shown[] = {"Retry-After",
                                        "Allow",
                                        "Location",
                                        "Vary",
                                        "Access-Control-Allow-Origin",
                                        "Access-Control-Allow-Methods",
                                        "Access-Control-Max-Age"};
    struct str text = w->request;
    struct str first = part_take(&text, "\n");
    struct str method = part_take(&first, " ");
    struct buf path = {0}, headers = {0}, verb = {0};
    buf_add_str(&path, first);
    buf_add_str(&verb, method);
    for (struct str line; (line = part_take(&text, "\n")).n;)
        buf_printf(&headers, "%.*s\r\n", STR_FMT(line));
    struct str body = str_trim(text);
    struct reply r;
    fixture_ask(f, buf_cstr(&verb), buf_cstr(&path), buf_cstr(&headers), body, &r);
    fixture_seen(f, seen);
    buf_printf(answer, "%u %.*s\n", r.code, STR_FMT(reply_header(&r, "Content-Type")));
    for (size_t i = 0; i < ARRAY_LEN(shown); i++)
        if (reply_header(&r, shown[i]).n)
            buf_printf(answer, "%s: %.*s\n", shown[i], STR_FMT(reply_header(&r, shown[i])));
    buf_add_str(answer, buf_str(&r.body));
    if (answer->n && answer->p[answer->n - 1] != '\n')
        buf_add_str(answer, STR("(no newline)\n"));
    if (!r.whole && !str_is(method, "HEAD"))
        buf_add_str(answer, STR("(cut)\n"));
    answer_mask(f, answer, models_change);
    reply_release(&r);
    buf_release(&path);
    buf_release(&verb);
    buf_release(&headers);
}

static struct buf file_load(const char *path) {
    struct buf b = {0};
    FILE *file = fopen(path, "r");
    if (!file)
        die("%s cannot be read", path);
    for (size_t n = 1; n;) {
        buf_reserve(&b, 65536);
        n = fread(b.p + b.n, 1, 65536, file);
        b.n += n;
    }
    fclose(file);
    return b;
}

/* models_change: the requests make models, whose times are of now. */
static void file_run(const char *name, bool debug, bool models_change) {
    char path[512];
    struct api_config config = {.version = STR("1.2.3"),
                                .loopback = true,
                                .num_ctx_default = 4096,
                                .keep_alive_ns_default = 300000000000,
                                .debug = debug,
                                .origins = STR("https://app.example, http://*.example.org")};
    struct fixture *f = fixture_open(&config);
    const char *mode = getenv("MINKA_GOLDEN");
    bool write = mode && strcmp(mode, "write") == 0;
    snprintf(path, sizeof path, "%s/%s.txt", TRANSCRIPTS, name);
    struct buf file = file_load(path), anew = {0};
    struct str left = buf_str(&file);
    struct wanted w;
    u32 n_cases = 0, n_wrong = 0;
    while (case_take(&left, &w)) {
        struct buf seen = {0}, answer = {0};
        case_run(f, &w, models_change, &seen, &answer);
        buf_printf(&anew, "%s=== %.*s\n%.*s--- seen\n", n_cases ? "\n" : "", STR_FMT(w.name),
                   STR_FMT(w.request));
        buf_add_str(&anew, buf_str(&seen));
        buf_add_str(&anew, STR("--- answer\n"));
        buf_add_str(&anew, buf_str(&answer));
        bool right = str_eq(str_trim(w.seen), str_trim(buf_str(&seen))) &&
                     str_eq(str_trim(w.answer), str_trim(buf_str(&answer)));
        if (!right && !write) {
            fprintf(stderr, "%s: case \"%.*s\" gave\n--- seen\n%.*s--- answer\n%.*s", name, STR_FMT(w.name),
                    STR_FMT(buf_str(&seen)), STR_FMT(buf_str(&answer)));
            n_wrong++;
        }
        n_cases++;
        buf_release(&seen);
        buf_release(&answer);
    }
    if (write) {
        FILE *out = fopen(path, "w");
        assert_int_equal(fwrite(anew.p, 1, anew.n, out), anew.n);
        fclose(out);
    }
    buf_release(&file);
    buf_release(&anew);
    fixture_close(f);
    assert_true(n_cases > 0);
    assert_int_equal(n_wrong, 0);
}

static void generate(void **state) { (void)state, file_run("generate", false, false); }
static void chat(void **state) { (void)state, file_run("chat", false, false); }
static void openai_chat(void **state) { (void)state, file_run("openai_chat", false, false); }
static void openai_completion(void **state) { (void)state, file_run("openai_completion", false, false); }
static void embed(void **state) { (void)state, file_run("embed", false, false); }
static void models(void **state) { (void)state, file_run("models", false, false); }
static void transport(void **state) { (void)state, file_run("transport", false, false); }
static void manage(void **state) { (void)state, file_run("manage", false, true); }
static void debug(void **state) { (void)state, file_run("debug", true, false); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generate),    cmocka_unit_test(chat),
        cmocka_unit_test(openai_chat), cmocka_unit_test(openai_completion),
        cmocka_unit_test(embed),
        cmocka_unit_test(models),      cmocka_unit_test(transport),
        cmocka_unit_test(manage),      cmocka_unit_test(debug),
    };
    return cmocka_run_group_tests_name("api_transcripts", tests, NULL, NULL);
}
