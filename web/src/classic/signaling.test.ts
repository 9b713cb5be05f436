import { EventEmitter } from "node:events";
import mqtt, { type IClientOptions, type MqttClient } from "mqtt";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { encodeSignal, type Signal } from "./signal";
import { joinRoom, type Room } from "./signaling";

type SubscribeCallback = (error: Error | null) => void;

/** Records what the room asks of MQTT.js, and lets the test play the broker. */
class FakeClient extends EventEmitter {
  connected = false;
  disconnecting = false;
  readonly stream = { writableCorked: 2, uncork: () => { this.stream.writableCorked -= 1; } };
  readonly done: unknown[][] = [];
  answerSubscribe: SubscribeCallback = () => undefined;

  subscribe(topic: string, options: unknown, callback?: SubscribeCallback): void {
    this.done.push(["subscribe", topic, options]);
    if (topic.endsWith("/signal") && callback) this.answerSubscribe = callback;
  }
  publish(topic: string, payload: string, options: { qos: number }): void {
    this.done.push(["publish", topic, JSON.parse(payload), options.qos]);
  }
  end(force?: boolean, options?: unknown): void {
    this.disconnecting = true;
    this.done.push(["end", force, options]);
  }
  connect(): void {
    this.connected = true;
    this.emit("connect");
    this.answerSubscribe(null);
  }
}

const me = { username: "alice", session: "s1" };
const topic = "rooms/demo/signal";
let client: FakeClient;
let options: IClientOptions;
let said: string[];
let received: Signal[];
let room: Room;

beforeEach(() => {
  client = new FakeClient();
  vi.spyOn(mqtt, "connect").mockImplementation(((_url: string, given: IClientOptions) => {
    options = given;
    return client as unknown as MqttClient;
  }) as typeof mqtt.connect);
  said = [];
  received = [];
  room = joinRoom("ws://broker/mqtt", "demo", me, {
    onState: (state, reason) => said.push(reason === undefined ? state : `${state}: ${reason}`),
    onJoined: () => said.push("joined"),
    onIceServers: (servers) => said.push(`servers ${JSON.stringify(servers)}`),
    onSignal: (signal) => received.push(signal),
    onReplaced: () => said.push("replaced"),
    onTraffic: ({ direction, type, bytes }) => said.push(`${direction} ${type} ${bytes}`),
    onProblem: (text) => said.push(text),
  });
});

const arrive = (text: string): boolean => client.emit("message", topic, new TextEncoder().encode(text));

describe("the room", () => {
  it("connects with a kept session and a will that says goodbye", () => {
    expect(options).toMatchObject({ protocolVersion: 5, clean: false, username: "alice", clientId: "s1", reconnectOnConnackError: true });
    expect(options.properties?.sessionExpiryInterval).toBeGreaterThan(8);
    expect(options.will).toMatchObject({ topic, qos: 1, retain: false });
    expect(new TextDecoder().decode(options.will?.payload as Buffer)).toBe(encodeSignal({ ...me, bye: true }));
  });

  it("subscribes with QoS 1 and No Local, again after every reconnect", () => {
    client.connect();
    client.emit("close");
    client.connect();
    const each = [
      ["subscribe", "users/alice/errors", { qos: 0 }],
      ["subscribe", "users/alice/ice", { qos: 1 }],
      ["subscribe", topic, { qos: 1, nl: true }],
    ];
    expect(client.done).toEqual([...each, ...each]);
    expect(said).toEqual(["connected", "joined", "reconnecting", "connected", "joined"]);
  });

  it("publishes tagged signals with QoS 1", () => {
    room.publish({ candidate: null }, "s2");
    expect(client.done).toEqual([["publish", topic, { username: "alice", session: "s1", to: "s2", candidate: null }, 1]]);
    expect(said).toEqual(["sent end of candidates 62"]);
  });

  it("delivers what others send and ignores what it sent itself", () => {
    arrive(`{"username":"alice","session":"s1","hello":true}`);
    arrive(`{"username":"bob","session":"s2","hello":true}`);
    expect(received).toEqual([{ username: "bob", session: "s2", hello: true }]);
    expect(said).toEqual(["received hello 46"]);
  });

  it("hears from the broker that another connection has its place, and what was refused", () => {
    const tell = (line: object) => client.emit("message", "users/alice/errors", new TextEncoder().encode(JSON.stringify(line)));
    tell({ topic, action: "publish", code: 0x97, reason: "too fast" });
    tell({ topic, action: "subscribe", code: 0x8e, reason: "replaced" });
    expect(said).toEqual(["too fast", "replaced"]);
  });

  it("passes on the servers that the broker tells of, and nothing else from there", () => {
    const tell = (text: string): boolean => client.emit("message", "users/alice/ice", new TextEncoder().encode(text));
    tell(`{"iceServers":[{"urls":["stun:x"]}],"ttl":60}`);
    tell(`{"username":"bob","hello":true}`);
    expect(said).toEqual([`servers [{"urls":["stun:x"]}]`]);
    expect(received).toEqual([]);
  });

  it("reports what is no signal, and goes on", () => {
    arrive("good morning");
    expect(received).toEqual([]);
    expect(said).toEqual(["ignored a message of 12 bytes that is no signal"]);
  });

  it("tells a refused subscription from a connection that broke", () => {
    client.emit("connect");
    client.answerSubscribe(new Error("Connection closed"));
    expect(said).toEqual([]);
    client.answerSubscribe(Object.assign(new Error("Subscribe error: Quota exceeded"), { code: 0x97 }));
    expect(said).toEqual(["refused: Subscribe error: Quota exceeded"]);
    expect(client.disconnecting).toBe(true);
  });

  it("says goodbye and ends its session when it leaves, once", () => {
    client.connect();
    client.done.length = 0;
    room.leave();
    room.leave();
    expect(client.done).toEqual([
      ["publish", topic, { ...me, bye: true }, 0],
      ["end", false, { properties: { sessionExpiryInterval: 0 } }],
    ]);
    expect(client.stream.writableCorked).toBe(0);
  });

  it("leaves without a word when the broker is away", () => {
    room.leave();
    expect(client.done).toEqual([["end", true, { properties: { sessionExpiryInterval: 0 } }]]);
  });
});
