/** Time that passes when a test says so. */
import type { Clock } from "../../src/options.js";

export class VirtualClock implements Clock {
  #now = 1_800_000_000_000;
  #timers: { at: number; call: () => void }[] = [];

  now(): number {
    return this.#now;
  }

  after(milliseconds: number, call: () => void): () => void {
    const timer = { at: this.#now + milliseconds, call };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  /** When the next timer is due, from now; `Infinity`: there is none. */
  get due(): number {
    return Math.min(...this.#timers.map(({ at }) => at)) - this.#now;
  }

  /** Lets time pass; what is due is called at its time. */
  advance(milliseconds: number): void {
    const end = this.#now + milliseconds;
    for (;;) {
      const [first] = this.#timers.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at);
      if (!first) break;
      this.#timers = this.#timers.filter((timer) => timer !== first);
      this.#now = Math.max(this.#now, first.at);
      first.call();
    }
    this.#now = end;
  }
}
