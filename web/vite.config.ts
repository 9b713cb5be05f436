import { defineConfig } from "vitest/config";

// During development the pages come from Vite and the broker is a `wigwag serve` of its own.
const broker = process.env.WIGWAG_URL ?? "http://127.0.0.1:8080";

export default defineConfig({
  server: { host: "127.0.0.1", proxy: { "/mqtt": { target: broker, ws: true } } },
  build: { target: "es2022", assetsInlineLimit: 0 },
  test: { include: ["src/**/*.test.ts"] },
});
