"""Part "models" of `make bench`: what is left of the speed of two models when both are busy, and what a switch costs when only
one may be loaded.

beside  one stream each, a window long, alone and then together: the sum of rate beside / rate alone (1 = nothing is lost)
switch  last token of one model to the first token of the other, without the time that the other takes to its first token
        when it is loaded; the files are in the page cache
"""
import http.client, json, pathlib, sys, threading, time

from load import Server, spread

PROMPT = "Once upon a time there was a small village"


class Clients(Server):
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


def beside(program, store, names, rounds):
    kept = []
    with Clients(program, store) as s:
        for m in names:
            list(s.stream(m, 4))
        for _ in range(rounds):
            alone = {m: s.rates([m], 2)[m] for m in names}
            both = s.rates(names, 4)
            kept.append(sum(both[m] / alone[m] for m in names))
            print(f"#   alone {alone[names[0]]:.0f} and {alone[names[1]]:.0f} tokens/s, together {both[names[0]]:.0f} and {both[names[1]]:.0f}")
    return kept


def first_token_ms(s, model, count):
    """From the request to its first token; a prompt that is new each time, so that nothing is cached."""
    start = time.perf_counter()
    first = None
    for t in s.stream(model, 4, f"{count} {PROMPT}"):
        first = first or t
    return (first - start) * 1000


def switch(program, store, names, rounds):
    costs, count = {m: [] for m in names}, 0
    with Clients(program, store, OLLAMA_MAX_LOADED_MODELS="1") as s:
        for m in names + names:
            list(s.stream(m, 4))
        for _ in range(rounds):
            for m in names:  # the other one is loaded now
                count += 3
                waited = first_token_ms(s, m, count)
                loaded = min(first_token_ms(s, m, count + 1), first_token_ms(s, m, count + 2))
                costs[m].append(waited - loaded)
    return costs


def measure(program, store, names, rounds):
    """Two models of the store; {what: [figures]}"""
    print(f"\ntwo models, {pathlib.Path(program).name}", flush=True)
    got = {"beside": beside(program, store, names, rounds)}
    print(f"  both busy, rates beside / alone {spread(got['beside'], '{:.2f}')}", flush=True)
    for name, costs in switch(program, store, names, rounds).items():
        got[f"switch to {name}"] = costs
        print(f"  switch to {name}, ms {spread(costs)}", flush=True)
    return got
