import { describe, expect, it } from "vitest";
import { decodeIceServers } from "./ice";

const decode = (text: string): RTCIceServer[] | undefined => decodeIceServers(new TextEncoder().encode(text));

describe("ICE servers", () => {
  it("are what the broker says", () => {
    const turn = { urls: ["turn:turn.example.org"], username: "1790000000:alice", credential: "x" };
    expect(decode(JSON.stringify({ iceServers: [{ urls: "stun:stun.example.org" }, turn], ttl: 3600 }))).toEqual([{ urls: "stun:stun.example.org" }, turn]);
    expect(decode(`{"iceServers":[],"ttl":3600}`)).toEqual([]);
  });

  it("are nothing else", () => {
    for (const text of ["", "null", "[]", "{}", `{"iceServers":{}}`, `{"iceServers":[null]}`, `{"iceServers":[{}]}`, `{"iceServers":[{"urls":[3]}]}`, `{"iceServers":[{"urls":"turn:x","credential":3}]}`]) {
      expect(decode(text), text).toBeUndefined();
    }
  });
});
