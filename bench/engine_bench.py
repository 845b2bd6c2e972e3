#!/usr/bin/env python3
"""Part "engine" of `make bench`, with options of its own for other files and kernels: minka's engine beside those of other
servers, without HTTP: alternating in one run, on the same file; ratios with spread.

usage: engine_bench.py PATH-OF-model_bench --model FILE.gguf [--peer NAME=FOLDER[:LIBRARIES]]... [--rounds N] [--prompt 512]
                       [--sequences 1,4,8,16,64] [--depths 0] [--kernels NAME] [--json FILE]

FOLDER holds the peer's llama-bench (prefill, one sequence) and, where it has one, llama-batched-bench (more sequences);
LIBRARIES is put in front of its library path. Every round asks each engine in turn, for one case after the other: what
disturbs the machine disturbs all of them. Figures are medians over the rounds, in brackets smallest and largest; "x" is
minka / peer of the same round. Depths other than 0 are measured for one sequence.
"""
import argparse, json, os, pathlib, statistics, subprocess, tempfile, time

from load import spread

THREADS = len(os.sched_getaffinity(0))


class Minka:
    name = "minka"

    def __init__(self, path, model, kernels):
        self.command = [path, model] + (["--kernels", kernels] if kernels else [])

    def ask(self, *arguments):
        out = subprocess.run(self.command + ["--seconds", "1", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout
        return json.loads(out.splitlines()[-1])

    def prefill(self, n):
        answer = self.ask("--prompt", str(n), "--depths", "")
        self.share = f"{100 * answer['share_of_peak']:.0f} % of the dot product peak, for the matrices"
        return answer["tokens_per_second"]

    def decode(self, n, depth):
        answer = self.ask("--prompt", "0", "--sequences", str(n), "--depths", str(depth))
        self.share = f"{100 * answer['share_of_bound']:.0f} % of what a plain read of the same bytes allows"
        self.bytes = answer["step_bytes"]
        return answer["tokens_per_second"]


class Peer:
    def __init__(self, name, place, model):
        folder, _, libraries = place.partition(":")
        self.name, self.folder, self.model = name, pathlib.Path(folder).resolve(), os.path.abspath(model)
        self.env = dict(os.environ, LD_LIBRARY_PATH=libraries) if libraries else None

    def run(self, program, *arguments, errors=subprocess.DEVNULL):
        command = [str(self.folder / program), "-m", self.model, "-t", str(THREADS), *arguments]
        with tempfile.TemporaryDirectory() as folder:  # some write a log where they are started
            return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=errors, text=True, env=self.env, cwd=folder).stdout

    def bench(self, *arguments):
        return json.loads(self.run("llama-bench", "-o", "json", "-r", "2", *arguments))[-1]["avg_ts"]

    def prefill(self, n):
        return self.bench("-p", str(n), "-n", "0")

    def decode(self, n, depth):
        if n == 1 and depth == 0:
            return self.bench("-p", "0", "-n", "64")
        if not (self.folder / "llama-batched-bench").exists():
            return None
        prompt = max(depth, 16)
        out = self.run("llama-batched-bench", "-npp", str(prompt), "-ntg", "32", "-npl", str(n), "-c", str(n * (prompt + 64)),
                       errors=subprocess.STDOUT)  # some print the table as a message
        rows = [line.split("|") for line in out.splitlines() if line.startswith("|")]
        return float(rows[-1][rows[0].index(next(c for c in rows[0] if c.strip() == "S_TG t/s"))])


def measure(title, engines, rounds, function):
    got = {e.name: [] for e in engines}
    for r in range(rounds):
        for e in engines if r % 2 == 0 else engines[::-1]:
            got[e.name].append(function(e))
    print(f"\n{title}")
    for e in engines:
        if None in got[e.name]:
            continue
        line = f"  {e.name:<14} {spread(got[e.name])}"
        if e.name != "minka":
            line += f"   minka is {spread([a / b for a, b in zip(got['minka'], got[e.name])], '{:.2f}')} x"
        else:
            line += f"   {e.share} (last round)"
        print(line, flush=True)
    return got


def judge_depth(got, sizes, goals):
    """got, sizes: {depth: figures of one sequence, bytes of its step}"""
    first = min(got)
    over = [statistics.median(r0 / r for r, r0 in zip(got[d], got[first])) * sizes[first] / sizes[d] for d in got]
    print("\none sequence, time per token beside the bytes that it reads, relative to depth " + str(first))
    print("  " + ", ".join(f"{d:,}: {o:.2f}" for d, o in zip(got, over)))
    goals.add("engine alone: time per token beside bytes read, worst depth", max(over), "<=", 1.15)


def run(model_bench, model, peers, rounds, goals=None, prompt=512, sequences=(1, 4, 8, 16, 64), depths=(0,), kernels=None):
    """{case: {engine: [figures]}}; peers: NAME=FOLDER[:LIBRARIES]"""
    engines = [Minka(model_bench, model, kernels)] + [Peer(*p.split("=", 1), model) for p in peers]
    figures, deep, sizes = {}, {}, {}
    print(f"\nthe engine alone, {THREADS} threads, {pathlib.Path(model).name}")
    if prompt:
        figures[f"prefill {prompt}"] = measure(f"prefill of {prompt} tokens, tokens/s", engines, rounds, lambda e: e.prefill(prompt))
    for depth in depths:
        for n in (n for n in sequences if n == 1 or depth == 0):
            title = f"decode, {n} sequence{'s' * (n > 1)} at depth {depth}, tokens/s in all"
            got = figures[f"decode {n} at {depth}"] = measure(title, engines, rounds, lambda e: e.decode(n, depth))
            if n == 1:
                deep[depth], sizes[depth] = got["minka"], engines[0].bytes
    if len(deep) > 1 and goals:
        judge_depth(deep, sizes, goals)
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_bench")
    parser.add_argument("--model", required=True)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=FOLDER[:LIBRARIES]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=512, help="0: no prefill")
    parser.add_argument("--sequences", default="1,4,8,16,64")
    parser.add_argument("--depths", default="0")
    parser.add_argument("--kernels")
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    o = parser.parse_args()
    numbers = lambda text: tuple(map(int, text.split(",")))
    figures = run(o.model_bench, o.model, o.peer, o.rounds, None, o.prompt, numbers(o.sequences), numbers(o.depths), o.kernels)
    if o.json:
        pathlib.Path(o.json).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
