#!/usr/bin/env python3
"""The official JavaScript clients (npm `ollama` and `openai`, pinned by integrity hash) against the real server and the real
model; node's test runner prints the TAP.

Usage: test_clients_js.py PATH-OF-MINKA
"""
import hashlib, os, pathlib, shutil, subprocess, sys

from harness import TINY, Server, Skip, real_model

HERE = pathlib.Path(__file__).resolve().parent


def node_modules():
    """A folder with the clients, kept in the user's cache under a name made of the lock file."""
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "minka"
    lock = HERE / "package-lock.json"
    folder = base / ("clients-js-" + hashlib.sha256(lock.read_bytes()).hexdigest()[:12])
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder)
        got = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True)
        if got.returncode:
            raise Skip("the clients cannot be installed from npm: " + got.stderr.strip().splitlines()[-1])
        (folder / "complete").touch()
    return folder


def run():
    modules, embed = node_modules(), os.environ.get("MINKA_TEST_MINILM")
    models = {"smollm2:135m": real_model()}
    if embed:
        models["minilm"] = embed
    with Server(models) as s:
        env = dict(s.env, MINKA_URL=s.url, MINKA_NODE_MODULES=str(modules), MINKA_TINY=str(TINY), MINKA_EMBED="minilm" if embed else "",
                   NO_PROXY="127.0.0.1")
        command = ["node", "--test", "--test-reporter=tap", str(HERE / "clients.test.mjs")]
        return subprocess.run(command, env=env, timeout=240).returncode


try:
    sys.exit(run())
except Skip as reason:
    print(f"1..0 # SKIP {reason}")
