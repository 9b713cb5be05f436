"""aiomqtt, Python's asyncio client: 3.1.1 and 5.0, over TCP and WebSocket, with and without TLS."""

import asyncio
import json
import ssl
import unittest

import aiomqtt
from aiomqtt import ProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from support import AUTHORITY, PATIENCE, WEBSOCKET, WEBSOCKET_TLS, WIGWAG, WIGWAG_TLS, unique


def client(at=WIGWAG, **options):
    if at.scheme in ("ws", "wss"):
        options |= {"transport": "websockets", "websocket_path": at.path}
    if at.scheme in ("mqtts", "wss"):
        options["tls_context"] = ssl.create_default_context(cafile=AUTHORITY)
    options.setdefault("protocol", ProtocolVersion.V5)
    options.setdefault("identifier", unique("aiomqtt"))
    return aiomqtt.Client(at.hostname, at.port, timeout=PATIENCE, **options)


async def message(receiver):
    return await asyncio.wait_for(anext(receiver.messages), PATIENCE)


class Aiomqtt(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        asyncio.get_running_loop().slow_callback_duration = PATIENCE  # slow is what a busy machine is

    async def test_a_conversation_on_every_transport_in_both_versions(self):
        for at in (WIGWAG, WIGWAG_TLS, WEBSOCKET, WEBSOCKET_TLS):
            for version in (ProtocolVersion.V311, ProtocolVersion.V5):
                with self.subTest(at=at.scheme, version=version.name):
                    await self.converse(at, version)

    async def converse(self, at, version):
        topic = f"rooms/{unique('room')}/signal"
        alice, bob = (client(at, protocol=version, username=name) for name in ("alice", "bob"))
        async with alice, bob:
            for member in (alice, bob):
                await member.subscribe(topic, qos=1)
            for member, name in ((alice, "alice"), (bob, "bob")):
                signal = json.dumps({"username": name, "offer": {"type": "offer", "sdp": "v=0\r\n" * 1200}})
                await member.publish(topic, signal, qos=1)
                for receiver in (alice, bob):
                    received = await message(receiver)
                    self.assertEqual((str(received.topic), received.qos), (topic, 1))
                    self.assertEqual(received.payload.decode(), signal)

    async def test_request_and_response(self):
        topic = f"test/{unique('request')}"
        async with client() as responder, client() as requester:
            await responder.subscribe(topic, qos=1)
            await requester.subscribe(f"{topic}/answer", qos=1)
            asks = Properties(PacketTypes.PUBLISH)
            asks.ResponseTopic, asks.CorrelationData = f"{topic}/answer", b"\x2a"
            await requester.publish(topic, "question", qos=1, properties=asks)

            asked = (await message(responder)).properties
            answers = Properties(PacketTypes.PUBLISH)
            answers.CorrelationData = asked.CorrelationData
            await responder.publish(asked.ResponseTopic, "answer", qos=1, properties=answers)
            answer = await message(requester)
            self.assertEqual((answer.payload, answer.properties.CorrelationData), (b"answer", b"\x2a"))

    async def test_many_publishes_at_once(self):
        topic = f"test/{unique('many')}"
        numbers = range(100)
        async with client() as receiver, client() as sender:
            await receiver.subscribe(topic, qos=2)
            sender.pending_calls_threshold = len(numbers)  # more than these, and it complains
            await asyncio.gather(*(sender.publish(topic, f"{number}", qos=2) for number in numbers))
            received = [int((await message(receiver)).payload) for _ in numbers]
        self.assertEqual(received, list(numbers))

    async def test_who_leaves_the_block_leaves_no_will(self):
        topic = f"test/{unique('will')}"
        async with client() as watcher:
            await watcher.subscribe(topic, qos=1)
            async with client(will=aiomqtt.Will(topic, "gone", qos=1)):
                pass
            await watcher.publish(topic, "end", qos=1)
            self.assertEqual((await message(watcher)).payload, b"end")


if __name__ == "__main__":
    unittest.main()
