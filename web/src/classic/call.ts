/**
 * One peer connection, from the first offer to the last frame. Signals go in by `receive` and come out by `send`; how
 * they travel is not known here.
 *
 * Three things make it hold in practice:
 * - *Perfect negotiation*: both sides may make an offer at any time. If two offers cross (glare), the polite side drops
 *   its own and takes the other's; the impolite side ignores what it got.
 * - *Queued candidates*: a candidate that comes before the remote description waits for it.
 * - *ICE restart*: when the network under a call changes, new candidates are negotiated; the call itself goes on.
 */
import type { SignalBody } from "./signal";

export type CallState = "connecting" | "connected" | "lost";

export type Negotiation = Extract<SignalBody, { offer: unknown } | { answer: unknown } | { candidate: unknown }>;

export interface CallHandlers {
  send(body: Negotiation): void;
  onState(state: CallState): void;
  onRemoteStream(stream: MediaStream): void;
  onProblem(text: string): void;
}

export class Call {
  readonly #connection: RTCPeerConnection;
  readonly #remote = new MediaStream();
  /** `null`, the end of candidates, waits like any other. */
  #earlyCandidates: (RTCIceCandidateInit | null)[] = [];
  #tracksAdded = false;
  #makingOffer = false;
  #ignoredOffer = false;

  constructor(
    readonly polite: boolean,
    private readonly local: MediaStream | undefined,
    iceServers: RTCIceServer[],
    private readonly on: CallHandlers,
  ) {
    const connection = (this.#connection = new RTCPeerConnection({ iceServers }));
    connection.onnegotiationneeded = () => void this.#makeOffer();
    connection.onicecandidate = ({ candidate }) => { this.on.send({ candidate: candidate?.toJSON() ?? null }); };
    connection.ontrack = ({ track }) => {
      this.#remote.addTrack(track);
      this.on.onRemoteStream(this.#remote);
    };
    connection.onconnectionstatechange = () => { this.#stateChanged(); };
  }

  /** Servers, or credentials, have changed: they are for the next time that candidates are gathered. */
  useServers(iceServers: RTCIceServer[]): void {
    this.#connection.setConfiguration({ ...this.#connection.getConfiguration(), iceServers });
  }

  get connected(): boolean {
    return this.#connection.connectionState === "connected";
  }

  /** Makes us the caller. The offer itself follows when the browser finds that there is something to negotiate. */
  start(): void {
    this.#addTracks();
    // Who has no camera or microphone still wants to see and hear.
    for (const kind of ["audio", "video"] as const) {
      const sends = this.local?.getTracks().some((track) => track.kind === kind) ?? false;
      if (!sends) this.#connection.addTransceiver(kind, { direction: "recvonly" });
    }
  }

  async receive(body: Negotiation): Promise<void> {
    try {
      if ("candidate" in body) await this.#receiveCandidate(body.candidate);
      else if ("offer" in body) await this.#receiveOffer(body.offer);
      else await this.#receiveAnswer(body.answer);
    } catch (error) {
      this.#report(error);
    }
  }

  /** The other side was away or is back, and we are not connected: say again what it may have missed. */
  revive(): void {
    if (this.connected) return;
    const { localDescription, signalingState } = this.#connection;
    if (signalingState === "have-local-offer" && localDescription !== null) this.on.send({ offer: localDescription.toJSON() });
    else this.#connection.restartIce();
  }

  /**
   * Whether an offer continues this call. Each peer connection has a certificate of its own: another fingerprint means
   * that the other side has started over, and that we must, too.
   */
  isContinuedBy(offer: RTCSessionDescriptionInit): boolean {
    const current = this.#connection.remoteDescription;
    return current === null || fingerprint(current.sdp) === fingerprint(offer.sdp);
  }

  close(): void {
    this.#connection.onconnectionstatechange = null;
    this.#connection.close();
  }

  async #makeOffer(): Promise<void> {
    try {
      this.#makingOffer = true;
      await this.#connection.setLocalDescription();
      this.#sendLocalDescription();
    } catch (error) {
      this.#report(error);
    } finally {
      this.#makingOffer = false;
    }
  }

  async #receiveOffer(offer: RTCSessionDescriptionInit): Promise<void> {
    const glare = this.#makingOffer || this.#connection.signalingState !== "stable";
    this.#ignoredOffer = glare && !this.polite;
    if (this.#ignoredOffer) return;
    await this.#connection.setRemoteDescription(offer); // takes our own offer back, if there is one
    this.#addTracks();
    await this.#addEarlyCandidates();
    await this.#connection.setLocalDescription();
    this.#sendLocalDescription();
  }

  async #receiveAnswer(answer: RTCSessionDescriptionInit): Promise<void> {
    // An answer to an offer that was taken back, or answered already, comes too late.
    if (this.#connection.signalingState !== "have-local-offer") return;
    await this.#connection.setRemoteDescription(answer);
    await this.#addEarlyCandidates();
  }

  async #receiveCandidate(candidate: RTCIceCandidateInit | null): Promise<void> {
    if (this.#connection.remoteDescription === null) this.#earlyCandidates.push(candidate);
    else await this.#addCandidate(candidate);
  }

  async #addEarlyCandidates(): Promise<void> {
    const candidates = this.#earlyCandidates;
    this.#earlyCandidates = [];
    for (const candidate of candidates) await this.#addCandidate(candidate);
  }

  async #addCandidate(candidate: RTCIceCandidateInit | null): Promise<void> {
    // The candidates of an offer that we ignored, or that was replaced meanwhile, belong to nothing.
    const fragment = candidate?.usernameFragment;
    const sdp = this.#connection.remoteDescription?.sdp ?? "";
    if (fragment && !sdp.includes(`a=ice-ufrag:${fragment}\r\n`)) return;
    try {
      await this.#connection.addIceCandidate(candidate);
    } catch (error) {
      if (!this.#ignoredOffer) throw error;
    }
  }

  #addTracks(): void {
    if (this.#tracksAdded) return;
    this.#tracksAdded = true;
    for (const track of this.local?.getTracks() ?? []) {
      if (this.local) this.#connection.addTrack(track, this.local);
    }
  }

  #sendLocalDescription(): void {
    const description = this.#connection.localDescription?.toJSON();
    if (description?.type === "offer") this.on.send({ offer: description });
    else if (description?.type === "answer") this.on.send({ answer: description });
  }

  #stateChanged(): void {
    switch (this.#connection.connectionState) {
      case "connected":
        this.on.onState("connected");
        break;
      case "disconnected":
        this.on.onState("lost");
        break;
      case "failed":
        this.on.onState("lost");
        this.#connection.restartIce();
        break;
      default:
        this.on.onState("connecting");
    }
  }

  #report(error: unknown): void {
    // What was under way when the call was closed has nobody to report to.
    if (this.#connection.signalingState === "closed") return;
    this.on.onProblem(error instanceof Error ? error.message : String(error));
  }
}

function fingerprint(sdp = ""): string | undefined {
  return /^a=fingerprint:(.+)$/m.exec(sdp)?.[1]?.trim();
}
