"""What the tests have in common: where the broker is, names that no other test uses, and command line clients."""

import contextlib
import itertools
import os
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse

PATIENCE = 15  # seconds; only a failure takes that long

WIGWAG = urllib.parse.urlsplit(os.environ["WIGWAG_MQTT"])
WIGWAG_TLS = urllib.parse.urlsplit(os.environ["WIGWAG_MQTTS"])
WEBSOCKET = urllib.parse.urlsplit(os.environ["WIGWAG_WS"])
WEBSOCKET_TLS = urllib.parse.urlsplit(os.environ["WIGWAG_WSS"])
AUTHORITY = os.environ["WIGWAG_CA"]

_numbers = itertools.count(1)


def unique(prefix):
    """A topic level, user name or client id."""
    return f"{prefix}-{os.getpid()}-{next(_numbers)}"


def run(*command, stdin=None):
    """Runs a client that ends by itself; returns its exit code, the lines it printed, and its complaints."""
    done = subprocess.run(
        [str(part) for part in command], input=stdin, capture_output=True, text=True, timeout=PATIENCE
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


class Background:
    """A client that goes on until it has what it waits for, or is stopped; `with` sees to the latter."""

    def __init__(self, *command):
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.impatience = threading.Timer(2 * PATIENCE, self.process.kill)
        self.impatience.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.impatience.cancel()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def wait_for(self, words):
        """Reads on to the line with these words in it, and returns all that came, with that line at the end."""
        lines = []
        for line in self.process.stdout:
            lines.append(line.rstrip("\n"))
            if words in line:
                return lines
        raise AssertionError(f"{self.process.args} ended without {words!r}: {lines}")

    def finish(self):
        """Its exit code and the lines that are left, once it has ended by itself."""
        rest = self.process.stdout.read()
        return self.process.wait(), rest.splitlines()


def eventually(condition, what):
    """Waits until `condition()` is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE} s: {what}")
        time.sleep(0.02)


@contextlib.contextmanager
def mosquitto(*configuration):
    """Runs a mosquitto broker, for comparison or to talk to Wigwag by itself; it has a `port` on 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lines = (f"listener {port} 127.0.0.1", "allow_anonymous true", *configuration)
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        print(*lines, sep="\n", file=file, flush=True)
        with Background("mosquitto", "-v", "-c", file.name) as broker:
            broker.wait_for(" running")
            broker.port = port
            yield broker
