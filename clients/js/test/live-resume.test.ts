/** Coming back to the real gateway: what was missed comes once and in order, or its loss is told. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { json, type Client, type Codec, type Options } from "../src/index.js";
import { msgpack } from "../src/msgpack.js";
import { proto } from "../src/proto.js";
import { cuttable, directs, flow, joined, upTo } from "./support/flow.js";
import { connected, Gateway, OPEN, redis } from "./support/gateway.js";
import { until } from "./support/wait.js";

const FAST: Partial<Options> = { backoff: { min: 1, max: 20, window: 20 } };
/** Where nobody listens. */
const NOBODY = "ws://127.0.0.1:9/ws";
const UNLIMITED = [...OPEN, "--limit", "messagesPerSecond=0"];

/** A client whose connections the test cuts, and which the test keeps away. */
async function fragile(t: TestContext, gateway: Gateway, user: string, options: Partial<Options> = {}) {
  const { WebSocket, ...line } = cuttable();
  const way = { open: true };
  const url = (): string => (way.open ? gateway.url : NOBODY);
  const one = await connected(t, gateway, user, { ...FAST, ...options, url, WebSocket });
  /** Cuts it off, does something, and lets it come back then. */
  const away = async (what: () => Promise<unknown>): Promise<void> => {
    way.open = false;
    line.cut();
    await until("it is cut off", () => one.state === "reconnecting");
    await what();
    way.open = true;
    await until("it is back", () => one.state === "open");
  };
  return { one, away, ...line };
}

for (const codec of [json, msgpack, proto] satisfies Codec[]) {
  test(`after a cut one resume brings what was missed of all rooms and directly: ${codec.subprotocol}`, async (t) => {
    const gateway = await Gateway.start(t, UNLIMITED);
    const sender = await connected(t, gateway, "sender");
    const { one, away, sent } = await fragile(t, gateway, "ann", { codec });
    const rooms = await Promise.all(upTo(5).map((number) => joined(one, `r${number}`)));
    const mine = directs(one);
    const others = await Promise.all(upTo(5).map((number) => joined(sender, `r${number}`)));
    const say = async (number: number): Promise<void> => {
      await Promise.all([sender.direct("user_ann", number), ...others.map(({ room }) => room.send(number))]);
    };
    await say(1);
    await until("all are there", () => mine.seen.length + rooms.reduce((sum, { seen }) => sum + seen.length, 0) === 6);
    const before = sent.length;
    await away(async () => {
      for (let number = 2; number <= 40; number++) await say(number);
    });
    await say(41);
    for (const { seen, lost } of [...rooms, mine]) {
      await until("all are there", () => seen.length >= 41);
      assert.deepEqual(seen, upTo(41));
      assert.deepEqual(lost, []);
    }
    assert.equal(sent.length - before, 1, "one resume, and nothing else");
  });
}

test("connections that are cut again and again lose and double nothing of a flow", async (t) => {
  const gateway = await Gateway.start(t, UNLIMITED);
  const sender = await connected(t, gateway, "sender");
  const { one, cut, connections } = await fragile(t, gateway, "ann");
  const mine = directs(one);
  const room = await joined(one, "r");
  const { room: out } = await joined(sender, "r");
  const stop = flow((number) => Promise.all([out.send(number), sender.direct("user_ann", number)]));
  for (let number = 2; number <= 30; number++) {
    await until("it hears", () => one.state === "open" && room.seen.length >= 3 * number);
    cut();
    await until("it is back", () => connections() === number && one.state === "open");
  }
  const count = await stop();
  for (const { seen, lost } of [room, mine]) {
    await until("all are there", () => seen.length >= count);
    assert.deepEqual(seen, upTo(count));
    assert.deepEqual(lost, []);
  }
  t.diagnostic(`${count} messages to the room and ${count} to the user over ${connections()} connections`);
});

test("what cannot be recovered is told with its reason and its offsets, and history has what is kept", async (t) => {
  const kept = ["--history", "short=3/300", "--history", "none=off", "--history", "long=1000/300"];
  const gateway = await Gateway.start(t, [...UNLIMITED, ...kept, "--direct-history", "3/300"]);
  const sender = await connected(t, gateway, "sender");
  const { one, away } = await fragile(t, gateway, "ann");
  const mine = directs(one);
  const names = ["short", "none", "long"];
  const rooms = await Promise.all(names.map((name) => joined(one, name)));
  const others = await Promise.all(names.map((name) => joined(sender, name)));
  const say = async (number: number): Promise<void> => {
    await Promise.all([sender.direct("user_ann", number), ...others.map(({ room }) => room.send(number))]);
  };
  await away(async () => {
    for (let number = 1; number <= 320; number++) await say(number);
  });
  await until("all was told", () => [...rooms, mine].every(({ lost }) => lost.length > 0));
  await say(321);
  const reasons = ["too_old", "too_old", "limit", "too_old"];
  for (const [index, { seen, lost }] of [...rooms, mine].entries()) {
    await until("the last one is there", () => seen.length > 0);
    assert.deepEqual([seen, lost], [[321], [{ reason: reasons[index], from: 1, to: 320 }]]);
  }
  const payloads: unknown[] = [];
  for (let before: number | undefined = 321; before !== undefined;) {
    const page = await one.room("long").history(300, before);
    payloads.unshift(...page.messages.map(({ payload }) => payload));
    before = page.next;
  }
  assert.deepEqual(payloads, upTo(320));
});

test("a message whose ack was lost is sent again, and reaches each member once", async (t) => {
  const gateway = await Gateway.start(t);
  const watcher = await joined(await connected(t, gateway, "watcher"), "r");
  const bob = directs(await connected(t, gateway, "bob"));
  const { one, cut, deafen } = await fragile(t, gateway, "ann");
  const mine = await joined(one, "r");
  deafen();
  const acks = [mine.room.send("once"), one.direct("user_bob", "once")];
  await until("both were accepted", () => watcher.seen.length === 1 && bob.seen.length === 1);
  cut();
  for (const ack of await Promise.all(acks)) assert.deepEqual([ack.duplicate, ack.offset], [true, 1]);
  await mine.room.send("after");
  await one.direct("user_bob", "after");
  for (const { seen } of [watcher, bob, mine]) {
    await until("all are there", () => seen.length >= 2);
    assert.deepEqual(seen, ["once", "after"]);
  }
});

test("what was refused for a time and is sent again with its msgId is one message, whichever gateways it reached", async (t) => {
  const url = await redis(t);
  const [left, right] = await Promise.all([Gateway.onRedis(t, url, "left"), Gateway.onRedis(t, url, "right")]);
  const watcher = await joined(await connected(t, left, "watcher"), "r");
  const duplicates: boolean[] = [];
  for (const gateway of [left, right, left]) {
    const { room } = await joined(await connected(t, gateway, "ann"), "r");
    duplicates.push((await room.send("once", { msgId: "m1" })).duplicate);
  }
  assert.deepEqual(duplicates, [false, true, true]);
  await watcher.room.send("after");
  await until("it came", () => watcher.seen.length > 1);
  assert.deepEqual(watcher.seen, ["once", "after"]);
});

/** Two gateways on one Redis, and messages to a room and to users of each codec at 50 a second. */
async function fleet(t: TestContext) {
  const url = await redis(t);
  const ids = ["one", "two"];
  const flags = (id: string): string[] => [...UNLIMITED, "--broker", url, "--server-id", id];
  const gateways = await Promise.all(ids.map((id) => Gateway.start(t, flags(id))));
  const [first, second] = gateways as [Gateway, Gateway];
  const sender = await connected(t, second, "sender");
  const { room } = await joined(sender, "r");
  const enter = async (codec: Codec, index: number) => {
    // as behind a balancer: the first connection and the second are those of different gateways
    let turn = 0;
    const next = (): string => gateways[turn++ % 2]?.url ?? "";
    const one = await connected(t, first, `u${index}`, { ...FAST, codec, url: next });
    return { one, direct: directs(one), ...(await joined(one, "r")) };
  };
  const movers = await Promise.all([json, msgpack, proto].map(enter));
  const send = (number: number): Promise<unknown> =>
    Promise.all([room.send(number), ...movers.map((_, index) => sender.direct(`user_u${index}`, number))]);
  return { first, second, movers, stop: flow(send, 50) };
}

type Fleet = Awaited<ReturnType<typeof fleet>>;

/** Everything came, once and in order, to each. */
async function whole(t: TestContext, { movers, stop }: Fleet): Promise<void> {
  await until("all are on the other gateway", () => movers.every(({ one }) => one.welcome?.serverId === "two"));
  const reached = Math.max(...movers.map(({ seen }) => seen.length));
  await until("messages flow there", () => movers.every(({ seen }) => seen.length > reached + 25));
  const count = await stop();
  for (const { seen, lost, direct } of movers) {
    await until("all are there", () => seen.length >= count && direct.seen.length >= count);
    assert.deepEqual(seen, upTo(count));
    assert.deepEqual(direct.seen, upTo(count));
    assert.deepEqual([lost, direct.lost], [[], []]);
  }
  t.diagnostic(`${count} messages to the room and to each of ${movers.length} users: 0 lost, 0 doubled`);
}

test("a drain of one of two gateways while 50 messages a second flow loses and doubles nothing", async (t) => {
  const all = await fleet(t);
  await until("messages flow", () => all.movers.every(({ seen }) => seen.length > 10));
  await all.first.drain("drain");
  await whole(t, all);
});

test("a gateway that is killed while 50 messages a second flow costs a moment, and no message", async (t) => {
  const all = await fleet(t);
  await until("messages flow", () => all.movers.every(({ seen }) => seen.length > 10));
  await all.first.kill();
  await whole(t, all);
});

test("after a cut it says where it was, with every codec, and after a drain it does not", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "wsfleet-js-"));
  t.after(() => {
    rmSync(directory, { recursive: true });
  });
  const key = join(directory, "key");
  writeFileSync(key, "a key of sixteen bytes or more");
  const broker = await redis(t);
  const start = (id: string): Promise<Gateway> =>
    Gateway.start(t, [...OPEN, "--broker", broker, "--server-id", id, "--routing-key-file", key]);
  const [left, right] = await Promise.all([start("left"), start("right")]);
  const hints = (gateway: Gateway): Promise<number[]> =>
    Promise.all(
      ["own", "other", "invalid"].map((result) => gateway.metric("ws_routing_hints_total", `result="${result}"`)),
    );
  let target = left;
  const clients: { one: Client; cut: () => void }[] = [];
  for (const [index, codec] of [json, msgpack, proto].entries()) {
    const { WebSocket, cut, connections } = cuttable();
    const options = { ...FAST, codec, WebSocket, url: () => target.url };
    const one = await connected(t, left, `u${index}`, options);
    assert.ok(one.welcome?.features.includes("routing_token"));
    cut();
    await until("it is back", () => connections() === 2 && one.state === "open");
    assert.deepEqual(await hints(left), [index + 1, 0, 0]);
    clients.push({ one, cut });
  }
  target = right;
  await left.drain("drain");
  for (const { one } of clients) await until("it moved", () => one.welcome?.serverId === "right");
  assert.deepEqual(await hints(right), [0, 0, 0]);
  target = left;
  await left.drain("resume");
  clients[0]?.cut();
  await until("it is on the other again", () => clients[0]?.one.welcome?.serverId === "left");
  assert.deepEqual(await hints(left), [3, 1, 0]);
});
