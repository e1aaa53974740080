/**
 * The state machine of a client's connections, without any I/O: inputs are calls with the time they happen at, outputs
 * are effects. There is one connection in use (`current`), at times one that is being opened (`next`), and while the
 * client moves to another gateway the one it comes from (`old`).
 */
import { delay, type Backoff } from "./backoff.js";
import { advice } from "./close.js";

/** What a client is doing. */
export type State = "connecting" | "open" | "reconnecting" | "closed";

/** The state is another, or it is `reconnecting` and waits anew. */
export interface StateChange {
  state: State;
  /** Close code of the connection that ended. */
  code?: number;
  /** Why it ended, for people. */
  reason?: string;
  /** Milliseconds until the next try. */
  delay?: number;
}

/** What is to be done. Links are numbers, from 1. */
export type Effect =
  | { do: "open"; link: number }
  /** Close it; nothing of it is looked at any more. */
  | { do: "close"; link: number; code: number; reason: string }
  | { do: "ping"; link: number }
  /** From now on everything is sent on `link`; `old` is still read until it is released. */
  | { do: "adopt"; link: number }
  /** Nothing will come from it any more. */
  | { do: "lost"; link: number }
  | { do: "state"; change: StateChange };

/** Times in milliseconds. */
export interface Timing {
  backoff: Backoff;
  /** For a connection to be welcomed. */
  connectTimeout: number;
  /** For any message after a ping. */
  pongTimeout: number;
}

/** For how long a connection must have been good for its failures to be forgotten. */
const STABLE = 10_000;
/** For how long a connection that was replaced is read, at most. */
const HANDOVER = 10_000;
/** RFC 6455 §7.4: asked for. */
const NORMAL = 1000;
const ABNORMAL = 1006;
/** Of the gateway's own: no answer to a ping. */
const NO_PONG = 4201;

interface Link {
  id: number;
  /** When it was opened, welcomed, or replaced. */
  since: number;
  /** The last message. */
  heard: number;
  /** Silence after which it is pinged. */
  pingAfter: number;
  /** When it was pinged, unless something came since. */
  pinged?: number | undefined;
}

export class Session {
  state: State = "closed";
  readonly #timing: Timing;
  readonly #random: () => number;
  #effects: Effect[] = [];
  #links = 0;
  #failures = 0;
  #current: Link | undefined;
  #next: Link | undefined;
  #old: Link | undefined;
  /** When the next connection is to be opened. */
  #openAt: number | undefined;
  /** What brings it back to the gateway of a link, where a proxy heeds it. */
  #routing: { token: string; link: number } | undefined;
  /** When the gateway asked this client to reconnect. */
  #told: number | undefined;

  constructor(timing: Timing, random: () => number) {
    this.#timing = timing;
    this.#random = random;
  }

  /** The link in use. */
  get current(): number | undefined {
    return this.#current?.id;
  }

  /** The link that is being left. */
  get old(): number | undefined {
    return this.#old?.id;
  }

  /** What the next connection says about where it comes from. */
  get routing(): string | undefined {
    return this.#routing?.token;
  }

  /** Effects since the last call, in order. */
  take(): Effect[] {
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  /** Connects, unless it has begun already. */
  start(now: number): void {
    if (this.state !== "closed") return;
    this.#failures = 0;
    this.#change({ state: "connecting" });
    this.#open(now);
  }

  /** Closes everything, for good. */
  stop(code = NORMAL, reason = ""): void {
    if (this.state === "closed") return;
    for (const link of [this.#next, this.#old, this.#current]) {
      if (link) this.#close(link.id, NORMAL, "");
    }
    this.#next = this.#old = this.#current = this.#openAt = this.#told = undefined;
    this.#change({ state: "closed", code, reason });
  }

  /** Something came. */
  heard(id: number, now: number): void {
    for (const link of [this.#next, this.#old, this.#current]) {
      if (link?.id !== id) continue;
      link.heard = now;
      link.pinged = undefined;
    }
  }

  /** The gateway's first message on a link. */
  welcomed(id: number, pingInterval: number, now: number): void {
    if (this.#next?.id !== id) return;
    const old = this.#current;
    if (this.#old) this.released();
    this.#current = { ...this.#next, since: now, heard: now, pingAfter: pingInterval };
    this.#next = this.#openAt = this.#told = undefined;
    if (old) this.#old = { ...old, since: now };
    this.#effects.push({ do: "adopt", link: id });
    if (this.state !== "open") this.#change({ state: "open" });
  }

  /** The gateway of a link said how it is found again. */
  routed(link: number, token: string): void {
    this.#routing = { token, link };
  }

  /** `server_shutdown`: the next connection is opened at this client's own time, before this one is closed. */
  shutdown(id: number, reconnectDelay: number, deadline: number | null, now: number): void {
    this.#unroute(id);
    if (this.#current?.id !== id) return;
    const at = now + reconnectDelay;
    // a deadline in the past is one of a clock that differs
    this.#told = deadline !== null && deadline > now ? Math.min(at, deadline) : at;
    if (!this.#next) this.#openAt = this.#told;
  }

  /** All that was on the old link is on the new one. */
  released(): void {
    const old = this.#old;
    if (!old) return;
    this.#old = undefined;
    this.#close(old.id, NORMAL, "");
  }

  /** A link has ended, or could not be opened. */
  ended(id: number, code: number, reason: string, now: number): void {
    if (advice(code) === "own") this.#unroute(id);
    if (this.#old?.id === id) {
      this.#old = undefined;
      this.#effects.push({ do: "lost", link: id });
    } else if (this.#next?.id === id) {
      this.#next = undefined;
      this.#again(code, reason, now);
    } else if (this.#current?.id === id) {
      if (now - this.#current.since >= STABLE) this.#failures = 0;
      this.#current = undefined;
      this.#effects.push({ do: "lost", link: id });
      if (advice(code) === "stop") this.stop(code, reason);
      else if (this.#next) this.#change({ state: "reconnecting", code, reason });
      else if (this.#openAt === undefined) this.#again(code, reason, now);
      else this.#change({ state: "reconnecting", code, reason, delay: Math.max(0, this.#openAt - now) });
    }
  }

  /** Does what is due. */
  tick(now: number): void {
    const { connectTimeout, pongTimeout } = this.#timing;
    const { connect, ping, pong, handover } = this.#due();
    if (now >= connect) {
      const next = this.#next;
      if (next) this.#fail(next.id, ABNORMAL, `no welcome within ${connectTimeout} ms`, now);
      else this.#open(now);
    }
    if (this.#current && now >= pong) {
      this.#fail(this.#current.id, NO_PONG, `silent for ${pongTimeout} ms after a ping`, now);
    } else if (this.#current && now >= ping) {
      this.#current.pinged = now;
      this.#effects.push({ do: "ping", link: this.#current.id });
    }
    if (now >= handover) this.released();
  }

  /** When {@link tick} is to be called next; `Infinity`: never. */
  wakeup(): number {
    return Math.min(...Object.values(this.#due()));
  }

  #due(): Record<"connect" | "ping" | "pong" | "handover", number> {
    const { connectTimeout, pongTimeout } = this.#timing;
    const [current, next, old] = [this.#current, this.#next, this.#old];
    return {
      connect: next ? next.since + connectTimeout : (this.#openAt ?? Infinity),
      ping: current && current.pinged === undefined ? current.heard + current.pingAfter : Infinity,
      pong: current?.pinged === undefined ? Infinity : current.pinged + pongTimeout,
      handover: old ? old.since + HANDOVER : Infinity,
    };
  }

  #open(now: number): void {
    const id = ++this.#links;
    this.#next = { id, since: now, heard: now, pingAfter: Infinity };
    this.#openAt = undefined;
    this.#effects.push({ do: "open", link: id });
  }

  /** Waits for the next try, as long as the close code says; or stops. */
  #again(code: number, reason: string, now: number): void {
    const ended = { code, failures: this.#failures++, now, told: this.#told };
    const wait = delay(ended, this.#timing.backoff, this.#random);
    if (wait === undefined) {
      this.stop(code, reason);
      return;
    }
    this.#openAt = now + wait;
    if (!this.#current) this.#change({ state: "reconnecting", code, reason, delay: wait });
  }

  /** The gateway of that link goes away: the next connection is not to be led there. */
  #unroute(link: number): void {
    if (this.#routing?.link === link) this.#routing = undefined;
  }

  /** Gives a link up from our side. */
  #fail(id: number, code: number, reason: string, now: number): void {
    this.#effects.push({ do: "close", link: id, code: NORMAL, reason: "" });
    this.ended(id, code, reason, now);
  }

  #close(link: number, code: number, reason: string): void {
    this.#effects.push({ do: "close", link, code, reason }, { do: "lost", link });
  }

  #change(change: StateChange): void {
    this.state = change.state;
    this.#effects.push({ do: "state", change });
  }
}
