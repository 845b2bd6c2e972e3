#!/usr/bin/env python3
"""make install: what a packager calls, and what a user gets from it; the systemd unit."""
import os, pathlib, shutil, subprocess, sys, tempfile, time

from harness import MINKA, ROOT, Server, Skip, TINY, main
from test_robust import answers

BUILD = pathlib.Path(MINKA).parent.parent


def install(folder, prefix=None):
    command = ["make", "--no-print-directory", "-C", str(ROOT), "install", f"BUILD={BUILD}", f"DESTDIR={folder}"]
    subprocess.run(command + ([f"PREFIX={prefix}"] if prefix else []), check=True, capture_output=True, timeout=300)
    return sorted(str(p.relative_to(folder)) for p in pathlib.Path(folder).rglob("*") if p.is_file())


def test_install():
    with tempfile.TemporaryDirectory(prefix="minka-e2e-") as folder:
        assert install(folder) == ["usr/local/bin/minka", "usr/local/lib/systemd/system/minka.service"]
        shutil.rmtree(folder + "/usr")
        assert install(folder, "/opt/minka") == ["opt/minka/bin/minka", "opt/minka/lib/systemd/system/minka.service"]
        unit = open(folder + "/opt/minka/lib/systemd/system/minka.service").read()
        assert "ExecStart=/opt/minka/bin/minka serve\n" in unit and "@" not in unit.replace("@system-service", ""), unit
        program = folder + "/opt/minka/bin/minka"
        assert os.stat(program).st_mode & 0o777 == 0o755
        shown = subprocess.run([program, "--version"], capture_output=True, text=True)
        assert shown.returncode == 0 and "minka" in shown.stdout.lower() + shown.stderr.lower(), shown


def test_unit_is_understood():
    if not shutil.which("systemd-analyze"):
        raise Skip("systemd-analyze is not here")
    with tempfile.TemporaryDirectory(prefix="minka-e2e-") as folder:
        with open(ROOT / "dist/minka.service") as f, open(folder + "/minka.service", "w") as out:
            out.write(f.read().replace("@BINDIR@/minka", MINKA))
        got = subprocess.run(["systemd-analyze", "verify", folder + "/minka.service"], capture_output=True, text=True)
        lines = [line for line in (got.stdout + got.stderr).splitlines() if "minka.service" in line]
        assert got.returncode == 0 and not lines, got


def test_serves_with_the_rights_of_the_unit():
    """Without capabilities and new privileges, as a user who owns nothing but the store: the sandbox is entered."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        raise Skip("only root can become another user")
    s = Server({"m": TINY})
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    try:
        for folder, _, files in os.walk(s.folder):
            for name in [folder] + [os.path.join(folder, f) for f in files]:
                os.chown(name, 65534, 65534)
        if subprocess.run(drop + [MINKA, "--version"], capture_output=True).returncode:
            raise Skip("the program can not be run by another user")
        with open(s.folder + "/log", "w+") as log:
            p = subprocess.Popen(drop + [MINKA, "serve"], env=s.env, stderr=log, cwd="/")
            try:
                for _ in range(400):
                    try:
                        s.get("/api/version")
                        break
                    except OSError:
                        time.sleep(0.02)
                assert answers(s)
                with open(f"/proc/{p.pid}/task/{p.pid}/children") as f:
                    engine = f.read().split()[0]
                with open(f"/proc/{engine}/status") as f:
                    status = dict(line.split(":", 1) for line in f)
                assert status["Seccomp"].strip() == "2" and int(status["CapBnd"], 16) == 0, status
            finally:
                p.terminate()
                assert p.wait(20) == 0
            log.seek(0)
            assert "without a sandbox" not in log.read()
    finally:
        shutil.rmtree(s.folder)


if __name__ == "__main__":
    main(sys.modules[__name__])
