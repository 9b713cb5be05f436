/**
 * A peer connection for tests: the signaling state machine of the specification, without any media.
 *
 * It is strict where browsers are: a candidate before the remote description, or an answer that nobody asked for, is an
 * error. Give it the script of a test and read in `done` what was asked of it.
 */
import { vi } from "vitest";

let made = 0;

/** Puts the fakes in the place of the browser's own. */
export function fakeWebRtc(): void {
  FakePeerConnection.all = [];
  vi.stubGlobal("RTCPeerConnection", FakePeerConnection);
  vi.stubGlobal("MediaStream", FakeMediaStream);
}

class FakeMediaStream {
  readonly tracks: unknown[] = [];
  addTrack(track: unknown): void {
    this.tracks.push(track);
  }
}

export class FakePeerConnection {
  static all: FakePeerConnection[] = [];

  readonly done: string[] = [];
  readonly fingerprint = `sha-256 ${++made}`;
  signalingState: RTCSignalingState = "stable";
  connectionState: RTCPeerConnectionState = "new";
  localDescription: RTCSessionDescription | null = null;
  remoteDescription: RTCSessionDescription | null = null;
  onnegotiationneeded: (() => void) | null = null;
  onicecandidate: ((event: { candidate: { toJSON(): RTCIceCandidateInit } | null }) => void) | null = null;
  onconnectionstatechange: (() => void) | null = null;
  ontrack = null;
  #negotiationQueued = false;

  constructor(private configuration: RTCConfiguration = {}) {
    FakePeerConnection.all.push(this);
  }

  static last(): FakePeerConnection {
    const last = FakePeerConnection.all.at(-1);
    if (last === undefined) throw new Error("no peer connection was made");
    return last;
  }

  getConfiguration(): RTCConfiguration {
    return this.configuration;
  }

  setConfiguration(configuration: RTCConfiguration): void {
    this.configuration = configuration;
  }

  addTransceiver(kind: string, { direction }: RTCRtpTransceiverInit): void {
    this.done.push(`addTransceiver ${kind} ${direction ?? ""}`);
    this.#needNegotiation();
  }

  addTrack(track: MediaStreamTrack): void {
    this.done.push(`addTrack ${track.kind}`);
    this.#needNegotiation();
  }

  restartIce(): void {
    this.done.push("restartIce");
    this.#needNegotiation();
  }

  async setLocalDescription(): Promise<void> {
    await Promise.resolve();
    const type = this.signalingState === "have-remote-offer" ? "answer" : "offer";
    this.done.push(`setLocal ${type}`);
    this.localDescription = description(type, this.fingerprint);
    this.signalingState = type === "offer" ? "have-local-offer" : "stable";
  }

  async setRemoteDescription({ type, sdp }: RTCSessionDescriptionInit): Promise<void> {
    await Promise.resolve();
    if (type === "answer" && this.signalingState !== "have-local-offer") throw new Error("an answer without an offer");
    this.done.push(`setRemote ${type}`);
    this.remoteDescription = { type, sdp: sdp ?? "" } as RTCSessionDescription;
    this.signalingState = type === "offer" ? "have-remote-offer" : "stable";
  }

  async addIceCandidate(candidate: RTCIceCandidateInit | null): Promise<void> {
    await Promise.resolve();
    if (this.remoteDescription === null) throw new Error("a candidate before the remote description");
    this.done.push(`addCandidate ${candidate?.candidate ?? "null"}`);
  }

  close(): void {
    this.done.push("close");
    this.signalingState = "closed";
  }

  /** The network's part: what ICE and DTLS came to. */
  become(state: RTCPeerConnectionState): void {
    this.connectionState = state;
    this.onconnectionstatechange?.();
  }

  #needNegotiation(): void {
    if (this.#negotiationQueued) return;
    this.#negotiationQueued = true;
    queueMicrotask(() => {
      this.#negotiationQueued = false;
      if (this.signalingState === "stable") this.onnegotiationneeded?.();
    });
  }
}

/** An offer or answer as another browser would send it. */
export function description(type: RTCSdpType, fingerprint: string, fragment = "ufrag"): RTCSessionDescription {
  const sdp = `v=0\r\na=ice-ufrag:${fragment}\r\na=fingerprint:${fingerprint}\r\n`;
  return { type, sdp, toJSON: () => ({ type, sdp }) };
}

export function fakeStream(...kinds: string[]): MediaStream {
  return { getTracks: () => kinds.map((kind) => ({ kind })) } as unknown as MediaStream;
}

/** Lets everything that was queued happen. */
export function settled(): Promise<void> {
  return new Promise((resolve) => { setTimeout(resolve); });
}
