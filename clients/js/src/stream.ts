/**
 * What was received of one stream (a room's, or the user's own), over one link or two: each offset is passed on once and
 * in order, whatever link it came on, and what cannot come any more is told. What a link brings before the stream's
 * position on it is known is not looked at: the gateway sends it again, behind that position.
 */
import type { Gap, Joined, Position } from "./messages.js";

/** The messages between two connections did not all come. */
export interface Unrecovered {
  /** `epoch_changed`, `too_old`, `limit`; `unsupported`: the gateway cannot resume. */
  reason: string;
  /** The first and the last offset that is missing, where they can be known. */
  from?: number;
  to?: number;
}

/** Where it goes. */
export interface Sink<Message> {
  message(message: Message): void;
  gap(gap: { from: number; to: number }): void;
  unrecovered(lost: Unrecovered): void;
}

/** What comes on the new link waits until the old one has brought all up to an offset. */
interface Hold {
  link: number;
  upTo: number;
  reason: string;
  kept: (() => void)[];
}

/** What is kept at most while a client moves; then what the old link did not bring counts as lost. */
const KEPT = 1000;

export class Stream<Message extends { offset: number }> {
  /** The last message passed on. */
  position: Position | undefined;
  readonly #sink: Sink<Message>;
  /** The epoch on each link. */
  readonly #links = new Map<number, string>();
  #hold: Hold | undefined;

  constructor(sink: Sink<Message>) {
    this.#sink = sink;
  }

  /** Nothing is awaited from an old link. */
  get settled(): boolean {
    return this.#hold === undefined;
  }

  /** Whether its position on a link is known. */
  isOn(link: number): boolean {
    return this.#links.has(link);
  }

  /** From this position on it comes on a link, too. */
  joined(at: Omit<Joined, "type" | "room">, link: number): void {
    this.#release();
    const { position } = this;
    const { epoch, offset } = at;
    this.#links.set(link, epoch);
    if (!position) {
      this.position = { epoch, offset };
    } else if (position.epoch !== epoch && at.recovered === true) {
      // the new epoch goes on with all that is known here, and what was missed follows
      this.position = { epoch, offset: position.offset };
    } else if (position.epoch !== epoch || at.reason === "epoch_changed") {
      this.position = { epoch, offset };
      this.#sink.unrecovered({ reason: at.reason ?? "epoch_changed" });
    } else if (at.recovered !== true && offset > position.offset) {
      const reason = at.reason ?? "unsupported";
      this.#hold = { link, upTo: offset, reason, kept: [] };
      const shared = [...this.#links].some(([other, its]) => other !== link && its === epoch);
      if (!shared) this.#release();
    }
  }

  /** A message that came on a link. */
  message(message: Message, link: number): void {
    const { offset } = message;
    this.#in(link, (position) => {
      // without history there are no offsets: one link's word is taken
      if (!(offset > 0)) {
        if (link === this.#newest()) this.#sink.message(message);
        return;
      }
      if (offset <= position.offset) return;
      if (offset > position.offset + 1) this.#sink.gap({ from: position.offset + 1, to: offset - 1 });
      position.offset = offset;
      this.#sink.message(message);
    });
  }

  /** The gateway says that messages will not come on a link. */
  gap(gap: Gap, link: number): void {
    const epoch = this.#links.get(link);
    if (epoch !== undefined && epoch !== gap.epoch) {
      this.joined({ epoch: gap.epoch, offset: gap.to }, link);
      return;
    }
    this.#in(link, (position) => {
      if (gap.to <= position.offset) return;
      const from = Math.max(gap.from, position.offset + 1);
      position.offset = gap.to;
      this.#sink.gap({ from, to: gap.to });
    });
  }

  /** Nothing more comes on this link. */
  ended(link: number): void {
    this.#links.delete(link);
    this.#release();
  }

  #newest(): number {
    return Math.max(...this.#links.keys());
  }

  /** Does what a link brought, now or when its turn comes; of another epoch than the last that was joined: never. */
  #in(link: number, what: (position: Position) => void): void {
    const { position } = this;
    if (!position || this.#links.get(link) !== position.epoch) return;
    const hold = this.#hold;
    if (hold?.link === link) {
      hold.kept.push(() => {
        what(position);
      });
      if (hold.kept.length > KEPT) this.#release();
      return;
    }
    what(position);
    if (hold && position.offset >= hold.upTo) this.#release();
  }

  #release(): void {
    const { position } = this;
    const hold = this.#hold;
    if (!hold || !position) return;
    this.#hold = undefined;
    if (position.offset < hold.upTo) {
      const from = position.offset + 1;
      position.offset = hold.upTo;
      this.#sink.unrecovered({ reason: hold.reason, from, to: hold.upTo });
    }
    for (const each of hold.kept) each();
  }
}
