/**
 * Everything that is sent and answered, in order: kept until the answer is there, bounded, and sent again on the next
 * connection when the one it went out on ends before. What is sent again has the `msgId` it had, by which a gateway
 * knows it.
 */
import { WsfleetError } from "./errors.js";
import type { ClientMessage, ServerMessage } from "./messages.js";

/** A message that has one answer. */
export type Request = Exclude<Extract<ClientMessage, { id: string }>, { type: "join" | "resume" }>;

interface Entry {
  message: Request;
  resolve: (answer: never) => void;
  reject: (error: WsfleetError) => void;
  /** The link it was sent on; 0: none yet. */
  link: number;
}

export class Requests {
  readonly #entries = new Map<string, Entry>();
  readonly #max: number;

  constructor(max: number) {
    this.#max = max;
  }

  /** Keeps a message for {@link flush}; the promise is of its answer. */
  add<Answer extends ServerMessage>(message: Request): Promise<Answer> {
    return new Promise((resolve, reject) => {
      if (this.#entries.size >= this.#max) {
        const text = `${this.#max} messages wait already: wait for them, or raise maxPending`;
        reject(new WsfleetError("buffer_full", text, true, msgIdOf(message)));
        return;
      }
      this.#entries.set(message.id, { message, resolve, reject, link: 0 });
    });
  }

  /**
   * Sends on a link what waits, in order, as far as `may` allows. Nothing new goes out while answers are awaited on a
   * link that is being left: the order of what is sent would not be that of the calls.
   */
  flush(link: number, may: (message: Request) => boolean, send: (message: Request) => void): void {
    if ([...this.#entries.values()].some((entry) => entry.link !== 0 && entry.link !== link)) return;
    for (const [id, entry] of this.#entries) {
      if (entry.link !== 0 || !may(entry.message)) continue;
      entry.link = link;
      try {
        send(entry.message);
      } catch (error) {
        this.fail(id, "encoding", String(error));
      }
    }
  }

  /** What was sent on this link, and not answered, waits again. */
  lost(link: number): void {
    for (const entry of this.#entries.values()) {
      if (entry.link === link) entry.link = 0;
    }
  }

  /** Whether an answer is awaited on this link. */
  awaits(link: number): boolean {
    return [...this.#entries.values()].some((entry) => entry.link === link);
  }

  /** An answer; to be known by its `id`, else by its type and room. False: nobody asked. */
  answer(answer: ServerMessage & { id?: string; room?: string }): boolean {
    const id = answer.id ?? this.#find(answer);
    const entry = id === undefined ? undefined : this.#entries.get(id);
    if (id === undefined || !entry) return false;
    this.#entries.delete(id);
    entry.resolve(answer as never);
    return true;
  }

  /** A request is not served. False: there is none. */
  fail(id: string | undefined, code: string, text: string, temporary = false): boolean {
    const entry = id === undefined ? undefined : this.#entries.get(id);
    if (id === undefined || !entry) return false;
    this.#entries.delete(id);
    entry.reject(new WsfleetError(code, text, temporary, msgIdOf(entry.message)));
    return true;
  }

  /** None of these is served. */
  failAll(which: (message: Request) => boolean, { code, message: text, temporary }: WsfleetError): void {
    for (const [id, { message }] of this.#entries) {
      if (which(message)) this.fail(id, code, text, temporary);
    }
  }

  #find({ type, room }: { type: string; room?: string }): string | undefined {
    for (const [id, { message, link }] of this.#entries) {
      if (link !== 0 && message.type === type && "room" in message && message.room === room) return id;
    }
    return undefined;
  }
}

function msgIdOf(message: Request): string | undefined {
  return "msgId" in message ? message.msgId : undefined;
}
