#!/usr/bin/env python3
"""Constrained answers: every document is valid for PyPI's jsonschema, whatever the model wants to say; the same bytes
in any company; errors by the keyword's path; the official clients. Release builds use the real model where it is
there, sanitizer builds the tiny one with random weights, which wants to say anything."""
import json, os, subprocess, sys

from harness import ROOT, Server, TINY, main, real_model, together
from test_clients import client_python, run_client

REAL = os.environ.get("MINKA_E2E_TINY") != "1"

PERSON = {"type": "object", "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 40},
                                           "age": {"type": "integer", "minimum": 0, "maximum": 130}},
          "required": ["name", "age"], "additionalProperties": False}

MORE = [
    PERSON,
    {"type": "object", "properties": {"when": {"type": "string", "format": "date"}, "score": {"type": "number", "minimum": -1.5, "maximum": 2.25},
                                      "step": {"type": "integer", "multipleOf": 5, "exclusiveMaximum": 1000}}, "required": ["when", "score", "step"]},
    {"type": "array", "prefixItems": [{"type": "string", "maxLength": 12}, {"type": "boolean"}], "items": {"enum": [1, None, "x"]},
     "minItems": 2, "maxItems": 5},
    {"type": "object", "properties": {"id": {"type": "string", "format": "uuid"}}, "required": ["id"],
     "patternProperties": {"^x-[a-z]{1,8}$": {"type": "integer"}}, "additionalProperties": False},
    {"oneOf": [{"type": "object", "properties": {"kind": {"const": "circle"}, "r": {"type": "number", "exclusiveMinimum": 0}}, "required": ["kind", "r"]},
               {"type": "object", "properties": {"kind": {"const": "square"}, "side": {"type": "integer"}}, "required": ["kind", "side"]}]},
    {"allOf": [{"type": "string", "pattern": "^[A-Z]"}, {"pattern": "[0-9]$"}, {"maxLength": 10}]},
    {"type": "object", "properties": {"a": {"type": "string", "maxLength": 8}}, "additionalProperties": {"type": "integer"}, "maxProperties": 4},
    {"type": "string", "format": "ipv4"},
]

CHECK = r'''
import json, sys
from jsonschema import Draft202012Validator, FormatChecker
n = 0
for line in open(sys.argv[1]):
    schema, text = json.loads(line)
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(json.loads(text))
    n += 1
print(n)
'''


def model_path():
    return real_model() if REAL else TINY


def body(schema, seed, n=120, temperature=1.5, **more):
    return dict({"model": "m", "prompt": "Write a short JSON document.", "format": schema, "stream": False,
                 "options": {"seed": seed, "num_predict": n, "temperature": temperature, "top_k": 0, "top_p": 1.0}}, **more)


def bytes_of(answer):
    assert "error" not in answer, answer
    return answer["response"], answer["done_reason"], answer["eval_count"], answer["debug"]["logits_hash"]


def schemas():
    golden = json.loads((ROOT / "tests" / "golden" / "data" / "schemas.json").read_text())
    # Strings and objects without any bound may go on until they are cut.
    return [c["schema"] for c in golden["schemas"]] + MORE


def test_documents_are_valid():
    seeds = range(3 if REAL else 1)
    with Server({"m": model_path()}) as s:
        jobs = [(schema, body(schema, seed)) for seed in seeds for schema in schemas()]
        answers = []
        for i in range(0, len(jobs), 16):
            answers += together([lambda b=b: s.post("/api/generate", b)[1] for _, b in jobs[i:i + 16]])
        whole = []
        for (schema, _), a in zip(jobs, answers):
            assert "error" not in a, (schema, a)
            if a["done_reason"] == "stop":
                whole.append([schema, a["response"]])
        assert len(whole) > 0.6 * len(jobs), (len(whole), len(jobs))
        path = os.path.join(s.folder, "documents")
        with open(path, "w") as f:
            for entry in whole:
                f.write(json.dumps(entry) + "\n")
        got = subprocess.run([str(client_python()), "-c", CHECK, path], capture_output=True, text=True)
        assert got.returncode == 0, got.stderr[-3000:]
        assert int(got.stdout) == len(whole)
        print(f"# {len(whole)} whole documents of {len(jobs)}")


def test_same_bytes_alone_and_in_a_crowd():
    bodies = [body(schema, seed=i, n=48) for i, schema in enumerate(MORE + [PERSON, "json", "json", MORE[1]])]
    with Server({"m": model_path()}) as s:
        crowd = [bytes_of(a) for _, a in together([lambda b=b: s.post("/api/generate", b) for b in bodies])]
        again = [bytes_of(s.post("/api/generate", b)[1]) for b in bodies]
    with Server({"m": model_path()}, env={"MINKA_THREADS": "1", "MINKA_SPECULATION": "always"}) as s:
        alone = [bytes_of(s.post("/api/generate", b)[1]) for b in bodies]
    assert crowd == alone
    assert again == alone


def test_streams_and_cuts():
    with Server({"m": model_path()}) as s:
        ask = body(PERSON, 3, stream=True)
        parts = s.stream("/api/generate", ask)
        text = "".join(p["response"] for p in parts)
        assert text == s.post("/api/generate", body(PERSON, 3))[1]["response"]
        assert set(json.loads(text)) == {"name", "age"} and parts[-1]["done_reason"] == "stop"
        cut = s.post("/api/generate", body(PERSON, 3, n=3))[1]
        assert cut["done_reason"] == "length" and cut["response"].startswith("{"), cut
        free = [s.post("/api/generate", body(f, 3, n=8))[1]["response"] for f in ("", None)]
        assert free[0] == free[1]


def test_errors():
    with Server({"m": model_path()}) as s:
        engine = s.engine_pid()
        for schema, want in (
                ({"type": "object", "properties": {"a": {"not": {}}}}, "schema keyword at /properties/a/not is not supported"),
                ({"type": "string", "pattern": "(?=x)"}, "schema keyword at /pattern is not supported"),
                ({"type": "nothing"}, "schema keyword at /type must be"),
                ({"allOf": [{"type": "string"}, {"type": "null"}]}, "nothing can satisfy the schema")):
            status, answer = s.post("/api/generate", body(schema, 1))
            assert status == 400 and want in answer["error"], (status, answer)
            status, answer = s.post("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "x"}], "response_format": {
                "type": "json_schema", "json_schema": {"name": "x", "schema": schema}}})
            assert status == 400 and want in answer["error"]["message"], (status, answer)
        for value in ("yaml", 7, [], True):
            status, answer = s.post("/api/generate", body(value, 1))
            assert status == 400, (status, answer)
            assert answer["error"] == f'invalid format: {json.dumps(value)}; expected "json" or a valid JSON Schema object', answer
        assert "error" not in s.post("/api/generate", body(PERSON, 1))[1]
        assert s.engine_pid() == engine


def test_ollama_client():
    out = run_client(r'''
import json, os, ollama
from typing import Annotated
from pydantic import BaseModel, Field
class Country(BaseModel):
    name: Annotated[str, Field(max_length=20)]
    capital: Annotated[str, Field(max_length=20)]
    languages: Annotated[list[Annotated[str, Field(max_length=12)]], Field(max_length=3)]
c = ollama.Client(host=os.environ["MINKA_URL"])
options = {"seed": 3, "num_predict": 200, "temperature": 0}
messages = [{"role": "user", "content": "Tell me about Canada."}]
chat = c.chat("smollm2:135m", messages, format=Country.model_json_schema(), options=options)
country = Country.model_validate_json(chat.message.content)
parts = list(c.chat("smollm2:135m", messages, format=Country.model_json_schema(), options=options, stream=True))
anything = c.generate("smollm2:135m", "Describe a cat as JSON with two fields.", format="json", options=options)
print(json.dumps({"name": country.name, "reason": chat.done_reason, "same": "".join(p.message.content for p in parts) == chat.message.content,
                  "anything": anything.response, "cut": anything.done_reason}))
''')
    assert out["name"] and out["reason"] == "stop" and out["same"]
    assert out["anything"].startswith("{") and (out["cut"] == "length" or isinstance(json.loads(out["anything"]), dict))


def test_openai_client():
    out = run_client(r'''
import json, os, openai
from typing import Annotated, Literal
from pydantic import BaseModel, Field
class Step(BaseModel):
    title: Annotated[str, Field(max_length=30)]
    minutes: int
class Plan(BaseModel):
    goal: Literal["cook", "clean"]
    steps: Annotated[list[Step], Field(max_length=2)]
c = openai.OpenAI(base_url=os.environ["MINKA_URL"] + "/v1")
ask = dict(model="smollm2:135m", messages=[{"role": "user", "content": "A plan of two steps to cook rice."}], seed=3, max_tokens=150, temperature=0)
parsed = c.chat.completions.parse(response_format=Plan, **ask).choices[0]
schema = {"type": "json_schema", "json_schema": {"name": "colour", "strict": True, "schema": {
    "type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"], "additionalProperties": False}}}
plain = c.chat.completions.create(response_format=schema, **ask).choices[0]
parts = list(c.chat.completions.create(response_format=schema, stream=True, **ask))
obj = c.chat.completions.create(response_format={"type": "json_object"}, **ask).choices[0]
text = c.chat.completions.create(response_format={"type": "text"}, **ask).choices[0]
try:
    c.chat.completions.create(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}, **ask)
    refused = None
except openai.BadRequestError as e:
    refused = e.body["message"]
print(json.dumps({"goal": parsed.message.parsed.goal, "plain": plain.message.content, "finish": plain.finish_reason,
                  "streamed": "".join(p.choices[0].delta.content or "" for p in parts if p.choices), "object": obj.message.content,
                  "text": text.message.content, "refused": refused}))
''')
    assert out["goal"] in ("cook", "clean")
    assert json.loads(out["plain"])["colour"] in ("red", "blue") and out["finish"] == "stop" and out["streamed"] == out["plain"]
    assert out["object"].startswith("{") and not out["text"].startswith("{")
    assert out["refused"] == "schema keyword at /not is not supported"


if __name__ == "__main__":
    if not REAL:
        del test_ollama_client, test_openai_client  # they ask the real model
    main(sys.modules[__name__])
