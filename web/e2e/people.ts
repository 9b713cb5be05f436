/** People in a room, for the tests: each one a browser context of its own, with a fake camera, until the test ends. */
import { test as base, expect, type BrowserContext, type Page } from "@playwright/test";

declare global {
  interface Window {
    /** Every peer connection that the page made. */
    connections: RTCPeerConnection[];
  }
}

export function newRoom(): string {
  return `e2e-${Math.random().toString(36).slice(2, 10)}`;
}

type Enter = (room: string, name: string, prepare?: (page: Page) => Promise<unknown>) => Promise<Page>;

export const test = base.extend<{ enter: Enter }>({
  enter: async ({ browser }, use) => {
    const contexts: BrowserContext[] = [];
    await use(async (room, name, prepare) => {
      const context = await browser.newContext({ permissions: ["camera", "microphone"] });
      contexts.push(context);
      const page = await context.newPage();
      await page.addInitScript(collectConnections);
      await prepare?.(page);
      await page.goto(`/?room=${encodeURIComponent(room)}&name=${encodeURIComponent(name)}`);
      return page;
    });
    for (const context of contexts) await context.close();
  },
});

function collectConnections(): void {
  window.connections = [];
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(configuration?: RTCConfiguration) {
      super(configuration);
      window.connections.push(this);
    }
  };
}

export async function expectSignaling(page: Page, words: string): Promise<void> {
  await expect(page.locator("#signaling-state")).toHaveText(words);
}

export async function expectPeer(page: Page, words: string): Promise<void> {
  await expect(page.locator("#peer-state")).toHaveText(words);
}

/** The remote video is not only there: its frames are decoded, more of them a moment later. */
export async function expectMovingPicture(page: Page): Promise<void> {
  await expect.poll(() => page.locator("#remote-video").evaluate((video: HTMLVideoElement) => video.videoWidth)).toBeGreaterThan(0);
  const before = await framesDecoded(page);
  await expect.poll(() => framesDecoded(page)).toBeGreaterThan(before);
}

async function framesDecoded(page: Page): Promise<number> {
  return page.evaluate(async () => {
    const connection = window.connections.at(-1);
    let frames = 0;
    for (const report of (await connection?.getStats())?.values() ?? []) {
      const { type, kind, framesDecoded } = report as RTCInboundRtpStreamStats;
      if (type === "inbound-rtp" && kind === "video") frames = framesDecoded ?? 0;
    }
    return frames;
  });
}

export async function expectCall(alice: Page, bob: Page): Promise<void> {
  await expectPeer(alice, "connected to bob");
  await expectPeer(bob, "connected to alice");
  await expectMovingPicture(alice);
  await expectMovingPicture(bob);
}
