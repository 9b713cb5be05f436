"""A certificate and tokens for one run, made when they are asked for."""

import secrets
import subprocess

from . import WIGWAG

# Different tokens, so that none of a broker's caches holds the one that comes next for long.
TOKENS = 50


class Credentials:
    def __init__(self, directory):
        self.directory = directory

    def certificate(self):
        """PEM files of a self-signed P-256 certificate, as authorities give them out today, and of its key."""
        certificate, key = self.directory / "certificate.pem", self.directory / "key.pem"
        if not certificate.exists():
            curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
            names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
            run(["openssl", "req", "-x509", "-days", "2", *curve, *names, "-keyout", key, "-out", certificate])
        return certificate, key

    def key_of(self, algorithm):
        """The keys of Wigwag's [auth.token] by which it checks tokens of that algorithm."""
        if algorithm == "HS256":
            (self.directory / "secret").write_text(secrets.token_hex(32))
            return f'[{{ alg = "{algorithm}", secret_file = "{self.directory}/secret" }}]'
        private, public = self.directory / "token.pem", self.directory / "token.pub"
        run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out", private])
        run(["openssl", "pkey", "-in", private, "-pubout", "-out", public])
        return f'[{{ alg = "{algorithm}", public_key_file = "{public}" }}]'

    def tokens(self, algorithm):
        """A file of tokens that may join every room."""
        key = self.directory / ("secret" if algorithm == "HS256" else "token.pem")
        lines = []
        for nth in range(TOKENS):
            mint = [WIGWAG, "token", "--user", f"t-{nth:06}", "--room", "*:join", "--key-file", key]
            done = subprocess.run(mint, cwd=self.directory, capture_output=True, text=True, check=True)
            lines.append(done.stdout.strip())
        tokens = self.directory / "tokens"
        tokens.write_text("\n".join(lines) + "\n")
        return tokens


def run(command):
    subprocess.run(command, check=True, capture_output=True)
