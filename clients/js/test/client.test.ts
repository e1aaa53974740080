/** The client against gateways that the tests play: what the real one does not do at will. */
import assert from "node:assert/strict";
import { createServer, type AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import type { StateChange } from "../src/index.js";
import { VirtualClock } from "./support/clock.js";
import { client } from "./support/gateway.js";
import { Scripted } from "./support/scripted.js";
import { comesBack, direct, directs, inRoom, message, shutdown, stage } from "./support/stage.js";
import { until } from "./support/wait.js";

test("a dead link is found by its silence, and replaced soon", async (t) => {
  const all = await stage(t);
  const { clock, first, states } = all;
  clock.advance(30_000);
  await first.expect("ping");
  first.send({ type: "pong" });
  await until("the pong was heard", () => clock.due === 30_000);
  clock.advance(30_000);
  await first.expect("ping");
  clock.advance(10_000);
  const { code, delay } = states.at(-1) ?? {};
  assert.deepEqual([code, delay], [4201, 2_500]);
  await comesBack(all, 1);
});

test("a server that accepts and says nothing is given up", async (t) => {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  t.after(() => server.close());
  const accepted: unknown[] = [];
  server.on("connection", (socket) => {
    accepted.push(socket);
    socket.on("error", () => undefined);
  });
  const clock = new VirtualClock();
  const one = client(t, {
    url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}/ws`,
    clock,
    random: () => 0.5,
  });
  const states: StateChange[] = [];
  one.on("state", (change) => states.push(change));
  one.connect();
  await until("it connects", () => accepted.length === 1);
  clock.advance(9_999);
  assert.equal(one.state, "connecting");
  clock.advance(1);
  assert.deepEqual(states.at(-1), {
    state: "reconnecting",
    code: 1006,
    reason: "no welcome within 10000 ms",
    delay: 500,
  });
  clock.advance(500);
  await until("it connects again", () => accepted.length === 2);
});

test("the routing token and the token are in the next request", async (t) => {
  const all = await stage(t, { token: () => "secret" });
  assert.equal(all.first.request, "/ws?token=secret");
  all.first.send({ type: "routing_token", token: "pod 1" });
  all.first.socket.terminate();
  const second = await comesBack(all, 1);
  assert.equal(second.request, "/ws?routing=pod+1&token=secret");
  assert.equal(second.protocols, "wsfleet.v1.json");
});

test("the routing token of a gateway that goes away is forgotten, and that of the next one is kept", async (t) => {
  const all = await stage(t);
  let told = 0;
  all.one.on("shutdown", () => told++);
  const heard = directs(all.one);
  // is not answered: the first connection stays beside the second
  void all.one.direct("v", "waits");
  await all.first.expect("direct_message");
  all.first.send({ type: "routing_token", token: "one" }, shutdown);
  await until("it was told", () => told === 1);
  all.clock.advance(all.clock.due);
  const second = await all.gateway.peer(1);
  assert.equal(second.request, "/ws");
  second.welcome();
  second.send({ type: "routing_token", token: "two" }, direct(1));
  await until("it has the other token", () => heard.length === 1);
  all.first.send(shutdown);
  await until("it was told again", () => told === 2);
  second.socket.terminate();
  const third = await comesBack(all, 2);
  assert.equal(third.request, "/ws?routing=two");
  third.welcome();
  await until("it is open again", () => all.one.state === "open");
  third.send({ type: "routing_token", token: "three" });
  third.socket.close(1012);
  assert.equal((await comesBack(all, 3)).request, "/ws");
});

test("a token can be a subprotocol", async (t) => {
  const { first } = await stage(t, { token: "secret", tokenIn: "subprotocol" });
  assert.equal(first.request, "/ws");
  assert.equal(first.protocols, "wsfleet.v1.json,bearer.secret");
});

test("a token that cannot be had is told, and tried for again", async (t) => {
  const clock = new VirtualClock();
  const gateway = await Scripted.start(t);
  let asked = 0;
  const token = (): Promise<string> => (++asked === 1 ? Promise.reject(new Error("no issuer")) : Promise.resolve("t"));
  const one = client(t, { url: gateway.url, clock, token });
  const errors: string[] = [];
  one.on("error", ({ message }) => errors.push(message));
  one.connect();
  await until("it waits", () => one.state === "reconnecting");
  assert.deepEqual(errors, ["Error: no issuer"]);
  clock.advance(clock.due);
  (await gateway.peer(0)).welcome();
  await until("it is open", () => one.state === "open");
});

test("it keeps to the gateway's rate, also when it comes back with many rooms", async (t) => {
  const clock = new VirtualClock();
  const gateway = await Scripted.start(t);
  const one = client(t, { url: gateway.url, clock });
  for (let number = 0; number < 30; number++) void one.room(`r${number}`).join();
  one.connect();
  const peer = await gateway.peer(0);
  peer.welcome([], 20);
  await until("the first came", () => peer.received.length === 20);
  clock.advance(499);
  clock.advance(1);
  await until("the rest came", () => peer.received.length === 30);
  assert.equal(new Set(peer.received.map((join) => "room" in join && join.room)).size, 30);
});

test("a join that is refused for a time is tried again, one that is refused is the end of the room", async (t) => {
  const { one, first, clock } = await stage(t);
  const room = one.room("r");
  const left: unknown[] = [];
  room.on("left", (error) => left.push(error?.code));
  const done = room.join();
  const { id } = await first.expect("join");
  first.send({ type: "error", error: "later", code: "overloaded", temporary: true, id });
  await until("it waits", () => clock.due === 1_000);
  clock.advance(1_000);
  const again = await first.expect("join");
  first.send({
    type: "error",
    error: "The token does not allow this",
    code: "forbidden",
    temporary: false,
    id: again.id,
  });
  await assert.rejects(done, { name: "WsfleetError", code: "forbidden", temporary: false });
  assert.deepEqual(left, ["forbidden"]);
  await assert.rejects(room.send(1), { code: "not_joined" });
});

test("frames that are no messages are told as errors, and stop nothing", async (t) => {
  const { one, first } = await stage(t);
  const errors: string[] = [];
  one.on("error", ({ code }) => errors.push(code));
  const { seen } = await inRoom(one, first, 0);
  for (const text of ["{", "null", "[]", "17", '{"type":"later"}', '{"type":"joined"}', '{"type":"welcome"}']) {
    first.socket.send(text);
  }
  first.send(message(1));
  await until("the message is there", () => seen.length === 1);
  assert.deepEqual(new Set(errors), new Set(["unreadable"]));
  assert.equal(one.state, "open");
});

test("handlers may call the client, and one that is removed is not called", async (t) => {
  const { one, first, states } = await stage(t);
  const remove = one.on("direct", () => assert.fail("it was removed"));
  remove();
  one.on("direct", () => {
    one.close();
  });
  const pending = assert.rejects(one.direct("v", 1), { code: "closed" });
  first.send({ type: "direct_message", fromUserId: "v", payload: 1, timestamp: 0, offset: 1 });
  await pending;
  assert.equal(states.at(-1)?.state, "closed");
  await assert.rejects(one.direct("v", 1), { code: "closed" });
  await until("the gateway sees it", () => first.closed === 1000);
});

test("without a WebSocket it says what to do", () => {
  assert.throws(
    () =>
      client({ after: () => undefined } as unknown as TestContext, { url: "ws://x", WebSocket: undefined as never }),
    /option/,
  );
});
