/** Coming back and moving, against gateways that the tests play: each order in which things can come. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { comesBack, direct, directs, inRoom, joined, message, shutdown, stage } from "./support/stage.js";
import { until } from "./support/wait.js";

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

test("a room of a resume that the gateway does not open is left, the others are joined", async (t) => {
  const all = await stage(t, {}, ["resume"]);
  const { one, first } = all;
  await inRoom(one, first, 3);
  const closed = one.room("s");
  const left: unknown[] = [];
  closed.on("left", (error) => left.push(error?.code));
  const other = closed.join();
  await first.expect("join");
  first.send(joined("s", 1));
  await other;
  first.socket.terminate();
  const second = await comesBack(all, 1);
  second.welcome(["resume"]);
  const { id } = await second.expect("resume");
  const no = { type: "error", error: "no", code: "forbidden", temporary: false } as const;
  second.send({ ...no, id }, { type: "left", room: "s" }, joined("r", 3, { recovered: true }));
  const asked = await second.expect("join");
  if (asked.room === "r") {
    second.send(joined("r", 3, { recovered: true }));
    second.send({ ...no, id: (await second.expect("join")).id });
  } else second.send({ ...no, id: asked.id });
  await until("it is left", () => left.length > 0);
  assert.deepEqual(left, ["forbidden"]);
  void one.room("r").send(1);
  await second.expect("room_message");
});

test("the user's own stream is resumed, and each direct message comes once and in order", async (t) => {
  const all = await stage(t, {}, ["resume"]);
  const { one, first } = all;
  const seen = directs(one);
  first.send(direct(1));
  await until("1 is there", () => seen.length === 1);
  first.socket.terminate();
  const second = await comesBack(all, 1);
  second.welcome(["resume"], 0, { epoch: "p", offset: 3 });
  assert.deepEqual((await second.expect("resume")).user, { epoch: "p", offset: 1 });
  // 4 came between `welcome` and `resumed`: it comes again in its place
  second.send(direct(4), { type: "resumed", epoch: "p", offset: 4, recovered: true });
  second.send(direct(2), direct(3), direct(4), direct(4), direct(5));
  second.send({ type: "gap", from: 6, to: 7, epoch: "p" });
  await until("all are there", () => seen.length === 6);
  second.socket.terminate();
  const third = await comesBack(all, 2);
  third.welcome(["resume"], 0, { epoch: "p", offset: 400 });
  await third.expect("resume");
  third.send({ type: "resumed", epoch: "p", offset: 400, recovered: false, reason: "limit" }, direct(401));
  await until("all are there", () => seen.length === 8);
  third.socket.terminate();
  const fourth = await comesBack(all, 3);
  fourth.welcome(["resume"], 0, { epoch: "f", offset: 0 });
  await fourth.expect("resume");
  fourth.send({ type: "resumed", epoch: "f", offset: 0, recovered: false, reason: "epoch_changed" }, direct(1));
  await until("all are there", () => seen.length === 10);
  const limit = { reason: "limit", from: 8, to: 400 };
  assert.deepEqual(seen, [1, 2, 3, 4, 5, [6, 7], limit, 401, { reason: "epoch_changed" }, 1]);
});

test("without a resume direct messages begin where the welcome says, and what is between is told", async (t) => {
  const all = await stage(t);
  const seen = directs(all.one);
  all.first.send(direct(1));
  await until("1 is there", () => seen.length === 1);
  all.first.socket.terminate();
  const second = await comesBack(all, 1);
  second.welcome([], 0, { epoch: "p", offset: 3 });
  second.send(direct(4));
  await until("4 is there", () => seen.length === 3);
  second.socket.terminate();
  const third = await comesBack(all, 2);
  third.welcome(["resume"], 0, { epoch: "p", offset: 5 });
  const { id } = await third.expect("resume");
  third.send({ type: "error", error: "no", code: "unknown_type", temporary: false, id }, direct(6));
  await until("6 is there", () => seen.length === 5);
  assert.deepEqual(seen, [
    1,
    { reason: "unsupported", from: 2, to: 3 },
    4,
    { reason: "unsupported", from: 5, to: 5 },
    6,
  ]);
});

test("direct messages of which nothing is kept are passed on from the start", async (t) => {
  const all = await stage(t, {}, ["resume"]);
  const seen = directs(all.one);
  const nothing = { epoch: "", offset: 0 };
  all.first.socket.terminate();
  const second = await comesBack(all, 1);
  second.welcome(["resume"], 0, nothing);
  await second.expect("resume");
  second.send({ type: "resumed", ...nothing, recovered: false, reason: "too_old" }, direct(0));
  await until("it is there", () => seen.length === 2);
  second.socket.terminate();
  const third = await comesBack(all, 2);
  third.welcome(["resume"], 0, nothing);
  third.send(direct(0));
  await until("it is there", () => seen.length === 3);
  assert.deepEqual(seen, [{ reason: "too_old" }, 0, 0]);
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
  first.send(message(1), { type: "ack", id, epoch: "e", offset: 1, duplicate: false });
  await ack;
  assert.deepEqual(seen, [1]);
  first.send(message(2), message(3));
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

test("a move resumes on the new connection, and direct messages come once and in order from both", async (t) => {
  const { one, first, clock, gateway } = await stage(t, {}, ["resume"]);
  const seen = directs(one);
  first.send(direct(1), shutdown);
  await until("it was told", () => clock.due === 4_000);
  clock.advance(4_000);
  const second = await gateway.peer(1);
  second.welcome(["resume"], 0, { epoch: "p", offset: 2 });
  assert.deepEqual((await second.expect("resume")).user, { epoch: "p", offset: 1 });
  second.send(direct(3));
  first.send(direct(2));
  await until("2 is there", () => seen.length === 2);
  second.send({ type: "resumed", epoch: "p", offset: 3, recovered: true }, direct(2), direct(3));
  assert.equal(await until("the old one is closed", () => first.closed), 1000);
  second.send(direct(4));
  await until("4 is there", () => seen.includes(4));
  assert.deepEqual(seen, [1, 2, 3, 4]);
});

test("a move during which nothing can be recovered takes from the old connection what the new one begins after", async (t) => {
  const { one, first, clock, gateway } = await stage(t, {}, ["resume"]);
  const seen = directs(one);
  first.send(direct(1), shutdown);
  await until("it was told", () => clock.due === 4_000);
  clock.advance(4_000);
  const second = await gateway.peer(1);
  second.welcome(["resume"], 0, { epoch: "p", offset: 3 });
  await second.expect("resume");
  second.send({ type: "resumed", epoch: "p", offset: 3, recovered: false, reason: "too_old" }, direct(4));
  first.send(direct(2), direct(3), direct(4));
  assert.equal(await until("the old one is closed", () => first.closed), 1000);
  assert.deepEqual(seen, [1, 2, 3, 4]);
});
