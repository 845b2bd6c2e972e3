#!/usr/bin/env python3
"""make test: builds and runs every test, release and sanitizer builds; the last line counts all of them.

Builds: build-test (release: everything, the real model and the end-to-end tests too), build-asan (ASan + UBSan:
unit, kernels, fuzz corpora, simulation, tiny models), build-tsan (what has threads).
"""
import os, pathlib, subprocess, sys, time
import xml.etree.ElementTree as ET

root = pathlib.Path(__file__).resolve().parent.parent
os.chdir(root)

BUILDS = [
    # folder, meson options, suites, what to build (nothing named: all)
    ("build-test", [], ["unit", "kern", "golden", "sim", "fuzz", "e2e"], []),
    ("build-asan", ["-Db_sanitize=address,undefined", "-Db_lundef=false"], ["unit", "kern", "golden", "sim", "fuzz", "e2e-asan"], []),
    ("build-tsan", ["-Db_sanitize=thread", "-Db_lundef=false"], ["threads"], ["src/minka", "tests/unit/base/test_base_team", "tests/unit/chat/test_chat_grammar"]),
]


def run(command, **more):
    return subprocess.run(command, **more)


def prepare(folder, options, targets):
    if not (root / folder / "build.ninja").exists():
        made = run(["meson", "setup", folder, *options], capture_output=True, text=True)
        if made.returncode:
            print(made.stdout[-3000:], made.stderr[-2000:], file=sys.stderr)
            sys.exit(f"Error: cannot configure {folder}")
    if run(["ninja", "-C", folder, "--quiet", *targets]).returncode:
        sys.exit(f"Error: {folder} does not build")


def counts(folder):
    """Passed, failed and skipped single tests from the JUnit file that meson writes."""
    passed = failed = skipped = 0
    for suite in ET.parse(root / folder / "meson-logs" / "testlog.junit.xml").getroot().iter("testsuite"):
        for case in suite.iter("testcase"):
            if case.find("failure") is not None or case.find("error") is not None:
                failed += 1
            elif (skip := case.find("skipped")) is not None:
                skipped += 1
                print(f"skipped: {folder}: {suite.get('name')}: {case.get('name')} {skip.get('message') or ''}")
            else:
                passed += 1
    return passed, failed, skipped


def fetch(name, variable):
    """Path of a real model for the tests; without a network its tests count as one that is skipped."""
    if os.environ.get(variable):
        return 0
    got = run([sys.executable, "tools/fetch_model.py", name], stdout=subprocess.PIPE, text=True)
    if got.returncode == 0:
        os.environ[variable] = got.stdout.strip()
        return 0
    print(f"skipped: tests with the real model {name} (it cannot be fetched, and {variable} is not set)")
    return 1


def main():
    start = time.time()
    total = [0, 0, fetch("smollm2", "MINKA_TEST_SMOLLM2") + fetch("gemma3", "MINKA_TEST_GEMMA3")
             + fetch("minilm", "MINKA_TEST_MINILM")]
    broken = []
    for folder, options, suites, targets in BUILDS:
        prepare(folder, options, targets)
        env = dict(os.environ, UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1", TSAN_OPTIONS="halt_on_error=1")
        if options:  # real models are for the release build
            env = {k: v for k, v in env.items() if not k.startswith("MINKA_TEST_")}
        command = ["meson", "test", "-C", folder, "--no-rebuild", "--print-errorlogs", "--num-processes", str(os.cpu_count() or 1)]
        for s in suites:
            command += ["--suite", s]
        ran = run(command, env=env)
        got = counts(folder)
        if ran.returncode and got[1] == 0:
            broken.append(folder)  # a program that crashed before it could report
        total = [a + b for a, b in zip(total, got)]
        print(f"{folder}: {got[0]} passed, {got[1]} failed, {got[2]} skipped ({time.time() - start:.0f} s)")
    total[1] += len(broken)
    print(f"{total[0]} passed, {total[1]} failed, {total[2]} skipped")
    return 1 if total[1] else 0


sys.exit(main())
