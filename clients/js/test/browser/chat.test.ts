/** The chat page in real Chromium: gateways are drained, killed and stopped under it, and it misses and doubles nothing. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Page } from "playwright-core";
import { as, shown, visit } from "../support/browser.js";
import { flow, joined, upTo } from "../support/flow.js";
import { connected, Gateway, redis } from "../support/gateway.js";
import { until } from "../support/wait.js";

const text = (page: Page, id: string): Promise<string | null> => page.textContent(`#${id}`);

/** Waits until the page shows so many messages more. */
async function more(page: Page, by: number): Promise<void> {
  const before = (await shown(page)).length;
  await until("messages flow", async () => (await shown(page)).length >= before + by);
}

async function say(page: Page, words: string): Promise<void> {
  await page.fill("#say input", words);
  await page.press("#say input", "Enter");
}

/** The page shows all that was sent, once and in order: the numbers up to `count`, and what was typed; says how many. */
async function assertWhole(page: Page, count: number, typed: string[]): Promise<number> {
  const messages = await shown(page);
  assert.deepEqual(
    messages.map(({ offset }) => offset),
    upTo(count + typed.length),
  );
  const texts = messages.map((message) => message.text);
  assert.deepEqual(
    texts.filter((words) => !typed.includes(words)),
    upTo(count).map(String),
  );
  assert.deepEqual(
    texts.filter((words) => typed.includes(words)),
    typed,
  );
  return messages.length;
}

test("a page misses and doubles nothing while its gateways are drained, killed and stopped", async (t) => {
  const url = await redis(t);
  const [one, two] = await Promise.all([Gateway.onRedis(t, url, "one"), Gateway.onRedis(t, url, "two")]);
  const open = await visit(t);
  const page = await open(as("ann", "lobby", [one, two]));
  const on = (id: string): Promise<boolean> => until(`it is on ${id}`, async () => (await text(page, "server")) === id);

  const three = await Gateway.onRedis(t, url, "three");
  const sender = await joined(await connected(t, three, "bob"), "lobby");
  await on("one");
  await until("it is in the room", async () => (await text(page, "people"))?.includes("bob") ?? false);
  const stop = flow((number) => sender.room.send({ text: `${number}` }), 40);
  await more(page, 20);
  await say(page, "before");

  await one.drain("drain");
  await on("two");
  await more(page, 20);
  await one.drain("resume");

  await two.kill();
  await until("it waits", () => page.$('#state:not([data-state="open"])'));
  await say(page, "meanwhile");
  await on("one");
  const again = await Gateway.onRedis(t, url, "two", two.ports);
  await more(page, 20);

  const stopped = one.stop();
  await on("two");
  await more(page, 20);
  await stopped;
  const count = await stop();
  await say(page, "after");
  await until("the last one is there", async () => (await shown(page)).at(-1)?.text === "after");

  const all = await assertWhole(page, count, ["before", "meanwhile", "after"]);
  const counts = await Promise.all(["moves", "reconnects", "lost"].map((id) => text(page, id)));
  assert.deepEqual(counts, ["2", "1", "0"]);
  assert.equal(await again.connections(), 1);
  t.diagnostic(`${all} messages, 2 moves and 1 cut: 0 missed, 0 doubled`);
});

test("two people see each other, and what a stranger sends is text and not HTML", async (t) => {
  const [url, open] = await Promise.all([redis(t), visit(t)]);
  const [one, two] = await Promise.all([Gateway.onRedis(t, url, "gateway-1"), Gateway.onRedis(t, url, "gateway-2")]);
  const look = { viewport: { width: 860, height: 560 }, deviceScaleFactor: 1 };
  const ann = await open(as("ann", "release", [one, two]), look);
  await ann.waitForSelector('#state[data-state="open"]');
  const bob = await open(as("bob", "release", [two, one]), look);
  await until("they see each other", async () => (await text(ann, "people")) === "annbob");

  const said: [Page, string][] = [
    [bob, "Shall we roll the gateways out?"],
    [ann, "Go on, I keep typing."],
    [bob, "<b onclick=alert(1)>Draining</b> the first one now."],
    [ann, "Moved, and nothing is missing."],
    [bob, "That was all of it."],
  ];
  for (const [index, [page, words]] of said.entries()) {
    if (index === 3) {
      await one.drain("drain");
      await until("ann has moved", async () => (await text(ann, "server")) === "gateway-2");
    }
    await say(page, words);
    for (const each of [ann, bob]) await until("it is there", async () => (await shown(each)).length === index + 1);
  }
  for (const page of [ann, bob]) {
    assert.deepEqual(
      (await shown(page)).map((message) => message.text),
      said.map(([, words]) => words),
    );
    assert.equal(await page.$("#messages b"), null);
  }
  // the picture of the README: SCREENSHOT=docs/img/chat.png
  const path = process.env["SCREENSHOT"];
  if (path !== undefined) await ann.screenshot({ path });
});

test("without a name the page asks for one", async (t) => {
  const gateway = await Gateway.start(t);
  const page = await (await visit(t))("");
  await page.fill("[name=name]", "eve");
  await page.fill("[name=gateway]", gateway.url);
  await page.click("dialog button");
  await page.waitForSelector('#state[data-state="open"]');
  assert.equal(await text(page, "people"), "eve");
  assert.equal(await text(page, "room"), "lobby");
});
