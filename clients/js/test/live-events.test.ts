/** Events for workers, through the real gateway into the real stream. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { json } from "../src/index.js";
import { msgpack } from "../src/msgpack.js";
import { proto } from "../src/proto.js";
import { cuttable, upTo } from "./support/flow.js";
import { connected, Gateway, OPEN, redis } from "./support/gateway.js";
import { until } from "./support/wait.js";

const CODECS = [json, msgpack, proto];

/** Name and payload of all entries of the stream. */
function entries(url: string): [string, unknown][] {
  const { stdout, status } = spawnSync("redis-cli", ["-u", url, "XRANGE", "wsfleet:events", "-", "+"]);
  assert.equal(status, 0);
  const lines = stdout.toString().split("\n");
  // an id, then six fields and their values
  return Array.from({ length: Math.floor(lines.length / 13) }, (_, index) => {
    const [, , name, , payload] = lines.slice(index * 13);
    return [name ?? "", JSON.parse(payload ?? "")];
  });
}

test("an event is in the stream when its promise is kept, whatever the codec", async (t) => {
  const url = await redis(t);
  const gateway = await Gateway.onRedis(t, url, "g1");
  for (const [index, codec] of CODECS.entries()) {
    const one = await connected(t, gateway, `u${index}`, { codec });
    assert.ok(one.welcome?.features.includes("event"));
    const ack = await one.event("order.new", { cart: [index, "é"] });
    assert.deepEqual([ack.epoch, ack.offset, ack.duplicate], ["", 0, false]);
    assert.deepEqual(entries(url).at(-1), ["order.new", { cart: [index, "é"] }]);
    const again = { msgId: `again-${index}` };
    assert.equal((await one.event("twice", 1, again)).duplicate, false);
    assert.equal((await one.event("twice", 1, again)).duplicate, true);
  }
  assert.equal(entries(url).length, 2 * CODECS.length);
});

test("connections that are cut lose no event, and double none", async (t) => {
  const url = await redis(t);
  const gateway = await Gateway.start(t, [...OPEN, "--limit", "messagesPerSecond=0", "--broker", url]);
  const { WebSocket, cut, connections } = cuttable();
  const one = await connected(t, gateway, "ann", { backoff: { min: 1, max: 20, window: 20 }, WebSocket });
  const numbers = upTo(300);
  const acks = numbers.map((number) => one.event("n", number));
  for (let number = 2; number <= 6; number++) {
    cut();
    await until("it is back", () => connections() === number && one.state === "open");
    acks.push(one.event("n", numbers.push(numbers.length + 1)));
  }
  const kept = await Promise.all(acks);
  const payloads = entries(url).map(([, payload]) => payload);
  assert.deepEqual(payloads, numbers);
  const known = kept.filter(({ duplicate }) => duplicate).length;
  t.diagnostic(`${kept.length} events over ${connections()} connections, ${known} of them sent twice and kept once`);
});

test("a gateway without Redis refuses events for good, and says why", async (t) => {
  const gateway = await Gateway.start(t);
  for (const [index, codec] of CODECS.entries()) {
    const one = await connected(t, gateway, `u${index}`, { codec });
    assert.ok(!one.welcome?.features.includes("event"));
    await assert.rejects(one.event("order", 1), { code: "events_off", temporary: false, message: /--broker redis:/ });
  }
});
