/**
 * A video call for two whose signaling is plain MQTT. Open `/?room=demo` in two tabs.
 *
 *     camera.ts      camera and microphone
 *     signaling.ts   the room: an MQTT topic (MQTT.js)          signal.ts   what the messages look like
 *     pair.ts        who is in the call
 *     call.ts        the peer connection (WebRTC)               ice.ts      STUN and TURN servers
 *     view.ts        the page
 *
 * To copy the essence into a project of your own, take all but the last.
 */
import { openCamera } from "./camera";
import { friendlyName, isValidName, randomId } from "./names";
import { Pair } from "./pair";
import { joinRoom, signalTopic } from "./signaling";
import * as view from "./view";

const NAME_RULE = "1 to 64 bytes, without / + # and control characters";

const brokerUrl = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/mqtt`;
const query = new URLSearchParams(location.search);
const room = query.get("room");
const username = query.get("name") ?? rememberedName() ?? friendlyName();

if (room === null) view.showEntry(username);
else if (!isValidName(room)) view.showEntry(username, `“${room}” cannot be the name of a room. Allowed: ${NAME_RULE}.`);
else if (!isValidName(username)) view.showEntry(friendlyName(), `“${username}” cannot be your name. Allowed: ${NAME_RULE}.`);
else {
  // A copied address invites somebody else: it has the room, not our name.
  history.replaceState(null, "", `?room=${encodeURIComponent(room)}`);
  view.showRoom(room, username, signalTopic(room));
  enter(room);
}

function enter(room: string): void {
  let leave = join(room);
  view.leaveButton.onclick = () => {
    leave();
    view.showEnd("left");
  };
  view.rejoinButton.onclick = () => { leave = join(room); };

  // The tab closes, or shows another page: tell the other side now, not when the broker misses us.
  window.addEventListener("pagehide", () => {
    leave();
    rememberName(username);
  });
  // The browser kept this page and brings it back, without its connections.
  window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
}

/** Joins the room and returns what leaves it again. */
function join(room: string): () => void {
  const me = { username, session: randomId() };
  view.setInCall(true);
  view.showSignaling("connecting");

  // The camera may take a while, for the browser asks its user. Signaling does not wait for it; `Pair` does.
  const camera = openCamera();
  void camera.then(({ stream, problem }) => {
    view.showLocalStream(stream);
    view.showNotice(problem);
  });

  const pair = new Pair(me, camera.then(({ stream }) => stream), {
    send: (body, to) => { signaling.publish(body, to); },
    onPeer: view.showPeer,
    onRemoteStream: view.showRemoteStream,
    onEnd: (reason) => {
      leave();
      view.showEnd(reason);
    },
    onProblem: view.logProblem,
  });

  const signaling = joinRoom(brokerUrl, room, me, {
    onIceServers: (servers) => { pair.useServers(servers); },
    onJoined: () => { pair.joined(); },
    onSignal: (signal) => void pair.receive(signal),
    onReplaced: () => {
      leave();
      view.showEnd("replaced");
    },
    onState: (state, reason) => {
      view.showSignaling(state);
      if (state !== "refused") return;
      leave();
      view.showEnd("refused", reason);
    },
    onTraffic: view.logTraffic,
    onProblem: view.logProblem,
  });

  function leave(): void {
    signaling.leave();
    pair.close();
    void camera.then(({ stream }) => {
      stream?.getTracks().forEach((track) => { track.stop(); });
      view.showLocalStream(undefined);
    });
  }
  return leave;
}

/**
 * A reloaded page keeps its name. The name is stored only from leaving a page to loading the next, because a duplicated
 * tab gets a copy of what is stored, and two tabs of one name would take the call from each other.
 */
function rememberName(name: string): void {
  sessionStorage.setItem("wigwag.name", name);
}

function rememberedName(): string | null {
  const name = sessionStorage.getItem("wigwag.name");
  sessionStorage.removeItem("wigwag.name");
  return name;
}
