/* grammars.c - a list, newest use first; a grammar is known by the bytes of its description. */
#include "engine/grammars.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/limit.h"

struct entry {
    struct entry *next;
    struct buf key; /* all parts, written out */
    struct grammar *grammar;
    u32 n_users;
};

struct grammars {
    pthread_mutex_t compiling; /* one at a time; held for as long as that takes */
    pthread_mutex_t lock;      /* of the list; taken inside the other, and by those who only give back */
    const struct tokenizer *t;
    struct grammar_vocab *vocab; /* NULL before the first use */
    struct entry *head;
    u64 bytes;
};

struct grammars *grammars_new(const struct tokenizer *t) {
    struct grammars *gs = xcalloc(1, sizeof *gs);
    gs->t = t;
    pthread_mutex_init(&gs->compiling, NULL);
    pthread_mutex_init(&gs->lock, NULL);
    return gs;
}

static void entry_free(struct entry *e) {
    buf_release(&e->key);
    grammar_free(e->grammar);
    free(e);
}

void grammars_free(struct grammars *gs) {
    if (!gs)
        return;
    while (gs->head) {
        struct entry *e = gs->head;
        check(e->n_users == 0);
        gs->head = e->next;
        entry_free(e);
    }
    grammar_vocab_free(gs->vocab);
    pthread_mutex_destroy(&gs->compiling);
    pthread_mutex_destroy(&gs->lock);
    free(gs);
}

static void write_text(struct buf *b, struct str s) {
    u64 n = s.n;
    buf_add(b, &n, sizeof n);
    buf_add_str(b, s);
}

static void write_part(struct buf *b, const struct grammar_part *p) {
    u32 head[4] = {(u32)p->kind, p->n_parts, p->min, p->max};
    buf_add(b, head, sizeof head);
    write_text(b, p->text);
    write_text(b, p->path);
    for (u32 i = 0; i < p->n_parts; i++)
        write_part(b, &p->parts[i]);
}

/* Takes the entry out of the list and puts it in front; NULL if there is none. */
static struct entry *find(struct grammars *gs, struct str key) {
    for (struct entry **at = &gs->head; *at; at = &(*at)->next) {
        struct entry *e = *at;
        if (!str_eq(buf_str(&e->key), key))
            continue;
        *at = e->next;
        e->next = gs->head;
        gs->head = e;
        return e;
    }
    return NULL;
}

/* Drops what nobody uses, the oldest first, until `bytes` more fit. */
static bool make_room(struct grammars *gs, u64 bytes) {
    while (gs->bytes + bytes > LIMIT_GRAMMARS_BYTES) {
        struct entry **oldest = NULL;
        for (struct entry **at = &gs->head; *at; at = &(*at)->next)
            if ((*at)->n_users == 0)
                oldest = at;
        if (!oldest)
            return false;
        struct entry *e = *oldest;
        *oldest = e->next;
        gs->bytes -= grammar_bytes(e->grammar) + e->key.cap;
        entry_free(e);
    }
    return true;
}

/* Takes key, and g unless that fails. */
static enum status add(struct grammars *gs, struct grammar *g, struct buf *key, struct err *err) {
    u64 bytes = grammar_bytes(g) + key->cap;
    if (!make_room(gs, bytes))
        return err_set(err, ERR_BUSY, "too many different schemas are in use at once; try again later");
    struct entry *e = xcalloc(1, sizeof *e);
    *e = (struct entry){gs->head, *key, g, 1};
    *key = (struct buf){0};
    gs->head = e;
    gs->bytes += bytes;
    return OK;
}

/* As grammars_take, while no other compiles. */
static enum status take(struct grammars *gs, const struct grammar_part *part, struct buf *key,
                        struct grammar **out, struct err *err) {
    pthread_mutex_lock(&gs->lock);
    struct entry *e = find(gs, buf_str(key));
    if (e)
        e->n_users++;
    pthread_mutex_unlock(&gs->lock);
    if (e) {
        *out = e->grammar;
        return OK;
    }
    if (!gs->vocab)
        gs->vocab = grammar_vocab_new(gs->t);
    TRY(grammar_compile(gs->vocab, part, out, err));
    pthread_mutex_lock(&gs->lock);
    enum status status = add(gs, *out, key, err);
    pthread_mutex_unlock(&gs->lock);
    if (status != OK)
        grammar_free(*out);
    return status;
}

enum status grammars_take(struct grammars *gs, const struct grammar_part *part, struct grammar **out,
                          struct err *err) {
    struct buf key = {0};
    write_part(&key, part);
    pthread_mutex_lock(&gs->compiling);
    enum status status = take(gs, part, &key, out, err);
    pthread_mutex_unlock(&gs->compiling);
    buf_release(&key);
    return status;
}

void grammars_give(struct grammars *gs, struct grammar *g) {
    pthread_mutex_lock(&gs->lock);
    struct entry *e = gs->head;
    while (e->grammar != g)
        e = e->next;
    check(e->n_users > 0);
    e->n_users--;
    pthread_mutex_unlock(&gs->lock);
}
