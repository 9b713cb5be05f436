"""Servers that can be started on a port, each with one core."""

import contextlib
import dataclasses
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from . import PLACE, ROOT, SERVER_CORE, WIGWAG
from .credentials import Credentials

NODE = PLACE / "node"
NODE_PACKAGES = ["aedes", "peer", "socket.io", "socket.io-client", "ws"]
SHELL_PATH = os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin"


@dataclasses.dataclass(frozen=True)
class Variant:
    """How a server is started, where that is not how it usually is."""

    tls: bool = False
    # "HS256" or "ES256": clients show tokens, which are checked.
    tokens: str = ""
    workers: int = 1


@dataclasses.dataclass
class Started:
    pid: int
    port: int
    tls_port: int
    credentials: Credentials


class DoesNotStart(Exception):
    pass


class Broker:
    """Something that can be started on a port and speaks MQTT over WebSocket there."""

    name = ""
    # What `bench/node/load.mjs` calls its protocol, if that is not MQTT.
    protocol = ""
    # Whether it makes rosters itself.
    rosters = False

    def command(self, started, directory, variant):
        raise NotImplementedError

    def environment(self, started, variant):
        return {}

    def missing(self):
        """Why it cannot be started, or None."""
        return None

    def version(self):
        return ""

    @contextlib.contextmanager
    def running(self, variant):
        with tempfile.TemporaryDirectory(prefix="wigwag-compare-") as directory:
            process, started = self.start(pathlib.Path(directory), variant)
            try:
                yield started
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def start(self, directory, variant):
        """A port that was free may be somebody else's a moment later, so it is tried again."""
        for _ in range(3):
            started = Started(0, free_port(), free_port(), Credentials(directory))
            command = ["taskset", "-c", SERVER_CORE, *self.command(started, directory, variant)]
            environment = {**os.environ, **self.environment(started, variant)}
            with open(directory / "output", "w") as output:
                process = subprocess.Popen(command, cwd=directory, env=environment, stdout=output, stderr=output)
            if listens(started.tls_port if variant.tls else started.port, process):
                started.pid = process.pid
                time.sleep(0.2)
                return process, started
            process.kill()
            process.wait()
        said = (directory / "output").read_text().strip().split("\n")
        raise DoesNotStart(f"{self.name} does not start: {said[-1]}")


class Wigwag(Broker):
    name = "wigwag"
    rosters = True

    def missing(self):
        return None if WIGWAG.exists() else "no release build: cargo build --release"

    def version(self):
        return first_number([WIGWAG, "--version"]) + " (" + first_line(["git", "-C", ROOT, "describe", "--always"]) + ")"

    def command(self, started, directory, variant):
        # As shipped, topic table and all, but for rates and numbers: a generator is faster and more than any caller.
        shipped = subprocess.run([WIGWAG, "check"], cwd=directory, capture_output=True, text=True, check=True).stdout
        free = re.sub(r"^rate = .*$", "rate = { messages = 0, bytes = 0 }", shipped, flags=re.MULTILINE)
        free = re.sub(r"(\[rate\.\w+\]\n)messages = .*\nbytes = .*\n", r"\1messages = 0\nbytes = 0\n", free)
        free = re.sub(r"^subscriptions = .*$", "subscriptions = 1000000", free, flags=re.MULTILINE)
        if variant.tokens:
            keys = started.credentials.key_of(variant.tokens)
            free = re.sub(r"(\[auth\.token\].*?\nkeys = )\[\]", rf"\g<1>{keys}", free, count=1, flags=re.DOTALL)
        (directory / "wigwag.toml").write_text(free)
        addresses = ["--http", f"127.0.0.1:{started.port}", "--mqtt", "127.0.0.1:0"]
        return [WIGWAG, "serve", "--config", "wigwag.toml", "--workers", str(variant.workers), *addresses]

    def environment(self, started, variant):
        # One core for a broker, and no second one behind it.
        environment = {"WIGWAG_BACKPLANE__MODE": "off", "WIGWAG_LIMITS__CONNECTIONS_PER_ADDRESS": "0"}
        if variant.tls:
            certificate, key = started.credentials.certificate()
            environment["WIGWAG_HTTP__TLS_LISTEN"] = f"127.0.0.1:{started.tls_port}"
            environment |= {"WIGWAG_TLS__CERTIFICATE": str(certificate), "WIGWAG_TLS__KEY": str(key)}
        if variant.tokens:
            environment["WIGWAG_AUTH__METHODS"] = "token"
        return environment


class Mosquitto(Broker):
    name = "mosquitto"

    def missing(self):
        return None if self.path() else "not installed (its package has this name everywhere)"

    @staticmethod
    def path():
        return shutil.which("mosquitto", path=SHELL_PATH)

    def version(self):
        return first_number([self.path(), "-h"])

    def command(self, started, directory, variant):
        # With a listener for WebSocket alone it does not start.
        config = directory / "mosquitto.conf"
        config.write_text(
            "allow_anonymous true\nset_tcp_nodelay true\npersistence false\nlog_type error\n"
            f"listener {free_port()} 127.0.0.1\n"
            f"listener {started.port} 127.0.0.1\nprotocol websockets\n"
        )
        return [self.path(), "-c", config]


class Floor(Broker):
    name = "floor"

    def missing(self):
        return Wigwag().missing()

    def command(self, started, directory, variant):
        return [WIGWAG, "bench", "floor", "--listen", f"127.0.0.1:{started.port}"]


class Rumqttd(Broker):
    name = "rumqttd"
    binary = PLACE / "rumqttd" / "release" / "bench-rumqttd"

    def missing(self):
        return None if self.binary.exists() else "not built: bench/compare --install"

    def version(self):
        lock = (ROOT / "bench" / "rumqttd" / "Cargo.lock").read_text()
        return re.search(r'name = "rumqttd"\nversion = "(.*?)"', lock)[1]

    def command(self, started, directory, variant):
        return [self.binary, str(started.port)]


class OnNode(Broker):
    """A server of bench/node."""

    def __init__(self, name, package, script, protocol=""):
        self.name, self.package, self.script, self.protocol = name, package, script, protocol

    def missing(self):
        if not shutil.which("node"):
            return "no node"
        return None if (NODE / "node_modules" / self.package).exists() else "not installed: bench/compare --install"

    def version(self):
        package = NODE / "node_modules" / self.package / "package.json"
        return re.search(r'"version":\s*"(.*?)"', package.read_text())[1]

    def command(self, started, directory, variant):
        # Where its packages are.
        shutil.copy(ROOT / "bench" / "node" / self.script, NODE)
        return ["node", NODE / self.script, str(started.port)]


class Nginx(Broker):
    """No broker: TLS handshakes are compared with its."""

    name = "nginx"

    @staticmethod
    def path():
        return shutil.which("nginx", path=SHELL_PATH)

    def missing(self):
        return None if self.path() else "not installed (its package has this name everywhere)"

    def version(self):
        done = subprocess.run([self.path(), "-v"], capture_output=True, text=True)
        return next(iter(re.findall(r"\d+\.\d+[.\d]*", done.stderr)), "?")

    def command(self, started, directory, variant):
        certificate, key = started.credentials.certificate()
        config = directory / "nginx.conf"
        temporary = "".join(f"{kind}_temp_path {directory}/t;" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
        config.write_text(
            f"daemon off; master_process off; worker_processes 1; pid {directory}/pid; error_log stderr;\n"
            "events { worker_connections 10000; }\n"
            f"http {{ access_log off; {temporary}\n"
            f"  server {{ listen 127.0.0.1:{started.tls_port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};\n"
            "    ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:s:10m;\n"
            '    location / { default_type text/plain; return 200 "ok\\n"; } } }\n'
        )
        return [self.path(), "-p", directory, "-c", config]


WIGWAG_BROKER = Wigwag()
BROKERS = [
    WIGWAG_BROKER,
    Mosquitto(),
    Floor(),
    Rumqttd(),
    OnNode("aedes", "aedes", "aedes.mjs"),
    OnNode("socket.io", "socket.io", "socketio.mjs", protocol="socketio"),
    OnNode("peerjs", "peer", "peerjs.mjs", protocol="peerjs"),
    Nginx(),
]


def install():
    """Fetches what comes from npm and crates.io, by their own clients, into a directory under target/."""
    NODE.mkdir(parents=True, exist_ok=True)
    (NODE / "package.json").write_text('{"private": true}\n')
    if shutil.which("npm"):
        quiet = ["--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(["npm", "install", *quiet, *NODE_PACKAGES], cwd=NODE, check=True)
    else:
        print("no npm: aedes, Socket.IO and PeerJS are left out")
    manifest = ROOT / "bench" / "rumqttd" / "Cargo.toml"
    build = ["cargo", "build", "--quiet", "--release", "--manifest-path", manifest]
    subprocess.run([*build, "--target-dir", PLACE / "rumqttd"], check=True)


def free_port():
    """None that the system gives to clients: connections of the run before still hold many of those."""
    while True:
        port = random.randrange(10_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def listens(port, process):
    for _ in range(600):
        if process.poll() is not None:
            return False
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.05)
    return False


def first_line(command):
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout or done.stderr).strip().split("\n")[0]


def first_number(command):
    return next(iter(re.findall(r"\d+\.\d+[.\d]*", first_line(command))), "?")
