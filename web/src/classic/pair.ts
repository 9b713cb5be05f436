/**
 * Who is in the call: you, and at most one other.
 *
 *     newcomer                       who is there already
 *        │ ── hello ──────────────────────▶ │   alone?  → starts the call
 *        │ ◀───────────────────── offer ─── │   in a call with somebody else?  → full
 *        │ ── answer ─────────────────────▶ │
 *        │ ◀────────── candidates ────────▶ │
 *        │ ── bye ────────────────────────▶ │
 *
 * So the roles fall out by themselves: who was there first calls. When two arrive at the same moment both call, and the
 * perfect negotiation of `Call` sorts it out. A hello from a new session of the same user is a reloaded page: the old
 * call is over, and a new one begins.
 *
 * Signals are handled strictly one after another, and none before the question of camera and microphone is settled:
 * what comes earlier waits in line.
 */
import { Call, type CallState } from "./call";
import type { Sender, Signal, SignalBody } from "./signal";

export type PeerState = "waiting" | CallState | "left";

/** `full`: two others are in a call here. `replaced`: this user has joined from another page. */
export type EndReason = "full" | "replaced";

export interface PairHandlers {
  send(body: SignalBody, to?: string): void;
  onPeer(state: PeerState, username?: string): void;
  onRemoteStream(stream: MediaStream | undefined): void;
  onEnd(reason: EndReason): void;
  onProblem(text: string): void;
}

interface Peer extends Sender {
  call: Call;
}

export class Pair {
  #peer: Peer | undefined;
  #local: MediaStream | undefined;
  #iceServers: RTCIceServer[] = [];
  #ended = false;
  #inbox: Promise<void>;

  constructor(
    private readonly me: Sender,
    camera: Promise<MediaStream | undefined>,
    private readonly on: PairHandlers,
  ) {
    this.#inbox = camera.then((stream) => { this.#local = stream; });
    this.on.onPeer("waiting");
  }

  /** We are in the room: for the first time, or again after signaling was away. */
  joined(): void {
    this.on.send({ hello: true });
    this.#peer?.call.revive();
  }

  /** STUN and TURN servers, for this call and the next. */
  useServers(iceServers: RTCIceServer[]): void {
    this.#iceServers = iceServers;
    this.#peer?.call.useServers(iceServers);
  }

  /** Resolves when the signal has been dealt with. */
  receive(signal: Signal): Promise<void> {
    this.#inbox = this.#inbox.then(() => this.#handle(signal));
    return this.#inbox;
  }

  close(): void {
    this.#ended = true;
    this.#hangUp();
  }

  async #handle(signal: Signal): Promise<void> {
    if (this.#ended || signal.session === this.me.session) return;
    if (signal.to !== undefined && signal.to !== this.me.session) return;
    if (signal.username === this.me.username) {
      if ("hello" in signal) this.#end("replaced");
    } else if ("hello" in signal) this.#receiveHello(signal);
    else if ("bye" in signal) this.#receiveBye(signal);
    else if ("full" in signal) this.#receiveFull();
    else {
      if ("offer" in signal) this.#prepareFor(signal, signal.offer);
      if (this.#isPeer(signal)) await this.#peer?.call.receive(signal);
    }
  }

  #receiveHello(from: Sender): void {
    if (this.#peer !== undefined && this.#peer.username !== from.username) {
      this.on.send({ full: true }, from.session);
    } else if (this.#isPeer(from)) {
      this.#peer?.call.revive();
    } else {
      this.#begin(from).start();
    }
  }

  #receiveBye(from: Sender): void {
    if (!this.#isPeer(from)) return;
    this.#hangUp();
    this.on.onPeer("left", from.username);
    // Somebody may have come while we were busy with the one who left.
    this.on.send({ hello: true });
  }

  #receiveFull(): void {
    // Who is in a call has a place, whatever others believe.
    if (!this.#peer?.call.connected) this.#end("full");
  }

  /** An offer begins a call, continues it, or begins it anew; one from a third person is none of our business. */
  #prepareFor(from: Sender, offer: RTCSessionDescriptionInit): void {
    if (this.#peer !== undefined && this.#peer.username !== from.username) return;
    if (!this.#isPeer(from) || !this.#peer?.call.isContinuedBy(offer)) this.#begin(from);
  }

  #begin({ username, session }: Sender): Call {
    this.#hangUp();
    // Both sides compare the same two names, so exactly one of them is polite.
    const call = new Call(this.me.username < username, this.#local, this.#iceServers, {
      send: (body) => { this.on.send(body, session); },
      onState: (state) => { this.on.onPeer(state, username); },
      onRemoteStream: (stream) => { this.on.onRemoteStream(stream); },
      onProblem: (text) => { this.on.onProblem(text); },
    });
    this.#peer = { username, session, call };
    this.on.onPeer("connecting", username);
    return call;
  }

  #isPeer({ session }: Sender): boolean {
    return this.#peer?.session === session;
  }

  #hangUp(): void {
    if (this.#peer === undefined) return;
    this.#peer.call.close();
    this.#peer = undefined;
    this.on.onRemoteStream(undefined);
  }

  #end(reason: EndReason): void {
    this.close();
    this.on.onEnd(reason);
  }
}
