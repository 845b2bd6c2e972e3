/* fuzz_manifest.c - files of a store: a manifest, a config, parameters and messages of any bytes.
 * Input: a byte that picks the file, then its text; the other files are good ones. The model is then looked
 * up, listed, shown and asked for an answer. */
#include "api_fake.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

#define GOOD                                                                                                 \
    "{\"config\":{\"digest\":\"sha256:" HEX64("1") "\",\"size\":1},\"layers\":[" LAYER(                      \
        "params", "2") "," LAYER("messages", "3") "," LAYER("license", "4") "," LAYER("model", "5") "]}"

static const char *const files[] = {
    LIBRARY "m/latest",
    "models/blobs/sha256-" HEX64("1"),
    "models/blobs/sha256-" HEX64("2"),
    "models/blobs/sha256-" HEX64("3"),
};
static const char *const good[] = {GOOD, "{\"model_family\":\"llama\"}", "{\"stop\":[\"x\"]}", "[]"};

static void ask(const char *method, const char *path, const char *body) {
    struct http_request r = {.method = str_of(method), .path = str_of(path)};
    struct httpd_handler h = api_handler(fake.api);
    fake.sink.on_event = NULL;
    h.on_body(h.ctx, &r, str_of(body));
    if (fake.sink.on_event) {
        struct gen_event done = {.kind = GEN_DONE, .reason = GEN_STOP};
        fake.sink.on_event(fake.sink.ctx, &done);
        fake.sink.on_event = NULL;
    }
    answer_check(&r);
    h.on_gone(h.ctx, &r, false);
    buf_release(&r.body);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    if (size < 1)
        return 0;
    if (!fake.store) {
        fake_open();
        for (size_t i = 0; i < ARRAY_LEN(files); i++)
            fake_file(files[i], str_of(good[i]));
    }
    size_t which = data[0] % ARRAY_LEN(files);
    fake_file(files[which], (struct str){(const char *)data + 1, size - 1});
    ask("GET", "/api/tags", "");
    ask("GET", "/v1/models", "");
    ask("POST", "/api/show", "{\"model\":\"m\"}");
    ask("POST", "/api/generate", "{\"model\":\"m\",\"prompt\":\"x\",\"stream\":false}");
    ask("POST", "/v1/chat/completions",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}");
    fake_file(files[which], str_of(good[which]));
    return 0;
}
