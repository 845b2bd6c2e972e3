/* fuzz_create.c - bodies of create, copy and delete. Input: a byte that picks the route, and what becomes of
 * a pull that the request needs (it fails, it brings nothing, the client leaves), then the body. Whatever
 * comes, the client sees one complete answer of JSON, every model listed afterwards has its blobs, and what
 * was there before can be asked for again. */
#include "api_fake.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static const struct {
    const char *method, *path;
} routes[] = {{"POST", "/api/create"}, {"POST", "/api/copy"}, {"DELETE", "/api/delete"}};

static struct transfer_sink pulling; /* on_end NULL: no pull goes on */

static enum status pull_start(void *ctx, const struct transfer_request *r, struct transfer_sink sink, u64 *id,
                              struct err *err) {
    (void)ctx, (void)err;
    check(r->kind == TRANSFER_PULL && !pulling.on_end);
    pulling = sink;
    *id = 1;
    return OK;
}

static void pull_leave(void *ctx, u64 id) {
    (void)ctx;
    check(id == 1 && pulling.on_end);
    pulling.on_end = NULL;
}

/* True if the client stays for the answer. */
static bool pull_play(u8 how) {
    struct transfer_progress p = {STR("pulling"), STR("sha256:" HEX64("1")), 2, 1};
    struct err err;
    err_set(&err, ERR_IO, "no such host");
    if (!pulling.on_end)
        return true;
    pulling.on_progress(pulling.ctx, &p);
    if (how == 2)
        return false;
    pulling.on_end(pulling.ctx, how ? ERR_IO : OK, &err);
    pulling.on_end = NULL;
    return true;
}

/* A blob that a request may name, of a GGUF file and of none. */
#define TEXT_DIGEST "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

static void store_fill(void) {
    fake_import("tiny", "{{ messages }}");
    fake_file("models/blobs/sha256-" TEXT_DIGEST, STR("hello"));
    struct store_model m;
    struct model_name n;
    struct arena a;
    struct err err;
    arena_init(&a, 0);
    check(model_name_parse(STR("tiny"), &n, &err) == OK && store_find(fake.store, &n, &a, &m, &err) == OK);
    /* Its digest differs with the writer; the corpus knows it by this name. */
    struct str from = store_blob_path(fake.store, m.model_digest, &a);
    struct str to = arena_printf(&a, "%s/models/blobs/sha256-" HEX64("1"), fake.folder);
    (void)!link(from.p, to.p);
    arena_release(&a);
}

/* Removes all models; each must have had its blobs if `whole` is set. */
static void store_clear(bool whole) {
    struct store_model *list;
    struct arena a;
    struct err err;
    u32 n;
    arena_init(&a, 0);
    check(store_list(fake.store, &a, &list, &n, &err) == OK);
    for (u32 i = 0; i < n; i++) {
        for (u32 k = 0; k < list[i].n_layers; k++)
            check(!whole || store_has_blob(fake.store, str_of(list[i].layers[k].digest), NULL));
        check(store_delete(fake.store, &list[i].name, &err) == OK);
    }
    arena_release(&a);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    if (size < 1)
        return 0;
    struct transfer_service service = {pull_start, pull_leave, NULL};
    fake_open();
    api_set_transfers(fake.api, &service);
    store_clear(false); /* also what fake_open made, which lacks a blob */
    store_fill();
    size_t route = data[0] % ARRAY_LEN(routes);
    struct http_request r = {.method = str_of(routes[route].method), .path = str_of(routes[route].path)};
    struct httpd_handler h = api_handler(fake.api);
    h.on_body(h.ctx, &r, (struct str){(const char *)data + 1, size - 1});
    bool stays = pull_play(data[0] / ARRAY_LEN(routes) % 3);
    if (stays)
        answer_check(&r);
    h.on_gone(h.ctx, &r, !stays);
    check(!pulling.on_end);
    buf_release(&r.body);
    store_clear(true);
    return 0;
}
