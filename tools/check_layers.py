#!/usr/bin/env python3
"""Style by machine: includes go only to the own folder or to lower layers, headers compile alone, and calls that overrun
or hide errors are not used."""
import pathlib, re, subprocess, sys

root = pathlib.Path(__file__).resolve().parent.parent
LAYERS = [["base"], ["gen", "gguf", "kv", "http", "tokenize"], ["kern", "wire"], ["model", "sched", "chat", "store"],
          ["engine", "api", "registry"], ["server", "cli", "web"]]
RANK = {folder: rank for rank, folders in enumerate(LAYERS) for folder in folders}
BANNED = r"\b(strcpy|strcat|sprintf|vsprintf|gets|atoi|strtok)\s*\("


def check_includes(path, problems):
    folder = path.relative_to(root / "src").parts[0]
    for number, line in enumerate(path.read_text().splitlines(), 1):
        where = f"{path.relative_to(root)}:{number}"
        if found := re.match(r'\s*#include "([a-z0-9_]+)/', line):
            other = found.group(1)
            if other != folder and folder in RANK and RANK.get(other, 99) >= RANK[folder]:
                # folders of one layer may use each other's contracts only where no cycle can come of it
                if (folder, other) not in ALLOWED_SIDEWAYS:
                    problems.append(f"{where}: {folder} may not include from {other}")
        if re.search(BANNED, re.sub(r'"(\\.|[^"\\])*"', '""', line)):
            problems.append(f"{where}: banned call: {line.strip()}")


# tokenizers read GGUF vocabularies; both are in layer 1, and gguf knows nothing of tokenizers
ALLOWED_SIDEWAYS = {("tokenize", "gguf")}


def check_header_alone(path, problems):
    flags = ["-std=gnu17", "-D_GNU_SOURCE", "-Isrc", "-fsyntax-only", "-x", "c", "-"]
    if "x86" in path.parts:  # templates of the vector tiers: they want the vector width defined before
        return
    ran = subprocess.run(["cc", *flags], input=f'#include "{path.relative_to(root / "src")}"\n', text=True, capture_output=True, cwd=root)
    if ran.returncode:
        problems.append(f"{path.relative_to(root)} does not compile alone: {ran.stderr.splitlines()[0] if ran.stderr else ''}")


def main():
    problems = []
    for path in sorted((root / "src").rglob("*.[ch]")):
        check_includes(path, problems)
        if path.suffix == ".h":
            check_header_alone(path, problems)
    print("1..1")
    for p in problems:
        print("#", p)
    print("not ok 1 layers" if problems else "ok 1 layers")
    return 1 if problems else 0


sys.exit(main())
