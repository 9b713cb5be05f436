import { describe, expect, it } from "vitest";
import { decodeSignal, encodeSignal, signalType, type Signal, type SignalBody } from "./signal";

const decode = (text: string): Signal | undefined => decodeSignal(new TextEncoder().encode(text));

describe("signals", () => {
  it.each<SignalBody>([
    { hello: true },
    { bye: true },
    { full: true },
    { offer: { type: "offer", sdp: "v=0" } },
    { answer: { type: "answer", sdp: "v=0" } },
    { candidate: { candidate: "candidate:1", sdpMid: "0", sdpMLineIndex: 0, usernameFragment: "x" } },
    { candidate: null },
  ])("come back as they were sent: %j", (body) => {
    const signal: Signal = { username: "alice", session: "s1", to: "s2", ...body };
    expect(decode(encodeSignal(signal))).toEqual(signal);
  });

  it("are understood from clients that know no sessions", () => {
    expect(decode(`{"username":"bob","offer":{"type":"offer","sdp":"v=0"}}`)).toEqual({
      username: "bob",
      session: "bob",
      offer: { type: "offer", sdp: "v=0" },
    });
  });

  it.each([
    "",
    "hello",
    "null",
    "[]",
    `"offer"`,
    "{}",
    `{"hello":true}`,
    `{"username":7,"hello":true}`,
    `{"username":"a/b","hello":true}`,
    `{"username":"bob"}`,
    `{"username":"bob","chat":"hi"}`,
    `{"username":"bob","hello":"yes"}`,
    `{"username":"bob","session":1,"hello":true}`,
    `{"username":"bob","to":1,"hello":true}`,
    `{"username":"bob","offer":null}`,
    `{"username":"bob","offer":{"type":"offer"}}`,
    `{"username":"bob","candidate":"candidate:1"}`,
    `{"username":"bob","candidate":{"sdpMid":"0"}}`,
  ])("are nothing else: %s", (text) => {
    expect(decode(text)).toBeUndefined();
  });

  it("have a name each", () => {
    expect(signalType({ offer: { type: "offer" } })).toBe("offer");
    expect(signalType({ candidate: null })).toBe("end of candidates");
  });
});
