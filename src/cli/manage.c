/* manage.c - cp and rm. */
#include <stdio.h>

#include "cli/commands.h"

static enum status call(struct cli *c, const char *method, const char *path, struct buf *body,
                        struct err *err) {
    struct buf answer = {0};
    enum status status = http_client_call(c->http, method, path, buf_str(body), &answer, err);
    buf_release(&answer);
    return status;
}

enum status command_cp(struct cli *c, const struct args *a, struct err *err) {
    struct buf body = {0};
    json_open(&body, '{');
    json_key(&body, "source"), json_str(&body, str_of(a->rest[0]));
    json_key(&body, "destination"), json_str(&body, str_of(a->rest[1]));
    json_close(&body, '}');
    enum status status = call(c, "POST", "/api/copy", &body, err);
    buf_release(&body);
    if (status == OK)
        printf("copied '%s' to '%s'\n", a->rest[0], a->rest[1]);
    return status;
}

/* The server unloads what has no name any more. */
static enum status remove_one(struct cli *c, const char *model, struct err *err) {
    struct buf body = {0};
    json_open(&body, '{');
    json_key(&body, "name"), json_str(&body, str_of(model));
    json_close(&body, '}');
    enum status status = call(c, "DELETE", "/api/delete", &body, err);
    buf_release(&body);
    if (status == OK)
        printf("deleted '%s'\n", model);
    return status;
}

enum status command_rm(struct cli *c, const struct args *a, struct err *err) {
    for (u32 i = 0; i < a->n_rest; i++)
        TRY(remove_one(c, a->rest[i], err));
    return OK;
}
