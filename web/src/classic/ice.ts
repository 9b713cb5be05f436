/**
 * STUN and TURN servers. The broker tells who may join a room: whoever subscribes to `users/{me}/ice` is answered at
 * once, and again before the credentials run out. A broker that does not know the topic says nothing; on one machine or
 * in one local network, a call needs no servers.
 *
 *     {"iceServers":[{"urls":["turn:…"],"username":"1790000000:alice","credential":"…"}],"ttl":3600}
 */
export function iceTopic(username: string): string {
  return `users/${username}/ice`;
}

/** Reads an answer; `undefined` for anything that is none. */
export function decodeIceServers(payload: Uint8Array): RTCIceServer[] | undefined {
  try {
    const { iceServers } = JSON.parse(new TextDecoder().decode(payload)) as { iceServers?: unknown };
    return Array.isArray(iceServers) && iceServers.every(isServer) ? iceServers : undefined;
  } catch {
    return undefined;
  }
}

function isServer(value: unknown): value is RTCIceServer {
  if (typeof value !== "object" || value === null) return false;
  const { urls, username, credential } = value as Record<string, unknown>;
  const isText = (text: unknown): boolean => typeof text === "string";
  const isTextOrNothing = (text: unknown): boolean => text === undefined || isText(text);
  return (isText(urls) || (Array.isArray(urls) && urls.every(isText))) && isTextOrNothing(username) && isTextOrNothing(credential);
}
