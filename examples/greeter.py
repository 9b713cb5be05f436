#!/usr/bin/env python3
"""Greets each newcomer of each room, from outside: a service that speaks MQTT to the broker behind Wigwag.

    pip install 'paho-mqtt==2.*'
    python examples/greeter.py --port 1884 --user wigwag --password secret

It hears of newcomers on `events/member/joined`, and has Wigwag say something in their room with the command
`wigwag/cmd/send`; the answer comes to a topic of its own. Its session is kept while it is restarted, so it misses
nobody.
"""

import argparse
import json

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

ANSWERS = "services/greeter/answers"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1884)
    parser.add_argument("--user", default="wigwag")
    parser.add_argument("--password", required=True)
    arguments = parser.parse_args()

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="greeter", protocol=mqtt.MQTTv5)
    client.username_pw_set(arguments.user, arguments.password)
    client.on_connect = on_connect
    client.on_subscribe = lambda *_: print("ready", flush=True)
    client.message_callback_add("events/member/joined", on_joined)
    client.message_callback_add(ANSWERS, on_answer)
    kept = Properties(PacketTypes.CONNECT)
    kept.SessionExpiryInterval = 3600
    client.connect(arguments.host, arguments.port, clean_start=False, properties=kept)
    client.loop_forever()  # connects again by itself


def on_connect(client, _data, _flags, reason, _properties):
    if reason.is_failure:
        print(f"refused: {reason}", flush=True)
        client.disconnect()
        return
    client.subscribe([("events/member/joined", 1), (ANSWERS, 1)])


def on_joined(client, _data, message):
    event = json.loads(message.payload)
    room, user = event["room"], event["user"]
    command = {"room": room, "topic": "chat", "payload": {"username": "greeter", "text": f"Welcome, {user}!"}}
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = ANSWERS
    properties.CorrelationData = f"{room}/{user}".encode()
    client.publish("wigwag/cmd/send", json.dumps(command), qos=1, properties=properties)


def on_answer(_client, _data, message):
    whom = message.properties.CorrelationData.decode()
    answer = json.loads(message.payload)
    print(f"{whom}: {answer['status']} {answer.get('reason', '')}".strip(), flush=True)


if __name__ == "__main__":
    main()
