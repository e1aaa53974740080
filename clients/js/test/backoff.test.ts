import assert from "node:assert/strict";
import { test } from "node:test";
import { delay, fullJitter, type Backoff } from "../src/backoff.js";
import { advice, type Advice } from "../src/close.js";

const BOUNDS: Backoff = { min: 1_000, max: 30_000, window: 5_000 };
const least = (): number => 0;
const most = (): number => 0.999_999;
const ended = { code: 1006, failures: 0, now: 50_000, told: undefined };

test("each close code says what the client does, as the gateway's own table has it", () => {
  const table: [Advice, number[]][] = [
    ["stop", [1000, 1002, 1003, 1007, 1008, 1009, 1010, 3000, 4000, 4001, 4003, 4005, 4008, 4010, 4099, 4300]],
    ["own", [1001, 1012]],
    ["overload", [1013]],
    ["cut", [1005, 1006, 1011, 1014, 1015]],
    ["backoff", [4100, 4101, 4102, 4103, 4104, 4199]],
    ["soon", [4200, 4201, 4202, 4203, 4299]],
  ];
  for (const [expected, codes] of table) {
    for (const code of codes) assert.equal(advice(code), expected, `${code}`);
  }
});

test("full jitter is from zero to a bound that doubles up to the last one", () => {
  for (const [failures, bound] of [1, 2, 4, 8, 16, 30, 30, 30].entries()) {
    assert.equal(fullJitter(failures, BOUNDS, least), 0);
    assert.equal(Math.ceil(fullJitter(failures, BOUNDS, most)), bound * 1_000);
  }
  assert.ok(fullJitter(1e9, BOUNDS, most) <= 30_000);
});

test("the first retry after a cut is jittered, too", () => {
  const delays = [0.1, 0.5, 0.9].map((random) => delay(ended, BOUNDS, () => random));
  assert.deepEqual(delays, [100, 500, 900]);
});

test("after 41xx nobody comes back within a second, or waits longer than the last bound", () => {
  assert.equal(delay({ ...ended, code: 4102 }, BOUNDS, least), 1_000);
  assert.equal(delay({ ...ended, code: 4102, failures: 20 }, BOUNDS, most), 30_000);
});

test("terminal codes are the end", () => {
  for (const code of [1000, 1008, 4001, 4010]) assert.equal(delay({ ...ended, code }, BOUNDS, most), undefined);
});

test("42xx come back at a random time within the window, whatever failed before", () => {
  const one = { ...ended, code: 4202, failures: 9 };
  assert.equal(delay(one, BOUNDS, least), 0);
  assert.equal(
    delay(one, BOUNDS, () => 0.5),
    2_500,
  );
});

test("a drained client keeps to its own time; without one, or after it, it comes within the window", () => {
  const one = { ...ended, code: 1012 };
  assert.equal(delay({ ...one, told: 57_000 }, BOUNDS, least), 7_000);
  assert.equal(
    delay(one, BOUNDS, () => 0.5),
    2_500,
  );
  assert.equal(
    delay({ ...one, told: 49_000 }, BOUNDS, () => 0.5),
    2_500,
  );
});

test("after 1013 it waits at least as long as told", () => {
  const one = { ...ended, code: 1013 };
  assert.equal(delay({ ...one, told: 90_000 }, BOUNDS, least), 40_000);
  assert.equal(delay(one, BOUNDS, least), 1_000);
});
