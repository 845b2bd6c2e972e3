#!/usr/bin/env python3
"""make bench: minka on this machine, and beside it any peers that are running; ratios with spread, curves, goals.

usage: bench.py PATH-OF-MINKA [--only PART,...] [--rounds N] [--json FILE] [--model FILE.gguf] [--other FILE.gguf]
                [--peer NAME=URL[=MODEL]]... [--engine NAME=FOLDER[:LIBRARIES]]... [--program PATH]... [--tools FOLDER]

The parts, in this order; a name of a case of "http" is a part too:
  http      what is compared through HTTP: 1 to 64 streams, prompts, mixed load, one token, memory
  lengths   a stream behind prompts of 128 to 16k tokens: how fast they are read, how fast it goes on (both models)
  guesses   rows of guessed tokens that were verified in vain, counted
  memory    what is resident, term by term; and all kinds of load with MINKA_MEMORY=400M
  models    two models at once, and what a switch costs
  engine    without HTTP: prefill, 1 to 64 sequences, depth, beside the peak and the read rate of the same run
  kernels   the matrix kernels and attention alone, beside the same
--peer is a running server that speaks Ollama's or OpenAI's API, with the same model file loaded; MODEL is the name to ask it for
(default: smollm2:135m). --engine is a folder with a peer's llama-bench and llama-batched-bench. --program is one whose `serve`
follows OLLAMA_HOST, OLLAMA_MODELS and OLLAMA_MAX_LOADED_MODELS (part "models"). --tools is where model_bench is (default: bench
beside the program).

minka is started by this program with a store of its own. Every case asks minka and each peer in turn, round by round; figures are
medians over the rounds, in brackets smallest and largest; "x" is minka / peer of the same round. Cases that are compared ask minka
for no guesses, but for chat* and edit*.
"""
import argparse, json, os, pathlib, subprocess, sys, tempfile, time

import cases, engine_bench, kernels, models_bench, parts
from load import Server, Target, ask, import_models

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAME, OTHER = "smollm2:135m", "gemma3:270m"
PARTS = ("http", "lengths", "guesses", "memory", "models", "engine", "kernels")
DEPTHS = (0, 4096, 8000)  # of one sequence, of the small model
SERVED = ("http", "lengths", "guesses")


def fetch(name):
    return subprocess.run([sys.executable, str(ROOT / "tools" / "fetch_model.py"), name], check=True, stdout=subprocess.PIPE,
                          text=True).stdout.strip()


def options_read():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minka")
    parser.add_argument("--only", default=",".join(PARTS), help="parts: " + ", ".join(PARTS + tuple(cases.CASES)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    parser.add_argument("--model", help="GGUF file (default: the small model of make run)")
    parser.add_argument("--other", help="GGUF file of the second model (default: Gemma 3 270M)")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=URL[=MODEL]")
    parser.add_argument("--engine", action="append", default=[], metavar="NAME=FOLDER[:LIBRARIES]")
    parser.add_argument("--program", action="append", default=[], metavar="PATH")
    parser.add_argument("--tools", help="folder of model_bench, kern_bench and attend_bench")
    o = parser.parse_args()
    o.only = o.only.split(",")
    unknown = set(o.only) - set(PARTS) - set(cases.CASES)
    if unknown:
        parser.error("unknown parts: " + ", ".join(sorted(unknown)))
    o.minka = os.path.abspath(o.minka)
    beside = pathlib.Path(o.minka).parent
    o.tools = pathlib.Path(o.tools) if o.tools else next((f for f in (beside / "bench", beside.parent / "bench") if f.is_dir()), beside)
    return o


def served(o, store, files, goals):
    """The parts that ask one server of ours."""
    figures = {}
    names = list(cases.CASES) if "http" in o.only else [c for c in o.only if c in cases.CASES]
    if not names and not set(SERVED) & set(o.only):
        return figures
    with Server(o.minka, store) as server:
        targets = [Target("minka", server.url, NAME)]
        for peer in o.peer:
            name, url, *rest = peer.split("=")
            targets.append(Target(name, url, rest[0] if rest else NAME))
        for t in targets:
            ask(t, ["warm up"], 2)[0].finish()
        for name in names:
            figures[name] = cases.measure(name, targets, o.rounds)
        cases.judge(figures, goals)
        if "lengths" in o.only:
            for name, path in files.items():
                model = Target("minka", server.url, name)
                ask(model, ["warm up"], 2)[0].finish()
                figures[f"lengths {name}"] = parts.lengths(model, path, o.tools / "model_bench", o.rounds, goals, name)
        if "guesses" in o.only:
            figures["guesses"] = parts.guesses(targets[0], goals)
    return figures


def run(o, store, goals):
    files = {NAME: o.model or fetch("smollm2")}
    if {"lengths", "models"} & set(o.only):
        files[OTHER] = o.other or fetch("gemma3")
    import_models(o.minka, store, files)
    print(f"{os.cpu_count()} processors, {o.rounds} rounds, {pathlib.Path(files[NAME]).name}, {time.strftime('%Y-%m-%d %H:%M')}, load "
          f"average {os.getloadavg()[0]:.1f}", flush=True)
    figures = served(o, store, files, goals)
    if "memory" in o.only:
        figures["memory"] = parts.memory(o.minka, store, NAME, goals)
        figures["limited"] = parts.limited(o.minka, store, NAME, goals)
    if "models" in o.only:
        figures["models"] = {p: models_bench.measure(p, store, tuple(files), o.rounds) for p in [o.minka] + o.program}
    if "engine" in o.only:
        figures["engine"] = engine_bench.run(o.tools / "model_bench", files[NAME], o.engine, o.rounds, goals, depths=DEPTHS)
    if "kernels" in o.only:
        figures["kernels"] = kernels.run(o.tools, goals)
    return figures


def main():
    o = options_read()
    goals = parts.Goals()
    with tempfile.TemporaryDirectory(prefix="minka-bench-") as store:
        figures = run(o, store, goals)
    if goals.met:
        print(f"\n{sum(g['met'] for g in goals.met)} of {len(goals.met)} goals met")
    for g in goals.met:
        if not g["met"]:
            print(f"  missed: {g['goal']}: {g['figure']:.2f}, goal {g['sign']} {g['bound']}")
    if o.json:
        pathlib.Path(o.json).write_text(json.dumps(figures | {"goals": goals.met}, indent=1))


if __name__ == "__main__":
    main()
