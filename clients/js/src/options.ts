/** How a client is made: options and their defaults. */
import type { Backoff } from "./backoff.js";
import { json } from "./json.js";
import type { Codec } from "./messages.js";
import type { WebSocketConstructor } from "./socket.js";
import type { TokenSource } from "./tokens.js";

/** Time as the client sees it. */
export interface Clock {
  /** Milliseconds since 1970-01-01 UTC. */
  now(): number;
  /** Calls after so many milliseconds; what is returned prevents it. */
  after(milliseconds: number, call: () => void): () => void;
}

/** All durations are milliseconds. */
export interface Options {
  /** Where the gateways are, as `wss://example.com/ws`; a function is asked for each connection. */
  url: string | (() => string);
  /** Who the client is; not there: the gateway asks for none. */
  token?: TokenSource;
  /** Where the token is put: `?token=` (default), or a second subprotocol, which is in no log of a proxy. */
  tokenIn?: "query" | "subprotocol";
  /** Default: JSON. Others: `@wsfleet/client/msgpack`, `@wsfleet/client/proto`. */
  codec?: Codec;
  /** Where there is no global one (Node 20): that of the package `ws`. */
  WebSocket?: WebSocketConstructor;
  /** Messages that may wait for a connection or an answer; one more is refused with `buffer_full`. Default 1000. */
  maxPending?: number;
  /** Bounds of the waits before a reconnect. Default: 1 s, 30 s, window 5 s. */
  backoff?: Partial<Backoff>;
  /** For a connection to be welcomed. Default 10 s. */
  connectTimeout?: number;
  /** For any message after a ping. Default 10 s. */
  pongTimeout?: number;
  /** Silence after which the gateway is pinged. Default: as often as it pings, which it says. */
  pingInterval?: number;
  /** How long before its end a token is replaced. Default 30 s. */
  refreshBefore?: number;
  /** For tests. */
  clock?: Clock;
  /** From 0 to 1, for tests. */
  random?: () => number;
}

/** The machine's own time. */
const clock: Clock = {
  now: () => Date.now(),
  after: (milliseconds, call) => {
    const timer = setTimeout(call, milliseconds);
    return () => {
      clearTimeout(timer);
    };
  },
};

/** With all that was not said. */
export type Settings = ReturnType<typeof settings>;

/** Throws when there is no WebSocket. */
export function settings(options: Options) {
  const WebSocket = options.WebSocket ?? (globalThis as { WebSocket?: WebSocketConstructor }).WebSocket;
  if (!WebSocket)
    throw new TypeError("there is no global WebSocket: give one as an option, such as that of the package ws");
  return {
    tokenIn: "query",
    codec: json,
    maxPending: 1000,
    connectTimeout: 10_000,
    pongTimeout: 10_000,
    refreshBefore: 30_000,
    clock,
    random: Math.random,
    ...options,
    WebSocket,
    backoff: { min: 1_000, max: 30_000, window: 5_000, ...options.backoff },
  };
}
