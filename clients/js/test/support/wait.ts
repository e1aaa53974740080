/** Awaiting conditions, with a deadline that is far beyond what they take. */
import { setTimeout as pause } from "node:timers/promises";

const DEADLINE = 60_000;

/** Awaits what is not `undefined` or false. */
export async function until<Value>(
  what: string,
  look: () => Value | Promise<Value>,
  within = DEADLINE,
): Promise<NonNullable<Value>> {
  const deadline = performance.now() + within;
  for (;;) {
    const value = await look();
    if (value !== undefined && value !== null && value !== false) return value;
    if (performance.now() > deadline) throw new Error(`gave up waiting until ${what}`);
    await pause(5);
  }
}
