// MQTT.js in Node: 3.1.1 and 5.0, over TCP and WebSocket, with and without TLS. In a browser, the tests of the page
// have it.

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

const mqtt = createRequire(new URL("../../web/package.json", import.meta.url))("mqtt");

const { WIGWAG_MQTT, WIGWAG_WS, WIGWAG_MQTTS, WIGWAG_WSS, WIGWAG_CA } = process.env;
const authority = readFileSync(WIGWAG_CA);

let number = 0;
/** A name that no other test uses. */
const unique = (prefix) => `${prefix}-${process.pid}-${++number}`;

/** Runs a test in both versions, over TCP and WebSocket. */
function everywhere(name, body) {
  for (const [transport, url] of Object.entries({ tcp: WIGWAG_MQTT, ws: WIGWAG_WS })) {
    for (const protocolVersion of [4, 5]) {
      test(`${name} (${transport}, ${protocolVersion})`, (t) => body(connector(t, url, { protocolVersion }), protocolVersion));
    }
  }
}

function only5(name, body) {
  test(name, (t) => body(connector(t, WIGWAG_WS, { protocolVersion: 5 })));
}

/** Makes connections that end with the test `t`. */
function connector(t, url, defaults) {
  return async (options = {}) => {
    const client = mqtt.connect(url, { reconnectPeriod: 0, ca: authority, ...defaults, ...options });
    t.after(() => client.endAsync(true));
    client.inbox = inbox(client);
    [client.connack] = await once(client, "connect");
    return client;
  };
}

/** What `client` receives, one message at a time, in order. */
function inbox(client) {
  const arrived = [];
  const waiting = [];
  client.on("message", (topic, payload, packet) => {
    const message = { topic, payload: payload.toString(), qos: packet.qos, retain: packet.retain, properties: packet.properties };
    const next = waiting.shift();
    if (next) next(message);
    else arrived.push(message);
  });
  return {
    next: () => (arrived.length > 0 ? Promise.resolve(arrived.shift()) : new Promise((resolve) => waiting.push(resolve))),
    async payloads(count) {
      const payloads = [];
      while (payloads.length < count) payloads.push((await this.next()).payload);
      return payloads;
    },
    arrived,
  };
}

/** A session that survives its connection, in either version. */
function kept(clientId, protocolVersion) {
  return { clientId, clean: false, properties: protocolVersion === 5 ? { sessionExpiryInterval: 60 } : undefined };
}

const numbers = (count) => Array.from({ length: count }, (_, n) => `${n}`);

everywhere("every QoS, at the lower of the two", async (connect) => {
  const client = await connect();
  for (const subscribed of [0, 1, 2]) {
    const topic = `test/${unique("qos")}`;
    const [granted] = await client.subscribeAsync(topic, { qos: subscribed });
    assert.equal(granted.qos, subscribed);
    for (const published of [0, 1, 2]) {
      await client.publishAsync(topic, `at ${published}`, { qos: published });
      const { qos, payload } = await client.inbox.next();
      assert.deepEqual({ qos, payload }, { qos: Math.min(subscribed, published), payload: `at ${published}` });
    }
  }
});

test("TLS", async (t) => {
  for (const url of [WIGWAG_MQTTS, WIGWAG_WSS]) {
    const client = await connector(t, url)();
    const topic = `test/${unique("tls")}`;
    await client.subscribeAsync(topic);
    await client.publishAsync(topic, "sealed", { qos: 1 });
    assert.equal((await client.inbox.next()).payload, "sealed");
  }
});

everywhere("offer, answer and candidates in a room", async (connect) => {
  const topic = `rooms/${unique("room")}/signal`;
  const [alice, bob] = await Promise.all([connect({ username: "alice" }), connect({ username: "bob" })]);
  for (const member of [alice, bob]) await member.subscribeAsync(topic, { qos: 1 });
  const signals = [
    [alice, { username: "alice", offer: { type: "offer", sdp: "v=0\r\n".repeat(1200) } }],
    [bob, { username: "bob", answer: { type: "answer", sdp: "v=0\r\n".repeat(1200) } }],
    [alice, { username: "alice", candidate: { candidate: "candidate:1 1 udp 1 192.0.2.1 9 typ host", sdpMid: "0", sdpMLineIndex: 0 } }],
    [bob, { from: "bob", target: "alice", type: "ice", iceCandidate: { candidate: "", sdpMid: "0", sdpMLineIndex: 0 } }],
  ];
  for (const [sender, signal] of signals) {
    await sender.publishAsync(topic, JSON.stringify(signal), { qos: 1 });
    for (const member of [alice, bob]) assert.deepEqual(JSON.parse((await member.inbox.next()).payload), signal);
  }
});

everywhere("a session that comes back with clean: false misses nothing", async (connect, version) => {
  const topic = `test/${unique("session")}`;
  const session = kept(unique("phone"), version);
  const sender = await connect();
  const first = await connect(session);
  assert.equal(first.connack.sessionPresent, false);
  await first.subscribeAsync(topic, { qos: 2 });
  await first.endAsync(true); // the line is cut

  for (const payload of numbers(20)) await sender.publishAsync(topic, payload, { qos: 2 });
  const second = await connect(session);
  assert.equal(second.connack.sessionPresent, true);
  assert.deepEqual(await second.inbox.payloads(20), numbers(20));
});

everywhere("QoS 2 arrives exactly once and QoS 1 at least once, though the line is cut again and again", async (connect, version) => {
  const topic = `test/${unique("cut")}`;
  const receiver = await connect();
  await receiver.subscribeAsync(`${topic}/+`, { qos: 2 });
  const sender = await connect({ ...kept(unique("sender"), version), reconnectPeriod: 20 });
  const published = [];
  for (const [n, payload] of numbers(200).entries()) {
    // Receive Maximum is 64, and MQTT.js does not look at it.
    if (n > 50) await published[n - 50];
    published.push(sender.publishAsync(`${topic}/${n % 2 ? "twice" : "once"}`, payload, { qos: n % 2 ? 1 : 2 }));
    if (n % 40 === 20) {
      await sleep(5);
      sender.stream.destroy();
      await once(sender, "connect");
    }
  }
  await Promise.all(published);
  await sender.publishAsync(`${topic}/end`, "end", { qos: 2 });

  const received = { once: [], twice: [] };
  for (;;) {
    const { topic: at, payload } = await receiver.inbox.next();
    if (payload === "end") break;
    received[at.split("/").at(-1)].push(payload);
  }
  assert.deepEqual(received.once.toSorted((a, b) => a - b), numbers(200).filter((n) => n % 2 === 0));
  assert.deepEqual([...new Set(received.twice)].toSorted((a, b) => a - b), numbers(200).filter((n) => n % 2 === 1));
});

everywhere("a receiver whose line is cut gets each QoS 2 message exactly once", async (connect, version) => {
  const topic = `test/${unique("cut")}`;
  const sender = await connect();
  const receiver = await connect({ ...kept(unique("receiver"), version), reconnectPeriod: 20 });
  await receiver.subscribeAsync(topic, { qos: 2 });
  let seen = 0;
  receiver.on("message", () => { if (++seen % 40 === 20) receiver.stream.destroy(); });
  for (const payload of numbers(200)) await sender.publishAsync(topic, payload, { qos: 1 + (payload % 2) });
  await sender.publishAsync(topic, "end", { qos: 2 });

  const received = [];
  while (received.at(-1) !== "end") received.push((await receiver.inbox.next()).payload);
  const twos = received.filter((payload) => payload % 2 === 1);
  assert.deepEqual(twos.toSorted((a, b) => a - b), numbers(200).filter((n) => n % 2 === 1));
  assert.equal(new Set(received).size, 201);
});

everywhere("a will is sent when the line is cut, not at a goodbye", async (connect) => {
  const topic = `test/${unique("will")}`;
  const watcher = await connect();
  await watcher.subscribeAsync(topic, { qos: 1 });
  const polite = await connect({ will: { topic, payload: "left", qos: 1 } });
  await polite.endAsync();
  const cut = await connect({ will: { topic, payload: "lost", qos: 1 } });
  cut.stream.destroy();
  assert.equal((await watcher.inbox.next()).payload, "lost");
});

everywhere("a retained message, live and later, until it is cleared", async (connect) => {
  const topic = `test/${unique("retained")}`;
  const client = await connect();
  await client.publishAsync(topic, "kept", { qos: 1, retain: true });
  await client.subscribeAsync(topic, { qos: 1 });
  assert.equal((await client.inbox.next()).retain, true);
  await client.publishAsync(topic, "", { qos: 1, retain: true });
  assert.deepEqual(await client.inbox.next().then(({ payload, retain }) => ({ payload, retain })), { payload: "", retain: false });
  await client.unsubscribeAsync(topic);
  await client.subscribeAsync([topic, `${topic}/end`], { qos: 1 });
  await client.publishAsync(`${topic}/end`, "end", { qos: 1 });
  assert.equal((await client.inbox.next()).payload, "end");
});

everywhere("one who is taken over ends, and does not come back by itself", async (connect) => {
  const clientId = unique("tab");
  const older = await connect({ clientId });
  const ended = once(older, "close");
  const newer = await connect({ clientId });
  await ended;
  assert.equal(newer.connected, true);
});

everywhere("a silent client stays connected by its pings", async (connect) => {
  const client = await connect({ keepalive: 1 });
  let pongs = 0;
  client.on("packetreceive", ({ cmd }) => { if (cmd === "pingresp") pongs += 1; });
  await sleep(2600);
  assert.ok(pongs >= 1 && client.connected, `${pongs} pongs`);
});

only5("topic aliases in both directions", async (connect) => {
  const topic = `test/${unique("alias")}`;
  const receiver = await connect({ properties: { topicAliasMaximum: 4 } });
  const sender = await connect({ autoUseTopicAlias: true, autoAssignTopicAlias: true });
  assert.ok(sender.connack.properties.topicAliasMaximum > 0);
  const packets = { sent: [], received: [] };
  sender.on("packetsend", (packet) => { if (packet.cmd === "publish") packets.sent.push(packet); });
  receiver.on("packetreceive", (packet) => { if (packet.cmd === "publish") packets.received.push({ ...packet }); });
  await receiver.subscribeAsync(`${topic}/#`, { qos: 1 });
  // More topics than the receiver has aliases.
  for (let round = 0; round < 3; round += 1) {
    for (const n of numbers(6)) {
      await sender.publishAsync(`${topic}/${n}`, `${round}`, { qos: 1 });
      const message = await receiver.inbox.next();
      assert.deepEqual([message.topic, message.payload], [`${topic}/${n}`, `${round}`]);
    }
  }
  assert.ok(packets.sent.some(({ topic: name, properties }) => name === "" && properties?.topicAlias > 0), "the sender used an alias");
  const aliases = packets.received.map(({ properties }) => properties?.topicAlias).filter((alias) => alias !== undefined);
  assert.ok(aliases.length > 0 && aliases.every((alias) => alias <= 4), `the broker used aliases: ${aliases}`);
});

only5("properties arrive as they were sent", async (connect) => {
  const topic = `test/${unique("properties")}`;
  const client = await connect();
  await client.subscribeAsync(topic, { qos: 1, properties: { subscriptionIdentifier: 77 } });
  await client.publishAsync(topic, "{}", {
    qos: 1,
    properties: {
      payloadFormatIndicator: true,
      contentType: "application/json",
      messageExpiryInterval: 3600,
      userProperties: { trace: ["first", "second"], lang: "en" },
    },
  });
  const { properties } = await client.inbox.next();
  const { trace, lang } = properties.userProperties;
  assert.deepEqual([trace, lang], [["first", "second"], "en"]);
  assert.equal(properties.payloadFormatIndicator, true);
  assert.equal(properties.contentType, "application/json");
  assert.ok(properties.messageExpiryInterval > 3590);
  assert.equal(properties.subscriptionIdentifier, 77);
});

only5("request and response", async (connect) => {
  const topic = `test/${unique("request")}`;
  const [asks, answers] = await Promise.all([connect(), connect()]);
  await answers.subscribeAsync(topic, { qos: 1 });
  await asks.subscribeAsync(`${topic}/answer`, { qos: 1 });
  await asks.publishAsync(topic, "question", { qos: 1, properties: { responseTopic: `${topic}/answer`, correlationData: Buffer.from([1, 0, 255]) } });
  const { responseTopic, correlationData } = (await answers.inbox.next()).properties;
  await answers.publishAsync(responseTopic, "answer", { qos: 1, properties: { correlationData } });
  const answer = await asks.inbox.next();
  assert.deepEqual([answer.payload, [...answer.properties.correlationData]], ["answer", [1, 0, 255]]);
});

only5("No Local, Retain As Published and Retain Handling", async (connect) => {
  const topic = `test/${unique("options")}`;
  const client = await connect();
  await client.publishAsync(`${topic}/kept`, "before", { qos: 1, retain: true });
  await client.subscribeAsync(`${topic}/own`, { qos: 1, nl: true });
  await client.subscribeAsync(`${topic}/kept`, { qos: 1, rap: true, rh: 2 });
  await client.publishAsync(`${topic}/own`, "an echo", { qos: 1 });
  await client.publishAsync(`${topic}/kept`, "now", { qos: 1, retain: true });
  const { payload, retain } = await client.inbox.next();
  assert.deepEqual({ payload, retain }, { payload: "now", retain: true });
  await client.publishAsync(`${topic}/kept`, "", { qos: 1, retain: true });
});

only5("a will with a delay is not sent to who comes back in time", async (connect) => {
  const topic = `test/${unique("will")}`;
  const watcher = await connect();
  await watcher.subscribeAsync(topic, { qos: 1 });
  const will = { topic, payload: "gone", qos: 1, properties: { willDelayInterval: 1 } };
  const session = kept(unique("phone"), 5);
  const first = await connect({ ...session, will });
  first.stream.destroy();
  const second = await connect({ ...session, will });
  await sleep(1500);
  assert.deepEqual(watcher.inbox.arrived, []);
  second.stream.destroy();
  assert.equal((await watcher.inbox.next()).payload, "gone");
});

only5("what is refused is refused with a reason", async (connect) => {
  const client = await connect();
  await assert.rejects(client.publishAsync("$SYS/mine", "x", { qos: 1 }), (error) => error.code === 0x87);
});
