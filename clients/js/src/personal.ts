/** The user's own stream of direct messages: all of the user's connections get it, so while a client moves it comes twice. */
import type { DirectMessage, Position } from "./messages.js";

/** Offsets that are remembered: far more than can be under way on two links. */
const REMEMBERED = 1000;

export class Personal {
  readonly #deliver: (message: DirectMessage) => void;
  #epoch: string | undefined;
  /** A set, since an old link may be behind the new one. */
  readonly #seen = new Set<number>();
  /** What came on the new link while the old one is not read to its end: it would come before what is older. */
  #held: DirectMessage[] | undefined;

  constructor(deliver: (message: DirectMessage) => void) {
    this.#deliver = deliver;
  }

  /** Where it is, when the gateway said which epoch that is. */
  get position(): Position | undefined {
    return this.#epoch === undefined ? undefined : { epoch: this.#epoch, offset: Math.max(0, ...this.#seen) };
  }

  /** A new link, beside the old one or not. What was seen counts on only if it is the same stream. */
  adopted(beside: boolean, at: Position | undefined): void {
    this.caughtUp();
    if (at ? at.epoch !== this.#epoch : !beside) this.#seen.clear();
    this.#epoch = at?.epoch;
    if (at && this.#seen.size === 0) this.#seen.add(at.offset);
    if (beside) this.#held = [];
  }

  /** A message that came on the link in use, or on the old one. */
  message(message: DirectMessage, current: boolean): void {
    if (!current || !this.#held) this.#once(message);
    else if (this.#held.push(message) > REMEMBERED) this.caughtUp();
  }

  /** The old link is read as far as it matters, or has ended. */
  caughtUp(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const message of held) this.#once(message);
  }

  #once(message: DirectMessage): void {
    const { offset } = message;
    if (offset > 0) {
      if (this.#seen.has(offset)) return;
      this.#seen.add(offset);
      const [oldest] = this.#seen;
      if (this.#seen.size > REMEMBERED && oldest !== undefined) this.#seen.delete(oldest);
    }
    this.#deliver(message);
  }
}
