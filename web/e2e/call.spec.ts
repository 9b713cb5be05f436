import { expect, type WebSocketRoute } from "@playwright/test";
import { expectCall, expectMovingPicture, expectPeer, expectSignaling, newRoom, test } from "./people";

test("two people see each other", async ({ enter }) => {
  const room = newRoom();
  const alice = await enter(room, "alice");
  await expectPeer(alice, "waiting");
  const bob = await enter(room, "bob");
  await expectCall(alice, bob);

  const signals = alice.locator("#signals tr");
  await expect(signals.filter({ hasText: "↑ offer" })).toHaveCount(1);
  await expect(signals.filter({ hasText: "↓ answer" })).toHaveCount(1);
  await expect(signals.filter({ hasText: "↓ candidate" }).first()).toBeVisible();
  await expect(alice.locator(".problem")).toHaveCount(0);
  await expect(bob.locator(".problem")).toHaveCount(0);
});

test("two people who arrive together see each other", async ({ enter }) => {
  const room = newRoom();
  const [alice, bob] = await Promise.all([enter(room, "alice"), enter(room, "bob")]);
  await expectCall(alice, bob);
});

test("a reloaded page is back in the call, under its old name", async ({ enter }) => {
  const room = newRoom();
  const alice = await enter(room, "alice");
  const bob = await enter(room, "bob");
  await expectCall(alice, bob);
  await bob.reload();
  await expectCall(alice, bob);
  await alice.reload();
  await expectCall(alice, bob);
});

test("a generated name survives a reload", async ({ page }) => {
  await page.goto(`/?room=${newRoom()}`);
  const name = await page.locator("#local-name").textContent();
  expect(name).toMatch(/^[a-z]+-\d\d \(you\)$/);
  await page.reload();
  await expect(page.locator("#local-name")).toHaveText(name ?? "");
});

test("a chosen name is not in the address that one copies", async ({ enter }) => {
  const room = newRoom();
  const alice = await enter(room, "alice");
  await expectSignaling(alice, "connected");
  expect(new URL(alice.url()).search).toBe(`?room=${room}`);
});

test("a closed tab is told to the other at once, and the place is free", async ({ enter }) => {
  const room = newRoom();
  const alice = await enter(room, "alice");
  const bob = await enter(room, "bob");
  await expectCall(alice, bob);
  await bob.close({ runBeforeUnload: true });
  // Sooner than any will: the closing page itself says goodbye.
  await expect(alice.locator("#peer-state")).toHaveText("bob left", { timeout: 6_000 });

  const carol = await enter(room, "carol");
  await expectPeer(alice, "connected to carol");
  await expectPeer(carol, "connected to alice");
});

test("a crashed tab is told to the other by the broker", async ({ enter }) => {
  const room = newRoom();
  const alice = await enter(room, "alice");
  const bob = await enter(room, "bob");
  await expectCall(alice, bob);
  const devtools = await bob.context().newCDPSession(bob);
  void devtools.send("Page.crash").catch(() => undefined); // a page that crashed answers nothing
  await expectPeer(alice, "bob left");
});

test("leave and rejoin", async ({ enter }) => {
  const room = newRoom();
  const alice = await enter(room, "alice");
  const bob = await enter(room, "bob");
  await expectCall(alice, bob);
  await bob.getByRole("button", { name: "Leave" }).click();
  await expect(bob.locator("#overlay")).toContainText("You left the room");
  await expectPeer(alice, "bob left");
  await bob.getByRole("button", { name: "Rejoin" }).click();
  await expectCall(alice, bob);
});

test("a third person is told that the room is full, and disturbs nobody", async ({ enter }) => {
  const room = newRoom();
  const alice = await enter(room, "alice");
  const bob = await enter(room, "bob");
  await expectCall(alice, bob);
  const carol = await enter(room, "carol");
  await expect(carol.locator("#overlay")).toContainText("This room is full");
  await expectCall(alice, bob);
  await bob.getByRole("button", { name: "Leave" }).click();
  await expectPeer(alice, "bob left");
  await carol.getByRole("button", { name: "Rejoin" }).click();
  await expectPeer(alice, "connected to carol");
});

test("the newer of two pages with one name has the call", async ({ enter }) => {
  const room = newRoom();
  const alice = await enter(room, "alice");
  const bob = await enter(room, "bob");
  await expectCall(alice, bob);
  const newer = await enter(room, "bob");
  await expect(bob.locator("#overlay")).toContainText("You joined from another page");
  await expectCall(alice, newer);
});

test("signals that come before the camera is allowed wait for it", async ({ enter }) => {
  const room = newRoom();
  const alice = await enter(room, "alice");
  const bob = await enter(room, "bob", (page) =>
    page.addInitScript(() => {
      const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = async (wanted) => {
        await new Promise((allow) => { window.addEventListener("allow-camera", allow); });
        return open(wanted);
      };
    }),
  );
  await expect(bob.locator("#signals tr").filter({ hasText: "↓ candidate" }).first()).toBeVisible();
  await expectPeer(bob, "waiting");
  await bob.evaluate(() => window.dispatchEvent(new Event("allow-camera")));
  await expectCall(alice, bob);
});

test("who has no camera sees the other", async ({ enter }) => {
  const room = newRoom();
  const refuse = `navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("no", "NotAllowedError"))`;
  const alice = await enter(room, "alice", (page) => page.addInitScript(refuse));
  await expect(alice.locator("#notice")).toContainText("not allowed");
  const bob = await enter(room, "bob");
  await expectPeer(alice, "connected to bob");
  await expectMovingPicture(alice);
  await expect(bob.locator("#overlay")).toContainText("There is no picture from there");

  // And the other way round: without a camera, as the one who is called.
  await alice.reload();
  await expectPeer(alice, "connected to bob");
  await expectMovingPicture(alice);
});

test("without https the page says what to do, and still sees the other", async ({ enter }) => {
  const room = newRoom();
  const insecure = `Object.defineProperty(window, "isSecureContext", { value: false })`;
  const alice = await enter(room, "alice", (page) => page.addInitScript(insecure));
  await expect(alice.locator("#notice")).toContainText("wigwag serve --dev-tls");
  await enter(room, "bob");
  await expectPeer(alice, "connected to bob");
  await expectMovingPicture(alice);
});

test("mute and camera off", async ({ enter }) => {
  const alice = await enter(newRoom(), "alice");
  const enabled = (): Promise<boolean[]> =>
    alice.locator("#local-video").evaluate((video: HTMLVideoElement) => (video.srcObject as MediaStream).getTracks().map((track) => track.enabled));
  expect(await enabled()).toEqual([true, true]);
  await alice.getByRole("button", { name: "Mute" }).click();
  await alice.getByRole("button", { name: "Camera off" }).click();
  await expect(alice.getByRole("button", { name: "Mute" })).toHaveAttribute("aria-pressed", "true");
  expect(await enabled()).toEqual([false, false]);
  await alice.getByRole("button", { name: "Mute" }).click();
  expect((await enabled()).filter(Boolean)).toHaveLength(1);
});

test("the call goes on while signaling is away, and signaling comes back", async ({ enter }) => {
  const sockets: WebSocketRoute[] = [];
  const room = newRoom();
  const alice = await enter(room, "alice", (page) =>
    page.routeWebSocket(/\/mqtt$/, (socket) => {
      sockets.push(socket);
      socket.connectToServer();
    }),
  );
  const bob = await enter(room, "bob");
  await expectCall(alice, bob);
  await sockets.at(-1)?.close();
  await expectSignaling(alice, "reconnecting");
  await expectSignaling(alice, "connected");
  await expectCall(alice, bob);
  expect(await alice.evaluate(() => window.connections.length)).toBe(1);
});

test("fits a phone", async ({ enter }, testInfo) => {
  const room = newRoom();
  const alice = await enter(room, "alice", (page) => page.setViewportSize({ width: 360, height: 740 }));
  const bob = await enter(room, "bob");
  await expectCall(alice, bob);
  await alice.screenshot({ path: testInfo.outputPath("phone.png"), fullPage: true });
  expect(await alice.evaluate(() => document.documentElement.scrollWidth)).toBe(360);
  for (const button of await alice.getByRole("group", { name: "Call controls" }).getByRole("button").all()) {
    await expect(button).toBeInViewport({ ratio: 1 });
  }
});

test("an offer that is lost with the connection is sent again", async ({ enter }) => {
  const room = newRoom();
  let lost = 0;
  const alice = await enter(room, "alice", (page) =>
    page.routeWebSocket(/\/mqtt$/, (socket) => {
      const server = socket.connectToServer();
      socket.onMessage((message) => {
        if (lost > 0 || !message.includes(`"offer"`)) server.send(message);
        else {
          lost += 1;
          void socket.close();
          void server.close();
        }
      });
    }),
  );
  await expectPeer(alice, "waiting");
  const bob = await enter(room, "bob");
  await expectCall(alice, bob);
  expect(lost).toBe(1);
});

test("a bad room name is refused with a reason", async ({ page }) => {
  await page.goto("/?room=a%2Fb");
  await expect(page.getByRole("alert")).toContainText("cannot be the name of a room");
  await page.goto("/");
  await page.getByLabel("Room").fill("lobby & co");
  await page.getByRole("button", { name: "Join" }).click();
  await expect(page.locator("#room-name")).toHaveText("lobby & co");
  await expectSignaling(page, "connected");
});
