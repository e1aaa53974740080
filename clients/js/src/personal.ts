/** The user's own stream of direct messages: all of the user's connections get it, so while a client moves it comes twice. */
import type { Position } from "./messages.js";

/** Offsets that are remembered: far more than can be under way on two links. */
const REMEMBERED = 1000;

export class Personal {
  #epoch: string | undefined;
  /** In the order in which they came: two links may differ in that. */
  readonly #seen = new Set<number>();

  /** Where it is, when the gateway said which epoch that is. */
  get position(): Position | undefined {
    return this.#epoch === undefined ? undefined : { epoch: this.#epoch, offset: Math.max(0, ...this.#seen) };
  }

  /** A new link, beside the old one or not. What was seen counts on only if it is the same stream. */
  adopted(beside: boolean, at: Position | undefined): void {
    if (at ? at.epoch !== this.#epoch : !beside) this.#seen.clear();
    this.#epoch = at?.epoch;
    if (at && this.#seen.size === 0) this.#seen.add(at.offset);
  }

  /** Whether this message is new. */
  accept({ offset }: { offset: number }): boolean {
    if (!(offset > 0)) return true;
    if (this.#seen.has(offset)) return false;
    this.#seen.add(offset);
    const [oldest] = this.#seen;
    if (this.#seen.size > REMEMBERED && oldest !== undefined) this.#seen.delete(oldest);
    return true;
  }
}
