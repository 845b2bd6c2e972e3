#!/usr/bin/env python3
"""Two models in one server: what is left of their speed when both are busy, and what a switch costs when only one may be
loaded.

usage: models_bench.py PATH-OF-MINKA [--program OTHER]... [--rounds N] [--model FILE.gguf --other FILE.gguf]

beside  one stream each, a window long, alone and then together: the sum of rate beside / rate alone (1 = nothing is lost)
switch  last token of one model to the first token of the other, without the time that the other takes to its first token
        when it is loaded; the files are in the page cache
OTHER is a program whose `serve` follows OLLAMA_HOST, OLLAMA_MODELS and OLLAMA_MAX_LOADED_MODELS as the reference does; it is
given the same store. Figures are medians over the rounds, in brackets smallest and largest.
"""
import argparse, http.client, json, os, pathlib, shutil, signal, socket, statistics, subprocess, sys, tempfile, threading, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAMES = ("one", "two")
PROMPT = "Once upon a time there was a small village"


class Server:
    def __init__(self, program, store, **env):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.folder = tempfile.mkdtemp(prefix="minka-bench-")
        self.env = dict(os.environ, OLLAMA_HOST=f"127.0.0.1:{self.port}", OLLAMA_MODELS=store, HOME=self.folder, **env)
        self.log = open(os.path.join(self.folder, "log"), "w")
        self.process = subprocess.Popen([program, "serve"], env=self.env, stdout=self.log, stderr=self.log)
        for _ in range(400):
            try:
                self.connect().request("GET", "/api/version")
                return
            except OSError:
                time.sleep(0.05)
        sys.exit(f"Error: {program} does not start: " + open(self.log.name).read())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def stream(self, model, n, prompt=PROMPT, seed=1):
        """Yields the moment of each token."""
        c = self.connect()
        c.request("POST", "/api/generate", json.dumps({
            "model": model, "prompt": prompt, "raw": True, "keep_alive": "10m",
            "options": {"num_predict": n, "temperature": 1, "top_k": 0, "top_p": 1, "num_ctx": 4096, "seed": seed}}))
        r = c.getresponse()
        for line in r:
            now = time.perf_counter()
            line = json.loads(line)
            if "error" in line:
                sys.exit("Error: " + line["error"])
            if line["response"]:
                yield now
        c.close()

    def rates(self, models, seconds):
        """Tokens per second of each model in a window in which all of them run."""
        times, stop = {m: [] for m in models}, threading.Event()

        def read(m):
            seed = 0
            while not stop.is_set():
                seed += 1
                for t in self.stream(m, 2000, seed=seed):
                    times[m].append(t)
                    if stop.is_set():
                        return

        threads = [threading.Thread(target=read, args=(m,)) for m in models]
        for t in threads:
            t.start()
        while not all(times.values()):
            time.sleep(0.01)
        start = time.perf_counter() + 0.2
        time.sleep(0.2 + seconds)
        end = time.perf_counter()
        stop.set()
        for t in threads:
            t.join()
        return {m: sum(start <= t < end for t in times[m]) / (end - start) for m in models}


def spread(values, unit):
    return f"{statistics.median(values):8.2f} [{min(values):.2f}..{max(values):.2f}] {unit}"


def beside(program, store, rounds):
    kept = []
    with Server(program, store) as s:
        for m in NAMES:
            list(s.stream(m, 4))
        for _ in range(rounds):
            alone = {m: s.rates([m], 2)[m] for m in NAMES}
            both = s.rates(NAMES, 4)
            kept.append(sum(both[m] / alone[m] for m in NAMES))
            print(f"#   alone {alone['one']:.0f} and {alone['two']:.0f} tokens/s, together {both['one']:.0f} and {both['two']:.0f}")
    return kept


def first_token_ms(s, model, count):
    """From the request to its first token; a prompt that is new each time, so that nothing is cached."""
    start = time.perf_counter()
    first = None
    for t in s.stream(model, 4, f"{count} {PROMPT}"):
        first = first or t
    return (first - start) * 1000


def switch(program, store, rounds):
    costs, count = {m: [] for m in NAMES}, 0
    with Server(program, store, OLLAMA_MAX_LOADED_MODELS="1") as s:
        for m in NAMES + NAMES:
            list(s.stream(m, 4))
        for _ in range(rounds):
            for m in NAMES:  # the other one is loaded now
                count += 3
                waited = first_token_ms(s, m, count)
                loaded = min(first_token_ms(s, m, count + 1), first_token_ms(s, m, count + 2))
                costs[m].append(waited - loaded)
    return costs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minka")
    parser.add_argument("--program", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", help="GGUF file (default: the small model of make run)")
    parser.add_argument("--other", help="GGUF file (default: Gemma 3 270M)")
    options = parser.parse_args()
    fetch = lambda name: subprocess.run([sys.executable, str(ROOT / "tools" / "fetch_model.py"), name], check=True,
                                        stdout=subprocess.PIPE, text=True).stdout.strip()
    files = dict(zip(NAMES, (options.model or fetch("smollm2"), options.other or fetch("gemma3"))))
    with tempfile.TemporaryDirectory(prefix="minka-bench-") as store:
        for name, path in files.items():
            subprocess.run([options.minka, "import", path, name], env=dict(os.environ, OLLAMA_MODELS=store), check=True,
                           stdout=subprocess.DEVNULL)
            print(f"{name}: {pathlib.Path(path).name}, {os.path.getsize(path) / 1e6:.0f} MB")
        for program in [options.minka] + options.program:
            print(pathlib.Path(program).name)
            print("  beside        " + spread(beside(program, store, options.rounds), "of one alone"), flush=True)
            for name, costs in switch(program, store, options.rounds).items():
                print(f"  switch to {name} " + spread(costs, "ms"), flush=True)


main()
