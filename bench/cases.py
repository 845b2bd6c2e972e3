"""The cases that are asked through HTTP, of minka and of every peer in turn."""
import statistics, time

from load import ask, chat_of, edit_of, spread, text_of

STREAMS = (1, 2, 4, 8, 16, 32, 64)


def case_stream(target, n_streams, seed, n=128, prompt=lambda seed: text_of(12, seed), **how):
    streams = ask(target, [prompt(seed * 100 + i) for i in range(n_streams)], n, **how)
    ends = [s.finish() for s in streams]
    if n_streams == 1:
        first, last, _, tokens = ends[0]
        return (tokens - 1) / (last - first)
    return sum(e[3] for e in ends) / (max(e[1] for e in ends) - min(s.start for s in streams))


def case_prompt(target, n_words, seed):
    stream = ask(target, [text_of(n_words, seed)], 1)[0]
    first, _, tokens, _ = stream.finish()
    return tokens / (first - stream.start)


def case_mixed(target, seed):
    """8 at once, prompts of about 360 tokens, 64 new ones each: total output rate, and the 99th percentile gap in ms."""
    streams = ask(target, [text_of(330, seed * 100 + i) for i in range(8)], 64)
    ends = [s.finish() for s in streams]
    gaps = sorted(b - a for s in streams for a, b in zip(s.times, s.times[1:]))
    rate = sum(e[3] for e in ends) / (max(e[1] for e in ends) - min(s.start for s in streams))
    return rate, gaps[int(len(gaps) * 0.99)] * 1000 if gaps else float("nan")


def case_one_token(target, seed):
    ask(target, ["1"], 1)[0].finish()
    stream = ask(target, [f"{seed} is"], 1)[0]
    return (stream.finish()[0] - stream.start) * 1000


def case_memory(target, seed):
    seen = []
    streams = ask(target, [text_of(12, seed * 100 + i) for i in range(16)], 128, lambda _: seen.append(target.process_memory()))
    [s.finish() for s in streams]
    return (seen[0] if seen else target.process_memory()) / 1e6


def streams_case(n):
    n_tokens = 128 if n < 16 else 96 if n < 64 else 64
    return f"{n} stream{'s' * (n > 1)}, tokens/s in total", lambda t, s: case_stream(t, n, s, n_tokens), True


CHAT = "a chat at temperature 0.8 as a user gets it"
CASES = {f"decode{n}": streams_case(n) for n in STREAMS} | {  # name: (what is printed, function, more is better)
    "chat1": (f"1 stream, {CHAT}, tokens/s", lambda t, s: case_stream(t, 1, s, prompt=chat_of, temperature=0.8, guess=True), True),
    "chat16": (f"16 streams, {CHAT}, tokens/s", lambda t, s: case_stream(t, 16, s, prompt=chat_of, temperature=0.8, guess=True), True),
    "edit1": ("1 stream that repeats much of its prompt, tokens/s", lambda t, s: case_stream(t, 1, s, prompt=edit_of, guess=True), True),
    "edit16": ("16 streams that repeat much of their prompts, tokens/s", lambda t, s: case_stream(t, 16, s, prompt=edit_of, guess=True), True),
    "prompt512": ("prompt of about 512 tokens, tokens/s", lambda t, s: case_prompt(t, 480, s), True),
    "prompt1300": ("prompt of about 1,300 tokens, tokens/s", lambda t, s: case_prompt(t, 1220, s), True),
    "mixed": ("8 prompts of 360 + 64 new each, tokens/s", lambda t, s: case_mixed(t, s)[0], True),
    "mixed_gap": ("the same, 99th percentile gap, ms", lambda t, s: case_mixed(t, s)[1], False),
    "one_token": ("one-token request, ms", case_one_token, False),
    "memory16": ("resident MB with 16 streams half-way", case_memory, False),
}


def new_seed(r):
    return int(time.time() * 1000) % 1000000 * 10 + r


def measure(name, targets, rounds):
    """{target: [figures]}"""
    title, function, more = CASES[name]
    got = {t.name: [] for t in targets}
    for r in range(rounds):
        for t in targets if r % 2 == 0 else targets[::-1]:
            got[t.name].append(function(t, new_seed(r)))
    print(f"\n{title}")
    for t in targets:
        line = f"  {t.name:<12} {spread(got[t.name], '{:,.1f}')}"
        if t.name != "minka":
            ratios = [a / b if more else b / a for a, b in zip(got["minka"], got[t.name])]
            line += f"   minka is {spread(ratios, '{:.2f}')} x"
        print(line, flush=True)
    return got


GOALS = {  # case: times the best peer
    "decode1": 1.4, "decode4": 5, "decode8": 5, "decode16": 5, "prompt1300": 8, "mixed": 5,
}


def judge_peers(got, goals):
    for case, goal in GOALS.items():
        rounds = list(zip(*(values for name, values in got.get(case, {}).items() if name != "minka")))
        if rounds:
            ratios = [mine / max(theirs) for mine, theirs in zip(got[case]["minka"], rounds)]
            goals.add(f"{CASES[case][0]}, times the best peer", statistics.median(ratios), ">=", goal)


def judge_streams(got, goals):
    """What a further stream costs."""
    rates = {n: statistics.median(got[f"decode{n}"]["minka"]) for n in STREAMS if f"decode{n}" in got}
    if len(rates) < 2:
        return
    first = min(rates)
    row = lambda title, values, form: print(f"  {title:<36}" + "".join(form.format(v) for v in values))
    print("\nstreams, minka")
    row("at once", rates, "{:8}")
    row("tokens/s in total", rates.values(), "{:8,.0f}")
    row(f"a step takes, times that of {first}", (n / r * rates[first] / first for n, r in rates.items()), "{:8.2f}")
    if 16 in rates and 64 in rates:
        goals.add("64 streams, times the total of 16", rates[64] / rates[16], ">=", 1)


def judge(got, goals):
    """got: {case: {target: figures}}"""
    judge_streams(got, goals)
    judge_peers(got, goals)
    for case, bound in (("one_token", 8), ("mixed_gap", 60)):
        if case in got:
            goals.add(CASES[case][0], statistics.median(got[case]["minka"]), "<=", bound)
