import { beforeEach, describe, expect, it } from "vitest";
import { description, FakePeerConnection, fakeWebRtc, settled } from "./fake-peer-connection";
import { Pair } from "./pair";
import type { SignalBody } from "./signal";

const me = { username: "alice", session: "a1" };
const bob = { username: "bob", session: "b1" };
const bobReloaded = { username: "bob", session: "b2" };
const carol = { username: "carol", session: "c1" };

let said: string[];

beforeEach(() => {
  fakeWebRtc();
  said = [];
});

function newPair(camera: Promise<MediaStream | undefined> = Promise.resolve(undefined)): Pair {
  return new Pair(me, camera, {
    send: (body: SignalBody, to = "all") => said.push(`${Object.keys(body).join()} to ${to}`),
    onPeer: (state, username = "") => said.push(`${state} ${username}`.trim()),
    onRemoteStream: () => undefined,
    onEnd: (reason) => said.push(`end: ${reason}`),
    onProblem: (text) => said.push(text),
  });
}

/** What was said since the last look. */
async function news(): Promise<string[]> {
  await settled();
  return said.splice(0);
}

const offer = (fingerprint = "bob"): SignalBody => ({ offer: description("offer", fingerprint) });
const answer = { answer: description("answer", "bob") };

describe("a pair", () => {
  it("greets the room and waits", async () => {
    const pair = newPair();
    pair.joined();
    expect(await news()).toEqual(["waiting", "hello to all"]);
  });

  it("uses the servers that it is given, in a call that is on as well", async () => {
    const pair = newPair();
    const [stun, turn] = [[{ urls: "stun:x" }], [{ urls: "turn:x", username: "u", credential: "c" }]];
    pair.useServers(stun);
    void pair.receive({ ...bob, hello: true });
    await settled();
    expect(FakePeerConnection.last().getConfiguration().iceServers).toEqual(stun);
    pair.useServers(turn);
    expect(FakePeerConnection.last().getConfiguration().iceServers).toEqual(turn);
  });

  it("calls who says hello", async () => {
    const pair = newPair();
    void pair.receive({ ...bob, hello: true });
    expect(await news()).toEqual(["waiting", "connecting bob", "offer to b1"]);
    void pair.receive({ ...bob, to: "a1", ...answer });
    FakePeerConnection.last().become("connected");
    expect(await news()).toEqual(["connected bob"]);
  });

  it("answers who calls", async () => {
    const pair = newPair();
    void pair.receive({ ...bob, to: "a1", ...offer() });
    expect(await news()).toEqual(["waiting", "connecting bob", "answer to b1"]);
  });

  it("hears only what is meant for it", async () => {
    const pair = newPair();
    void pair.receive({ ...bob, to: "somebody else", ...offer() });
    void pair.receive({ ...me, hello: true });
    expect(await news()).toEqual(["waiting"]);
    expect(FakePeerConnection.all).toHaveLength(0);
  });

  it("tells a third person that the room is full, and takes no offer from them", async () => {
    const pair = newPair();
    void pair.receive({ ...bob, hello: true });
    await news();
    void pair.receive({ ...carol, hello: true });
    void pair.receive({ ...carol, to: "a1", ...offer("carol") });
    void pair.receive({ ...carol, bye: true });
    expect(await news()).toEqual(["full to c1"]);
    expect(FakePeerConnection.all).toHaveLength(1);
  });

  it("gives up when told that the room is full, unless it is in a call", async () => {
    const pair = newPair();
    void pair.receive({ ...bob, to: "a1", full: true });
    expect(await news()).toEqual(["waiting", "end: full"]);
    void pair.receive({ ...bob, hello: true });
    expect(await news()).toEqual([]);

    const inCall = newPair();
    void inCall.receive({ ...bob, hello: true });
    await settled();
    FakePeerConnection.last().become("connected");
    await news();
    void inCall.receive({ ...carol, to: "a1", full: true });
    expect(await news()).toEqual([]);
  });

  it("starts over when the other page was reloaded", async () => {
    const pair = newPair();
    void pair.receive({ ...bob, hello: true });
    await news();
    void pair.receive({ ...bobReloaded, hello: true });
    expect(await news()).toEqual(["connecting bob", "offer to b2"]);
    expect(FakePeerConnection.all[0]?.signalingState).toBe("closed");
    void pair.receive({ ...bob, bye: true }); // the will of the old page, late
    expect(await news()).toEqual([]);
  });

  it("starts over when an offer comes from another peer connection of the same page", async () => {
    const pair = newPair();
    void pair.receive({ ...bob, ...offer("first") });
    void pair.receive({ ...bob, ...offer("first") });
    await settled();
    expect(FakePeerConnection.all).toHaveLength(1);
    void pair.receive({ ...bob, ...offer("second") });
    await settled();
    expect(FakePeerConnection.all).toHaveLength(2);
  });

  it("does not touch a call that stands when signaling comes back", async () => {
    const pair = newPair();
    void pair.receive({ ...bob, hello: true });
    await settled();
    FakePeerConnection.last().become("connected");
    await news();
    pair.joined();
    void pair.receive({ ...bob, hello: true });
    expect(await news()).toEqual(["hello to all"]);
  });

  it("repeats its offer when signaling comes back before the answer came", async () => {
    const pair = newPair();
    void pair.receive({ ...bob, hello: true });
    await news();
    pair.joined();
    expect(await news()).toEqual(["hello to all", "offer to b1"]);
  });

  it("greets the room anew when the other leaves", async () => {
    const pair = newPair();
    void pair.receive({ ...bob, hello: true });
    await news();
    void pair.receive({ ...bob, bye: true });
    expect(await news()).toEqual(["left bob", "hello to all"]);
  });

  it("lets a newer page of the same user have the call", async () => {
    const pair = newPair();
    void pair.receive({ username: "alice", session: "a2", hello: true });
    expect(await news()).toEqual(["waiting", "end: replaced"]);
  });

  it("handles signals in order, and none before the camera's question is settled", async () => {
    let settle: (stream: undefined) => void = () => undefined;
    const pair = newPair(new Promise((resolve) => { settle = resolve; }));
    void pair.receive({ ...bob, ...offer() });
    void pair.receive({ ...bob, candidate: { candidate: "one" } });
    void pair.receive({ ...bob, candidate: { candidate: "two" } });
    expect(await news()).toEqual(["waiting"]);
    settle(undefined);
    expect(await news()).toEqual(["connecting bob", "answer to b1"]);
    expect(FakePeerConnection.last().done).toEqual(["setRemote offer", "setLocal answer", "addCandidate one", "addCandidate two"]);
  });
});
