#!/usr/bin/env python3
"""The command line and the server together: `minka run` on a file and on a model, the tables, and the REPL, whose
interrupted answer must free its place in the engine. Release builds use the real model where it is there."""
import os
import subprocess
import time

from harness import MINKA, TINY, Server, Skip, main, real_model
from screen import Terminal


def model_path():
    if os.environ.get("MINKA_E2E_TINY") == "1":
        return TINY
    try:
        return real_model()
    except Skip:
        return TINY


def minka(s, *args, stdin="", code=0):
    done = subprocess.run([MINKA, *args], env=s.env, input=stdin, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout if code == 0 else done.stderr


def test_file_then_tables():
    with Server() as s:
        path = os.path.join(s.folder, "My model.gguf")
        os.symlink(model_path(), path)
        assert minka(s, "list").split() == ["NAME", "ID", "SIZE", "MODIFIED"]
        answer = minka(s, "run", path, "--num-ctx", "32", "Once upon", stdin="")
        assert answer.endswith("\n\n") and len(answer) > 2
        rows = [line.split() for line in minka(s, "list").splitlines()]
        assert len(rows) == 2 and rows[1][0] == "local/My-model:latest"
        rows = [line.split() for line in minka(s, "ps").splitlines()]
        assert rows[1][0] == "local/My-model:latest" and rows[1][4:6] == ["100%", "CPU"], rows
        assert "architecture        llama" in minka(s, "show", "local/my-model")
        minka(s, "stop", "LOCAL/my-model")
        s.wait_for(lambda: not s.ps()["models"])
        assert minka(s, "ps").splitlines()[1:] == []
        assert "pull model manifest: http://127.0.0.1:1: " in minka(s, "run", "127.0.0.1:1/a/nope", "x", "--insecure", code=1)


def test_repl_interrupt_frees_the_place():
    with Server({"m": model_path()}) as s:
        t = Terminal([MINKA, "run", "m"], {**s.env, "TERM": "xterm-256color", "LANG": "C.UTF-8"})
        try:
            t.expect(">>> ")
            t.line("/set parameter temperature 0")
            t.line("/set parameter num_predict 100000")
            t.line("/set parameter num_ctx 4096")
            t.line("/set parameter stop <never>")
            t.expect("'<never>'")
            since = t.mark()
            t.line("Count to a million.")
            s.wait_for(lambda: s.ps()["queue"]["running"] == 1 or "\n\n>>>" in t.screen(since))
            t.read(0.3)
            began = time.monotonic()
            t.send("\x03")
            s.wait_for(lambda: s.ps()["queue"]["running"] == 0)
            assert time.monotonic() - began < 2
            t.expect("\n\n>>> ", since)
            t.send("\x04")
            assert t.wait() == 0
        finally:
            t.kill()


if __name__ == "__main__":
    import sys

    main(sys.modules[__name__])
