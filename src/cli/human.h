/* human.h - sizes, counts, times and tables as Ollama's command line prints them. */
#ifndef MINKA_CLI_HUMAN_H
#define MINKA_CLI_HUMAN_H

#include <stdio.h>

#include "base/buf.h"

#define HUMAN_BYTES 48

/* "815 MB", "4.7 GB": powers of 1000; from 10 on whole, below with one decimal unless whole. */
void human_bytes(u64 bytes, char out[HUMAN_BYTES]);
/* "8B", "1.2B", "137.02M", "22K". */
void human_count(u64 n, char out[HUMAN_BYTES]);
/* "4 minutes ago", "About an hour from now", "Forever" (more than 20 years ahead). then_ns 0: "Never". */
void human_time(i64 then_ns, i64 now_ns, char out[HUMAN_BYTES]);
/* A duration in Go's form: "1m2.5s", "345.6ms", "1.2µs", "0s". */
void human_duration(i64 ns, char out[HUMAN_BYTES]);
/* RFC 3339 with up to 9 fractional digits and a zone. */
bool rfc3339_parse(struct str text, i64 *unix_ns);

/* Terminal columns of a code point: 0 for marks and controls, 2 for wide ones. */
u32 char_columns(u32 code_point);
/* Columns of a text; bytes that are not UTF-8 count one each. */
u32 str_columns(struct str s);

/* Cells gathered row by row; rows may have different lengths. Printed left-aligned, each cell padded to its
 * column's width and followed by four blanks, the last one too. */
struct table {
    struct buf text;
    struct table_cell *cells;
    u32 n_cells, cap_cells;
};

struct table_cell {
    size_t from, n; /* in text */
    u32 column;
};

void table_release(struct table *t);
void table_row(struct table *t); /* starts a row */
void table_cell(struct table *t, struct str text);
/* A row whose last cell is wrapped at wrap_columns: the rest stands below it in rows of its own. */
void table_wrapped_row(struct table *t, struct str first, struct str text, u32 wrap_columns);
void table_print(const struct table *t, FILE *out);

#endif
