#!/usr/bin/env python3
"""Templates, tool calls and thoughts on the real server. A random model calls no tools by itself: it is made to by
tool_choice (then what it writes is a valid call whatever its weights are), and its thoughts end at a tag of one letter,
which comes soon. The official clients use the real model, which copies calls that its template shows to it."""
import json, os, pathlib, subprocess, sys

from harness import ROOT, TINY, Server, main, real_model

TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "the weather", "parameters": {
              "type": "object", "required": ["city", "days"],
              "properties": {"city": {"enum": ["Rome", "Oslo <&>"]}, "days": {"type": "integer", "minimum": 1, "maximum": 7}}}}},
         {"type": "function", "function": {"name": "now"}}]
HEAD = "{{ if .Tools }}[tools]{{ .Tools }}[/tools]{{ end }}{{ range .Messages }}<{{ .Role }}>{{ .Content }}"
CALLS = "{{ if .ToolCalls }}%s{{ range .ToolCalls }}%s{{ end }}%s{{ end }}{{ end }}<assistant>"
NAMED = '{"name": "{{ .Function.Name }}", "%s": {{ .Function.Arguments }}}'
STYLES = {
    "hermes": HEAD + CALLS % ("<tool_call>\n", NAMED % "arguments", "\n</tool_call>"),
    "bare": HEAD + CALLS % ("", NAMED % "parameters", ""),
    "list": HEAD + CALLS % ("[TOOL_CALLS] [", NAMED % "arguments", "]"),
    "names": HEAD + CALLS % ("[TOOL_CALLS]", "{{ .Function.Name }}[ARGS]{{ .Function.Arguments }}", ""),
    "functions": HEAD + CALLS % ("<function=", "{{ .Function.Name }}>{{ .Function.Arguments }}", "</function>"),
}
# Thoughts between "a" and "e": the prompt opens them, and a random text soon has an e.
THINKS = "{{ range .Messages }}{{ if .Thinking }}a{{ .Thinking }}e{{ end }}{{ .Content }}{{ end }}{{ if .Think }} a{{ end }}"
ASK = [{"role": "user", "content": "Weather?"}]


def create(s, name, template=None, **more):
    body = {"model": name, "from": "tiny", "stream": False, **more}
    if template is not None:
        body["template"] = template
    status, got = s.post("/api/create", body)
    assert (status, got) == (200, {"status": "success"}), got


def rendered(s, route, **body):
    status, got = s.post(route, {"_debug_render_only": True, "stream": False, **body})
    assert status == 200, got
    return got["_debug_info"]["rendered_template"]


def sse(s, body):
    status, _, data = s.call("POST", "/v1/chat/completions", dict(body, stream=True))
    assert status == 200, data
    lines = [line[6:] for line in data.decode().splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line)["choices"][0] for line in lines[:-1]]


def check_call(call):
    arguments = json.loads(call["function"]["arguments"])
    assert call["type"] == "function" and call["id"].startswith("call_")
    if call["function"]["name"] == "now":
        assert arguments == {}
    else:
        assert call["function"]["name"] == "get_weather" and list(arguments) == ["city", "days"]
        assert arguments["city"] in ("Rome", "Oslo <&>") and 1 <= arguments["days"] <= 7


def test_demanded_calls():
    with Server({"tiny": TINY}) as s:
        for style, template in STYLES.items():
            create(s, style, template)
            assert "tools" in s.post("/api/show", {"model": style})[1]["capabilities"]
            for seed in range(3):
                body = {"model": style, "messages": ASK, "tools": TOOLS, "tool_choice": "required", "seed": seed, "max_tokens": 2000}
                status, got = s.post("/v1/chat/completions", body)
                assert status == 200, got
                choice = got["choices"][0]
                calls = choice["message"]["tool_calls"]
                assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] == "", choice
                assert 1 <= len(calls) <= 16 and [c["index"] for c in calls] == list(range(len(calls)))
                assert len({c["id"] for c in calls}) == len(calls)
                for call in calls:
                    check_call(call)
                parts = sse(s, body)
                assert [c for p in parts for c in p["delta"].get("tool_calls", [])] == calls
                assert parts[-1]["finish_reason"] == "tool_calls" and not any(p["delta"].get("content") for p in parts)
            one = {"type": "function", "function": {"name": "get_weather"}}
            for more in ({"tool_choice": one}, {"tool_choice": "required", "parallel_tool_calls": False}):
                got = s.post("/v1/chat/completions", dict(body, **more))[1]["choices"][0]
                assert len(got["message"]["tool_calls"]) == 1 and got["finish_reason"] == "tool_calls"
                check_call(got["message"]["tool_calls"][0])
            got = s.post("/v1/chat/completions", dict(body, tool_choice="none", max_tokens=5))[1]["choices"][0]
            assert "tool_calls" not in got["message"] and got["finish_reason"] == "length"
        bad = json.loads(json.dumps(TOOLS))
        bad[0]["function"]["parameters"]["not"] = {}
        status, got = s.post("/v1/chat/completions", dict(body, tools=bad))
        assert status == 400 and "/tools/0/function/parameters/not" in got["error"]["message"], got


def test_thoughts():
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["n"]}
    with Server({"tiny": TINY}) as s:
        create(s, "thinks", THINKS)
        assert "thinking" in s.post("/api/show", {"model": "thinks"})[1]["capabilities"]
        options = {"seed": 1, "num_predict": 400, "temperature": 2}
        chat = {"model": "thinks", "messages": ASK, "options": options}
        whole = s.post("/api/chat", dict(chat, stream=False))[1]["message"]
        assert whole["thinking"] and "e" not in whole["thinking"], whole
        parts = [p["message"] for p in s.stream("/api/chat", chat)]
        assert "".join(p.get("thinking", "") for p in parts) == whole["thinking"]
        assert "".join(p["content"] for p in parts) == whole["content"]
        assert not any(p.get("thinking") and p["content"] for p in parts)
        got = s.post("/api/generate", {"model": "thinks", "prompt": "Weather?", "stream": False, "options": options})[1]
        assert (got["thinking"], got["response"]) == (whole["thinking"], whole["content"])
        got = s.post("/v1/chat/completions", {"model": "thinks", "messages": ASK, "seed": 1, "max_tokens": 400,
                                              "temperature": 2, "top_p": 0.9})[1]["choices"][0]["message"]
        assert (got["reasoning"], got["content"]) == (whole["thinking"], whole["content"])
        off = s.post("/api/chat", dict(chat, think=False, stream=False))[1]["message"]
        assert "thinking" not in off
        for seed in range(4):  # the format begins where the thoughts end
            got = s.post("/api/chat", dict(chat, format=schema, stream=False, options=dict(options, seed=seed)))[1]
            assert got["done_reason"] == "stop" and 0 <= json.loads(got["message"]["content"])["n"] <= 99, got
            assert "e" not in got["message"]["thinking"]
        status, got = s.post("/api/chat", {"model": "tiny", "messages": ASK, "think": True})
        assert (status, got) == (400, {"error": '"tiny" does not support thinking'})


def test_templates():
    with Server({"tiny": TINY}) as s:
        create(s, "messages", STYLES["hermes"])
        create(s, "turns", "{{ if .System }}[{{ .System }}]{{ end }}({{ .Prompt }}){{ .Response }};", system="Be brief.",
               messages=[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}])
        create(s, "fill", "{{ if .Suffix }}<pre>{{ .Prompt }}<suf>{{ .Suffix }}<mid>{{ else }}{{ .Prompt }}{{ end }}",
               parameters={"stop": ["e"], "temperature": 2})
        history = ASK + [{"role": "assistant", "content": "", "tool_calls": [
            {"function": {"name": "get_weather", "arguments": {"days": 2, "city": "Rome"}}}]},
            {"role": "tool", "tool_name": "get_weather", "content": "22 C"}]
        assert rendered(s, "/api/chat", model="messages", messages=history) == (
            '<user>Weather?<assistant><tool_call>\n{"name": "get_weather", "arguments": {"city":"Rome","days":2}}\n</tool_call>'
            "<tool>22 C<assistant>")
        assert rendered(s, "/api/chat", model="messages", messages=ASK, tools=TOOLS[1:]).startswith('[tools][{"type":"function"')
        assert rendered(s, "/api/generate", model="turns", prompt="a?") == "[Be brief.](hi)yes?;(a?)"
        assert rendered(s, "/api/generate", model="turns", prompt="a?", template="<{{ .Prompt }}>", system="S") == "<hi>yes?<a?>"
        assert rendered(s, "/api/generate", model="turns", prompt="a?", raw=True) == "a?"
        assert rendered(s, "/api/generate", model="fill", prompt="a", suffix="b") == "<pre>a<suf>b<mid>"
        assert s.post("/v1/completions", {"model": "fill", "prompt": "a", "suffix": "b", "max_tokens": 3})[0] == 200
        assert s.post("/api/generate", {"model": "turns", "prompt": "a", "suffix": "b"}) == (
            400, {"error": "registry.ollama.ai/library/turns:latest does not support insert"})
        assert s.post("/api/generate", {"model": "fill", "prompt": "a", "template": "{{ end }}"})[0] == 500
        got = s.post("/api/generate", {"model": "fill", "prompt": "a", "stream": False, "options": {"seed": 1}})[1]
        assert "e" not in got["response"] and got["done_reason"] == "stop", got
        # the file's Jinja template can no more than the layers: these win, unless the user says otherwise
        default = rendered(s, "/api/chat", model="tiny", messages=ASK)
        shown = {m: s.post("/api/show", {"model": m})[1] for m in ("tiny", "turns", "fill")}
        assert shown["turns"]["template"].startswith("{{ if .System }}") and "insert" in shown["fill"]["capabilities"]
        store = s.store
        for value, want in (("0", default), ("1", "<user>Weather?<assistant>")):
            with Server(env={"OLLAMA_GO_TEMPLATE": value}, store=store) as other:
                has_jinja = "{%" in shown["tiny"]["template"]
                assert rendered(other, "/api/chat", model="messages", messages=ASK) == (want if has_jinja else "<user>Weather?<assistant>")


# Two calls are shown to the model, so that it makes a third one like them.
SHOWN = ('{{ if .Tools }}{{ end }}{{ range .Messages }}{{ if .ToolCalls }}<tool_call>{{ end }}{{ end }}'
         'Q: time?\nA: <tool_call>{"name": "now", "arguments": {"zone": "Rome"}}</tool_call>\n'
         'Q: time?\nA: <tool_call>{"name": "now", "arguments": {"zone": "Rome"}}</tool_call>\n'
         'Q: time?\nA: <tool_call>{"name": "now", "arguments": {"zone": "Rome"}}</tool_call>\n'
         'Q: {{ range .Messages }}{{ .Content }}{{ end }}\nA:')


def run_client(script):
    """As in test_clients, with models that have the templates above."""
    from test_clients import client_python
    with Server({"smollm2": real_model()}) as s:
        for name, template in (("caller", SHOWN), ("hermes", STYLES["hermes"]), ("thinker", THINKS)):
            status, got = s.post("/api/create", {"model": name, "from": "smollm2", "template": template, "stream": False,
                                                 "parameters": {"temperature": 0, "num_predict": 80, "stop": ["\n"]}
                                                 if name == "caller" else {}})
            assert status == 200, got
        env = dict(s.env, MINKA_URL=s.url, OPENAI_API_KEY="unused", NO_PROXY="127.0.0.1", TOOLS=json.dumps(TOOLS))
        got = subprocess.run([str(client_python()), "-c", script], env=env, capture_output=True, text=True, timeout=120)
        assert got.returncode == 0, got.stderr[-3000:]
        return json.loads(got.stdout.splitlines()[-1])


def test_ollama_client():
    out = run_client(r'''
import json, os, ollama
c = ollama.Client(host=os.environ["MINKA_URL"])

def now(zone: str) -> str:
    """The time.

    Args:
      zone: where
    """
    return "12:00"

ask = [{"role": "user", "content": "time?"}]
whole = c.chat("caller", ask, tools=[now]).message
parts = list(c.chat("caller", ask, tools=[now], stream=True))
call = whole.tool_calls[0].function
back = c.chat("caller", ask + [whole, {"role": "tool", "tool_name": "now", "content": now(**call.arguments)}], tools=[now])
thought = c.chat("thinker", ask, think=True, options={"num_predict": 60, "temperature": 0}).message
plain = c.chat("thinker", ask, think=False, options={"num_predict": 10, "temperature": 0}).message
print(json.dumps({
    "name": call.name, "arguments": call.arguments, "content": whole.content, "n": len(whole.tool_calls),
    "streamed": [[t.function.name, t.function.arguments] for p in parts for t in p.message.tool_calls or []],
    "text": "".join(p.message.content or "" for p in parts), "back": back.done_reason is not None,
    "thinking": thought.thinking, "plain": plain.thinking}))
''')
    assert (out["name"], out["arguments"], out["n"]) == ("now", {"zone": "Rome"}, 1), out
    assert out["streamed"] == [["now", {"zone": "Rome"}]] and "tool_call" not in out["content"] + out["text"], out
    assert out["back"] and out["thinking"] and "e" not in out["thinking"] and not out["plain"]


def test_openai_client():
    out = run_client(r'''
import json, os, openai
c = openai.OpenAI(base_url=os.environ["MINKA_URL"] + "/v1")
tools = json.loads(os.environ["TOOLS"])
messages = [{"role": "user", "content": "Weather in Rome for 3 days?"}]
ask = dict(model="hermes", messages=messages, tools=tools, tool_choice={"type": "function", "function": {"name": "get_weather"}},
           max_completion_tokens=100, temperature=0, seed=1)
whole = c.chat.completions.create(**ask).choices[0]
streamed = {}
finish = None
for p in c.chat.completions.create(stream=True, **ask):
    finish = p.choices[0].finish_reason or finish
    for t in p.choices[0].delta.tool_calls or []:
        one = streamed.setdefault(t.index, {"id": t.id, "name": t.function.name, "arguments": ""})
        one["arguments"] += t.function.arguments
call = whole.message.tool_calls[0]
back = c.chat.completions.create(model="hermes", tools=tools, max_completion_tokens=5, messages=messages + [
    whole.message, {"role": "tool", "tool_call_id": call.id, "content": "22 C"}]).choices[0]
cut = c.chat.completions.create(model="hermes", messages=messages, max_completion_tokens=3)
thought = c.chat.completions.create(model="thinker", messages=messages, max_tokens=40, reasoning_effort="low", temperature=0)
print(json.dumps({
    "id": call.id, "name": call.function.name, "arguments": call.function.arguments, "finish": whole.finish_reason,
    "streamed": streamed, "sfinish": finish, "back": back.finish_reason, "cut": [cut.usage.completion_tokens, cut.choices[0].finish_reason],
    "reasoning": thought.choices[0].message.reasoning}))
''')
    assert out["name"] == "get_weather" and out["finish"] == out["sfinish"] == "tool_calls"
    assert list(json.loads(out["arguments"])) == ["city", "days"]
    assert out["streamed"] == {"0": {"id": out["id"], "name": out["name"], "arguments": out["arguments"]}}, out
    assert out["back"] and out["cut"] == [3, "length"] and out["reasoning"]


if __name__ == "__main__":
    tests = sys.modules[__name__]
    if os.environ.get("MINKA_E2E_TINY"):  # the clients need the real model
        del tests.test_ollama_client, tests.test_openai_client
    main(tests)
