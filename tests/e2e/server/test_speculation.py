#!/usr/bin/env python3
"""Guessing tokens ahead changes nothing but the number of steps: the same events, one per token, the same text, counts,
log probabilities and hash over all logits, for every way of sampling, for answers that end or shift inside a guess,
alone and in a crowd. (Answers that go on after an engine crash: tests/unit/engine/test_speculation.c.)"""
import json, os, random, sys

from harness import Server, TINY, main, real_model, together

REAL = os.environ.get("MINKA_E2E_TINY") != "1"
CODE = """def area(width, height):
    result = width * height
    return result

def volume(width, height, depth):
    result = width * height * depth
    return result

"""


def servers():
    model = {"m": real_model() if REAL else TINY}
    return Server(model, env={"MINKA_SPECULATION": "always"}), Server(model, env={"MINKA_SPECULATION": "0"})


def bodies():
    """Prompts that repeat themselves, and every option that a guess could get in the way of."""
    r = random.Random(11)
    base = {"num_predict": 40, "num_ctx": 512}
    cases = [
        {"temperature": 0},
        {"temperature": 0, "repeat_penalty": 1.3, "repeat_last_n": 8},
        {"temperature": 0.3, "seed": 3, "frequency_penalty": 0.1, "presence_penalty": -0.5, "repeat_last_n": -1},
        {"temperature": 0.7, "seed": 4},
        {"temperature": 1.0, "seed": 5, "top_k": 0, "top_p": 1.0},
        {"temperature": 1.0, "seed": 6, "typical_p": 0.6, "top_k": 0},
        {"temperature": 0, "stop": ["height\n", "return"]},
        {"temperature": 0, "draft_num_predict": 2},
        {"temperature": 0, "draft_num_predict": 0},
    ]
    cases += [{"temperature": 0, "num_predict": n} for n in range(1, 12)]
    cases += [{"temperature": 0, "num_ctx": n, "num_predict": 60} for n in range(100, 108)]  # the context shifts
    out = []
    for i, options in enumerate(cases):
        prompt = CODE * r.randrange(1, 4) + f"# {i}\ndef area("
        out.append({"model": "m", "prompt": prompt, "raw": True, "options": {**base, **options}})
    schema = {"type": "object", "required": ["w"], "properties": {
        "w": {"type": "array", "minItems": 6, "maxItems": 9, "items": {"type": "object", "required": ["width", "height"],
              "properties": {"width": {"type": "integer"}, "height": {"enum": ["width", "height", "depth"]}}}}}}
    for i, form in enumerate(["json", schema, schema]):
        item = '{"width": 12, "height": "depth"}'
        out.append({"model": "m", "prompt": f'# {i}\n{{"w": [{item}, {item}, {item}]}}\n{{"w": [{item}, {item}]}}\n', "raw": True,
                    "format": form, "options": {**base, "num_predict": 90, "temperature": 0.4 * i, "seed": i}})
    for i, body in enumerate(out):
        if i % 3 == 0:
            body |= {"logprobs": True, "top_logprobs": 3}
    return out


def events_of(lines):
    """All that a client sees, but times."""
    assert lines and "error" not in lines[-1], lines[-1:]
    return [{k: v for k, v in line.items() if not k.endswith(("_duration", "_at"))} for line in lines]


def test_the_same_events_with_and_without():
    with servers()[0] as with_, servers()[1] as without:
        n_saved, alone = 0, []
        for body in bodies():
            before = with_.ps()["steps"]
            got = events_of(with_.stream("/api/generate", body))
            want = events_of(without.stream("/api/generate", body))
            alone.append(want)
            assert got == want, (body, got[-1], want[-1])
            steps = with_.wait_for(lambda: with_.ps()["queue"]["running"] == 0 and with_.ps()["steps"]) - before
            if body["options"].get("draft_num_predict") == 0:
                assert steps >= want[-1]["eval_count"], "draft_num_predict 0 turns it off"
            else:
                n_saved += max(0, want[-1]["eval_count"] - steps)
        print(f"# {n_saved} steps fewer")
        assert n_saved > 20, n_saved
        crowd = together([lambda b=b: events_of(with_.stream("/api/generate", b)) for b in bodies()])
        assert crowd == alone


if __name__ == "__main__":
    main(sys.modules[__name__])
