/* wire.h - the messages between server and engine on their Unix socket pair.
 *
 * A frame is a 16-byte header and at most WIRE_PAYLOAD_MAX bytes; a message longer than that is several
 * frames of one stream id, and frames of different streams interleave, so that a CANCEL never waits
 * behind a large GENERATE. Integers are little-endian; text is length-prefixed. Both ends treat the
 * other as hostile: every length, count and enum is checked, and a broken message is ERR_CORRUPT, never
 * a crash. Descriptors travel with the first frame of MODEL by SCM_RIGHTS.
 *
 *   header: u32 payload bytes | u16 type | u16 flags (WIRE_LAST) | u64 stream id
 */
#ifndef MINKA_WIRE_H
#define MINKA_WIRE_H

#include "base/arena.h"
#include "base/buf.h"
#include "gen/gen.h"

#define WIRE_HEADER_BYTES 16u
#define WIRE_PAYLOAD_MAX (64u * 1024u - WIRE_HEADER_BYTES)

enum wire_type {
    /* down: server to engine */
    WIRE_MODEL = 1, /* wire_model + 1 descriptor */
    WIRE_GENERATE,  /* gen_request */
    WIRE_CANCEL,    /* stream id = request id, empty */
    WIRE_EXPIRE,    /* model id + keep_alive_ns: unload, or keep for longer, without a request */
    WIRE_LIMITS,    /* wire_limits */
    /* up: engine to server */
    WIRE_EVENT,     /* gen_event */
    WIRE_STATE,     /* wire_state, a few times a second while something changes */
};

struct wire_model {
    u32 model_id;         /* chosen by the server, never reused for other bytes */
    u8 digest[32];        /* SHA-256 of the file, from its blob name */
    struct str name;      /* for messages */
    u64 file_bytes;
    bool draft;           /* only to guess for others: one that cannot be used isn't looked at again */
};

/* A request and how long its model stays loaded after it. */
struct wire_generate {
    struct gen_request request;
    i64 keep_alive_ns; /* < 0 = for ever */
};

struct wire_expire {
    u32 model_id;
    i64 keep_alive_ns;
};

struct wire_limits {
    u64 memory_bytes;
    u32 n_threads;
};

/* What /api/ps and the metrics show. */
struct wire_state {
    u32 n_running, n_waiting;
    u64 limit_bytes, weights_bytes, kv_bytes, kv_cached_bytes, scratch_bytes;
    u64 n_steps_total, n_parked_total;
    f64 tokens_per_s;
    u32 n_models; /* at most WIRE_MODELS_MAX loaded or loading */
    struct wire_model_state {
        u32 model_id;
        bool loading;
        u32 n_running, n_waiting;
        u32 num_ctx; /* the largest of its running requests, else that of the last one */
        u64 weights_bytes, kv_bytes;
        i64 expires_in_ns; /* from now; INT64_MAX = for ever; 0 = in use */
    } models[64];
    u64 n_rows_total, steps_ns_total, n_drafts_total, n_agreed_total, drafts_lost_ns_total; /* see sched_state */
    u64 n_draft_passes_total, draft_ns_total;
};
#define WIRE_MODELS_MAX 64u

/* One decoded message; pointers live in the arena given to wire_decode. */
struct wire_message {
    enum wire_type type;
    u64 stream_id; /* the request id; 0 for messages of the process */
    union {
        struct wire_model model;
        struct wire_generate generate;
        struct wire_expire expire;
        struct wire_limits limits;
        struct gen_event event;
        struct wire_state state;
    };
};

/* --- codec: payload bytes of one whole message, without frames --- */
void wire_encode(struct buf *out, const struct wire_message *m);
enum status wire_decode(struct str payload, enum wire_type type, u64 stream_id, struct arena *arena,
                        struct wire_message *out, struct err *err) MUST_USE;

/* --- connection: one end of the socket pair, non-blocking --- */
struct wire_conn;
struct wire_conn *wire_conn_new(int fd) MUST_USE; /* owns fd */
void wire_conn_free(struct wire_conn *c);
int wire_conn_fd(const struct wire_conn *c);
/* Queues a message; fd >= 0 is sent with it (duplicated: the caller keeps its own). Small messages
 * overtake the rest of large ones. */
void wire_send(struct wire_conn *c, const struct wire_message *m, int fd);
/* Writes what the socket takes. ERR_IO: the other end is gone. */
enum status wire_flush(struct wire_conn *c, struct err *err) MUST_USE;
bool wire_wants_write(const struct wire_conn *c);
size_t wire_queued_bytes(const struct wire_conn *c);
/* Reads what is there. Then wire_next gives whole messages until it returns false; fd is the received
 * descriptor (owned by the caller) or -1. A broken stream is ERR_CORRUPT, end of file ERR_IO. */
enum status wire_read(struct wire_conn *c, struct err *err) MUST_USE;
enum status wire_next(struct wire_conn *c, struct arena *arena, struct wire_message *out, int *fd, bool *got,
                      struct err *err) MUST_USE;

#endif
