import { beforeEach, describe, expect, it } from "vitest";
import { Call, type Negotiation } from "./call";
import { description, FakePeerConnection, fakeStream, fakeWebRtc, settled } from "./fake-peer-connection";

let sent: Negotiation[];
let said: string[];

beforeEach(() => {
  fakeWebRtc();
  sent = [];
  said = [];
});

function newCall({ polite = true, camera = true } = {}): [Call, FakePeerConnection] {
  const call = new Call(polite, camera ? fakeStream("audio", "video") : undefined, [], {
    send: (body) => sent.push(body),
    onState: (state) => said.push(state),
    onRemoteStream: () => undefined,
    onProblem: (text) => said.push(text),
  });
  return [call, FakePeerConnection.last()];
}

const offer = { offer: description("offer", "bob") };
const answer = { answer: description("answer", "bob") };
const candidate = (text: string, fragment = "ufrag"): Negotiation => ({ candidate: { candidate: text, usernameFragment: fragment } });
const kinds = (): string[] => sent.map((body) => Object.keys(body).join());

describe("a call", () => {
  it("is made by an offer, and answered", async () => {
    const [call, connection] = newCall();
    call.start();
    await settled();
    expect(kinds()).toEqual(["offer"]);
    await call.receive(answer);
    expect(connection.done).toEqual(["addTrack audio", "addTrack video", "setLocal offer", "setRemote answer"]);
  });

  it("asks for sound and picture also without a camera", () => {
    const [call, connection] = newCall({ camera: false });
    call.start();
    expect(connection.done).toEqual(["addTransceiver audio recvonly", "addTransceiver video recvonly"]);
  });

  it("adds our tracks to what the other offers, and answers", async () => {
    const [call, connection] = newCall();
    await call.receive(offer);
    await settled();
    expect(connection.done).toEqual(["setRemote offer", "addTrack audio", "addTrack video", "setLocal answer"]);
    expect(kinds()).toEqual(["answer"]);
  });

  it("keeps candidates that come before the description, in their order", async () => {
    const [call, connection] = newCall();
    await call.receive(candidate("one"));
    await call.receive(candidate("two"));
    await call.receive({ candidate: null });
    expect(connection.done).toEqual([]);
    await call.receive(offer);
    await call.receive(candidate("three"));
    expect(connection.done.filter((step) => step.startsWith("addCandidate"))).toEqual([
      "addCandidate one",
      "addCandidate two",
      "addCandidate null",
      "addCandidate three",
    ]);
    expect(said).toEqual([]);
  });

  it("drops candidates of a description that is not the current one", async () => {
    const [call, connection] = newCall();
    await call.receive(candidate("early and old", "old"));
    await call.receive(offer);
    await call.receive(candidate("late and old", "old"));
    expect(connection.done.join()).not.toContain("addCandidate");
  });

  it("gives way to a crossing offer when polite", async () => {
    const [call, connection] = newCall({ polite: true });
    call.start();
    await settled();
    await call.receive(offer);
    expect(kinds()).toEqual(["offer", "answer"]);
    expect(connection.signalingState).toBe("stable");
  });

  it("ignores a crossing offer and its candidates when impolite", async () => {
    const [call, connection] = newCall({ polite: false });
    call.start();
    await settled();
    await call.receive(offer);
    await call.receive(candidate("of the ignored offer", "rolled back"));
    await call.receive(answer);
    expect(kinds()).toEqual(["offer"]);
    expect(connection.done.slice(-2)).toEqual(["setLocal offer", "setRemote answer"]);
    expect(said).toEqual([]);
  });

  it("ignores an answer that comes too late", async () => {
    const [call] = newCall();
    call.start();
    await settled();
    await call.receive(answer);
    await call.receive(answer);
    expect(said).toEqual([]);
  });

  it("restarts ICE when the connection fails", async () => {
    const [call, connection] = newCall();
    await call.receive(offer);
    connection.become("connected");
    connection.become("disconnected");
    connection.become("failed");
    await settled();
    expect(said).toEqual(["connected", "lost", "lost"]);
    expect(connection.done.slice(-2)).toEqual(["restartIce", "setLocal offer"]);
    expect(kinds()).toEqual(["answer", "offer"]);
  });

  it("repeats an offer that nobody answered when the other is back", async () => {
    const [call, connection] = newCall();
    call.start();
    await settled();
    call.revive();
    expect(sent[0]).toEqual(sent[1]);
    await call.receive(answer);
    connection.become("connected");
    call.revive();
    expect(kinds()).toEqual(["offer", "offer"]);
  });

  it("recognises by its certificate a peer connection that was made anew", async () => {
    const [call] = newCall();
    expect(call.isContinuedBy(offer.offer)).toBe(true);
    await call.receive(offer);
    expect(call.isContinuedBy(description("offer", "bob", "after an ICE restart"))).toBe(true);
    expect(call.isContinuedBy(description("offer", "bob, reloaded"))).toBe(false);
  });

  it("reports what went wrong", async () => {
    const [call, connection] = newCall();
    connection.setRemoteDescription = () => Promise.reject(new Error("bad SDP"));
    await call.receive(offer);
    expect(said).toEqual(["bad SDP"]);
  });
});
