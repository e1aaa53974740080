import assert from "node:assert/strict";
import { test } from "node:test";
import { WsfleetError } from "../src/errors.js";
import type { Ack } from "../src/messages.js";
import { Pace } from "../src/pace.js";
import { Requests, type Request } from "../src/requests.js";
import { Tokens } from "../src/tokens.js";

const message = (id: string, room = "r"): Request => ({
  type: "room_message",
  room,
  payload: id,
  id,
  msgId: `own-${id}`,
});
const ack = (id: string): Ack => ({ type: "ack", id, epoch: "e", offset: 1, duplicate: false });
const always = (): boolean => true;

/** What goes out on a link now. */
function flushed(requests: Requests, link: number, may: (message: Request) => boolean = always): string[] {
  const sent: string[] = [];
  requests.flush(link, may, (message) => sent.push(`${message.id} ${"msgId" in message ? message.msgId : ""}`));
  return sent;
}

test("what is not answered goes out again on the next link, in order and with the same msgId", async () => {
  const requests = new Requests(10);
  const answers = ["a", "b", "c"].map((id) => requests.add<Ack>(message(id)));
  assert.deepEqual(flushed(requests, 1), ["a own-a", "b own-b", "c own-c"]);
  assert.deepEqual(flushed(requests, 1), []);
  assert.ok(requests.answer(ack("b")));
  requests.lost(1);
  assert.deepEqual(flushed(requests, 2), ["a own-a", "c own-c"]);
  assert.ok(requests.answer(ack("a")));
  assert.ok(requests.answer(ack("c")));
  assert.ok(!requests.answer(ack("c")), "nobody waits for it any more");
  assert.equal((await Promise.all(answers)).length, 3);
});

test("nothing new goes out while answers are awaited on the link that is left", () => {
  const requests = new Requests(10);
  void requests.add(message("a"));
  assert.deepEqual(flushed(requests, 1), ["a own-a"]);
  void requests.add(message("b"));
  assert.deepEqual(flushed(requests, 2), []);
  assert.ok(requests.awaits(1));
  requests.answer(ack("a"));
  assert.deepEqual(flushed(requests, 2), ["b own-b"]);
});

test("one more than may wait is refused, and can be sent when there is room", async () => {
  const requests = new Requests(2);
  void requests.add(message("a"));
  void requests.add(message("b"));
  await assert.rejects(requests.add(message("c")), { code: "buffer_full", temporary: true, msgId: "own-c" });
  assert.deepEqual(flushed(requests, 1), ["a own-a", "b own-b"]);
  requests.answer(ack("a"));
  void requests.add(message("c"));
  assert.deepEqual(flushed(requests, 1), ["c own-c"]);
});

test("a room that is not joined yet holds up its own messages only", () => {
  const requests = new Requests(10);
  void requests.add(message("a", "late"));
  void requests.add(message("b"));
  const may = (one: Request): boolean => "room" in one && one.room !== "late";
  assert.deepEqual(flushed(requests, 1, may), ["b own-b"]);
  assert.deepEqual(flushed(requests, 1), ["a own-a"]);
});

test("what the codec cannot say is refused, and stops nothing else", async () => {
  const requests = new Requests(10);
  const refused = assert.rejects(requests.add(message("a")), { code: "encoding" });
  void requests.add(message("b"));
  const sent: string[] = [];
  requests.flush(1, always, ({ id }) => {
    if (id === "a") throw new TypeError("no");
    sent.push(id);
  });
  await refused;
  assert.deepEqual(sent, ["b"]);
});

test("answers without an id are known by their type and room; an error by its id", async () => {
  const requests = new Requests(10);
  const presence = requests.add({ type: "presence", room: "r", id: "p" });
  const failed = assert.rejects(requests.add(message("a")), { code: "overloaded", temporary: true, msgId: "own-a" });
  flushed(requests, 1);
  assert.ok(!requests.answer({ type: "presence", room: "other", users: [], count: 0 }));
  assert.ok(requests.answer({ type: "presence", room: "r", users: ["u"], count: 1 }));
  assert.ok(requests.fail("a", "overloaded", "slow down", true));
  assert.ok(!requests.fail(undefined, "x", "x"));
  assert.deepEqual(await presence, { type: "presence", room: "r", users: ["u"], count: 1 });
  await failed;
});

test("leaving a room rejects what waits for it, and nothing else", async () => {
  const requests = new Requests(10);
  const left = assert.rejects(requests.add(message("a", "left")), { code: "left" });
  void requests.add(message("b"));
  requests.failAll((one) => "room" in one && one.room === "left", new WsfleetError("left", "it was left"));
  await left;
  assert.deepEqual(flushed(requests, 1), ["b own-b"]);
});

test("the pace lets a second's messages through at once, then one after the other", () => {
  const pace = new Pace();
  pace.reset(50, 0);
  const taken = (now: number): number => {
    let count = 0;
    while (pace.take(now)) count++;
    return count;
  };
  assert.equal(taken(0), 50);
  assert.equal(pace.wait(), 20);
  assert.equal(taken(20), 1);
  assert.equal(taken(1_020), 50);
  assert.equal(taken(100_000), 50);
  pace.reset(0, 0);
  assert.ok(pace.take(0) && pace.take(0));
});

test("a token is asked for before it ends, at most every five seconds, and a text is for ever", async () => {
  const now = 1_000_000;
  const tokens = new Tokens(() => ({ token: "t", expiresAt: now + 60_000 }), 30_000);
  assert.equal(await tokens.get(now), "t");
  assert.equal(tokens.refreshAt, now + 30_000);
  tokens.until(now - 1, now);
  assert.equal(tokens.refreshAt, now + 5_000);
  tokens.until(null, now);
  assert.equal(tokens.refreshAt, Infinity);
  const fixed = new Tokens("t", 30_000);
  assert.equal(await fixed.get(now), "t");
  fixed.until(now + 60_000, now);
  assert.equal(fixed.refreshAt, Infinity);
});
