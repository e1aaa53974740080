import assert from "node:assert/strict";
import { test } from "node:test";
import type { Joined, RoomMessage } from "../src/messages.js";
import { Stream } from "../src/stream.js";

/** A stream, and what it passed on, in short. */
function stream(): { stream: Stream<RoomMessage>; seen: string[] } {
  const seen: string[] = [];
  return {
    seen,
    stream: new Stream({
      message: ({ offset }) => seen.push(`${offset}`),
      gap: ({ from, to }) => seen.push(`gap ${from}-${to}`),
      unrecovered: ({ reason, from, to }) => seen.push(from === undefined ? reason : `${reason} ${from}-${to}`),
    }),
  };
}

const joined = (offset: number, more: Partial<Joined> = {}): Joined => ({
  type: "joined",
  room: "r",
  epoch: "e",
  offset,
  ...more,
});

const message = (offset: number): RoomMessage => ({
  type: "room_message",
  roomId: "r",
  userId: "u",
  payload: null,
  timestamp: 0,
  serverId: "s",
  offset,
});

test("messages after the position are passed on once", () => {
  const { stream: one, seen } = stream();
  one.joined(joined(5), 1);
  for (const offset of [5, 6, 7, 7, 6, 8]) one.message(message(offset), 1);
  assert.deepEqual(seen, ["6", "7", "8"]);
  assert.deepEqual(one.position, { epoch: "e", offset: 8 });
});

test("a hole that nobody announced is told", () => {
  const { stream: one, seen } = stream();
  one.joined(joined(0), 1);
  one.message(message(1), 1);
  one.message(message(4), 1);
  assert.deepEqual(seen, ["1", "gap 2-3", "4"]);
});

test("an announced gap is told once, and only what was not received", () => {
  const { stream: one, seen } = stream();
  one.joined(joined(0), 1);
  one.message(message(1), 1);
  const gap = { type: "gap", room: "r", from: 1, to: 3, epoch: "e" } as const;
  one.gap(gap, 1);
  one.gap(gap, 1);
  one.message(message(4), 1);
  assert.deepEqual(seen, ["1", "gap 2-3", "4"]);
});

test("a gap of another epoch is the beginning of another stream", () => {
  const { stream: one, seen } = stream();
  one.joined(joined(7), 1);
  one.gap({ type: "gap", room: "r", from: 1, to: 2, epoch: "f" }, 1);
  one.message(message(3), 1);
  assert.deepEqual(seen, ["epoch_changed", "3"]);
  assert.deepEqual(one.position, { epoch: "f", offset: 3 });
});

test("recovered: what was missed follows, and nothing is told as lost", () => {
  const { stream: one, seen } = stream();
  one.joined(joined(3), 1);
  one.ended(1);
  one.joined(joined(5, { recovered: true }), 2);
  for (const offset of [4, 5, 6]) one.message(message(offset), 2);
  assert.deepEqual(seen, ["4", "5", "6"]);
});

test("not recovered: what is missing is told, with the reason", () => {
  for (const reason of ["too_old", "limit"]) {
    const { stream: one, seen } = stream();
    one.joined(joined(3), 1);
    one.ended(1);
    one.joined(joined(9, { recovered: false, reason }), 2);
    one.message(message(10), 2);
    assert.deepEqual(seen, [`${reason} 4-9`, "10"]);
  }
});

test("a gateway that cannot resume loses nothing when nothing was sent", () => {
  const { stream: one, seen } = stream();
  one.joined(joined(3), 1);
  one.ended(1);
  one.joined(joined(3), 2);
  one.message(message(4), 2);
  one.ended(2);
  one.joined(joined(6), 3);
  assert.deepEqual(seen, ["4", "unsupported 5-6"]);
});

test("another epoch is another stream: its offsets begin anew, the old link's word does not count", () => {
  const { stream: one, seen } = stream();
  one.joined(joined(30), 1);
  one.joined(joined(1, { epoch: "f" }), 2);
  one.message(message(31), 1);
  one.message(message(2), 2);
  assert.deepEqual(seen, ["epoch_changed", "2"]);
});

test("another epoch that goes on with what is known here is told as nothing", () => {
  const { stream: one, seen } = stream();
  one.joined(joined(4), 1);
  one.message(message(5), 1);
  one.joined(joined(8, { epoch: "f", recovered: true }), 2);
  one.message(message(6), 1);
  for (const offset of [6, 7, 8, 9]) one.message(message(offset), 2);
  assert.deepEqual(seen, ["5", "6", "7", "8", "9"]);
  assert.deepEqual(one.position, { epoch: "f", offset: 9 });
});

test("offsets that went back in the same epoch begin anew where the gateway says", () => {
  const { stream: one, seen } = stream();
  one.joined(joined(9), 1);
  one.ended(1);
  one.joined(joined(4, { recovered: false, reason: "epoch_changed" }), 2);
  one.message(message(5), 2);
  assert.deepEqual(seen, ["epoch_changed", "5"]);
  assert.deepEqual(one.position, { epoch: "e", offset: 5 });
});

test("while the client moves, the new link waits for what only the old one has", () => {
  const { stream: one, seen } = stream();
  one.joined(joined(3), 1);
  one.joined(joined(5), 2);
  one.message(message(6), 2);
  assert.deepEqual(seen, []);
  assert.equal(one.settled, false);
  one.message(message(4), 1);
  one.message(message(5), 1);
  assert.equal(one.settled, true);
  one.message(message(6), 1);
  one.message(message(7), 2);
  assert.deepEqual(seen, ["4", "5", "6", "7"]);
});

test("what the old link did not bring before it ended is told", () => {
  const { stream: one, seen } = stream();
  one.joined(joined(3), 1);
  one.joined(joined(6), 2);
  one.message(message(7), 2);
  one.message(message(4), 1);
  one.ended(1);
  assert.deepEqual(seen, ["4", "unsupported 5-6", "7"]);
});

test("what waits while the client moves is bounded", () => {
  const { stream: one, seen } = stream();
  one.joined(joined(0), 1);
  one.joined(joined(1), 2);
  for (let offset = 2; offset < 1_500; offset++) one.message(message(offset), 2);
  assert.equal(one.settled, true);
  assert.equal(seen.length, 1_499);
  assert.equal(seen[0], "unsupported 1-1");
});

test("messages of rooms without history have no offset: one link's are passed on", () => {
  const { stream: one, seen } = stream();
  one.joined(joined(0), 1);
  one.message(message(0), 1);
  one.joined(joined(0), 2);
  one.message(message(0), 1);
  one.message(message(0), 2);
  assert.deepEqual(seen, ["0", "0"]);
});

test("however two links are interleaved, each offset comes once and in order", () => {
  let state = 7;
  const random = (below: number): number => (state = (state * 48_271) % 2_147_483_647) % below;
  for (let round = 0; round < 2_000; round++) {
    const { stream: one, seen } = stream();
    const last = 20;
    const from = random(10);
    one.joined(joined(0), 1);
    // each link brings its messages in order; the new one begins at a place of its own, or recovers from the client's
    const recovered = random(2) === 0;
    let onOld = 1;
    for (let before = random(from + 1); before > 0; before--) one.message(message(onOld++), 1);
    const told = one.position?.offset ?? 0;
    one.joined(joined(Math.max(from, told), recovered ? { recovered } : {}), 2);
    let onNew = (recovered ? told : Math.max(from, told)) + 1;
    while (onOld <= last || onNew <= last) {
      if (onNew > last || (onOld <= last && random(2) === 0)) one.message(message(onOld++), 1);
      else one.message(message(onNew++), 2);
    }
    const all = Array.from({ length: last }, (_, index) => `${index + 1}`);
    assert.deepEqual(seen, all, `round ${round}`);
  }
});

test("what a link brings before the stream's position on it is known is passed over: it comes again behind that", () => {
  const { stream: one, seen } = stream();
  one.joined(joined(4), 1);
  one.ended(1);
  one.message(message(6), 2);
  one.joined(joined(6, { recovered: true }), 2);
  for (const offset of [5, 6, 7]) one.message(message(offset), 2);
  assert.deepEqual(seen, ["5", "6", "7"]);
});
