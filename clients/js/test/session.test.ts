import assert from "node:assert/strict";
import { test } from "node:test";
import { Session, type Effect } from "../src/session.js";

const TIMING = {
  backoff: { min: 1_000, max: 30_000, window: 5_000 },
  connectTimeout: 10_000,
  pongTimeout: 10_000,
};
const PING = 30_000;
const half = (): number => 0.5;

/** What is to be done, in short. */
function brief(effects: Effect[]): string[] {
  return effects.map((effect) => {
    switch (effect.do) {
      case "state":
        return [effect.change.state, effect.change.code, effect.change.delay]
          .filter((part) => part !== undefined)
          .join(" ");
      case "adopt":
        return `adopt ${effect.link}`;
      case "close":
        return `close ${effect.link} ${effect.code}`;
      default:
        return `${effect.do} ${effect.link}`;
    }
  });
}

/** One that is open on link 1 at time 0, with nothing left to do. */
function open(): Session {
  const session = new Session(TIMING, half);
  session.start(0);
  session.welcomed(1, PING, 0);
  session.take();
  return session;
}

test("it connects, is open with the welcome, and closes when asked", () => {
  const session = new Session(TIMING, half);
  assert.equal(session.state, "closed");
  session.start(0);
  assert.deepEqual(brief(session.take()), ["connecting", "open 1"]);
  session.welcomed(1, PING, 20);
  assert.deepEqual(brief(session.take()), ["adopt 1", "open"]);
  session.stop();
  assert.deepEqual(brief(session.take()), ["close 1 1000", "lost 1", "closed 1000"]);
  assert.equal(session.wakeup(), Infinity);
});

test("started twice it connects once; closed, it can begin again", () => {
  const session = new Session(TIMING, half);
  session.start(0);
  session.start(1);
  assert.equal(session.take().filter((effect) => effect.do === "open").length, 1);
  session.stop();
  session.take();
  session.start(2);
  assert.deepEqual(brief(session.take()), ["connecting", "open 2"]);
});

test("failed connects back off from one bound to the next", () => {
  const session = new Session(TIMING, half);
  session.start(0);
  const delays: number[] = [];
  let now = 0;
  for (let link = 1; link <= 8; link++) {
    session.ended(link, 1006, "", now);
    delays.push(session.wakeup() - now);
    now = session.wakeup();
    session.tick(now - 1);
    assert.ok(!brief(session.take()).includes(`open ${link + 1}`), "not before its time");
    session.tick(now);
    assert.deepEqual(brief(session.take()), [`open ${link + 1}`]);
  }
  assert.deepEqual(delays, [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000]);
});

test("failures count on over connections that end at once, and are forgotten by one that held", () => {
  const session = open();
  session.ended(1, 1006, "", 100);
  assert.equal(session.wakeup(), 600);
  session.tick(600);
  session.welcomed(2, PING, 650);
  session.ended(2, 1006, "", 700);
  assert.equal(session.wakeup(), 1_700);
  session.tick(1_700);
  session.welcomed(3, PING, 1_700);
  session.ended(3, 1006, "", 20_000);
  assert.equal(session.wakeup(), 20_500);
});

test("a terminal code is the end, and is told with its reason", () => {
  const session = open();
  session.ended(1, 4001, "Unauthorized", 5);
  assert.deepEqual(session.take(), [
    { do: "lost", link: 1 },
    { do: "state", change: { state: "closed", code: 4001, reason: "Unauthorized" } },
  ]);
  session.tick(1e9);
  assert.deepEqual(session.take(), []);
});

test("told of a drain it opens the next connection at its own time, and only then lets go of the old one", () => {
  const session = open();
  session.shutdown(1, 7_000, null, 1_000);
  session.tick(7_999);
  assert.deepEqual(session.take(), []);
  session.tick(8_000);
  assert.deepEqual(brief(session.take()), ["open 2"]);
  session.welcomed(2, PING, 8_100);
  assert.deepEqual(brief(session.take()), ["adopt 2"]);
  assert.equal(session.state, "open");
  session.released();
  assert.deepEqual(brief(session.take()), ["close 1 1000", "lost 1"]);
  assert.equal(session.current, 2);
});

test("it does not wait beyond the deadline, if that is not of a clock that differs", () => {
  const session = open();
  session.shutdown(1, 7_000, 3_000, 1_000);
  assert.equal(session.wakeup(), 3_000);
  session.shutdown(1, 7_000, 500, 1_000);
  assert.equal(session.wakeup(), 8_000);
});

test("closed before its time it keeps to that time, however it was closed", () => {
  for (const code of [1012, 1001, 1006]) {
    const session = open();
    session.shutdown(1, 7_000, null, 1_000);
    session.ended(1, code, "", 2_000);
    assert.deepEqual(brief(session.take()), ["lost 1", `reconnecting ${code} 6000`]);
    assert.equal(session.wakeup(), 8_000);
  }
});

test("while the next connection cannot be had the old one stays in use", () => {
  const session = open();
  session.shutdown(1, 1_000, null, 0);
  session.tick(1_000);
  session.ended(2, 1006, "", 1_010);
  assert.equal(session.state, "open");
  assert.equal(session.current, 1);
  session.ended(1, 1012, "", 1_100);
  assert.deepEqual(brief(session.take()), ["open 2", "lost 1", "reconnecting 1012 410"]);
  session.tick(1_510);
  session.welcomed(3, PING, 1_520);
  assert.deepEqual(brief(session.take()), ["open 3", "adopt 3", "open"]);
});

test("an old connection that ends by itself is lost, not closed", () => {
  const session = open();
  session.shutdown(1, 0, null, 0);
  session.tick(0);
  session.welcomed(2, PING, 10);
  session.take();
  session.ended(1, 1012, "", 20);
  assert.deepEqual(brief(session.take()), ["lost 1"]);
  assert.equal(session.state, "open");
});

test("an old connection is not read for ever", () => {
  const session = open();
  session.shutdown(1, 0, null, 0);
  session.tick(0);
  session.welcomed(2, PING, 10);
  session.take();
  session.tick(10_009);
  assert.deepEqual(session.take(), []);
  session.tick(10_010);
  assert.deepEqual(brief(session.take()), ["close 1 1000", "lost 1"]);
});

test("a connection that is not welcomed in time is given up", () => {
  const session = new Session(TIMING, half);
  session.start(0);
  session.take();
  session.tick(10_000);
  assert.deepEqual(brief(session.take()), ["close 1 1000", "reconnecting 1006 500"]);
});

test("silence is answered with a ping, more silence with another connection soon", () => {
  const session = open();
  session.heard(1, 5_000);
  assert.equal(session.wakeup(), 35_000);
  session.tick(35_000);
  assert.deepEqual(brief(session.take()), ["ping 1"]);
  session.heard(1, 36_000);
  assert.equal(session.wakeup(), 66_000);
  session.tick(66_000);
  assert.deepEqual(brief(session.take()), ["ping 1"]);
  session.tick(76_000);
  assert.deepEqual(brief(session.take()), ["close 1 1000", "lost 1", "reconnecting 4201 2500"]);
});

test("what an ended link brings late changes nothing", () => {
  const session = open();
  session.ended(1, 1006, "", 10);
  session.take();
  session.welcomed(1, PING, 11);
  session.shutdown(1, 0, null, 12);
  session.ended(1, 4001, "", 13);
  assert.deepEqual(session.take(), []);
  assert.equal(session.state, "reconnecting");
});
