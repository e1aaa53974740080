/** The real gateway as a process: in memory, or on a Redis of its own. */
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { TestContext } from "node:test";
import { WebSocket } from "ws";
import { Client, type Options } from "../../src/index.js";
import { until } from "./wait.js";

/** The repository, seen from build/test/support. */
export const REPOSITORY = resolve(import.meta.dirname, "../../../../..");
/** `?token=abc` is user `user_abc`, and one address may connect as often as it likes. */
export const OPEN = [
  "--auth",
  "insecure-token",
  "--limit",
  "connectionsPerIp=0",
  "--limit",
  "handshakesPerSecondPerIp=0",
];

let built: string | undefined;

/** The program: where WSFLEET_PROGRAMS says, else built first. */
function program(): string {
  const folder = process.env["WSFLEET_PROGRAMS"];
  if (folder === undefined && built === undefined) {
    const cargo = spawnSync("cargo", ["build", "--quiet", "--package", "wsfleet-gateway"], {
      cwd: REPOSITORY,
      stdio: ["ignore", "inherit", "inherit"],
    });
    if (cargo.status !== 0) throw new Error("the gateway does not build");
    built = process.env["CARGO_TARGET_DIR"] ?? join(REPOSITORY, "target");
  }
  const path = join(folder ?? join(built ?? "", "debug"), "wsfleet-gateway");
  if (!existsSync(path)) throw new Error(`${path} is not there`);
  return path;
}

/** So many ports that are free now; held together, so that they differ. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  await Promise.all(servers.map((server) => new Promise<void>((done) => server.listen(0, "127.0.0.1", done))));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((done) => server.close(done))));
  return ports;
}

/** Ends a process at once, and awaits that. */
export async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((done) => child.once("exit", done));
  child.kill("SIGKILL");
  await gone;
}

/** Whether a server answers 200. */
async function answers(url: string, body?: string): Promise<boolean> {
  const answer = await fetch(url).catch(() => undefined);
  const text = await answer?.text();
  return answer?.status === 200 && (body === undefined || text?.trim() === body);
}

/** The clients' and the admin's port. */
export type Ports = [clients: number, admin: number];

export class Gateway {
  readonly ports: Ports;
  readonly #child: ChildProcess;
  #drains = 0;

  private constructor(child: ChildProcess, ports: Ports) {
    this.#child = child;
    this.ports = ports;
  }

  /** Starts one with these flags; the test's end is its own. */
  static async start(t: TestContext, flags: string[] = OPEN, ports?: Ports): Promise<Gateway> {
    const [clients = 0, admin = 0] = ports ?? (await freePorts(2));
    const listen = ["--listen", `127.0.0.1:${clients}`, "--admin-listen", `127.0.0.1:${admin}`];
    const all = [...listen, "--api-listen", "127.0.0.1:0", "--log-filter", "error", ...flags];
    const child = spawn(program(), all, { stdio: ["ignore", "inherit", "inherit"] });
    const gateway = new Gateway(child, [clients, admin]);
    t.after(() => end(child));
    await until("the gateway relies on its broker", async () => {
      if (child.exitCode !== null) throw new Error(`the gateway ended with ${child.exitCode}`);
      return (await answers(`http://127.0.0.1:${admin}/readyz`, "ok")) && answers(`${gateway.http}/healthz`);
    });
    return gateway;
  }

  /** One on this Redis. */
  static onRedis(t: TestContext, url: string, id: string, ports?: Ports): Promise<Gateway> {
    return Gateway.start(t, [...OPEN, "--broker", url, "--server-id", id], ports);
  }

  get http(): string {
    return `http://127.0.0.1:${this.ports[0]}`;
  }

  get url(): string {
    return `ws://127.0.0.1:${this.ports[0]}/ws`;
  }

  /** Cut off, without a word. */
  kill(): Promise<void> {
    return end(this.#child);
  }

  /** Asked to stop, as by Kubernetes: it drains first. */
  async stop(): Promise<void> {
    const gone = new Promise((done) => this.#child.once("exit", done));
    this.#child.kill("SIGTERM");
    await gone;
  }

  /** Steers it by its admin API. */
  async drain(mode: "drain" | "resume", reconnectWindowSeconds = 2): Promise<void> {
    const drainId = mode === "drain" ? `d${++this.#drains}` : `d${this.#drains}`;
    const body = { drainId, epoch: 1, mode, ratePerSecond: 100, reconnectWindowSeconds };
    const answer = await fetch(`http://127.0.0.1:${this.ports[1]}/admin/v1/drain`, {
      method: "PUT",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    if (!answer.ok) throw new Error(await answer.text());
  }

  /** A metric's sum over its series whose labels have this text. */
  async metric(name: string, label: string): Promise<number> {
    const text = await (await fetch(`http://127.0.0.1:${this.ports[1]}/metrics`)).text();
    const lines = text.split("\n").filter((line) => line.startsWith(`${name}{`) && line.includes(label));
    return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
  }

  /** How many sockets it holds. */
  connections(): Promise<number> {
    return this.metric("ws_active_connections", "");
  }
}

/** Whether somebody accepts connections there. */
function listens(port: number): Promise<boolean> {
  return new Promise((done) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("error", () => {
      done(false);
    });
    socket.once("connect", () => {
      socket.destroy();
      done(true);
    });
  });
}

/** A Redis of the test's own. */
export async function redis(t: TestContext): Promise<string> {
  const [port = 0] = await freePorts(1);
  const directory = mkdtempSync(join(tmpdir(), "wsfleet-js-"));
  const flags = ["--port", `${port}`, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory];
  const child = spawn("redis-server", flags, { stdio: "ignore" });
  t.after(async () => {
    await end(child);
    rmSync(directory, { recursive: true });
  });
  await until("Redis listens", () => listens(port));
  return `redis://127.0.0.1:${port}`;
}

/** A client of the test's own, not connected. */
export function client(t: TestContext, options: Options): Client {
  const client = new Client({ WebSocket, ...options });
  t.after(() => {
    client.close();
  });
  return client;
}

/** A client that is connected as this user. */
export async function connected(
  t: TestContext,
  gateway: { url: string },
  user: string,
  options: Partial<Options> = {},
): Promise<Client> {
  const one = client(t, { url: gateway.url, token: user, ...options });
  one.connect();
  await until(`${user} is connected`, () => one.state === "open");
  return one;
}
