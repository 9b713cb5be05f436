/**
 * Signaling over MQTT: a room is a topic. Who subscribes to it is in the room, and what one publishes the other gets.
 *
 * This file knows MQTT and nothing else: no page, no peer connection. It promises that signals arrive in the order in
 * which their sender published them, also across a lost connection or a restarted broker, and that nobody hears itself.
 */
import mqtt from "mqtt";
import { decodeIceServers, iceTopic } from "./ice";
import { decodeSignal, encodeSignal, signalType, type Sender, type Signal, type SignalBody, type SignalType } from "./signal";

/** `refused`: the broker does not let us into the room, and trying again would not help. */
export type SignalingState = "connecting" | "connected" | "reconnecting" | "refused";

export interface Traffic {
  direction: "sent" | "received";
  type: SignalType;
  username: string;
  /** Size of the MQTT payload. */
  bytes: number;
}

export interface RoomHandlers {
  onState(state: SignalingState, reason?: string): void;
  /** The subscription stands: the first time, and again after every reconnect. */
  onJoined(): void;
  /** The broker knows STUN and TURN servers. Comes again when their credentials are renewed. */
  onIceServers(servers: RTCIceServer[]): void;
  onSignal(signal: Signal): void;
  /** Another connection of the same user has joined the room: it has our place now. */
  onReplaced(): void;
  onTraffic(traffic: Traffic): void;
  onProblem(text: string): void;
}

export interface Room {
  publish(body: SignalBody, to?: string): void;
  leave(): void;
}

/** Seconds for which the broker keeps our session, and what arrives for it, while we are away. */
const SESSION_EXPIRY = 60;
/** Seconds that we may be away before the broker says goodbye for us. */
const WILL_DELAY = 8;
const RECONNECT_PERIOD_MS = 1000;

/** The code by which the broker says on our errors topic that another connection has our place. */
const TAKEN_OVER = 0x8e;

export function signalTopic(room: string): string {
  return `rooms/${room}/signal`;
}

export function joinRoom(brokerUrl: string, room: string, me: Sender, on: RoomHandlers): Room {
  const topic = signalTopic(room);
  const errors = `users/${me.username}/errors`;
  const servers = iceTopic(me.username);
  const goodbye = encodeSignal({ ...me, bye: true });

  const client = mqtt.connect(brokerUrl, {
    protocolVersion: 5,
    username: me.username,
    // Two connections with one client id throw each other out for ever, so each page that joins takes a new one.
    clientId: me.session,
    // The session survives a lost connection: what is published meanwhile arrives after the reconnect.
    clean: false,
    properties: { sessionExpiryInterval: SESSION_EXPIRY },
    // The broker publishes the will when this page vanishes without a word: a killed tab, a dead battery.
    will: { topic, payload: new TextEncoder().encode(goodbye) as Buffer, qos: 1, retain: false, properties: { willDelayInterval: WILL_DELAY } },
    reconnectPeriod: RECONNECT_PERIOD_MS,
    reconnectOnConnackError: true,
    // We subscribe ourselves after every connect, below.
    resubscribe: false,
    // MQTT.js would start a worker from a blob: URL, which a strict Content-Security-Policy forbids.
    timerVariant: "native",
  });

  client.on("connect", () => {
    // What the broker has to tell us alone, first, so that it is here before anybody calls us. In packets of their own: we
    // can do without, should they be refused.
    client.subscribe(errors, { qos: 0 }, () => undefined);
    client.subscribe(servers, { qos: 1 }, () => undefined);
    // `nl` is No Local: the broker does not send us what we published.
    client.subscribe(topic, { qos: 1, nl: true }, (error) => {
      if (error === null) {
        on.onState("connected");
        on.onJoined();
      } else if (isRefusal(error)) {
        on.onState("refused", error.message);
        client.end();
      }
    });
  });
  client.on("reconnect", () => { on.onState("reconnecting"); });
  client.on("close", () => { if (!client.disconnecting) on.onState("reconnecting"); });
  client.on("error", (error) => { on.onProblem(error.message); });

  client.on("message", (about, payload) => {
    if (about === errors) {
      hear(payload);
      return;
    }
    if (about === servers) {
      const iceServers = decodeIceServers(payload);
      if (iceServers !== undefined) on.onIceServers(iceServers);
      return;
    }
    const signal = decodeSignal(payload);
    if (signal === undefined) {
      on.onProblem(`ignored a message of ${payload.length} bytes that is no signal`);
      return;
    }
    // A broker without MQTT 5 knows no No Local, so we ignore our own messages ourselves, too.
    if (signal.session === me.session) return;
    on.onTraffic({ direction: "received", type: signalType(signal), username: signal.username, bytes: payload.length });
    on.onSignal(signal);
  });

  function hear(line: Uint8Array): void {
    const { code, reason } = JSON.parse(new TextDecoder().decode(line)) as { code?: number; reason: string };
    if (code === TAKEN_OVER) on.onReplaced();
    else on.onProblem(reason);
  }

  function publish(body: SignalBody, to?: string): void {
    const payload = encodeSignal({ ...me, ...(to === undefined ? {} : { to }), ...body });
    client.publish(topic, payload, { qos: 1 }, (error) => {
      if (error) on.onProblem(`${signalType(body)} not delivered: ${error.message}`);
    });
    on.onTraffic({ direction: "sent", type: signalType(body), username: me.username, bytes: new TextEncoder().encode(payload).length });
  }

  /** Says goodbye and disconnects. It fits into the last moment of a closing page: nothing here waits for an answer. */
  function leave(): void {
    if (client.disconnecting) return;
    if (client.connected) client.publish(topic, goodbye, { qos: 0 });
    client.end(!client.connected, { properties: { sessionExpiryInterval: 0 } });
    // MQTT.js collects packets and writes them a timer's tick later, which a closing page does not live to see.
    while (client.stream.writableCorked > 0) client.stream.uncork();
  }

  return { publish, leave };
}

/** Tells a broker's "no" (a reason code of 0x80 and above) from a connection that broke before the answer came. */
function isRefusal(error: Error): boolean {
  return "code" in error && typeof error.code === "number" && error.code >= 0x80;
}
