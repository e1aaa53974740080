/** Close codes: what each tells the client to do (RFC 6455 §7.4, and 4000-4299 of the gateway's own). */

/**
 * - `stop`: does not reconnect: it was asked for, or would end the same way again
 * - `own`: reconnects after the delay that its `server_shutdown` named
 * - `overload`: backs off, at least as long as told
 * - `cut`: backs off, from at once to a bound that doubles with each failure in a row
 * - `backoff`: the same, and for a second at least
 * - `soon`: reconnects at a random time within the reconnect window
 */
export type Advice = "stop" | "own" | "overload" | "cut" | "backoff" | "soon";

/** What to do after a close with this code. */
export function advice(code: number): Advice {
  switch (code) {
    case 1001:
    case 1012:
      return "own";
    case 1013:
      return "overload";
    case 1005: // a close frame without a code
    case 1006: // no close frame
    case 1011: // a fault of the server
    case 1014: // of a proxy
    case 1015: // of TLS
      return "cut";
    default:
      if (code >= 4100 && code < 4200) return "backoff";
      return code >= 4200 && code < 4300 ? "soon" : "stop";
  }
}
