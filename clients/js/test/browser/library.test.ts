/** The client library in real Chromium, on the browser's own WebSocket: codecs, closes, coming back. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Client, Codec, Options } from "../../src/index.js";
import { visit } from "../support/browser.js";
import { upTo } from "../support/flow.js";
import { connected, Gateway, OPEN } from "../support/gateway.js";
import { until } from "../support/wait.js";

/** What the page's script has of the library's modules. */
interface Modules {
  Client: new (options: Options) => Client;
  [codec: string]: unknown;
}

/** What a page keeps between two calls of the test. */
declare global {
  var one: Client;
  var seen: unknown[];
}

const PAYLOADS = [
  null,
  true,
  "é \u{1f600} \u0000",
  [0, -1, 65_536, 2 ** 53 - 1, 0.1, 1e300],
  { a: { b: [{}] }, "": 0 },
];

for (const codec of ["json", "msgpack", "proto"]) {
  test(`it sends, receives, and comes back after a kill with all that it missed: ${codec}`, async (t) => {
    const gateway = await Gateway.start(t, [...OPEN, "--limit", "messagesPerSecond=0"]);
    const page = await (await visit(t))("");
    const enter = async ([url, codec, payloads]: readonly [string, string, unknown[]]): Promise<void> => {
      const load = (name: string): Promise<Modules> => import(`/client/${name}.js`) as Promise<Modules>;
      const { Client } = await load("index");
      const chosen = (await load(codec))[codec] as Codec;
      globalThis.seen = [];
      globalThis.one = new Client({ url, codec: chosen, token: "ann", backoff: { min: 1, max: 50 } });
      const room = globalThis.one.room("r");
      room.on("message", ({ payload }) => globalThis.seen.push(payload));
      for (const event of ["gap", "unrecovered"] as const) room.on(event, (lost) => globalThis.seen.push(lost));
      globalThis.one.on("direct", ({ payload }) => globalThis.seen.push(payload));
      globalThis.one.connect();
      await room.join();
      for (const payload of payloads) await room.send(payload);
    };
    const seen = (): Promise<unknown[]> => page.evaluate(() => globalThis.seen);
    await page.evaluate(enter, [gateway.url, codec, PAYLOADS] as const);
    await until("all are there", async () => (await seen()).length >= PAYLOADS.length);
    assert.deepEqual(await seen(), PAYLOADS);
    const other = await connected(t, gateway, "bob");
    await other.direct("user_ann", "psst");
    await until("it came", async () => (await seen()).at(-1) === "psst");

    await gateway.kill();
    await page.waitForFunction(() => globalThis.one.state === "reconnecting");
    const pending = page.evaluate(() => globalThis.one.room("r").send("sent meanwhile"));
    await Gateway.start(t, undefined, gateway.ports);
    assert.equal((await pending).offset, 1);
    await until("it came", async () => (await seen()).at(-1) === "sent meanwhile");
    const after = (await seen()).slice(PAYLOADS.length + 1);
    assert.deepEqual(after, [{ reason: "epoch_changed" }, "sent meanwhile"]);
  });
}

test("many messages come in order, and a close that is the end is told with its code", async (t) => {
  const gateway = await Gateway.start(t);
  const page = await (await visit(t))("");
  const enter = async ([url, name]: readonly [string, string]): Promise<void> => {
    const { Client } = (await import(name)) as Modules;
    globalThis.seen = [];
    globalThis.one = new Client({ url, token: "ann", backoff: { min: 1, max: 50 } });
    globalThis.one.room("r").on("message", ({ payload }) => globalThis.seen.push(payload));
    globalThis.one.on("state", ({ state, code }) => state === "closed" && globalThis.seen.push(code));
    globalThis.one.connect();
    await globalThis.one.room("r").join();
  };
  await page.evaluate(enter, [gateway.url, "/client/index.js"] as const);
  const bob = (await connected(t, gateway, "bob")).room("r");
  await bob.join();
  await bob.send(1);
  await page.waitForFunction(() => globalThis.seen.length === 1);
  for (const number of upTo(30).slice(1)) await bob.send(number);
  await page.waitForFunction(() => globalThis.seen.length === 30);
  assert.deepEqual(await page.evaluate(() => globalThis.seen), upTo(30));
  const refused = await page.evaluate(() =>
    globalThis.one
      .room("r")
      .send("x".repeat(70_000))
      .then(String, (error: unknown) => (error as { code: string }).code),
  );
  assert.equal(refused, "closed");
  assert.equal(await page.evaluate(() => globalThis.seen.at(-1)), 1009);
});
