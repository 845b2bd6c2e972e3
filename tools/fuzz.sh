#!/bin/sh
# Fuzzes one target with clang's libFuzzer: fuzz.sh NAME SECONDS. New inputs go to build-fuzz/new-NAME, crashes to this folder.
set -eu
name=${1:-}
[ -f "tests/fuzz/fuzz_$name.c" ] || {
    echo "usage: make fuzz T=NAME S=SECONDS, with NAME one of:" $(ls tests/fuzz/fuzz_*.c | sed 's/.*fuzz_\(.*\)\.c/\1/') >&2
    exit 2
}
command -v clang-14 >/dev/null || {
    echo "Error: fuzzing needs clang: apt-get install clang-14 libclang-rt-14-dev llvm-14" >&2
    exit 1
}
if [ ! -d build-fuzz ]; then
    CC=clang-14 meson setup build-fuzz -Dfuzzers=true -Dtests=true -Db_sanitize=address,undefined -Db_lundef=false \
        -Dc_args=-fsanitize=fuzzer-no-link -Dwerror=false >/dev/null
fi
ninja -C build-fuzz --quiet "tests/fuzz/fuzz_$name"
mkdir -p "build-fuzz/new-$name" "tests/fuzz/corpus/$name" "tests/fuzz/regression/$name"
exec "build-fuzz/tests/fuzz/fuzz_$name" -max_total_time="${2:-60}" -artifact_prefix=build-fuzz/ \
    "build-fuzz/new-$name" "tests/fuzz/corpus/$name" "tests/fuzz/regression/$name"
