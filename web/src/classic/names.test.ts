import { describe, expect, it } from "vitest";
import { friendlyName, isValidName, randomId } from "./names";

describe("names", () => {
  it.each(["demo", "lobby & co", "Zoë", "alice~phone", "a".repeat(64), "é".repeat(32)])("allows %j", (name) => {
    expect(isValidName(name)).toBe(true);
  });

  it.each(["", "a/b", "a+b", "#", "a\0b", "tab\t", "\u007f", "\u0085", "a".repeat(65), "é".repeat(33)])("refuses %j", (name) => {
    expect(isValidName(name)).toBe(false);
  });

  it("makes names that are allowed", () => {
    expect(friendlyName()).toMatch(/^[a-z]+-\d\d$/);
    expect(randomId()).toMatch(/^[0-9a-z]{12}$/);
    expect(randomId()).not.toBe(randomId());
  });
});
