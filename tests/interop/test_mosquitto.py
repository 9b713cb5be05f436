"""mosquitto_pub, mosquitto_sub and mosquitto_rr, and mosquitto itself as a bridge."""

import contextlib
import json
import unittest

from support import AUTHORITY, WIGWAG, WIGWAG_TLS, Background, mosquitto, run, unique

AT_WIGWAG = ("-h", WIGWAG.hostname, "-p", WIGWAG.port)
NOTHING_CAME = 27  # mosquitto_sub's exit code after -W


def publish(*arguments, at=AT_WIGWAG, stdin=None):
    code, _, errors = run("mosquitto_pub", *at, *arguments, stdin=stdin)
    assert code == 0, f"mosquitto_pub {arguments}: {code} {errors}"


def in_both_versions(test):
    def for_each(self):
        for version in ("311", "5"):
            with self.subTest(version=version):
                test(self, version)

    return for_each


class Subscriber(Background):
    """A mosquitto_sub that has its SUBACK; its messages are printed as `-F` says, after "> "."""

    def __init__(self, *arguments, form="%t %q %r %p", at=AT_WIGWAG):
        # Line by line: by itself it keeps what it prints into a pipe.
        super().__init__("stdbuf", "-oL", "mosquitto_sub", *at, "-d", "-F", f"> {form}", *arguments)
        self.granted = self.wait_for("Subscribed (mid")[-1].rsplit(": ", 1)[1]

    def messages_to(self, words):
        return messages(self.wait_for(words))

    def finish(self):
        code, lines = super().finish()
        assert code == 0, f"{code} {lines}"
        return messages(lines)


def messages(lines):
    return [line[2:] for line in lines if line.startswith("> ")]


def fetch(*arguments, form="%t %q %r %p", at=AT_WIGWAG):
    """What a subscriber that comes now still gets."""
    code, lines, errors = run("mosquitto_sub", *at, "-F", form, *arguments)
    assert code in (0, NOTHING_CAME), f"mosquitto_sub {arguments}: {code} {errors}"
    return lines


class Mosquitto(unittest.TestCase):
    @in_both_versions
    def test_the_lower_qos_of_the_two_counts(self, version):
        for subscribed in (0, 1, 2):
            topic = f"test/{unique('qos')}"
            with Subscriber("-V", version, "-q", subscribed, "-t", topic, "-C", 3) as subscriber:
                self.assertEqual(subscriber.granted, str(subscribed))
                for published in (0, 1, 2):
                    publish("-V", version, "-q", published, "-t", topic, "-m", f"at {published}")
                expected = [f"{topic} {min(subscribed, published)} 0 at {published}" for published in (0, 1, 2)]
                self.assertEqual(subscriber.finish(), expected)

    @in_both_versions
    def test_a_retained_message_waits_and_can_be_cleared(self, version):
        topic = f"test/{unique('retained')}"
        with Subscriber("-V", version, "-q", 1, "-t", topic, "-C", 1) as live:
            publish("-V", version, "-q", 1, "-r", "-t", topic, "-m", "kept")
            self.assertEqual(live.finish(), [f"{topic} 1 0 kept"])
        self.assertEqual(fetch("-V", version, "-q", 2, "-t", topic, "-C", 1), [f"{topic} 1 1 kept"])
        publish("-V", version, "-r", "-n", "-t", topic)
        self.assertEqual(fetch("-V", version, "-t", topic, "-W", 1), [])

    @in_both_versions
    def test_a_will_is_sent_for_who_dies_and_not_for_who_leaves(self, version):
        topic = f"test/{unique('will')}"
        will = ("-V", version, "-t", f"{topic}/other", "--will-topic", f"{topic}/will", "--will-qos", 1)
        with Subscriber("-V", version, "-q", 1, "-t", f"{topic}/will", "-C", 1) as subscriber:
            self.assertEqual(fetch(*will, "--will-payload", "left", "-E"), [])
            with Subscriber(*will, "--will-payload", "died"):
                pass  # killed
            self.assertEqual(subscriber.finish(), [f"{topic}/will 1 0 died"])

    def test_a_will_is_sent_for_who_leaves_saying_so(self):
        topic = f"test/{unique('will')}"
        with Subscriber("-V", "5", "-t", topic, "-C", 1) as subscriber:
            with Subscriber("-V", "5", "-t", f"{topic}/other", "--will-topic", topic, "--will-payload", "bye") as leaves:
                leaves.process.terminate()  # mosquitto_sub answers with DISCONNECT 0x04
                leaves.finish()
            self.assertEqual(subscriber.finish(), [f"{topic} 0 0 bye"])

    @in_both_versions
    def test_a_persistent_session_misses_nothing(self, version):
        topic = f"test/{unique('session')}"
        session = ("-V", version, "-c", "-i", unique("device"), "-q", 2, "-t", topic)
        self.assertEqual(fetch(*session, "-E"), [])
        for qos in (1, 2, 2):
            publish("-q", qos, "-t", topic, "-m", f"while away, at {qos}")
        self.assertEqual(fetch(*session, "-C", 3), [f"{topic} {qos} 0 while away, at {qos}" for qos in (1, 2, 2)])
        publish("-q", 1, "-t", topic, "-m", "away again")
        self.assertEqual(fetch(*session, "-C", 1), [f"{topic} 1 0 away again"])

    def test_an_expired_session_is_gone(self):
        topic = f"test/{unique('session')}"
        session = ("-V", "5", "-c", "-i", unique("device"), "-q", 1, "-t", topic, "-x", 0)
        self.assertEqual(fetch(*session, "-E"), [])
        publish("-q", 1, "-t", topic, "-m", "to nobody")
        self.assertEqual(fetch(*session, "-W", 1), [])

    @in_both_versions
    def test_rooms_can_be_watched(self, version):
        rooms = [unique("room"), unique("room")]
        offer = json.dumps({"username": "alice", "offer": {"type": "offer", "sdp": "v=0\r\n" * 1200}})
        with Subscriber("-V", version, "-q", 1, "-t", "rooms/#", "-C", 2, form="%t %p") as observer:
            for room in rooms:
                publish("-V", version, "-u", "alice", "-q", 1, "-t", f"rooms/{room}/signal", "-m", offer)
            self.assertEqual(observer.finish(), [f"rooms/{room}/signal {offer}" for room in rooms])

    def test_the_brokers_own_topics(self):
        version = fetch("-t", "$SYS/broker/version", "-C", 1, form="%p")[0]
        self.assertTrue(version.startswith("wigwag "), version)
        self.assertFalse([line for line in fetch("-t", "#", "-W", 1) if line.startswith("$")])

    @in_both_versions
    def test_many_messages_keep_their_order(self, version):
        lines = [f"message {number}" for number in range(500)]
        for qos in (1, 2):
            topic = f"test/{unique('many')}"
            with Subscriber("-V", version, "-q", qos, "-t", topic, "-C", len(lines), form="%p") as subscriber:
                publish("-V", version, "-q", qos, "-t", topic, "-l", stdin="\n".join(lines) + "\n")
                self.assertEqual(subscriber.finish(), lines)

    @in_both_versions
    def test_tls(self, version):
        secure = ("-h", WIGWAG_TLS.hostname, "-p", WIGWAG_TLS.port)
        trusting = (*secure, "--cafile", AUTHORITY)
        topic = f"test/{unique('tls')}"
        with Subscriber("-V", version, "-q", 1, "-t", topic, "-C", 1, at=trusting) as subscriber:
            publish("-V", version, "-q", 1, "-t", topic, "-m", "sealed", at=trusting)
            self.assertEqual(subscriber.finish(), [f"{topic} 1 0 sealed"])
        code, _, errors = run("mosquitto_pub", *secure, "--tls-use-os-certs", "-t", "test/tls", "-m", "x")
        self.assertNotEqual(code, 0, "the system does not know this authority")
        self.assertIn("TLS", errors)

    def test_properties_arrive_as_they_were_sent(self):
        topic = f"test/{unique('properties')}"
        properties = []
        for name, *value in (
            ("content-type", "application/json"),
            ("response-topic", f"{topic}/answer"),
            ("correlation-data", "17"),
            ("message-expiry-interval", "90"),
            ("user-property", "b", "first"),
            ("user-property", "a", "second"),
            ("user-property", "b", "third"),
        ):
            properties += ["-D", "publish", name, *value]
        with Subscriber("-V", "5", "-t", topic, "-C", 1, form="%C %R %D %E %P") as subscriber:
            publish("-V", "5", "-t", topic, "-m", "{}", *properties)
            (line,) = subscriber.finish()
            said, sender = line.rsplit(" ", 1)
        self.assertEqual(said, f"application/json {topic}/answer 17 90 b:first a:second b:third")
        self.assertTrue(sender.startswith("username:"), sender)  # which the broker adds

    def test_request_and_response(self):
        topic = f"test/{unique('request')}"
        with Subscriber("-V", "5", "-t", topic, "-C", 1, form="%R %D") as responder:
            with Background(
                "mosquitto_rr", *AT_WIGWAG, "-V", "5", "-t", topic, "-e", f"{topic}/answer", "-m", "question",
                "-D", "publish", "correlation-data", "42",
            ) as requester:
                (line,) = responder.finish()
                self.assertEqual(line, f"{topic}/answer 42")
                publish("-V", "5", "-t", f"{topic}/answer", "-m", "answer", "-D", "publish", "correlation-data", "42")
                self.assertEqual(requester.finish(), (0, ["answer"]))

    def test_a_shared_subscription_gives_each_message_to_one(self):
        topic = f"test/{unique('shared')}"
        filters = ("-V", "5", "-q", 1, "-t", f"$share/workers/{topic}", "-t", f"{topic}/end")
        jobs = [f"job {number}" for number in range(20)]
        with Subscriber(*filters, form="%p") as one, Subscriber(*filters, form="%p") as other:
            publish("-q", 1, "-t", topic, "-l", stdin="\n".join(jobs) + "\n")
            publish("-q", 1, "-t", f"{topic}/end", "-m", "end")
            taken = [worker.messages_to("> end")[:-1] for worker in (one, other)]
        self.assertTrue(all(taken), f"one of the two got nothing: {taken}")
        self.assertEqual(sorted(taken[0] + taken[1]), sorted(jobs))


class Bridge(unittest.TestCase):
    """A mosquitto broker of our own, bridged to Wigwag."""

    def test_messages_cross_in_both_directions(self):
        for version in ("mqttv311", "mqttv50"):
            topic = f"app/{unique('bridge')}"
            with self.subTest(version=version), bridge(version, topic) as there:
                for source, destination in ((AT_WIGWAG, there), (there, AT_WIGWAG)):
                    with Subscriber("-q", 1, "-t", f"{topic}/#", "-C", 1, at=destination) as subscriber:
                        publish("-q", 1, "-t", f"{topic}/news", "-m", "hello", at=source)
                        self.assertEqual(subscriber.finish(), [f"{topic}/news 1 0 hello"])


@contextlib.contextmanager
def bridge(version, topic):
    """Yields where that mosquitto is to be found."""
    configuration = (
        "connection wigwag",
        f"address {WIGWAG.hostname}:{WIGWAG.port}",
        f"bridge_protocol_version {version}",
        "restart_timeout 1",  # in 3.1.1 it begins with an attempt that only another mosquitto understands
        "notifications_local_only true",  # Wigwag's $SYS is not for others to write
        f"topic {topic}/# both 1",
    )
    with mosquitto(*configuration) as broker:
        broker.wait_for("Received SUBACK from local.")
        yield ("-h", "127.0.0.1", "-p", broker.port)


if __name__ == "__main__":
    unittest.main()
