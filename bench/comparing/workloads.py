"""What is run on each broker, and which figures of it are compared."""

import dataclasses
import json
import subprocess
from typing import Callable

from . import GENERATOR_CORE, ROOT, WIGWAG
from .brokers import NODE, Variant


def figure(*path, scale=1.0):
    """A way into a report; None where it does not lead."""

    def look(report):
        for key in path:
            report = (report or {}).get(key)
        return None if report is None else report * scale

    return look


@dataclasses.dataclass
class Workload:
    """One run of the generator. `figure` is what brokers are compared by, the smaller the better."""

    group: str
    name: str
    arguments: list
    figure: tuple
    columns: list
    brokers: tuple
    # Of the round so far, further arguments; None = it cannot be run.
    after: Callable = lambda done: []
    # For one broker, further arguments.
    own: Callable = lambda broker: []
    variant: Variant = Variant()
    scheme: str = "ws"
    path: str = "/mqtt"
    # In the first round only: it takes long, or what it measures is no time.
    once: bool = False
    # For a curve: which, and where on it.
    point: tuple = ()
    # The open loop needs another workload's report.
    needs: str = ""

    def run(self, broker, options, done):
        more = self.after(done)
        if more is None:
            return None
        with broker.running(self.variant) as started:
            port = started.tls_port if self.variant.tls else started.port
            url = f"{self.scheme}{'s' if self.variant.tls else ''}://127.0.0.1:{port}{self.path}"
            if broker.protocol:
                command = self.on_node(broker, started, options)
            else:
                command = [WIGWAG, "bench", *self.arguments, *more, *self.own(broker), "--json", "--url", url]
                command += ["--pid", started.pid]
                if self.variant.tls:
                    command += ["--insecure"]  # made for this run, and by nobody that could be trusted
                if self.variant.tokens:
                    command += ["--tokens", started.credentials.tokens(self.variant.tokens)]
            values = {"{seconds}": options.seconds, "{rooms}": options.churn_rooms, "{connections}": options.connections}
            command = [str(values.get(part, part)) for part in command]
            limited = ["taskset", "-c", GENERATOR_CORE, *command]
            finished = subprocess.run(limited, capture_output=True, text=True, timeout=600)
        if finished.returncode != 0:
            raise Failed(finished.stderr.strip().split("\n")[-1])
        return json.loads(finished.stdout)

    def on_node(self, broker, started, options):
        (NODE / "load.mjs").write_bytes((ROOT / "bench" / "node" / "load.mjs").read_bytes())
        http = "ws" if broker.protocol == "peerjs" else "http"
        pattern = self.arguments[self.arguments.index("--pattern") + 1]
        url = f"{http}://127.0.0.1:{started.port}"
        return ["node", NODE / "load.mjs", broker.protocol, url, started.pid, pattern, 100, options.seconds]


class Failed(Exception):
    """The generator says why."""


MQTT = ("wigwag", "mosquitto", "floor", "rumqttd", "aedes")
ROOMS = ("wigwag", "mosquitto", "aedes")
# The floor knows no UNSUBSCRIBE.
KEEPERS = ("wigwag", "mosquitto", "rumqttd", "aedes")
LOOP = ["--seconds", "{seconds}"]
GENERATOR = ("generator µs", figure("generator_cpu_us_per_message"), "{:.1f}")
LOST = ("lost", figure("lost"), "{:.0f}")
LATENCY = [
    ("p50 ms", figure("latency_us", "p50", scale=1e-3), "{:.2f}"),
    ("p99 ms", figure("latency_us", "p99", scale=1e-3), "{:.2f}"),
]
RATE = ("messages/s", figure("messages_per_second"), "{:,.0f}")


def half_of_mosquitto(done):
    """The open loop's rate: half of what mosquitto delivered at most, in this round."""
    reports = done.get("call, groups of four, QoS 1", {})
    mqtt = {name: report for name, report in reports.items() if name in MQTT}
    if not mqtt:
        return None
    slowest = mqtt.get("mosquitto") or min(mqtt.values(), key=lambda report: report["messages_per_second"])
    return ["--rate", str(round(slowest["messages_per_second"] / 2))]


def calls():
    cost = ("µs CPU/message", figure("server_cpu_us_per_message"))
    columns = [RATE, *LATENCY, GENERATOR, LOST]
    for title, pattern in [("groups of four", "group"), ("one at a time", "single"), ("bursts of eleven", "burst")]:
        for qos in [1, 0]:
            # Protocols of their own acknowledge nothing, like QoS 0.
            brokers = MQTT if qos else (*MQTT, "socket.io", "peerjs")
            arguments = ["call", "--pattern", pattern, "--qos", qos, *LOOP]
            yield Workload("call", f"call, {title}, QoS {qos}", arguments, cost, columns, brokers)
    yield Workload(
        "call",
        "call, groups of four at half of mosquitto's saturation, QoS 1",
        ["call", "--pattern", "group", "--qos", 1, *LOOP],
        cost,
        columns,
        ("wigwag", "mosquitto", "floor"),
        after=half_of_mosquitto,
        needs="call, groups of four, QoS 1",
    )


def connects():
    cost = ("µs CPU/connection", figure("server_cpu_us_per_connect"))
    generator = ("generator µs", figure("generator_cpu_us_per_connect"), "{:.0f}")
    columns = [("connections/s", figure("connects_per_second"), "{:,.0f}"), *LATENCY, generator]
    arguments = ["connect", *LOOP]
    yield Workload("connect", "connect and subscribe", arguments, cost, columns, MQTT)
    for algorithm in ["HS256", "ES256"]:
        name = f"connect and subscribe with a token, {algorithm}"
        variant = Variant(tokens=algorithm)
        yield Workload("connect", name, arguments, cost, columns, ("wigwag",), variant=variant)
    shaken = ("resumed", figure("handshakes", "resumed"), "{:.0f}")
    full = ("full", figure("handshakes", "full"), "{:.0f}")
    for kind, more in [("full", ["--no-resumption"]), ("resumed", [])]:
        yield Workload(
            "connect",
            f"TLS handshake, {kind}, and one GET",
            [*arguments, *more],
            cost,
            [*columns, full, shaken],
            ("wigwag", "nginx"),
            variant=Variant(tls=True),
            scheme="http",
            path="/healthz",
        )
        name = f"connect and subscribe over wss, {kind} handshakes"
        variant = Variant(tls=True)
        more = [*arguments, *more]
        yield Workload("connect", name, more, cost, [*columns, full, shaken], ("wigwag",), variant=variant)


def fanouts():
    cost = ("µs CPU/delivery", figure("server_cpu_us_per_delivery"))
    generator = ("generator µs", figure("generator_cpu_us_per_delivery"), "{:.1f}")
    columns = [("deliveries/s", figure("deliveries_per_second"), "{:,.0f}"), *LATENCY, generator, LOST]
    fours, ones = ("group", "four at a time"), ("single", "one at a time")
    for (pattern, title), qos in [(fours, 1), (fours, 0), (ones, 1)]:
        arguments = ["fanout", "--members", 50, "--pattern", pattern, "--qos", qos, *LOOP]
        yield Workload("fanout", f"fan-out to 50, {title}, QoS {qos}", arguments, cost, columns, MQTT)


def churns():
    first, last = figure("first_server_cpu_us_per_message"), figure("last_server_cpu_us_per_message")
    rss = lambda which: figure(f"memory_{which}", "rss", scale=2**-20)
    columns = [
        ("at the start", first, "{:.2f}"),
        ("ratio", lambda report: last(report) / first(report) if first(report) else None, "{:.2f}"),
        ("RSS before, MiB", rss("before"), "{:.1f}"),
        ("after", rss("after"), "{:.1f}"),
        ("rooms/s", figure("rooms_per_second"), "{:,.0f}"),
    ]
    for clients, title in [("pooled", "the same clients"), ("new", "two new clients for each")]:
        arguments = ["churn", "--clients", clients, "--rooms", "{rooms}"]
        cost = ("µs CPU/message at the end", last)
        yield Workload("churn", f"churn of rooms, {title}", arguments, cost, columns, KEEPERS, once=True)


def idles():
    cost = ("bytes/connection", figure("bytes_per_connection"))
    columns = [
        ("connections", figure("connections"), "{:,.0f}"),
        ("% of a core, keep-alive 30 s", figure("server_cpu_percent"), "{:.2f}"),
        ("PSS, MiB", figure("memory", "pss", scale=2**-20), "{:.1f}"),
    ]
    arguments = ["idle", "--connections", "{connections}", "--keep-alive", 30, "--seconds", 20]
    yield Workload("idle", "idle members of rooms, ws", arguments, cost, columns, MQTT, once=True)
    variant = Variant(tls=True)
    yield Workload("idle", "idle members of rooms, wss", arguments, cost, columns, ("wigwag",), variant=variant, once=True)


def presences():
    cost = ("µs CPU/delivery", figure("server_cpu_us_per_delivery"))
    columns = [
        ("µs CPU/change", figure("server_cpu_us_per_change"), "{:.0f}"),
        ("deliveries/s", figure("deliveries_per_second"), "{:,.0f}"),
        *LATENCY,
        LOST,
    ]
    own = lambda broker: ["--roster", "server" if broker.rosters else "client"]
    for members in [2, 10, 50]:
        arguments = ["presence", "--members", members, "--rooms", max(1, 200 // members), *LOOP]
        yield Workload("presence", f"roster of {members}", arguments, cost, columns, ROOMS, own=own)


def curves():
    cost = ("µs CPU/delivery", figure("server_cpu_us_per_delivery"))
    columns = [RATE, *LATENCY, LOST]
    both = ("wigwag", "mosquitto")
    for observers in [1, 10, 100, 1000]:
        arguments = ["call", "--rooms", 10, "--rate", max(40, 4000 // observers), "--observers", observers, *LOOP]
        name = f"{observers:,} observers of all rooms"
        yield Workload("curves", name, arguments, cost, columns, both, once=True, point=("observers", observers))
    for topics in [1000, 10_000, 100_000, 1_000_000]:
        arguments = ["call", "--live-topics", topics, *LOOP]
        name = f"{topics:,} live topics besides"
        yield Workload("curves", name, arguments, cost, columns, both, once=True, point=("live topics", topics))
    columns = [("deliveries/s", figure("deliveries_per_second"), "{:,.0f}"), *LATENCY, LOST]
    for members in [10, 100, 1000, 10_000]:
        arguments = ["fanout", "--listen-only", "--members", members, *LOOP]
        name = f"a room of {members:,} listeners"
        yield Workload("curves", name, arguments, cost, columns, both, once=True, point=("listeners", members))


def workers():
    """On the one core that every broker has, since the generator needs the other: what a message costs more that goes from
    one thread to another, not how many more there are."""
    cost = ("µs CPU/message", figure("server_cpu_us_per_message"))
    columns = [RATE, *LATENCY, GENERATOR, LOST]
    for count in [1, 2]:
        arguments = ["call", "--pattern", "group", *LOOP]
        name = f"call, groups of four, {count} worker{'s' if count > 1 else ''}"
        yield Workload("workers", name, arguments, cost, columns, ("wigwag",), variant=Variant(workers=count))


WORKLOADS = [
    *calls(),
    *connects(),
    *fanouts(),
    *churns(),
    *idles(),
    *presences(),
    *curves(),
    *workers(),
]
