#!/usr/bin/env python3
"""make coverage: how many lines of each parser its fuzz corpus runs.

usage: coverage.py [TARGET]... [--lines]

Builds the fuzz targets with gcov's counters (build-cov), replays corpus/TARGET and regression/TARGET, and prints the lines run
of each source file that the target is for; --lines names those that are not. A target whose files together stay below 90 % is
an error. Fuzzing on (make fuzz T=TARGET) finds inputs for what is missing; build-fuzz/new-TARGET holds them.
"""
import argparse, glob, json, os, pathlib, subprocess, sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build-cov"
LEAST = 90

# The files whose reading of foreign bytes a target is for; behind ":" the functions of it, where a file does more than that.
TARGETS = {
    "gguf": ["src/gguf/gguf.c"],
    "tokenize": ["src/tokenize/*.c"],
    "jinja": ["src/chat/jinja*.c", "src/chat/py*.c"],
    "gotemplate": ["src/chat/go_*.c"],
    "value": ["src/chat/json.c"],
    "output": ["src/chat/output.c", "src/chat/calls.c", "src/chat/style.c"],
    "schema": ["src/chat/grammar_build.c", "src/chat/grammar_format.c", "src/chat/grammar_merge.c", "src/chat/grammar_number.c",
               "src/chat/grammar_object.c", "src/chat/grammar_pattern.c", "src/chat/grammar_regex.c", "src/chat/grammar_schema.c",
               "src/chat/grammar_value.c"],
    "wire": ["src/wire/codec.c"],
    "request": ["src/api/body.c", "src/api/native.c", "src/api/openai.c", "src/api/options.c", "src/api/duration.c"],
    "name": ["src/store/names.c"],
    "manifest": ["src/store/store.c:json_text|layer_read|text_place|layer_text|licenses_join|layers_read|manifest_read|model_read",
                 "src/store/facts.c"],
    "modelfile": ["src/store/modelfile.c"],
    "create": ["src/api/create.c:path_valid|files_check|unsupported_check|fields_check|from_check", "src/api/create_*.c"],
    "registry": ["src/registry/challenge.c", "src/registry/manifest.c"],
}


def build(targets):
    if not (BUILD / "build.ninja").exists():
        subprocess.run(["meson", "setup", str(BUILD), "-Db_coverage=true", "-Doptimization=0", "-Dwerror=false"], cwd=ROOT, check=True,
                       stdout=subprocess.DEVNULL)
    subprocess.run(["ninja", "-C", str(BUILD), "--quiet"] + [f"tests/fuzz/fuzz_{t}" for t in targets], check=True)


def replay(target):
    for counts in BUILD.rglob("*.gcda"):
        counts.unlink()
    folders = [str(ROOT / "tests/fuzz" / kind / target) for kind in ("corpus", "regression")]
    subprocess.run([str(BUILD / f"tests/fuzz/fuzz_{target}")] + folders, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def lines_of(source, functions):
    """{line: times run} of a source file, or of some functions of it, from all objects that hold it."""
    lines = {}
    for counts in BUILD.rglob(f"*{pathlib.Path(source).name}.gcda"):
        got = subprocess.run(["gcov", "--json-format", "--stdout", str(counts)], cwd=BUILD, check=True, capture_output=True, text=True)
        for text in got.stdout.splitlines():
            for f in json.loads(text)["files"]:
                if os.path.realpath(BUILD / f["file"]) != str(ROOT / source):
                    continue
                for line in f["lines"]:
                    if functions and line["function_name"] not in functions:
                        continue
                    lines[line["line_number"]] = lines.get(line["line_number"], 0) + line["count"]
    return lines


def report(target, show_lines):
    replay(target)
    run = total = 0
    for pattern in TARGETS[target]:
        files, _, functions = pattern.partition(":")
        for source in sorted(glob.glob(files, root_dir=ROOT)):
            lines = lines_of(source, functions.split("|") if functions else [])
            if not lines:
                continue
            hit = sum(n > 0 for n in lines.values())
            run, total = run + hit, total + len(lines)
            print(f"  {100 * hit / len(lines):5.1f} %  {source}")
            if show_lines:
                print("           not run: " + " ".join(str(n) for n, times in sorted(lines.items()) if not times))
    share = 100 * run / total if total else 0
    print(f"{target}: {share:.1f} % of {total} lines{'' if share >= LEAST else f', below {LEAST} %'}", flush=True)
    return share >= LEAST


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="*", choices=[[], *TARGETS])
    parser.add_argument("--lines", action="store_true")
    options = parser.parse_args()
    there = {p.stem[5:] for p in (ROOT / "tests/fuzz").glob("fuzz_*.c")}
    if missing := sorted(there - set(TARGETS)):
        sys.exit("Error: tools/coverage.py does not know which files these targets are for: " + ", ".join(missing))
    targets = options.target or sorted(TARGETS)
    build(targets)
    sys.exit(0 if all([report(t, options.lines) for t in targets]) else 1)


main()
