/**
 * Names of users and rooms.
 *
 * Both become one level of an MQTT topic, so they follow the same rules: 1 to 64 bytes of UTF-8, none of
 * `/` (separates levels), `+` and `#` (wildcards), and no control characters.
 */

const FORBIDDEN = /[/+#\p{Cc}]/u;
const MAX_BYTES = 64;

export function isValidName(name: string): boolean {
  const bytes = new TextEncoder().encode(name).length;
  return bytes >= 1 && bytes <= MAX_BYTES && !FORBIDDEN.test(name);
}

const ANIMALS = ["otter", "heron", "lynx", "robin", "badger", "marten", "plover", "hare", "newt", "wren", "ibex", "seal"];

/** A name like `otter-42`, for people who did not choose one. */
export function friendlyName(): string {
  const [animal = 0, number = 0] = crypto.getRandomValues(new Uint32Array(2));
  return `${ANIMALS[animal % ANIMALS.length] ?? "guest"}-${10 + (number % 90)}`;
}

/** Twelve characters of 0-9 and a-z. (`crypto.randomUUID` does not exist on pages without https.) */
export function randomId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => (byte % 36).toString(36)).join("");
}
