"""coturn as it is shipped (deploy/coturn.conf), and a TURN client (RFC 8656) that sees what it allows."""

import base64
import contextlib
import hashlib
import hmac
import ipaddress
import os
import pathlib
import secrets
import socket
import struct
import subprocess
import tempfile
import time

CONFIGURATION = pathlib.Path(__file__).resolve().parents[2] / "deploy" / "coturn.conf"
PATIENCE = 15
COOKIE = 0x2112A442
ALLOCATE, CREATE_PERMISSION = 0x0003, 0x0008
ERROR = 0x0110
USERNAME, INTEGRITY, CODE, PEER, REALM, NONCE, FAMILY, TRANSPORT, RELAYED = (
    0x0006, 0x0008, 0x0009, 0x0012, 0x0014, 0x0015, 0x0017, 0x0019, 0x0016,
)


def own_address():
    """An address of this machine that is not loopback's: the one by which it would reach others. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return probe.getsockname()[0]


@contextlib.contextmanager
def running(address, *lines):
    """Runs it with further lines of configuration; yields its port and its secret."""
    secret = secrets.token_hex(32)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="coturn-") as directory:
        kept = CONFIGURATION.read_text().replace("listening-port=3478", "")
        more = (
            f"listening-port={port}",
            f"static-auth-secret={secret}",
            f"listening-ip={address}",
            f"relay-ip={address}",
            "no-tls",
            "no-dtls",
            f"userdb={directory}/turndb",
            f"pidfile={directory}/pid",
            "log-file=stdout",
            *lines,
        )
        file = pathlib.Path(directory) / "coturn.conf"
        file.write_text("\n".join((kept, *more, "")))
        with open(pathlib.Path(directory) / "log", "w+b") as log:
            process = subprocess.Popen(
                ["turnserver", "-c", str(file)], cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )
            try:
                wait_until_it_answers(process, (address, port), log)
                yield port, secret
            finally:
                process.terminate()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def wait_until_it_answers(process, address, log):
    deadline = time.monotonic() + PATIENCE
    with Client(address, "", "") as client:
        client.socket.settimeout(0.1)
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError):
                client.ask(ALLOCATE, [(TRANSPORT, b"\x11\0\0\0")], signed=False)
                return
    log.seek(0)
    raise AssertionError(f"coturn does not answer: {log.read().decode(errors='replace')[-2000:]}")


def credential(secret, user, expiry=None):
    """What Wigwag mints, made here a second time."""
    username = f"{expiry or int(time.time()) + 600}:{user}"
    return username, base64.b64encode(hmac.digest(secret.encode(), username.encode(), "sha1")).decode()


class Client:
    """One UDP socket to a TURN server."""

    def __init__(self, address, username, password):
        self.username, self.password = username, password
        self.realm = self.nonce = b""
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(address)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def allocate(self, family=4):
        """0, or the error code."""
        wanted = [(TRANSPORT, b"\x11\0\0\0")]
        if family == 6:
            wanted.append((FAMILY, b"\x02\0\0\0"))
        code, attributes = self.ask(ALLOCATE, wanted, signed=False)
        if code == 401:
            self.realm, self.nonce = attributes[REALM], attributes[NONCE]
            code, attributes = self.ask(ALLOCATE, wanted)
        return code

    def permit(self, peer):
        """0 if it would relay to that address, or the error code."""
        return self.ask(CREATE_PERMISSION, lambda transaction: [(PEER, xor(peer, transaction))])[0]

    def ask(self, method, attributes, signed=True):
        transaction = os.urandom(12)
        if callable(attributes):
            attributes = attributes(transaction)
        if signed:
            attributes = [
                *attributes, (USERNAME, self.username.encode()), (REALM, self.realm), (NONCE, self.nonce),
            ]
        body = b"".join(attribute(kind, value) for kind, value in attributes)
        if signed:
            key = hashlib.md5(b":".join((self.username.encode(), self.realm, self.password.encode()))).digest()
            head = struct.pack(">HHI", method, len(body) + 24, COOKIE) + transaction
            body += attribute(INTEGRITY, hmac.digest(key, head + body, "sha1"))
        self.socket.send(struct.pack(">HHI", method, len(body), COOKIE) + transaction + body)
        while True:
            answer = self.socket.recv(4096)
            if answer[8:20] == transaction:
                return parse(answer)


def attribute(kind, value):
    return struct.pack(">HH", kind, len(value)) + value + bytes(-len(value) % 4)


def parse(answer):
    kind, length = struct.unpack(">HH", answer[:4])
    attributes, rest = {}, answer[20:20 + length]
    while rest:
        name, size = struct.unpack(">HH", rest[:4])
        attributes[name] = rest[4:4 + size]
        rest = rest[4 + size + (-size % 4):]
    code = attributes[CODE][2] * 100 + attributes[CODE][3] if kind & ERROR == ERROR else 0
    return code, attributes


def xor(peer, transaction):
    address = ipaddress.ip_address(peer)
    mask = struct.pack(">I", COOKIE) + transaction
    masked = bytes(a ^ b for a, b in zip(address.packed, mask))
    return struct.pack(">BBH", 0, 1 if address.version == 4 else 2, 9 ^ (COOKIE >> 16)) + masked
