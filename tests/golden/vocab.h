/* vocab.h - a tokenizer from the vocabulary of a GGUF file, for tests that need no model. */
#ifndef MINKA_TESTS_VOCAB_H
#define MINKA_TESTS_VOCAB_H

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tokenize/tokenize.h"

/* Fails the test if it cannot. */
static inline struct tokenizer *vocab_open(const char *path) {
    struct stat st;
    struct gguf g;
    struct err err;
    struct tokenizer *t;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &st) != 0)
        fail_msg("%s can't be opened", path);
    void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    assert_true(data != MAP_FAILED);
    close(fd);
    if (gguf_parse(&g, data, (size_t)st.st_size, &err) != OK || tokenizer_open(&g, &t, &err) != OK)
        fail_msg("%s: %s", path, err.text);
    gguf_release(&g);
    munmap(data, (size_t)st.st_size);
    return t;
}

/* The tiny vocabulary data/tok/NAME.gguf; MINKA_GOLDEN names data. */
static inline struct tokenizer *vocab_tiny(const char *name) {
    char path[4096];
    assert_non_null(getenv("MINKA_GOLDEN"));
    snprintf(path, sizeof path, "%s/tok/%s.gguf", getenv("MINKA_GOLDEN"), name);
    return vocab_open(path);
}

#endif
