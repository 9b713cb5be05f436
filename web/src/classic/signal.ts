/**
 * The messages of a call, as they travel: one JSON object each, tagged with its sender.
 *
 *     {"username":"alice","session":"k3f9…","to":"p07x…","offer":{"type":"offer","sdp":"v=0…"}}
 *
 * `username` is who speaks, the same name as in the MQTT connection. `session` is new each time a page joins, which is
 * how a reloaded page is told from the one it replaces. `to` is the session that is meant; without it, everybody is.
 */
import { isValidName } from "./names";

export interface Sender {
  username: string;
  session: string;
}

export type SignalBody =
  /** I am in the room now. */
  | { hello: true }
  /** I am leaving. */
  | { bye: true }
  /** There are two of us already. */
  | { full: true }
  | { offer: RTCSessionDescriptionInit }
  | { answer: RTCSessionDescriptionInit }
  /** `null` says that there will be no more candidates. */
  | { candidate: RTCIceCandidateInit | null };

export type Signal = Sender & { to?: string } & SignalBody;

export type SignalType = "hello" | "bye" | "full" | "offer" | "answer" | "candidate" | "end of candidates";

export function signalType(body: SignalBody): SignalType {
  if ("hello" in body) return "hello";
  if ("bye" in body) return "bye";
  if ("full" in body) return "full";
  if ("offer" in body) return "offer";
  if ("answer" in body) return "answer";
  return body.candidate === null ? "end of candidates" : "candidate";
}

export function encodeSignal(signal: Signal): string {
  return JSON.stringify(signal);
}

/**
 * Reads a signal, or returns `undefined` for anything that is none: what others write to a topic is not ours to trust.
 *
 * A client that knows no sessions is one session, named like its user.
 */
export function decodeSignal(payload: Uint8Array): Signal | undefined {
  const message = parseObject(payload);
  if (message === undefined) return undefined;
  const { username, session = username, to } = message;
  if (typeof username !== "string" || !isValidName(username)) return undefined;
  if (typeof session !== "string") return undefined;
  if (to !== undefined && typeof to !== "string") return undefined;
  const body = decodeBody(message);
  if (body === undefined) return undefined;
  return { username, session, ...(to === undefined ? {} : { to }), ...body };
}

function decodeBody(message: Record<string, unknown>): SignalBody | undefined {
  if (message.hello === true) return { hello: true };
  if (message.bye === true) return { bye: true };
  if (message.full === true) return { full: true };
  const { offer, answer, candidate } = message;
  if (isObject(offer) && typeof offer.sdp === "string") return { offer: { type: "offer", sdp: offer.sdp } };
  if (isObject(answer) && typeof answer.sdp === "string") return { answer: { type: "answer", sdp: answer.sdp } };
  if (candidate === null) return { candidate };
  if (isObject(candidate) && typeof candidate.candidate === "string") return { candidate };
  return undefined;
}

function parseObject(payload: Uint8Array): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(payload));
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
