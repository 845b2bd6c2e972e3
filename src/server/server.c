/* server.c - wires the parts of the server process to one loop and ends them in order. */
#include "server/server.h"

#include "api/api.h"
#include "base/cpu.h"
#include "base/log.h"
#include "kern/kern.h"
#include "registry/transfers.h"
#include "server/link.h"
#include "server/listen.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

/* SIGTERM: running answers may finish for this long. */
#define DRAIN_MS 10000u

struct server {
    uv_loop_t loop;
    struct store *store;
    struct link *link;
    struct api *api;
    struct transfers *transfers;
    struct httpd *httpd;
    struct listener listener;
    uv_signal_t on_int, on_term;
    uv_timer_t drain;
    bool draining, stopping;
    u32 drained_ms;
};

static void link_closed(void *ctx) { (void)ctx; }

/* Streams are cut, the engine ends, the loop runs out of handles. */
static void stop(struct server *s) {
    if (s->stopping)
        return;
    s->stopping = true;
    notify_systemd("STOPPING=1");
    listener_forget(&s->listener);
    httpd_stop(s->httpd);
    link_close(s->link, link_closed, s);
    transfers_close(s->transfers);
    uv_close((uv_handle_t *)&s->on_int, NULL);
    uv_close((uv_handle_t *)&s->on_term, NULL);
    uv_close((uv_handle_t *)&s->drain, NULL);
}

static void on_drain_tick(uv_timer_t *timer) {
    struct server *s = timer->data;
    s->drained_ms += 50;
    /* Also what has been computed must reach its client: connections close behind their last answer. */
    bool done = link_open_requests(s->link) == 0 && httpd_connections(s->httpd) == 0;
    if (done || s->drained_ms >= DRAIN_MS)
        stop(s);
}

static void on_signal(uv_signal_t *handle, int number) {
    struct server *s = handle->data;
    if (number == SIGINT || s->draining) {
        log_info("stopping", "open_requests=%u", link_open_requests(s->link));
        stop(s);
        return;
    }
    log_info("finishing running answers, then stopping", "open_requests=%u seconds_max=%u",
             link_open_requests(s->link), DRAIN_MS / 1000);
    s->draining = true;
    httpd_drain(s->httpd);
    uv_timer_start(&s->drain, on_drain_tick, 50, 50);
}

/* A connection and a stream's blob each take a descriptor; the default of 1024 is a limit of the past. */
static void raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* The key is Ollama's, in the user's folder; without HOME there is none. */
static enum status transfers_open(struct server *s, struct err *err) {
    char key[4096];
    const char *home = getenv("HOME");
    int n = snprintf(key, sizeof key, "%s/.ollama/id_ed25519", home ? home : "");
    if (n < 0 || (size_t)n >= sizeof key)
        return err_set(err, ERR_INVALID, "the path in HOME is too long");
    struct registry_config config = {.key_path = home && home[0] ? key : NULL};
    s->transfers = transfers_new(&s->loop, s->store, &config);
    struct transfer_service service = transfers_service(s->transfers);
    api_set_transfers(s->api, &service);
    return OK;
}

static enum status start(struct server *s, const struct settings *settings, struct err *err) {
    struct api_config config = {
        .version = STR(MINKA_VERSION),
        .origins = str_of(settings->origins),
        .go_template = settings->go_template,
        .num_ctx_default = settings->num_ctx,
        .keep_alive_ns_default = 300000000000,
        .debug = settings->debug_fields,
    };
    if (settings->keep_alive) {
        struct str text = str_of(settings->keep_alive);
        f64 number;
        if (api_keep_alive(text, str_to_f64(text, &number), &config.keep_alive_ns_default, err) != OK)
            log_warn("invalid environment variable, using default",
                     "key=OLLAMA_KEEP_ALIVE value=\"%s\" default=5m", settings->keep_alive);
    }
    enum kern_cache cache; /* the engine's, but whoever starts the server should read it at once */
    struct err reason;
    if (kern_cache_by_name(settings->kv_cache_type, &cache, &reason) != OK)
        return err_set(err, ERR_INVALID, "OLLAMA_KV_CACHE_TYPE: %s", reason.text);
    TRY(store_open(settings->models, &s->store, err));
    TRY(listener_open(settings, &s->listener, err));
    store_prune(s->store);
    config.loopback = s->listener.loopback;
    TRY(link_new(&s->loop, settings, s->store, &s->link, err));
    struct api_backend backend = link_backend(s->link);
    s->api = api_new(&config, s->store, &backend);
    TRY(transfers_open(s, err));
    struct httpd_handler handler = api_handler(s->api);
    TRY(httpd_start(&s->loop, s->listener.fd, &handler, &s->httpd, err));
    log_info("listening", "url=%s version=%s models=%s%s", s->listener.url, MINKA_VERSION,
             store_path(s->store), store_writable(s->store) ? "" : " (read-only)");
    return OK;
}

int server_run(const struct settings *settings) {
    static struct server server;
    struct server *s = &server;
    struct err err;
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    uv_loop_init(&s->loop);
    if (start(s, settings, &err) != OK) {
        log_error("cannot start", "error=\"%s\"", err.text);
        die("%s", err.text);
    }
    uv_signal_init(&s->loop, &s->on_int);
    uv_signal_init(&s->loop, &s->on_term);
    uv_timer_init(&s->loop, &s->drain);
    s->on_int.data = s->on_term.data = s->drain.data = s;
    uv_signal_start(&s->on_int, on_signal, SIGINT);
    uv_signal_start(&s->on_term, on_signal, SIGTERM);
    notify_systemd("READY=1");
    uv_run(&s->loop, UV_RUN_DEFAULT);
    api_free(s->api);
    link_free(s->link);
    store_close(s->store);
    uv_loop_close(&s->loop);
    return 0;
}
