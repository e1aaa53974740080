/** How long to wait before the next connection, so that no two clients come back together. */
import { advice } from "./close.js";

/** Bounds of the back-off, in milliseconds. */
export interface Backoff {
  /** The first bound; doubled with each failure in a row. */
  min: number;
  /** The last bound. */
  max: number;
  /** Within which clients come back that were told to come back soon. */
  window: number;
}

/** What is known when a connection has ended. */
export interface Ended {
  code: number;
  /** Failures in a row before this one. */
  failures: number;
  now: number;
  /** When the gateway asked this client to reconnect, if it did. */
  told: number | undefined;
}

/** "Full jitter": uniform from zero to a bound that doubles with each failure in a row. */
export function fullJitter(failures: number, { min, max }: Backoff, random: () => number): number {
  return random() * Math.min(max, min * 2 ** Math.min(failures, 30));
}

/** Milliseconds until the next connection is opened; `undefined`: never. */
export function delay(ended: Ended, bounds: Backoff, random: () => number): number | undefined {
  const left = Math.max(0, (ended.told ?? 0) - ended.now);
  switch (advice(ended.code)) {
    case "stop":
      return undefined;
    case "own":
      // a time that has passed is everybody's
      return left > 0 ? left : random() * bounds.window;
    case "soon":
      return random() * bounds.window;
    case "overload":
      return Math.max(left, bounds.min + fullJitter(ended.failures, bounds, random));
    case "backoff":
      return Math.min(bounds.max, bounds.min + fullJitter(ended.failures, bounds, random));
    case "cut":
      return fullJitter(ended.failures, bounds, random);
  }
}
