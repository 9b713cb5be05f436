"""Paho, Python's classic client: 3.1.1 and 5.0, over TCP and WebSocket, with and without TLS."""

import queue
import unittest

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from support import AUTHORITY, PATIENCE, WEBSOCKET, WEBSOCKET_TLS, WIGWAG, WIGWAG_TLS, eventually, unique


def properties(packet, **values):
    result = Properties(packet)
    for name, value in values.items():
        setattr(result, name, value)
    return result


class Client:
    """A Paho client whose callbacks put everything into queues; `with` disconnects it."""

    def __init__(self, version=paho.MQTTv5, at=WIGWAG, client_id=None, clean=True, will=None, **connect):
        websocket = at.scheme in ("ws", "wss")
        session = {} if version == paho.MQTTv5 else {"clean_session": clean}
        self.paho = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id or unique("paho"),
            protocol=version,
            transport="websockets" if websocket else "tcp",
            reconnect_on_failure=False,
            **session,
        )
        if websocket:
            self.paho.ws_set_options(path=at.path)
        if at.scheme in ("wss", "mqtts"):
            self.paho.tls_set(ca_certs=AUTHORITY)
        if will:
            self.paho.will_set(**will)
        self.connected, self.subscribed, self.messages, self.ended = (queue.Queue() for _ in range(4))
        self.paho.on_connect = lambda _client, _data, *connack: self.connected.put(connack)
        self.paho.on_subscribe = lambda _client, _data, _mid, codes, _properties: self.subscribed.put(codes)
        self.paho.on_message = lambda _client, _data, message: self.messages.put(message)
        self.paho.on_disconnect = lambda _client, _data, _flags, code, _properties: self.ended.put(code)
        if version == paho.MQTTv5:
            connect["clean_start"] = clean
        self.paho.connect(at.hostname, at.port, **connect)
        self.paho.loop_start()
        self.flags, self.code, self.granted = self.connected.get(timeout=PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.paho.disconnect()
        self.paho.loop_stop()

    def subscribe(self, *arguments, **options):
        self.paho.subscribe(*arguments, **options)
        return [code.value for code in self.subscribed.get(timeout=PATIENCE)]

    def publish(self, *arguments, **options):
        self.paho.publish(*arguments, **options).wait_for_publish(PATIENCE)

    def message(self):
        return self.messages.get(timeout=PATIENCE)


class Paho(unittest.TestCase):
    def test_every_transport_carries_every_qos_in_both_versions(self):
        payload = bytes(range(256)) * 80
        for at in (WIGWAG, WIGWAG_TLS, WEBSOCKET, WEBSOCKET_TLS):
            for version in (paho.MQTTv311, paho.MQTTv5):
                with self.subTest(at=at.scheme, version=version), Client(version, at) as client:
                    topic = f"test/{unique('transport')}"
                    self.assertEqual(client.subscribe([(topic, 2), (f"{topic}/+", 1)]), [2, 1])
                    for qos in (0, 1, 2):
                        client.publish(topic, payload, qos=qos)
                        message = client.message()
                        self.assertEqual((message.qos, message.retain, message.payload), (qos, False, payload))

    def test_properties(self):
        topic = f"test/{unique('properties')}"
        with Client() as client:
            client.subscribe(topic, options=SubscribeOptions(qos=1), properties=properties(
                PacketTypes.SUBSCRIBE, SubscriptionIdentifier=7))
            client.publish(topic, "{}", qos=1, properties=properties(
                PacketTypes.PUBLISH,
                PayloadFormatIndicator=1,
                MessageExpiryInterval=120,
                ContentType="application/json",
                ResponseTopic=f"{topic}/answer",
                CorrelationData=b"\x00\xff",
                UserProperty=[("b", "first"), ("a", "second"), ("b", "third")],
            ))
            got = client.message().properties
        self.assertEqual(got.PayloadFormatIndicator, 1)
        self.assertIn(got.MessageExpiryInterval, (119, 120))
        self.assertEqual(got.ContentType, "application/json")
        self.assertEqual(got.ResponseTopic, f"{topic}/answer")
        self.assertEqual(got.CorrelationData, b"\x00\xff")
        self.assertEqual([pair for pair in got.UserProperty if pair[0] != "username"],
                         [("b", "first"), ("a", "second"), ("b", "third")])
        self.assertEqual(got.SubscriptionIdentifier, [7])

    def test_subscription_options(self):
        topic = f"test/{unique('options')}"
        with Client() as client:
            client.publish(f"{topic}/kept", "before", qos=1, retain=True)
            never, as_published = SubscribeOptions.RETAIN_DO_NOT_SEND, True
            client.subscribe(f"{topic}/kept", options=SubscribeOptions(1, False, as_published, never))
            client.subscribe(f"{topic}/own", options=SubscribeOptions(qos=1, noLocal=True))
            client.publish(f"{topic}/own", "an echo", qos=1)
            client.publish(f"{topic}/kept", "now", qos=1, retain=True)
            message = client.message()
            self.assertEqual((message.payload, message.retain), (b"now", True))
            client.publish(f"{topic}/kept", "", qos=1, retain=True)

    def test_what_the_server_grants(self):
        with Client(client_id="", keepalive=30, properties=properties(
                PacketTypes.CONNECT, SessionExpiryInterval=30, ReceiveMaximum=5)) as client:
            self.assertFalse(client.code.is_failure)
            self.assertFalse(client.flags.session_present)
            self.assertTrue(client.granted.TopicAliasMaximum > 0)
            self.assertTrue(client.granted.MaximumPacketSize >= 64 * 1024)

    def test_a_session_outlives_its_connection(self):
        for version in (paho.MQTTv311, paho.MQTTv5):
            topic, client_id = f"test/{unique('session')}", unique("device")
            session = {"client_id": client_id, "clean": False, "version": version}
            if version == paho.MQTTv5:
                session["properties"] = properties(PacketTypes.CONNECT, SessionExpiryInterval=60)
            with self.subTest(version=version), Client() as other:
                with Client(**session) as first:
                    self.assertFalse(first.flags.session_present)
                    first.subscribe(topic, qos=2)
                for number in range(3):
                    other.publish(topic, f"{number}", qos=2)
                with Client(**session) as second:
                    self.assertTrue(second.flags.session_present)
                    self.assertEqual([second.message().payload for _ in range(3)], [b"0", b"1", b"2"])

    def test_a_will_waits_for_its_delay(self):
        topic = f"test/{unique('will')}"
        with Client() as watcher:
            watcher.subscribe(topic, qos=1)
            dying = Client(
                will={"topic": topic, "payload": "gone", "qos": 1, "properties": properties(
                    PacketTypes.WILLMESSAGE, WillDelayInterval=1)},
                properties=properties(PacketTypes.CONNECT, SessionExpiryInterval=60),
            )
            dying.paho.loop_stop()
            dying.paho.socket().close()
            with self.assertRaises(queue.Empty, msg="not before its delay"):
                watcher.messages.get(timeout=0.5)
            self.assertEqual(watcher.message().payload, b"gone")

    def test_who_takes_a_client_id_over_ends_the_other(self):
        client_id = unique("tab")
        with Client(client_id=client_id) as older, Client(client_id=client_id) as newer:
            self.assertEqual(older.ended.get(timeout=PATIENCE), ReasonCode(PacketTypes.DISCONNECT, identifier=0x8E))
            self.assertTrue(newer.paho.is_connected())

    def test_keep_alive_is_answered(self):
        with Client(keepalive=1) as client:
            pings = []
            client.paho.on_log = lambda _client, _data, _level, line: pings.append("PINGRESP" in line)
            eventually(lambda: sum(pings) >= 2, "two PINGRESP")
            self.assertTrue(client.paho.is_connected())


if __name__ == "__main__":
    unittest.main()
