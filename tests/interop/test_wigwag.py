"""`wigwag pub` and `wigwag sub`, at Wigwag and at a broker that is not ours."""

import os
import pathlib
import tempfile
import unittest

from support import AUTHORITY, Background, mosquitto, run, unique

WIGWAG = os.environ["WIGWAG_BINARY"]
URLS = [os.environ[f"WIGWAG_{name}"] for name in ("MQTT", "WS", "MQTTS", "WSS")]


def target(url, version=5):
    trust = ("--cafile", AUTHORITY) if url.startswith(("mqtts:", "wss:")) else ()
    return ("--url", url, "-V", version, *trust)


class Wigwag(unittest.TestCase):
    def publish(self, *arguments, stdin=None):
        self.assertEqual(run(WIGWAG, "pub", *arguments, stdin=stdin), (0, [], ""))

    def fetch(self, *arguments):
        code, lines, errors = run(WIGWAG, "sub", "-W", 10, *arguments)
        self.assertEqual((code, errors), (0, ""))
        return lines

    def converse(self, url, version):
        """One subscriber: a retained message tells that it is there, and then it hears every QoS."""
        topic = f"test/{unique('wigwag')}"
        at = target(url, version)
        self.publish(*at, "-q", 1, "-r", "-t", f"{topic}/kept", "-m", "kept")
        with Background(WIGWAG, "sub", *at, "-v", "-q", 2, "-t", f"{topic}/#", "-C", 4, "-W", 10) as subscriber:
            subscriber.wait_for(f"{topic}/kept kept")
            for qos in (0, 1, 2):
                self.publish(*at, "-q", qos, "-t", f"{topic}/live", "-m", f"at {qos}")
            self.assertEqual(subscriber.finish(), (0, [f"{topic}/live at {qos}" for qos in (0, 1, 2)]))
        self.publish(*at, "-q", 1, "-r", "-t", f"{topic}/kept", "-m", "")

    def test_every_transport_and_qos_in_both_versions(self):
        for url in URLS:
            for version in (4, 5):
                with self.subTest(url=url, version=version):
                    self.converse(url, version)

    def test_at_another_broker(self):
        with mosquitto() as broker:
            for version in (4, 5):
                with self.subTest(version=version):
                    self.converse(f"mqtt://127.0.0.1:{broker.port}", version)

    def test_payloads_from_standard_input_and_from_a_file(self):
        topic = f"test/{unique('payload')}"
        at = target(URLS[0])
        text = "x" * 100_000
        self.publish(*at, "-q", 1, "-r", "-t", topic, stdin=text)
        self.assertEqual(self.fetch(*at, "-t", topic, "-C", 1), [text])
        with tempfile.TemporaryDirectory() as directory:
            file = pathlib.Path(directory) / "payload"
            file.write_text("from a file")
            self.publish(*at, "-q", 2, "-r", "-t", topic, "-f", file)
        self.assertEqual(self.fetch(*at, "-t", topic, "-C", 1), ["from a file"])
        self.publish(*at, "-q", 1, "-r", "-t", topic, "-m", "")

    def test_what_the_broker_refuses_is_a_failure_that_says_why(self):
        code, lines, errors = run(WIGWAG, "pub", *target(URLS[0]), "-q", 1, "-t", "$SYS/mine", "-m", "x")
        self.assertEqual((code, lines), (1, []))
        self.assertTrue(errors.startswith("$SYS/mine: refused: "), errors)

    def test_an_unknown_authority_is_not_trusted(self):
        for url in URLS[2:]:
            code, _, errors = run(WIGWAG, "pub", "--url", url, "-t", "test/tls", "-m", "x")
            self.assertEqual(code, 1)
            self.assertIn("certificate", errors)
            self.publish("--url", url, "--insecure", "-t", "test/tls", "-m", "x")


if __name__ == "__main__":
    unittest.main()
