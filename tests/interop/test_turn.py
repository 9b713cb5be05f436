"""Wigwag's TURN credentials at a real coturn, and what the shipped configuration of coturn does not relay to."""

import json
import subprocess
import time
import unittest

import coturn
from support import unique

from test_api import Server

# What a user of the relay must not reach.
DENIED = """127.0.0.1 127.255.255.254 0.0.0.0 10.0.0.1 100.64.0.1 169.254.169.254 172.16.0.1 172.31.255.255 192.168.1.1
    192.0.0.8 198.18.0.1 224.0.0.1 240.0.0.1 255.255.255.255""".split()
DENIED_6 = """::1 :: ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 fc00::1 fd00::2 fe80::1 2002:7f00:1::
    ff02::1""".split()
ALLOWED = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1"]


class Turn(unittest.TestCase):
    def setUp(self):
        self.address = coturn.own_address()

    def test_a_credential_of_wigwags_opens_coturn(self):
        with coturn.running(self.address) as (port, secret):
            url = f"turn:{self.address}:{port}"
            with Server({"WIGWAG_ICE__TURN": url, "WIGWAG_ICE__SECRET": secret}) as server:
                status, _, answer = server.get("/api/ice", server.token("alice", "demo:join"))
                self.assertEqual(status, 200)
                (turn,) = answer["iceServers"]
                self.assertEqual(turn["urls"], [url])
                with coturn.Client((self.address, port), turn["username"], turn["credential"]) as client:
                    self.assertEqual(client.allocate(), 0)
            for wrong in (turn["credential"][:-4] + "AAA=", ""):
                with coturn.Client((self.address, port), turn["username"], wrong) as client:
                    self.assertEqual(client.allocate(), 401)
            over = coturn.credential(secret, "alice", int(time.time()) - 1)
            with coturn.Client((self.address, port), *over) as client:
                self.assertEqual(client.allocate(), 401, "one that has run out")

    def test_loopback_and_private_networks_are_not_relayed_to(self):
        with coturn.running(self.address) as (port, secret):
            with coturn.Client((self.address, port), *coturn.credential(secret, unique("alice"))) as client:
                self.assertEqual(client.allocate(), 0)
                for peer in DENIED:
                    self.assertEqual(client.permit(peer), 403, peer)
                for peer in ALLOWED:
                    self.assertEqual(client.permit(peer), 0, peer)

    def test_nor_are_their_forms_in_ipv6(self):
        with coturn.running(self.address, "relay-ip=::1") as (port, secret):
            with coturn.Client((self.address, port), *coturn.credential(secret, unique("alice"))) as client:
                if client.allocate(family=6) != 0:
                    self.skipTest("no IPv6 here")
                for peer in DENIED_6:
                    self.assertEqual(client.permit(peer), 403, peer)
                self.assertEqual(client.permit("2606:4700::1111"), 0)


if __name__ == "__main__":
    unittest.main()
