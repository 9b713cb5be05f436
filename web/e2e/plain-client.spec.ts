/**
 * The page in a call with a client that is not ours: nothing but MQTT.js, `{"username","offer"}` and the like, neither
 * sessions nor greetings. It behaves badly on purpose: its candidates come before the offer that they belong to.
 */
import { expect, type Page } from "@playwright/test";
import mqtt from "mqtt";
import { expectMovingPicture, expectPeer, newRoom, test } from "./people";

type Message = Partial<Record<"offer" | "answer", RTCSessionDescriptionInit>> & { username: string; candidate?: RTCIceCandidateInit | null };

declare global {
  interface Window {
    publish(message: object): Promise<void>;
    receive(message: Message): Promise<void>;
  }
}

test("the page says how to watch its room, by the port that this server has", async ({ enter }) => {
  const room = newRoom();
  const alice = await enter(room, "alice");
  const port = (process.env.WIGWAG_MQTT ?? "").split(":").at(-1) ?? "";
  await expect(alice.locator("#watch-command")).toHaveText(new RegExp(`^mosquitto_sub -h \\S+ -p ${port} -v -t `));
});

test("candidates may come before the offer", async ({ enter, baseURL }) => {
  const room = newRoom();
  const topic = `rooms/${room}/signal`;
  const alice = await enter(room, "alice");
  await expectPeer(alice, "waiting");

  const client = await mqtt.connectAsync(`${baseURL?.replace("http", "ws") ?? ""}/mqtt`, { username: "zed", rejectUnauthorized: false });
  try {
    // zed's peer connection lives in a page, its MQTT connection in this test.
    const zed = await alice.context().newPage();
    await zed.goto("/flag.svg");
    await zed.exposeFunction("publish", (message: object) => client.publishAsync(topic, JSON.stringify({ username: "zed", ...message }), { qos: 1 }));
    await client.subscribeAsync(topic, { qos: 1 });
    client.on("message", (_topic, payload) => void receive(zed, JSON.parse(payload.toString()) as Message));
    await zed.evaluate(callCandidatesFirst);

    await expectPeer(alice, "connected to zed");
    await expectMovingPicture(alice);
    const order = await alice.locator("#signals tr").filter({ hasText: "↓" }).allTextContents();
    expect(order.findIndex((row) => row.includes("candidate"))).toBeLessThan(order.findIndex((row) => row.includes("offer")));
    await expect(alice.locator(".problem")).toHaveCount(0);
  } finally {
    await client.endAsync();
  }
});

async function receive(zed: Page, message: Message): Promise<void> {
  if (message.username !== "zed") await zed.evaluate((message) => window.receive(message), message);
}

/** Runs in zed's page. */
async function callCandidatesFirst(): Promise<void> {
  const connection = new RTCPeerConnection();
  window.receive = async ({ answer, candidate }) => {
    if (answer) await connection.setRemoteDescription(answer);
    else if (candidate !== undefined) await connection.addIceCandidate(candidate);
  };

  const stream = await navigator.mediaDevices.getUserMedia({ video: true });
  for (const track of stream.getTracks()) connection.addTrack(track, stream);
  const candidates: (RTCIceCandidateInit | null)[] = [];
  const gathered = new Promise<void>((resolve) => {
    connection.onicecandidate = ({ candidate }) => {
      candidates.push(candidate?.toJSON() ?? null);
      if (candidate === null) resolve();
    };
  });
  const offer = await connection.createOffer();
  await connection.setLocalDescription(offer);
  await gathered;
  for (const candidate of candidates) await window.publish({ candidate });
  await window.publish({ offer }); // without the candidates that `localDescription` has by now
}
