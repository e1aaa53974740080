/** The client against gateways that the tests play: what the contract says, and today's gateway does not do yet or at will. */
import assert from "node:assert/strict";
import { createServer, type AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import type { Client, Options, StateChange } from "../src/index.js";
import type { Joined, RoomMessage, ServerMessage } from "../src/messages.js";
import { VirtualClock } from "./support/clock.js";
import { client } from "./support/gateway.js";
import { Scripted, type Peer } from "./support/scripted.js";
import { until } from "./support/wait.js";

const joined = (room: string, offset: number, more: Partial<Joined> = {}): Joined => ({
  type: "joined",
  room,
  epoch: "e",
  offset,
  ...more,
});
const message = (offset: number, roomId = "r"): RoomMessage => ({
  type: "room_message",
  roomId,
  userId: "v",
  payload: offset,
  timestamp: 0,
  serverId: "s",
  offset,
});
const shutdown: ServerMessage = {
  type: "server_shutdown",
  reason: "drain",
  reconnectDelay: 4_000,
  deadline: null,
  resume: true,
};

interface Stage {
  clock: VirtualClock;
  gateway: Scripted;
  one: Client;
  states: StateChange[];
  first: Peer;
}

/** A client of a gateway that the test plays, in virtual time, welcomed. */
async function stage(t: TestContext, options: Partial<Options> = {}, features: string[] = []): Promise<Stage> {
  const clock = new VirtualClock();
  const gateway = await Scripted.start(t);
  const one = client(t, { url: gateway.url, clock, random: () => 0.5, ...options });
  const states: StateChange[] = [];
  one.on("state", (change) => states.push(change));
  one.connect();
  const first = await gateway.peer(0);
  first.welcome(features);
  await until("it is open", () => one.state === "open");
  return { clock, gateway, one, states, first };
}

/** The room `r`, joined on a connection at this offset, and the offsets of its messages. */
async function inRoom(one: Client, peer: Peer, offset: number): Promise<{ seen: unknown[]; lost: unknown[] }> {
  const room = one.room("r");
  const seen: unknown[] = [];
  const lost: unknown[] = [];
  room.on("message", ({ payload }) => seen.push(payload));
  room.on("unrecovered", (event) => lost.push(event));
  room.on("gap", (event) => lost.push(event));
  const done = room.join();
  const join = await peer.expect("join");
  assert.deepEqual([join.epoch, join.offset], [undefined, undefined]);
  peer.send(joined("r", offset));
  assert.deepEqual(await done, { epoch: "e", offset });
  return { seen, lost };
}

/** Waits until the client waits, and lets that time pass. */
async function comesBack({ clock, one, gateway }: Stage, number: number): Promise<Peer> {
  await until("it waits", () => one.state === "reconnecting");
  clock.advance(clock.due);
  return gateway.peer(number);
}

test("after a cut it joins with its position, and gets what it missed once", async (t) => {
  const all = await stage(t);
  const { one, first } = all;
  const { seen, lost } = await inRoom(one, first, 3);
  first.send(message(4), message(5));
  await until("both are there", () => seen.length === 2);
  first.socket.terminate();
  const second = await comesBack(all, 1);
  second.welcome();
  const join = await second.expect("join");
  assert.deepEqual([join.room, join.epoch, join.offset], ["r", "e", 5]);
  second.send(joined("r", 7, { recovered: true }), message(5), message(6), message(7), message(8));
  await until("all are there", () => seen.length === 5);
  assert.deepEqual(seen, [4, 5, 6, 7, 8]);
  assert.deepEqual(lost, []);
});

test("what could not be recovered is told with its reason", async (t) => {
  const all = await stage(t);
  const { seen, lost } = await inRoom(all.one, all.first, 3);
  all.first.socket.terminate();
  const second = await comesBack(all, 1);
  second.welcome();
  await second.expect("join");
  second.send(joined("r", 2, { epoch: "f", recovered: false, reason: "epoch_changed" }));
  second.send({ type: "gap", room: "r", from: 3, to: 4, epoch: "f" }, message(5));
  await until("the message is there", () => seen.length === 1);
  assert.deepEqual(lost, [{ reason: "epoch_changed" }, { from: 3, to: 4 }]);
});

test("a gateway that can is asked for all rooms at once, and without success for one after the other", async (t) => {
  const all = await stage(t, {}, ["resume"]);
  const { one, first } = all;
  await inRoom(one, first, 3);
  const other = one.room("s").join();
  await first.expect("join");
  first.send(joined("s", 1));
  await other;
  first.socket.terminate();
  const second = await comesBack(all, 1);
  second.welcome(["resume"]);
  const { rooms, id } = await second.expect("resume");
  assert.deepEqual(rooms, [
    { room: "r", epoch: "e", offset: 3 },
    { room: "s", epoch: "e", offset: 1 },
  ]);
  second.send({ type: "error", error: "no", code: "unknown_type", temporary: false, id });
  assert.equal((await second.expect("join")).room, "r");
  assert.equal((await second.expect("join")).room, "s");
});

test("the user's own stream is resumed where the gateway says where it is", async (t) => {
  const all = await stage(t);
  const { one, first } = all;
  const seen: unknown[] = [];
  one.on("direct", ({ offset }) => seen.push(offset));
  one.on("unrecovered", ({ reason }) => seen.push(reason));
  one.on("gap", ({ from, to }) => seen.push([from, to]));
  const direct = (offset: number): ServerMessage => ({
    type: "direct_message",
    fromUserId: "v",
    payload: null,
    timestamp: 0,
    offset,
  });
  first.socket.terminate();
  const second = await comesBack(all, 1);
  second.welcome(["resume"], 0, { epoch: "e", offset: 4 });
  second.send(direct(5));
  await until("5 is there", () => seen.length === 1);
  second.socket.terminate();
  const third = await comesBack(all, 2);
  third.welcome(["resume"], 0, { epoch: "e", offset: 7 });
  assert.deepEqual((await third.expect("resume")).user, { epoch: "e", offset: 5 });
  third.send({ type: "resumed", epoch: "e", offset: 7, recovered: true }, direct(6), direct(7), direct(7), direct(8));
  third.send({ type: "gap", from: 9, to: 10, epoch: "e" });
  await until("all are there", () => seen.length === 5);
  third.socket.terminate();
  const fourth = await comesBack(all, 3);
  fourth.welcome(["resume"], 0, { epoch: "f", offset: 0 });
  await fourth.expect("resume");
  fourth.send({ type: "resumed", epoch: "f", offset: 0, recovered: false, reason: "epoch_changed" }, direct(1));
  await until("all are there", () => seen.length === 7);
  assert.deepEqual(seen, [5, 6, 7, 8, [9, 10], "epoch_changed", 1]);
});

test("a message without an answer goes out again with its msgId, behind the room's join", async (t) => {
  const all = await stage(t);
  const { one, first } = all;
  await inRoom(one, first, 0);
  const ack = one.room("r").send({ text: "hello" });
  const once = await first.expect("room_message");
  first.socket.terminate();
  const second = await comesBack(all, 1);
  second.welcome();
  await second.expect("join");
  assert.ok(!second.received.some(({ type }) => type === "room_message"), "not before the room is joined");
  second.send(joined("r", 1));
  const again = await second.expect("room_message");
  assert.deepEqual(again, once);
  second.send({ type: "ack", id: again.id, epoch: "e", offset: 1, duplicate: true });
  assert.deepEqual(await ack, { type: "ack", id: again.id, epoch: "e", offset: 1, duplicate: true });
});

test("it moves at its own time: opens, joins, and closes the old one with 1000 when all of it is there", async (t) => {
  const all = await stage(t);
  const { one, first, clock, gateway, states } = all;
  const { seen, lost } = await inRoom(one, first, 0);
  const ack = one.room("r").send(1);
  const { id } = await first.expect("room_message");
  first.send(shutdown);
  await until("it was told", () => clock.due === 4_000);
  clock.advance(3_999);
  assert.equal(gateway.peers.length, 1);
  clock.advance(1);
  const second = await gateway.peer(1);
  second.welcome();
  await second.expect("join");
  second.send(joined("r", 2), message(3));
  await first.expect("ping");
  first.send(message(1), { type: "ack", id, epoch: "e", offset: 1, duplicate: false });
  await ack;
  assert.deepEqual(seen, [1]);
  first.send(message(2), message(3), { type: "pong" });
  assert.equal(await until("the old one is closed", () => first.closed), 1000);
  second.send(message(3), message(4));
  await until("all are there", () => seen.length === 4);
  assert.deepEqual(seen, [1, 2, 3, 4]);
  assert.deepEqual(lost, []);
  assert.deepEqual(
    states.map(({ state }) => state),
    ["connecting", "open"],
  );
});

test("direct messages that come on both connections are passed on once", async (t) => {
  const { one, first, clock, gateway } = await stage(t);
  const seen: unknown[] = [];
  one.on("direct", ({ payload }) => seen.push(payload));
  const direct = (offset: number): ServerMessage => ({
    type: "direct_message",
    fromUserId: "v",
    payload: offset,
    timestamp: 0,
    offset,
  });
  first.send(direct(1), shutdown);
  await until("it was told", () => clock.due === 4_000);
  clock.advance(4_000);
  const second = await gateway.peer(1);
  second.welcome();
  await first.expect("ping");
  second.send(direct(3));
  first.send(direct(2), direct(3), { type: "pong" });
  await until("the old one is closed", () => first.closed);
  second.send(direct(4));
  await until("4 is there", () => seen.includes(4));
  assert.deepEqual(seen, [1, 2, 3, 4]);
});

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
