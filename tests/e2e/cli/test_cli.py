#!/usr/bin/env python3
"""The command line against a scripted server: through pipes, and through a pseudo-terminal for the REPL.
Usage: test_cli.py PROGRAM [NAME]... ; prints TAP."""

import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time

from fake_server import FakeServer
from screen import Terminal

PROGRAM = sys.argv[1]
ONLY = sys.argv[2:]
TESTS = []


def test(f):
    TESTS.append(f)
    return f


class Place:
    """A server, a home folder and the environment of one test."""

    def __init__(self, home):
        self.home = home
        self.server = FakeServer()
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
            "OLLAMA_HOST": self.server.host,
        }
        for name, value in os.environ.items():
            if "SAN_OPTIONS" in name:
                self.env[name] = value

    def run(self, *args, stdin="", code=0, env=None, before=""):
        child = subprocess.run(
            [PROGRAM, *args], input=stdin, capture_output=True, text=True, timeout=20, env={**self.env, **(env or {})}
        )
        assert child.returncode == code, f"exit code {child.returncode}: {child.stdout!r} {child.stderr!r}"
        if code == 1:
            assert child.stderr.startswith(before + "Error: ") and child.stderr.endswith("\n"), child.stderr
        return child

    def terminal(self, *args, columns=80, **env):
        return Terminal([PROGRAM, *args], {**self.env, **env}, columns)

    def repl(self, model="smollm2", columns=80, **env):
        t = self.terminal("run", model, columns=columns, **env)
        t.expect(">>> ")
        return t

    def asked(self, path):
        return [body for p, body in self.server.requests if p == path]

    def dropped(self, prompt):
        """The server saw the client leave in the middle of this answer."""
        end = time.monotonic() + 3
        while prompt not in self.server.dropped and time.monotonic() < end:
            time.sleep(0.02)
        assert prompt in self.server.dropped

    def sent(self, content):
        """The last message of the last chat request becomes content."""
        end = time.monotonic() + 5
        while time.monotonic() < end:
            got = [body["messages"][-1]["content"] for body in self.asked("/api/chat")]
            if got and got[-1] == content:
                return
            time.sleep(0.02)
        raise AssertionError(f"sent was {got[-1:]}, not {content!r}")

    def history(self):
        with open(f"{self.home}/.ollama/history") as f:
            return f.read()


# --- pipes ---


@test
def answer_through_a_pipe(place):
    got = place.run("run", "smollm2", "count")
    assert got.stdout == "one two three\n\n" and got.stderr == ""
    (body,) = place.asked("/api/generate")
    assert body == {"model": "smollm2", "prompt": "count"}


@test
def prompt_from_input_and_arguments(place):
    assert place.run("run", "smollm2", "and", "more", stdin="text\n").stdout == "echo: text\n and more\n\n"
    assert place.run("run", "smollm2", stdin="say hi").stdout == "hi\n\n"
    big = "x" * 3000000
    place.run("run", "smollm2", stdin=big)
    assert place.asked("/api/generate")[-1]["prompt"] == big
    place.run("run", "smollm2", stdin='quotes " and \\ and \u00e4 <&> \t')
    assert place.asked("/api/generate")[-1]["prompt"] == 'quotes " and \\ and \u00e4 <&> \t'


@test
def flags(place):
    place.run("run", "smollm2", "--num-ctx", "512", "--keepalive=10m", "--format", "json", "hi", "--think=high")
    body = place.asked("/api/generate")[-1]
    assert body["options"] == {"num_ctx": 512} and body["keep_alive"] == "10m"
    assert body["format"] == "json" and body["think"] == "high" and body["prompt"] == "hi"
    place.run("run", "--context-size=1024", "smollm2", "--think", "--", "--hi")
    body = place.asked("/api/generate")[-1]
    assert body["options"] == {"num_ctx": 1024} and body["think"] is True and body["prompt"] == "--hi"
    place.run("run", "smollm2", "--format", '{"type":"object"}', "--think=false", "x")
    body = place.asked("/api/generate")[-1]
    assert body["format"] == {"type": "object"} and body["think"] is False
    for bad in ["--num-ctx", "many"], ["--num-ctx=0"], ["--think=maybe"], ["--keepalive", "5"], ["--format", "xml"], ["--bogus"], ["--format"]:
        place.run("run", "smollm2", *bad, code=1)


@test
def verbose_figures(place):
    got = place.run("run", "smollm2", "--verbose", "count")
    assert got.stdout == "one two three\n\n"
    assert got.stderr.splitlines() == [
        "total duration:       1.23456789s",
        "load duration:        2.5ms",
        "prompt eval count:    7 token(s)",
        "prompt eval duration: 14ms",
        "prompt eval rate:     500.00 tokens/s",
        "eval count:           10 token(s)",
        "eval duration:        500ms",
        "eval rate:            20.00 tokens/s",
    ]


@test
def thinking_and_tools(place):
    got = place.run("run", "thinker", "ponder")
    assert got.stdout == "Thinking...\nLet me see.\n...done thinking.\n\n42\n\n"
    assert place.asked("/api/generate")[-1]["think"] is True, "follows the model's capabilities"
    assert place.run("run", "thinker", "--hidethinking", "ponder").stdout == "42\n\n"
    place.run("run", "thinker", "--think=false", "ponder")
    assert place.asked("/api/generate")[-1]["think"] is False
    got = place.run("run", "smollm2", "tool")
    assert got.stdout == """  Model called a non-existent function 'f()' with arguments: {"city":"Rome"}\n\n"""
    assert "think" not in place.asked("/api/generate")[-1]


@test
def pipes_get_the_bytes_as_they_are(place):
    assert place.run("run", "smollm2", "escape").stdout == "a\x1b[31mb\x07c\u009bd\te\n\n"
    got = place.run("run", "smollm2", "long")
    assert got.stdout.count("\n") == 2 and "\x1b" not in got.stdout, "no wrapping, no redrawing"


@test
def streams_at_once(place):
    child = subprocess.Popen([PROGRAM, "run", "smollm2", "slow"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=place.env)
    began = time.monotonic()
    assert child.stdout.read(3) == b"w0 " and time.monotonic() - began < 3
    child.send_signal(signal.SIGINT)
    child.stdout.read()
    assert child.wait(5) == 130
    place.dropped("slow")


@test
def failures(place):
    assert "server busy, please try again.  maximum pending" in place.run("run", "smollm2", "busy", code=1).stderr
    got = place.run("run", "smollm2", "break", code=1)
    assert got.stdout == "half" and got.stderr == "Error: the engine has stopped\n"
    got = place.run("run", "smollm2", "cut", code=1)
    assert got.stdout == "half"
    got = place.run("run", "nope", "x", code=1, before="pulling manifest\n")
    assert got.stderr == "pulling manifest\nError: pull model manifest: file does not exist\n" and got.stdout == ""
    place.run("run", code=1)
    place.run("stop", code=1)
    place.run("stop", "a", "b", code=1)
    place.run("list", "a", "b", code=1)
    assert 'unknown command "frob" for "minka"' in place.run("frob", code=1).stderr
    assert "'minka signin' is not supported" in place.run("signin", code=1).stderr


@test
def pull_without_a_terminal(place):
    got = place.run("pull", "new")
    assert got.stdout == ""
    a, b = "pulling " + "a" * 12, "pulling " + "b" * 12
    assert got.stderr.splitlines() == ["pulling manifest"] + [f"{a}: {i:3}% of 1 GB" for i in (0, 10, 20, 30)] + [
        f"{b}: 100% of 23 B"] + [f"{a}: {i:3}% of 1 GB" for i in range(40, 101, 10)] + ["writing manifest", "success"], got.stderr
    assert place.server.requests[-1] == ("/api/pull", {"model": "new"})
    place.run("push", "new", "--insecure")
    assert place.server.requests[-1] == ("/api/push", {"model": "new", "insecure": True})
    assert "create the model under a namespace you own" in place.run("push", "denied", code=1, before="pulling manifest\n").stderr
    got = place.run("pull", "cut", code=1, before="\n".join(got.stderr.splitlines()[:-1]) + "\n")
    assert "before it was complete" in got.stderr
    place.run("pull", code=1)


@test
def run_pulls_what_is_missing(place):
    got = place.run("run", "fresh", "say hello", "--insecure")
    assert got.stdout.strip() == "hello" and got.stderr.splitlines()[-1] == "success"
    paths = [p for p, _ in place.server.requests]
    assert paths[-4:] == ["/api/show", "/api/pull", "/api/show", "/api/generate"], paths


@test
def pull_on_a_terminal(place):
    t = place.terminal("pull", "slowly")
    t.expect("success")
    t.wait()
    lines = t.screen().splitlines()
    assert [l.split(":")[0].strip() for l in lines] == [
        "pulling manifest", "pulling " + "a" * 12, "pulling " + "b" * 12, "writing manifest", "success"], lines
    assert lines[1].startswith("pulling aaaaaaaaaaaa: 100% \u2595\u2588") and lines[1].rstrip().endswith("\u258f   1 GB"), lines
    assert "500 MB/  1 GB" in t.raw and "MB/s" in t.raw, "amount and rate while it runs"


@test
def pull_interrupted_on_a_terminal(place):
    t = place.terminal("pull", "hanging")
    t.expect("500 MB/")
    t.send("\x03")
    t.expect("goes on from there")
    assert t.wait() == 130
    assert "'minka pull hanging' goes on from there" in t.screen()
    place.dropped("hanging")


@test
def no_server(place):
    place.server.close()
    for args in ["list"], ["ps"], ["run", "m", "x"], ["show", "m"], ["stop", "m"]:
        said = place.run(*args, code=1).stderr
        assert said.startswith("Error: could not connect to minka server") and "run 'minka serve' to start it" in said
    got = place.run("--version")
    assert got.stdout == "Warning: could not connect to a running minka instance\nclient version is 0.1.0\n"


@test
def addresses(place):
    with tempfile.TemporaryDirectory() as tmp:
        unix = FakeServer(unix=f"{tmp}/s")
        assert place.run("run", "smollm2", "count", env={"OLLAMA_HOST": unix.host}).stdout == "one two three\n\n"
        unix.close()
    prefixed = FakeServer(prefix="/some/path")
    for host in prefixed.host, f"http://{prefixed.host}/", prefixed.host.replace("127.0.0.1", "0.0.0.0"), f'  "{prefixed.host}" ':
        env = {"OLLAMA_HOST": host, "http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
        assert "smollm2:135m" in place.run("list", env=env).stdout
    prefixed.close()
    assert place.run("list", env={"OLLAMA_HOST": "127.0.0.1:99999"}, code=1).stderr.count("OLLAMA_HOST")


@test
def version_and_help(place):
    assert place.run("--version").stdout == "minka version is 0.1.0\n"
    other = FakeServer(version="9.9")
    got = place.run("-v", env={"OLLAMA_HOST": other.host})
    assert got.stdout == "minka version is 9.9\nWarning: client version is 0.1.0\n"
    other.close()
    assert "Available Commands:" in place.run("help").stdout
    assert "Available Commands:" in place.run().stdout
    for name in "run", "list", "ls", "ps", "stop", "show":
        assert "Usage:\n  minka" in place.run(name, "--help").stdout
        assert place.run("help", name).stdout == place.run(name, "-h").stdout
    assert "--num-ctx int" in place.run("help", "run").stdout


@test
def list_table(place):
    lines = place.run("list").stdout.splitlines()
    assert lines[0] == "NAME              ID              SIZE      MODIFIED         "
    assert re.fullmatch(r"smollm2:135m      0123456789ab    91 MB     3 minutes ago    ", lines[1])
    assert re.fullmatch(r"Big:latest        fedcba987654    4.7 GB    \d years ago      ", lines[2])
    assert len(lines) == 4
    assert [x.split()[0] for x in place.run("ls", "big").stdout.splitlines()] == ["NAME", "Big:latest"]


@test
def ps_table(place):
    lines = place.run("ps").stdout.splitlines()
    head = ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]
    assert re.split(r" {2,}", lines[0].strip()) == head
    rows = [re.split(r" {2,}", x.strip()) for x in lines[1:]]
    assert rows[0] == ["smollm2:135m", "0123456789ab", "150 MB", "100% CPU", "4096", "4 minutes from now"]
    assert rows[1][3:] == ["100% GPU", "4096", "Forever"]
    assert rows[2][3:] == ["48%/52% CPU/GPU", "4096", "Stopping..."]
    assert len({x.index("0123456789ab") for x in lines[1:]}) == 1, "columns"


@test
def stop(place):
    place.run("stop", "smollm2")
    assert place.asked("/api/generate")[-1] == {"model": "smollm2", "keep_alive": 0, "prompt": ""}
    assert place.run("stop", "nope", code=1).stderr == """Error: couldn't find model "nope" to stop\n"""


@test
def show_sections(place):
    def squeeze(text):
        return [re.sub(r" {4,}", "    ", x.rstrip()) for x in text.splitlines()]

    assert squeeze(place.run("show", "smollm2").stdout) == [
        "  Model",
        "    architecture    llama",
        "    parameters    134.52M",
        "    context length    8192",
        "    embedding length    576",
        "    quantization    Q4_1",
        "",
        "  Capabilities",
        "    completion",
        "",
        "  Parameters",
        '    stop    "<|im_end|>"',
        "    temperature    0.5",
        "",
        "  System",
        "    You are terse.",
        "",
        "  License",
        "    First line of the licence",
        "    Second line",
        "    ...",
        "",
    ]
    verbose = squeeze(place.run("show", "-v", "smollm2").stdout)
    assert "    general.parameter_count    134515008" in verbose
    assert "    llama.rope.freq_base    100000" in verbose
    assert "    tokenizer.ggml.add_bos_token    false" in verbose
    assert "    tokenizer.ggml.tokens    [a bb ccc ...+2 more]" in verbose
    assert "    output.weight    Q8_0    [576 49152]" in verbose
    assert place.run("show", "smollm2", "--template").stdout == "{{ .Prompt }}"
    assert place.run("show", "--modelfile", "smollm2").stdout == "FROM /x\n\n"
    assert "only one of" in place.run("show", "smollm2", "--template", "--system", code=1).stderr
    assert "model 'nope' not found" in place.run("show", "nope", code=1).stderr


@test
def embedding_model(place):
    assert place.run("run", "embedder", "text").stdout == "[0.25,-0.5]\n"
    assert place.asked("/api/embed")[-1] == {"model": "embedder", "input": "text"}
    assert "require input text" in place.run("run", "embedder", code=1).stderr


def gguf(path):
    """The smallest model file that the store takes: a header, two keys, no tensor."""

    def text(s):
        return struct.pack("<Q", len(s)) + s.encode()

    with open(path, "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 2))
        f.write(text("general.architecture") + struct.pack("<I", 8) + text("llama"))
        f.write(text("general.file_type") + struct.pack("<II", 4, 3))


@test
def gguf_file(place):
    gguf(f"{place.home}/My model (v1).gguf")
    place.server.extra.append("local/my-model--v1-:latest")
    models = f"{place.home}/store"
    for _ in range(2):
        got = place.run("run", f"{place.home}/My model (v1).gguf", "count", env={"OLLAMA_MODELS": models})
        assert got.stdout == "one two three\n\n"
    name = place.asked("/api/generate")[-1]["model"]
    assert name == "local/My-model--v1-:latest"
    manifests = [os.path.join(d, x) for d, _, files in os.walk(f"{models}/manifests") for x in files]
    assert len(manifests) == 1 and manifests[0].endswith("registry.ollama.ai/local/My-model--v1-/latest")
    place.server.extra.clear()
    said = place.run("run", f"{place.home}/My model (v1).gguf", "x", env={"OLLAMA_MODELS": models}, code=1).stderr
    assert "OLLAMA_MODELS" in said, "imported, but the server looks elsewhere"
    with open(f"{place.home}/bad.gguf", "wb") as f:
        f.write(b"not a model")
    place.run("run", f"{place.home}/bad.gguf", "x", env={"OLLAMA_MODELS": models}, code=1)


# --- the REPL ---


@test
def conversation(place):
    t = place.repl()
    t.line("say hello")
    t.expect("hello\n\n>>> ")
    t.line("and you?")
    t.expect("echo: and you?")
    t.line("/bye")
    assert t.wait() == 0
    assert place.asked("/api/chat")[-1]["messages"] == [
        {"role": "user", "content": "say hello"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "and you?"},
    ]
    assert place.asked("/api/generate") == [{"model": "smollm2", "prompt": ""}], "loaded before the prompt"


@test
def placeholder(place):
    t = place.repl()
    t.expect(">>> Send a message (/? for help)")
    since = t.mark()
    t.send("h")
    t.expect(">>> h")
    assert "Send a message" not in t.screen()
    t.send("\x7f")
    t.expect(">>> Send a message", since)
    t.send("\x04")
    assert t.wait() == 0
    assert "Send a message" not in t.screen()


@test
def interrupt_stops_the_answer_only(place):
    t = place.repl()
    t.line("slow")
    t.expect("w3 ")
    t.send("\x03")
    since = t.mark()
    t.expect("\n>>> ", since)
    t.line("count")
    t.expect("one two three")
    messages = place.asked("/api/chat")[-1]["messages"]
    assert messages[0] == {"role": "user", "content": "slow"}
    assert messages[1]["role"] == "assistant" and messages[1]["content"].startswith("w0 w1 w2 w3 ")
    assert messages[2] == {"role": "user", "content": "count"}
    place.dropped("slow")
    # Before the first word: the message is taken back.
    since = t.mark()
    t.line("wait")
    time.sleep(0.3)
    t.send("\x03")
    t.expect("\n>>> ", since)
    t.line("count")
    t.expect("one two three", since)
    assert [m["content"] for m in place.asked("/api/chat")[-1]["messages"]].count("wait") == 0
    t.send("\x04")
    assert t.wait() == 0


@test
def interrupt_at_the_prompt(place):
    t = place.repl()
    t.send("\x03")
    t.expect("Use Ctrl + d or /bye to exit.")
    since = t.mark()
    t.send("half a line")
    t.expect("half a line", since)
    t.send("\x03")
    t.expect("\n>>> ", since)
    assert "Use Ctrl" not in t.screen(since)
    t.line("count")
    t.expect("one two three", since)
    t.send('"""open')
    t.line("")
    t.expect("... ", since)
    since = t.mark()
    t.send("\x03")
    t.expect(">>> ", since)
    t.line("say closed")
    t.expect("closed\n", since)
    place.sent("say closed")
    t.send("\x04")
    assert t.wait() == 0


@test
def multi_line(place):
    t = place.repl()
    t.line('"""one')
    t.expect("... ")
    t.line("  two  ")
    t.line('three"""')
    t.expect("echo: one")
    place.sent("one\n  two  \nthree")
    t.line('"""all in one"""')
    t.expect("echo: all in one")
    # Ctrl-J begins a new line, Enter sends.
    t.send("first\nsecond\r")
    t.expect("echo: first")
    place.sent("first\nsecond")
    t.send("\x04")
    assert t.wait() == 0


@test
def bracketed_paste(place):
    t = place.repl()
    assert "\x1b[?2004h" in t.raw
    t.send("\x1b[200~/not a command\rline two\tx\x1b[201~ end")
    time.sleep(0.3)
    assert not place.asked("/api/chat"), "a paste is not sent by itself"
    t.send("\r")
    t.expect("echo: /not a command")
    place.sent("/not a command\nline two x end")
    t.send("\x04")
    assert t.wait() == 0
    assert t.raw.rstrip().endswith("\x1b[?2004l")


@test
def editing_keys(place):
    t = place.repl()
    t.send("say worlx\x7fd")
    t.send("\x01\x1b[C\x1b[C\x1b[C\x1b[Chello ")  # Home, 4 x right
    t.send("\x05!\r")  # End
    t.expect("hello world!")
    place.sent("say hello world!")
    t.send("drop this\x15say kept \u00e4\u4f60 word\x17\x17x\r")  # Ctrl-U, Ctrl-W twice
    t.expect("kept x")
    place.sent("say kept x")
    t.send("say \u00e4\u4f60\U0001f600\r")
    t.expect("\u00e4\u4f60")
    place.sent("say \u00e4\u4f60\U0001f600")
    t.send("\x04")
    assert t.wait() == 0


@test
def history(place):
    t = place.repl()
    t.line("say first")
    t.expect("first\n\n>>> ")
    t.line("say second")
    t.expect("second\n\n>>> ")
    t.send("\x1b[A\x1b[A\r")
    t.expect(">>> say first\nfirst", t.raw.index("second\r\n"))
    assert [m["content"] for m in place.asked("/api/chat")[-1]["messages"]][-1] == "say first"
    t.send("\x04")
    assert t.wait() == 0
    assert place.history() == "say first\nsay second\nsay first\n"
    assert os.stat(f"{place.home}/.ollama/history").st_mode & 0o777 == 0o600
    t = place.repl()
    t.send("\x10\x10\r")  # Ctrl-P twice
    t.expect("second\n\n>>> ")
    since = t.mark()
    t.line("/set nohistory")
    t.line("say hidden")
    t.expect("hidden\n", since)
    t.send("\x04")
    assert t.wait() == 0
    assert place.history() == "say first\nsay second\nsay first\nsay second\n/set nohistory\n"
    with open(f"{place.home}/.ollama/history", "w") as f:
        f.writelines(f"old {i}\n" for i in range(150))
    t = place.repl()
    t.line("/clear")
    t.expect("Cleared session context")
    t.send("\x04")
    assert t.wait() == 0
    lines = place.history().splitlines()
    assert len(lines) == 100 and lines[0] == "old 51" and lines[-1] == "/clear"
    t = place.repl(OLLAMA_NOHISTORY="1")
    t.line("/clear")
    t.expect("Cleared session context")
    t.send("\x04")
    assert t.wait() == 0
    assert place.history().splitlines() == lines


def ask(t, line, text):
    """Types a line; its answer must show the text. Returns where the answer begins."""
    since = t.mark()
    t.line(line)
    t.expect(text, since)
    return since


@test
def settings(place):
    t = place.repl()

    def does(line, text):
        t.expect("\n>>> ", ask(t, line, text))

    does("/set parameter temperature 0.5", "Set parameter 'temperature' to '0.5'")
    does("/set parameter stop <a> <b>", "Set parameter 'stop' to '<a>, <b>'")
    does("/set parameter num_ctx many", "Couldn't set parameter: \"invalid int value [many]\"")
    does("/set parameter frobs 1", "Couldn't set parameter: \"unknown parameter 'frobs'\"")
    does("/set parameter", "Available Parameters:")
    does("/set format json", "Set format to 'json' mode.")
    does("/set format xml", "Invalid or missing format.")
    does("/set system Be  brief.", "Set system message.")
    does("/set nothink", "Set 'nothink' mode.")
    does("say a", "a\n")
    assert place.asked("/api/chat")[-1] == {
        "model": "smollm2",
        "format": "json",
        "think": False,
        "options": {"temperature": 0.5, "stop": ["<a>", "<b>"]},
        "messages": [{"role": "system", "content": "Be  brief."}, {"role": "user", "content": "say a"}],
    }
    does("/set think high", "Set 'think' mode to 'high'.")
    does("/set noformat", "Disabled format.")
    does("/clear", "Cleared session context")
    does("say b", "b\n")
    body = place.asked("/api/chat")[-1]
    assert body["think"] == "high" and "format" not in body
    assert [m["content"] for m in body["messages"]] == ["Be  brief.", "say b"]
    t.line('/set system """Two')
    t.expect("... ")
    does('lines"""', "Set system message.")
    does("say c", "c\n")
    assert place.asked("/api/chat")[-1]["messages"][-2] == {"role": "system", "content": "Two\nlines"}
    does("/set verbose", "Set 'verbose' mode.")
    does("say d", "eval rate:            20.00 tokens/s")
    does("/set quiet", "Set 'quiet' mode.")
    does("/set frob", "Unknown command '/set frob'. Type /? for help")
    does("/show parameters", "  temperature                    0.5")
    does("/show system", "Two\nlines")
    does("/show license", "First line of the licence")
    does("/show info", "    embedding length    576")
    does("/show template", "{{ .Prompt }}")
    does("/show", "/show modelfile")
    does("/?", "/load <model>")
    does("/?", "/save <model>")
    does("/? set", "/set nothink")
    does("/help shortcuts", "Ctrl + d")
    does("/list", "smollm2:135m      0123456789ab    91 MB")
    does("/save", "Usage:\n  /save <modelname>")
    does("/save x y", "Usage:\n  /save <modelname>")
    does("/save x/y/z/w", "error: The model name 'x/y/z/w' is invalid")
    does("/save full", "error: no space left")
    does("/save mine", "Created new model 'mine'")
    body = place.asked("/api/create")[-1]
    assert (body["model"], body["from"], body["system"], body["stream"]) == ("mine", "smollm2", "Two\nlines", False)
    assert body["parameters"] == {"temperature": 0.5, "stop": ["<a>", "<b>"]}
    assert [m["role"] for m in body["messages"]][-4:] == ["user", "assistant", "user", "assistant"]
    assert [m["content"] for m in body["messages"]][-2:] == ["say d", "d"]
    assert {"role": "system", "content": "Two\nlines"} not in body["messages"]
    does("/frob", "Unknown command '/frob'. Type /? for help")
    t.line("/exit")
    assert t.wait() == 0


@test
def load_another_model(place):
    t = place.repl()
    t.line("say one")
    t.expect("one\n\n>>> ")
    ask(t, "/load nope", "Couldn't find model 'nope'")
    ask(t, "say two", "two\n\n>>> ")
    assert len(place.asked("/api/chat")[-1]["messages"]) == 3, "the old conversation goes on"
    ask(t, "/load thinker", "Loading model 'thinker'\n>>> ")
    ask(t, "ponder", "Thinking...\nLet me see.\n...done thinking.\n\n42\n\n>>> ")
    body = place.asked("/api/chat")[-1]
    assert body["model"] == "thinker" and len(body["messages"]) == 1 and body["think"] is True
    ask(t, "/set think high", "Set 'think' mode to 'high'.\n>>> ")
    ask(t, "/load big", "Loading model 'big'\nwarning: model \"big\" does not support thinking output\n>>> ")
    ask(t, "say three", "three\n\n>>> ")
    body = place.asked("/api/chat")[-1]
    assert body["model"] == "big" and "think" not in body
    ask(t, "/load", "Usage:\n  /load <modelname>")
    t.send("\x04")
    assert t.wait() == 0


@test
def errors_do_not_end_the_repl(place):
    t = place.repl()
    for line, text in ("busy", "error: server busy"), ("break", "error: the engine has stopped"), ("nothink", "does not support thinking"):
        t.expect("\n>>> ", ask(t, line, text))
    t.line("count")
    t.expect("one two three")
    assert len(place.asked("/api/chat")[-1]["messages"]) == 1, "failed messages are not part of the conversation"
    t.send("\x04")
    assert t.wait() == 0


@test
def wraps_at_words(place):
    t = place.repl(columns=40)
    since = t.mark()
    t.line("long")
    t.expect("\n\n>>> ", since)
    shown = t.screen(since).split("\n\n")[0].splitlines()[1:]
    assert max(map(len, shown)) <= 35, shown
    assert " ".join(shown) == " ".join(("lorem ipsum dolor sit amet consectetur adipiscing elit " * 3).split())
    assert all(len(a) + 1 + len(b.split()[0]) > 34 for a, b in zip(shown, shown[1:])), "lines are full"
    t.line("/set nowordwrap")
    since = t.mark()
    t.line("long")
    t.expect("\n\n>>> ", since)
    assert max(map(len, t.screen(since).splitlines())) == 40
    t.send("\x04")
    assert t.wait() == 0


@test
def model_text_does_not_command_the_terminal(place):
    t = place.repl()
    since = t.mark()
    t.line("escape")
    t.expect("a\ufffd[31mb\ufffdc\ufffdd", since)
    assert "\x1b[31m" not in t.raw[since:] and "\x07" not in t.raw[since:]
    t.send("\x04")
    assert t.wait() == 0


@test
def spinner_on_terminals_only(place):
    t = place.repl()
    since = t.mark()
    t.line("wait")
    t.expect("done", since)
    raw = t.raw[since:]
    assert len(set(re.findall("[\u2807-\u283f]", raw))) >= 3, "it turns"
    assert "\x1b[?25l" in raw and "\x1b[?25h" in raw
    assert not re.search("[\u2807-\u283f]", t.screen(since)), "and leaves nothing"
    t.send("\x04")
    assert t.wait() == 0
    got = place.run("run", "smollm2", "wait")
    assert got.stdout == "done\n\n" and got.stderr == ""


@test
def plain_terminals(place):
    for env in {"NO_COLOR": "1"}, {"TERM": "dumb"}:
        t = place.terminal("run", "thinker", "ponder", **env)
        assert t.wait() == 0
        assert "\x1b" not in t.raw and "Thinking..." in t.raw
    t = place.repl(NO_COLOR="1")
    assert "Send a message" not in t.raw and "\x1b[?2004h" not in t.raw and "\x1b[38" not in t.raw
    t.line("count")
    t.expect("one two three")
    t.send("\x04")
    assert t.wait() == 0
    t = place.terminal("run", "thinker", "ponder")
    assert t.wait() == 0
    assert "\x1b[38;5;245m\x1b[1mThinking..." in t.raw, "grey where colours are wanted"


@test
def server_restarts_under_the_repl(place):
    t = place.repl()
    t.line("say kept")
    t.expect("kept\n\n>>> ")
    port = place.server.server_address[1]
    place.server.close()
    since = t.mark()
    t.line("say lost")
    t.expect("error: ", since)
    t.expect("'minka serve' starts it.\n\n>>> ", since)
    place.server = FakeServer(port=port)
    t.line("say again")
    t.expect("\nagain\n", since)
    contents = [m["content"] for m in place.asked("/api/chat")[-1]["messages"]]
    assert contents == ["say kept", "kept", "say again"], "the conversation goes on"
    since = t.mark()
    t.line("cut")
    t.expect("half\nerror: ", since)
    t.send("\x04")
    assert t.wait() == 0


@test
def terminal_with_prompt_is_not_interactive(place):
    t = place.terminal("run", "smollm2", "count")
    assert t.wait() == 0
    assert "one two three" in t.screen() and ">>>" not in t.screen()


@test
def typed_ahead(place):
    """What is typed while an answer runs does not get into it, and is there for the next line."""
    t = place.repl()
    since = t.mark()
    t.line("wait")
    time.sleep(0.2)
    t.line("say later")
    time.sleep(0.1)
    t.send("say more")
    t.expect("later\n\n>>> say more", since)
    assert t.screen(since).split(">>> ")[1] == "say later\nlater\n\n", t.screen(since)
    place.sent("say later")
    t.send("\x15\x04")
    assert t.wait() == 0


@test
def terminal_is_restored(place):
    """The shell behind has its settings again, however the REPL ends."""
    for keys in "\x04", "/bye\r", "\x03\x04", "slow\r":
        t = Terminal(["/bin/sh", "-c", f"trap : INT; stty -g; {PROGRAM} run smollm2; stty -g"], place.env)
        t.expect(">>> ")
        if keys == "slow\r":
            t.line("slow")
            t.expect("w1 ")
            t.send("\x03")
            t.expect("\n>>> ", t.mark())
            keys = "\x04"
        for key in keys.partition("\x04") if "\x04" in keys else [keys]:
            t.send(key)
            time.sleep(0.1)
        t.wait()
        modes = re.findall(r"(?:[0-9a-f]+:){10,}[0-9a-f]+", t.raw)
        assert len(modes) == 2 and modes[0] == modes[1], modes


@test
def resize(place):
    t = place.repl()
    t.resize(50)
    os.kill(t.pid, signal.SIGWINCH)
    t.send("say after resize\r")
    t.expect("after resize\n")
    t.send("\x04")
    assert t.wait() == 0


def main():
    chosen = [f for f in TESTS if not ONLY or f.__name__ in ONLY]
    print(f"1..{len(chosen)}")
    failed = 0
    for i, f in enumerate(chosen, 1):
        began, word = time.monotonic(), "ok"
        with tempfile.TemporaryDirectory() as home:
            place = Place(home)
            try:
                f(place)
            except Exception as e:  # a failing test must not hide the others
                word, failed = "not ok", failed + 1
                trace = e.__traceback__
                while trace.tb_next:
                    trace = trace.tb_next
                for line in f"{type(e).__name__}: {e} (line {trace.tb_lineno})".splitlines():
                    print("#", line)
        print(f"{word} {i} - {f.__name__} # {time.monotonic() - began:.1f} s", flush=True)
    sys.exit(1 if failed else 0)


main()
