/** Debian's Chromium, headless, and the chat page of `examples/chat`. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { chromium, type BrowserContextOptions, type Page } from "playwright-core";
import { end, REPOSITORY } from "./gateway.js";

/** The browser: where CHROMIUM says, else where Debian's package puts it. */
const PROGRAM = process.env["CHROMIUM"] ?? "/usr/bin/chromium";

/** The server of the page; its end is the test's. */
async function serve(t: TestContext): Promise<string> {
  const program = join(REPOSITORY, "examples/chat/serve.js");
  const child = spawn(process.execPath, [program, "0"], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => end(child));
  for await (const line of child.stdout) return String(line).trim();
  throw new Error("the page's server says no address");
}

/** Opens pages of one Chromium, which ends with the test; each is a visitor of its own. An error in a page fails the test. */
export async function visit(t: TestContext): Promise<(query: string, how?: BrowserContextOptions) => Promise<Page>> {
  if (!existsSync(PROGRAM))
    throw new Error(`there is no ${PROGRAM}: run tests/cluster/deps.sh client, or set CHROMIUM`);
  const address = await serve(t);
  // root, as in a container, has no sandbox; shared memory is small there, too
  const args = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"];
  const browser = await chromium.launch({ executablePath: PROGRAM, args });
  const errors: Error[] = [];
  t.after(async () => {
    await browser.close();
    if (errors.length > 0) throw new AggregateError(errors, "a page had errors");
  });
  return async (query, how) => {
    const page = await (await browser.newContext(how)).newPage();
    page.on("pageerror", (error) => errors.push(error));
    await page.goto(`${address}?${query}`);
    return page;
  };
}

/** A visitor of the chat page who takes these gateways in turn. */
export function as(name: string, room: string, gateways: { url: string }[]): string {
  const query = new URLSearchParams({ name, room });
  for (const { url } of gateways) query.append("gateway", url);
  return query.toString();
}

/** What the page shows: each message's offset and text, in order. */
export function shown(page: Page): Promise<{ offset: number; text: string }[]> {
  return page.$$eval("#messages li[data-offset]", (lines) =>
    lines.map((line) => ({
      offset: Number((line as HTMLElement).dataset["offset"]),
      text: line.querySelector(".text")?.textContent ?? "",
    })),
  );
}
