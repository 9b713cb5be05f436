/** A call that has no way but the relay: with the TURN server, and the credentials, that the broker tells the page of. */
import { expect, type Page } from "@playwright/test";
import { expectCall, newRoom, test } from "./people";

/** Lets no candidate out but the relay's. */
function relayOnly(): void {
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(configuration?: RTCConfiguration) {
      super({ ...configuration, iceTransportPolicy: "relay" });
    }
  };
}

/** The kinds of the two candidates that the call goes by. */
async function path(page: Page): Promise<string[]> {
  return page.evaluate(async () => {
    const stats = await window.connections.at(-1)?.getStats();
    const reports = [...(stats?.values() ?? [])] as Record<string, unknown>[];
    const transport = reports.find((report) => report.type === "transport");
    const pair = reports.find((report) => report.id === transport?.selectedCandidatePairId);
    return [pair?.localCandidateId, pair?.remoteCandidateId].map((id) => String(reports.find((report) => report.id === id)?.candidateType));
  });
}

test("a call by relay alone", async ({ enter }) => {
  const room = newRoom();
  const alice = await enter(room, "alice", (page) => page.addInitScript(relayOnly));
  const bob = await enter(room, "bob", (page) => page.addInitScript(relayOnly));
  await expectCall(alice, bob);
  for (const page of [alice, bob]) {
    await expect.poll(() => path(page)).toEqual(["relay", "relay"]);
    await expect(page.locator(".problem")).toHaveCount(0);
  }
});
