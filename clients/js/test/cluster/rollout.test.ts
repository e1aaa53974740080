/**
 * The chat page in real Chromium while a fleet on Kubernetes is rolled out. The fleet is there already: `tests/tests/scenario_browser.rs`
 * makes it, and says where it is.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";
import { as, shown, visit } from "../support/browser.js";
import { flow, joined, upTo } from "../support/flow.js";
import { connected } from "../support/gateway.js";
import { until } from "../support/wait.js";

/** A setting that the scenario gives. */
function given(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`set ${name}; scenario_browser does`);
  return value;
}

/** What of the resource's status is looked at. */
interface Status {
  currentRevision: string;
  updateRevision: string;
  replicas: number;
  acceptingReplicas: number;
}

/** As a person would: kubectl on the fleet's resource. */
async function kubectl(...args: string[]): Promise<string> {
  const namespace = ["--namespace", given("WSFLEET_NAMESPACE")];
  return (await promisify(execFile)(given("KUBECTL"), [...namespace, ...args])).stdout;
}

async function status(): Promise<Status> {
  const resource = JSON.parse(await kubectl("get", "websocketcluster", "chat", "-o", "json")) as { status: Status };
  return resource.status;
}

test("a page goes through a rollout and misses and doubles nothing", async (t) => {
  const gateway = { url: given("WSFLEET_URL") };
  const page = await (await visit(t))(as("ann", "lobby", [gateway]), { viewport: { width: 860, height: 560 } });
  const text = (id: string): Promise<string | null> => page.textContent(`#${id}`);
  const more = async (by: number): Promise<void> => {
    const before = (await shown(page)).length;
    await until("messages flow", async () => (await shown(page)).length >= before + by);
  };
  await page.waitForSelector('#state[data-state="open"]');
  const sender = await joined(await connected(t, gateway, "bob"), "lobby");
  await until("they see each other", async () => (await text("people"))?.includes("bob") ?? false);
  const first = await text("server");
  const stop = flow((number) => sender.room.send({ text: `${number}` }), 20);
  await more(20);

  const before = (await status()).updateRevision;
  const patch = { spec: { template: { metadata: { annotations: { "example.com/build": "2" } } } } };
  await kubectl("patch", "websocketcluster", "chat", "--type", "merge", "--patch", JSON.stringify(patch));
  const done = async (): Promise<boolean> => {
    const now = await status();
    const whole = now.replicas === 2 && now.acceptingReplicas === 2;
    return now.updateRevision !== before && now.currentRevision === now.updateRevision && whole;
  };
  await until("every gateway is of the new revision", done, 300_000);
  await more(20);
  const count = await stop();
  await until("the last one is there", async () => (await shown(page)).at(-1)?.text === `${count}`);

  const messages = await shown(page);
  assert.deepEqual(
    messages.map((message) => message.text),
    upTo(count).map(String),
  );
  assert.deepEqual(
    messages.map(({ offset }) => offset),
    upTo(count),
  );
  assert.deepEqual(
    sender.seen,
    upTo(count).map((number) => ({ text: `${number}` })),
  );
  const [last, moves, reconnects, lost] = await Promise.all(["server", "moves", "reconnects", "lost"].map(text));
  assert.notEqual(last, first, "the gateway that it was on is gone");
  assert.deepEqual([lost, reconnects], ["0", "0"]);
  await page.screenshot({ path: given("SCREENSHOT") });
  t.diagnostic(`${count} messages, from ${first} to ${last}, ${moves} moves: 0 missed, 0 doubled`);
});
