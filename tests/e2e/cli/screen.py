"""A child on a pseudo-terminal, and the little of a terminal that is needed to see what is on its screen."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time

SEQUENCE = re.compile(r"\x1b(?:\[([?0-9;]*)([@A-Za-z])|[()][A-Z0-9]|[=>78cDEHMNOZ])")


class Screen:
    """Text at a cursor; lines are never scrolled away."""

    def __init__(self, columns):
        self.columns, self.lines, self.row, self.column = columns, [[]], 0, 0

    def put(self, c):
        if self.column >= self.columns:
            self.row, self.column = self.row + 1, 0
        while len(self.lines) <= self.row:
            self.lines.append([])
        line = self.lines[self.row]
        line.extend(" " * (self.column + 1 - len(line)))
        line[self.column] = c
        self.column += 1

    def csi(self, parameters, final):
        n = int(parameters) if parameters.isdigit() else 0
        if final == "A":
            self.row = max(0, self.row - max(n, 1))
        elif final == "B":
            self.row += max(n, 1)
        elif final == "C":
            self.column += max(n, 1)
        elif final == "D":
            self.column = max(0, self.column - max(n, 1))
        elif final == "G":
            self.column = max(n, 1) - 1
        elif final == "K":
            while len(self.lines) <= self.row:
                self.lines.append([])
            del self.lines[self.row][self.column :]
        elif final == "J":
            self.csi("", "K")
            del self.lines[self.row + 1 :]
        elif final == "P":
            del self.lines[self.row][self.column : self.column + max(n, 1)]
        elif final == "@":
            self.lines[self.row][self.column : self.column] = " " * max(n, 1)

    def feed(self, text):
        at = 0
        while at < len(text):
            c = text[at]
            if c == "\x1b" and (m := SEQUENCE.match(text, at)):
                if m[2]:
                    self.csi(m[1], m[2])
                at = m.end()
                continue
            if c == "\n":
                self.row += 1
            elif c == "\r":
                self.column = 0
            elif c == "\b":
                self.column = max(0, self.column - 1)
            elif c >= " ":
                self.put(c)
            at += 1

    def text(self):
        return "\n".join("".join(line).rstrip() for line in self.lines)


class Terminal:
    def __init__(self, argv, env, columns=80, rows=24):
        self.columns, self.raw = columns, ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(argv[0], argv, env)
        self.resize(columns, rows)

    def resize(self, columns, rows=24):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not select.select([self.fd], [], [], left)[0]:
                return False
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                return True
            if not data:
                return True
            self.raw += data.decode(errors="replace")
            return False
        return False

    def screen(self, since=0):
        s = Screen(self.columns)
        s.feed(self.raw[since:])
        return s.text()

    def mark(self):
        return len(self.raw)

    def expect(self, text, since=0, timeout=8):
        """Waits until text is on the screen that the output from since on draws (blanks at line ends don't show)."""
        text = text.rstrip(" ")
        end = time.monotonic() + timeout
        while text not in self.screen(since):
            if time.monotonic() > end:
                raise AssertionError(f"{text!r} is not on the screen:\n{self.screen(since)[-1500:]}\n{self.raw[-300:]!r}")
            self.read(0.05)

    def send(self, text):
        os.write(self.fd, text.encode())

    def line(self, text):
        self.send(text + "\r")

    def wait(self, timeout=8):
        """The exit code."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                while not self.read(0.05) and select.select([self.fd], [], [], 0)[0]:
                    pass
                os.close(self.fd)
                self.pid = None
                return os.waitstatus_to_exitcode(status)
            self.read(0.05)
        raise AssertionError(f"still running:\n{self.screen()[-1500:]}")

    def kill(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self.fd)
            self.pid = None
