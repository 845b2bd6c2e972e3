"""Parts of `make bench` that ask minka alone: curves over the length of a prompt, what guesses cost, memory."""
import json, statistics, subprocess, threading

import cases
from load import Server, Target, ask, chat_of, text_of

LENGTHS = (128, 512, 1024, 2048, 4096, 8192, 16384)
N_NEW = 48      # tokens that are made behind a prompt of each length
MIB = 1 << 20


class Goals:
    """What the run is held against; printed at its end."""

    def __init__(self):
        self.met = []

    def add(self, text, figure, sign, goal, form="{:,.2f}"):
        good = figure >= goal if sign == ">=" else figure <= goal
        self.met.append({"goal": text, "figure": figure, "sign": sign, "bound": goal, "met": bool(good)})
        print(f"  {'met   ' if good else 'MISSED'} {text}: {form.format(figure)} (goal {sign} {form.format(goal)})", flush=True)


def step_bytes(model_bench, file, depths):
    """Bytes that a step of one sequence reads at each depth: weights, K and V."""
    out = subprocess.run([model_bench, file, "--prompt", "0", "--sequences", "1", "--seconds", "0", "--depths", ",".join(map(str, depths))],
                         check=True, stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(line)["step_bytes"] for line in out.splitlines()]


def context_of(target):
    info = json.loads(target.get("/api/show", {"model": target.model}).body)["model_info"]
    return next(v for k, v in info.items() if k.endswith(".context_length"))


def lengths(target, file, model_bench, rounds, goals, name):
    """One stream behind prompts of growing length: how fast they are read and how fast it goes on."""
    context = context_of(target)
    asked = [n for n in LENGTHS if n <= context]
    got = {n: ([], [], []) for n in asked}
    for r in range(rounds):
        for n in asked:
            prompt = text_of(min(n, context - N_NEW - 64) - 8, cases.new_seed(r))  # a word is a token, the number a few
            stream = ask(target, [prompt], N_NEW, num_ctx=min(n + 512, context))[0]
            first, last, n_prompt, n_new = stream.finish()
            for values, value in zip(got[n], (n_prompt, n_prompt / (first - stream.start), (last - first) / (n_new - 1))):
                values.append(value)
    middle = {n: [statistics.median(v) for v in got[n]] for n in asked}
    depths = [int(middle[n][0]) for n in asked]
    sizes = step_bytes(model_bench, file, depths)
    per_token = [statistics.median(t / t0 for t, t0 in zip(got[n][2], got[asked[0]][2])) for n in asked]
    row = lambda title, values, form: print(f"  {title:<36}" + "".join(form.format(v) for v in values))
    print(f"\n{name}, one stream behind a prompt")
    row("tokens of the prompt", depths, "{:8,}")
    row("reading it, tokens/s", (middle[n][1] for n in asked), "{:8,.0f}")
    row("then, tokens/s", (1 / middle[n][2] for n in asked), "{:8,.0f}")
    row("time per token, times the first", per_token, "{:8.2f}")
    row("bytes read, times the first", (b / sizes[0] for b in sizes), "{:8.2f}")
    over = [t * sizes[0] / b for t, b in zip(per_token, sizes)]
    row("time / bytes", over, "{:8.2f}")
    goals.add(f"{name}: time per token beside bytes read, worst depth", max(over), "<=", 1.15)
    return {n: {"prompt_tokens": v[0], "prompt_per_s": v[1], "seconds_per_token": v[2], "bytes": b} for (n, v), b in zip(got.items(), sizes)}


def guesses(target, goals):
    """Rows that were verified in vain in free text. Counted, so that noise hardly matters: only what a guess may cost depends on
    measured steps."""
    print("\nguesses in free text (chats), counted")
    print(f"  {'temperature':>11} {'streams':>8} {'rows':>8} {'verified':>9} {'in vain':>9} {'of rows':>8} {'of the time':>12} {'tokens that came of them':>25}")
    out, worst = {}, 0
    for temperature in (0.8, 1.2):
        for n in (1, 4, 8, 16):
            before, n_tokens = target.idle_ps(), 0
            for rep in range(max(1, 8 // n)):
                streams = ask(target, [chat_of(100 * n + 10 * rep + i) for i in range(n)], 192, temperature=temperature, guess=True)
                n_tokens += sum(s.finish()[3] for s in streams)
            after = target.idle_ps()
            rows, ns = (after[k] - before[k] for k in ("rows", "steps_duration"))
            verified, drawn, lost_ns = (after["guesses"][k] - before["guesses"][k] for k in ("verified", "drawn", "lost_duration"))
            vain, lost = (verified - drawn) / rows, lost_ns / ns
            print(f"  {temperature:11} {n:8} {rows:8,} {verified:9,} {verified - drawn:9,} {vain:8.1%} {lost:12.1%} {drawn / n_tokens:25.1%}",
                  flush=True)
            out[f"{temperature}/{n}"] = {"rows": rows, "verified": verified, "drawn": drawn, "tokens": n_tokens, "lost_share": lost}
            worst = max(worst, lost)
    goals.add("share of the time that guesses in vain cost, worst case", worst * 100, "<=", 2, "{:.1f} %")
    return out


def kv_token_bytes(target):
    """f16 keys and values of one token; layers with a window are counted as the others."""
    info = json.loads(target.get("/api/show", {"model": target.model}).body)["model_info"]
    key = {k.split(".", 1)[1]: v for k, v in info.items() if not k.startswith("general.")}
    head = key["embedding_length"] // key["attention.head_count"]
    per_layer = key["attention.head_count_kv"] * (key.get("attention.key_length", head) + key.get("attention.value_length", head))
    return key["block_count"] * per_layer * 2


def memory(minka, store, name, goals):
    """16 streams half-way on a fresh server."""
    with Server(minka, store) as server:
        target = Target("minka", server.url, name)
        ask(target, ["warm up"], 2)[0].finish()
        seen, n_prompt = [], 0

        def look(streams):
            seen.append((target.process_memory(), sum(len(s.times) for s in streams), target.ps()["memory"]))

        for s in ask(target, [text_of(60, cases.new_seed(i)) for i in range(16)], 256, look):
            n_prompt += s.finish()[2]
        resident, n_new, booked = seen[0]
        kv = (n_prompt + n_new) * kv_token_bytes(target)
        print("\nresident memory (proportional set size of both processes), 16 streams half-way, a fresh server")
        for title, value in (("resident", resident), ("weights", booked["weights"]), (f"KV of {n_prompt + n_new:,} tokens held", kv),
                             ("everything else", resident - booked["weights"] - kv), ("KV extents of the pool", booked["kv"]),
                             ("scratch as booked", booked["scratch"])):
            print(f"  {title:<32} {value / MIB:8.1f} MiB")
        goals.add("resident beyond weights and 1.1 times that KV, MiB", (resident - booked["weights"] - 1.1 * kv) / MIB, "<=", 60, "{:.1f}")
        return {"resident": resident, "kv_tokens": kv} | booked


def limited(minka, store, name, goals, limit="400M"):
    """All kinds of load on a server with little memory: nothing fails, and it stays below."""
    with Server(minka, store, MINKA_MEMORY=limit) as server:
        target = Target("minka", server.url, name)
        ask(target, ["warm up"], 2)[0].finish()
        over, peak = threading.Event(), [0]

        def watch():
            while not over.wait(0.05):
                peak[0] = max(peak[0], target.process_memory())

        watcher = threading.Thread(target=watch)
        watcher.start()
        failed = []
        try:
            for case in ("decode1", "decode4", "decode16", "decode64", "chat16", "edit16", "prompt1300", "mixed") * 2:
                try:
                    cases.CASES[case][1](target, cases.new_seed(0))
                except RuntimeError as e:
                    failed.append(f"{case}: {e}")
        finally:
            over.set()
            watcher.join()
    print(f"\nMINKA_MEMORY={limit}, 1 to 64 streams, long prompts, mixed load, twice")
    goals.add("requests that failed", len(failed), "<=", 0, "{:.0f}")
    goals.add("most resident at any time, MiB", peak[0] / MIB, "<=", 400, "{:.0f}")
    return {"failed": failed, "peak": peak[0]}
