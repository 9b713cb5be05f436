/** The page's elements, and what each state looks like in words. */
import type { EndReason, PeerState } from "./pair";
import type { SignalingState, Traffic } from "./signaling";

const MAX_LOG_ROWS = 200;

/** The element with this id; a page without it is broken, and says so at once. */
function element<T extends HTMLElement>(id: string, type: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`index.html has no <${type.name}> #${id}`);
  return found;
}

const entry = element("entry", HTMLFormElement);
const entryError = element("entry-error", HTMLElement);
const roomBar = element("room-bar", HTMLElement);
const call = element("call", HTMLElement);
const overlay = element("overlay", HTMLElement);
const overlayTitle = element("overlay-title", HTMLElement);
const overlayText = element("overlay-text", HTMLElement);
const remoteVideo = element("remote-video", HTMLVideoElement);
const remoteName = element("remote-name", HTMLElement);
const local = element("local", HTMLElement);
const localVideo = element("local-video", HTMLVideoElement);
const notice = element("notice", HTMLElement);
const signalRows = element("signals", HTMLTableSectionElement);
const signalScroll = element("signal-scroll", HTMLElement);
const signalCount = element("signal-count", HTMLElement);
const playButton = element("play", HTMLButtonElement);

export const muteButton = element("mute", HTMLButtonElement);
export const cameraButton = element("camera-off", HTMLButtonElement);
export const leaveButton = element("leave", HTMLButtonElement);
export const rejoinButton = element("rejoin", HTMLButtonElement);

export function showEntry(name: string, error?: string): void {
  entry.hidden = false;
  const nameField = entry.elements.namedItem("name");
  if (nameField instanceof HTMLInputElement) nameField.value = name;
  entryError.hidden = error === undefined;
  entryError.textContent = error ?? "";
}

export function showRoom(room: string, username: string, topic: string): void {
  document.title = `${room} · Wigwag`;
  call.hidden = roomBar.hidden = false;
  element("room-name", HTMLElement).textContent = room;
  element("local-name", HTMLElement).textContent = `${username} (you)`;
  element("topic", HTMLElement).textContent = topic;

  const host = location.hostname.replace(/^\[|\]$/g, ""); // the brackets of an IPv6 address belong to URLs only
  const port = document.querySelector<HTMLMetaElement>('meta[name="mqtt-port"]')?.content ?? "";
  const socket = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/mqtt`;
  const watch = port === "" ? `wigwag sub --url ${socket}` : `mosquitto_sub -h ${host} -p ${port}`;
  const command = `${watch} -v -t ${shellQuote(topic)}`;
  element("watch-command", HTMLElement).textContent = command;
  copyOnClick("copy-command", command);
  copyOnClick("copy-link", `${location.origin}${location.pathname}?room=${encodeURIComponent(room)}`);
}

export function showSignaling(state: SignalingState): void {
  const tone = { connecting: "busy", connected: "good", reconnecting: "busy", refused: "bad" }[state];
  showState("signaling-state", state, tone);
}

export function showPeer(state: PeerState, username = "the other"): void {
  const [words, tone] = {
    waiting: ["waiting", "busy"],
    connecting: [`connecting to ${username}`, "busy"],
    connected: [`connected to ${username}`, "good"],
    lost: [`connection to ${username} lost`, "bad"],
    left: [`${username} left`, "busy"],
  }[state] as [string, string];
  showState("peer-state", words, tone);
  remoteName.textContent = username;
  remoteName.hidden = state !== "connected";

  const here = "Open this page's link in a second tab, or send it to somebody.";
  if (state === "waiting") showOverlay("Nobody else is here yet", here);
  else if (state === "left") showOverlay(`${username} left`, here);
  else if (state === "connecting") showOverlay(`Connecting to ${username}…`);
  else if (state === "lost") showOverlay("Connection lost", `Trying to reach ${username} again.`);
  else if (remoteVideo.srcObject === null) showOverlay(`Connected to ${username}`, "There is no picture from there.");
  else overlay.hidden = true;
}

/** The call is over for us; there is a button to come back. */
export function showEnd(reason: EndReason | "left" | "refused", detail = ""): void {
  const [title, text] = {
    full: ["This room is full", "Two people are in a call here already. Choose another room, or try again later."],
    replaced: ["You joined from another page", "A room holds each name once; the newer page has the call."],
    left: ["You left the room", ""],
    refused: ["The broker does not let you into this room", detail],
  }[reason] as [string, string];
  showOverlay(title, text);
  showState("signaling-state", "disconnected", "");
  showState("peer-state", "none", "");
  remoteName.hidden = true;
  setInCall(false);
}

export function setInCall(inCall: boolean): void {
  leaveButton.disabled = !inCall;
  rejoinButton.hidden = inCall;
  if (!inCall) rejoinButton.focus();
}

export function showLocalStream(stream: MediaStream | undefined): void {
  localVideo.srcObject = stream ?? null;
  local.hidden = stream === undefined;
  prepareToggle(muteButton, stream?.getAudioTracks()[0]);
  prepareToggle(cameraButton, stream?.getVideoTracks()[0]);
}

export function showRemoteStream(stream: MediaStream | undefined): void {
  if (remoteVideo.srcObject !== (stream ?? null)) remoteVideo.srcObject = stream ?? null;
  if (stream === undefined) return;
  // Browsers play sound only after a click, unless this page uses the camera itself.
  remoteVideo.play().catch((error: unknown) => {
    playButton.hidden = !(error instanceof DOMException && error.name === "NotAllowedError");
    if (!playButton.hidden) showOverlay("Ready to play");
  });
}

export function showNotice(text: string | undefined): void {
  notice.hidden = text === undefined;
  notice.textContent = text ?? "";
}

export function logTraffic({ direction, type, username, bytes }: Traffic): void {
  const arrow = direction === "sent" ? "↑" : "↓";
  logRow([`${arrow} ${type}`, direction === "sent" ? "you" : username, bytes.toLocaleString("en")]);
  signalCount.textContent = String(Number(signalCount.textContent) + 1);
}

export function logProblem(text: string): void {
  const row = logRow([text]);
  row.className = "problem";
  row.cells[0]?.setAttribute("colspan", "3");
}

function logRow(texts: string[]): HTMLTableRowElement {
  const row = signalRows.insertRow();
  for (const text of texts) row.insertCell().textContent = text;
  while (signalRows.rows.length > MAX_LOG_ROWS) signalRows.deleteRow(0);
  signalScroll.scrollTop = signalScroll.scrollHeight;
  return row;
}

function showOverlay(title: string, text = ""): void {
  overlay.hidden = false;
  overlay.classList.toggle("over-video", remoteVideo.srcObject !== null);
  overlayTitle.textContent = title;
  overlayText.textContent = text;
}

function showState(id: string, words: string, tone: string): void {
  const state = element(id, HTMLElement);
  state.textContent = words;
  state.dataset.tone = tone;
}

/** Makes a button that is pressed while the track is silent or dark. */
function prepareToggle(button: HTMLButtonElement, track: MediaStreamTrack | undefined): void {
  button.disabled = track === undefined;
  button.setAttribute("aria-pressed", "false");
  button.onclick = () => {
    if (track === undefined) return;
    track.enabled = !track.enabled;
    button.setAttribute("aria-pressed", String(!track.enabled));
  };
}

function copyOnClick(id: string, text: string): void {
  const button = element(id, HTMLButtonElement);
  const label = button.textContent;
  // Browsers give the clipboard to https pages and localhost only.
  button.hidden = !window.isSecureContext;
  button.onclick = () => {
    navigator.clipboard.writeText(text).then(
      () => {
        button.textContent = "Copied";
        setTimeout(() => { button.textContent = label; }, 1500);
      },
      (error: unknown) => { showNotice(`Nothing was copied: ${String(error)}`); },
    );
  };
}

function shellQuote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

playButton.onclick = () => {
  playButton.hidden = overlay.hidden = true;
  void remoteVideo.play();
};
