/* settings.h - the environment, read once at start by every subcommand. Ollama's variables mean what they
 * mean there; values are trimmed of blanks and quotes; a bad number is a warning and the default. */
#ifndef MINKA_SETTINGS_H
#define MINKA_SETTINGS_H

#include "base/str.h"

enum speculation {
    SPECULATION_OFF,
    SPECULATION_ON,     /* where a step gives more tokens per time with it */
    SPECULATION_ALWAYS, /* wherever there is a guess: for tests */
};

struct settings {
    /* OLLAMA_HOST, taken apart: [scheme://]host[:port][/path], or unix:/path. */
    char host[256];      /* without brackets; empty for a Unix socket */
    u16 port;
    bool https;          /* client only */
    char host_path[256]; /* "/prefix" behind the port, client only */
    char unix_path[108];
    const char *models;       /* OLLAMA_MODELS; NULL = the default folder */
    const char *origins;      /* OLLAMA_ORIGINS; "" if unset */
    u32 num_ctx;              /* OLLAMA_CONTEXT_LENGTH, 4096 */
    const char *keep_alive;   /* OLLAMA_KEEP_ALIVE as text; NULL if unset */
    const char *kv_cache_type; /* OLLAMA_KV_CACHE_TYPE as text; NULL if unset */
    u32 num_parallel;         /* OLLAMA_NUM_PARALLEL; 0 = no cap */
    u32 max_loaded;           /* OLLAMA_MAX_LOADED_MODELS; 0 = no cap */
    u32 max_queue;            /* OLLAMA_MAX_QUEUE, 512 */
    u32 n_threads;            /* MINKA_THREADS or OLLAMA_NUM_THREADS; 0 = what the machine gives */
    u64 memory_bytes;         /* MINKA_MEMORY (bytes, or with K, M, G); 0 = what the machine gives */
    u64 max_wait_ns;          /* MINKA_MAX_WAIT (Go duration or seconds), 30 s */
    enum speculation speculation; /* MINKA_SPECULATION: 0, 1 (default) or always */
    i32 go_template;          /* OLLAMA_GO_TEMPLATE: 1 or -1 (false) where it is set, else 0 */
    const char *kernels;      /* MINKA_KERNELS; NULL = the fastest */
    u32 debug;                /* OLLAMA_DEBUG: 0 info, 1 debug, 2 trace */
    bool debug_fields;        /* MINKA_DEBUG=1: logits hash in final objects */
    bool no_history;          /* OLLAMA_NOHISTORY */
};

/* Warnings go to the log. ERR_INVALID only for an OLLAMA_HOST or MINKA_MEMORY that can't be understood. */
enum status settings_read(struct settings *out, struct err *err) MUST_USE;
/* "http://127.0.0.1:11434" or "unix:/run/minka.sock", for messages. */
void settings_url(const struct settings *s, char *out, size_t cap);
/* Go duration ("1h30m", "300ms", "-1s") or a plain number of seconds where plain_seconds allows it. */
bool duration_parse(struct str text, bool plain_seconds, i64 *ns);
/* "512", "400M", "1.5G", "2GiB": powers of 1024. */
bool bytes_parse(struct str text, u64 *bytes);

#endif
