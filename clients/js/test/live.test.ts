/** The client and the real gateway's program. */
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { json, type Client, type Codec, type StateChange } from "../src/index.js";
import { msgpack } from "../src/msgpack.js";
import { proto } from "../src/proto.js";
import { VirtualClock } from "./support/clock.js";
import { flow, joined } from "./support/flow.js";
import { client, connected, Gateway, redis } from "./support/gateway.js";
import { until } from "./support/wait.js";

const CODECS: Codec[] = [json, msgpack, proto];

function statesOf(one: Client): string[] {
  const states: string[] = [];
  one.on("state", ({ state, code }) => states.push(code === undefined ? state : `${state} ${code}`));
  return states;
}

test("members with three codecs tell each other the same, and who comes and goes", async (t) => {
  const gateway = await Gateway.start(t);
  const payloads = [
    null,
    true,
    "",
    "é \u{1f600} \u0000",
    [0, -1, 127, 128, -33, 65_536, 2 ** 53 - 1, -(2 ** 53 - 1), 0.1, 1e300],
    { a: { b: [{}, []] }, "": 0 },
    "x".repeat(40_000),
    Array.from({ length: 300 }, (_, index) => index),
  ];
  const watcher = (await connected(t, gateway, "watcher")).room("codecs");
  const came: string[] = [];
  watcher.on("userJoined", ({ userId }) => came.push(`+${userId}`));
  watcher.on("userLeft", ({ userId }) => came.push(`-${userId}`));
  await watcher.join();
  const members = [];
  for (const [index, codec] of CODECS.entries()) {
    const one = await connected(t, gateway, `u${index}`, { codec });
    assert.equal(one.welcome?.userId, `user_u${index}`);
    assert.equal(one.welcome.limits.messagesPerSecond, 50);
    members.push(await joined(one, "codecs"));
  }
  let offset = 0;
  for (const { room } of members) {
    for (const payload of payloads) {
      const ack = await room.send(payload);
      assert.deepEqual([ack.offset, ack.duplicate, ack.epoch], [++offset, false, room.position?.epoch]);
    }
  }
  const all = [...payloads, ...payloads, ...payloads];
  for (const { seen, lost } of members) {
    await until("all are there", () => seen.length === all.length);
    assert.deepEqual(seen, all);
    assert.deepEqual(lost, []);
  }
  members[1]?.room.leave();
  await until("it left", () => came.length === 4);
  assert.deepEqual(came, ["+user_u0", "+user_u1", "+user_u2", "-user_u1"]);
});

test("direct messages reach every device once, whatever its codec", async (t) => {
  const gateway = await Gateway.start(t);
  const devices = await Promise.all(CODECS.map((codec) => connected(t, gateway, "bob", { codec })));
  const seen = devices.map((device) => {
    const messages: unknown[] = [];
    device.on("direct", ({ fromUserId, payload, offset }) => messages.push([fromUserId, payload, offset]));
    return messages;
  });
  for (const [index, codec] of CODECS.entries()) {
    const sender = await connected(t, gateway, "ann", { codec });
    assert.equal((await sender.direct("user_bob", { index })).offset, index + 1);
  }
  for (const messages of seen) {
    await until("all are there", () => messages.length === 3);
    assert.deepEqual(
      messages,
      [0, 1, 2].map((index) => ["user_ann", { index }, index + 1]),
    );
  }
});

test("after the gateway was killed the client comes back to another, in its rooms, and sends what was not accepted", async (t) => {
  const gateway = await Gateway.start(t);
  const clock = new VirtualClock();
  const one = await connected(t, gateway, "ann", { clock });
  const states = statesOf(one);
  const { room, seen, lost } = await joined(one, "r");
  await room.send("before");
  await gateway.kill();
  await until("it waits", () => one.state === "reconnecting");
  const ack = room.send("meanwhile");
  await Gateway.start(t, undefined, gateway.ports);
  clock.advance(clock.due);
  assert.equal((await ack).offset, 1);
  await until("it came", () => seen.length === 2);
  assert.deepEqual(seen, ["before", "meanwhile"]);
  assert.deepEqual(states, ["reconnecting 1006", "open"]);
  // the memory of the first one is gone: another epoch
  assert.deepEqual(lost, [{ reason: "epoch_changed" }]);
});

test("more than may wait is refused while there is no connection", async (t) => {
  const one = client(t, { url: "ws://127.0.0.1:9/ws", clock: new VirtualClock(), maxPending: 3 });
  one.connect();
  for (let number = 0; number < 3; number++) void one.direct("user_bob", number);
  await assert.rejects(one.direct("user_bob", 3), { code: "buffer_full", temporary: true });
});

test("in a drain it moves before it is closed, and misses and doubles nothing: in memory, all codecs", async (t) => {
  const unlimited = [
    "--auth",
    "insecure-token",
    "--limit",
    "messagesPerSecond=0",
    "--limit",
    "handshakesPerSecondPerIp=0",
  ];
  const gateway = await Gateway.start(t, unlimited);
  const sender = await joined(await connected(t, gateway, "sender", { clock: new VirtualClock() }), "r");
  const enter = async (codec: Codec, index: number) => {
    const clock = new VirtualClock();
    const one = await connected(t, gateway, `u${index}`, { codec, clock });
    const told = new Promise<number>((done) =>
      one.on("shutdown", ({ reconnectDelay }) => {
        done(reconnectDelay);
      }),
    );
    return {
      one,
      clock,
      told,
      states: statesOf(one),
      connection: one.welcome?.connectionId,
      ...(await joined(one, "r")),
    };
  };
  const movers = await Promise.all(CODECS.map(enter));
  const stop = flow((number) => sender.room.send(number));
  await gateway.drain("drain", 20);
  const delays = await Promise.all(movers.map(({ told }) => told));
  // alone in the world, the gateway has to take them back itself
  await gateway.drain("resume");
  for (const [index, { clock }] of movers.entries()) clock.advance(delays[index] ?? 0);
  await until("each has moved", () => movers.every(({ one, connection }) => one.welcome?.connectionId !== connection));
  await until("the old connections are closed", async () => (await gateway.connections()) === 1 + movers.length);
  const count = await stop();
  const all = Array.from({ length: count }, (_, index) => index + 1);
  for (const { seen, lost, states } of movers) {
    await until("all are there", () => seen.length >= count);
    assert.deepEqual(seen, all);
    assert.deepEqual(lost, []);
    assert.deepEqual(states, []);
  }
  assert.equal(await gateway.metric("ws_closes_total", 'code="1000"'), movers.length);
  t.diagnostic(`${count} messages while ${movers.length} clients moved`);
});

/** A drain of one of two gateways with clients of each codec; says how many of them were closed before they had moved. */
async function drainToAnother(t: TestContext, url: string, attempt: number): Promise<number> {
  const [from, to] = await Promise.all([
    Gateway.onRedis(t, url, `from-${attempt}`),
    Gateway.onRedis(t, url, `to-${attempt}`),
  ]);
  const sender = await connected(t, to, "sender");
  const room = await joined(sender, `r${attempt}`);
  const enter = async (codec: Codec, index: number) => {
    let target = from.url;
    const user = `u${attempt}-${index}`;
    const one = await connected(t, from, user, { codec, url: () => target });
    target = to.url;
    const direct: unknown[] = [];
    one.on("direct", ({ payload }) => direct.push(payload));
    return { one, user, direct, states: statesOf(one), ...(await joined(one, `r${attempt}`)) };
  };
  const movers = await Promise.all(CODECS.map(enter));
  const stop = flow((number) => room.room.send(number));
  await from.drain("drain");
  let sent = 0;
  const moved = (): boolean => movers.every(({ one }) => one.welcome?.serverId === `to-${attempt}`);
  while (!moved() || (await from.connections()) > 0) {
    sent++;
    await Promise.all(movers.map(({ user }) => sender.direct(`user_${user}`, sent)));
  }
  const count = await stop();
  const late = await from.metric("ws_closes_total", 'code="1012"');
  if (late > 0) return late;
  for (const { seen, lost, states, direct } of movers) {
    await until("all are there", () => seen.length >= count && direct.length >= sent);
    assert.deepEqual(
      seen,
      Array.from({ length: count }, (_, index) => index + 1),
    );
    assert.deepEqual(
      direct,
      Array.from({ length: sent }, (_, index) => index + 1),
    );
    assert.deepEqual(lost, []);
    assert.deepEqual(states, []);
  }
  t.diagnostic(`${count} messages to the room and ${sent} to each user while ${movers.length} clients moved`);
  return 0;
}

test("in a drain it moves to another gateway, and misses and doubles nothing: on Redis, in real time", async (t) => {
  const url = await redis(t);
  // the gateway gives a client one second to move: on a machine that pauses for longer it is closed before it could
  for (let attempt = 1; (await drainToAnother(t, url, attempt)) > 0; attempt++) {
    assert.ok(attempt < 5, "in each of five drains a client was closed before it had moved");
  }
});

const SECRET = "a secret of at least thirty-two bytes";

/** A token that ends so many seconds from now. */
function token(sub: string, seconds: number, more: object = {}): { token: string; expiresAt: number } {
  const exp = Math.floor(Date.now() / 1000) + seconds;
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const body = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub, exp, ...more })}`;
  return { token: `${body}.${createHmac("sha256", SECRET).update(body).digest("base64url")}`, expiresAt: exp * 1000 };
}

/** A gateway that verifies tokens. */
async function strict(t: TestContext, flags: string[] = []): Promise<Gateway> {
  const directory = mkdtempSync(join(tmpdir(), "wsfleet-js-"));
  t.after(() => {
    rmSync(directory, { recursive: true });
  });
  const file = join(directory, "secret");
  writeFileSync(file, SECRET);
  return Gateway.start(t, ["--jwt-secret-file", file, "--jwt-leeway", "0", ...flags]);
}

test("a token is replaced before it ends, on the same connection; rooms that the new one does not open are left", async (t) => {
  const gateway = await strict(t);
  const clock = new VirtualClock();
  const given: string[] = [];
  const one = client(t, {
    url: gateway.url,
    tokenIn: "subprotocol",
    clock,
    token: () => {
      given.push("token");
      const { token: text } = token("ann", 3_600, given.length > 1 ? { rooms: ["open"] } : {});
      return { token: text, expiresAt: clock.now() + 60_000 };
    },
  });
  const states = statesOf(one);
  const errors: string[] = [];
  one.on("error", ({ message }) => errors.push(message));
  one.connect();
  const closing = await joined(one, "closing");
  await joined(one, "open");
  const left = new Promise((done) => closing.room.on("left", done));
  clock.advance(29_999);
  assert.equal(given.length, 1);
  clock.advance(1);
  await left;
  assert.equal(given.length, 2);
  await assert.rejects(closing.room.send(1), { code: "not_joined" });
  assert.equal((await one.room("open").send(1)).offset, 1);
  assert.deepEqual(states, ["connecting", "open"]);
  assert.deepEqual(errors, []);
});

test("closed for its token's end it asks for another, and comes back soon", async (t) => {
  const gateway = await strict(t, ["--token-grace", "0"]);
  const clock = new VirtualClock();
  let given = 0;
  const one = client(t, { url: gateway.url, clock, token: () => token("ann", given++ === 0 ? 10 : 3_600).token });
  const changes: StateChange[] = [];
  one.on("state", (change) => changes.push(change));
  one.connect();
  const { room } = await joined(one, "r");
  await until("it was closed", () => one.state === "reconnecting");
  assert.equal(changes.at(-1)?.code, 4202);
  assert.ok((changes.at(-1)?.delay ?? Infinity) <= 5_000);
  clock.advance(clock.due);
  assert.equal((await room.send("again")).offset, 1);
  assert.equal(given, 2);
});

test("a bad token is the end, and told", async (t) => {
  const gateway = await strict(t);
  const one = client(t, { url: gateway.url, token: "no.such.token" });
  const states = statesOf(one);
  one.connect();
  const refused = assert.rejects(one.room("r").join(), { code: "closed", message: /Unauthorized/ });
  await until("it is closed", () => one.state === "closed");
  await refused;
  assert.deepEqual(states, ["connecting", "closed 4001"]);
});

test("what the gateway does not serve rejects the promise, with the gateway's code, in every codec", async (t) => {
  const gateway = await Gateway.start(t, ["--auth", "insecure-token", "--limit", "roomsPerConnection=1"]);
  for (const codec of CODECS) {
    const one = await connected(t, gateway, "ann", { codec });
    await assert.rejects(one.room("x".repeat(256)).join(), { code: "room_name_too_long", temporary: false });
    await one.room("r").join();
    await assert.rejects(one.room("s").join(), { code: "too_many_rooms" });
    await assert.rejects(one.direct("u".repeat(129), 1), { code: "invalid_field" });
    assert.equal((await one.room("r").send("still there")).epoch, one.room("r").position?.epoch);
    assert.equal(one.state, "open");
  }
});

test("a message that is too big is the end: it would be too big again", async (t) => {
  const gateway = await Gateway.start(t);
  const one = await connected(t, gateway, "ann");
  const states = statesOf(one);
  const { room } = await joined(one, "r");
  await assert.rejects(room.send("x".repeat(70_000)), { code: "closed" });
  assert.deepEqual(states, ["closed 1009"]);
});

test("a gateway that refuses new connections is tried again after a jittered wait", async (t) => {
  const gateway = await Gateway.start(t);
  await gateway.drain("drain");
  const clock = new VirtualClock();
  const one = client(t, { url: gateway.url, token: "ann", clock, random: () => 0.5 });
  const changes: StateChange[] = [];
  one.on("state", (change) => changes.push(change));
  one.connect();
  for (const delay of [500, 1_000, 2_000]) {
    await until("it waits", () => changes.at(-1)?.delay === delay);
    clock.advance(delay);
  }
  await until("it waits", () => changes.at(-1)?.delay === 4_000);
  await gateway.drain("resume");
  clock.advance(4_000);
  await until("it is open", () => one.state === "open");
});

test("sending in a hurry stays within the gateway's rate", async (t) => {
  const gateway = await Gateway.start(t);
  const one = await connected(t, gateway, "ann");
  const { room, seen } = await joined(one, "r");
  const numbers = Array.from({ length: 160 }, (_, index) => index);
  const acks = await Promise.all(numbers.map((number) => room.send(number)));
  assert.deepEqual(
    acks.map(({ offset }) => offset),
    numbers.map((number) => number + 1),
  );
  await until("all are there", () => seen.length === numbers.length);
  assert.deepEqual(seen, numbers);
});

test("the package is what its exports say", async () => {
  const names = ["@wsfleet/client", "@wsfleet/client/msgpack", "@wsfleet/client/proto"];
  const [core, ...codecs] = await Promise.all(names.map((name) => import(name) as Promise<Record<string, unknown>>));
  assert.deepEqual(Object.keys(core ?? {}).sort(), ["Client", "WsfleetError", "json"]);
  assert.deepEqual(
    codecs.map((codec) => Object.keys(codec)),
    [["msgpack"], ["proto"]],
  );
});
