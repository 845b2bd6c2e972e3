/* test_faults.c - tests the simulator: each fault below breaks one rule in a running scheduler, behind its
 * back, and some check must abort. A child process runs each; who broke nothing in a seed tries the next. */
#include "kv/internal.h"
#include "sim.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define SEEDS 400u

/* Some model's list with at least n requests. */
static struct slist *list_with(struct sim *w, u32 n, bool waiting) {
    for (u32 i = 0; i < w->sched->n_models; i++) {
        struct smodel *m = w->sched->models[i];
        struct slist *l = waiting ? &m->waiting : &m->running;
        if (l->n >= n && m->state == MODEL_LOADED)
            return l;
    }
    return NULL;
}

static struct sreq *with_pages(struct sim *w) {
    for (u32 i = 0; i < w->sched->n_models; i++)
        for (struct sreq *r = w->sched->models[i]->running.first; r; r = r->next)
            if (r->kv.space && r->kv.n_tokens > 0 && r->kv.tables[0].held[0])
                return r;
    return NULL;
}

/* A younger request is admitted past one that is ready. */
static bool fault_order(struct sim *w) {
    struct slist *l = list_with(w, 2, true);
    struct sreq *r = l ? l->last : NULL;
    if (!r || !r->prompt_ready || r->load_only || r->state != REQUEST_QUEUED || !l->first->prompt_ready)
        return false;
    r->admitted_order = ++w->sched->order;
    sreq_move(w->sched, r, REQUEST_PREFILL);
    return true;
}

static bool fault_list_order(struct sim *w) {
    struct slist *l = list_with(w, 2, true);
    if (!l || l->first->state != l->first->next->state)
        return false;
    u64 t = l->first->arrival;
    l->first->arrival = l->first->next->arrival;
    l->first->next->arrival = t;
    return true;
}

/* A page is never given back. */
static bool fault_page_leaked(struct sim *w) {
    struct sreq *r = with_pages(w);
    if (r)
        kv_page_ref_seq(r->kv.tables[0].held[0]);
    return r != NULL;
}

/* A page is given back while it is used. */
static bool fault_page_freed(struct sim *w) {
    struct sreq *r = with_pages(w);
    if (r)
        kv_page_unref_seq(r->kv.tables[0].held[0]);
    return r != NULL;
}

/* The counts are right, but two sequences read each other's pages. */
static bool fault_pages_swapped(struct sim *w) {
    struct slist *l = list_with(w, 2, false);
    if (!l || !l->first->kv.space || !l->first->next->kv.space)
        return false;
    struct kv_table *a = &l->first->kv.tables[0], *b = &l->first->next->kv.tables[0];
    if (!l->first->kv.n_tokens || !l->first->next->kv.n_tokens || !a->held[0] || !b->held[0] ||
        a->held[0] == b->held[0])
        return false;
    struct kv_page *held = a->held[0];
    a->held[0] = b->held[0];
    b->held[0] = held;
    a->pages[0] = a->held[0]->data;
    b->pages[0] = b->held[0]->data;
    return true;
}

/* Somebody writes into a page of another. */
static bool fault_page_overwritten(struct sim *w) {
    struct sreq *r = with_pages(w);
    if (r)
        fake_memory_words(&w->memory, r->kv.tables[0].pages[0])[0] ^= 1;
    return r != NULL;
}

/* The tree claims for a request that is about to start a token that its pages don't hold. */
static bool fault_tree_token(struct sim *w) {
    struct slist *l = list_with(w, 1, true);
    struct sreq *r = l ? l->first : NULL;
    if (!r || !r->prompt_ready || r->load_only)
        return false;
    struct kv_node *n = kv_node_child(r->model->space->root, r->tokens[0]);
    u32 i = 0;
    while (n && i < n->n_tokens && i < r->n_tokens && n->tokens[i] == r->tokens[i])
        i++;
    if (!n || i == n->n_tokens || i + 2 > r->n_tokens)
        return false;
    n->tokens[i] = r->tokens[i];
    return true;
}

/* The claims of a sequence are one token ahead of what is computed. */
static bool fault_position(struct sim *w) {
    struct sreq *r = with_pages(w);
    if (!r || r->state != REQUEST_PREFILL || r->kv.n_tokens + 2 > r->n_tokens)
        return false;
    r->kv.n_tokens++;
    return true;
}

static bool fault_request_lost(struct sim *w) {
    struct slist *l = list_with(w, 1, true);
    if (!l)
        return false;
    slist_remove(l, l->first);
    w->sched->n_waiting--;
    return true;
}

/* Waits for nobody: the model has work, yet nothing is planned. */
static bool fault_stuck(struct sim *w) {
    struct slist *l = list_with(w, 1, false);
    if (!l || l->n != 1 || l->first->kv.space || w->sched->n_running != 1)
        return false;
    l->first->follow = l->first;
    l->first->follow_tokens = l->first->n_tokens;
    return true;
}

/* The ledger takes more than it was given. */
static bool fault_ledger(struct sim *w) {
    w->sched->memory_limit_bytes += 64 * SIM_MIB;
    return true;
}

static bool fault_booking(struct sim *w) {
    for (u32 i = 0; i < w->sched->n_models; i++)
        if (w->sched->models[i]->state == MODEL_LOADED) {
            w->sched->models[i]->info.weights_bytes /= 2;
            return true;
        }
    return false;
}

static bool fault_token_changed(struct sim *w) {
    struct sreq *r = with_pages(w);
    if (r)
        r->tokens[r->n_tokens - 1] ^= 1;
    return r != NULL;
}

/* Keeps models for a tenth of their time. */
static bool fault_keep_alive(struct sim *w) {
    bool any = false;
    for (u32 i = 0; i < w->sched->n_models; i++) {
        struct smodel *m = w->sched->models[i];
        if (smodel_idle(m) && m->keep_alive_ns > 0 && smodel_expires_ns(w->sched, m) > (i64)w->now_ns) {
            m->keep_alive_ns /= 10;
            any = true;
        }
    }
    return any && w->sched->n_waiting == 0 && w->limit_changed_ns == 0;
}

/* The longest wait is ten times what was promised. */
static bool fault_max_wait(struct sim *w) {
    for (u32 i = 0; i < w->sched->n_models; i++) {
        const struct smodel *m = w->sched->models[i];
        const struct sreq *r = m->state == MODEL_KNOWN ? m->waiting.first : NULL;
        if (r && w->now_ns - MAX(r->waiting_ns, m->unloaded_ns) > w->o.config.max_wait_ns / 2) {
            w->sched->config.max_wait_ns *= 10;
            return true;
        }
    }
    return false;
}

/* The oldest is parked. */
static bool fault_oldest_parked(struct sim *w) {
    struct slist *l = list_with(w, 2, false);
    if (!l || w->sched->n_running != l->n)
        return false;
    /* So that it stays parked: nobody is admitted in this look. */
    w->sched->refused_ns = w->now_ns;
    sreq_park(w->sched, l->first);
    return true;
}

static struct sreq *with_drafts(struct sim *w) {
    for (u32 i = 0; i < w->sched->n_models; i++)
        for (struct sreq *r = w->sched->models[i]->running.first; r; r = r->next)
            if (r->state == REQUEST_DECODE && r->n_draft > 0)
                return r;
    return NULL;
}

/* A guess that nobody has drawn counts as a token, and what lies in its place in the cache as its K and V. */
static bool fault_draft_kept(struct sim *w) {
    struct sreq *r = with_drafts(w);
    if (!r || r->n_tokens + 1 >= r->tokens_max || !kv_seq_reserve(&r->kv, r->n_tokens))
        return false;
    r->n_tokens++;
    r->kv.n_tokens++;
    r->n_draft = 0;
    return true;
}

/* Window pages are released as if all guesses had come true. */
static bool fault_draft_trim(struct sim *w) {
    struct sreq *r = with_drafts(w);
    if (!r || r->kv.space->layout.n_groups < 2)
        return false;
    u32 n_released = r->kv.tables[1].n_released;
    r->kv.n_tokens += r->n_draft;
    kv_seq_trim(&r->kv);
    r->kv.n_tokens -= r->n_draft;
    return r->kv.tables[1].n_released > n_released;
}

/* A running request of an encoder that has several inputs left. */
static struct sreq *with_inputs(struct sim *w, u32 n_left) {
    for (u32 i = 0; i < w->sched->n_models; i++)
        for (struct sreq *r = w->sched->models[i]->running.first; r; r = r->next)
            if (r->n_ends - r->n_inputs_done >= n_left)
                return r;
    return NULL;
}

/* An input is cut in two. */
static bool fault_input_cut(struct sim *w) {
    struct sreq *r = with_inputs(w, 2);
    u32 at = r ? r->n_inputs_done : 0, start = r && at ? r->ends[at - 1] : 0;
    if (!r || r->ends[at] - start < 2)
        return false;
    r->ends[at]--;
    return true;
}

/* An input is never computed. */
static bool fault_input_skipped(struct sim *w) {
    struct sreq *r = with_inputs(w, 2);
    if (r)
        r->kv.n_tokens = r->ends[r->n_inputs_done++];
    return r != NULL;
}

/* A request's rows come from the cache, although all of them are wanted. */
static bool fault_row_cached(struct sim *w) {
    struct sreq *r = with_pages(w);
    if (!r || !r->every_row || r->n_cached)
        return false;
    r->every_row = false;
    return true;
}

static const struct {
    const char *name;
    bool (*fault)(struct sim *w);
    u32 found_percent_min; /* of the runs in which it was planted; what may go unused is found less often */
} faults[] = {
    {"admitted out of order", fault_order, 90},
    {"list out of order", fault_list_order, 100},
    {"page leaked", fault_page_leaked, 100},
    {"page freed while in use", fault_page_freed, 100},
    {"pages swapped", fault_pages_swapped, 90},
    {"page overwritten", fault_page_overwritten, 90},
    {"token in the tree wrong", fault_tree_token, 50},
    {"position ahead", fault_position, 90},
    {"request lost", fault_request_lost, 100},
    {"request never runs", fault_stuck, 90},
    {"limit exceeded", fault_ledger, 5},
    {"weights booked low", fault_booking, 90},
    {"token changed", fault_token_changed, 90},
    {"keep-alive cut", fault_keep_alive, 20},
    {"max_wait stretched", fault_max_wait, 20},
    {"oldest parked", fault_oldest_parked, 50},
    {"input cut", fault_input_cut, 10},
    {"input skipped", fault_input_skipped, 90},
    {"row not wanted", fault_row_cached, 30},
    {"draft taken for a token", fault_draft_kept, 100},
    {"pages released for drafts", fault_draft_trim, 100},
};

enum { PLANTED_NOT = 0, PLANTED_UNSEEN = 3 };

static void child(u64 seed, bool (*fault)(struct sim *w)) {
    int null = open("/dev/null", O_WRONLY);
    dup2(null, STDERR_FILENO);
    struct sim_counts counts = {0};
    struct sim *w = xcalloc(1, sizeof *w);
    w->seed = w->random = seed;
    w->counts = &counts;
    w->fault = fault;
    sim_run(w);
    _exit(w->fault_done ? PLANTED_UNSEEN : PLANTED_NOT);
}

/* Whether the fault was planted with this seed, and whether it was found. */
static bool plant(u64 seed, bool (*fault)(struct sim *w), bool *found) {
    pid_t pid = fork();
    check(pid >= 0);
    if (pid == 0)
        child(seed, fault);
    int status;
    check(waitpid(pid, &status, 0) == pid);
    u32 code = WIFEXITED(status) ? (u32)WEXITSTATUS(status) : UINT32_MAX;
    /* Killed by a check, or by a sanitizer that was faster. */
    *found = code != PLANTED_NOT && code != PLANTED_UNSEEN;
    return code != PLANTED_NOT;
}

int main(void) {
    bool ok = true;
    u32 n_wanted = getenv("SIM_FAULTS") ? (u32)atoi(getenv("SIM_FAULTS")) : 20;
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        u32 n_planted = 0, n_found = 0;
        for (u64 seed = 1; seed <= SEEDS && n_planted < n_wanted; seed++) {
            bool found;
            n_planted += plant(seed, faults[i].fault, &found);
            n_found += found;
        }
        bool good = n_planted > 0 && n_found > 0 && n_found * 100 >= n_planted * faults[i].found_percent_min;
        printf("%-24s planted %u times, found %u times%s\n", faults[i].name, n_planted, n_found,
               good ? "" : "  TOO FEW");
        ok = ok && good;
    }
    return ok ? 0 : 1;
}
