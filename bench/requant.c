/* requant.c - the same model in another weight format, so that formats can be compared:
 *
 *   requant FILE.gguf Q4_0|Q4_1|Q8_0 OUT.gguf
 *
 * Every quantized matrix of the layers is decoded and encoded anew with the format's plain quantizer (what it loses is
 * lost, so this is for measuring only); embedding, head and everything else stay as they are. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "gguf/gguf.h"

/* general.file_type, by the numbers of ggml's list. */
static const struct {
    const char *name;
    u32 type, file_type;
} formats[] = {{"Q4_0", QUANT_Q4_0, 2}, {"Q4_1", QUANT_Q4_1, 3}, {"Q8_0", QUANT_Q8_0, 7}};

static bool is_layer_matrix(const struct gguf_tensor *t, u32 type) {
    return str_starts(t->name, STR("blk.")) && t->n_dims >= 2 && quant_supported(t->type) &&
           quant_block_values(t->type) > 1 && t->dims[0] % quant_block_values(type) == 0;
}

/* Row by row: a matrix decoded as a whole could be larger than memory. */
static void tensor_add(struct gguf_writer *w, const struct gguf_tensor *t, u32 type) {
    if (!is_layer_matrix(t, type)) {
        gguf_put_tensor(w, t->name, t->type, t->n_dims, t->dims, t->data);
        return;
    }
    u32 K = (u32)t->dims[0];
    u64 rows = t->dims[1] * t->dims[2] * t->dims[3];
    size_t from = quant_row_bytes(t->type, K), to = quant_row_bytes(type, K);
    u8 *out = xmalloc(rows * to);
    f32 *row = xmalloc(K * sizeof *row);
    for (u64 i = 0; i < rows; i++) {
        quant_decode(t->type, t->data + i * from, row, K);
        quant_encode(type, row, out + i * to, K);
    }
    free(row);
    gguf_put_tensor(w, t->name, type, t->n_dims, t->dims, out); /* read by gguf_write; freed by exit */
}

int main(int argc, char **argv) {
    struct err err;
    struct gguf g;
    struct stat st;
    u32 f = 0;
    while (argc == 4 && f < ARRAY_LEN(formats) && strcmp(argv[2], formats[f].name) != 0)
        f++;
    if (argc != 4 || f == ARRAY_LEN(formats))
        die("usage: requant FILE.gguf Q4_0|Q4_1|Q8_0 OUT.gguf");
    int fd = open(argv[1], O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0)
        die("cannot open %s", argv[1]);
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED || gguf_parse(&g, map, (size_t)st.st_size, &err) != OK)
        die("cannot read %s", argv[1]);
    struct gguf_writer *w = gguf_writer_new();
    for (u32 i = 0; i < g.n_kvs; i++)
        if (str_is(g.kvs[i].key, "general.file_type"))
            gguf_put_u32(w, "general.file_type", formats[f].file_type);
        else
            gguf_put_kv(w, &g.kvs[i]);
    for (u32 i = 0; i < g.n_tensors; i++)
        tensor_add(w, &g.tensors[i], formats[f].type);
    if (gguf_write(w, argv[3], &err) != OK)
        die("%s", err.text);
    return 0;
}
