#!/usr/bin/env python3
"""minka's engine beside those of other servers, without HTTP: alternating in one run, on the same file; ratios with spread.

usage: engine_bench.py PATH-OF-model_bench --model FILE.gguf [--peer NAME=FOLDER[:LIBRARIES]]... [--rounds N] [--prompt 512]
                       [--sequences 1,4,8,16,64] [--depths 0] [--kernels NAME] [--json FILE]

FOLDER holds the peer's llama-bench (prefill, one sequence) and, where it has one, llama-batched-bench (more sequences);
LIBRARIES is put in front of its library path. Every round asks each engine in turn, for one case after the other: what
disturbs the machine disturbs all of them. Figures are medians over the rounds, in brackets smallest and largest; "x" is
minka / peer of the same round. Depths other than 0 are measured for one sequence.
"""
import argparse, json, os, pathlib, statistics, subprocess, tempfile, time

THREADS = len(os.sched_getaffinity(0))


class Minka:
    name = "minka"

    def __init__(self, path, model, kernels):
        self.command = [path, model] + (["--kernels", kernels] if kernels else [])

    def ask(self, *arguments):
        out = subprocess.run(self.command + ["--seconds", "1", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout
        return json.loads(out.splitlines()[-1])

    def prefill(self, n):
        return self.ask("--prompt", str(n), "--depths", "")["tokens_per_second"]

    def decode(self, n, depth):
        answer = self.ask("--prompt", "0", "--sequences", str(n), "--depths", str(depth))
        self.share = answer["share_of_bound"]
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


def spread(values, form="{:,.0f}"):
    return f"{form} [{form}..{form}]".format(statistics.median(values), min(values), max(values))


def measure(title, engines, rounds, function):
    got, shares = {e.name: [] for e in engines}, []
    for r in range(rounds):
        for e in engines if r % 2 == 0 else engines[::-1]:
            e.share = None
            got[e.name].append(function(e))
            if e.share:
                shares.append(e.share)
    print(f"\n{title}")
    for e in engines:
        if None in got[e.name]:
            continue
        line = f"  {e.name:<14} {spread(got[e.name])}"
        if e.name != "minka":
            line += f"   minka is {spread([a / b for a, b in zip(got['minka'], got[e.name])], '{:.2f}')} x"
        elif shares:
            line += f"   {100 * statistics.median(shares):.0f} % of what a plain read of the same bytes allows"
        print(line, flush=True)
    return got


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
    engines = [Minka(o.model_bench, o.model, o.kernels)]
    engines += [Peer(*p.split("=", 1), o.model) for p in o.peer]
    print(f"{THREADS} threads, {o.rounds} rounds, {pathlib.Path(o.model).name}, {time.strftime('%Y-%m-%d %H:%M')}")
    cases = [("prefill", o.prompt, 0)] if o.prompt else []
    for depth in map(int, o.depths.split(",")):
        cases += [("decode", n, depth) for n in map(int, o.sequences.split(",")) if n == 1 or depth == 0]
    figures = {}
    for kind, n, depth in cases:
        if kind == "prefill":
            title, function = f"prefill of {n} tokens, tokens/s", lambda e: e.prefill(n)
        else:
            title = f"decode, {n} sequence{'s' * (n > 1)} at depth {depth}, tokens/s in all"
            function = lambda e: e.decode(n, depth)
        figures[title] = measure(title, engines, o.rounds, function)
    if o.json:
        pathlib.Path(o.json).write_text(json.dumps(figures, indent=1))


main()
