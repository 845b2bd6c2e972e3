/* call.h - what the handlers share: the api object, one open request ("call"), and how it is answered.
 *
 *   open --answer--> over          an error, or a reply that needs no engine
 *     |
 *     +--submit--> running --DONE, ERROR, client gone--> over
 *     +--work_start--> working --run has returned, client gone--> over
 *
 * A call lives from on_body to on_gone. Its writer is the dialect's half: it turns events into bytes. */
#ifndef MINKA_API_CALL_H
#define MINKA_API_CALL_H

#include "api/api.h"
#include "api/cors.h"
#include "api/models.h"
#include "api/options.h"

enum dialect { DIALECT_NATIVE, DIALECT_OPENAI, DIALECT_ANTHROPIC };

struct api {
    struct arena arena;
    struct api_config config;
    struct store *store;
    struct models *models;
    struct api_backend backend;
    struct transfer_service transfers;
    struct origins origins;
    u32 load_time_named; /* load-time options that the log has named */
    u64 n_ids;           /* replies numbered so far */
    u32 n_uploads;       /* open now */
};

struct call;

struct call_writer {
    enum dialect dialect;
    const char *stream_type; /* content type of a stream */
    const char *whole_type;
    /* Each writes into c->out. first: what every streamed object begins with, once, into c->prefix. */
    void (*first)(struct call *c);
    void (*piece)(struct call *c, const struct gen_event *e); /* one TEXT, THINK or TOOL of a stream */
    void (*last)(struct call *c, const struct gen_event *e);  /* DONE of a stream */
    void (*whole)(struct call *c, const struct gen_event *e); /* DONE without a stream; texts are gathered */
    void (*tool)(struct call *c, const struct gen_tool_call *t); /* gathers one tool call into c->tools */
    void (*vector)(struct call *c, const struct gen_event *e);   /* gathers one VECTOR into c->text; may refuse */
};

enum call_state { CALL_OPEN, CALL_RUNNING, CALL_WORKING, CALL_OVER };

struct work;   /* work.h */
struct upload; /* blobs.c */

struct call {
    struct api *api;
    struct http_request *http;
    const struct call_writer *writer;
    enum call_state state;
    struct arena arena; /* lives as long as the call */
    u64 request_id;
    struct work *work;     /* while CALL_WORKING */
    struct upload *upload; /* a body that is written to disk as it comes */
    void *pending;         /* what waits for a transfer, and how to free it */
    void (*pending_release)(void *pending);
    u64 transfer_id; /* of a pull or push that goes on; 0 = none */
    u64 arrival_ns;
    i64 wall_ns;      /* the time of arrival */
    struct str model; /* the name as the request wrote it */
    const struct store_model *draft; /* that may guess for it; NULL = none */
    u32 refused_code; /* set where the code of an error does not follow from its status */
    bool stream;
    bool begun; /* the stream has begun: the status is sent */
    bool plain; /* load, unload and debug replies: one JSON object, also if a stream was asked for */
    bool render_only;
    bool include_usage; /* OpenAI: stream_options.include_usage */
    bool role_sent;
    bool base64;    /* vectors as text of their bytes */
    u32 dimensions; /* vectors are cut to so many values; 0 = not */
    u32 n_vectors;  /* gathered so far */
    struct str id; /* OpenAI */
    struct str prefix;
    struct buf out;                          /* the object that is being written; reused */
    struct buf text, think, tools, logprobs; /* gathered for a reply without a stream */
    u32 n_tools;
};

/* Answers an error in the dialect; the call is over. */
void call_refuse(struct call *c, u32 code, struct str text);
/* The same from a status; c->refused_code wins over the usual code. */
void call_fail(struct call *c, enum status status, const struct err *err);
/* Answers with c->out. */
void call_reply(struct call *c, const char *content_type);
/* Streams c->out; the first time it begins the stream. A reader that is too slow ends the call. */
void call_stream(struct call *c, const char *content_type);
/* Hands the request to the backend. The call answers by itself from now on, also if that fails. m: the model
 * as resolved; keep_alive_ns < 0 = for ever. */
void call_submit(struct call *c, const struct model *m, struct gen_request *r, i64 keep_alive_ns);
/* on_gone: cancels what runs and frees the call. */
void call_gone(struct call *c);

/* --- for all dialects --- */
void reply_error(struct http_request *r, enum dialect d, u32 code, struct str text);
u32 http_code(enum status status);
/* Fields of gen_request that say who asks and when. */
void call_stamp(struct call *c, struct gen_request *r, struct str user);
/* Names load-time options in the log, each once in the server's life. */
void api_note_load_time(struct api *a, u32 bits);

/* "2026-01-02T03:04:05.678Z": fractions without trailing zeros; with_zone: local time and its offset. */
#define TIME_TEXT_BYTES 48
size_t time_text(char out[TIME_TEXT_BYTES], i64 wall_ns, bool with_zone);
/* The text in quotes as Go's %q prints it. */
void go_quote(struct buf *b, struct str s);
/* Array of logprob items, for each position of an event. Elements only, no brackets. */
void logprobs_items(struct buf *b, const struct gen_logprobs *p, u32 n);
/* One tool call of a native reply. */ /* JSON text with < > & as \u escapes (they can only stand inside its
                                          strings), as everywhere in replies. */
void json_escaped(struct buf *b, struct str json);
/* One tool call of a native reply. */
void tool_call_json(struct buf *b, const struct gen_tool_call *t, u32 index);

/* --- the handlers that routes.c calls --- */
void handle_generate(struct call *c, struct str body);
void handle_chat(struct call *c, struct str body);
void handle_openai_chat(struct call *c, struct str body);
void handle_openai_completion(struct call *c, struct str body);
void handle_embed(struct call *c, struct str body);
void handle_embeddings(struct call *c, struct str body);
void handle_openai_embeddings(struct call *c, struct str body);
void handle_show(struct call *c, struct str body);
void handle_create(struct call *c, struct str body);
void handle_copy(struct call *c, struct str body);
void handle_delete(struct call *c, struct str body);
void handle_blob_head(struct call *c, struct str digest);
/* A blob's upload: the headers are there, a piece (false: wait), the body is over, the client is gone. */
void upload_begin(struct call *c, struct str digest);
bool upload_piece(struct call *c, struct str piece);
void upload_end(struct call *c);
void upload_gone(struct call *c);
/* Streams one step of a pull's or push's progress. */
void transfer_progress_line(struct call *c, const struct transfer_progress *p);
void handle_pull(struct call *c, struct str body);
void handle_push(struct call *c, struct str body);
void handle_version(struct call *c);
void handle_tags(struct call *c);
void handle_ps(struct call *c);
void handle_openai_models(struct call *c);
void handle_openai_model(struct call *c, struct str name);

#endif
